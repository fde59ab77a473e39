"""Legs that the detector exchanged for some frames are exchanged back."""

import numpy as np
from numpy import ndarray

from ..pose import SEEN
from ..skeleton import LEGS

EXCHANGE_COST_BY_SIZE = 0.02  # body sizes of bend in the ankles' paths that an exchange must save
ANKLES = [leg[2] for leg in LEGS]
KNEES = [leg[1] for leg in LEGS]
OTHER_FOOT = [3, 4, 5, 0, 1, 2]  # of PoseTrack.feet
MIN_FRAMES = 4


def untangle_legs(keypoints: ndarray, feet: ndarray | None) -> tuple[ndarray, ndarray | None]:
    """Exchange knees, ankles and feet back where the detector took one leg for the other.

    keypoints: [T, 18, 3] px of one person, zeros where missing; feet: [T, 6, 3] or None.
    Returns both, with the names along which the ankles change their velocity least.
    """
    frames = np.flatnonzero((keypoints[:, ANKLES, 2] >= SEEN).all(1))
    if len(frames) < MIN_FRAMES:
        return keypoints, feet
    exchanged = frames[_exchanged(keypoints[frames][:, ANKLES, :2], _size(keypoints))]
    keypoints = keypoints.copy()
    keypoints[np.ix_(exchanged, KNEES + ANKLES)] = keypoints[np.ix_(exchanged, KNEES[::-1] + ANKLES[::-1])]
    if feet is not None:
        feet = feet.copy()
        feet[exchanged] = feet[exchanged][:, OTHER_FOOT]
    return keypoints, feet


def _size(keypoints: ndarray) -> float:
    """Diagonal of the box around the joints, median over time."""
    known = np.where(keypoints[..., 2:] >= SEEN, keypoints[..., :2], np.nan)
    known = known[np.isfinite(known[..., 0]).any(1)]
    spans = np.nanmax(known, axis=1) - np.nanmin(known, axis=1)
    return float(np.median(np.linalg.norm(spans, axis=-1)))


def _exchanged(ankles: ndarray, size: float) -> ndarray:
    """[N] bool: frames whose two ``ankles`` [N, 2, 2] bear each other's name.

    Viterbi over the names in (last, this) frame; the cost of a frame is how much the ankles bend
    from their last velocity, plus that of an exchange. Most frames are taken to be named right.
    """
    named = np.stack([ankles, ankles[:, ::-1]], axis=1)  # [N, names, 2, 2]
    exchange = EXCHANGE_COST_BY_SIZE * size * (1 - np.eye(2))
    # [N-2, names before last, names of last, names of this frame]
    bend = named[2:, None, None] - 2 * named[1:-1, None, :, None] + named[:-2, :, None, None]
    costs = np.linalg.norm(bend, axis=-1).sum(-1) + exchange
    total, choices = np.zeros((2, 2)), []
    for cost in costs:
        through = total[:, :, None] + cost
        choices.append(through.argmin(0))
        total = through.min(0)
    last, this = np.unravel_index(total.argmin(), total.shape)
    names = [this, last]
    for choice in choices[::-1]:
        names.append(choice[names[-1], names[-2]])
    found = np.array(names[::-1], bool)
    return ~found if found.mean() > 0.5 else found
