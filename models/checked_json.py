"""JSON from files of others: parsed within limits and checked field by field, with one error for whatever is wrong.

``source`` is what every error begins with: the input and the file, as in "adapter: person.safetensors".
"""

import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

MAX_CONFIG_BYTES = 16 << 20
MAX_SHOWN_CHARACTERS = 80


def read_object(path: Path, source: str) -> dict:
    """Return the JSON object in the file at ``path``. Raises ValueError where it is too large or not one."""
    return parse_object(read_text(path, source), f"{source}: {path.name}")


def read_text(path: Path, source: str) -> str:
    """Return the text in the file at ``path``. Raises ValueError where it is too large for a configuration, or none."""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ValueError(f"{source}: {path.name} has more than {MAX_CONFIG_BYTES >> 20} MiB. Get the file again.")
        return path.read_bytes().decode()
    except OSError as error:
        raise ValueError(f"{source}: {path.name} cannot be read ({error.strerror}). Get the file again.") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{source}: {path.name} is not a text in UTF-8. Get the file again.") from error


def parse_object(text: str | bytes, source: str) -> dict:
    """Return the JSON object in ``text``.

    Raises ValueError for anything else, for numbers that are not finite, and for keys that come twice.
    """
    try:
        found = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{source} is not valid JSON ({_first_words(error)}). Get the file again.") from error
    if not isinstance(found, dict):
        raise ValueError(f"{source} is {shown(found)}, where a JSON object is expected. Get the file again.")
    return found


def shown(value: object) -> str:
    """Return ``value`` as text for an error, shortened."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return f"a number of {value.bit_length()} bits"  # Python refuses to print integers that are too long
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} that is too large to print"
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[: MAX_SHOWN_CHARACTERS - 1]}…"


@dataclass(frozen=True)
class Fields:
    """The fields of a JSON object, each read with the type and the range that it must have."""

    values: dict
    source: str

    def only(self, known: Collection[str]) -> "Fields":
        """Raise ValueError where there are fields that are not ``known``."""
        unknown = sorted(set(self.values) - set(known))
        if unknown:
            raise ValueError(
                f"{self.source} has {shown(unknown[0])}, which this version of the pack does not know. Update "
                "ComfyUI-AnimateAnywhere."
            )
        return self

    def integer(self, name: str, highest: int, lowest: int = 1) -> int:
        value = self._value(name, f"a whole number from {lowest} to {highest}")
        if type(value) is not int or not lowest <= value <= highest:
            raise self._wrong(name, f"a whole number from {lowest} to {highest}")
        return value

    def text(self, name: str) -> str:
        value = self._value(name, "a text")
        if not isinstance(value, str):
            raise self._wrong(name, "a text")
        return value

    def table(self, name: str) -> "Fields":
        """Return the fields of the object ``name``."""
        value = self._value(name, "an object")
        if not isinstance(value, dict):
            raise self._wrong(name, "an object")
        return Fields(value, f"{self.source}, {name}")

    def _value(self, name: str, expected: str) -> object:
        if name not in self.values:
            raise ValueError(f"{self.source} lacks {name}; {expected} is expected. Get the file again.")
        return self.values[name]

    def _wrong(self, name: str, expected: str) -> ValueError:
        return ValueError(
            f"{self.source}: {name} is {shown(self.values[name])}; {expected} is expected. Get the file again."
        )


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key comes twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is not a finite number")
    return number


def _first_words(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return (str(error).splitlines() or [type(error).__name__])[0][:MAX_SHOWN_CHARACTERS]
