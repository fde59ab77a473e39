"""Download one file: what broke off goes on, what is not the expected file is not kept, and half a file never has the
name of a whole one.

A download goes on only where it is certain to be of the same file: the server confirms the validator (ETag or
Last-Modified) that it gave with the beginning, or the sha256 of the whole is known. NAME.part holds the beginning,
NAME.validator.part its validator.

Standard library only: scripts/host.py uses it before anything is installed.
"""

from __future__ import annotations  # as in host.py

import errno
import hashlib
import http.client
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

ATTEMPTS = 5  # without coming nearer
NEARER = 1 << 24  # bytes
CHUNK = 1 << 18
TIMEOUT_S = 60
MAX_VALIDATOR_CHARS = 1000
# Refusals that another try does not change; the first five are redirects that are not followed.
FINAL_STATUSES = (301, 302, 303, 307, 308, 401, 403, 404, 410)
CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
Progress = Callable[[int], None]  # told how many bytes of the file are there


class DownloadError(Exception):
    """What went wrong and what to do about it, in one line."""


class ChangedError(ConnectionError):
    """What the server sends does not continue what is there: it has to be downloaded from the start."""


def reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error) or type(error).__name__


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https only, and none from https to http."""

    def redirect_request(self, request, file, code, message, headers, address):
        check_scheme(address)
        if request.full_url.startswith("https:") and not address.startswith("https:"):
            raise DownloadError(f"{request.full_url} redirects from https to {address}; not followed")
        return super().redirect_request(request, file, code, message, headers, address)


def check_scheme(address: str) -> None:
    """Raise DownloadError unless the address is of http or https: others reach files of this machine."""
    if urllib.parse.urlsplit(address).scheme.lower() not in ("http", "https"):
        raise DownloadError(f"{address} is not an address of http or https")


def open_url(request: urllib.request.Request) -> http.client.HTTPResponse:
    """Open an address of http or https. Raises DownloadError for others, OSError or HTTPException."""
    check_scheme(request.full_url)
    return urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT_S)


def part_of(path: Path) -> Path:
    """Where ``path`` is while it is downloaded."""
    return path.with_name(f"{path.name}.part")


def _validator_of(part: Path) -> Path:
    return part.with_name(f"{part.stem}.validator.part")


def continue_download(url: str, part: Path, progress: Progress | None = None, sha256: str = "", size: int = 0) -> None:
    """Append to ``part`` what ``url`` has beyond it.

    sha256, size: of the whole, where they are known. Raises OSError or HTTPException if the connection breaks off,
    ChangedError if the server has another file than before, DownloadError if it announces another size.
    """
    validator = _read_validator(part)
    have = part.stat().st_size if part.exists() and (validator or sha256) else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    if have and validator:
        headers["If-Range"] = validator
    try:
        answer = open_url(urllib.request.Request(url, headers=headers))
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:
            _check_total(error, have)
            return  # Nothing beyond what is there; whether that is the right file, its hash tells.
        raise
    with answer:
        start, end = _span(answer, have, validator)
        if size and end is not None and end != size:
            raise DownloadError(f"{url} is not the expected file: it has {end:,} bytes, not {size:,}")
        if start == 0:
            _begin(part, answer)
        with part.open("ab") as file:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                if progress:
                    progress(file.tell())
                if size and file.tell() > size:
                    raise ChangedError(f"sends more than {size:,} bytes")
            if end is not None and file.tell() < end:
                raise ConnectionError(f"broke off at {file.tell():,} of {end:,} bytes")


def _span(answer: http.client.HTTPResponse, have: int, validator: str) -> tuple[int, int | None]:
    """(first byte, end) of what the answer holds of the file. Raises ChangedError if it does not go on at ``have``."""
    length = answer.headers.get("Content-Length", "")
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise ChangedError("the server compresses the file")
    if answer.status == 200:
        return 0, int(length) if length.isdecimal() else None
    told = CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if answer.status != 206 or told is None or told[1] is None or int(told[1]) != have:
        raise ChangedError(f"the server does not go on at {have:,} bytes")
    if validator and _validator(answer) not in ("", validator):
        raise ChangedError("the server has another file than before")
    return have, int(told[2]) + 1 if told[3] == "*" else int(told[3])


def _check_total(refusal: urllib.error.HTTPError, have: int) -> None:
    """Raise ChangedError if the server, asked for what is beyond ``have``, has a file of another size."""
    told = CONTENT_RANGE.fullmatch(refusal.headers.get("Content-Range", ""))
    if told and told[3] not in ("*", str(have)):
        raise ChangedError(f"the server has a file of {told[3]} bytes, not {have:,}")


def _begin(part: Path, answer: http.client.HTTPResponse) -> None:
    """Empty ``part`` and write down the validator of what is to follow. In this order: a stop in between must not
    leave the beginning of one file with the validator of another."""
    _validator_of(part).unlink(missing_ok=True)
    part.write_bytes(b"")
    _validator_of(part).write_text(_validator(answer), encoding="utf-8")


def _validator(answer: http.client.HTTPResponse) -> str:
    """The strong ETag, or else the date, of the file that the server sends; empty if it gives none."""
    tag = answer.headers.get("ETag", "")
    told = tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")
    return told if told.isascii() and told.isprintable() and len(told) <= MAX_VALIDATOR_CHARS else ""


def _read_validator(part: Path) -> str:
    try:
        told = _validator_of(part).read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return ""
    return told if told.isascii() and told.isprintable() and len(told) <= MAX_VALIDATOR_CHARS else ""


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _validator_of(part).unlink(missing_ok=True)


def download(
    url: str, target: Path, sha256: str = "", size: int = 0, progress: Progress | None = None,
    say: Callable[[str], None] = print,
) -> None:  # fmt: skip
    """``url`` as ``target``, resumed where an earlier attempt broke off. What has another ``sha256`` or ``size`` (where
    they are given) costs the part; one retry. Raises DownloadError, and OSError where nothing can be written."""
    part = part_of(target)
    for retry in (True, False):
        _fetch(url, part, progress, say, sha256, size)
        wrong = difference(part, sha256, size)
        if not wrong:
            _validator_of(part).unlink(missing_ok=True)
            part.replace(target)
            return
        _discard(part)
        say(f"{target.name} has {wrong}; deleted" + (", trying once more" if retry else ""))
    raise DownloadError(f"{url} is not the expected file: it has {wrong}")


def _fetch(url: str, part: Path, progress: Progress | None, say: Callable[[str], None], sha256: str, size: int) -> None:
    attempt, reached = 0, 0
    while True:
        try:
            return continue_download(url, part, progress, sha256, size)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EACCES):
                raise
            if isinstance(error, urllib.error.HTTPError) and error.code in FINAL_STATUSES:
                raise DownloadError(f"cannot download {url}: {error}") from None
            if isinstance(error, ChangedError):
                _discard(part)
            have = part.stat().st_size if part.exists() else 0
            attempt, reached = (1, have) if have >= reached + NEARER else (attempt + 1, reached)
            if attempt == ATTEMPTS:
                raise DownloadError(f"cannot download {url}: {reason(error)}; run again to go on from there") from None
            say(f"{part.stem}: {reason(error)}; going on")
            time.sleep(attempt - 1)


def difference(path: Path, sha256: str = "", size: int = 0) -> str:
    """What tells ``path`` from the file that is expected; empty if nothing does."""
    if size and path.stat().st_size != size:
        return f"{path.stat().st_size:,} bytes, not {size:,}"
    if not sha256:
        return ""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return "" if digest.hexdigest() == sha256 else f"sha256 {digest.hexdigest()}, not {sha256}"
