"""A hand-held camera's shake, as far as it exceeds the detector's own jitter."""

import numpy as np
from numpy import ndarray

from .likelihood import STANCES

JITTER_BY_SIZE = 0.0042  # body sizes a frame: the detector's own, of a planted ankle
MIN_PLANTED_STEPS = 8
MAX_DEVIATIONS = 3  # robust ones, of a step; more is an outlier
MAD_TO_DEVIATION = 1 / 0.6745


def shake_of_feet(ankles: ndarray, velocity: ndarray, stance: ndarray, size: float) -> ndarray:
    """[T-1, 2] what planted ``ankles`` [T, 2, 2] (NaN where missing) do quicker than ``velocity``.

    stance: [T-1, 4] probabilities. Wiener's gain, 1 - noise / all, per axis; then 1-2-1.
    """
    residual = np.diff(ankles, axis=0) - velocity[:, None]
    known = np.isfinite(residual[..., 0])
    weight = stance @ STANCES * known
    count = weight.sum(1)
    sure = np.minimum(count, 1)
    if sure.sum() < MIN_PLANTED_STEPS or (sure > 0.5).sum() <= MIN_PLANTED_STEPS:
        return np.zeros_like(velocity)
    mean = (weight[..., None] * np.nan_to_num(residual)).sum(1) / np.maximum(count, 1e-6)[:, None]
    deviation = np.sqrt(np.median(mean[sure > 0.5] ** 2, axis=0)) * MAD_TO_DEVIATION
    mean = np.clip(mean, -MAX_DEVIATIONS * deviation, MAX_DEVIATIONS * deviation)
    power = (sure[:, None] * mean**2).sum(0) / sure.sum()
    gain = np.maximum(1 - (JITTER_BY_SIZE * size) ** 2 / np.maximum(power, 1e-9), 0)
    gain = np.minimum(gain, _common_share(np.nan_to_num(residual), weight))
    shaken, total = _smooth(mean * sure[:, None]), _smooth(sure[:, None])
    return gain * shaken / np.maximum(total, 1e-6) * np.minimum(total, 1)


def _common_share(residual: ndarray, weight: ndarray) -> ndarray:
    """[2] the share of the power that both feet have in common, for steps with both planted.

    A camera shakes both feet alike, a detector each on its own. 1 where too few steps tell.
    """
    both = (weight > 0.5).all(1)
    if both.sum() < MIN_PLANTED_STEPS:
        return np.ones(2)
    right, left = residual[both].swapaxes(0, 1)
    common = (right * left).mean(0)
    return np.clip(common / np.maximum(((right + left) ** 2).mean(0) / 4, 1e-9), 0, 1)


def _smooth(values: ndarray) -> ndarray:
    """[S, n] by 1-2-1 over time."""
    padded = np.pad(values, ((1, 1), (0, 0)), mode="edge")
    return padded[:-2] / 4 + padded[1:-1] / 2 + padded[2:] / 4
