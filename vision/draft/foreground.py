"""The character's own colors at its soft edge, and how they go on beyond it."""

import cv2
import numpy as np
from numpy import ndarray
from scipy.ndimage import distance_transform_edt

WINDOW = 0.06  # of the body's height: where the first pass looks for pure colors
OWN_COLOR = 0.3  # alpha from which a pixel's estimate is better than its neighbor's color
PURE_COLOR = 0.85  # alpha from which a color may go on outside


def foreground_colors(picture: ndarray, alpha: ndarray, height: int) -> ndarray:
    """The colors [h, w, 3] that ``picture`` [h, w, 3] would have without its background.

    Blur fusion in two passes (Forte 2021, "Approximate fast foreground colour estimation").
    Beyond the character the nearest pure color goes on. ``height`` of the body in px.
    """
    window = max(9, round(WINDOW * height) | 1)
    colors, behind = _blur_fusion(picture, picture, picture, alpha, window)
    colors, _ = _blur_fusion(picture, colors, behind, alpha, max(3, window // 8 | 1))
    pure = alpha > PURE_COLOR
    if not pure.any():
        return colors
    rows, columns = distance_transform_edt(~pure, return_distances=False, return_indices=True)
    return np.where((alpha > OWN_COLOR)[..., None], colors, colors[rows, columns])


def _blur_fusion(
    picture: ndarray, front: ndarray, behind: ndarray, alpha: ndarray, window: int
) -> tuple[ndarray, ndarray]:
    """One pass: colors in front and behind [h, w, 3], the means of ``window`` px of both, the one
    in front corrected so that the two blend to ``picture``."""

    def mean(values: ndarray) -> ndarray:
        return cv2.blur(values, (window, window))

    a = alpha[..., None]
    weight = mean(alpha)[..., None]
    front = mean(front * a) / (weight + 1e-5)
    behind = mean(behind * (1 - a)) / (1 - weight + 1e-5)
    corrected = front + a * (picture - a * front - (1 - a) * behind)
    return np.clip(corrected, 0, 1).astype(np.float32), behind.astype(np.float32)
