"""How much of the ground's motion at the feet the background as a whole shares."""

import numpy as np
from numpy import ndarray

SLOW_SIGMA_FRAMES = 10.0
# Measured on real clips of cameras that go along: 0.1 to 0.4. This value is never worse than a
# still background for true shares from 0.18 to 1.
MOVING_ALONG_SHARE = 0.35


def depth_share(hips: ndarray, velocity: ndarray) -> ndarray:
    """[T-1] share of the ground's ``velocity`` [T-1, 2], from the hips [T, 2], NaN where missing.

    1 where the hips go with the ground: the person stands, and the camera turns or shakes.
    `MOVING_ALONG_SHARE` where they keep their place in the picture while the ground goes by: the
    camera travels along, and what lies far behind the person moves less.
    """
    slow, own = smooth_over_time(velocity), smooth_over_time(np.diff(hips, axis=0))
    along = np.linalg.norm(own, axis=1) / np.maximum(np.linalg.norm(slow, axis=1), 1e-6)
    return MOVING_ALONG_SHARE + (1 - MOVING_ALONG_SHARE) * np.clip(along, 0, 1)


def smooth_over_time(values: ndarray, sigma: float = SLOW_SIGMA_FRAMES) -> ndarray:
    """``values`` [S, n] by a Gaussian over time; rows with NaN are left out."""
    reach = min(int(np.ceil(4 * sigma)), len(values) - 1)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    known = np.isfinite(values).all(-1)
    columns = [known.astype(float), *np.where(known[:, None], values, 0).T]
    weight, *sums = (np.convolve(column, kernel)[reach : reach + len(values)] for column in columns)
    return np.stack(sums, -1) / np.maximum(weight, 1e-9)[:, None]
