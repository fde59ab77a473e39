"""The base of every node: checks what arrives at its sockets before the node does anything."""

import functools
import inspect
from collections.abc import Callable

from comfy_api.latest import io

from . import socket_values


class CheckedNode(io.ComfyNode):
    """A node whose ``execute`` gets its inputs as socket_values.py makes them, or is not called.

    ComfyUI checks widgets when a prompt is queued. A link goes past those checks, and sockets of type * past all.
    """

    FILE_INPUTS: tuple[str, ...] = ()  # combos of files: the list may be older than the folder, so their loaders check

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        own = cls.__dict__.get("execute")
        if isinstance(own, classmethod) and not hasattr(own.__func__, "__wrapped__"):  # the host clones classes
            cls.execute = classmethod(_checked(own.__func__))


def _checked(execute: Callable) -> Callable:
    signature = inspect.signature(execute)

    @functools.wraps(execute)
    def check_and_execute(cls: type[CheckedNode], *args, **kwargs) -> io.NodeOutput:
        given = signature.bind(cls, *args, **kwargs)
        for item in (cls.SCHEMA or cls.define_schema()).inputs:
            if item.id in given.arguments:
                given.arguments[item.id] = _check(item, given.arguments[item.id], item.id in cls.FILE_INPUTS)
        return execute(*given.args, **given.kwargs)

    return check_and_execute


def _check(item: io.Input, value: object, is_file: bool) -> object:
    if value is None and item.optional:
        return None
    if isinstance(item, io.Int.Input | io.Float.Input):
        whole = isinstance(item, io.Int.Input)
        return socket_values.number_value(value, item.id, whole, item.min, item.max)
    if isinstance(item, io.Combo.Input):
        if is_file:
            return socket_values.text_value(value, item.id)
        return socket_values.choice_value(value, item.id, item.options)
    check = socket_values.SOCKET_VALUES.get(item.get_io_type())
    return value if check is None else check(value, item.id)
