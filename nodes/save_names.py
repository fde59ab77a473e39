"""Names of the files that nodes save, with the host's %tokens% in them, and the error of a disk that is full."""

import re
import time
from pathlib import Path

import folder_paths

from ..models.safe_path import path_inside

DATE = re.compile(r"%date:([^%]*)%")
# The page fills in %date:…% for its own nodes alone, so it is done here for ours. Same letters as there.
DATE_PART = re.compile(r"d{1,2}|M{1,2}|h{1,2}|m{1,2}|s{1,2}|yyyy|yy")
TIME_TOKENS = re.compile(r"(?:%(?:date:[^%]*|year|month|day|hour|minute|second)%)+")
NOT_IN_NAMES = re.compile(r'[?<>:*|"\x00-\x1f\x7f]')


def expand_tokens(name: str, width: int, height: int) -> str:
    """Replace %date:yyyy-MM-dd%, %year%, %width% and the host's other tokens in ``name``.

    width, height: px of what is saved.
    """
    name = DATE.sub(lambda match: NOT_IN_NAMES.sub("_", _format_date(match[1])), name)
    return "".join(_expand_by_host(part, width, height) for part in re.split(r"([/\\])", name))


def has_time_token(name: str) -> bool:
    """Whether expand_tokens() gives another name at another time."""
    return bool(TIME_TOKENS.search(name))


def has_size_token(name: str) -> bool:
    return "%width%" in name or "%height%" in name


def pattern_of(name: str, width: int, height: int) -> str:
    """A glob pattern of all names that ``name`` has at any time."""
    parts = TIME_TOKENS.sub("\0", name).split("\0")
    return "*".join(re.sub(r"([\[*?])", r"[\1]", expand_tokens(part, width, height)) for part in parts)


def output_prefix(prefix: object, width: int, height: int) -> str:
    """``prefix`` with its tokens replaced. Raises ValueError, naming ``filename_prefix``, where it leaves the output
    folder or is no file name."""
    if not isinstance(prefix, str):
        raise ValueError(f"filename_prefix: {prefix!r} is not a file name.")
    expanded = expand_tokens(prefix, width, height)
    path_inside(Path(folder_paths.get_output_directory()), expanded, "filename_prefix")
    return expanded


def cannot_write(socket: str, name: str, error: OSError, needed: float, after: str) -> RuntimeError:
    """The error of a file that could not be written. needed: bytes of room; after: what is kept, and what to do."""
    reason = error.strerror or str(error)
    room = f"{needed / 1e6:,.1f} MB" if needed >= 1e5 else f"{max(1, needed / 1e3):,.0f} KB"
    return RuntimeError(
        f"{socket}: {name} cannot be written on: {reason}. It needs about {room} of free space. {after}"
    )


def _format_date(form: str) -> str:
    now = time.localtime()
    values = {"d": now.tm_mday, "M": now.tm_mon, "h": now.tm_hour, "m": now.tm_min, "s": now.tm_sec}

    def value(match: re.Match) -> str:
        part = match[0]
        if part[0] == "y":
            return str(now.tm_year)[-len(part) :]
        return str(values[part[0]]).zfill(len(part))

    return DATE_PART.sub(value, form)


def _expand_by_host(part: str, width: int, height: int) -> str:
    """A part of a path. The host expands on its way to a free number; in its temp folder that leaves nothing behind."""
    if "%" not in part:
        return part
    return folder_paths.get_save_image_path(part, folder_paths.get_temp_directory(), width, height)[4]
