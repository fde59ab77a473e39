"""Square regions of a picture, turned with the body: where a network looks, and the way there and back."""

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np


@dataclass(frozen=True)
class Region:
    """A square around (x, y) with sides of ``size`` pixels, turned by ``angle`` radians (clockwise on screen)."""

    x: float
    y: float
    size: float
    angle: float = 0.0

    @classmethod
    def around(cls, center: np.ndarray, top: np.ndarray, margin: float = 1.25) -> "Region":
        """BlazePose's region: the circle around the mid-hip ``center`` [2] through ``top`` [2] px, upright along the
        line between them, times the margin that the landmark network was trained with."""
        across, down = top - center
        angle = math.pi / 2 - math.atan2(-down, across)
        return cls(float(center[0]), float(center[1]), 2 * margin * math.hypot(across, down), angle)

    def moved(self, right: float, down: float) -> "Region":
        """The same region, so many pixels further right and down."""
        return replace(self, x=self.x + right, y=self.y + down)

    def to_frame(self, pixels: int) -> np.ndarray:
        """Affine matrix [2, 3] from pixels of a crop of ``pixels``×``pixels`` to pixels of the frame.

        Pixels are counted at their corners, so that a crop's middle is exactly (x, y) at any scale.
        """
        scale = self.size / pixels
        cos, sin = scale * math.cos(self.angle), scale * math.sin(self.angle)
        turn = np.array([[cos, -sin], [sin, cos]])
        return np.column_stack([turn, np.array([self.x, self.y]) - turn @ np.full(2, pixels / 2)])

    def cut(self, frame: np.ndarray, pixels: int) -> np.ndarray:
        """``frame`` [H, W, 3] inside the region as [pixels, pixels, 3]; the frame's edge goes on beyond it."""
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        matrix = _between_centers(self.to_frame(pixels))
        return cv2.warpAffine(frame, matrix, (pixels, pixels), flags=flags, borderMode=cv2.BORDER_REPLICATE)

    def paste(self, patch: np.ndarray, mask: np.ndarray) -> None:
        """Write ``patch`` [n, n] of the region into ``mask`` [H, W] where it is larger."""
        height, width = mask.shape
        matrix = self.to_frame(len(patch))
        reach = abs(matrix[:, :2]).sum(axis=1) * len(patch) / 2  # half of the upright box around the square
        left, top = (max(0, math.floor(c - r)) for c, r in zip((self.x, self.y), reach))
        right, bottom = (min(n, math.ceil(c + r)) for n, c, r in zip((width, height), (self.x, self.y), reach))
        if right <= left or bottom <= top:
            return
        matrix[:, 2] -= left, top
        box = mask[top:bottom, left:right]
        np.maximum(box, cv2.warpAffine(patch, _between_centers(matrix), (right - left, bottom - top)), out=box)


def _between_centers(matrix: np.ndarray) -> np.ndarray:
    """The same affine map between pixel centers, which is how OpenCV counts."""
    centers = matrix.copy()
    centers[:, 2] += matrix[:, :2] @ np.full(2, 0.5) - 0.5
    return centers
