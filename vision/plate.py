"""The clean plate: the video's background without the person in front of it.

What the person hides in one frame is taken from the frames that saw it, after aligning them: by the plane of the
background, and where the camera walked, by the depth behind each pixel. Only what no frame saw is invented, once, and
carried to the other frames, so that it does not flicker.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from . import retouch, sweep
from .alignment import Alignment, align
from .coverage import BESIDE, CLEAR, HIDDEN, Coverage, counts
from .frames import picture
from .mask import bounding_box, fit_mask, grow_frame

METHODS = ("temporal", "telea")
GROW = 8  # px: motion blur, hair and contact shadow reach this far beyond a good mask
EDGE = 4  # px over which the fill fades into the frame, outside the grown mask
RING = 12  # px around it where two frames' light is compared
SHY = 12  # px beside the grown mask where shadows and the mask's own errors are likely: second choice to take from
SAMPLES = 5  # sightings of a pixel whose median is taken
SOURCES = 14  # frames to look at for further sightings of pixels that have one already
FEWEST = 128  # points of a hole that frames are chosen by, at least
PLACED = 32  # frames in which points are looked up at once
NEAR = 30  # frames: a sighting this far in time counts half
PLANNED = 300_000  # points × frames tested at once for what they saw: bounds time and memory for long videos
THREADS = 8  # frames at a time, at most: each needs some ten pictures' worth of memory
WORTH_CARRYING = 32  # px: smaller holes are invented in each frame, nobody sees them differ
WITNESSES = 6  # frames whose colours are compared to find a depth
KEPT_AREA = 4_000  # px of a depth map that is kept for carrying
CARRIES = 8  # times that an invented patch is offered to the other frames
CONTEXT = 0.5  # of a hole's size: how much of what is around it a network sees, and
LEAST_CONTEXT = 64  # px at least

WORTH = np.zeros(256, np.float32)  # of a sighting by its trust
WORTH[CLEAR], WORTH[BESIDE] = 1, 1 / SAMPLES

Progress = Callable[[int], None]
Fill = Callable[[np.ndarray, np.ndarray], np.ndarray]  # picture [h, w, 3] in 0…1, hole [h, w] bool -> the whole picture


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


def steps(frames: int, method: str = "temporal", shadow: int = 0) -> int:
    """How far ``progress`` counts in clean_background()."""
    return frames * (2 + (shadow > 0) if method == "temporal" else 1)


def clean_background(
    frames: Tensor,
    mask: Tensor,
    progress: Progress | None = None,
    *,
    method: str = "temporal",
    grow: int = GROW,
    shadow: int = 0,
    fill: Fill = retouch.telea,
) -> Plate:
    """Remove what ``mask`` [T, H, W] (or one mask for all) covers from ``frames`` [T, H, W, 3] in 0…1.

    ``grow`` px are added around the mask. Outside of it, and of a soft edge of 4 px more, the frames stay as they are.
    ``method`` "temporal" looks in the other frames first; "telea" invents every frame alone. ``shadow``: where a pixel
    up to so many px beside that is darker than the background of other frames, its shadow is taken away (temporal
    only). ``fill`` invents the large holes that no frame fills. ``progress`` is called with the number of steps done,
    of steps(T, method, shadow); what it raises ends the work.

    Raises ValueError where the video is empty, mask and frames do not fit, or no frame shows any background.
    """
    if method not in METHODS:
        raise ValueError(f"method: {method!r} is unknown; choose one of {', '.join(METHODS)}.")
    if grow < 0:
        raise ValueError(f"grow is {grow}; it must be 0 or more pixels, or rests of the person stay in the background.")
    if shadow < 0:
        raise ValueError(f"shadow is {shadow}; it must be 0 (leave shadows) or more pixels.")
    mask = fit_mask(mask, frames)
    coverage = Coverage(mask, grow)
    if coverage.hidden.all():
        raise ValueError(
            f"mask: grown by {grow} px it covers every frame completely, so that no background is left to take from. "
            "Check that the mask is not inverted."
        )
    cleaner = _Cleaner(frames, coverage)
    report = progress or (lambda done: None)
    return cleaner.temporal(report, shadow, fill) if method == "temporal" else cleaner.telea(report)


@dataclass(frozen=True)
class Depth:
    """The depth [h, w] (see vision.parallax) behind each pixel of ``box`` in one frame; None: all on the plane."""

    box: tuple[slice, slice]
    values: np.ndarray | None

    def kept(self) -> "Depth":
        """The same in a few kilobytes: of a long video, many are kept."""
        if self.values is None:
            return self
        scale = min(1.0, (KEPT_AREA / self.values.size) ** 0.5)
        small = cv2.resize(self.values, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        return Depth(self.box, small.astype(np.float16))

    def within(self, box: tuple[slice, slice]) -> "Depth":
        """The part in ``box``, which lies in the own one, a depth a pixel again."""
        if self.values is None:
            return Depth(box, None)
        rows, columns = self.box
        size = columns.stop - columns.start, rows.stop - rows.start
        values = cv2.resize(self.values.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
        inside = tuple(slice(part.start - own.start, part.stop - own.start) for part, own in zip(box, self.box))
        return Depth(box, values[inside])


class _Cleaner:
    """One video on its way to its plate. ``hidden``, ``unfilled`` and ``trust`` are those of its coverage."""

    def __init__(self, frames: Tensor, coverage: Coverage) -> None:
        self.frames, self.coverage = frames, coverage
        self.hidden, self.unfilled, self.trust = coverage.hidden, coverage.unfilled, coverage.trust
        self.amount = counts(self.hidden)
        self.clean = np.empty((*self.hidden.shape, 3), np.float32)
        for out, frame in zip(self.clean, frames):
            out[:] = picture(frame)
        self.alignment: Alignment | None = None
        self.depths: dict[int, Depth] = {}  # of frames with something left to invent

    def source(self, t: int) -> np.ndarray:
        """Frame ``t`` as it came, [H, W, 3]."""
        return picture(self.frames[t])

    def temporal(self, progress: Progress, shadow: int, fill: Fill) -> Plate:
        count = len(self.hidden)
        self.coverage.judge(max(SHY, shadow))
        self.alignment = align(self.frames, self.hidden, progress)
        self._each(self._fill, range(count), lambda done: progress(count + done))
        if shadow:
            self._each(lambda t: self._lift(t, shadow), range(count), lambda done: progress(2 * count + done))
        invented = self.coverage.note_invented()
        self._invent(fill, lambda: progress(steps(count, "temporal", shadow)))
        return self._plate(invented)

    def telea(self, progress: Progress) -> Plate:
        whole = self.hidden.all(axis=(1, 2))
        usable = np.flatnonzero(~whole)
        invented = self.coverage.note_invented()
        self._each(lambda t: self._inpaint(t, retouch.telea), usable, progress)
        for t in np.flatnonzero(whole):  # nothing to start from: the nearest frame stands in
            self.clean[t] = self.clean[usable[np.abs(usable - t).argmin()]]
        progress(len(whole))
        return self._plate(invented)

    def _each(self, work: Callable[[int], None], frames: Iterable[int], progress: Progress) -> None:
        """``work`` for every frame, several at a time: they write to nothing but their own frame."""
        pool = ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1))
        try:
            for done, _ in enumerate(pool.map(work, frames)):
                progress(done + 1)
        finally:
            pool.shutdown(cancel_futures=True)  # a cancelled run leaves at once

    def _plate(self, invented: np.ndarray) -> Plate:
        unfilled = torch.from_numpy(self.coverage.invented())
        return Plate(torch.from_numpy(self.clean), unfilled, self.amount, invented, self.alignment)

    def _fill(self, t: int) -> None:
        """Fill frame ``t`` from the frames that saw what is hidden in it."""
        depth = None
        for sightings in (SAMPLES, 1):  # the second round finds what the first one's coarse plan overlooked
            hole = self.unfilled[t]
            chosen = self._choose(t, hole, sightings, depth)
            if not chosen:
                return
            box = bounding_box(hole, margin=EDGE + RING)
            depth = self._depth(t, box, chosen)
            fade = np.clip(1 - _distance_to(hole[box]) / (EDGE + 1), 0, 1)  # [h, w]: 1 in the hole, 0 beyond EDGE px
            colour, seen = self._combine(t, depth, fade > 0, chosen)
            clean = self.clean[t][box]
            clean += (fade * seen)[..., None] * (colour - clean)
            hole[box][seen] = False
            if hole.any():
                self.depths[t] = depth.kept()

    def _depth(self, t: int, box: tuple[slice, slice], chosen: list[int]) -> Depth:
        """How deep the background lies in ``box`` of frame ``t``, as the frames ``chosen`` show it."""
        if self.alignment.parallax is None:
            return Depth(box, None)
        rows, columns = box
        height, width = rows.stop - rows.start, columns.stop - columns.start
        scale = min(1.0, (sweep.WORKING_AREA / (height * width)) ** 0.5)
        size = max(1, round(height * scale)), max(1, round(width * scale))
        low, high = sweep.range_of(*self.alignment.depths(t), box)
        witnesses = chosen[:WITNESSES]
        levels = sweep.levels(low, high, scale * max(self._slope(source, t, box) for source in witnesses))
        if len(levels) < 3:
            return Depth(box, np.full((height, width), levels.mean(), np.float32))
        own = cv2.resize(self.source(t)[box], size[::-1], interpolation=cv2.INTER_AREA)
        free = cv2.resize(self.hidden[t][box].astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST) == 0

        def look(level: float) -> tuple[np.ndarray, np.ndarray]:
            shown = [self._look(source, t, Depth(box, np.full(size, level, np.float32))) for source in witnesses]
            colours, trust = [own, *(colour for colour, _ in shown)], [trust <= BESIDE for _, trust in shown]
            return np.stack(colours), np.stack([free, *trust])

        values = sweep.depth_map(levels, look)
        return Depth(box, cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR))

    def _slope(self, source: int, t: int, box: tuple[slice, slice]) -> float:
        """How many px a unit of depth moves the middle of ``box`` of frame ``t`` in frame ``source``."""
        rows, columns = box
        middle = np.array([(columns.start + columns.stop) / 2, (rows.start + rows.stop) / 2, 1])
        q, e = self.alignment.between(source, t) @ middle, self.alignment.epipole(source, t)
        return float(np.linalg.norm(e[:2] - q[:2] / q[2] * e[2]) / max(abs(q[2]), 1e-6))

    def _choose(self, t: int, hole: np.ndarray, sightings: int, depth: Depth | None) -> list[int]:
        """Frames to look at for ``hole`` [H, W] of frame ``t``: greedily those that saw most of what no chosen frame
        saw yet, near ones first; then more, until most of it has been seen ``sightings`` times. ``depth``: behind the
        hole, as far as it is known."""
        others = np.flatnonzero(self.alignment.shot == self.alignment.shot[t])
        others = others[others != t]
        y, x = np.nonzero(hole)
        if not len(others) or not len(y):
            return []
        apart = -(-len(y) // max(FEWEST, min(4096, PLANNED // len(others))))
        points = np.stack([x[::apart], y[::apart]], 1)  # [P, 2]
        values = np.zeros(len(points))
        if depth is not None and depth.values is not None:
            rows, columns = depth.box
            values = depth.values[points[:, 1] - rows.start, points[:, 0] - columns.start]
        saw = WORTH[self._trust_at(others, t, points, values)]  # [S, P]
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

    def _trust_at(self, others: np.ndarray, t: int, points: np.ndarray, depths: np.ndarray) -> np.ndarray:
        """What ``trust`` the frames ``others`` [S] give to ``points`` [P, 2] (x, y) of frame ``t`` at ``depths`` [P]:
        [S, P]."""
        if self.alignment.still:
            return self.trust[others[:, None], points[:, 1], points[:, 0]]
        height, width = self.hidden.shape[1:]
        trust = np.empty((len(others), len(points)), np.uint8)
        for first in range(0, len(others), PLACED):
            part = slice(first, first + PLACED)
            there = self.alignment.place(others[part], t, points, depths)  # [s, P, 2]
            there = np.rint(np.nan_to_num(there, nan=-1))
            x, y = np.clip(there, -1, max(height, width)).astype(np.int32).transpose(2, 0, 1)
            inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
            trust[part] = np.where(inside, self.trust[others[part, None], y * inside, x * inside], HIDDEN)
        return trust

    def _combine(self, t: int, depth: Depth, wanted: np.ndarray, chosen: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """The median of what the ``chosen`` frames show in the box of ``depth`` of frame ``t`` where ``wanted`` [h, w]:
        colour [h, w, 3], and where any of them saw the background [h, w]. Where one saw it clear of the person, those
        that saw it close beside do not count."""
        y, x = np.nonzero(wanted)
        box = depth.box
        ring = self._ring(t, box)
        samples = np.empty((SAMPLES, len(y), 3), np.float32)
        count, clear = np.zeros(len(y), int), np.zeros(len(y), bool)
        for source in chosen:
            colour, trust = self._look(source, t, depth)
            light = retouch.light_between(self.source(t)[box], colour, trust <= BESIDE, ring)
            trust = trust[y, x]
            better = (trust == CLEAR) & ~clear
            count[better], clear[better] = 0, True
            take = np.flatnonzero(((trust == CLEAR) | (trust <= BESIDE) & ~clear) & (count < SAMPLES))
            samples[count[take], take] = colour[y[take], x[take]] + light
            count[take] += 1
        colour, seen = np.zeros((*wanted.shape, 3), np.float32), np.zeros(wanted.shape, bool)
        colour[y, x] = np.clip(retouch.median(samples, count), 0, 1)
        seen[y, x] = count > 0
        return colour, seen

    def _look(self, source: int, t: int, depth: Depth) -> tuple[np.ndarray, np.ndarray]:
        """What frame ``source`` shows of frame ``t`` at ``depth``: colour [h, w, 3] and its trust [h, w]."""
        box = depth.box
        if depth.values is None and self.alignment.same_place(source, t):
            return self.source(source)[box], self.trust[source][box]
        place = self._place(source, t, depth)
        colour = cv2.remap(self.source(source), *place, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        return colour, cv2.remap(
            self.trust[source], *place, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=HIDDEN
        )

    def _place(self, source: int, t: int, depth: Depth) -> tuple[np.ndarray, np.ndarray]:
        """Where [h, w] (x, y) in frame ``source`` the pixels of frame ``t`` at ``depth`` are; far away where that is
        behind the camera. Depths may be given for every second pixel, or fewer."""
        rows, columns = depth.box
        height, width = rows.stop - rows.start, columns.stop - columns.start
        h, w = (height, width) if depth.values is None else depth.values.shape
        x = (columns.start - 0.5 + (np.arange(w, dtype=np.float32) + 0.5) * (width / w))[None, :]
        y = (rows.start - 0.5 + (np.arange(h, dtype=np.float32) + 0.5) * (height / h))[:, None]
        there = self.alignment.between(source, t).astype(np.float32)
        q = [x * a + y * b + c for a, b, c in there]
        if depth.values is not None:
            q = [part + depth.values * e for part, e in zip(q, self.alignment.epipole(source, t).astype(np.float32))]
        z = np.where(q[2] > 1e-6, q[2], np.float32(np.nan))
        return tuple(np.nan_to_num(part / z, nan=-1e6) for part in q[:2])

    def _ring(self, t: int, box: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
        """Some pixels (rows, columns) of ``box`` where frame ``t`` shows its own background."""
        y, x = np.nonzero(~self.hidden[t][box])
        apart = len(y) // 4000 + 1
        return y[::apart], x[::apart]

    def _lift(self, t: int, reach: int) -> None:
        """Take the person's shadow off frame ``t``, up to ``reach`` px beside what is hidden."""
        beside = grow_frame(self.hidden[t], reach) & ~self.hidden[t]
        chosen = self._choose(t, beside, SAMPLES, None)
        if not chosen:
            return
        box = bounding_box(beside, margin=RING)
        colour, seen = self._combine(t, self._depth(t, box, chosen), beside[box], chosen)
        clean = self.clean[t][box]
        clean += retouch.shade(self.source(t)[box], colour, seen)[..., None] * (colour - clean)

    def _invent(self, fill: Fill, progress: Callable[[], None]) -> None:
        """Inpaint what no frame saw, the largest holes first, and carry it to the other frames."""
        sizes = counts(self.unfilled)
        carries = 0
        for t in np.argsort(-sizes, kind="stable"):
            hole = self.unfilled[t].copy()
            if not hole.any():
                continue
            worth = np.count_nonzero(hole) >= WORTH_CARRYING and carries < CARRIES
            self._inpaint(t, fill if worth else retouch.telea)
            if worth:
                carries += 1
                for other in np.flatnonzero(self.alignment.shot == self.alignment.shot[t]):
                    self._carry(t, hole, other)
            progress()

    def _inpaint(self, t: int, fill: Fill) -> None:
        hole = self.unfilled[t]
        rows, columns = bounding_box(hole)
        largest = max(rows.stop - rows.start, columns.stop - columns.start)
        if not largest:
            return
        margin = 4 * retouch.TELEA_RADIUS if fill is retouch.telea else max(LEAST_CONTEXT, round(CONTEXT * largest))
        box = bounding_box(hole, margin)
        self.clean[t][box] = fill(self.clean[t][box], hole[box])
        hole[:] = False

    def _carry(self, source: int, patch: np.ndarray, t: int) -> None:
        """Put the part of ``patch`` [H, W] invented in frame ``source`` into the hole of frame ``t``."""
        hole = self.unfilled[t]
        box = bounding_box(hole, margin=RING)
        if not hole[box].size:
            return
        depth = self.depths[t].within(box) if t in self.depths else Depth(box, None)
        place = self._place(source, t, depth)
        own, trust = self._look(source, t, depth)
        light = retouch.light_between(self.source(t)[box], own, trust <= BESIDE, self._ring(t, box))
        colour = cv2.remap(self.clean[source], *place, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE) + light
        shows = cv2.remap(patch.astype(np.uint8), *place, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
        put = (shows > 0) & hole[box]
        np.copyto(self.clean[t][box], np.clip(colour, 0, 1), where=put[..., None])
        hole[box][put] = False


def _distance_to(inside: np.ndarray) -> np.ndarray:
    """Distance [H, W] in px from each pixel to the nearest of ``inside`` [H, W] bool."""
    return cv2.distanceTransform(1 - inside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
