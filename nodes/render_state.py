"""The record of a film that is being rendered: state.json, written by whole files and believed field by field."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from ..models import latents
from ..models.whole_file import whole
from ..models.windows import HANDOVERS, LONGEST, Plan, Window

VERSION = 2
UNCHECKED_VERSION = 1  # without checksums: believed of whole films alone
CHECKSUM_BYTES = 16
CHECKSUM = re.compile(rf"[0-9a-f]{{{2 * CHECKSUM_BYTES}}}")
READ_BYTES = 1 << 20
MAX_PLAN_FRAMES = 10**8
# A row of the report: its window, then figures, which may be unknown, then figures that never are.
WINDOW_KEYS = ("index", "start", "length")
UNKNOWN_KEYS = ("drift", "drift_before", "seam", "flow", "flow_inside")
KNOWN_KEYS = ("seconds", "memory")


@dataclass
class State:
    """How far a film is."""

    inputs: dict[str, str]  # what it is made from, name -> value or hash
    plan: dict  # windows.Plan, as JSON has it
    rows: list[dict] = field(default_factory=list)  # of the report, one a window done
    sizes: list[int] = field(default_factory=list)  # bytes of each window's file
    checksums: list[str] = field(default_factory=list)  # of each window's file
    handover: str = ""  # checksum of what the last window done hands over
    film: int = 0  # bytes of the film that lies there: the whole one, or one of the windows done
    next_film: int = 0  # bytes of the film that was to take its place when the state was written
    is_whole: bool = False
    version: int = VERSION

    @property
    def film_sizes(self) -> set[int]:
        """Bytes of films that are known to be this one's."""
        return {self.film, self.next_film}


def checksum(path: Path) -> str:
    """Of the bytes of the file at ``path``."""
    found = hashlib.blake2b(digest_size=CHECKSUM_BYTES)
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            found.update(block)
    return found.hexdigest()


def write_state(path: Path, state: State) -> None:
    with whole(path) as partial:
        partial.write_text(json.dumps(asdict(state), indent=1), encoding="utf-8")


def read_state(path: Path) -> State | None:
    """The record at ``path``; None where there is none. Raises ValueError, saying which field is wrong, for a damaged
    one, and for one of another version."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError("it is not valid JSON") from error
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    return _checked(found)


def plan_of(state: State) -> Plan:
    return Plan(**state.plan | {"windows": tuple(Window(*each) for each in state.plan["windows"])})


def _checked(found: dict) -> State:
    """``found`` as a State in which every field has its type and agrees with the others."""
    if found.get("version") == UNCHECKED_VERSION and not isinstance(found.get("version"), bool):
        found = {**found, "version": VERSION, "checksums": [], "handover": "", "next_film": 0}
        if found.get("is_whole") is not True:
            raise ValueError("an older version of the pack wrote it, without checksums")
    elif found.get("version") != VERSION:
        raise ValueError("another version of the pack wrote it")
    else:
        _expect("checksums", _is_list(found.get("checksums"), _is_checksum))
    names = {each.name for each in fields(State)}
    if found.keys() != names:
        raise ValueError(f"the fields {', '.join(sorted(map(str, names ^ found.keys())))[:80]} do not belong")
    _expect(
        "inputs", isinstance(found["inputs"], dict) and all(isinstance(each, str) for each in found["inputs"].values())
    )
    _expect("plan", _is_plan(found["plan"]))
    windows = found["plan"]["windows"]
    _expect("sizes", _is_list(found["sizes"], _is_count))
    for name in ("film", "next_film"):
        _expect(name, _is_count(found[name]))
    _expect("is_whole", isinstance(found["is_whole"], bool))
    _expect("handover", found["handover"] == "" or _is_checksum(found["handover"]))
    rows = found["rows"]
    _expect("rows", isinstance(rows, list) and len(rows) <= len(windows) and all(map(_is_row, rows, windows)))
    done = len(windows) if found["is_whole"] else len(found["sizes"])
    _expect("rows", len(rows) == done == len(found["sizes"]))
    _expect("checksums", len(found["checksums"]) in ({0, done} if found["is_whole"] else {done}))
    return State(**found)


def _expect(name: str, is_right: bool) -> None:
    if not is_right:
        raise ValueError(f"its field {name} is wrong")


def _is_list(value: object, is_right) -> bool:
    return isinstance(value, list) and all(map(is_right, value))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_checksum(value: object) -> bool:
    return isinstance(value, str) and bool(CHECKSUM.fullmatch(value))


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 2**63 and math.isfinite(value)


def _is_row(row: object, window: list[int]) -> bool:
    if not isinstance(row, Mapping) or row.keys() != {*WINDOW_KEYS, *UNKNOWN_KEYS, *KNOWN_KEYS}:
        return False
    return (
        [row[key] for key in WINDOW_KEYS] == window[: len(WINDOW_KEYS)]
        and not any(isinstance(row[key], bool) for key in WINDOW_KEYS)
        and all(row[key] is None or _is_number(row[key]) for key in UNKNOWN_KEYS)
        and all(_is_number(row[key]) for key in KNOWN_KEYS)
    )


def _is_window(value: object) -> bool:
    return _is_list(value, _is_count) and len(value) == len(Window._fields)


def _is_plan(plan: object) -> bool:
    """Whether it is a Plan whose windows make each of its frames once."""
    if not isinstance(plan, dict) or plan.keys() != {each.name for each in fields(Plan)}:
        return False
    windows, total, shared = plan["windows"], plan["total"], plan["shared"]
    if plan["handover"] not in HANDOVERS or not all(_is_count(plan[name]) for name in ("total", "shared", "blend")):
        return False
    if not 1 <= total <= MAX_PLAN_FRAMES or plan["blend"] > shared:
        return False
    if not windows or not _is_list(windows, _is_window):
        return False
    made = Plan(**plan | {"windows": tuple(Window(*each) for each in windows)})
    end = 0
    for index, window in enumerate(made.windows):
        fits = latents.SHORTEST <= window.length <= LONGEST and window.shared == (shared if index else 0)
        finished = made.finished(window)
        if window.index != index or not fits or finished.start != end or len(finished) < 1:
            return False
        end = finished.stop
    return end == total
