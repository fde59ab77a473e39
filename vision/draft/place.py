"""What is behind the character in each frame: a picture that moves, or a video as it is."""

from typing import Protocol

import cv2
import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from ..backdrop import MovingPicture
from ..camera_path import CameraPath
from ..frames import picture
from ..track_motion import of_camera


class Place(Protocol):
    def frame(self, t: int) -> ndarray:
        """Frame ``t`` [H, W, 3] float32 in 0…1."""


class MovedPicture:
    """One picture [1, h, w, C] moved by a camera path of the draft's size, which may be None for a
    place that stands still. ``lead_in`` frames come before the path's first one."""

    def __init__(
        self, image: Tensor, path: CameraPath | None, size: tuple[int, int], lead_in: int = 0
    ) -> None:
        if path is None:
            path = CameraPath(np.eye(3)[None], *size, np.ones(1))
        self._moving = MovingPicture(picture_batch(image), of_camera(path, *size))
        self._lead_in = lead_in
        self._last: tuple[int, ndarray] | None = None

    def frame(self, t: int) -> ndarray:
        moment = min(max(t - self._lead_in, 0), len(self._moving.motion) - 1)
        if self._last is None or self._last[0] != moment:
            self._last = moment, self._moving.frame(moment)[0].astype(np.float32)
        return self._last[1]


class Video:
    """The frames [T, h, w, C] of a video, cut to the draft's size around their middle. Beyond its
    ends the first and the last frame are held."""

    def __init__(self, frames: Tensor, size: tuple[int, int], lead_in: int = 0) -> None:
        self._frames, self._size, self._lead_in = frames, size, lead_in

    def frame(self, t: int) -> ndarray:
        moment = min(max(t - self._lead_in, 0), len(self._frames) - 1)
        return cover(picture(self._frames[moment]), self._size)


def picture_batch(image: Tensor) -> Tensor:
    """``image`` [1, h, w, C] as float32 [1, h, w, 3] in 0…1."""
    return torch.from_numpy(picture(image[0]))[None]


def cover(image: ndarray, size: tuple[int, int]) -> ndarray:
    """``image`` [h, w, 3] scaled to cover ``size`` (width, height) and cut around its middle."""
    height, width = image.shape[:2]
    if (width, height) == size:
        return image
    scale = max(size[0] / width, size[1] / height)
    inner = max(size[0], round(width * scale)), max(size[1], round(height * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    image = cv2.resize(image, inner, interpolation=method).clip(0, 1)
    left, top = (inner[0] - size[0]) // 2, (inner[1] - size[1]) // 2
    return image[top : top + size[1], left : left + size[0]]
