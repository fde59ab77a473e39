"""Download one file: what broke off goes on, what is not the expected file is not kept, and half a file never has the
name of a whole one.

Standard library only: scripts/host.py uses it before anything is installed.
"""

from __future__ import annotations  # as in host.py

import errno
import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

ATTEMPTS = 5  # without coming nearer
NEARER = 1 << 24  # bytes
CHUNK = 1 << 18
Progress = Callable[[int], None]  # told how many bytes of the file are there


class DownloadError(Exception):
    """What went wrong and what to do about it, in one line."""


def reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error) or type(error).__name__


def continue_download(url: str, part: Path, progress: Progress | None = None) -> None:
    """Append to ``part`` what ``url`` has beyond it. OSError or HTTPException if the connection breaks off."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # Nothing beyond what is there; whether that is the right file, its hash tells.
            return
        raise
    with answer, part.open("ab" if answer.status == 206 else "wb") as file:
        length = answer.headers.get("Content-Length")
        end = file.tell() + int(length) if length else None
        while chunk := answer.read(CHUNK):
            file.write(chunk)
            if progress:
                progress(file.tell())
        if end is not None and file.tell() < end:
            raise ConnectionError(f"broke off at {file.tell():,} of {end:,} bytes")


def download(
    url: str, target: Path, sha256: str = "", size: int = 0, progress: Progress | None = None,
    say: Callable[[str], None] = print,
) -> None:  # fmt: skip
    """``url`` as ``target``, resumed where an earlier attempt broke off. What has another ``sha256`` or ``size`` (where
    they are given) costs the part; one retry. Raises DownloadError, and OSError where nothing can be written."""
    part = target.with_name(target.name + ".part")
    for retry in (True, False):
        _fetch(url, part, progress, say)
        wrong = difference(part, sha256, size)
        if not wrong:
            part.replace(target)
            return
        part.unlink()
        say(f"{target.name} has {wrong}; deleted" + (", trying once more" if retry else ""))
    raise DownloadError(f"{url} is not the expected file: it has {wrong}")


def _fetch(url: str, part: Path, progress: Progress | None, say: Callable[[str], None]) -> None:
    attempt, reached = 0, 0
    while True:
        try:
            return continue_download(url, part, progress)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EACCES):
                raise
            if isinstance(error, urllib.error.HTTPError) and error.code in (401, 403, 404, 410):
                raise DownloadError(f"cannot download {url}: {error}") from None
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
