"""Run ComfyUI for a while: on a folder of its own, with this pack as its only custom node, and gone at the end.

python scripts/comfyui.py          start it in a temporary folder and keep it until Ctrl-C
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import host as hosts

# Loaded here and not in the forked process, where only few things are safe.
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
PR_SET_PDEATHSIG = 1

# What the host does with a custom node at its start, after all else that it imports by then.
IMPORT_TIMER = """
import asyncio, sys, time
root, pack = sys.argv[1:]
sys.path.insert(0, root)
sys.argv = ["main.py", "--cpu"]
import comfy.options
comfy.options.enable_args_parsing()
import nodes, server
asyncio.run(nodes.init_builtin_extra_nodes())
started = time.perf_counter()
assert asyncio.run(nodes.load_custom_node(pack))
print(time.perf_counter() - started)
"""
# On the CPU, ComfyUI's own choice of attention takes 1.4 times as long as PyTorch's.
ON_CPU = ("--cpu", "--use-pytorch-cross-attention")
# A server that nobody ends ends itself after this time.
LIFE_S = 30 * 60


class ServerError(Exception):
    """ComfyUI did not start; the last lines of its log say why."""


@dataclass(frozen=True)
class Server:
    url: str
    folder: Path  # the base directory: input/, output/, custom_nodes/
    log: Path
    process: subprocess.Popen
    start_s: float  # seconds from the start to the first answer

    def log_text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def log_tail(self) -> str:
        return tail(self.log)


@contextmanager
def running(
    host: hosts.Host, folder: Path | None = None, with_pack: bool = True, timeout: float = 180, life: int = LIFE_S,
    port: int = 0,
) -> Iterator[Server]:  # fmt: skip
    """ComfyUI of ``host`` on the CPU, answering at ``Server.url``; it ends with the block, whatever happens in it.

    ``folder`` is its base directory (a temporary one if None). ``timeout`` s to answer, ``life`` s at most to live.
    ``port``: 0 for any that is free.
    """
    with tempfile.TemporaryDirectory(prefix="comfyui-") as temporary:
        folder, port = Path(folder or temporary).resolve(), port or free_port()
        lay_out(folder, with_pack)
        with serving(command(host, folder, port), folder, port, timeout, life) as server:
            yield server


@contextmanager
def installed(words: list[str], cpu: bool, timeout: float = 600) -> Iterator[Server]:
    """The ComfyUI that the command ``words`` starts (an artist's own, with its models and nodes), on the processor if
    ``cpu``. Its port and what it reads, writes and remembers are its own, in a temporary folder, so that any number
    run side by side."""
    with tempfile.TemporaryDirectory(prefix="comfyui-") as temporary:
        folder, port = Path(temporary).resolve(), free_port()
        folders = [f"--{name}-directory={folder / name}" for name in ("input", "output", "temp", "user")]
        for name in ("input", "output", "user"):
            (folder / name).mkdir()
        started = [*words, *addressed(folder, port), *folders, *(ON_CPU if cpu else ())]
        with serving(started, folder, port, timeout, life=0) as server:
            yield server


@contextmanager
def serving(words: list[str], folder: Path, port: int, timeout: float, life: int) -> Iterator[Server]:
    """The process of ``words`` from its first answer at ``port`` until the end of the block."""
    started, log = time.monotonic(), folder / "server.log"
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            words,
            cwd=folder,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=partial(tie_to_parent, life),
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url, process, log, timeout)
        yield Server(url, folder, log, process, time.monotonic() - started)
    finally:
        end(process)


def tie_to_parent(life: int) -> None:
    """In the new process, before ComfyUI runs in it: end with the parent, after ``life`` s at the latest (0: none)."""
    signal.alarm(life)  # outlives exec, and kills who does not expect it
    if LIBC:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def lay_out(folder: Path, with_pack: bool) -> None:
    for name in ("custom_nodes", "input", "output", "user", "models"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    link = folder / "custom_nodes" / hosts.LINK
    link.unlink(missing_ok=True)
    if with_pack:
        link.symlink_to(hosts.CLONE, target_is_directory=True)


def command(host: hosts.Host, folder: Path, port: int) -> list[str]:
    words = [str(host.python), str(host.root / "main.py"), "--base-directory", str(folder), "--disable-api-nodes"]
    return [*words, *addressed(folder, port), *ON_CPU]


def addressed(folder: Path, port: int) -> list[str]:
    """Options for any ComfyUI that is started here."""
    # Its own database: the default one lies in ComfyUI's folder, where two servers at once would fight for it.
    database = f"sqlite:///{folder / 'user' / 'comfyui.db'}"
    return ["--listen", "127.0.0.1", "--port", str(port), "--database-url", database, "--disable-auto-launch"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])


def wait_for(url: str, process: subprocess.Popen, log: Path, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            with urllib.request.urlopen(f"{url}/queue", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            pass
        if process.poll() is not None:
            raise ServerError(f"ComfyUI ended with status {process.returncode} while starting:\n{tail(log)}")
        if time.monotonic() > deadline:
            raise ServerError(f"ComfyUI did not answer within {timeout:.0f} s:\n{tail(log)}")
        time.sleep(0.1)


def end(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def import_seconds() -> float:
    """What the pack adds to the host's start: the import and the schemas. The host prints it with one digit only."""
    host = hosts.get()
    command = [str(host.python), "-c", IMPORT_TIMER, str(host.root), str(hosts.CLONE)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> int:
    try:
        with running(hosts.get(), life=24 * 3600) as server:
            print(f"{server.url} after {server.start_s:.1f} s; log: {server.log}; Ctrl-C ends it")
            server.process.wait()
    except (hosts.HostError, ServerError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
