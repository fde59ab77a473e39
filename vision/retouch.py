"""Pixels from one picture in another: their light levelled, their median taken, shadows told from things, holes smeared
over.
"""

import cv2
import numpy as np

TELEA_RADIUS = 4  # px
# Of the plate's brightness: what a pixel beside the person lacks where shadow begins, and where it is sure.
SHADE = 0.03, 0.07
DEEPEST = 0.85  # what lacks more is a thing, not a shadow
TINTED = 0.35  # and so is what differs in a colour by so much of its brightness


def telea(picture: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """``picture`` [h, w, 3] in 0…1 with ``hole`` [h, w] bool smeared over from its edges (Telea 2004)."""
    bytes_ = np.rint(picture * 255).astype(np.uint8)
    filled = cv2.inpaint(bytes_, hole.astype(np.uint8), TELEA_RADIUS, cv2.INPAINT_TELEA) / np.float32(255)
    return np.where(hole[..., None], filled, picture)


def light_between(
    own: np.ndarray, other: np.ndarray, shown: np.ndarray, ring: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """How much brighter [3] a frame's ``own`` [h, w, 3] is than the ``other`` frame's picture of the same place, by the
    pixels of ``ring`` (rows, columns) where that is ``shown`` [h, w] bool: cameras change their exposure, and lamps
    flicker."""
    y, x = (place[shown[ring]] for place in ring)
    return np.median(own[y, x] - other[y, x], axis=0) if len(y) >= 100 else np.zeros(3, np.float32)


def shade(own: np.ndarray, plate: np.ndarray, where: np.ndarray) -> np.ndarray:
    """How surely [h, w] in 0…1 ``own`` [h, w, 3] shows the ``plate`` [h, w, 3] in shadow, ``where`` [h, w] bool that is
    asked: darker, and of the same colour."""
    weight = cv2.GaussianBlur(where.astype(np.float32), (0, 0), 2) + 1e-6
    smooth = [cv2.GaussianBlur(picture * where[..., None], (0, 0), 2) / weight[..., None] for picture in (own, plate)]
    light, full = (picture.mean(axis=-1) + 1e-3 for picture in smooth)
    lacks = 1 - light / full
    share = np.abs(smooth[0] / light[..., None] - smooth[1] / full[..., None]).max(axis=-1)
    sure = np.clip((lacks - SHADE[0]) / (SHADE[1] - SHADE[0]), 0, 1)
    return sure * (where & (lacks < DEEPEST) & (share < TINTED))


def median(samples: np.ndarray, count: np.ndarray) -> np.ndarray:
    """The median [P, 3] of the first ``count`` [P] of ``samples`` [S, P, 3], which are sorted in place; 0 where there
    is none."""
    for number, sample in enumerate(samples):
        sample[count <= number] = np.inf
    samples.sort(axis=0)
    middle = [np.maximum(k, 0)[None, :, None] for k in ((count - 1) // 2, count // 2)]
    median = sum(np.take_along_axis(samples, k, 0)[0] for k in middle) / 2
    return np.where(count[:, None] > 0, median, 0)
