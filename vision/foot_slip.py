"""Foot slip: how a planted foot moves against the background under it."""

import numpy as np
from numpy import ndarray

from .camera_path import CameraPath


def foot_slip(feet: ndarray, planted: ndarray, path: CameraPath, stature: float) -> float:
    """Mean slip of planted feet in % of body height a frame; NaN where none is planted.

    feet: [T, N, 2] px of the path's frame, NaN where missing. planted: [T-1, N] bool, from frame
    t to t+1. stature: body height in px. A stance, a run of planted frames of one foot, counts by
    its length; its slip is how far the foot gets from the background between its first and last
    frame, so that a detector's jitter does not add up.
    """
    total, frames = 0.0, 0
    for foot in range(feet.shape[1]):
        known = np.isfinite(feet[:, foot]).all(1)
        stands = planted[:, foot] & known[1:] & known[:-1]
        for start, end in runs(stands):
            carried = path.homographies[end] @ np.linalg.inv(path.homographies[start])
            place = carried @ np.append(feet[start, foot], 1.0)
            total += float(np.linalg.norm(feet[end, foot] - place[:2] / place[2]))
            frames += end - start
    return 100 * total / (frames * stature) if frames and stature > 0 else float("nan")


def runs(flags: ndarray) -> list[tuple[int, int]]:
    """(start, end) of each run of True in ``flags`` [S]; ``end`` is past the last."""
    edges = np.flatnonzero(np.diff(flags.astype(int), prepend=0, append=0)).reshape(-1, 2)
    return [(int(start), int(end)) for start, end in edges]
