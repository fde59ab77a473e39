"""JSON that somebody else wrote: a value, or one ValueError that says what is wrong with it.

Standard library only.
"""

import json
import math
from pathlib import Path

MAX_SHOWN = 80  # characters of a value in an error


def parse(content: bytes, *, strict: bool = True) -> object:
    """Return the value of the UTF-8 text `content`, with or without a byte order mark.

    strict: refuse numbers that are not finite, and objects that have a key twice.
    """
    hooks = {"object_pairs_hook": _unique, "parse_constant": _refuse, "parse_float": _finite}
    try:
        return json.loads(decode(content), **(hooks if strict else {}))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read(path: Path) -> object:
    """Return the value in the file `path`, strictly. Raises OSError, and ValueError."""
    return parse(path.read_bytes())


def decode(content: bytes) -> str:
    """Return UTF-8 text without its byte order mark. Raises ValueError for another encoding."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8 text; save it as UTF-8") from None


def shown(value: object) -> str:
    """Return `value` for an error message, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # an int of more digits than Python prints
        text = "a number of thousands of digits"
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"


def _unique(pairs: list[tuple[str, object]]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"an object has the key {shown(twice)} twice")
    return found


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not a finite number")


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _refuse(shown(digits))
