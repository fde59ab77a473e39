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
import shlex
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import client
import jobs as tables
from answers import seconds_of
from results import QUEUED, Results

MAX_QUEUED = 2  # jobs that the server has at once, so that it never waits for us
PATIENCE_S = 600.0  # how long a server may be gone


class Batch:
    """Jobs through one server, in order, up to ``MAX_QUEUED`` of them queued at a time."""

    def __init__(self, url: str, results: Results, patience: float = PATIENCE_S) -> None:
        self.url = client.server_url(url)
        self.results = results
        self.patience = patience
        self.queued: deque[tuple[tables.Job, str]] = deque()
        self.ahead = MAX_QUEUED
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
                    with self._failing(self.job):
                        self._queue(connection, self.job)
                    waiting.popleft()
                if self.queued:
                    self.job = self.queued[0][0]
                    with self._failing(self.job):
                        self._follow(connection, *self.queued[0])
                    self.queued.popleft()
                    self.ahead = MAX_QUEUED
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
        contents = self.results.contents(job)
        if contents is None:
            return
        prompt_id = connection.queue(tables.uploaded(connection, job.prompt, contents))
        self.results.write(job, state=QUEUED, prompt_id=prompt_id, error="")
        self.queued.append((job, prompt_id))

    def _follow(self, connection: client.Client, job: tables.Job, prompt_id: str) -> None:
        history = connection.history(prompt_id)
        if history:
            client.check_succeeded(history, job.prompt)
        else:
            print(f"{job.name}:", flush=True)
            history = connection.follow(prompt_id, job.prompt)
        self.results.keep(job, connection.saved(history), seconds_of(history))

    @contextlib.contextmanager
    def _failing(self, job: tables.Job) -> Iterator[None]:
        """What the server refuses of ``job``, or answers wrongly, is the job's failure."""
        try:
            yield
        except client.Gone:
            raise
        except client.ClientError as error:
            self.results.fail(job, error)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="jobs, .csv or .json")
    parser.add_argument("--workflow", type=Path, required=True, help="in the API form")
    parser.add_argument("--server", default=client.DEFAULT_URL, help=f"its address (default: {client.DEFAULT_URL})")
    parser.add_argument(
        "--files-from", type=Path, metavar="DIR", help="folder that the table's files lie in (default: the table's own)"
    )
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
    if not options.patience >= 0:  # not a number is neither
        parser.error(f"--patience is {options.patience}; it must be 0 or more seconds")
    try:
        return run(options)
    except (tables.JobsError, client.AddressError) as error:
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
    with results.lock(), servers(options, results) as batch:
        checked = tables.check(rows, prompt, batch.known(), options.files_from or options.table.parent)
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

    try:
        words = shlex.split(options.comfyui)
    except ValueError as error:
        raise tables.JobsError([f"--comfyui: {options.comfyui} is not a command ({error})"]) from None
    with farm.started(options.ray, options.servers, words) as workers:
        yield farm.Farm(workers, results, options.patience)


if __name__ == "__main__":
    sys.exit(main())
