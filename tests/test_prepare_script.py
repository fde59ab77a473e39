"""scripts/prepare.py with arguments and datasets that are wrong: one line, and no traceback."""

import importlib.util
import json

import host as hosts
import pytest
from animate_anywhere.training import configuration, dataset, prepare

DATA = configuration.Data(frames=5, sizes=((64, 48), (48, 64)), fps=10.0)


@pytest.fixture
def main(monkeypatch, tmp_path):
    """main(*words): the exit status of the script, on a folder with one video that is none."""
    spec = importlib.util.spec_from_file_location("prepare_script", hosts.CLONE / "scripts" / "prepare.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"no video")

    def main(*words) -> int:
        monkeypatch.setattr("sys.argv", ["prepare.py", "tiny-cpu", str(tmp_path / "videos"), *map(str, words)])
        return script.main()

    return main


def test_a_dataset_that_is_a_file_is_one_line(main, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(tmp_path / "file") == 1
    told = capsys.readouterr().err
    assert told.startswith("prepare: ") and "file" in told and len(told.splitlines()) == 1


def test_a_sheet_of_no_samples_is_refused(main, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(tmp_path / "out", "--sheet", tmp_path / "sheet.png", "--samples", "0")
    assert "--samples is 0" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "7", "[" * 100_000])
def test_a_video_whose_entry_is_damaged_is_prepared_anew(main, tmp_path, content):
    folder = tmp_path / "out"
    (job,) = prepare.jobs(tmp_path / "videos", folder, DATA)
    prepare.prepare(job)
    assert job.done()
    (job.target / dataset.ENTRY).write_text(content)
    assert not job.done()
    prepare.prepare(job)
    assert job.done()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "[" * 100_000])
def test_a_damaged_entry_of_a_dataset_is_named(tmp_path, content):
    entry = tmp_path / dataset.VIDEOS / "a-0" / dataset.ENTRY
    entry.parent.mkdir(parents=True)
    entry.write_text(content)
    with pytest.raises(ValueError, match=rf"^{entry} is damaged"):
        dataset.read_entries(tmp_path)


def test_damaged_settings_of_a_dataset_are_named(main, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / dataset.SETTINGS).write_text("{")
    assert main(tmp_path / "out") == 1
    assert f"{dataset.SETTINGS} is damaged" in capsys.readouterr().err


def test_a_caption_is_utf_8(main, tmp_path):
    (tmp_path / "videos" / "a.txt").write_bytes("\ufeffÄtna\n".encode())
    (job,) = prepare.jobs(tmp_path / "videos", tmp_path / "out", DATA)
    assert prepare.prepare(job)["caption"] == "Ätna"
    assert json.loads((job.target / dataset.ENTRY).read_text(encoding="utf-8"))["caption"] == "Ätna"
