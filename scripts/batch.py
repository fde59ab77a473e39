"""Run a table of jobs against a workflow on a ComfyUI server, and bring the results home.

    python scripts/batch.py jobs.csv --workflow workflows/api/animate.json --out results/

jobs.csv:  name,Driving video.file,Character.image,Sample shot.seed
           anna,dance.mp4,anna.png,1
           bert,dance.mp4,bert.png,2

One column a widget, "NODE.INPUT"; files are uploaded. The whole table is checked before anything is queued. What a job
saves goes to OUT/NAME/, how it went to OUT/results.csv. Start it again after a stop: finished jobs are not run twice,
and those that the server still has are picked up. The exit status is 0 when every job is there.

With --ray, one ComfyUI for each GPU or machine is started for the batch (scripts/farm.py), and gone after it.
"""

import argparse
import contextlib
import csv
import json
import os
import shlex
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import client
import jobs as tables

AHEAD = 2  # jobs that the server has at once, so that it never waits for us
TRIES = 3  # of a job in which the server goes away: it may be the job that takes it down
PATIENCE_S = 600.0  # how long a server may be gone
COLUMNS = ("name", "state", "seconds", "files", "error")
DONE, FAILED, QUEUED = "done", "failed", "queued"


class Results:
    """What is known of each job, in OUT/state.json for the next start and in OUT/results.csv to read."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.state = out / "state.json"
        self.jobs: dict[str, dict] = {}
        if self.state.exists():
            self.jobs = json.loads(self.state.read_text())

    def of(self, job: tables.Job) -> dict:
        """The record of ``job``; an empty one where it is another job's: a changed one runs anew."""
        record = self.jobs.get(job.name, {})
        return record if record.get("key") == job.key else {}

    def finished(self, job: tables.Job) -> bool:
        record = self.of(job)
        return record.get("state") == DONE and all((self.out / path).is_file() for path in record["files"])

    def write(self, job: tables.Job, **facts) -> None:
        record = {**self.of(job), **facts, "key": job.key}
        self.jobs[job.name] = record
        self.out.mkdir(parents=True, exist_ok=True)
        replace(self.state, json.dumps(self.jobs, indent=1))
        table = self.out / "results.csv"
        with (partial := table.with_suffix(".part")).open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
            writer.writeheader()
            for name, known in self.jobs.items():
                writer.writerow({"name": name, **known, "files": " ".join(known.get("files", []))})
        os.replace(partial, table)

    def keep(self, job: tables.Job, files: dict[str, bytes], seconds: float) -> None:
        """Write what ``job`` saved; only then it is done."""
        folder = self.out / job.name
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            replace(folder / name, content)
        paths = [str(Path(job.name) / name) for name in files]
        self.write(job, state=DONE, files=paths, seconds=round(seconds, 1), error="")
        print(f"{job.name}: {', '.join(paths) or 'nothing saved'}", flush=True)

    def fail(self, job: tables.Job, error: Exception) -> None:
        self.write(job, state=FAILED, error=str(error), files=[], tries=0)
        print(f"{job.name}: {error}", file=sys.stderr, flush=True)

    def count_try(self, job: tables.Job, error: Exception) -> bool:
        """Whether ``job`` may be tried again, after the server went away under it."""
        tries = self.of(job).get("tries", 0) + 1
        self.write(job, tries=tries)
        if tries >= TRIES:
            self.fail(job, client.ClientError(f"the server went away {tries} times under it ({error})"))
        return tries < TRIES


def replace(path: Path, content: str | bytes) -> None:
    """Write the file whole, or leave the one that is there."""
    partial = path.with_name(f"{path.name}.part")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(partial, path)


class Batch:
    """Jobs through one server, in order, up to ``AHEAD`` of them queued at a time."""

    def __init__(self, url: str, results: Results, patience: float = PATIENCE_S) -> None:
        self.url = url
        self.results = results
        self.patience = patience
        self.queued: deque[tuple[tables.Job, str]] = deque()
        self.ahead = AHEAD
        self.job: tables.Job | None = None  # that is being queued or followed just now

    def run(self, waiting: list[tables.Job]) -> None:
        """Until all are done or failed. Raises client.Gone when the server stays away, OSError when nothing can be
        written; what was queued is then picked up by the next run. Ctrl-C takes it out of the server's queue."""
        waiting, gone = deque(waiting), None
        while waiting or self.queued:
            try:
                with client.Client(self.url) as connection:
                    gone = None
                    self._work(connection, waiting)
            except client.Gone as error:
                gone = gone or time.monotonic()
                if time.monotonic() - gone > self.patience:
                    raise
                print(f"{error}; trying again", flush=True)
                waiting.extendleft(job for job, _ in reversed(self.queued))  # their records say where to find them
                self.queued.clear()
                if self.job and not self.results.count_try(self.job, error):
                    waiting.remove(self.job)
                # One at a time, until one is done: so it is seen which of them the server does not bear.
                self.job, self.ahead = None, 1
                time.sleep(min(5.0, self.patience / 10))

    def known(self) -> dict:
        with client.Client(self.url) as connection:
            return connection.known()

    def _work(self, connection: client.Client, waiting: deque[tables.Job]) -> None:
        try:
            while waiting or self.queued:
                while waiting and len(self.queued) < self.ahead:
                    self.job = waiting[0]
                    self._queue(connection, waiting[0])
                    waiting.popleft()
                if self.queued:
                    self.job = self.queued[0][0]
                    self._follow(connection, *self.queued[0])
                    self.queued.popleft()
                    self.ahead = AHEAD
        except KeyboardInterrupt:
            for _, prompt_id in self.queued:
                with contextlib.suppress(client.ClientError):
                    connection.cancel(prompt_id)
            raise

    def _queue(self, connection: client.Client, job: tables.Job) -> None:
        """Queue ``job``, unless an earlier run did and the server still has it."""
        record = self.results.of(job)
        known = record.get("prompt_id") if record.get("state") == QUEUED else None
        if known and (known in connection.queued() or connection.succeeded(known)):
            self.queued.append((job, known))
            return
        try:
            prompt_id = connection.queue(tables.uploaded(connection, job.prompt, job.contents()))
        except client.Gone:
            raise
        except client.ClientError as error:
            self.results.fail(job, error)
            return
        self.results.write(job, state=QUEUED, prompt_id=prompt_id, error="")
        self.queued.append((job, prompt_id))

    def _follow(self, connection: client.Client, job: tables.Job, prompt_id: str) -> None:
        history = connection.history(prompt_id)
        try:
            if not history:
                print(f"{job.name}:", flush=True)
                history = connection.follow(prompt_id, job.prompt)
            client.check_succeeded(history)
        except client.Gone:
            raise
        except client.ClientError as error:
            self.results.fail(job, error)
            return
        self.results.keep(job, connection.saved(history), client.seconds_of(history))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="jobs, .csv or .json")
    parser.add_argument("--workflow", type=Path, required=True, help="in the API form")
    parser.add_argument("--server", default="http://127.0.0.1:8188")
    parser.add_argument("--out", type=Path, required=True, help="folder for results")
    parser.add_argument("--patience", type=float, default=PATIENCE_S, help="seconds a server may be gone (600)")
    farm = parser.add_argument_group("a farm, instead of --server", "needs Ray (pip install ray)")
    farm.add_argument(
        "--ray", nargs="?", const="", metavar="ADDRESS",
        help="start a ComfyUI for each GPU, or for each machine where there is none: of this machine, or of the Ray "
        "cluster at ADDRESS (auto: the one that this machine is part of)",
    )  # fmt: skip
    farm.add_argument("--servers", type=int, default=0, help="how many, instead")
    farm.add_argument(
        "--comfyui", default="", metavar="COMMAND",
        help='what starts ComfyUI on every machine, such as "/opt/ComfyUI/venv/bin/python /opt/ComfyUI/main.py" '
        "(default: the one of `make host`)",
    )  # fmt: skip
    options = parser.parse_args()
    try:
        return run(options)
    except tables.JobsError as error:
        print(error, file=sys.stderr)
        return 2
    except (client.ClientError, OSError) as error:
        print(f"{error}. Start it again to go on.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; start it again to go on", file=sys.stderr)
        return 130


def run(options: argparse.Namespace) -> int:
    prompt, rows = tables.read(options.workflow, options.table)
    results = Results(options.out)
    with servers(options, results) as batch:
        checked = tables.check(rows, prompt, batch.known(), options.table.parent)
        left = [job for job in checked if not results.finished(job)]
        print(f"{len(checked)} jobs, {len(checked) - len(left)} of them done before", flush=True)
        batch.run(left)
    missing = [job.name for job in checked if not results.finished(job)]
    if missing:
        print(f"not there: {', '.join(missing)}; see {options.out / 'results.csv'}", file=sys.stderr)
    return 1 if missing else 0


@contextlib.contextmanager
def servers(options: argparse.Namespace, results: Results) -> Iterator[Batch]:
    """What runs the jobs: the one server there is, or a farm of our own."""
    if options.ray is None:
        yield Batch(options.server, results, options.patience)
        return
    import farm  # and Ray, which is optional

    with farm.started(options.ray, options.servers, shlex.split(options.comfyui)) as workers:
        yield farm.Farm(workers, results, options.patience)


if __name__ == "__main__":
    sys.exit(main())
