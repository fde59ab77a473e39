"""Get ComfyUI and its Python packages into one cached environment outside the clone, for development and CI.

    python3 scripts/host.py            prepare the host, link this clone into its custom_nodes, say where it is
    python3 scripts/host.py --python   print the environment's interpreter
    python3 scripts/host.py --root     print ComfyUI's folder
    python3 scripts/host.py --lock     write host.lock anew, after a change of host.toml

The versions stand in host.toml, the sha256 of their wheels in host.lock: pip installs nothing else. The place is
comfyui-animateanywhere in the user's cache folder, or what the environment variable ANIMATE_ANYWHERE_HOST says. Every
step can be broken off; the next run goes on from there.
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
import re
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
LOCK_HEAD = """\
# The sha256 of every wheel of each version in host.toml, as the package index lists them, for all platforms.
# Written by `python3 scripts/host.py --lock`.
"""
UNPACKING, PIP_FILES = "unpacking-", "pip-"  # how temporary folders begin
PINNED = re.compile(r"[a-z0-9-]+==[^\s=\\]+")


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


def index_page(project: str) -> str:
    """The address of the page of ``project`` in the index that pip would ask."""
    index = os.environ.get("PIP_INDEX_URL") or "https://pypi.org/simple"
    return f"{index.rstrip('/')}/{project}/"


def list_urls(project: str) -> dict[str, str]:
    """File name -> address, with its #sha256=…, of all that the index has of ``project``."""
    page = index_page(project)
    try:
        request = urllib.request.Request(page, headers={"Accept": "text/html"})
        with downloads.open_url(request) as answer:
            links = Links()
            links.feed(answer.read().decode())
    except (OSError, ValueError, http.client.HTTPException, downloads.DownloadError) as error:
        raise HostError(
            f"the package index does not answer at {page} ({downloads.reason(error)}); is there a network?"
        ) from None
    urls = [urllib.parse.urljoin(page, href) for href in links.hrefs]
    return {urllib.parse.unquote(urllib.parse.urlsplit(url).path.rsplit("/", 1)[-1]): url for url in urls}


def find_url(project: str, archive: str) -> str:
    """The address of the file ``archive`` of ``project``."""
    urls = list_urls(project)
    if archive not in urls:
        raise HostError(f"the package index has no {archive} at {index_page(project)}")
    return urllib.parse.urldefrag(urls[archive]).url


def download(url: str, target: Path, sha256: str) -> None:
    try:
        downloads.download(url, target, sha256, say=say)
    except downloads.DownloadError as error:
        raise HostError(str(error)) from None


# --- the lock file ----------------------------------------------------------------------------------------------------


def read_lock(path: Path) -> dict[str, list[str]]:
    """NAME==VERSION -> the sha256 of its wheels, from a file in the form of requirements. Raises HostError."""
    try:
        lines = path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise HostError(f"{path.name} cannot be read ({error}); python3 scripts/host.py --lock writes it") from None
    locked = {}
    for line in (line for line in lines if line.strip() and not line.startswith("#")):
        package, *hashes = line.split()
        known = [word.removeprefix("--hash=sha256:") for word in hashes]
        if not PINNED.fullmatch(package) or not known or not all(re.fullmatch("[0-9a-f]{64}", each) for each in known):
            raise HostError(f"{path.name} is damaged at {package[:80]}; python3 scripts/host.py --lock writes it anew")
        locked[package] = known
    return locked


def write_lock(pins: Path) -> Path:
    """Write the lock file of ``pins``; its path. The index is asked only for packages that it lacks."""
    import tomllib

    target = pins.with_suffix(".lock")
    known = read_lock(target) if target.exists() else {}
    packages = [
        package for group in tomllib.loads(pins.read_text(encoding="utf-8"))["packages"].values() for package in group
    ]
    text = LOCK_HEAD
    for package in sorted(packages):
        hashes = known.get(package) or list_hashes(package)
        text += " \\\n".join([package, *(f"    --hash=sha256:{each}" for each in hashes)]) + "\n"
    partial = target.with_name(f"{target.name}.part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(target)
    return target


def list_hashes(package: str) -> list[str]:
    """The sha256 of every wheel that the index has of NAME==VERSION. Raises HostError where it tells none."""
    project, version = package.split("==")
    hashes = set()
    for name, url in list_urls(project).items():
        parts = name.split("-")
        kind, _, value = urllib.parse.urlsplit(url).fragment.partition("=")
        if name.endswith(".whl") and len(parts) > 1 and parts[1] == version and kind == "sha256":
            hashes.add(value)
    if not hashes:
        raise HostError(f"the package index tells no sha256 of a wheel of {package} at {index_page(project)}")
    return sorted(hashes)


# --- the host ---------------------------------------------------------------------------------------------------------


class Host:
    """One folder with ComfyUI, its Python environment, and a stamp that says for which pins both are complete."""

    def __init__(self, folder: Path, pins: Path) -> None:
        import tomllib  # Python 3.11; main() has checked it

        text, lock = pins.read_bytes(), pins.with_suffix(".lock")
        self.folder = folder
        self.pins = tomllib.loads(text.decode())
        self.locked = read_lock(lock)
        groups = self.pins["packages"].values()
        missing = [package for group in groups for package in group if package not in self.locked]
        if missing:
            raise HostError(f"{lock.name} lacks {', '.join(missing)}; python3 scripts/host.py --lock writes it anew")
        self.digest = hashlib.sha256(text + lock.read_bytes()).hexdigest()
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
            self.remove_leftovers()
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

    def remove_leftovers(self) -> None:
        """Remove the temporary folders of runs that were killed."""
        for kind in (UNPACKING, PIP_FILES):
            for folder in self.folder.glob(f"{kind}*"):
                shutil.rmtree(folder, ignore_errors=True)

    def fetch(self, pin: dict) -> Path:
        """The archive that ``pin`` names, downloaded unless it is there. Its hash is compared each time: it may have
        been damaged since."""
        target = self.folder / "downloads" / pin["archive"]
        if target.exists() and (wrong := downloads.difference(target, pin["sha256"])):
            say(f"{target} has {wrong}; deleted")
            target.unlink()
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
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=UNPACKING) as temporary:
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
            self.install(packages)
        wanted = {package.split("==")[0] for packages in groups.values() for package in packages}
        listed = self.pip("list", "--format", "freeze", capture=True).split()
        extra = [name for name in (line.split("==")[0] for line in listed) if canonical(name) not in wanted]
        if extra:
            self.pip("uninstall", "--quiet", "--yes", *extra)

    def install(self, packages: list[str]) -> None:
        """Install the wheels of ``packages`` that have a hash of the lock file, and nothing else."""
        lines = [
            " ".join([package, *(f"--hash=sha256:{each}" for each in self.locked[package])]) for package in packages
        ]
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=PIP_FILES) as temporary:
            requirements = Path(temporary) / "requirements.txt"
            requirements.write_text("\n".join(lines) + "\n", encoding="utf-8")
            options = ("--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes")
            self.pip("install", *options, "--requirement", str(requirements))

    def check_disk(self) -> None:
        free = shutil.disk_usage(self.folder).free / 1e9
        if free < DISK_GB:
            raise HostError(
                f"{self.folder} has {free:.1f} GB free, the host needs {DISK_GB}; set {PLACE} to another place"
            )

    def pip(self, *arguments: str, capture: bool = False) -> str:
        """Run the pinned pip for the environment. Its temporary files lie here too, as /tmp may be small."""
        wheel = self.fetch(self.pins["pip"])
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=PIP_FILES) as temporary:
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
    wanted.add_argument("--lock", action="store_true", help="write host.lock anew, after a change of host.toml")
    options = parser.parse_args(arguments)
    try:
        if sys.version_info < (3, 11):
            raise HostError(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}")
        if options.lock:
            print(write_lock(PINS))
            return 0
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
