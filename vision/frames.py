"""Frames of a video as the detectors take them."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

SAME_SHAPE = 0.02  # relative difference between two proportions that nobody sees
Progress = Callable[[int], None]  # called with the number of frames done; may raise to stop


def picture(frame: Tensor) -> np.ndarray:
    """[H, W, 3] or more channels -> float32 [H, W, 3] in 0…1 as OpenCV wants it, copied only where it must be."""
    floats = frame[..., :3].float()
    if frame.dtype == torch.uint8:  # a long video as floats would take four times the memory
        floats = floats / 255
    return np.ascontiguousarray(floats.cpu().numpy())


def same_shape(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes (width, height) have the same proportions, but for sides rounded to multiples of 16."""
    return abs(one[0] * other[1] / (one[1] * other[0]) - 1) <= SAME_SHAPE
