"""Downloads from servers that send another file than before, than announced, or than meant."""

import hashlib
import os

import download
import pytest
import toy_server

OLD, NEW = os.urandom(90_000), os.urandom(90_000)
SHA256 = hashlib.sha256(NEW).hexdigest()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    with toy_server.ToyServer().running() as running:
        running.files["file"] = NEW
        yield running


@pytest.fixture
def get(server, tmp_path):
    """get(…): what is downloaded; nothing else is left beside it."""

    def get(**known) -> bytes:
        download.download(f"{server.url}/file", tmp_path / "file", say=lambda text: None, **known)
        assert os.listdir(tmp_path) == ["file"]
        return (tmp_path / "file").read_bytes()

    return get


def begun(server, tmp_path):
    """A download of the old file that broke off after 50,000 bytes, for good."""
    server.files["file"] = OLD
    server.breaks = [50_000] + [0] * download.ATTEMPTS
    with pytest.raises(download.DownloadError, match="run again"):
        download.download(f"{server.url}/file", tmp_path / "file", say=lambda text: None)
    server.files["file"], server.breaks = NEW, []
    server.asked.clear()


def test_goes_on_where_the_server_confirms_the_file(server, get, tmp_path):
    begun(server, tmp_path)
    server.files["file"] = OLD
    assert get() == OLD
    assert server.asked == ["bytes=50000-"]


def test_starts_over_where_the_file_has_changed(server, get, tmp_path):
    begun(server, tmp_path)
    assert get() == NEW
    assert server.asked == ["bytes=50000-"]  # the condition goes with the range, and the answer is the whole


def test_starts_over_where_a_server_ignores_if_range(server, get, tmp_path):
    """It sends the rest of the new file, and tells the new file's ETag."""
    begun(server, tmp_path)
    server.if_range = False
    assert get() == NEW
    assert server.asked == ["bytes=50000-", None]


def test_starts_over_where_the_server_tells_nothing_of_the_file(server, get, tmp_path):
    server.etags = False
    begun(server, tmp_path)
    assert get() == NEW
    assert server.asked == [None]


def test_goes_on_without_a_validator_where_the_hash_tells(server, get, tmp_path):
    server.etags = False
    (tmp_path / "file.part").write_bytes(NEW[:50_000])
    assert get(sha256=SHA256) == NEW
    assert server.asked == ["bytes=50000-"]


@pytest.mark.parametrize("told", ["bytes 0-89999/90000", "bytes 49999-89999/90000", "bytes */90000", "nonsense", ""])
def test_starts_over_where_the_rest_begins_elsewhere(server, get, tmp_path, told):
    (tmp_path / "file.part").write_bytes(OLD[:50_000])
    (tmp_path / "file.validator.part").write_text(f'"{SHA256}"')
    server.extra = {"Content-Range": told}
    assert get() == NEW


def test_starts_over_where_the_file_is_shorter_than_its_part(server, get, tmp_path):
    (tmp_path / "file.part").write_bytes(OLD + OLD)
    (tmp_path / "file.validator.part").write_text(f'"{SHA256}"')
    assert get() == NEW


@pytest.mark.parametrize("validator", [b"\xff\xfe", b'"a"\r\nX: y', b'"' + b"a" * 5000])
def test_starts_over_where_the_validator_is_damaged(server, get, tmp_path, validator):
    (tmp_path / "file.part").write_bytes(OLD[:50_000])
    (tmp_path / "file.validator.part").write_bytes(validator)
    assert get() == NEW


def test_an_announced_size_that_is_wrong_ends_it_at_once(server, tmp_path):
    with pytest.raises(download.DownloadError, match="it has 90,000 bytes, not 10$"):
        download.download(f"{server.url}/file", tmp_path / "file", size=10)
    assert not list(tmp_path.iterdir()) and len(server.asked) == 1


def test_more_than_the_size_is_not_written_without_end(server, tmp_path):
    server.chunked, server.files["file"] = True, bytes(40 * download.CHUNK)
    with pytest.raises(download.DownloadError, match="sends more than 10 bytes"):
        download.download(f"{server.url}/file", tmp_path / "file", size=10, say=lambda text: None)
    assert not list(tmp_path.iterdir())


def test_less_than_the_size_is_told(server, tmp_path):
    server.chunked = True
    with pytest.raises(download.DownloadError, match="90,000 bytes, not 90,001"):
        download.download(f"{server.url}/file", tmp_path / "file", size=90_001, say=lambda text: None)
    assert not list(tmp_path.iterdir())


def test_a_wrong_file_is_removed_and_named(server, tmp_path):
    with pytest.raises(download.DownloadError, match=f"{server.url}/file is not the expected file: it has sha256"):
        download.download(f"{server.url}/file", tmp_path / "file", sha256="0" * 64, say=lambda text: None)
    assert not list(tmp_path.iterdir())


def test_a_compressed_file_is_not_taken_for_the_file(server, tmp_path):
    server.extra = {"Content-Encoding": "gzip"}
    with pytest.raises(download.DownloadError, match="compresses"):
        download.download(f"{server.url}/file", tmp_path / "file", say=lambda text: None)


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "FILE:///etc/passwd"])
def test_only_http_is_followed(server, tmp_path, address):
    server.redirects["away"] = address
    for url in (f"{server.url}/away", address):
        with pytest.raises(download.DownloadError, match="not an address of http or https|is not allowed"):
            download.download(url, tmp_path / "file", say=lambda text: None)
    assert not list(tmp_path.iterdir())


def test_a_redirect_within_http_is_followed(server, tmp_path):
    server.redirects["away"] = f"{server.url}/file"
    download.download(f"{server.url}/away", tmp_path / "file", sha256=SHA256)
    assert (tmp_path / "file").read_bytes() == NEW
