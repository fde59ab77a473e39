"""Clips that were rendered apart become one video: their overlap is found, checked, brought to one light and blended.

stitch(clips, overlap=FIND, blend=True, strength=1.0, progress=None) -> Stitched(frames, seams)
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import cv2
import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from . import levels
from .frames import Progress
from .frames import picture as to_picture
from .levels import IDENTITY, Anchor, Level, Reading, compare

FIND = -1  # as an overlap: look for it
THUMB = 48  # px, the longer side of the pictures that are compared: details were drawn anew, places were not
CONTRAST = 0.02  # sRGB values: thumbs are brought to one spread, but noise is not
SAME = 0.5  # of the step from frame to frame: two frames that differ less show one moment
STEPS = 8  # frames beside the seam that tell this step
CLEARER = 0.8  # of the difference at the last frame alone: a longer overlap must agree better,
ALIKE = 0.35  # and by itself, in spreads of the picture: of one moment 0.07 is usual, of two in one place 0.5
TIED = 1.02  # of overlaps that agree as well the shortest is taken: nothing is left out that was not shown
# Steps of 8 bits: thumbs that differ by more show another scene. Frames of one moment were drawn anew at most; from the
# last frame of a clip to the next one something moved, so it is also asked how far frames differ there.
DIFFERENT, NEXT = 10.0, 5.0
FAST = 3.0  # times the difference from frame to frame
READINGS = 5  # frames of an overlap whose colours are compared
CHUNK = 8  # frames levelled at once


@dataclass(frozen=True, eq=False)
class Seam:
    """Where ``clip`` joins what is before it. start: its first frame in the video. overlap: how many of its frames are
    shared. difference: how far it is there from what is before it, in steps of 8 bits, once its colours are levelled;
    drift: how far these were off (ΔE), None where they could not be compared. level: what was done to them. With an
    overlap of 0 that was asked for, nothing is compared."""

    clip: int
    start: int
    overlap: int
    difference: float | None = None
    drift: float | None = None
    level: Level = IDENTITY


@dataclass(frozen=True, eq=False)
class Stitched:
    """The video [T, H, W, 3], and a seam for each clip after the first."""

    frames: Tensor
    seams: tuple[Seam, ...]


def steps(lengths: Sequence[int]) -> int:
    """How many steps ``stitch`` counts for clips of such ``lengths``: each frame is looked at, and put in place."""
    return 2 * sum(lengths)


def stitch(
    clips: Sequence[Tensor],
    overlap: int = FIND,
    blend: bool = True,
    strength: float = 1.0,
    progress: Progress | None = None,
) -> Stitched:
    """Clips [T, H, W, 3 or 4] in 0…1, in their order, as one video.

    overlap: how many frames of each clip repeat the last ones before it; FIND looks at the pictures. With 0 clips are
    put one after the other as they are. blend: fade over the overlap; without, what was there first stays. strength:
    how far, 0…1, each clip's colours are brought to those before it, and so to the first clip's. ``progress`` is called
    with the number of steps done.
    Raises ValueError, naming the clip, where there are fewer than two, sizes differ, nothing would be left of one, or
    one does not continue what is before it (not asked with an overlap of 0).
    """
    clips = [clip[..., :3] for clip in clips]
    check(clips, overlap)
    report = progress or (lambda done: None)
    best = _overlaps(clips, report) if overlap else [0] * (len(clips) - 1)
    shared = best if overlap == FIND else [overlap] * len(best)
    frames = clips[0].new_empty(sum(map(len, clips)) - sum(shared), *clips[0].shape[1:])
    frames[: len(clips[0])] = clips[0]
    end = len(clips[0])
    done = sum(map(len, clips)) + end
    seams = []
    for i, clip in enumerate(clips[1:], start=1):
        seam = Seam(i, end - shared[i - 1], shared[i - 1])
        if overlap:
            seam = _compared(seam, frames[:end], clip)
            _check_continues(seam, frames[:end], best[i - 1])
            seam = replace(seam, level=seam.level.towards(strength))
        seams.append(seam)
        _put(frames, clip, seam, blend, lambda count, before=done: report(before + count))
        done, end = done + len(clip), seam.start + len(clip)
    return Stitched(frames, tuple(seams))


def check(clips: Sequence[Tensor], overlap: int) -> None:
    """Raises ValueError, naming the clip, where clips [T, H, W, 3] cannot be joined whatever they show."""
    if len(clips) < 2:
        raise ValueError(f"clips: at least 2 are needed to stitch; there is {len(clips)}.")
    if overlap < FIND:
        raise ValueError(f"overlap: {overlap} is not possible; choose 0 or more frames, or {FIND} to have it found.")
    first, there = clips[0].shape[1:], 0
    for i, clip in enumerate(clips):
        if not len(clip):
            raise ValueError(f"clips: clip{i} is empty.")
        if clip.shape[1:] != first:
            size = " and ".join(f"{shape[1]}×{shape[0]} px" for shape in (clip.shape[1:], first))
            raise ValueError(f"clips: clip{i} and clip0 differ in size: {size}. Make them equal first.")
        if i and overlap >= min(len(clip), there + 1):
            raise ValueError(
                f"overlap: of clip{i} with its {len(clip)} frames, an overlap of {overlap} leaves none, or reaches "
                f"before the {there} frames that come first."
            )
        there += len(clip) - (max(overlap, 0) if i else 0)


# --- where clips overlap ----------------------------------------------------------------------------------------------


def _overlaps(clips: Sequence[Tensor], progress: Progress) -> list[int]:
    """By how many frames each clip after the first overlaps with the one before it, as the pictures say."""
    thumbs, done = [], 0
    for clip in clips:
        thumbs.append(_thumbs(clip, lambda count, before=done: progress(before + count)))
        done += len(clip)
    return [find(before, after) for before, after in pairwise(thumbs)]


def find(before: ndarray, after: ndarray) -> int:
    """How many of the first frames of one clip repeat the last ones of another, by their thumbs [T, D]; 0 where none
    does, or nothing moves that could tell.

    Frames of one moment differ by what was drawn anew, frames of two by the motion, too: the overlap at which the
    pictures agree best is the one.
    """
    most = min(len(before), len(after) - 1)
    if most < 1:
        return 0
    apart = _distances(before[-most:], after[:most])
    # Overlap k: frame i of the first k meets frame most - k + i of the last ones.
    costs = np.sqrt([np.diagonal(apart, k - most).mean() for k in range(1, most + 1)])
    step = np.sqrt(np.median([_steps(before[-STEPS:]), _steps(after[:STEPS])]))
    best = int(np.argmax(costs <= TIED * costs.min())) + 1
    if best > 1 and costs[best - 1] < min(ALIKE, CLEARER * costs[0]):
        return best
    return 1 if costs[0] < SAME * step else 0


def _steps(thumbs: ndarray) -> float:
    """The median squared distance from one of ``thumbs`` [T, D] to the next; 0 of one alone."""
    return float(np.median(((thumbs[1:] - thumbs[:-1]) ** 2).mean(axis=1))) if len(thumbs) > 1 else 0.0


def _distances(before: ndarray, after: ndarray) -> ndarray:
    """Mean squared distances [N, M] between thumbs [N, D] and [M, D]."""
    squares = (before**2).sum(axis=1)[:, None] + (after**2).sum(axis=1) - 2 * before @ after.T
    return np.maximum(squares, 0) / before.shape[1]


def _thumbs(clip: Tensor, progress: Progress) -> ndarray:
    """[T, D] float32: small pictures of the frames, each colour around 0 and of spread 1, so that another light is no
    other picture."""
    thumbs = []
    for t, frame in enumerate(clip, start=1):
        thumb = _thumb(frame)
        spread = np.maximum(thumb.std(axis=(0, 1)), CONTRAST)
        thumbs.append(((thumb - thumb.mean(axis=(0, 1))) / spread).ravel())
        progress(t)
    return np.stack(thumbs)


def _thumb(frame: Tensor) -> ndarray:
    scale = min(1.0, THUMB / max(frame.shape[:2]))
    size = tuple(max(1, round(side * scale)) for side in reversed(frame.shape[:2]))
    return cv2.resize(to_picture(frame), size, interpolation=cv2.INTER_AREA)


# --- whether they belong together -------------------------------------------------------------------------------------


def _compared(seam: Seam, before: Tensor, clip: Tensor) -> Seam:
    """``seam`` with what the frames of ``clip`` say that are also the last ones of ``before``; where there are none,
    what its first frame says against the last."""
    shared = seam.overlap
    if shared:
        at = np.unique(np.linspace(0, shared - 1, min(shared, READINGS)).round().astype(int))
        pairs = [(clip[i], before[len(before) - shared + i]) for i in at]
        readings = [compare(*pair) for pair in pairs]
    else:
        pairs = [(clip[0], before[-1])]
        readings = [Anchor(before[-1]).read(clip[0])]
    level, drift = _common([reading for reading in readings if reading is not None])
    levelled = (levels.apply(own[None], level, level)[0] for own, _ in pairs)
    differences = [_difference(own, other) for own, (_, other) in zip(levelled, pairs)]
    return replace(seam, difference=float(np.mean(differences)), drift=drift, level=level)


def _common(readings: list[Reading]) -> tuple[Level, float | None]:
    if not readings:
        return IDENTITY, None
    gain = np.median([reading.level.gain for reading in readings], axis=0)
    offset = np.median([reading.level.offset for reading in readings], axis=0)
    return Level(gain, offset), float(np.median([reading.drift for reading in readings]))


def _difference(one: Tensor, other: Tensor) -> float:
    """Mean, in steps of 8 bits, between the thumbs of two frames."""
    return float(np.abs(_thumb(one) - _thumb(other)).mean()) * 255


def _check_continues(seam: Seam, before: Tensor, best: int) -> None:
    i, shared = seam.clip, seam.overlap
    most = DIFFERENT
    if not shared:
        last = before[-STEPS:]
        most = max(NEXT, FAST * float(np.median([_difference(*pair) for pair in pairwise(last)] or [0.0])))
    if seam.difference <= most:
        return
    measured = f"by {seam.difference:.1f} steps of 255, and up to {most:.1f} are taken for the same scene"
    apart = "Or set overlap to 0, which puts clips one after the other whatever they show."
    if best == shared:
        raise ValueError(
            f"clips: clip{i} does not continue clip{i - 1}. They differ {measured}. Check that the clips are in their "
            f"order and of one shot. {apart}"
        )
    raise ValueError(
        f"overlap: the first {shared} frames of clip{i} are not the last ones of clip{i - 1}. They differ {measured}. "
        f"They agree best with an overlap of {best}: set overlap to {FIND} to have it found for each clip. {apart}"
    )


# --- joining ----------------------------------------------------------------------------------------------------------


def _put(frames: Tensor, clip: Tensor, seam: Seam, blend: bool, progress: Progress) -> None:
    """Write ``clip`` into the video ``frames`` from the seam on, over what its shared frames find there."""
    fade = torch.arange(1, seam.overlap + 1, device=frames.device) / (seam.overlap + 1) if blend else None
    for at in range(0, len(clip), CHUNK):
        part = levels.apply(clip[at : at + CHUNK], seam.level, seam.level).to(frames)
        place = frames[seam.start + at : seam.start + at + len(part)]
        both = max(0, min(len(part), seam.overlap - at))
        if blend and both:
            place[:both] = torch.lerp(place[:both], part[:both], fade[at : at + both, None, None, None].to(part))
        place[both:] = part[both:]
        progress(at + len(part))
