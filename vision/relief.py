"""Parallax from a depth picture: what is near moves more than the camera path says, what is far less.

The camera's homography is split into the similarity nearest to it and a rest. Pan, zoom and truck of the similarity are
taken as those of a camera that moves, so they grow with nearness: a place of pull k is shifted by k d, scaled by s^k
about the picture's middle, and rolled alike at every depth. Pull 1 is the middle of the picture's depths, where the
homography holds as it is.

Each frame first finds which surface is seen where (the picture's pulls are carried forward, the nearest wins), then
looks each pixel up in the picture. Where the surface seen was hidden by a nearer one in the picture, a second picture
answers, in which the rims of near things are painted over from behind.
"""

import cv2
import numpy as np

from .camera_path import CameraPath
from .track_motion import Motion
from .view import CORNER, View, look, through

CELL = 2  # px of the grid on which surfaces are found
STEP = 0.08  # of the whole depth: a difference by more is an edge, not a slope
WEAKEST = 0.1  # pull: nothing stands still or runs backwards
WIDEST = 0.15  # of the longer side: rims wider than this are not painted over
NARROWEST = 8  # px
EMPTY = np.float32(1e9)  # a pull beyond any
PAINT_RADIUS = 4  # px, of Telea's inpainting, at half size


class Relief:
    """The picture of ``view`` with ``near`` [h, w] (brighter is nearer, in any unit; with the view's margins) under
    ``motion``. ``parallax`` is the difference of pull between the nearest and the farthest place."""

    def __init__(self, view: View, near: np.ndarray, motion: Motion, parallax: float) -> None:
        self.view, self.motion = view, motion
        columns, rows = (slice(margin, margin + size) for margin, size in zip(view.margin, view.inner))
        lowest, middle, highest = np.percentile(near[rows, columns], (1, 50, 99))
        nearness = (near.clip(lowest, highest) - middle) / max(highest - lowest, 1e-6)
        self.pull = np.maximum(1 + parallax * nearness, WEAKEST).astype(np.float32)
        self.edge = STEP * parallax
        self.steps = np.stack([_similarity(homography, motion) for homography in motion.homographies])  # [T, 4]
        self.order = np.argsort(self.pull, axis=None, kind="stable")  # the nearest last, so that it wins
        self.behind = self._behind(self._rim(parallax))

    def frame(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        """Frame ``t`` [H, W, 3], and where it shows what the picture does not [H, W]."""
        pull = self._seen(t)
        x, y = self._back(t, pull)
        frame = look(self.view.picture, self.view, x, y)
        covered = look(self.pull, self.view, x, y, cv2.INTER_LINEAR) - pull > self.edge
        if covered.any():
            frame[covered] = look(self.behind, self.view, x, y, cv2.INTER_LINEAR)[covered]
        return frame, (covered | self.view.revealed(x, y)).astype(np.float32)

    def _rim(self, parallax: float) -> int:
        """How far, in px, the picture's nearest and farthest places part at most."""
        shift = np.hypot(self.steps[:, 0], self.steps[:, 1])
        growth = np.abs(np.expm1(self.steps[:, 2])) * np.hypot(self.motion.width, self.motion.height) / 2
        widest = WIDEST * max(self.motion.width, self.motion.height)
        return int(np.clip(parallax * (shift + growth).max(), NARROWEST, widest))

    def _behind(self, rim: int) -> np.ndarray:
        """The picture with the rims of near things, twice ``rim`` px wide, painted over from what is behind them.
        Twice, because the inner half is painted from the thing itself."""
        around = cv2.getStructuringElement(cv2.MORPH_RECT, (4 * rim + 1, 4 * rim + 1))
        small = np.ones((5, 5), np.uint8)
        jump = cv2.dilate(self.pull, small) - cv2.erode(self.pull, small) > self.edge
        hole = (self.pull - cv2.erode(self.pull, around) > self.edge) & (cv2.dilate(jump.astype(np.uint8), around) > 0)
        if not hole.any():
            return self.view.picture
        height, width = hole.shape
        half = (max(width // 2, 1), max(height // 2, 1))
        picture = cv2.resize(self.view.picture, half, interpolation=cv2.INTER_AREA)
        gap = cv2.resize(cv2.dilate(hole.astype(np.uint8), small), half, interpolation=cv2.INTER_NEAREST)
        levels = np.rint(picture.clip(0, 1) * 255).astype(np.uint8)
        painted = cv2.inpaint(levels, gap, PAINT_RADIUS, cv2.INPAINT_TELEA) / np.float32(255)
        painted = cv2.resize(painted, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.where(hole[..., None], painted, self.view.picture)

    def _seen(self, t: int) -> np.ndarray:
        """The pull [H, W] of the surface that each pixel of frame ``t`` shows."""
        rows, columns = -(-self.motion.height // CELL), -(-self.motion.width // CELL)
        x, y = self._forward(t)
        x, y = np.floor((x + 0.5) / CELL), np.floor((y + 0.5) / CELL)
        inside = (x >= 0) & (y >= 0) & (x < columns) & (y < rows)
        cell = np.where(inside, y * columns + x, rows * columns).astype(np.int64).ravel()
        surface = np.full(rows * columns + 1, EMPTY, np.float32)
        surface[cell[self.order]] = self.pull.ravel()[self.order]
        surface = surface[:-1].reshape(rows, columns)
        surface = cv2.medianBlur(_closed(surface), 5)  # what shines through between the pixels of a surface that grows
        surface = cv2.resize(surface, (columns * CELL, rows * CELL), interpolation=cv2.INTER_LINEAR)
        return surface[: self.motion.height, : self.motion.width]

    def _forward(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        """Where each pixel of the view comes to lie in frame ``t``: x and y [h, w]."""
        y, x = np.mgrid[: self.pull.shape[0], : self.pull.shape[1]].astype(np.float32)
        middle_x, middle_y = self.motion.width / 2 - 0.5, self.motion.height / 2 - 0.5
        x, y = x - np.float32(self.view.left + middle_x), y - np.float32(self.view.top + middle_y)
        shift_x, shift_y, growth, roll = self.steps[t].astype(np.float32)
        scale = np.exp(self.pull * growth)
        cos, sin = np.cos(roll), np.sin(roll)
        there_x = middle_x + self.pull * shift_x + scale * (cos * x - sin * y)
        there_y = middle_y + self.pull * shift_y + scale * (sin * x + cos * y)
        return through(self._rest(t), there_x, there_y)

    def _back(self, t: int, pull: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where each pixel of frame ``t``, of known ``pull`` [H, W], lay in frame 0: x and y [H, W]."""
        y, x = np.mgrid[: self.motion.height, : self.motion.width].astype(np.float32)
        x, y = through(np.linalg.inv(self._rest(t)), x, y)
        middle_x, middle_y = self.motion.width / 2 - 0.5, self.motion.height / 2 - 0.5
        shift_x, shift_y, growth, roll = self.steps[t].astype(np.float32)
        x, y = x - middle_x - pull * shift_x, y - middle_y - pull * shift_y
        scale = np.exp(-pull * growth)
        cos, sin = np.cos(roll), np.sin(roll)
        return middle_x + scale * (cos * x + sin * y), middle_y + scale * (cos * y - sin * x)

    def _rest(self, t: int) -> np.ndarray:
        """What remains of homography ``t`` after its similarity, [3, 3], for places counted from pixel centres."""
        alone = CameraPath.from_steps(self.steps[t][None], self.motion.width, self.motion.height).homographies[1]
        return np.linalg.inv(CORNER) @ self.motion.homographies[t] @ np.linalg.inv(alone) @ CORNER


def _closed(surface: np.ndarray) -> np.ndarray:
    """``surface`` [h, w] with its gaps closed by the farthest of the surfaces to the left, right, above and below: what
    a near thing uncovers belongs to what is behind it."""
    known = surface < EMPTY
    out = surface.copy()
    for axis in (0, 1):
        for step in (1, -1):
            turned = (surface, known) if axis == 0 else (surface.T, known.T)
            value, there = (array[::step] for array in turned)
            last = np.maximum.accumulate(np.where(there, np.arange(len(there))[:, None], 0), axis=0)
            beside = np.take_along_axis(value, last, axis=0)[::step]
            beside = beside if axis == 0 else beside.T
            np.copyto(out, np.minimum(out, beside), where=~known)
    return np.where(out < EMPTY, out, np.float32(1))


def _similarity(homography: np.ndarray, motion: Motion) -> np.ndarray:
    """dx, dy, ln scale and roll [4] of ``homography`` in the picture's middle."""
    pair = CameraPath(np.stack([np.eye(3), homography]), motion.width, motion.height, np.ones(2))
    return pair.steps[0]
