"""Clips that were rendered apart become one video."""

from collections.abc import Sequence

import torch
from torch import Tensor


def join(clips: Sequence[Tensor], overlap: int = 0) -> Tensor:
    """Clips [T, H, W, 3] one after the other, without the first ``overlap`` frames of each that follows another.

    Raises ValueError, naming the clip, when there are fewer than two, sizes differ, or nothing would be left of one.
    """
    if len(clips) < 2:
        raise ValueError(f"clips: at least 2 are needed to stitch; there is {len(clips)}.")
    if overlap < 0:
        raise ValueError(f"overlap: {overlap} is not possible; choose 0 or more frames.")
    clips = [clip[..., :3] for clip in clips]
    first = clips[0].shape[1:]
    for i, clip in enumerate(clips):
        if not len(clip):
            raise ValueError(f"clips: clip{i} is empty.")
        if clip.shape[1:] != first:
            size = " and ".join(f"{shape[1]}×{shape[0]} px" for shape in (clip.shape[1:], first))
            raise ValueError(f"clips: clip{i} and clip0 differ in size: {size}. Make them equal first.")
        if i and len(clip) <= overlap:
            raise ValueError(f"overlap: of clip{i} with its {len(clip)} frames, an overlap of {overlap} leaves none.")
    return torch.cat([clips[0], *(clip[overlap:] for clip in clips[1:])])
