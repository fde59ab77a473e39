"""What a batch knows of its jobs and what they saved: a folder OUT with

    state.json     for the next start
    results.csv    to read
    lock           held while a batch writes here
    NAME/          the files that job NAME saved

Every file is written as a whole or not at all, so that a stop at any time loses no finished job.
"""

import contextlib
import csv
import errno
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import jobs as tables
import pack
import strict_json
from answers import is_number, one_line
from prompts import ClientError

MAX_TRIES = 3  # of a job in which the server goes away: it may be the job that takes it down
COLUMNS = ("name", "state", "seconds", "files", "error")
DONE, FAILED, QUEUED = "done", "failed", "queued"
STATES = (DONE, FAILED, QUEUED)
# With these no other job's files can be written either; all other errors are of one job's names.
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE}


class Results:
    """The folder ``out``. Raises OSError where it cannot be written."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.state = out / "state.json"
        self.jobs: dict[str, dict] = {}

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one batch, and read what is known. Raises JobsError where another one holds it."""
        self.out.mkdir(parents=True, exist_ok=True)
        with (self.out / "lock").open("a+b") as file:
            try:
                _lock(file.fileno())
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                    raise
                raise tables.JobsError(
                    [f"--out: another batch is writing to {self.out}. Wait for it, or choose another folder."]
                ) from None
            self.jobs = self._read_state()
            if self.jobs:  # a batch may have been killed between the two files
                self._write_table()
            yield

    def of(self, job: tables.Job) -> dict:
        """The record of ``job``; an empty one where it is another job's: a changed one runs anew."""
        record = self.jobs.get(job.name, {})
        return record if record.get("key") == job.key else {}

    def finished(self, job: tables.Job) -> bool:
        record = self.of(job)
        return record.get("state") == DONE and all(map(self._is_there, record["files"]))

    def write(self, job: tables.Job, **facts) -> None:
        self.jobs[job.name] = {"files": [], **self.of(job), **facts, "key": job.key}
        self.out.mkdir(parents=True, exist_ok=True)
        _replace(self.state, json.dumps(self.jobs, indent=1).encode())
        self._write_table()

    def _write_table(self) -> None:
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        for name, known in self.jobs.items():
            writer.writerow({"name": name, **known, "files": "\n".join(known["files"])})
        _replace(self.out / "results.csv", table.getvalue().encode())

    def keep(self, job: tables.Job, files: list[tuple[object, bytes]], seconds: float) -> None:
        """Write what ``job`` saved, under the names that the server gives; only then it is done.

        It fails where a name is not one inside its folder. Of two files of one name, the second gets a number.
        """
        try:
            paths = self._paths(job, [name for name, _ in files])
            for path, (_, content) in zip(paths, files):
                path.parent.mkdir(parents=True, exist_ok=True)
                _replace(path, content)
        except (ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno in DISK_ERRORS:
                raise
            self.fail(job, error)
            return
        names = [path.relative_to(self.out).as_posix() for path in paths]
        self.write(job, state=DONE, files=names, seconds=round(seconds, 1), error="")
        print(f"{job.name}: {', '.join(names) or 'nothing saved'}", flush=True)

    def contents(self, job: tables.Job) -> dict | None:
        """What is to be uploaded for ``job``. It fails, and this is None, where a file has gone."""
        try:
            return job.contents()
        except OSError as error:
            self.fail(job, error)
            return None

    def fail(self, job: tables.Job, error: Exception) -> None:
        reason = one_line(error)
        self.write(job, state=FAILED, error=reason, files=[], tries=0)
        print(f"{job.name}: {reason}", file=sys.stderr, flush=True)

    def count_try(self, job: tables.Job, error: Exception) -> bool:
        """Whether ``job`` may be tried again, after the server went away under it."""
        tries = self.of(job).get("tries", 0) + 1
        self.write(job, tries=tries)
        if tries >= MAX_TRIES:
            self.fail(job, ClientError(f"the server went away {tries} times under it ({error})"))
        return tries < MAX_TRIES

    def _paths(self, job: tables.Job, names: list[object]) -> list[Path]:
        """Where the files go, numbered where several have one name. Raises ValueError."""
        safe_path = pack.load_file("models/safe_path.py")
        folder = safe_path.path_inside(self.out, job.name, "name")
        paths: list[Path] = []
        for name in names:
            path = safe_path.path_inside(folder, name, "the server's answer")
            paths.append(safe_path.unused_path(path, paths, replace=True))
        return paths

    def _is_there(self, name: str) -> bool:
        with contextlib.suppress(ValueError, OSError):
            return pack.load_file("models/safe_path.py").path_inside(self.out, name, "state.json").is_file()
        return False

    def _read_state(self) -> dict[str, dict]:
        """The records of state.json; what is damaged is told and runs anew."""
        try:
            told = strict_json.read(self.state)
        except FileNotFoundError:
            return {}
        except ValueError as error:
            print(f"{self.state} is damaged ({error}); its jobs run again", file=sys.stderr, flush=True)
            return {}
        records = told if isinstance(told, dict) else {}
        sound = {name: record for name, record in records.items() if _is_record(record)}
        if told != sound:
            damaged = ", ".join(name for name in records if name not in sound) or "all"
            print(
                f"{self.state} has damaged records; these jobs run again: {one_line(damaged)}",
                file=sys.stderr,
                flush=True,
            )
        return sound


def _is_record(record: object) -> bool:
    """Whether ``record`` is one that Results.write() has written."""
    return (
        isinstance(record, dict)
        and record.get("state", QUEUED) in STATES
        and all(isinstance(record.get(key, ""), str) for key in ("key", "prompt_id", "error"))
        and all(is_number(record.get(key, 0)) for key in ("tries", "seconds"))
        and isinstance(record.get("files"), list)
        and all(isinstance(name, str) for name in record["files"])
    )


def _replace(path: Path, content: bytes) -> None:
    """Write the file whole, or leave the one that is there."""
    with pack.load_file("models/whole_file.py").whole(path) as partial:
        partial.write_bytes(content)


def _lock(descriptor: int) -> None:
    """Lock the open file until it is closed. Raises OSError where another process has locked it."""
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
