"""Which feet count: detectors invent them at the frame's edge and when they lose the person."""

import numpy as np
from numpy import ndarray

from .body import Person, median_step

BOTTOM_MARGIN = 0.05  # of the frame's height: ankles so near the lower edge are invented
SIDE_MARGIN = 0.015  # of the frame's width
MAX_STEP_BY_SIZE = 0.2  # a whole skeleton that moves so far in a frame is another person
FEET_MEMORY_FRAMES = 6.0  # without feet, after which a motion has faded to a third
FEET_MEMORY_DELAY = 2  # frames before it begins to fade


def visible_feet(person: Person) -> ndarray:
    """[T, 2] bool: right and left ankle are measured and away from the frame's edge."""
    ankle = person.contacts[:, :, 0] / person.frame
    with np.errstate(invalid="ignore"):
        inside = (ankle[..., 0] > SIDE_MARGIN) & (ankle[..., 0] < 1 - SIDE_MARGIN)
        return inside & (ankle[..., 1] < 1 - BOTTOM_MARGIN)


def known_looks(person: Person, feet: ndarray, lag: int) -> ndarray:
    """[T-lag, 2] bool: a foot is in ``feet`` [T, 2] in both frames, with no leap in between."""
    leaps = ~(median_step(person) < MAX_STEP_BY_SIZE * person.size)  # NaN counts as a leap
    leap = np.lib.stride_tricks.sliding_window_view(leaps, lag).any(1)
    return feet[lag:] & feet[:-lag] & ~leap[:, None]


def fade_without_feet(known: ndarray) -> ndarray:
    """[S] 1 where a step is ``known`` [S] bool, less the farther away the nearest such step is."""
    at = np.flatnonzero(known)
    if not len(at):
        return np.zeros(len(known))
    steps = np.arange(len(known))
    after = np.searchsorted(at, steps).clip(0, len(at) - 1)
    away = np.minimum(np.abs(steps - at[after]), np.abs(steps - at[np.maximum(after - 1, 0)]))
    return np.exp(-np.maximum(away - FEET_MEMORY_DELAY, 0) / FEET_MEMORY_FRAMES)
