"""Names from outside become paths inside their folder, or one error."""

import pytest
from animate_anywhere.models.safe_path import MAX_NAME_BYTES, path_inside, unused_path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.png", "a.png"),
        ("sub/a.png", "sub/a.png"),
        ("sub\\a.png", "sub/a.png"),
        ("./a.png", "a.png"),
        ("日本語 (2).png", "日本語 (2).png"),
        ("..hidden.png", "..hidden.png"),
    ],
)
def test_keeps_names_inside(tmp_path, name, expected):
    assert path_inside(tmp_path, name, "output") == tmp_path / expected


@pytest.mark.parametrize(
    "name",
    [
        "../a.png", "sub/../../a.png", "..\\a.png", "/etc/passwd", "\\\\server\\share\\a", "C:\\a.png", "C:a.png",
        "", "  ", ".", "a\0b", "a\nb", "x" * (MAX_NAME_BYTES + 1), "é" * MAX_NAME_BYTES, "a/" * 20 + "b",
        "state.json", "sub/State.JSON", "results.csv", "film.mp4.part", "lock", "con", "NUL.txt", "Com1.png",
        "ends in dot.", "ends in space ", None, 7, ["a"], {"a": 1},
    ],
)  # fmt: skip
def test_refuses_names_that_lead_out_or_are_reserved(tmp_path, name):
    with pytest.raises(ValueError, match=r"^output: "):
        path_inside(tmp_path, name, "output")


def test_refuses_a_link_that_leads_outside(tmp_path):
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (folder / "link").symlink_to(outside, target_is_directory=True)
    with pytest.raises(ValueError, match="outside folder/"):
        path_inside(folder, "link/a.png", "output")
    assert path_inside(folder, "link/a.png", "output", follow_links=True) == folder / "link" / "a.png"


def test_shortens_a_long_name_in_the_error(tmp_path):
    with pytest.raises(ValueError) as error:
        path_inside(tmp_path, "x" * 100_000, "output")
    assert len(str(error.value)) < 250


def test_numbers_collisions(tmp_path):
    path = tmp_path / "a.png"
    assert unused_path(path) == path
    path.touch()
    assert unused_path(path) == tmp_path / "a (1).png"
    assert unused_path(path, {tmp_path / "a (1).png"}) == tmp_path / "a (2).png"


def test_counts_a_broken_link_as_taken(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "nowhere")
    assert unused_path(tmp_path / "a.png") == tmp_path / "a (1).png"
