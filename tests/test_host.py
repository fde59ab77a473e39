"""scripts/host.py against a package index on this machine: what broke off goes on, what is there is left alone."""

import hashlib
import io
import os
import tarfile
import threading
import zipfile

import download
import host
import pytest
import toy_server

ARCHIVE = os.urandom(300_000)
# A pip that only writes down what it was asked for, and fails when it reads the word that is to break.
FAKE_PIP = """
import os, sys
words = sys.argv[1:]
if "--requirement" in words:
    words += open(words[words.index("--requirement") + 1]).read().split()
with open(os.environ["FAKE_PIP_LOG"], "a") as log:
    print(*words, file=log)
print("pip talks on stdout")
sys.exit(os.environ.get("FAKE_PIP_BREAKS_AT", "never") in words)
"""


def sha256(content):
    return hashlib.sha256(content).hexdigest()


class Index(toy_server.ToyServer):
    """A package index."""

    hashes = True  # whether it tells those of its files: here of their names

    def page(self, path):
        if not path.startswith("simple/"):
            return None
        names = (file.removeprefix("files/") for file in self.files)
        project = path.split("/")[1]
        found = [name for name in names if name.startswith(project)]
        hashes = {name: f"#sha256={sha256(name.encode())}" if self.hashes else "" for name in found}
        return "".join(f'<a href="../../files/{name}{hashes[name]}">{name}</a>' for name in found).encode()


@pytest.fixture
def index(monkeypatch):
    with Index().running() as server:
        server.files["files/thing-1.tar.gz"] = ARCHIVE
        monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple/")
        yield server


def url(index):
    return host.find_url("thing", "thing-1.tar.gz")


def test_the_index_page_leads_to_the_file(index):
    assert url(index) == f"{index.url}/files/thing-1.tar.gz"
    with pytest.raises(host.HostError, match=r"has no thing-2\.tar\.gz"):
        host.find_url("thing", "thing-2.tar.gz")


def test_a_download_that_breaks_off_goes_on_where_it_broke(index, tmp_path):
    index.breaks = [100_000, 50_000]
    host.download(url(index), tmp_path / "thing", sha256(ARCHIVE))
    assert (tmp_path / "thing").read_bytes() == ARCHIVE
    assert index.asked == [None, "bytes=100000-", "bytes=150000-"]
    assert not (tmp_path / "thing.part").exists()


def test_a_later_run_goes_on_with_the_part_that_an_earlier_one_left(index, tmp_path):
    index.breaks = [1000 * n for n in range(1, download.ATTEMPTS + 1)]
    sleepless = pytest.MonkeyPatch()
    sleepless.setattr(download.time, "sleep", lambda seconds: None)
    with pytest.raises(host.HostError, match="run again"):
        host.download(url(index), tmp_path / "thing", sha256(ARCHIVE))
    sleepless.undo()
    host.download(url(index), tmp_path / "thing", sha256(ARCHIVE))
    assert index.asked[-1] == "bytes=15000-"
    assert (tmp_path / "thing").read_bytes() == ARCHIVE


def test_a_server_without_ranges_starts_over(index, tmp_path):
    index.ranges, index.breaks = False, [1000]
    host.download(url(index), tmp_path / "thing", sha256(ARCHIVE))
    assert (tmp_path / "thing").read_bytes() == ARCHIVE


def test_a_part_that_is_complete_already_is_not_fetched_again(index, tmp_path):
    (tmp_path / "thing.part").write_bytes(ARCHIVE)
    host.download(url(index), tmp_path / "thing", sha256(ARCHIVE))
    assert (tmp_path / "thing").read_bytes() == ARCHIVE


def test_a_spoiled_part_is_deleted_and_fetched_anew(index, tmp_path):
    (tmp_path / "thing.part").write_bytes(b"spoiled" * 100)
    host.download(url(index), tmp_path / "thing", sha256(ARCHIVE))
    assert (tmp_path / "thing").read_bytes() == ARCHIVE
    assert index.asked == ["bytes=700-", None]


def test_a_wrong_hash_is_an_error_after_one_retry_and_leaves_no_part(index, tmp_path, capfd):
    with pytest.raises(host.HostError, match=r"is not the expected file"):
        host.download(url(index), tmp_path / "thing", "0" * 64)
    assert len(index.asked) == 2
    assert list(tmp_path.iterdir()) == []
    assert "deleted" in capfd.readouterr().err


# --- the whole host, with a ComfyUI of one file and a pip that only writes down what it was asked for ----------------


def pins(comfyui, pip, numpy="1"):
    return f"""
[comfyui]
version = "0"
project = "comfy"
archive = "comfy-1.tar.gz"
sha256 = "{sha256(comfyui)}"
folder = "comfy-1/vendor/ComfyUI"
[pip]
project = "pip"
archive = "pip-1.whl"
sha256 = "{sha256(pip)}"
[packages]
first = ["torch==1", "numpy=={numpy}"]
second = ["pytest==1"]
"""


@pytest.fixture
def place(index, tmp_path, monkeypatch):
    """An empty place for a host, with everything it needs on the index."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in ("comfy-1/PKG-INFO", "comfy-1/vendor/ComfyUI/main.py", "comfy-1/vendor/ComfyUI/custom_nodes/a.py"):
            tar.addfile(tarfile.TarInfo(name))
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("pip/__main__.py", FAKE_PIP)
    index.files |= {"files/comfy-1.tar.gz": packed.getvalue(), "files/pip-1.whl": wheel.getvalue()}
    toml = tmp_path / "host.toml"
    toml.write_text(pins(packed.getvalue(), wheel.getvalue()))
    (tmp_path / "host.lock").write_text(locked("torch==1", "numpy==1", "numpy==2", "pytest==1"))
    monkeypatch.setattr(host, "PINS", toml)
    monkeypatch.setattr(host, "DISK_GB", 0)
    monkeypatch.setenv(host.PLACE, str(tmp_path / "place"))
    monkeypatch.setenv("FAKE_PIP_LOG", str(tmp_path / "pip.log"))
    return tmp_path / "place"


def pip_calls(place):
    """The packages of each installation that the fake pip was asked for."""
    calls = (line.split() for line in (place.parent / "pip.log").read_text().splitlines())
    return [[word for word in call if "==" in word] for call in calls if call[0] == "install"]


def locked(*packages):
    """A lock file of ``packages``."""
    return "".join(f"{package} \\\n    --hash=sha256:{'0' * 64}\n" for package in packages)


BOTH = [["torch==1", "numpy==1"], ["pytest==1"]]


def test_root_prepares_the_host_and_prints_its_folder_alone(place, capfd):
    assert host.main(["--root"]) == 0
    out, err = capfd.readouterr()
    assert out == f"{place / 'ComfyUI-0'}\n"
    assert "packages 2/2" in err and "pip talks on stdout" in err
    assert (place / "ComfyUI-0" / "main.py").exists()
    assert not (place / "ComfyUI-0" / "PKG-INFO").exists()
    assert (place / "ComfyUI-0" / "custom_nodes" / host.LINK).resolve() == host.CLONE
    assert pip_calls(place) == BOTH


def test_python_is_an_interpreter_of_the_environment(place, capfd):
    assert host.main(["--python"]) == 0
    python = capfd.readouterr().out.strip()
    assert host.run([python, "-c", "import sys; print(sys.prefix)"], capture=True).strip() == str(place / "environment")


def test_a_complete_host_is_left_alone(place, index):
    host.get()
    asked = len(index.asked)
    host.get()
    assert len(index.asked) == asked
    assert pip_calls(place) == BOTH


def test_changed_pins_update_the_packages_and_keep_the_rest(place, index):
    host.get()
    asked = len(index.asked)
    host.PINS.write_text(host.PINS.read_text().replace("numpy==1", "numpy==2"))
    host.get()
    assert len(index.asked) == asked
    assert pip_calls(place) == [*BOTH, ["torch==1", "numpy==2"], ["pytest==1"]]


def test_a_half_done_installation_is_finished_by_the_next_run(place, monkeypatch, capfd):
    monkeypatch.setenv("FAKE_PIP_BREAKS_AT", "pytest==1")
    assert host.main([]) == 1
    out, err = capfd.readouterr()
    assert out == "" and err.splitlines()[-1].endswith("run again to go on from there")
    monkeypatch.delenv("FAKE_PIP_BREAKS_AT")
    assert host.main([]) == 0
    assert host.Host(place, host.PINS).is_complete()


def test_a_vanished_interpreter_makes_a_new_environment(place):
    python = host.get().python
    python.unlink()
    host.get()
    assert os.access(python, os.X_OK)


def test_two_runs_at_once_install_once(place):
    threads = [threading.Thread(target=host.get) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pip_calls(place) == BOTH


def test_another_clone_takes_over_the_link(place, monkeypatch, tmp_path):
    link = host.get().root / "custom_nodes" / host.LINK
    monkeypatch.setattr(host, "CLONE", tmp_path)
    assert host.main(["--root"]) == 0
    assert link.resolve() != tmp_path, "--root prepares nothing when all is there"
    assert host.main([]) == 0
    assert link.resolve() == tmp_path


def test_without_a_network_there_is_one_clear_line(place, monkeypatch, capfd):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9")
    assert host.main(["--root"]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert "is there a network?" in err.splitlines()[-1] and "Traceback" not in err


def test_too_small_a_disk_is_said_before_anything_is_installed(place, monkeypatch, capfd):
    monkeypatch.setattr(host, "DISK_GB", 10**9)
    assert host.main([]) == 1
    assert f"set {host.PLACE} to another place" in capfd.readouterr().err.splitlines()[-1]
    assert not (place / "environment").exists()


def test_a_python_that_is_too_old_is_told_so(monkeypatch, capfd):
    monkeypatch.setattr(host.sys, "version_info", (3, 9, 18))
    assert host.main([]) == 1
    assert "Python 3.11 or newer is needed" in capfd.readouterr().err


# --- what is verified -------------------------------------------------------------------------------------------------


def test_pip_takes_nothing_but_what_has_a_hash_of_the_lock_file(place):
    host.get()
    calls = [line.split() for line in (place.parent / "pip.log").read_text().splitlines() if line.startswith("install")]
    assert len(calls) == 2
    for call in calls:
        assert "--require-hashes" in call and "--no-deps" in call
        packages = [at for at, word in enumerate(call) if "==" in word]
        assert all(call[at + 1] == f"--hash=sha256:{'0' * 64}" for at in packages)


def test_every_version_is_locked():
    locked = host.read_lock(host.PINS.with_suffix(".lock"))
    pins = host.Host(host.CLONE, host.PINS).pins
    assert locked.keys() == {package for group in pins["packages"].values() for package in group}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "lacks torch==1, numpy==1, pytest==1"),
        ("torch==1\n", "damaged at torch==1"),
        ("torch==1 --hash=sha256:0\n", "damaged at torch==1"),
        ("torch==1 --hash=md5:0\n", "damaged at torch==1"),
        ("--index-url=http://evil --hash=sha256:" + "0" * 64, "damaged at --index-url"),
        (None, "cannot be read"),
    ],
)
def test_a_lock_file_that_is_not_right_is_one_line(place, capfd, content, message):
    lock = host.PINS.with_suffix(".lock")
    lock.unlink() if content is None else lock.write_text(content)
    assert host.main(["--root"]) == 1
    told = capfd.readouterr().err
    assert message in told and "--lock" in told and len(told.splitlines()) == 1 and not place.exists()


def test_a_changed_lock_file_is_another_environment(place):
    host.get()
    lock = host.PINS.with_suffix(".lock")
    lock.write_text(lock.read_text().replace("0" * 64, "1" * 64))
    assert not host.Host(place, host.PINS).is_complete()


def test_the_lock_file_holds_the_hashes_of_all_wheels_of_the_version(place, index, capfd):
    lock = host.PINS.with_suffix(".lock")
    lock.write_text(locked("torch==1", "numpy==1"))
    wheels = ("pytest-1-py3-none-any.whl", "pytest-1-cp311-cp311-linux_x86_64.whl")
    index.files |= {f"files/{name}": b"" for name in (*wheels, "pytest-10-py3-none-any.whl", "pytest-1.tar.gz")}
    assert host.main(["--lock"]) == 0
    assert capfd.readouterr().out == f"{lock}\n"
    written = host.read_lock(lock)
    assert written.keys() == {"numpy==1", "pytest==1", "torch==1"}
    assert written["pytest==1"] == sorted(sha256(name.encode()) for name in wheels)


def test_an_index_that_tells_no_hash_is_one_line(place, index, capfd, monkeypatch):
    monkeypatch.setattr(index, "hashes", False)
    host.PINS.with_suffix(".lock").unlink()
    index.files["files/numpy-1-py3-none-any.whl"] = b""
    assert host.main(["--lock"]) == 1
    assert "tells no sha256 of a wheel of numpy==1" in capfd.readouterr().err


def test_a_cached_archive_that_was_damaged_is_fetched_anew(place, capfd):
    """After it was unpacked, too: ComfyUI's folder has been removed since."""
    root = host.get().root
    archive = place / "downloads" / "comfy-1.tar.gz"
    whole = archive.read_bytes()
    archive.write_bytes(whole[:-1] + b"x")
    host.shutil.rmtree(root)
    assert (host.get().root / "main.py").is_file()
    assert archive.read_bytes() == whole and "deleted" in capfd.readouterr().err


def test_a_kill_while_unpacking_leaves_nothing_that_looks_complete(place):
    """Nor anything at all after the next run."""
    child = os.fork()
    if not child:
        host.Path.rename = lambda *_: os._exit(9)  # the last step: all is unpacked beside it
        host.get()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not host.Host(place, host.PINS).is_complete() and not (place / "ComfyUI-0").exists()
    assert list(place.glob("unpacking-*"))
    assert (host.get().root / "main.py").is_file() and not list(place.glob("unpacking-*"))


@pytest.mark.parametrize("page", [b"\xff\xfe", b"", b"<a href=7>"])
def test_an_index_page_that_makes_no_sense_is_one_line(index, monkeypatch, page):
    monkeypatch.setattr(index, "page", lambda path: page)
    with pytest.raises(host.HostError, match="package index"):
        host.find_url("thing", "thing-1.tar.gz")


def test_an_index_leads_to_no_file_of_this_machine(index, tmp_path, monkeypatch):
    monkeypatch.setattr(index, "page", lambda path: b'<a href="file:///etc/passwd/thing-1.tar.gz">thing</a>')
    with pytest.raises(host.HostError, match="not an address of http"):
        host.download(url(index), tmp_path / "thing", sha256(ARCHIVE))
