"""The character's alpha: a network's coarse mask drawn to the edges of the picture.

A guided filter first, then GrabCut (Rother et al. 2004) in a band around the outline, where the
network is unsure, then a guided filter of a few pixels.
"""

import cv2
import numpy as np
from numpy import ndarray

from .. import outline
from ..mask import INSIDE, bounding_box, grow_frame
from .vectors import smoothstep

BAND = 0.018  # of the body's height: how far GrabCut may move the outline
GRABCUT_HEIGHT_PX = 420  # of the body; a taller one is made smaller for GrabCut
GRABCUT_ROUNDS = 2
SURE = 0.9  # alpha from which a pixel away from the outline stays the character's
NETWORK_CERTAIN = 0.97  # where the network is as sure as this, GrabCut may not remove a thin part
FINE_RADIUS = 0.006  # of the body's height: the last filter's window
FINE_CONTRAST = 1e-4  # a contrast whose square is below this is no edge for it
TRANSPARENT, OPAQUE = 0.35, 0.97  # alpha of the filter that becomes 0, and 1


def refine_matte(picture: ndarray, mask: ndarray) -> ndarray:
    """``mask`` [h, w] in 0…1 as a sharp alpha [h, w] for ``picture`` [h, w, 3] in 0…1.

    Both float32; the result, too. An empty mask stays empty.
    """
    alpha = np.zeros_like(mask)
    coarse = outline.refine(picture, mask)
    inside = coarse > INSIDE
    if not inside.any():
        return alpha
    height = int(np.ptp(np.flatnonzero(inside.any(axis=1)))) + 1
    cut = _cut_in_band(picture, coarse, inside, height)
    sharp = np.where(coarse > NETWORK_CERTAIN, np.maximum(cut, coarse), cut)
    radius = max(2, round(FINE_RADIUS * height))
    box = bounding_box(sharp > 0, margin=4 * radius)
    fine = _filter_edge(picture[box], sharp[box], radius)
    alpha[box] = smoothstep(fine, TRANSPARENT, OPAQUE)
    return alpha


def _cut_in_band(picture: ndarray, coarse: ndarray, inside: ndarray, height: int) -> ndarray:
    """GrabCut's mask [h, w] float32, free to differ from ``coarse`` near its outline only."""
    band = max(2, round(BAND * height))
    sure = grow_frame(inside, -band) & (coarse > SURE)
    possible = grow_frame(inside, band)
    box = bounding_box(inside, margin=4 * band)
    scale = min(1.0, GRABCUT_HEIGHT_PX / height)
    rows, columns = coarse[box].shape
    size = max(1, round(columns * scale)), max(1, round(rows * scale))

    def reduced(part: ndarray) -> ndarray:
        return cv2.resize(part[box].astype(np.float32), size, interpolation=cv2.INTER_AREA)

    labels = np.full(size[::-1], cv2.GC_BGD, np.uint8)
    labels[reduced(possible) > INSIDE] = cv2.GC_PR_BGD
    labels[reduced(inside) > INSIDE] = cv2.GC_PR_FGD
    labels[reduced(sure) > 0.99] = cv2.GC_FGD
    bytes_ = np.ascontiguousarray(np.rint(reduced(picture)[..., ::-1] * 255).clip(0, 255))
    out = np.zeros_like(coarse)
    if not ((labels == cv2.GC_BGD).any() and (labels == cv2.GC_FGD).any()):
        return coarse  # it fills the picture, or is as thin as the band: nothing to learn from
    cv2.setRNGSeed(1)  # its color models start at random
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(
        bytes_.astype(np.uint8), labels, None, *models, GRABCUT_ROUNDS, cv2.GC_INIT_WITH_MASK
    )
    cut = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)
    cut = cv2.GaussianBlur(cut, (0, 0), 0.8)
    out[box] = cv2.resize(cut, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return out


def _filter_edge(picture: ndarray, alpha: ndarray, radius: int) -> ndarray:
    """``alpha`` [h, w] with its edge drawn to those of ``picture``, ``radius`` px around."""
    window = 2 * radius + 1
    slope, level = outline.guided_filter(picture, alpha, window, FINE_CONTRAST)
    drawn = np.einsum("hwc,hwc->hw", picture, slope) + level
    edge = ((alpha > 0.02) & (alpha < 0.98)).astype(np.float32)
    near = cv2.blur(edge, (window, window)) > 0
    return np.clip(np.where(near, drawn, alpha), 0, 1).astype(np.float32)
