"""What clothes hide or join: the hem of a skirt, and the trunk behind an arm."""

import cv2
import numpy as np
from numpy import ndarray
from scipy.ndimage import distance_transform_edt

from ..mask import INSIDE
from .character import Character
from .parts import Parts
from .vectors import length, pixel_grid

LEVELS = np.linspace(0.25, 0.95, 29)  # shares of the way from hip to ankle that are looked at
TROUSERS_PART_ABOVE = 0.45  # share from which a gap between the legs tells trousers
SKIRT_BREADTH = 1.35  # of both legs side by side
LOWEST_HEM = 1.1
CLOSING, ARM_OVERLAP = 0.14, 0.06  # in trunks
SOFT_FROM, SOFT_SHARE = 0.04, 0.75  # of the body's height; how much of a filled color is soft


def point_on_leg(character: Character, side: str, share: float) -> ndarray:
    """[2] px, ``share`` of the way from the hip (0) over the knee (0.5) to the ankle (1)."""
    hip, knee, ankle = (character.points[f"{side}_{n}"] for n in ("hip", "knee", "ankle"))
    if share < 0.5:
        return hip + 2 * share * (knee - hip)
    return knee + (2 * share - 1) * (ankle - knee)


def find_skirt(character: Character, parts: Parts) -> ndarray | None:
    """[h, w] bool: everything above the hem, where the legs are joined by a skirt; else None."""
    if not character.legs:
        return None
    inside = character.alpha > INSIDE
    gaps, breadths = zip(*(_level(character, parts, inside, share) for share in LEVELS))
    gaps = np.array(gaps)
    hem = LEVELS[gaps.argmax()] if gaps.any() else LOWEST_HEM
    above = gaps.argmax() if gaps.any() else len(LEVELS)
    if hem < TROUSERS_PART_ABOVE or np.median(breadths[: max(1, above)]) < SKIRT_BREADTH:
        return None
    points, down = character.points, -character.trunk_up
    feet = (points["right_ankle"] + points["left_ankle"]) / 2
    depth = (pixel_grid(*inside.shape) - points["hips"]) @ down
    return depth < min(hem, LOWEST_HEM) * ((feet - points["hips"]) @ down)


def _level(character: Character, parts: Parts, inside: ndarray, share: float) -> tuple[bool, float]:
    """Whether there is a gap between the legs at a level, and the breadth of the figure over that
    of two legs."""
    one, other = (point_on_leg(character, side, share) for side in ("right", "left"))
    apart = length(other - one)
    steps = np.linspace(0, 1, max(3, int(apart)))[:, None]
    limit = np.array(inside.shape[::-1]) - 1
    x, y = np.rint(one + steps * (other - one)).astype(int).clip(0, limit).T
    row = inside[int(np.clip(round((one[1] + other[1]) / 2), 0, len(inside) - 1))]
    legs = parts.radius["right_thigh"] + parts.radius["left_thigh"] + apart
    return bool((~inside[y, x]).any()), float(row.sum() / max(legs, 1e-6))


def hidden_trunk(character: Character, arms: ndarray, trunk: ndarray) -> ndarray:
    """[h, w] bool: where an arm lies before the trunk. ``arms`` and ``trunk`` [h, w] bool."""
    points, unit_px = character.points, character.trunk
    quad = np.zeros(arms.shape, np.uint8)
    names = ("right_shoulder", "left_shoulder", "left_hip", "right_hip")
    corners = np.array([points[name] for name in names])
    cv2.fillPoly(quad, [np.rint(corners).astype(np.int32)], 1)
    radius = max(3, round(CLOSING * unit_px))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    padded = cv2.copyMakeBorder(trunk.astype(np.uint8), *[2 * radius] * 4, cv2.BORDER_CONSTANT)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, kernel)
    closed = closed[2 * radius : -2 * radius, 2 * radius : -2 * radius] > 0
    near = distance_transform_edt(~trunk) <= ARM_OVERLAP * unit_px
    return arms & ((closed & near) | (quad > 0))


def fill_hidden(colors: ndarray, source: ndarray, hidden: ndarray, height: int) -> ndarray:
    """``colors`` [h, w, 3] with the pixels ``hidden`` [h, w] mirrored from the nearest border of
    ``source`` [h, w], and softer the farther from it. ``height`` of the body in px."""
    if not (hidden.any() and source.any()):
        return colors
    near = distance_transform_edt(~source, return_distances=False, return_indices=True)
    limit = np.array(hidden.shape)[:, None] - 1
    at = np.stack(np.nonzero(hidden))  # [2, n]: row, column
    border = near[:, hidden]
    mirrored = np.clip(2 * border - at, 0, limit)
    usable = source[tuple(mirrored)]
    found = np.where(usable, mirrored, border)
    out = colors.copy()
    out[hidden] = colors[tuple(found)]
    soft = cv2.GaussianBlur(out, (0, 0), max(1.0, 0.012 * height))
    depth = distance_transform_edt(hidden)
    weight = np.clip((depth - 1) / (SOFT_FROM * height), 0, SOFT_SHARE)[..., None]
    return np.where(hidden[..., None], out + weight * (soft - out), out).astype(np.float32)
