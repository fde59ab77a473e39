"""The host's tokens in the names of files that nodes save."""

import time

import folder_paths
import pytest
from animate_anywhere.nodes import save_names

NOW = time.struct_time((2026, 3, 7, 9, 5, 2, 5, 66, 0))


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    for name in ("output", "temp"):
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(tmp_path / name))
    monkeypatch.setattr(time, "localtime", lambda *_: NOW)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "expanded"),
    [
        ("plain/shot", "plain/shot"),
        ("%year%-%month%-%day%/%hour%%minute%%second%", "2026-03-07/090502"),
        ("shot_%width%x%height%", "shot_640x480"),
        ("%date:yyyy-MM-dd%/shot", "2026-03-07/shot"),
        ("%date:yy-M-d_h-m-s%", "26-3-7_9-5-2"),
        ("%date:hhmmss%", "090502"),
        ("%date:yyyy/MM%/shot", "2026/03/shot"),
        ("%date:hh:mm%", "09_05"),
        ("100%", "100%"),
        ("%unknown%", "%unknown%"),
        (r"a\%year%", r"a\2026"),
    ],
)
def test_tokens_are_filled_in(name, expanded):
    assert save_names.expand_tokens(name, 640, 480) == expanded


def test_nothing_is_made_in_the_output_folder(folders):
    save_names.expand_tokens("%year%/%month%/shot", 640, 480)
    assert not (folders / "output").exists()


@pytest.mark.parametrize("name", ["%date:yyyy%/shot_%second%", "%hour%%minute%", "a[1]_%day%"])
def test_a_pattern_finds_the_names_of_other_times(folders, name):
    path = folders / "output" / save_names.expand_tokens(name, 640, 480)
    path.mkdir(parents=True)
    assert [*(folders / "output").glob(save_names.pattern_of(name, 640, 480))] == [path]


@pytest.mark.parametrize("prefix", ["../pose", "/tmp/pose", "a/../../pose", "C:\\pose", "", "con", 7, "x" * 300])
def test_a_prefix_outside_the_output_folder_names_the_input(prefix):
    with pytest.raises(ValueError, match="^filename_prefix: "):
        save_names.output_prefix(prefix, 640, 480)
