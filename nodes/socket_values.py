"""Turn what other packs hand over into what this pack computes with, or refuse it with one error.

One function per socket type, called for every input of every node (checked_node.py): an IMAGE may be bfloat16, bytes or
gray, a MASK bool or [T, 1, H, W], and a link may bring any value to a widget, past the page's own limits.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real

import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ..models.checkpoint import Adapter
from ..models.clips import Shot
from ..models.reference import Reference
from ..vision.camera_path import CameraPath

BYTE_MAX = 255
MAX_BRIGHTNESS = 2.0  # above: not an overshoot of an upscaler, but pixels of 0 to 255
MAX_SHOWN_CHARACTERS = 80


def image_value(images: object, socket: str) -> Tensor:
    """IMAGE as frames [T, H, W, 3 or 4], float32, in about 0…1; those that are so already are not copied.

    Bytes are divided by 255, one channel becomes three. A fourth channel is alpha, and stays. Raises ValueError, naming
    the ``socket``, for other shapes, no frames, and pixels that are NaN, infinite or far outside 0…1.
    """
    frames = _tensor(images, socket, "an IMAGE")
    shape = "×".join(map(str, frames.shape))
    if frames.ndim != 4 or frames.shape[-1] not in (1, 3, 4):
        raise ValueError(f"{socket}: expected frames × height × width × 3 (or 4) colors, found {shape}.")
    if 0 in frames.shape:
        raise ValueError(f"{socket}: there is no picture in it ({shape}). Was the video loaded, or its range empty?")
    frames = _as_floats(frames, socket)
    for index, frame in enumerate(frames):
        low, high = (float(limit) for limit in frame.aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(
                f"{socket}: frame {index} has pixels that are not numbers (NaN or infinite). The node that made it "
                "failed there; try it with another precision or without its faulty step."
            )
        if max(-low, high) > MAX_BRIGHTNESS:
            raise ValueError(
                f"{socket}: frame {index} has pixels from {low:g} to {high:g}. An IMAGE has 0 to 1; divide pixels of 0 "
                "to 255 by 255 first."
            )
    return frames.expand(-1, -1, -1, 3) if frames.shape[-1] == 1 else frames


def mask_value(mask: object, socket: str) -> Tensor:
    """MASK as [T, H, W], float32 in 0…1; one that is so already is not copied.

    Takes bool, bytes, 0…255, [H, W], [T, H, W] and [T, 1, H, W]. Raises ValueError, naming the ``socket``, for other
    shapes, no frames, and values that are negative, NaN or infinite.
    """
    frames = _tensor(mask, socket, "a MASK")
    shape = list(frames.shape)
    if frames.ndim == 2:
        frames = frames[None]
    elif frames.ndim == 4 and frames.shape[1] == 1:
        frames = frames[:, 0]
    if frames.ndim != 3:
        raise ValueError(f"{socket}: expected [frames, height, width], got {shape}. Wire a MASK, not an image.")
    if frames.numel() == 0:
        raise ValueError(f"{socket}: it is empty ({shape}). Wire a mask with at least one frame.")
    frames = _as_floats(frames, socket, divide_bytes=False)
    least, most = 0.0, 0.0
    for index, frame in enumerate(frames):
        low, high = (float(limit) for limit in frame.aminmax())
        if not (math.isfinite(low) and math.isfinite(high) and low >= -MAX_BRIGHTNESS and high <= BYTE_MAX):
            raise ValueError(
                f"{socket}: frame {index} has values from {low:g} to {high:g}. A MASK has 0 (outside) to 1 (inside)."
            )
        least, most = min(least, low), max(most, high)
    if most > MAX_BRIGHTNESS:
        return frames / BYTE_MAX
    return frames if most <= 1 and least >= 0 else frames.clamp(0, 1)


def pose_value(pose: object, socket: str) -> list[dict]:
    """POSE_KEYPOINT as a list of frames; vision.pose.PoseTrack reads what is in them."""
    if isinstance(pose, Mapping):  # one frame, as some detectors give it for one picture
        return [dict(pose)]
    if not isinstance(pose, list | tuple):
        raise ValueError(f"{socket}: expected a list with one entry a frame, found {_kind_of(pose)}.")
    return pose


def conditioning_value(conditioning: object, socket: str) -> list:
    """CONDITIONING as the host has it: a list of [tensor, options]."""
    if not isinstance(conditioning, list | tuple) or not conditioning:
        raise ValueError(f"{socket}: expected CONDITIONING, found {_kind_of(conditioning)}. Connect No Prompt.")
    for entry in conditioning:
        good = isinstance(entry, list | tuple) and len(entry) == 2 and isinstance(entry[1], Mapping)
        if not good or not isinstance(entry[0], Tensor):
            raise ValueError(f"{socket}: expected pairs of a tensor and options, found {_kind_of(entry)}.")
    return conditioning


def latent_value(latent: object, socket: str) -> Mapping:
    """LATENT as the host has it: a mapping with ``samples``."""
    if not isinstance(latent, Mapping) or not isinstance(latent.get("samples"), Tensor):
        raise ValueError(f"{socket}: expected a LATENT with samples, found {_kind_of(latent)}.")
    return latent


def number_value(value: object, socket: str, whole: bool, low: float | None, high: float | None) -> float | int:
    """A number of a widget, or of a link that went past the widget's limits."""
    kind = "whole number" if whole else "number"
    wrong = isinstance(value, bool) or not isinstance(value, Integral if whole else Real)
    if wrong and whole and isinstance(value, float) and value.is_integer():
        value, wrong = int(value), False  # 24.0 from a math node
    if wrong or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"{socket}: {_shown(value)} is not a {kind}. Give {_range(low, high)}.")
    if (low is not None and value < low) or (high is not None and value > high):
        raise ValueError(f"{socket}: {_shown(value)} is outside the range. Give {_range(low, high)}.")
    return int(value) if whole else float(value)


def choice_value(value: object, socket: str, options: Sequence) -> object:
    """One of the ``options`` of a combo, which a link may miss."""
    if value not in options:
        shown = ", ".join(map(str, options))
        raise ValueError(f"{socket}: {_shown(value)} is not known. Choose one of {shown}.")
    return value


def switch_value(value: object, socket: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{socket}: {_shown(value)} is neither true nor false.")
    return value


def text_value(value: object, socket: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{socket}: {_shown(value)} is not a text.")
    return value


def object_value(kind: type, name: str) -> Callable[[object, str], object]:
    """A check that a socket carries a ``kind``, which artists know as ``name``."""

    def check(value: object, socket: str) -> object:
        if not isinstance(value, kind):
            raise ValueError(f"{socket}: expected {name}, found {_kind_of(value)}.")
        return value

    return check


# Socket type -> what is done with its values.
SOCKET_VALUES: dict[str, Callable[[object, str], object]] = {
    io.Image.io_type: image_value,
    io.Mask.io_type: mask_value,
    io.Conditioning.io_type: conditioning_value,
    io.Latent.io_type: latent_value,
    io.Boolean.io_type: switch_value,
    io.String.io_type: text_value,
    io.Model.io_type: object_value(ModelPatcher, "a MODEL from Load Diffusion Model"),
    io.Vae.io_type: object_value(comfy.sd.VAE, "a VAE from Load VAE"),
    "POSE_KEYPOINT": pose_value,
    "AA_SHOT": object_value(Shot, "a shot, from Shot"),
    "AA_REFERENCE": object_value(Reference, "a character, from Encode Character Reference"),
    "AA_ADAPTER": object_value(Adapter, "an adapter, from Load AnimateAnywhere Adapter"),
    "AA_CAMERA_PATH": object_value(CameraPath, "a camera path, from Track Background or Pose to Tracks"),
}


def _tensor(value: object, socket: str, name: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise ValueError(f"{socket}: expected {name}, found {_kind_of(value)}.")
    return value


def _as_floats(frames: Tensor, socket: str, divide_bytes: bool = True) -> Tensor:
    if frames.dtype == torch.uint8:
        return frames.float() / BYTE_MAX if divide_bytes else frames.float()
    if frames.is_complex():
        raise ValueError(f"{socket}: its values are complex numbers.")
    return frames.float()


def _range(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return f"one from {low:g} on" if low is not None else "a finite one"
    return f"one from {low:g} to {high:g}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[: MAX_SHOWN_CHARACTERS - 1]}…"


def _kind_of(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
