"""The clean plate: the video's background without the person in front of it.

What the person hides in one frame is taken from the frames that saw it, after aligning them; only what no frame saw is
invented (Telea's inpainting), once, and carried to the other frames, so that it does not flicker.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from .alignment import Alignment, align, project
from .mask import INSIDE, bounding_box, fit_mask, grow_frame

METHODS = ("temporal", "telea")
GROW = 8  # px: motion blur, hair and contact shadow reach this far beyond a good mask
EDGE = 4  # px over which the fill fades into the frame, outside the grown mask
RING = 12  # px around it where two frames' light is compared
SAMPLES = 5  # sightings of a pixel whose median is taken
SOURCES = 14  # frames to look at for further sightings of pixels that have one already
NEAR = 30  # frames: a sighting this far in time counts half
PLANNED = 400_000  # points × frames tested at once for what they saw: bounds time and memory for long videos
TELEA_RADIUS = 4  # px
WORTH_CARRYING = 32  # px: smaller holes are invented in each frame, nobody sees them differ
CARRIES = 8  # times that an invented patch is offered to the other frames

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Plate:
    """The clean video ``frames`` [T, H, W, 3] and ``unfilled`` [T, H, W], 1 where no frame saw the background and it is
    invented. ``hidden`` [T] and ``invented`` [T] count these pixels of each frame. ``alignment`` is how the camera
    moved, None where that was not asked."""

    frames: Tensor
    unfilled: Tensor
    hidden: np.ndarray
    invented: np.ndarray
    alignment: Alignment | None


def steps(frames: int, method: str = "temporal") -> int:
    """How far ``progress`` counts in clean_background()."""
    return 2 * frames if method == "temporal" else frames


def clean_background(
    frames: Tensor, mask: Tensor, progress: Progress | None = None, *, method: str = "temporal", grow: int = GROW
) -> Plate:
    """Remove what ``mask`` [T, H, W] (or one mask for all) covers from ``frames`` [T, H, W, 3] in 0…1.

    ``grow`` px are added around the mask. Outside of it, and of a soft edge of 4 px more, the frames stay as they are.
    ``method`` "temporal" looks in the other frames first; "telea" invents every frame alone. ``progress`` is called
    with the number of steps done, of steps(T, method); what it raises ends the work.

    Raises ValueError where the video is empty, mask and frames do not fit, or no frame shows any background.
    """
    if method not in METHODS:
        raise ValueError(f"method: {method!r} is unknown; choose one of {', '.join(METHODS)}.")
    if grow < 0:
        raise ValueError(f"grow is {grow}; it must be 0 or more pixels, or rests of the person stay in the background.")
    mask = fit_mask(mask, frames)
    hidden = _hidden(mask, grow)
    if hidden.all():
        raise ValueError(
            f"mask: grown by {grow} px it covers every frame completely, so that no background is left to take from. "
            "Check that the mask is not inverted."
        )
    cleaner = _Cleaner(frames, hidden)
    report = progress or (lambda done: None)
    return cleaner.temporal(report) if method == "temporal" else cleaner.telea(report)


def _hidden(mask: Tensor, grow: int) -> np.ndarray:
    """What the person hides: ``mask`` [T, H, W] grown, as uint8 of 0 and 255."""
    hidden = np.empty(tuple(mask.shape), np.uint8)
    for frame, out in zip(mask, hidden):
        out[:] = grow_frame((frame > INSIDE).cpu().numpy(), grow)
    hidden *= 255
    return hidden


class _Cleaner:
    """One video on its way to its plate. ``hidden`` and ``unfilled`` are [T, H, W] uint8 of 0 and 255: what the person
    hides, and what of it is not filled yet."""

    def __init__(self, frames: Tensor, hidden: np.ndarray) -> None:
        self.sources = frames[..., :3].float().cpu().contiguous().numpy()
        self.clean = self.sources.copy()
        self.hidden = hidden
        self.unfilled = hidden.copy()
        self.alignment: Alignment | None = None

    def temporal(self, progress: Progress) -> Plate:
        count = len(self.hidden)
        self.alignment = align(torch.from_numpy(self.sources), self.hidden, progress)
        for t in range(count):
            self._fill(t)
            progress(count + t + 1)
        invented = self.unfilled.copy()
        self._invent(lambda: progress(2 * count))
        return self._plate(invented)

    def telea(self, progress: Progress) -> Plate:
        for t in range(len(self.hidden)):
            self._inpaint(t)
            progress(t + 1)
        return self._plate(self.hidden)

    def _plate(self, invented: np.ndarray) -> Plate:
        return Plate(
            torch.from_numpy(self.clean),
            torch.from_numpy(invented).gt(0).float(),
            np.count_nonzero(self.hidden, axis=(1, 2)),
            np.count_nonzero(invented, axis=(1, 2)),
            self.alignment,
        )

    def _fill(self, t: int) -> None:
        """Fill frame ``t`` from the frames that saw what is hidden in it."""
        for sightings in (SAMPLES, 1):  # the second round finds the specks that the first one's coarse plan overlooked
            hole = self.unfilled[t] > 0
            chosen = self._choose(t, hole, sightings)
            if not chosen:
                return
            box = bounding_box(hole, margin=EDGE + RING)
            fade = np.clip(1 - _distance_to(hole[box]) / (EDGE + 1), 0, 1)  # [h, w]: 1 in the hole, 0 beyond EDGE px
            colour, seen = self._combine(t, box, fade > 0, chosen)
            clean = self.clean[t][box]
            clean += (fade * seen)[..., None] * (colour - clean)
            self.unfilled[t][box][seen] = 0

    def _choose(self, t: int, hole: np.ndarray, sightings: int) -> list[int]:
        """Frames to look at for ``hole`` [H, W] of frame ``t``: greedily those that saw most of what no chosen frame
        saw yet, near ones first; then more, until most of it has been seen ``sightings`` times."""
        others = np.flatnonzero(self.alignment.shot == self.alignment.shot[t])
        others = others[others != t]
        y, x = np.nonzero(hole)
        if not len(others) or not len(y):
            return []
        apart = -(-len(y) // max(256, min(4096, PLANNED // len(others))))
        points = np.stack([x[::apart], y[::apart]], 1)  # [P, 2]
        saw = self._saw(others, t, points).astype(np.float32)  # [S, P]
        near = 1 / (1 + np.abs(others - t) / NEAR)
        times = np.zeros(len(points))
        chosen = []
        for wanted, least, most in ((1, 0, len(others)), (sightings, 0.02 * len(points), SOURCES)):
            while len(chosen) < most:
                gain = near * (saw @ (times < wanted).astype(np.float32))
                best = int(gain.argmax())
                if gain[best] <= least:
                    break
                chosen.append(int(others[best]))
                times += saw[best]
                saw[best] = 0
        return chosen

    def _saw(self, others: np.ndarray, t: int, points: np.ndarray) -> np.ndarray:
        """Whether each of the frames ``others`` [S] saw the background at ``points`` [P, 2] (x, y) of frame ``t``:
        [S, P] bool."""
        if self.alignment.still:
            return self.hidden[others[:, None], points[:, 1], points[:, 0]] == 0
        height, width = self.hidden.shape[1:]
        there = np.rint(np.nan_to_num(project(self.alignment.between(others, t), points), nan=-1))  # [S, P, 2]
        x, y = np.clip(there, -1, max(height, width)).astype(int).transpose(2, 0, 1)
        inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
        return inside & (self.hidden[others[:, None], y * inside, x * inside] == 0)

    def _combine(
        self, t: int, box: tuple[slice, slice], wanted: np.ndarray, chosen: list[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The median of what the ``chosen`` frames show in ``box`` of frame ``t`` where ``wanted`` [h, w]: colour
        [h, w, 3], and where any of them saw the background [h, w]."""
        index = np.flatnonzero(wanted)
        samples = np.full((SAMPLES, len(index), 3), np.inf, np.float32)
        count = np.zeros(len(index), int)
        for source in chosen:
            colour, seen = self._look(source, t, box)
            colour = colour + self._light(t, box, colour, seen)
            take = np.flatnonzero(seen.ravel()[index] & (count < SAMPLES))
            samples[count[take], take] = colour.reshape(-1, 3)[index[take]]
            count[take] += 1
        samples.sort(axis=0)
        middle = [np.maximum(k, 0)[None, :, None] for k in ((count - 1) // 2, count // 2)]
        median = sum(np.take_along_axis(samples, k, 0)[0] for k in middle) / 2
        colour, seen = np.zeros((*wanted.shape, 3), np.float32), np.zeros(wanted.shape, bool)
        seen.ravel()[index] = count > 0
        colour.reshape(-1, 3)[index] = np.where(count[:, None] > 0, median, 0)
        return np.clip(colour, 0, 1), seen

    def _look(self, source: int, t: int, box: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
        """What frame ``source`` shows in ``box`` of frame ``t``: colour [h, w, 3], and where it saw the background."""
        if self.alignment.same_place(source, t):
            return self.sources[source][box], self.hidden[source][box] == 0
        there = self.alignment.between(source, t)
        colour = _warp(self.sources[source], there, box, cv2.INTER_CUBIC, cv2.BORDER_REPLICATE)
        return colour, _warp(self.hidden[source], there, box, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT, 255) == 0

    def _light(self, t: int, box: tuple[slice, slice], colour: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """How much brighter [3] frame ``t`` is than ``colour`` [h, w, 3] of another frame, where both see the
        background: cameras change their exposure, and lamps flicker."""
        both = np.flatnonzero(seen & (self.hidden[t][box] == 0))
        if len(both) < 100:
            return np.zeros(3, np.float32)
        both = both[:: len(both) // 2000 + 1]
        return np.median(self.sources[t][box].reshape(-1, 3)[both] - colour.reshape(-1, 3)[both], axis=0)

    def _invent(self, progress: Callable[[], None]) -> None:
        """Inpaint what no frame saw, the largest holes first, and carry it to the other frames."""
        sizes = np.count_nonzero(self.unfilled, axis=(1, 2))
        carries = 0
        for t in np.argsort(-sizes, kind="stable"):
            hole = self.unfilled[t] > 0
            if not hole.any():
                continue
            self._inpaint(t)
            if np.count_nonzero(hole) >= WORTH_CARRYING and carries < CARRIES:
                carries += 1
                for other in np.flatnonzero(self.alignment.shot == self.alignment.shot[t]):
                    self._carry(t, hole, other)
            progress()

    def _inpaint(self, t: int) -> None:
        hole = self.unfilled[t]
        box = bounding_box(hole, margin=4 * TELEA_RADIUS)
        if not hole[box].size:
            return
        picture = np.rint(self.clean[t][box] * 255).astype(np.uint8)
        picture = cv2.inpaint(picture, np.ascontiguousarray(hole[box]), TELEA_RADIUS, cv2.INPAINT_TELEA)
        np.copyto(self.clean[t][box], picture / np.float32(255), where=hole[box][..., None] > 0)
        hole[:] = 0

    def _carry(self, source: int, patch: np.ndarray, t: int) -> None:
        """Put the part of ``patch`` [H, W] invented in frame ``source`` into the hole of frame ``t``."""
        hole = self.unfilled[t]
        box = bounding_box(hole, margin=RING)
        if not hole[box].size:
            return
        there = self.alignment.between(source, t)
        light = self._light(t, box, *self._look(source, t, box))
        colour = _warp(self.clean[source], there, box, cv2.INTER_CUBIC, cv2.BORDER_REPLICATE) + light
        shows = _warp(patch.astype(np.uint8), there, box, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT)
        put = (shows > 0) & (hole[box] > 0)
        np.copyto(self.clean[t][box], np.clip(colour, 0, 1), where=put[..., None])
        hole[box][put] = 0


def _warp(
    picture: np.ndarray, homography: np.ndarray, box: tuple[slice, slice], method: int, border: int, value: int = 0
) -> np.ndarray:
    """What ``box`` of the target shows of ``picture``; ``homography`` [3, 3] takes target to source pixels."""
    rows, columns = box
    corner = np.array([[1, 0, columns.start], [0, 1, rows.start], [0, 0, 1]], float)
    size = (columns.stop - columns.start, rows.stop - rows.start)
    flags = method | cv2.WARP_INVERSE_MAP
    return cv2.warpPerspective(picture, homography @ corner, size, flags=flags, borderMode=border, borderValue=value)


def _distance_to(inside: np.ndarray) -> np.ndarray:
    """Distance [H, W] in px from each pixel to the nearest of ``inside`` [H, W] bool."""
    return cv2.distanceTransform(1 - inside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
