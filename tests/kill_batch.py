"""Run a batch again and again, killed at its 1st, 2nd, 3rd, … file operation, and after each time to its end.

    kill_batch.py SCRIPTS OUT START TABLE --workflow … --server …

START is the folder of results that each batch finds.

Prints what was found wrong as JSON: {"operations": how many there are, "problems": [words]}.
"""

import json
import os
import shutil
import sys
from pathlib import Path

KILLED = 77
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.truncate")


def kill_at(number: int, folder: Path) -> None:
    """End this process before its ``number``-th change below ``folder``, without any cleaning up."""
    seen = 0

    def watch(event: str, arguments: tuple) -> None:
        nonlocal seen
        changes = event in CHANGES or (event == "open" and arguments[2] & WRITES)
        if changes and str(arguments[0]).startswith(str(folder)):
            seen += 1
            if seen == number:
                os._exit(KILLED)

    sys.addaudithook(watch)


def run(words: list[str], number: int, out: Path) -> int:
    """The exit status of the batch in a process of its own."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with open(os.devnull, "w") as nowhere:
        sys.stdout = sys.stderr = nowhere
        sys.argv = ["batch.py", *words, "--out", str(out)]
        if number:
            kill_at(number, out)
        os._exit(batch.main())


def done(out: Path) -> dict[str, bytes]:
    """The files of the jobs that state.json says are done. Raises if it or one of them cannot be read."""
    state = json.loads((out / "state.json").read_bytes()) if (out / "state.json").exists() else {}
    names = [name for record in state.values() if record.get("state") == "done" for name in record["files"]]
    return {name: (out / name).read_bytes() for name in names}


def main(out: Path, start: Path, words: list[str]) -> None:
    problems, number = [], 0
    while True:
        number += 1
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(start, out)
        status = run(words, number, out)
        try:
            before = done(out)
            if status == KILLED and run(words, 0, out):
                problems.append(f"killed at {number}: the next start fails")
            after = done(out)
        except (OSError, ValueError) as error:
            problems.append(f"killed at {number}: {error!r}")
            continue
        if any(after.get(name) != content for name, content in before.items()):
            problems.append(f"killed at {number}: a finished job is lost or ran again")
        if left := [path.name for path in out.rglob("*.part")]:
            problems.append(f"killed at {number}: {left} are left")
        if status != KILLED:
            break
    print(json.dumps({"operations": number - 1, "problems": problems}))


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    import batch
    import client

    client.POLL_S = 0.01
    main(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
