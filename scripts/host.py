"""Get ComfyUI and its Python packages into one cached environment outside the clone, for development and CI.

    python3 scripts/host.py            prepare the host, link this clone into its custom_nodes, say where it is
    python3 scripts/host.py --python   print the environment's interpreter
    python3 scripts/host.py --root     print ComfyUI's folder

The versions stand in host.toml. The place is comfyui-animateanywhere in the user's cache folder, or what the
environment variable ANIMATE_ANYWHERE_HOST says. Every step can be broken off; the next run goes on from there.
Standard library only: this is what runs before anything is installed.
"""

from __future__ import annotations  # so that a Python that is too old gets as far as the line that says so

import argparse
import errno
import fcntl
import hashlib
import html.parser
import http.client
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import download as downloads

PINS = Path(__file__).resolve().with_name("host.toml")
CLONE = Path(__file__).resolve().parent.parent
LINK = "ComfyUI-AnimateAnywhere"
PLACE = "ANIMATE_ANYWHERE_HOST"
# 6.9 GB installed, and the largest group's wheels lie beside it while pip unpacks them.
DISK_GB = 10


class HostError(Exception):
    """What went wrong and what to do about it, in one line."""


def say(text: str) -> None:
    """Progress goes to stderr: stdout carries the answer of --python and --root alone."""
    print(f"host: {text}", file=sys.stderr, flush=True)


# --- download ---------------------------------------------------------------------------------------------------------


class Links(html.parser.HTMLParser):
    """The addresses on a page of a package index (PEP 503)."""

    def __init__(self) -> None:
        super().__init__()
        self.hrefs = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.hrefs += [value for name, value in attrs if tag == "a" and name == "href" and value]


def find_url(project: str, archive: str) -> str:
    """The address of the file ``archive`` of ``project``, from the index that pip would ask."""
    index = os.environ.get("PIP_INDEX_URL") or "https://pypi.org/simple"
    page = f"{index.rstrip('/')}/{project}/"
    try:
        request = urllib.request.Request(page, headers={"Accept": "text/html"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            links = Links()
            links.feed(answer.read().decode())
    except (OSError, http.client.HTTPException) as error:
        raise HostError(
            f"the package index does not answer at {page} ({downloads.reason(error)}); is there a network?"
        ) from None
    for href in links.hrefs:
        url = urllib.parse.urljoin(page, href)
        if urllib.parse.urlsplit(url).path.rsplit("/", 1)[-1] == archive:
            return urllib.parse.urldefrag(url).url
    raise HostError(f"the package index has no {archive} at {page}")


def download(url: str, target: Path, sha256: str) -> None:
    try:
        downloads.download(url, target, sha256, say=say)
    except downloads.DownloadError as error:
        raise HostError(str(error)) from None


# --- the host ---------------------------------------------------------------------------------------------------------


class Host:
    """One folder with ComfyUI, its Python environment, and a stamp that says for which pins both are complete."""

    def __init__(self, folder: Path, pins: Path) -> None:
        import tomllib  # Python 3.11; main() has checked it

        text = pins.read_bytes()
        self.folder = folder
        self.pins = tomllib.loads(text.decode())
        self.digest = hashlib.sha256(text).hexdigest()
        self.root = folder / f"ComfyUI-{self.pins['comfyui']['version']}"
        self.environment = folder / "environment"
        self.python = self.environment / "bin" / "python"
        self.stamp = self.environment / "complete"

    def is_complete(self) -> bool:
        stamped = self.stamp.exists() and self.stamp.read_text(encoding="utf-8") == self.digest
        # The interpreter is a link to the system's, which an upgrade of the system may have taken away.
        return stamped and (self.root / "main.py").exists() and os.access(self.python, os.X_OK)

    def prepare(self) -> None:
        """Do what is missing; nothing when all is there."""
        if self.is_complete():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.lock():
            if self.is_complete():  # another run was faster
                return
            started = time.monotonic()
            self.stamp.unlink(missing_ok=True)
            self.unpack_comfyui()
            self.install_packages()
            self.stamp.write_text(self.digest, encoding="utf-8")
            self.link()
            say(f"ready after {time.monotonic() - started:.0f} s in {self.folder}")

    @contextmanager
    def lock(self) -> Iterator[None]:
        with (self.folder / "lock").open("w", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("another run is preparing the host, waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def fetch(self, pin: dict) -> Path:
        """The archive that ``pin`` names, downloaded unless it is there. Only what has the right hash has its name."""
        target = self.folder / "downloads" / pin["archive"]
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            say(f"downloading {pin['archive']}")
            download(find_url(pin["project"], pin["archive"]), target, pin["sha256"])
        return target

    def unpack_comfyui(self) -> None:
        if self.root.exists():
            return
        pin = self.pins["comfyui"]
        archive = self.fetch(pin)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="unpacking-") as temporary:
            with tarfile.open(archive) as tar:
                tar.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4
                tar.extractall(temporary, [member for member in tar if member.name.startswith(pin["folder"] + "/")])
            # Renamed as a whole: a folder of this name is complete.
            (Path(temporary) / pin["folder"]).rename(self.root)

    def install_packages(self) -> None:
        if not os.access(self.python, os.X_OK):
            self.check_disk()
            say("creating the Python environment")
            run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(self.environment)])
        groups = self.pins["packages"]
        for number, (name, packages) in enumerate(groups.items(), 1):
            say(f"packages {number}/{len(groups)}: {name}")
            self.pip("install", "--quiet", "--no-deps", "--only-binary", ":all:", *packages)
        wanted = {package.split("==")[0] for packages in groups.values() for package in packages}
        listed = self.pip("list", "--format", "freeze", capture=True).split()
        extra = [name for name in (line.split("==")[0] for line in listed) if canonical(name) not in wanted]
        if extra:
            self.pip("uninstall", "--quiet", "--yes", *extra)

    def check_disk(self) -> None:
        free = shutil.disk_usage(self.folder).free / 1e9
        if free < DISK_GB:
            raise HostError(
                f"{self.folder} has {free:.1f} GB free, the host needs {DISK_GB}; set {PLACE} to another place"
            )

    def pip(self, *arguments: str, capture: bool = False) -> str:
        """Run the pinned pip for the environment. Its temporary files lie here too, as /tmp may be small."""
        wheel = self.fetch(self.pins["pip"])
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="pip-") as temporary:
            environment = {**os.environ, "TMPDIR": temporary, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
            return run([str(self.python), f"{wheel}/pip", *arguments], env=environment, capture=capture)

    def link(self) -> None:
        """Let the host see this clone as a custom node, instead of another clone that may have been there."""
        link = self.root / "custom_nodes" / LINK
        if link.is_symlink() and link.resolve() == CLONE:
            return
        fresh = link.with_name(f".{LINK}-{os.getpid()}")
        fresh.symlink_to(CLONE, target_is_directory=True)
        fresh.replace(link)
        say(f"linked {CLONE} into custom_nodes")


def canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def run(command: list[str], env: dict | None = None, capture: bool = False) -> str:
    """Run ``command`` with its output on stderr, or returned."""
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE if capture else sys.stderr, text=True, check=False)
    if done.returncode:
        shown = " ".join(Path(word).name for word in command[:3])
        raise HostError(f"`{shown}` failed with status {done.returncode}, see above; run again to go on from there")
    return done.stdout or ""


def place() -> Path:
    named = os.environ.get(PLACE)
    if named:
        return Path(named).expanduser().resolve()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "comfyui-animateanywhere"


def get() -> Host:
    """The host, prepared. What other scripts and the tests call."""
    host = Host(place(), PINS)
    host.prepare()
    return host


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    wanted = parser.add_mutually_exclusive_group()
    wanted.add_argument("--python", action="store_true", help="print the environment's interpreter")
    wanted.add_argument("--root", action="store_true", help="print ComfyUI's folder")
    options = parser.parse_args(arguments)
    try:
        if sys.version_info < (3, 11):
            raise HostError(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}")
        host = get()
        if options.python:
            print(host.python)
        elif options.root:
            print(host.root)
        else:
            host.link()
            print(f"ComfyUI {host.pins['comfyui']['version']}: {host.root}\nPython: {host.python}")
    except HostError as error:
        say(str(error))
    except OSError as error:
        full = "the disk is full" if error.errno == errno.ENOSPC else str(error)
        say(f"{full}; {PLACE} can name another place than {place()}")
    except KeyboardInterrupt:
        say("stopped; run again to go on from there")
        return 130
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
