"""What pictures, texts and models are, as short hashes that are the same after a restart.

Pixels and conditions count to the last bit. Of a model's weights a sample does: nobody changes a weight and leaves all
of these as they were, and reading eleven gigabytes takes as long as sampling.
"""

import functools
import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from types import FunctionType, MethodType

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

SAMPLED = 64  # values of each weight
CHUNK = 2**23  # values of a tensor hashed at once: between two of them, an artist may have cancelled
DEEPEST = 8  # levels of containers that are looked into; some hold themselves

Check = Callable[[], object]  # called from time to time; may raise to stop


def of(value: object, check: Check | None = None) -> str:
    """Hash of tensors, texts, numbers, and containers and dataclasses of such; of other objects, of their kind and of
    what they hold of these. What a function closes over belongs to it."""
    return _digest(lambda add: _value(add, value, check, 0))


def of_model(model: ModelPatcher, check: Check | None = None) -> str:
    """Hash of a MODEL: its weights as they were loaded, the patches on them (LoRA), and whatever else is attached.

    Whether it lies on the device, with its patches merged, makes no difference.
    """
    return _digest(lambda add: _model(add, model, check))


def _digest(write: Callable) -> str:
    found = hashlib.blake2b(digest_size=16)
    write(found.update)
    return found.hexdigest()


def _model(add: Callable, model: ModelPatcher, check: Check | None) -> None:
    _text(add, type(model.model), getattr(getattr(model.model, "model_config", None), "unet_config", None))
    for key, (original, *patches) in sorted(model.get_key_patches().items()):
        if check is not None:
            check()
        weight = original[0]
        weight = getattr(weight, "_qdata", weight)  # of a quantised one, as it is stored
        _text(add, key, weight.dtype, tuple(weight.shape))
        flat = weight.detach().reshape(-1)
        _bytes(add, flat[:: max(1, len(flat) // SAMPLED)])
        _value(add, patches, check, 0)
    for name, patch in sorted(model.object_patches.items()):
        _text(add, name)
        if isinstance(patch, nn.Module):  # a schedule, for one; its values are buffers
            _value(add, [type(patch), dict(patch.named_buffers()), _plain(patch)], check, 0)
        else:
            _value(add, patch, check, 0)
    _value(add, [model.model_options, model.wrappers, model.attachments], check, 0)
    for name, others in sorted(model.additional_models.items()):
        _text(add, name)
        for other in others:
            _model(add, other, check)


def _value(add: Callable, value: object, check: Check | None, depth: int) -> None:
    def inside(values: Iterable) -> None:
        if depth < DEEPEST:
            for part in values:
                _value(add, part, check, depth + 1)

    if isinstance(value, Tensor):
        _tensor(add, value, check)
    elif isinstance(value, Mapping):
        _text(add, "{", len(value))
        for key in sorted(value, key=str):
            _text(add, key)
            inside([value[key]])
    elif isinstance(value, (list, tuple)):
        _text(add, "(", len(value))
        inside(value)
    elif value is None or isinstance(value, (bool, int, float, complex, str, bytes, type, torch.dtype)):
        _text(add, value)
    elif isinstance(value, (nn.Module, ModelPatcher)):
        _text(add, type(value))  # its weights are looked at where it is attached
    elif is_dataclass(value):
        _text(add, type(value))
        inside(getattr(value, field.name) for field in fields(value))
    elif isinstance(value, functools.partial):
        inside([value.func, value.args, value.keywords])
    elif isinstance(value, MethodType):
        inside([value.__func__, value.__self__])
    elif isinstance(value, FunctionType):
        _text(add, value.__module__, value.__qualname__)
        inside([value.__defaults__, *_closed_over(value)])
    else:
        _text(add, type(value))
        inside([_plain(value)])


def _closed_over(function: FunctionType) -> list:
    return list(inspect.getclosurevars(function).nonlocals.values())


def _plain(thing: object) -> dict:
    """What an object is set to: its attributes that are tensors, texts or numbers, or tuples and lists of these."""
    return {
        name: value
        for name, value in getattr(thing, "__dict__", {}).items()
        if isinstance(value, (Tensor, bool, int, float, str, tuple, list)) and not name.startswith("_")
    }


def _tensor(add: Callable, tensor: Tensor, check: Check | None) -> None:
    _text(add, tensor.dtype, tuple(tensor.shape))
    if not tensor.ndim or not tensor.numel():
        _bytes(add, tensor)
        return
    rows = max(1, CHUNK // max(1, tensor[0].numel()))  # an expanded tensor is made whole only in parts
    for start in range(0, len(tensor), rows):
        if check is not None:
            check()
        _bytes(add, tensor[start : start + rows])


def _bytes(add: Callable, tensor: Tensor) -> None:
    add(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def _text(add: Callable, *parts: object) -> None:
    for part in parts:
        name = f"{part.__module__}.{part.__qualname__}" if isinstance(part, type) else repr(part)
        add(f"{len(name)}:{name}".encode())
