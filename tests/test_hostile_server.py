"""Batches and single runs against a server whose answers are wrong or hostile: nothing is written
outside, one bad job fails by itself with its reason, and the rest goes on."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import answers
import batch
import client
import host as hosts
import pytest
import results
import toy_comfyui


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(client, "POLL_S", 0.01)
    with toy_comfyui.ToyComfyUI().running() as running:
        yield running


@pytest.fixture
def folder(tmp_path):
    """A folder within another one, with a workflow and two pictures."""
    inner = tmp_path / "table"
    inner.mkdir()
    (inner / "workflow.json").write_text(json.dumps(toy_comfyui.WORKFLOW))
    (inner / "dark.png").write_bytes(b"dark")
    (tmp_path / "secret.png").write_bytes(b"secret")
    return inner


@pytest.fixture
def start(folder, server, monkeypatch):
    """start(rows, *options): the exit status of the batch of a CSV table."""

    def start(rows: str, *options: str) -> int:
        (folder / "jobs.csv").write_text(rows, encoding="utf-8")
        words = [folder / "jobs.csv", "--workflow", folder / "workflow.json", "--server", server.url]
        words += ["--out", folder / "out", "--patience", "1", *options]
        monkeypatch.setattr("sys.argv", ["batch.py", *map(str, words)])
        return batch.main()

    return start


def rows_of(folder):
    with (folder / "out" / "results.csv").open(newline="", encoding="utf-8") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def tree(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


TWO = "name,Picture.image,Save.width\nbad,dark.png,16\ngood,dark.png,48\n"
ONE = "name,Picture.image\na,dark.png\n"


OWN = ("lock", "results.csv", "state.json")


# --- names from the server --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../../x.png", "..\\x.png", "/tmp/x.png", "C:\\x.png", "con.png", "state.json", "results.csv", "lock",
        "out.png.part", "x" * 256, "", "a\0b", "a\nb", None, 7, ["a"], {"a": 1},
    ],
)  # fmt: skip
def test_a_name_that_is_no_file_name_fails_its_job_and_writes_nothing(start, server, folder, name):
    server.outputs = [{"filename": name, "subfolder": "", "type": "output"}]
    before = tree(folder.parent)
    assert start(ONE) == 1
    row = rows_of(folder)["a"]
    assert row["state"] == "failed" and row["error"]
    assert tree(folder.parent) - before == {
        f"table/{name}" for name in ("jobs.csv", "out/lock", "out/results.csv", "out/state.json")
    }


def test_a_name_with_a_folder_stays_inside(start, server, folder):
    server.outputs = [{"filename": "sub/out.png", "subfolder": "", "type": "output"}]
    assert start(ONE) == 0
    assert (folder / "out" / "a" / "sub" / "out.png").is_file()


def test_two_files_of_one_name_are_both_kept(start, server, folder):
    """From two subfolders, and in upper case, which is the same file on many disks."""
    names = [("out.png", "one"), ("out.png", "two"), ("OUT.png", "")]
    server.outputs = [{"filename": name, "subfolder": below, "type": "output"} for name, below in names]
    assert start(ONE) == 0
    assert rows_of(folder)["a"]["files"].splitlines() == ["a/out.png", "a/out (1).png", "a/OUT (2).png"]
    assert all((folder / "out" / name).is_file() for name in rows_of(folder)["a"]["files"].splitlines())


def test_a_job_that_runs_again_writes_over_its_own_files(start, server, folder):
    assert start(ONE) == 0
    (folder / "dark.png").write_bytes(b"changed")
    assert start(ONE) == 0
    assert tree(folder / "out") == {*OWN, "a/out.png"}


def test_a_link_in_the_results_does_not_lead_out(start, folder, tmp_path):
    (folder / "out").mkdir()
    (folder / "out" / "a").symlink_to(tmp_path, target_is_directory=True)
    assert start(ONE) == 1
    assert "outside" in rows_of(folder)["a"]["error"] and not (tmp_path / "out.png").exists()


def test_a_single_run_refuses_such_a_name_in_one_line(server, folder, monkeypatch, capsys):
    server.outputs = [{"filename": "../../x.png", "subfolder": "", "type": "output"}]
    assert run_client(monkeypatch, server, folder, "--set", "Picture.image=there.png") == 1
    told = capsys.readouterr().err
    assert told.startswith("the server's answer: '../../x.png' leads outside") and len(told.splitlines()) == 1


def test_a_single_run_numbers_what_would_overwrite(server, folder, monkeypatch):
    for _ in range(2):
        assert run_client(monkeypatch, server, folder, "--set", "Picture.image=there.png") == 0
    assert tree(folder / "single") == {"out.png", "out (1).png"}


def run_client(monkeypatch, server, folder, *options) -> int:
    words = [folder / "workflow.json", "--server", server.url, "--out", folder / "single", *options]
    monkeypatch.setattr("sys.argv", ["client.py", *map(str, words)])
    return client.main()


# --- uploads ----------------------------------------------------------------------------------------------------------


def test_two_uploads_of_one_base_name_stay_two(start, server, folder):
    for name in ("one", "two"):
        (folder / name).mkdir()
        (folder / name / "same.png").write_bytes(name.encode())
    assert start("name,Picture.image\na,one/same.png\nb,two/same.png\n") == 0
    contents = dict(server.uploads)
    used = [contents[prompt["1"]["inputs"]["image"]] for prompt in server.prompts.values()]
    assert used == [b"one", b"two"]


def test_two_uploads_of_one_base_name_are_told_apart_by_their_paths(server, folder, monkeypatch, capsys):
    for name in ("one", "two"):
        (folder / name).mkdir()
        (folder / name / "same.png").write_bytes(name.encode())
    uploads = [word for name in ("one", "two") for word in ("--upload", folder / name / "same.png")]
    assert run_client(monkeypatch, server, folder, *uploads, "--set", "Picture.image=same.png") == 1
    assert "have one name" in capsys.readouterr().err and not server.prompts
    chosen = f"Picture.image={folder / 'one' / 'same.png'}"
    assert run_client(monkeypatch, server, folder, *uploads, "--set", chosen) == 0
    assert [content for _, content in server.uploads] == [b"one", b"two"]


@pytest.mark.parametrize("name", ["é" * 120 + ".png", 'a"b.png', "a\\b.png"])
def test_a_file_of_an_odd_name_is_uploaded(server, folder, name, monkeypatch):
    (folder / name).write_bytes(b"odd")
    assert run_client(monkeypatch, server, folder, "--upload", folder / name, "--set", f"Picture.image={name}") == 0
    assert server.uploads[0][1] == b"odd" and '"' not in server.uploads[0][0]


def test_the_name_of_an_upload_fits_into_a_file_system(start, server, folder):
    name = "é" * 98 + ".png"
    (folder / name).write_bytes(b"long")
    assert start(f"name,Picture.image\na,{name}\n") == 0
    assert len(server.uploads[0][0].encode()) <= 200 and server.uploads[0][0].endswith("é.png")


@pytest.mark.parametrize("name", ["../secret.png", "ABSOLUTE", "link.png"])
def test_a_table_uploads_nothing_from_outside_its_folder(start, server, folder, name, capsys):
    (folder / "link.png").symlink_to(folder.parent / "secret.png")
    name = str(folder.parent / "secret.png") if name == "ABSOLUTE" else name
    assert start(f"name,Picture.image\na,{name}\n") == 2
    told = capsys.readouterr().err
    assert "leads outside" in told and "--files-from" in told and not server.uploads


def test_files_come_from_the_folder_that_is_named(start, server, folder):
    assert start("name,Picture.image\na,secret.png\n", "--files-from", str(folder.parent)) == 0
    assert [content for _, content in server.uploads] == [b"secret"]


def test_a_file_that_goes_before_its_turn_fails_its_job_alone(start, server, folder, monkeypatch):
    contents = batch.tables.Job.contents

    def gone(job) -> dict:
        if job.name == "bad":
            raise FileNotFoundError(2, "No such file", "dark.png")
        return contents(job)

    monkeypatch.setattr(batch.tables.Job, "contents", gone)
    assert start(TWO) == 1
    assert [row["state"] for row in rows_of(folder).values()] == ["failed", "done"]


# --- answers that are wrong -------------------------------------------------------------------------------------------

DEEP = b"[" * 100_000


@pytest.mark.parametrize("answer", [(404, b""), (500, b"{}"), (403, b"<html>")])
def test_a_file_that_the_server_does_not_give_fails_its_job_alone(start, server, folder, answer):
    server.wrong["view 16"] = answer
    assert start(TWO) == 1
    rows = rows_of(folder)
    assert [row["state"] for row in rows.values()] == ["failed", "done"]
    assert f"Error {answer[0]}" in rows["bad"]["error"]


HISTORIES = [
    b"", b"no json", DEEP, b"[]", b"null", b"\xff", b'{"id0": []}', b'{"id0": {"status": []}}',
    b'{"id0": {"outputs": 7, "status": {"status_str": "success"}}}',
    b'{"id0": {"outputs": {"2": {"images": [{"type": "output"}]}}, "status": {"status_str": "success"}}}',
    b'{"id0": {"status": {"status_str": "error", "messages": [7, [], ["execution_error", 7], '
    b'["execution_error", {"node_id": [], "exception_message": "\\ud800 broke\\nhere"}]]}}}',
]  # fmt: skip


@pytest.mark.parametrize("history", HISTORIES)
def test_a_history_that_makes_no_sense_fails_its_job_alone(start, server, folder, history):
    server.wrong["history 16"] = 200, history
    assert start(TWO) == 1
    rows = rows_of(folder)
    assert [row["state"] for row in rows.values()] == ["failed", "done"]
    assert rows["bad"]["error"] and "\n" not in rows["bad"]["error"]


@pytest.mark.parametrize("place", ["prompt", "upload/image", "features"])
@pytest.mark.parametrize("answer", [b"no json", DEEP, b"[]", b'{"prompt_id": 7, "name": []}', b'{"node_errors": 1}'])
def test_another_answer_that_makes_no_sense_is_a_reason(start, server, folder, place, answer):
    server.wrong[place] = 200, answer
    status = start(ONE)
    row = rows_of(folder)["a"]
    assert (status, row["state"]) in ((1, "failed"), (0, "done"))  # features without a size limit are fine
    assert row["state"] == "done" or row["error"]


@pytest.mark.parametrize("answer", [b"no json", DEEP, b"[]"])
def test_a_server_that_is_no_comfyui_is_one_line(start, server, answer, capsys):
    server.wrong["object_info"] = 200, answer
    assert start(ONE) == 1
    told = capsys.readouterr().err
    assert "/object_info" in told and len(told.splitlines()) == 1


@pytest.mark.parametrize(
    "answer", [{"LoadImage": 7}, {"LoadImage": {"input": {"required": {"image": [{}]}}}, "SaveImage": {"input": []}}]
)
def test_inputs_that_the_server_describes_oddly_are_taken_as_they_are(start, server, answer):
    server.wrong["object_info"] = 200, json.dumps({"SaveImage": None, **answer}).encode()
    assert start("name,Save.width,Picture.image\na,16,dark.png\n") == 0


def test_a_node_that_the_server_lacks_is_told(start, server, capsys):
    server.wrong["object_info"] = 200, b'{"LoadImage": {}}'
    assert start(ONE) == 2
    assert "the server has no node SaveImage" in capsys.readouterr().err


def test_the_reason_of_a_failed_node_comes_from_the_history_too():
    history = {"status": {"messages": [["execution_error", {"node_id": "1", "exception_message": "it\nbroke"}]]}}
    with pytest.raises(client.ClientError, match="^Picture: it broke$"):
        answers.check_succeeded(history, toy_comfyui.WORKFLOW)


# --- connections ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [True, False], ids=["it is cut", "there is none"])
def test_a_websocket_that_does_not_last_is_no_lost_server(start, server, folder, cuts):
    server.websocket = cuts
    history, asked = server.history, []

    def later(prompt_id: str) -> dict:
        asked.append(prompt_id)
        return history(prompt_id) if len(asked) > 4 else {}

    server.history = later
    server.wrong["queue"] = 200, json.dumps({"queue_running": [[0, "id0"]], "queue_pending": []}).encode()
    assert start(ONE) == 0
    assert server.handshakes > 1 and rows_of(folder)["a"]["state"] == "done"


def test_a_prompt_that_the_server_forgets_is_tried_again(start, server, folder):
    history, forgotten = server.history, ["id0"]
    server.history = lambda prompt_id: {} if prompt_id in forgotten else history(prompt_id)
    assert start(ONE) == 0
    assert len(server.prompts) == 2 and rows_of(folder)["a"]["state"] == "done"


@pytest.mark.parametrize(
    "address",
    ["", " ", "http://", "ftp://a", "file:///etc/passwd", "a:b", "a:99999", "http://a b", "a\nb", "::1", "x" * 100,
     "u:p@host", "http://host?x=1", "http://[::1"],
)  # fmt: skip
def test_an_odd_address_is_one_line(start, address, capsys):
    assert start(ONE, "--server", address) == 2
    told = capsys.readouterr().err
    assert told.startswith("--server: ") and "127.0.0.1:8188" in told and len(told.splitlines()) == 1


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1:8188", "http://127.0.0.1:8188"),
        ("HTTP://a:1/", "http://a:1"),
        (" https://a/comfy/ ", "https://a/comfy"),
        ("[::1]:8188", "http://[::1]:8188"),
    ],
)
def test_an_address_may_be_short(address, url):
    assert client.server_url(address) == url


@pytest.mark.parametrize("patience", ["nan", "-1"])
def test_a_patience_that_is_no_time_is_refused(start, patience, capsys):
    with pytest.raises(SystemExit):
        start(ONE, "--patience", patience)
    assert "--patience is" in capsys.readouterr().err


def test_a_command_that_is_none_is_one_line(start, capsys):
    assert start(ONE, "--ray", "--comfyui", 'python "main.py') == 2
    assert capsys.readouterr().err.startswith("--comfyui: ")


def test_a_server_does_not_lead_to_another_scheme(start, server, folder):
    server.redirects["features"] = "ftp://127.0.0.1/x"
    assert start(ONE) == 1
    assert "not an address of http" in rows_of(folder)["a"]["error"]


# --- the results' folder ----------------------------------------------------------------------------------------------


def test_a_second_batch_on_one_folder_says_so(start, folder, capsys):
    with results.Results(folder / "out").lock():
        assert start(ONE) == 2
    assert "another batch is writing to" in capsys.readouterr().err
    assert start(ONE) == 0


STATES = [
    b"", b"{", DEEP, b"[]", b"null", b"\xff\xfe", b'{"a": 7}', b'{"a": {}}', b'{"a": {"files": [7]}}',
    b'{"a": {"state": [], "files": []}}', b'{"a": {"key": 7, "files": []}}', b'{"a": {"tries": "x", "files": []}}',
    b'{"a": {"files": [], "seconds": NaN}}', b'{"a": {"files": [], "tries": ' + b"9" * 5000 + b"}}",
]  # fmt: skip


@pytest.mark.parametrize("content", STATES)
def test_a_damaged_state_is_told_and_its_jobs_run_again(start, folder, content, capsys):
    (folder / "out").mkdir()
    (folder / "out" / "state.json").write_bytes(content)
    assert start(ONE) == 0
    assert "damaged" in capsys.readouterr().err and rows_of(folder)["a"]["state"] == "done"


def test_a_state_that_names_files_elsewhere_does_not_make_a_job_done(start, folder, server):
    assert start(ONE) == 0
    state = json.loads((folder / "out" / "state.json").read_text())
    state["a"]["files"] = ["../../secret.png"]
    (folder / "out" / "state.json").write_text(json.dumps(state))
    assert start(ONE) == 0
    assert len(server.prompts) == 2


def test_half_a_file_of_a_killed_batch_is_not_taken_for_the_whole(start, folder, server):
    (folder / "out" / "a").mkdir(parents=True)
    (folder / "out" / "a" / "out.png.part").write_bytes(b"half")
    assert start(ONE) == 0
    assert "id0" in json.loads((folder / "out" / "a" / "out.png").read_bytes())
    assert not (folder / "out" / "a" / "out.png.part").exists()


def test_a_file_where_a_jobs_folder_goes_fails_that_job_alone(start, folder):
    (folder / "out").mkdir()
    (folder / "out" / "bad").write_text("in the way")
    assert start(TWO) == 1
    assert [row["state"] for row in rows_of(folder).values()] == ["failed", "done"]


def test_a_kill_at_any_file_operation_loses_nothing(start, server, folder):
    """Of a batch with a job that is done and one that is new. A result's content tells the prompt that it is of, so a
    job that ran again would be seen."""
    server.outputs.append({"filename": "sub/out.png", "subfolder": "", "type": "output"})
    assert start("name,Picture.image\na,dark.png\n") == 0
    (folder / "jobs.csv").write_text("name,Picture.image\na,dark.png\nb,dark.png\n")
    begun = (folder / "out").rename(folder.parent / "begun")
    before = tree(folder)
    words = [hosts.CLONE / "scripts", folder / "out", begun, folder / "jobs.csv"]
    words += ["--workflow", folder / "workflow.json", "--server", server.url]
    driver = [sys.executable, Path(__file__).with_name("kill_batch.py"), *words]
    told = subprocess.run([*map(str, driver)], stdout=subprocess.PIPE, check=True, timeout=300).stdout
    found = json.loads(told)
    assert found["problems"] == [] and found["operations"] > 20
    saved = {f"out/{name}/{path}" for name in "ab" for path in ("out.png", "sub/out.png")}
    assert tree(folder) - before == {*saved, *(f"out/{name}" for name in OWN)}
    assert [row["state"] for row in rows_of(folder).values()] == ["done", "done"]
