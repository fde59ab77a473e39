"""The clean plate: the video's background without the person in front of it.

What the person hides in one frame is taken from the frames that saw it, after aligning them; only what no frame saw is
invented (Telea's inpainting), once, and carried to the other frames, so that it does not flicker.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from .alignment import Alignment, align, project
from .mask import INSIDE, bounding_box, fit_mask, grow_frame, without_lapses

METHODS = ("temporal", "telea")
GROW = 8  # px: motion blur, hair and contact shadow reach this far beyond a good mask
EDGE = 4  # px over which the fill fades into the frame, outside the grown mask
RING = 12  # px around it where two frames' light is compared
SHY = 12  # px beside the grown mask where shadows and the mask's own errors are likely: second choice to take from
GLIMPSE = 3  # frames: background seen for so short between two hidden moments is a lapse of the mask, mostly
SAMPLES = 5  # sightings of a pixel whose median is taken
SOURCES = 14  # frames to look at for further sightings of pixels that have one already
NEAR = 30  # frames: a sighting this far in time counts half
PLANNED = 300_000  # points × frames tested at once for what they saw: bounds time and memory for long videos
TELEA_RADIUS = 4  # px
THREADS = 8  # frames at a time, at most: each needs some ten pictures' worth of memory
CLEAR, BESIDE, HIDDEN = 0, 128, 255  # trust in a pixel as background; in this order, so that blends are cautious
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
    """What the person hides: ``mask`` [T, H, W] grown, as bool."""
    hidden = np.empty(tuple(mask.shape), bool)
    for frame, out in zip(mask, hidden):
        out[:] = grow_frame((frame > INSIDE).cpu().numpy(), grow)
    return hidden


def _trust(hidden: np.ndarray) -> np.ndarray:
    """How far the pixels of ``hidden`` [T, H, W] can be trusted to show background: uint8 of CLEAR, BESIDE, HIDDEN."""
    blocked = without_lapses(hidden, GLIMPSE)
    trust = np.empty(hidden.shape, np.uint8)
    for frame, inside in zip(trust, blocked):
        frame[:] = np.where(inside, HIDDEN, np.where(grow_frame(inside, SHY), BESIDE, CLEAR))
    return trust


class _Cleaner:
    """One video on its way to its plate. ``hidden``, ``unfilled`` (what of it is not filled yet) and ``trust`` are
    [T, H, W]."""

    def __init__(self, frames: Tensor, hidden: np.ndarray) -> None:
        self.sources = frames[..., :3].float().cpu().contiguous().numpy()
        self.clean = self.sources.copy()
        self.hidden = hidden
        self.unfilled = hidden.copy()
        self.trust: np.ndarray | None = None
        self.alignment: Alignment | None = None

    def temporal(self, progress: Progress) -> Plate:
        count = len(self.hidden)
        self.trust = _trust(self.hidden)
        self.alignment = align(torch.from_numpy(self.sources), self.hidden, progress)
        self._each(self._fill, range(count), lambda done: progress(count + done))
        invented = self.unfilled.copy()
        self._invent(lambda: progress(2 * count))
        return self._plate(invented)

    def telea(self, progress: Progress) -> Plate:
        whole = self.hidden.all(axis=(1, 2))
        usable = np.flatnonzero(~whole)
        self._each(self._inpaint, usable, progress)
        for t in np.flatnonzero(whole):  # nothing to start from: the nearest frame stands in
            self.clean[t] = self.clean[usable[np.abs(usable - t).argmin()]]
        progress(len(whole))
        return self._plate(self.hidden)

    def _each(self, work: Callable[[int], None], frames: Iterable[int], progress: Progress) -> None:
        """``work`` for every frame, several at a time: they write to nothing but their own frame."""
        pool = ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1))
        try:
            for done, _ in enumerate(pool.map(work, frames)):
                progress(done + 1)
        finally:
            pool.shutdown(cancel_futures=True)  # a cancelled run leaves at once

    def _plate(self, invented: np.ndarray) -> Plate:
        return Plate(
            torch.from_numpy(self.clean),
            torch.from_numpy(invented).float(),
            np.count_nonzero(self.hidden, axis=(1, 2)),
            np.count_nonzero(invented, axis=(1, 2)),
            self.alignment,
        )

    def _fill(self, t: int) -> None:
        """Fill frame ``t`` from the frames that saw what is hidden in it."""
        for sightings in (SAMPLES, 1):  # the second round finds the specks that the first one's coarse plan overlooked
            hole = self.unfilled[t]
            chosen = self._choose(t, hole, sightings)
            if not chosen:
                return
            box = bounding_box(hole, margin=EDGE + RING)
            fade = np.clip(1 - _distance_to(hole[box]) / (EDGE + 1), 0, 1)  # [h, w]: 1 in the hole, 0 beyond EDGE px
            colour, seen = self._combine(t, box, fade > 0, chosen)
            clean = self.clean[t][box]
            clean += (fade * seen)[..., None] * (colour - clean)
            hole[box][seen] = False

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
        trust = self._trust_at(others, t, points)  # [S, P]
        saw = np.where(trust == CLEAR, 1, np.where(trust == BESIDE, 1 / SAMPLES, 0)).astype(np.float32)
        near = 1 / (1 + np.abs(others - t) / NEAR)
        times = np.zeros(len(points))
        chosen = []
        for enough, least, most in ((1e-3, 0, len(others)), (sightings, 0.02 * len(points), SOURCES)):
            while len(chosen) < most:
                gain = near * (saw @ (times < enough).astype(np.float32))
                best = int(gain.argmax())
                if gain[best] <= least:
                    break
                chosen.append(int(others[best]))
                times += saw[best]
                saw[best] = 0
        return chosen

    def _trust_at(self, others: np.ndarray, t: int, points: np.ndarray) -> np.ndarray:
        """What ``trust`` the frames ``others`` [S] give to ``points`` [P, 2] (x, y) of frame ``t``: [S, P]."""
        if self.alignment.still:
            return self.trust[others[:, None], points[:, 1], points[:, 0]]
        height, width = self.hidden.shape[1:]
        there = np.rint(np.nan_to_num(project(self.alignment.between(others, t), points), nan=-1))  # [S, P, 2]
        x, y = np.clip(there, -1, max(height, width)).astype(int).transpose(2, 0, 1)
        inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
        return np.where(inside, self.trust[others[:, None], y * inside, x * inside], HIDDEN)

    def _combine(
        self, t: int, box: tuple[slice, slice], wanted: np.ndarray, chosen: list[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The median of what the ``chosen`` frames show in ``box`` of frame ``t`` where ``wanted`` [h, w]: colour
        [h, w, 3], and where any of them saw the background [h, w]. Where one saw it clear of the person, those that
        saw it close beside do not count."""
        y, x = np.nonzero(wanted)
        ring = self._ring(t, box)
        samples = np.empty((SAMPLES, len(y), 3), np.float32)
        count, clear = np.zeros(len(y), int), np.zeros(len(y), bool)
        for source in chosen:
            colour, trust = self._look(source, t, box)
            light = _light(self.sources[t][box], colour, trust, ring)
            trust = trust[y, x]
            better = (trust == CLEAR) & ~clear
            count[better], clear[better] = 0, True
            take = np.flatnonzero(((trust == CLEAR) | (trust <= BESIDE) & ~clear) & (count < SAMPLES))
            samples[count[take], take] = colour[y[take], x[take]] + light
            count[take] += 1
        colour, seen = np.zeros((*wanted.shape, 3), np.float32), np.zeros(wanted.shape, bool)
        colour[y, x] = np.clip(_median(samples, count), 0, 1)
        seen[y, x] = count > 0
        return colour, seen

    def _look(self, source: int, t: int, box: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
        """What frame ``source`` shows in ``box`` of frame ``t``: colour [h, w, 3] and its trust [h, w]."""
        if self.alignment.same_place(source, t):
            return self.sources[source][box], self.trust[source][box]
        there = self.alignment.between(source, t)
        colour = _warp(self.sources[source], there, box, cv2.INTER_CUBIC, cv2.BORDER_REPLICATE)
        return colour, _warp(self.trust[source], there, box, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT, HIDDEN)

    def _ring(self, t: int, box: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
        """Some pixels (rows, columns) of ``box`` where frame ``t`` shows its own background."""
        y, x = np.nonzero(~self.hidden[t][box])
        apart = len(y) // 4000 + 1
        return y[::apart], x[::apart]

    def _invent(self, progress: Callable[[], None]) -> None:
        """Inpaint what no frame saw, the largest holes first, and carry it to the other frames."""
        sizes = np.count_nonzero(self.unfilled, axis=(1, 2))
        carries = 0
        for t in np.argsort(-sizes, kind="stable"):
            hole = self.unfilled[t].copy()
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
        picture = cv2.inpaint(picture, hole[box].astype(np.uint8), TELEA_RADIUS, cv2.INPAINT_TELEA)
        np.copyto(self.clean[t][box], picture / np.float32(255), where=hole[box][..., None])
        hole[:] = False

    def _carry(self, source: int, patch: np.ndarray, t: int) -> None:
        """Put the part of ``patch`` [H, W] invented in frame ``source`` into the hole of frame ``t``."""
        hole = self.unfilled[t]
        box = bounding_box(hole, margin=RING)
        if not hole[box].size:
            return
        there = self.alignment.between(source, t)
        light = _light(self.sources[t][box], *self._look(source, t, box), self._ring(t, box))
        colour = _warp(self.clean[source], there, box, cv2.INTER_CUBIC, cv2.BORDER_REPLICATE) + light
        shows = _warp(patch.astype(np.uint8), there, box, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT)
        put = (shows > 0) & hole[box]
        np.copyto(self.clean[t][box], np.clip(colour, 0, 1), where=put[..., None])
        hole[box][put] = False


def _light(own: np.ndarray, other: np.ndarray, trust: np.ndarray, ring: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """How much brighter [3] a frame's ``own`` [h, w, 3] is than the ``other`` frame's picture of the same place, where
    both show background: cameras change their exposure, and lamps flicker."""
    y, x = (place[trust[ring] <= BESIDE] for place in ring)
    return np.median(own[y, x] - other[y, x], axis=0) if len(y) >= 100 else np.zeros(3, np.float32)


def _median(samples: np.ndarray, count: np.ndarray) -> np.ndarray:
    """The median [P, 3] of the first ``count`` [P] of ``samples`` [S, P, 3], which are sorted in place; 0 where there
    is none."""
    for number, sample in enumerate(samples):
        sample[count <= number] = np.inf
    samples.sort(axis=0)
    middle = [np.maximum(k, 0)[None, :, None] for k in ((count - 1) // 2, count // 2)]
    median = sum(np.take_along_axis(samples, k, 0)[0] for k in middle) / 2
    return np.where(count[:, None] > 0, median, 0)


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
