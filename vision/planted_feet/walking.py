"""Walking without feet to tell it: how fast and which way, from cadence, stature and the face."""

import numpy as np
from numpy import ndarray

from ..skeleton import LEFT_WRIST, RIGHT_WRIST
from .body import ANKLES, FRAME_PX, KNEES, NECK, NOSE, Person, growth_rate
from .depth_share import smooth_over_time

WRISTS, SHOULDERS = [RIGHT_WRIST, LEFT_WRIST], [2, 5]
STEP_BY_STATURE = 0.41  # of a walking adult
MIN_STRIDE_FRAMES, MAX_STRIDE_FRAMES = 8, 90
MIN_STRIDES = 2  # that the clip must show
MIN_PERIODICITY = 0.5  # autocorrelation after a stride
MIN_SWING_BY_SIZE = 0.015  # root mean square of what the pair does against each other
MIN_SEEN_SHARE = 0.6  # of the frames, of a joint
PROFILE_BY_STATURE = 0.07  # nose before neck, of somebody seen from the side
MAX_TRAVEL_ON_THE_SPOT = 0.35  # of the speed that the cadence tells
DIRECTIONS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "nearer": (0.0, 1.0), "away": (0.0, -1.0)}


def stride_frames(person: Person) -> float | None:
    """Frames of a stride, two steps, from the ankles' swing in turns, else the knees'; or None.

    Wrists, which do other things as well, are asked only where no legs are in view.
    """
    for pair in (ANKLES, KNEES, WRISTS):
        seen = _seen(person, pair)
        if seen.mean() >= MIN_SEEN_SHARE:
            swing = person.joints[:, pair[0]] - person.joints[:, pair[1]]
            return _first_period(_interpolate(swing, seen) / person.size)
    return None


def walking_speed(person: Person) -> float:
    """Body's way over the ground in a frame, in this room's px at the person; 0 without a gait."""
    stride = stride_frames(person)
    if stride is None or not np.isfinite(person.stature):
        return 0.0
    return 2 * STEP_BY_STATURE * person.stature / stride


def heading(person: Person, direction: str | None = None) -> ndarray:
    """[2] where the person walks to: right in the picture, and nearer to the camera; length 1.

    direction: one of DIRECTIONS; None reads it from the body: a nose before the neck is a profile,
    and a right shoulder on the right is a back.
    """
    if direction is not None:
        return np.array(DIRECTIONS[direction])
    noses, shoulders = _seen(person, [NOSE, NECK]), _seen(person, SHOULDERS)
    right, faces = 0.0, True
    if noses.any():
        ahead = np.median(person.joints[noses, NOSE, 0] - person.joints[noses, NECK, 0])
        right = float(np.clip(ahead / (PROFILE_BY_STATURE * person.stature), -1, 1))
    if shoulders.any():
        apart = person.joints[shoulders, SHOULDERS[1], 0] - person.joints[shoulders, SHOULDERS[0], 0]
        faces = bool(np.median(apart) > 0)
    nearer = np.sqrt(1 - right**2)
    return np.array([right, nearer if faces else -nearer])


def ground_of_walk(person: Person, direction: str | None = None) -> ndarray:
    """[T-1, 3] dx, dy px and log scale of the ground under somebody who walks, from the cadence.

    The ground goes by as fast as the person walks, less what the person gets on in the picture: 0
    before a camera that stands, all of it on a treadmill. All zero without a gait.
    """
    ground = np.zeros((len(person.joints) - 1, 3))
    speed = walking_speed(person)
    if not speed:
        return ground
    right, nearer = heading(person, direction)
    if abs(right) > 0:
        own = smooth_over_time(np.diff(person.hips, axis=0))[:, 0]
        ground[:, 0] = own - right * speed
    if abs(nearer) > 0:  # a camera as far away as the frame is wide sees so much of a step
        ground[:, 2] = growth_rate(person) - nearer * speed / FRAME_PX
    return ground


def walks_on_the_spot(person: Person) -> bool:
    """Whether somebody walks and neither gets on in the picture nor grows or shrinks."""
    speed = walking_speed(person)
    if not speed:
        return False
    hips = smooth_over_time(np.diff(person.hips, axis=0))
    travel = np.linalg.norm(hips.mean(0)) + abs(growth_rate(person).mean()) * FRAME_PX
    return bool(travel < MAX_TRAVEL_ON_THE_SPOT * speed)


def _seen(person: Person, joints: list[int]) -> ndarray:
    """[T] bool: frames with all of these joints."""
    return person.measured[:, joints].all(1)


def _interpolate(values: ndarray, known: ndarray) -> ndarray:
    """``values`` [T, n] with gaps between ``known`` [T] frames filled linearly."""
    time = np.arange(len(values))
    return np.stack([np.interp(time, time[known], column[known]) for column in values.T], 1)


def _first_period(swing: ndarray) -> float | None:
    """Lag of the first peak of the autocorrelation of ``swing`` [T, 2] past its first zero."""
    count = len(swing)
    longest = min(MAX_STRIDE_FRAMES, int(count / MIN_STRIDES))
    line = np.polynomial.polynomial.polyfit(np.arange(count), swing, 1)
    swing = swing - np.polynomial.polynomial.polyval(np.arange(count), line).T
    if longest <= MIN_STRIDE_FRAMES or np.sqrt((swing**2).sum(1).mean()) < MIN_SWING_BY_SIZE:
        return None
    power = (swing**2).sum(1)
    alike = np.ones(longest + 1)
    for lag in range(1, longest + 1):
        energy = np.sqrt(power[lag:].sum() * power[:-lag].sum())
        alike[lag] = (swing[lag:] * swing[:-lag]).sum() / max(energy, 1e-12)
    below = np.flatnonzero(alike < 0)
    if not len(below):
        return None
    lags = np.arange(max(below[0], MIN_STRIDE_FRAMES), longest)
    lags = lags[(alike[lags] >= alike[lags - 1]) & (alike[lags] >= alike[lags + 1])]
    lags = lags[alike[lags] >= MIN_PERIODICITY]
    return float(lags[0]) if len(lags) else None
