"""What other packs hand over, as this pack computes with it: frames, masks and poses.

Every node reads its IMAGE, MASK and POSE_KEYPOINT inputs here, so that one kind of value is taken or refused alike
everywhere.
"""

import numpy as np
import torch
from torch import Tensor

from ..vision.mask import INSIDE, three_dimensions
from ..vision.people_order import link_people
from ..vision.pose import PoseTrack
from .feedback import ranges

# Resizing and VAE decoding overshoot 0…1 a little; beyond these values they are another unit.
MIN_OVERSHOOT, MAX_OVERSHOOT = -0.5, 2.0
MIN_BYTE_PEAK, MAX_BYTE = 16.0, 255.5  # floats whose peak lies between are 0…255; 2…16 may be anything
SAMPLED_FRAMES = 16  # of a mask, for what is only asked
MAX_FRAMES, MAX_SIDE_PX = 1_000_000, 32_768  # more is a wrong shape, and looking through it takes minutes
LISTED_FRAMES = 16  # in a remark; of more, only the count is told
INTEGER_TYPES = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
FLOAT_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MAX_BORDER_SHARE, MAX_AREA_SHARE = 0.8, 0.5  # of the picture: a mask that covers more of both looks inverted


def read_frames(images: object, socket: str = "images") -> Tensor:
    """An IMAGE as float32 frames [T, H, W, 3 or 4] in 0…1, on its own device.

    Takes bytes and floats of any size, in 0…1 or 0…255, and gray frames [T, H, W, 1]. Frames that are right already
    are returned as they are. The fourth channel is alpha; nodes leave it out (colors stay as they are under it), but
    for Encode Character Reference, which takes it as a mask. Raises ValueError, naming ``socket`` and frame.
    """
    _check_tensor(images, socket, "an IMAGE")
    shape = "×".join(map(str, images.shape))
    if images.dim() != 4 or images.shape[-1] not in (1, 3, 4):
        raise ValueError(
            f"{socket}: expected frames × height × width × 3 (or 4, or 1) colors, found {shape}. Wire an IMAGE."
        )
    if 0 in images.shape:
        raise ValueError(f"{socket}: there is no picture in it ({shape}). Was the video loaded, or its range empty?")
    frames = _in_unit_range(images.detach(), socket)
    return frames.expand(-1, -1, -1, 3) if frames.shape[-1] == 1 else frames


def read_mask(mask: object, socket: str = "mask") -> Tensor:
    """A MASK [H, W], [T, H, W], [T, 1, H, W] or [T, H, W, 1] as float32 [T, H, W] in 0…1, on its own device.

    Takes bool, bytes and floats, in 0…1 or 0…255. Raises ValueError, naming ``socket`` and frame.
    """
    _check_tensor(mask, socket, "a MASK")
    mask = three_dimensions(mask.detach(), socket)
    if mask.dtype == torch.uint8 and mask.max() <= 1:
        mask = mask.bool()  # bytes of 0 and 1
    return _in_unit_range(mask, socket)


def is_black(mask: Tensor) -> bool:
    """Whether no pixel of ``mask`` [T, H, W] is of a person."""
    return not any(bool((frame > INSIDE).any()) for frame in mask)  # all at once would be a mask more


def check_shows_somebody(mask: Tensor, socket: str = "mask") -> None:
    """Raise ValueError where no pixel of ``mask`` [T, H, W] is of a person."""
    if not is_black(mask):
        return
    height, width = mask.shape[1:]
    raise ValueError(
        f"{socket}: it is black ({width}×{height} px): nobody is in it. Connect a mask that is white on the person, "
        "from Segment Character. Load Image gives a black 64×64 mask for every picture without alpha."
    )


def doubt_about(mask: Tensor | None, socket: str = "mask") -> str:
    """What to ask about a ``mask`` [T, H, W] that looks inverted; "" where it does not."""
    if mask is None:
        return ""
    sample = mask[np.unique(np.linspace(0, len(mask) - 1, SAMPLED_FRAMES).astype(int))] > INSIDE
    border = torch.cat([sample[:, 0], sample[:, -1], sample[:, :, 0], sample[:, :, -1]], dim=1)
    area = float(sample.float().mean())
    if float(border.float().mean()) <= MAX_BORDER_SHARE or area <= MAX_AREA_SHARE:
        return ""
    return f"{socket}: it covers {area:.0%} of the picture; is it inverted? Then use Invert Mask"


def read_pose(pose: object, socket: str = "pose") -> tuple[PoseTrack, str]:
    """A POSE_KEYPOINT as a track in which everybody keeps one index, and a remark for the report, "" where people
    came in one order already. Raises ValueError, naming ``socket``, for what is no pose."""
    track, changed = link_people(PoseTrack.from_openpose(pose, socket))
    if not changed.any():
        return track, ""
    count = int(changed.sum())
    frames = f"frames {ranges(changed)} (the first frame is 0)" if count <= LISTED_FRAMES else f"{count} frames"
    return track, f"The people of {socket} change places in its list in {frames}; they were linked by where they stand"


def check_somebody(track: PoseTrack, socket: str, advice: str) -> None:
    """Raise ValueError, which ends with ``advice``, unless somebody is seen in a frame of ``track``."""
    if not track.present.any():
        raise ValueError(f"{socket}: there is nobody in any of its frames. {advice}")


def _check_tensor(value: object, socket: str, kind: str) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(f"{socket}: found {type(value).__name__} where {kind} is expected. Wire {kind}.")
    if value.dtype not in INTEGER_TYPES + FLOAT_TYPES or value.layout != torch.strided:
        raise ValueError(f"{socket}: its values are of type {value.dtype}, {value.layout}. Wire {kind}.")
    if value.is_meta:
        raise ValueError(f"{socket}: it has a shape and no values (a meta tensor). Wire {kind}.")
    if value.ndim and (len(value) > MAX_FRAMES or max(value.shape[1:], default=0) > MAX_SIDE_PX):
        shape = "×".join(map(str, value.shape))
        raise ValueError(
            f"{socket}: {shape} is too large. At most {MAX_FRAMES:,} frames of {MAX_SIDE_PX:,}×{MAX_SIDE_PX:,} px work."
        )


def _in_unit_range(values: Tensor, socket: str) -> Tensor:
    """``values`` [T, …] of any type as float32 in 0…1; the very same where they are that already.

    Raises ValueError, naming ``socket`` and the first bad frame, for NaN, infinity and values of another unit.
    """
    if values.dtype == torch.uint8:
        return values / 255
    if values.dtype == torch.bool:
        return values.float()
    lows, highs = _extremes(values)
    finite = torch.isfinite(lows) & torch.isfinite(highs)
    if not finite.all():
        frame = int((~finite).nonzero()[0])
        raise ValueError(
            f"{socket}: frame {frame} (the first is 0) has NaN or infinite pixels. Look for the node that made them: "
            "VAE decoding in fp16 does it; start ComfyUI with --bf16-vae or --fp32-vae."
        )
    low, high = float(lows.min()), float(highs.max())
    are_bytes = MIN_BYTE_PEAK < high <= MAX_BYTE and low >= MIN_OVERSHOOT
    if not are_bytes and (low < MIN_OVERSHOOT or high > MAX_OVERSHOOT):
        frame = int(((lows < MIN_OVERSHOOT) | (highs > MAX_OVERSHOOT)).nonzero()[0])
        raise ValueError(
            f"{socket}: frame {frame} (the first is 0) has values from {float(lows[frame]):g} to "
            f"{float(highs[frame]):g}. Bring them to 0…1 (or 0…255) before this node."
        )
    values = values.float() / 255 if are_bytes else values.float()
    top = 255 if are_bytes else 1
    return values.clamp(0, 1) if low < 0 or high > top else values


def _extremes(values: Tensor) -> tuple[Tensor, Tensor]:
    """Least and greatest value of each frame of ``values`` [T, …]: [T] each, NaN where a frame has one. Frame by
    frame, because a copy of a long video does not fit into memory. What a view repeats is looked at once."""
    for dimension, stride in enumerate(values.stride()):
        if stride == 0:
            values = values.narrow(dimension, 0, 1)
    pairs = [frame.contiguous().aminmax() for frame in values]  # scattered values take twenty times as long
    return tuple(torch.stack(part).double().cpu() for part in zip(*pairs))
