"""A picture that a moving camera looks at: scaled to the first frame, with margins for what comes into view.

Beyond its borders the picture goes on mirrored, the softer the farther out: the colours are right, and nothing in it
catches the eye. Places are px of the first frame, counted from the first pixel's centre.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from .alignment import project
from .track_motion import Motion

BEYOND = 1.0  # pictures of margin on each side, at most; farther out the last row or column goes on
MARGIN = 16  # px that cubic resampling and rounding may ask for
SOFT = 0.05  # of the picture's shorter side: this far out the mirrored picture has become soft
BLUR = 0.04  # of the shorter side: the blur's sigma there
CORNER = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # from pixel centres to the picture's corner


@dataclass(frozen=True)
class View:
    """A picture made ready to be looked at: ``picture`` [h, w, 3] float32 with its margins, and where the first pixel
    of the first frame lies in it, ``left`` and ``top`` px. One of its pixels is one of the first frame's. The true
    picture begins at ``margin`` (columns, rows) and is ``inner`` (columns, rows) large."""

    picture: np.ndarray
    left: float
    top: float
    margin: tuple[int, int]
    inner: tuple[int, int]

    def revealed(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Whether places of the first frame (px, from pixel centres) lie beyond the true picture."""
        x, y = x + self.left - self.margin[0], y + self.top - self.margin[1]
        return ~((x > -0.5) & (y > -0.5) & (x < self.inner[0] - 0.5) & (y < self.inner[1] - 0.5))


def look(picture: np.ndarray, view: View, x: np.ndarray, y: np.ndarray, method: int = cv2.INTER_CUBIC) -> np.ndarray:
    """``picture``, which has the margins of ``view``, at places of the first frame (px, from pixel centres)."""
    x, y = np.float32(x + view.left), np.float32(y + view.top)
    return cv2.remap(picture, x, y, method, borderMode=cv2.BORDER_REPLICATE)


def sources(motion: Motion, t: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of frame ``t`` was in frame 0: x and y [H, W] float32, from pixel centres."""
    y, x = np.mgrid[: motion.height, : motion.width].astype(np.float32)
    if motion.remainder is not None:
        left = cv2.resize(motion.remainder[t], (motion.width, motion.height), interpolation=cv2.INTER_CUBIC)
        x, y = x - left[..., 0], y - left[..., 1]
    return through(np.linalg.inv(CORNER) @ np.linalg.inv(motion.homographies[t]) @ CORNER, x, y)


def through(homography: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places x and y through ``homography`` [3, 3]; those behind the camera far away."""
    # Written out: a matrix product over [H, W, 3] takes three times as long.
    h = (homography / homography[2, 2]).astype(np.float32)
    depth = h[2, 0] * x + h[2, 1] * y + h[2, 2]
    depth = np.where(depth > 1e-3, depth, np.float32(1e-3))
    return (h[0, 0] * x + h[0, 1] * y + h[0, 2]) / depth, (h[1, 0] * x + h[1, 1] * y + h[1, 2]) / depth


def reach_of(motion: Motion) -> np.ndarray:
    """How far [4] px beyond the first frame the motion looks: left, top, right, bottom; at most BEYOND."""
    width, height = motion.width, motion.height
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64)
    places = [corners, *(project(np.linalg.inv(homography), corners) for homography in motion.homographies)]
    places = np.nan_to_num(np.concatenate(places), nan=BEYOND * 2 * max(width, height))
    extra = MARGIN + (0 if motion.remainder is None else float(np.abs(motion.remainder).max()))
    far = np.concatenate([-places.min(axis=0), places.max(axis=0) - (width, height)]) + extra
    return np.minimum(far, BEYOND * np.array([width, height, width, height]))


def make_view(
    picture: np.ndarray, size: tuple[int, int], zoom: float, reach: np.ndarray, match: View | None = None
) -> View:
    """``picture`` [h, w] or [h, w, 3] scaled so that it covers ``size`` (width, height), ``zoom`` times as large, with
    margins for ``reach``; or in the very place of ``match``."""
    height, width = picture.shape[:2]
    scale = max(size[0] / width, size[1] / height) * zoom
    inner = (max(round(width * scale), 1), max(round(height * scale), 1)) if match is None else match.inner
    shrinks = inner[0] < width
    picture = cv2.resize(picture, inner, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    spare = (np.array(inner) - size) // 2  # of the picture, beyond the first frame; whole pixels, which stay sharp
    pad = np.ceil(np.maximum(reach - np.tile(spare, 2), 0)).astype(int)  # left, top, right, bottom
    whole = cv2.copyMakeBorder(picture, pad[1], pad[3], pad[0], pad[2], cv2.BORDER_REFLECT_101)
    if pad.any():
        whole = _soften(whole, pad, min(inner))
    return View(whole, spare[0] + pad[0], spare[1] + pad[1], (int(pad[0]), int(pad[1])), inner)


def _soften(whole: np.ndarray, pad: np.ndarray, side: int) -> np.ndarray:
    """``whole`` with its margins ``pad`` (left, top, right, bottom) the softer the farther out."""
    outside = np.ones(whole.shape[:2], np.uint8)
    outside[pad[1] : whole.shape[0] - pad[3], pad[0] : whole.shape[1] - pad[2]] = 0
    out = (cv2.distanceTransform(outside, cv2.DIST_L2, 3) / (SOFT * side)).clip(0, 1)
    soft = cv2.GaussianBlur(whole, (0, 0), max(BLUR * side, 1.0))
    return whole + (out if whole.ndim == 2 else out[..., None]) * (soft - whole)
