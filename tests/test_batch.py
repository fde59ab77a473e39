"""Batches of jobs through a running ComfyUI, with the host's own nodes: they are quick."""

import csv
import errno
import json
import os
import re
import threading
import time
from pathlib import Path

import batch
import client
import comfyui
import host as hosts
import jobs
import numpy as np
import pytest
import toy_server
from PIL import Image

pytestmark = pytest.mark.e2e

WORKFLOW = {
    "1": {"class_type": "LoadImage", "inputs": {"image": ""}, "_meta": {"title": "Picture"}},
    "2": {
        "class_type": "ImageScale",
        "inputs": {"image": ["1", 0], "upscale_method": "bilinear", "width": 32, "height": 32, "crop": "disabled"},
        "_meta": {"title": "Size"},
    },
    "3": {
        "class_type": "SaveImage",
        "inputs": {"images": ["2", 0], "filename_prefix": "out"},
        "_meta": {"title": "Save"},
    },
}


@pytest.fixture(scope="module")
def server():
    with comfyui.running(hosts.get(), with_pack=False, life=600) as running:
        yield running


@pytest.fixture(scope="module")
def known(server):
    with client.Client(server.url) as connection:
        return json.loads(connection.get("object_info"))


@pytest.fixture
def folder(tmp_path):
    """A workflow and two pictures."""
    (tmp_path / "workflow.json").write_text(json.dumps(WORKFLOW))
    for name, level in (("dark.png", 20), ("light.png", 200)):
        Image.fromarray(np.full((48, 64, 3), level, np.uint8)).save(tmp_path / name)
    return tmp_path


@pytest.fixture
def start(folder, server, monkeypatch):
    """start(table, *options): the exit status of the script."""

    def start(table: str, *options: str, url: str = server.url) -> int:
        (folder / "jobs.csv").write_text(table)
        words = [folder / "jobs.csv", "--workflow", folder / "workflow.json", "--server", url, "--out", folder / "out"]
        monkeypatch.setattr("sys.argv", ["batch.py", *map(str, words), *options])
        return batch.main()

    return start


def table(folder):
    with (folder / "out" / "results.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def ran(server) -> int:
    with client.Client(server.url) as connection:
        return len(json.loads(connection.get("history")))


TWO = "name,Picture.image,Size.width\nsmall,dark.png,16\nwide,light.png,128\n"


def test_every_job_gets_its_own_inputs_and_folder(start, folder):
    assert start(TWO) == 0
    sizes = {}
    for name, row in table(folder).items():
        with Image.open(folder / "out" / row["files"]) as picture:
            sizes[name] = (*picture.size, picture.getpixel((0, 0))[0])
        assert row["state"] == "done" and row["files"].startswith(f"{name}/")
    assert sizes == {"small": (16, 32, 20), "wide": (128, 32, 200)}


def test_what_is_done_is_not_done_again_and_what_changed_is(start, folder, server):
    assert start(TWO) == 0
    before = ran(server)
    assert start(TWO) == 0
    assert ran(server) == before
    Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(folder / "dark.png")
    assert start(TWO) == 0
    assert ran(server) == before + 1
    (folder / "out" / table(folder)["wide"]["files"]).unlink()
    assert start(TWO) == 0
    assert ran(server) == before + 2


def test_a_job_that_fails_is_told_and_the_others_are_done(start, folder):
    (folder / "broken.png").write_bytes(b"no picture")
    assert start(TWO + "bad,broken.png,16\nlast,dark.png,48\n") == 1
    rows = table(folder)
    assert [rows[name]["state"] for name in ("small", "wide", "last")] == ["done"] * 3
    assert rows["bad"]["state"] == "failed" and rows["bad"]["error"].startswith("Picture:")


def test_a_job_that_the_server_still_has_is_picked_up(start, folder, server, known):
    """As after a stop between queueing and fetching."""
    assert start(TWO) == 0
    state = json.loads((folder / "out" / "state.json").read_text())
    state["small"] |= {"state": "queued", "files": []}
    (folder / "out" / "state.json").write_text(json.dumps(state))
    before = ran(server)
    assert start(TWO) == 0
    assert ran(server) == before and table(folder)["small"]["state"] == "done"


def test_a_server_that_goes_away_is_waited_for(start, folder):
    """It is killed after the first job, and another one starts in its place."""
    port, host = comfyui.free_port(), hosts.get()
    rows = "name,Picture.image,Size.width\n" + "".join(f"job{i},dark.png,{16 + i}\n" for i in range(12))
    up = threading.Event()

    def serve() -> None:
        with comfyui.running(host, with_pack=False, life=300, port=port) as first:
            up.set()
            while not ((folder / "out" / "job0").exists() or ended.is_set()):
                time.sleep(0.01)
            first.process.kill()
        with comfyui.running(host, with_pack=False, life=300, port=port):
            ended.wait()

    ended = threading.Event()
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert up.wait(300)
        assert start(rows, url=f"http://127.0.0.1:{port}") == 0
    finally:
        ended.set()
        thread.join()
    assert [row["state"] for row in table(folder).values()] == ["done"] * 12


def test_a_picture_that_another_job_may_be_reading_is_not_written_again(start, folder, server):
    """A server opens what it overwrites anew: a job that reads it just then finds an empty file."""
    assert start(TWO) == 0
    pictures = [path for path in (server.folder / "input").iterdir() if path.is_file()]
    for path in pictures:
        os.utime(path, (1, 1))
    assert start(TWO.replace("128", "130").replace("16", "18")) == 0
    assert pictures and all(path.stat().st_mtime == 1 for path in pictures)


def test_half_a_picture_that_a_killed_server_left_is_not_taken_for_the_whole(start, folder, server):
    Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(folder / "dark.png")
    half = server.folder / "input" / f"{jobs.digest(folder / 'dark.png')}-dark.png"
    half.write_bytes((folder / "dark.png").read_bytes()[:100])
    assert start(TWO) == 0
    with Image.open(folder / "out" / table(folder)["small"]["files"]) as picture:
        assert picture.getpixel((0, 0))[0] == 90


def test_a_job_whose_files_the_server_never_takes_whole_is_given_up(start, folder, monkeypatch):
    """A stand-in for a server, or what lies before it, that breaks off each time it is sent this one."""
    put, broken = client.Client.put_input, []

    def put_input(connection, name: str, content: bytes) -> str:
        if name.endswith("light.png"):
            broken.append(name)
            assert len(broken) < 10, "it is sent without end"
            raise client.Gone("gone")
        return put(connection, name, content)

    monkeypatch.setattr(client.Client, "put_input", put_input)
    assert start("name,Picture.image\nwide,light.png\nsmall,dark.png\n", "--patience", "1") == 1
    rows = table(folder)
    assert rows["small"]["state"] == "done"
    assert rows["wide"]["state"] == "failed" and "3 times" in rows["wide"]["error"]


def test_a_file_that_is_too_large_for_the_server_is_told_with_what_to_do(start, folder, known):
    (folder / "light.png").write_bytes(bytes(101 << 20))
    assert start(TWO) == 1
    assert re.search(r"light\.png: 101\.0 MiB, .* at most 100 MiB; .*--max-upload-size", table(folder)["wide"]["error"])


def test_a_server_that_stays_away_is_an_error_that_says_so(start, capsys):
    assert start(TWO, "--patience", "1", url=f"http://127.0.0.1:{comfyui.free_port()}") == 1
    assert "no ComfyUI at" in capsys.readouterr().err


def test_a_job_in_which_the_server_always_goes_away_is_given_up(folder, server, known):
    """A stand-in for a server that dies of one job."""
    results = batch.Results(folder / "out")
    (job,) = jobs.check([jobs.Job("deadly", 2, {"Picture.image": "dark.png"})], WORKFLOW, known, folder)

    class Deadly(batch.Batch):
        def _follow(self, *_) -> None:
            raise client.Gone("gone")

    Deadly(server.url, results, patience=1).run([job])
    assert results.of(job)["state"] == "failed" and "3 times" in results.of(job)["error"]


def test_a_folder_that_cannot_be_written_ends_it_and_loses_nothing(start, folder, server, capsys):
    (folder / "out").write_text("a file in the way")
    assert start(TWO) == 1
    assert "out" in capsys.readouterr().err
    (folder / "out").unlink()
    assert start(TWO) == 0


def test_all_that_is_wrong_with_a_table_is_told_at_once_and_nothing_runs(start, server, capsys):
    before = ran(server)
    rows = "name,Picture.image,Size.width,Size.depth,Nobody.x\na,gone.png,many,1,1\nb,dark.png,-3,1,1\nc,,8,1,1\n"
    assert start(rows) == 2
    told = capsys.readouterr().err.splitlines()
    wanted = (
        "gone.png",
        "'many' is not a whole number",
        "-3 is not within",
        "no widget 'depth'",
        "Nobody",
        "has no image",
    )
    assert len(told) == len(wanted)
    assert all(any(words in line for line in told) for words in wanted)
    assert ran(server) == before


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("Picture.image\ndark.png\n", 'no column "name"'),
        ("name\na\na\n", "taken by a row above"),
        ("name\n../a\n", "its name is '../a'"),
        ("name,Size.width\n", "there is no job in it"),
    ],
)
def test_a_table_that_is_none(start, capsys, rows, message):
    assert start(rows) == 2
    assert message in capsys.readouterr().err


def test_a_workflow_as_the_page_saves_it_is_refused_with_the_other_one_s_place(capsys):
    with pytest.raises(jobs.JobsError, match="API form is needed. It is there: .*api/animate.json"):
        jobs.read_workflow(hosts.CLONE / "workflows" / "animate.json")


def test_nothing_hides_what_else_is_wrong(start, folder, capsys):
    """Neither a workflow that is none, nor a missing node, nor an unfit name."""
    (folder / "workflow.json").write_text(json.dumps(WORKFLOW | {"4": {"class_type": "Elsewhere", "inputs": {}}}))
    assert start("name,Picture.image,Size.depth\n../a,gone.png,1\n") == 2
    told = capsys.readouterr().err
    assert all(words in told for words in ("no node Elsewhere", "name is '../a'", "gone.png", "no widget 'depth'"))
    (folder / "workflow.json").write_text("{")
    assert start("Picture.image\ndark.png\n") == 2
    told = capsys.readouterr().err
    assert "workflow.json: no workflow" in told and 'no column "name"' in told


def test_a_job_that_the_server_refuses_is_told_in_its_words(start, folder):
    unsaved = {node: entry for node, entry in WORKFLOW.items() if entry["class_type"] != "SaveImage"}
    (folder / "workflow.json").write_text(json.dumps(unsaved))
    assert start("name,Picture.image\na,dark.png\n") == 1
    assert table(folder)["a"]["state"] == "failed" and "no outputs" in table(folder)["a"]["error"]


def test_a_disk_that_is_full_ends_it_and_the_next_start_goes_on(start, folder, server, capsys, monkeypatch):
    write, full = Path.write_bytes, True

    def limited(path: Path, content: bytes) -> int:
        if full and path.name.startswith("out_") and path.parent.name == "wide":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", limited)
    assert start(TWO) == 1
    assert "No space left on device" in (told := capsys.readouterr().err) and "Start it again" in told
    before, full = ran(server), False
    assert start(TWO) == 0
    assert ran(server) == before  # what the server has made is fetched


def test_a_table_in_json(folder, known):
    (folder / "jobs.json").write_text(json.dumps([{"name": "a", "Picture.image": "dark.png", "Size.width": 24}]))
    (job,) = jobs.check(jobs.read_table(folder / "jobs.json"), WORKFLOW, known, folder)
    assert job.prompt["2"]["inputs"]["width"] == 24
    assert job.files == {("1", "image"): (folder / "dark.png").resolve()}


@pytest.mark.parametrize("answer", ["breaks off", "is that of a proxy in front of it"])
def test_a_server_that_does_not_answer_to_the_end_is_gone(answer):
    with toy_server.ToyServer().running() as server:
        server.files["view"], server.breaks = (bytes(623), [5]) if answer == "breaks off" else (502, [])
        connection = object.__new__(client.Client)  # its socket needs a ComfyUI
        connection.url = server.url
        with pytest.raises(client.Gone, match=f"{server.url}/view"):
            connection.get("view")


def test_a_file_whose_name_another_one_has_on_the_server_is_used_all_the_same(folder, server, monkeypatch, capsys):
    """As the client of one prompt does it, which uploads files under their own names."""
    words = [folder / "workflow.json", "--server", server.url, "--upload", folder / "same.png", "--out", folder / "out"]
    monkeypatch.setattr("sys.argv", ["client.py", *map(str, words), "--set", "Picture.image=same.png"])
    for level in (30, 60):
        Image.fromarray(np.full((48, 64, 3), level, np.uint8)).save(folder / "same.png")
        assert client.main() == 0
        with Image.open(capsys.readouterr().out.split()[-1]) as picture:
            assert picture.getpixel((0, 0))[0] == level
