"""Cameras that an artist chooses where the pose cannot tell: steps of the background."""

import numpy as np
from numpy import ndarray

from ..pose import PoseTrack
from .body import unit_of
from .depth_share import smooth_over_time
from .estimate import Estimate
from .gates import Verdict
from .walking import ground_of_walk, walking_speed

# Of the cadence's speed: slower ground under the feet is that of somebody who steps on the spot.
MIN_GROUND_BY_CADENCE = 0.25


def follow_person(
    estimate: Estimate, track: PoseTrack, direction: str | None, depth: float | None
) -> tuple[ndarray, str]:
    """A camera that goes along with the person: steps [T-1, 4] px, and what they are read from.

    The ground goes by as the planted feet tell, else as cadence and stature do. ``depth``: the
    share of it that the background has; None: all, so that no foot slips.
    """
    ground, source = _ground(estimate, track, direction)
    steps = np.zeros((len(ground), 4))
    steps[:, :3] = ground * (1.0 if depth is None else depth)
    return steps, source


def turn_with_person(estimate: Estimate, track: PoseTrack, direction: str | None) -> tuple[ndarray, str]:
    """A camera that turns on its place to keep the person in view: the same without scale.

    A turn moves all depths alike, and nothing comes nearer.
    """
    ground, source = _ground(estimate, track, direction)
    steps = np.zeros((len(ground), 4))
    steps[:, :2] = ground[:, :2]
    return steps, source


def _ground(estimate: Estimate, track: PoseTrack, direction: str | None) -> tuple[ndarray, str]:
    """[T-1, 3] dx, dy px and log scale of the ground; "feet", "cadence" or "" (nobody walks)."""
    unit = unit_of(track)
    cadence = ground_of_walk(estimate.person, direction)
    speed = walking_speed(estimate.person)
    feet = np.zeros_like(cadence)
    feet[:, :2] = estimate.ground * unit
    pace = np.median(np.linalg.norm(smooth_over_time(feet[:, :2]), axis=1))
    scale = np.array([1 / unit, 1 / unit, 1])
    walks_away = np.abs(cadence[:, 2]).mean() > 0  # what feet tell of that is no shift
    slow = pace < MIN_GROUND_BY_CADENCE * speed
    if estimate.verdict is not Verdict.NO_FEET and not slow and pace > 0:
        return feet * scale, "feet"
    if speed and (walks_away or np.abs(cadence[:, :2]).max() > 0):
        return cadence * scale, "cadence"
    return np.zeros_like(cadence), ""
