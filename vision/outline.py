"""The outline of a soft mask: held still over time, and drawn to the edges of the picture.

A network that looks at each frame alone gives an edge that trembles and, being coarse, runs a few pixels beside what it
should follow. Neighbouring frames vote on it, each carried over by the optical flow; then a guided filter (He et al.
2013) lets it follow the picture.
"""

from collections.abc import Callable, Iterator

import cv2
import numpy as np
from torch import Tensor

FLOW_SIZE = 320  # px, the longer side: flow carries a soft mask, finer is wasted
REACH = 2  # frames to either side that vote
ALIKE = 0.03  # of full brightness: what a neighbour shows otherwise by more is something else, and has no vote
EDGE = 0.012  # of the picture's longer side: how far an outline may be moved to an edge of the picture
SMOOTH = 1e-3  # a contrast whose square is below this is no edge
SHARP = 1.6  # the filter softens a little more than the mask was

Progress = Callable[[int], None]


def steady(frames: Tensor, mask: np.ndarray, strength: float, progress: Progress | None = None) -> None:
    """Let neighbouring frames vote on ``mask`` [T, H, W] in 0…1, in place; ``frames`` [T, H, W, 3] in 0…1.

    ``strength`` 0: not at all; 1: a neighbour that shows the same has as much weight as the frame itself.
    ``progress`` is called with the number of frames done, and may raise to stop.
    """
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    for index, window, here in _windows(frames, mask):
        grey, own = window[here]
        total, weight = own.copy(), np.ones_like(own)
        y, x = np.mgrid[: grey.shape[0], : grey.shape[1]].astype(np.float32)
        for other, (there, vote) in enumerate(window):
            if other == here:
                continue
            move = flow.calc(grey, there, None)
            place = x + move[..., 0], y + move[..., 1]
            shown = cv2.remap(there, *place, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            vote = cv2.remap(vote, *place, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            far = cv2.blur(cv2.absdiff(shown, grey).astype(np.float32), (5, 5)) / (255 * ALIKE)
            trust = strength * np.exp(-(far**2))
            total += trust * vote
            weight += trust
        change = cv2.resize(total / weight - own, mask.shape[:0:-1], interpolation=cv2.INTER_LINEAR)
        np.clip(mask[index] + change, 0, 1, out=mask[index])
        if progress is not None:
            progress(index + 1)


def _windows(frames: Tensor, mask: np.ndarray) -> Iterator[tuple[int, list[tuple[np.ndarray, np.ndarray]], int]]:
    """Each frame, the small (grey uint8, mask) of it and its neighbours, and which of them it is. Neighbours keep the
    masks that they came with: the votes are on what was seen, not on votes."""
    count, height, width = mask.shape
    scale = min(1.0, FLOW_SIZE / max(height, width))
    size = max(8, round(width * scale)), max(8, round(height * scale))
    small = {}
    for index in range(count):
        for t in range(max(0, index - REACH), min(count, index + REACH + 1)):
            if t not in small:
                picture = cv2.resize(frames[t, ..., :3].float().cpu().numpy(), size, interpolation=cv2.INTER_AREA)
                grey = np.rint(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) * 255).clip(0, 255).astype(np.uint8)
                small[t] = grey, cv2.resize(mask[t], size, interpolation=cv2.INTER_AREA)
        small.pop(index - REACH - 1, None)
        yield index, [small[t] for t in sorted(small)], sorted(small).index(index)


def refine(frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """``mask`` [H, W] in 0…1 with its outline moved to the edges of ``frame`` [H, W, 3] in 0…1 that run beside it."""
    reach = max(2, round(EDGE * max(mask.shape)))
    x, y, w, h = cv2.boundingRect((mask > 0.02).astype(np.uint8))
    if not w:
        return mask
    box = slice(max(0, y - 2 * reach), y + h + 2 * reach), slice(max(0, x - 2 * reach), x + w + 2 * reach)
    step = max(1, reach // 4)  # its coefficients are smooth: found on a smaller picture (He and Sun 2015)
    size = max(1, mask[box].shape[1] // step), max(1, mask[box].shape[0] // step)
    guide, target = (cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in (frame[box], mask[box]))
    slope, level = guided_filter(guide, target, 2 * (reach // step) + 1)
    full = mask[box].shape[::-1]
    slope, level = cv2.resize(slope, full), cv2.resize(level, full)
    drawn = np.einsum("hwc,hwc->hw", frame[box], slope) + level
    drawn = np.clip((drawn - 0.5) * SHARP + 0.5, 0, 1)
    out = mask.copy()
    # Away from the outline the mask is sure; the filter would let the picture show through.
    near = cv2.blur(((target > 0.05) & (target < 0.95)).astype(np.float32), (2 * (reach // step) + 1,) * 2)
    near = cv2.resize(np.minimum(near * 4, 1), full)
    out[box] += near * (drawn - out[box])
    return out


def guided_filter(
    guide: np.ndarray, target: np.ndarray, window: int, smooth: float = SMOOTH
) -> tuple[np.ndarray, np.ndarray]:
    """The guided filter with a guide of three colors: ``target`` [h, w] ≈ slope [h, w, 3] · guide + level [h, w].
    A contrast of the guide whose square is below ``smooth`` is not an edge."""

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.blur(values, (window, window))

    middle, average = mean(guide), mean(target)
    shared = mean(guide * target[..., None]) - middle * average[..., None]
    slope = _solved(_spread(guide, middle, mean, smooth), shared)
    level = average - np.einsum("hwc,hwc->hw", slope, middle)
    return mean(slope), mean(level)


def _spread(guide: np.ndarray, middle: np.ndarray, mean: Callable, smooth: float) -> list[np.ndarray]:
    """The covariance of a guide's colours around each pixel: the upper half of a symmetric matrix, six of [h, w]."""
    pairs = [(i, j) for i in range(3) for j in range(i, 3)]
    together = mean(np.stack([guide[..., i] * guide[..., j] for i, j in pairs], axis=-1))
    return [
        together[..., n] - middle[..., i] * middle[..., j] + (smooth if i == j else 0) for n, (i, j) in enumerate(pairs)
    ]


def _solved(matrix: list[np.ndarray], right: np.ndarray) -> np.ndarray:
    """x [h, w, 3] of ``matrix`` · x = ``right`` [h, w, 3] in each pixel, ``matrix`` symmetric as _spread() has it: by
    its adjugate, a fifth of the time that LAPACK takes for so many small ones."""
    xx, xy, xz, yy, yz, zz = matrix
    first = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    second, third = (xx * zz - xz * xz, xy * xz - xx * yz), xx * yy - xy * xy
    rows = first, (first[1], *second), (first[2], second[1], third)
    whole = xx * first[0] + xy * first[1] + xz * first[2]
    return np.stack([sum(part * right[..., i] for i, part in enumerate(row)) / whole for row in rows], axis=-1)
