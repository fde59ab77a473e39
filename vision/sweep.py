"""How deep each pixel lies behind a hole: a stack of planes is swept through the scene, and where frames that saw the
place agree on a colour, there is a surface (Collins 1996; smoothed by semi-global matching, Hirschmüller 2008).
"""

from collections.abc import Callable

import cv2
import numpy as np

WORKING_AREA = 16_000  # px of the depth map: more is slower, and remapping needs no finer depths
STEP = 0.75  # px of the working picture between two levels, in the frame that tells most
LEVELS = 20  # at most
WINDOW = 5  # px over which colours are compared
DIFFERENT = 0.08  # of full brightness: frames that differ by more show different things, by how much says nothing
SMALL, LARGE = 0.04, 0.3  # what a step to the next level, and a jump to any other, costs from pixel to pixel
NEARBY = 12  # points that a range of depths is taken from, at least

# (level, (h, w)) -> what each frame shows [S, h, w, 3] if all lay at that depth, and where it is background [S, h, w]
Look = Callable[[float], tuple[np.ndarray, np.ndarray]]


def range_of(points: np.ndarray, depths: np.ndarray, box: tuple[slice, slice]) -> tuple[float, float]:
    """Nearest and farthest depth around ``box``, from ``depths`` [N] at ``points`` [N, 2] px."""
    rows, columns = box
    middle = np.array([columns.start + columns.stop, rows.start + rows.stop]) / 2
    sides = np.array([columns.stop - columns.start, rows.stop - rows.start])
    near = (np.abs(points - middle) < 0.75 * sides).all(axis=1)
    known = depths[near] if near.sum() >= NEARBY else depths
    if not len(known):
        return 0.0, 0.0
    low, high = np.quantile(known, [0.03, 0.97])
    spare = 0.1 * (high - low)
    return float(low - spare), float(high + spare)


def levels(low: float, high: float, slope: float) -> np.ndarray:
    """Depths [L] from ``low`` to ``high``, STEP apart where a unit of depth moves a pixel by ``slope`` px."""
    steps = np.ceil((high - low) * slope / STEP)
    return np.linspace(low, high, int(min(steps + 1, LEVELS))) if steps > 1 else np.array([(low + high) / 2])


def depth_map(levels: np.ndarray, look: Look) -> np.ndarray:
    """The depth [h, w] of each pixel, out of ``levels`` [L], and between them."""
    cost = np.stack([_disagreement(*look(level)) for level in levels], axis=2)  # [h, w, L]
    total = _aggregate(cost)
    best = total.argmin(axis=2)
    inner = np.clip(best, 1, len(levels) - 2)
    before, here, after = (np.take_along_axis(total, (inner + k)[..., None], 2)[..., 0] for k in (-1, 0, 1))
    bend = before - 2 * here + after
    shift = np.where((best == inner) & (bend > 1e-6), (before - after) / np.maximum(2 * bend, 1e-6), 0)
    step = levels[1] - levels[0]
    return (levels[best] + np.clip(shift, -0.5, 0.5) * step).astype(np.float32)


def _disagreement(colours: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """How differently frames show a pixel, [h, w] in 0…1; 0 where fewer than two show it."""
    weight = seen[..., None].astype(np.float32)
    count = weight.sum(axis=0)
    mean = (colours * weight).sum(axis=0) / np.maximum(count, 1)
    far = np.minimum(np.abs(colours - mean).mean(axis=-1) / DIFFERENT, 1) * weight[..., 0]
    far = far.sum(axis=0) / np.maximum(count[..., 0], 1)
    far *= count[..., 0] > 1
    return cv2.blur(far, (WINDOW, WINDOW))


def _aggregate(cost: np.ndarray) -> np.ndarray:
    """``cost`` [h, w, L] plus that of the cheapest way there from four sides."""
    total = np.zeros_like(cost)
    for turned in (cost, cost.transpose(1, 0, 2)):
        out = total if turned is cost else total.transpose(1, 0, 2)
        for order in (range(len(turned)), range(len(turned) - 1, -1, -1)):
            path = None
            for line in order:
                path = turned[line] if path is None else turned[line] + _cheapest_step(path)
                out[line] += path
    return total


def _cheapest_step(path: np.ndarray) -> np.ndarray:
    """What it costs at least to arrive at each level from ``path`` [n, L] of the pixels before, less their minimum."""
    least = path.min(axis=1, keepdims=True)
    step = np.minimum(path, least + LARGE)
    np.minimum(step[:, 1:], path[:, :-1] + SMALL, out=step[:, 1:])
    np.minimum(step[:, :-1], path[:, 1:] + SMALL, out=step[:, :-1])
    return step - least
