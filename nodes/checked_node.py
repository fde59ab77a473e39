"""The base class of all nodes: what comes in is checked against the node's own schema before `execute` sees it.

The host checks widgets alone. A link bypasses the options of a combo and the range of a number, and brings whatever the
other node made.
"""

import functools
import inspect
import math
import numbers
from collections.abc import Callable, Mapping

import numpy as np
from comfy_api.latest import io

from ..models.socket_type import wrong_type
from ..vision.camera_path import CameraPath
from . import socket_values

MAX_SHOWN_CHARACTERS = 60  # of a value in an error
MAX_SHOWN_OPTIONS = 12

# What None on a required input usually means; other inputs get a general word.
NOTHING = {
    "CLIP": "there is no text encoder in it. Load T5-XXL with Load CLIP, type cogvideox.",
    "VAE": "there is no VAE in it. Load CogVideoX's own with Load VAE.",
}


class FileInput(io.Combo.Input):
    """A combo of file names. The list is as old as the page; the loader says which names it takes."""


class Node(io.ComfyNode):
    """A node whose `execute` gets numbers within their range, known options, and frames and masks as float32 in 0…1
    (see socket_values). Anything else raises a ValueError that begins with the input's name."""

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        own = cls.__dict__.get("execute")
        # The host clones a node's class for each run, and a clone has the checks already.
        if own is not None and not hasattr(own.__func__, "checks_inputs"):
            cls.execute = classmethod(_with_checks(own.__func__))


def _with_checks(execute: Callable) -> Callable:
    signature = inspect.signature(execute)

    @functools.wraps(execute)
    def checked(cls, *args, **kwargs) -> io.NodeOutput:
        given = signature.bind(cls, *args, **kwargs).arguments
        given.pop(next(iter(signature.parameters)))  # the class itself
        return execute(cls, **check_inputs(cls.define_schema().inputs, given))

    checked.checks_inputs = True
    return checked


def check_inputs(inputs: list[io.Input], given: dict) -> dict:
    """``given``, name -> value, as a node with ``inputs`` takes it. Raises ValueError for the first that is wrong,
    after those that take no time."""
    known = {each.id: each for each in inputs}
    taken = dict(given)
    for name in sorted(given, key=lambda name: _is_pixels(known.get(name))):
        if name not in known:
            continue
        if given[name] is not None:
            taken[name] = _check(known[name], given[name])
        elif not known[name].optional:
            nothing = NOTHING.get(known[name].get_io_type(), "nothing came in (None). Look at the node it comes from.")
            raise ValueError(f"{name}: {nothing}")
        elif isinstance(known[name], io.WidgetInput):
            del taken[name]  # the default of execute
    return taken


def _is_pixels(known: io.Input | None) -> bool:
    return isinstance(known, io.Image.Input | io.Mask.Input)


def _check(known: io.Input, value: object) -> object:
    for kind, check in CHECKS.items():
        if isinstance(known, kind):
            return check(known, value)
    kind, name, remedy = CARRIED.get(known.get_io_type(), (object, "", ""))
    if not isinstance(value, kind):
        raise wrong_type(known.id, value, name, remedy)
    return value


def _check_number(known: io.Int.Input | io.Float.Input, value: object) -> int | float:
    whole = isinstance(known, io.Int.Input)
    wanted = f"Use a {'whole ' if whole else ''}number{_range_of(known)}."
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        raise ValueError(f"{known.id}: {_shown(value)} is not a number. {wanted}")
    if not isinstance(value, numbers.Integral) and not math.isfinite(value):
        raise ValueError(f"{known.id}: {value} is not a finite number. {wanted}")
    if whole and value != int(value):
        raise ValueError(f"{known.id}: {value} is not a whole number. {wanted}")
    low, high = known.min, known.max
    if (low is not None and value < low) or (high is not None and value > high):
        raise ValueError(f"{known.id}: {_shown(value)} lies outside its range. {wanted}")
    return int(value) if whole else float(value)


def _range_of(known: io.Int.Input | io.Float.Input) -> str:
    if known.min is None or known.max is None:
        return ""
    return f" from {known.min} to {known.max}"


def _check_switch(known: io.Boolean.Input, value: object) -> bool:
    if isinstance(value, bool | np.bool_ | numbers.Integral) and value in (0, 1):
        return bool(value)
    raise ValueError(f"{known.id}: {_shown(value)} is neither true nor false. Use true or false.")


def _check_option(known: io.Combo.Input, value: object) -> object:
    if isinstance(value, str | numbers.Integral) and value in known.options:
        return value
    options = ", ".join(map(str, known.options[:MAX_SHOWN_OPTIONS]))
    raise ValueError(f"{known.id}: {_shown(value)} is not one of its options. Use one of: {options}.")


def _check_text(known: io.Input, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{known.id}: {_shown(value)} is not text. Use text.")
    return value


def _shown(value: object) -> str:
    """``value`` in an error: itself where it is short, else its kind."""
    text = (
        repr(value)
        if isinstance(value, str | numbers.Number | np.generic)
        else f"a value of type {type(value).__name__}"
    )
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}…"


# What sockets carry that nothing below the nodes looks at: type, what artists know it as, where it comes from.
CARRIED = {
    io.Latent.io_type: (Mapping, "a latent", "Connect a sampler behind Encode Shot"),
    "AA_CAMERA_PATH": (CameraPath, "a camera path", "Connect Track Background or Pose to Tracks"),
}

# FileInput is a combo, too, and comes first.
CHECKS: dict[type | tuple[type, ...], Callable] = {
    (io.Int.Input, io.Float.Input): _check_number,
    io.Boolean.Input: _check_switch,
    (FileInput, io.String.Input): _check_text,
    io.Combo.Input: _check_option,
    io.Image.Input: lambda known, value: socket_values.read_frames(value, known.id),
    io.Mask.Input: lambda known, value: socket_values.read_mask(value, known.id),
}
