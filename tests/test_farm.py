"""A batch on a local Ray: two actors with a ComfyUI each, one of which is killed while it has a job."""

import contextlib
import json
import signal
import threading
import urllib.request

import batch
import host as hosts
import numpy as np
import psutil
import pytest
from PIL import Image
from test_batch import WORKFLOW, table

pytest.importorskip("ray", reason="Ray is not installed (pip install ray)")
pytestmark = pytest.mark.e2e

JOBS = [f"job{number}" for number in range(10)]


@pytest.fixture
def start(tmp_path, monkeypatch):
    """start(jobs): the exit status of the script, on two ComfyUIs without custom nodes."""
    (tmp_path / "workflow.json").write_text(json.dumps(WORKFLOW))
    Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(tmp_path / "grey.png")

    def start(names: list[str], comfyui: str) -> int:
        rows = "".join(f"{name},grey.png,{16 + number}\n" for number, name in enumerate(names))
        (tmp_path / "jobs.csv").write_text(f"name,Picture.image,Size.width\n{rows}")
        words = [tmp_path / "jobs.csv", "--workflow", tmp_path / "workflow.json", "--out", tmp_path / "out"]
        farm = ["--ray", "--servers", "2", "--comfyui", comfyui]
        monkeypatch.setattr("sys.argv", ["batch.py", *map(str, words), *farm])
        return batch.main()

    return start


@pytest.fixture
def comfyui():
    host = hosts.get()
    return f"{host.python} {host.root / 'main.py'} --disable-all-custom-nodes --disable-api-nodes"


class Killer(threading.Thread):
    """Stops the first actor that has done a job, and kills it when the other one has done all but the one it holds."""

    def __init__(self, out) -> None:
        super().__init__(daemon=True)
        self.out = out
        self.over = threading.Event()
        self.others = self.below()  # the ComfyUI of all tests has done something, too, and its parent is this process
        self.seen = set()  # every process that was started since
        self.killed = False

    def run(self) -> None:
        victim = None
        while not self.over.wait(0.1):
            new = self.below() - self.others
            self.seen.update(new)
            victim = victim or next((actor for process in new if (actor := self.worked(process))), None)
            if victim and not self.killed and len(list(self.out.glob("job*/out_*.png"))) == len(JOBS) - 1:
                victim.send_signal(signal.SIGKILL)
                self.killed = True

    @staticmethod
    def below() -> set[psutil.Process]:
        return set(psutil.Process().children(recursive=True))

    def worked(self, process: psutil.Process) -> psutil.Process | None:
        """The actor of the ComfyUI that is ``process``, stopped, if it has done something."""
        with contextlib.suppress(psutil.NoSuchProcess, OSError):
            words = process.cmdline()
            if "--port" not in words or not any(word.endswith("main.py") for word in words):
                return None
            url = f"http://127.0.0.1:{words[words.index('--port') + 1]}/history"
            with urllib.request.urlopen(url, timeout=1) as answer:
                if json.load(answer):
                    actor = process.parent()
                    actor.suspend()
                    return actor
        return None


def test_ten_jobs_on_two_actors_one_of_which_is_killed_in_the_middle(start, comfyui, tmp_path, capsys):
    killer = Killer(tmp_path / "out")
    killer.start()
    try:
        assert start(JOBS, comfyui) == 0
    finally:
        killer.over.set()
        killer.join()
    assert killer.killed
    rows = table(tmp_path)
    assert {name: row["state"] for name, row in rows.items()} == dict.fromkeys(JOBS, "done")
    for number, name in enumerate(JOBS):
        with Image.open(tmp_path / "out" / rows[name]["files"]) as picture:
            assert picture.size == (16 + number, 32)
    state = json.loads((tmp_path / "out" / "state.json").read_text())
    assert sum(record.get("tries", 0) for record in state.values()) == 1, "the killed one had no job"
    told = capsys.readouterr().out.splitlines()
    starts = [sum(line == f"{name}: started" for line in told) for name in JOBS]
    assert sorted(starts) == [1] * 9 + [2], "only the lost job is run again"
    _, alive = psutil.wait_procs(killer.seen, timeout=20)
    assert not [" ".join(process.cmdline()) for process in alive]
