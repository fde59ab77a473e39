"""Frames of a video as the detectors take them."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Progress = Callable[[int], None]  # called with the number of frames done; may raise to stop


def picture(frame: Tensor) -> np.ndarray:
    """[H, W, 3] or more channels -> float32 [H, W, 3] in 0…1 as OpenCV wants it, copied only where it must be."""
    floats = frame[..., :3].float()
    if frame.dtype == torch.uint8:  # a long video as floats would take four times the memory
        floats = floats / 255
    return np.ascontiguousarray(floats.cpu().numpy())
