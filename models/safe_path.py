"""Turn names that come from outside into paths. Nothing else joins such a name to a folder.

Names from outside are those that a server's answer, a table, an index file, an archive or a workflow holds. Only the
standard library is used, so that scripts can load this file without the pack.
"""

import os
from collections.abc import Collection
from itertools import chain, count
from pathlib import Path, PureWindowsPath

MAX_NAME_BYTES = 200  # file systems take 255; the rest is for numbers and the ending of an unfinished file
MAX_PATH_PARTS = 16
# Files of the pack's own that lie beside what it makes.
RESERVED_NAMES = frozenset({"state.json", "results.csv", "lock"})
RESERVED_ENDINGS = (".part", ".parts")
WINDOWS_DEVICES = frozenset(
    {"con", "prn", "aux", "nul"} | {f"{port}{digit}" for port in ("com", "lpt") for digit in range(1, 10)}
)
WINDOWS_FORBIDDEN = frozenset('<>:"|?*')


def path_inside(folder: Path, name: object, source: str, *, follow_links: bool = False) -> Path:
    """Return the path of the file ``name`` inside ``folder``; subfolders may be separated by either slash.

    source: where the name comes from (an input, a file), the first word of the error.
    follow_links: let a symbolic link inside ``folder`` lead elsewhere, as people link their model files.

    Raises ValueError where the path would lie outside, or where the name is reserved, too long, or not portable.
    """
    parts = _checked_parts(name, source)
    path = folder.joinpath(*parts)
    if not follow_links and not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{source}: {_shown(name)} leads outside {folder.name}/. Use a name inside that folder.")
    return path


def unused_path(path: Path, taken: Collection[Path] = (), *, replace: bool = False) -> Path:
    """Return ``path``, or the first of "NAME (1)", "NAME (2)", … that neither exists nor is in ``taken``.

    Names that differ in case only count as one, as they do on many disks.
    replace: what exists and is not in ``taken`` may be written over.
    """
    used = {str(each).casefold() for each in taken}
    numbered = (path.with_name(f"{path.stem} ({number}){path.suffix}") for number in count(1))
    return next(
        each
        for each in chain([path], numbered)
        if str(each).casefold() not in used and (replace or not os.path.lexists(each))
    )


def _checked_parts(name: object, source: str) -> tuple[str, ...]:
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"{source}: {_shown(name)} is not a file name.")
    parsed = PureWindowsPath(name)  # splits at both kinds of slash, and knows drives
    if parsed.anchor or ".." in parsed.parts:
        raise ValueError(f"{source}: {_shown(name)} leads outside its folder. Use a relative name without '..'.")
    if not 0 < len(parsed.parts) <= MAX_PATH_PARTS:
        raise ValueError(f"{source}: {_shown(name)} has {len(parsed.parts)} parts; at most {MAX_PATH_PARTS} work.")
    for part in parsed.parts:
        _check_part(part, name, source)
    return parsed.parts


def _check_part(part: str, name: object, source: str) -> None:
    lowered = part.lower()
    if not part.isprintable() or (os.name == "nt" and WINDOWS_FORBIDDEN & set(part)):
        problem = "has characters that file names cannot have"
    elif len(os.fsencode(part)) > MAX_NAME_BYTES:
        problem = f"is longer than {MAX_NAME_BYTES} bytes"
    elif part != part.rstrip(". ") or lowered.split(".")[0].rstrip() in WINDOWS_DEVICES:
        problem = "is a name that Windows cannot store"
    elif lowered in RESERVED_NAMES or lowered.endswith(RESERVED_ENDINGS):
        problem = "is reserved for the pack's own files"
    else:
        return
    raise ValueError(f"{source}: {_shown(name)} {problem}. Use another name.")


def _shown(name: object) -> str:
    text = repr(name)
    return text if len(text) <= 80 else f"{text[:77]}…"
