"""One person of a pose track in the unit of this room: the frame's longer side is 640 px."""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from ..pose import SEEN, PoseTrack
from ..skeleton import LEGS, NECK
from .untangling import untangle_legs

FRAME_PX = 640.0  # longer side of the frame in this room's unit
HIPS, KNEES, ANKLES = ([leg[part] for leg in LEGS] for part in range(3))  # right, left
# Heels and big toes in PoseTrack.feet, right before left as in LEGS; the track has left first.
TOES, HEELS = [3, 0], [5, 2]
MIN_JOINTS_FOR_SIZE = 6
MIN_FRAMES_FOR_GROWTH = 6
GROWTH_SIGMA_FRAMES = 20.0
TRUNK_OUTLIER_LOG = 0.03  # residual of the log trunk length at which a frame counts half
TRUNK_BY_STATURE = 0.30  # neck to hips, of a standing adult's height
ANKLE_TO_NOSE_BY_STATURE = 0.88
NOSE = 0


@dataclass(frozen=True, eq=False)
class Person:
    """T frames of one person; lengths are px of a frame whose longer side is 640.

    ``joints`` [T, 18, 2] and ``measured`` [T, 18] bool: seen, and not filled in.
    ``contacts`` [T, 2, 3, 2]: ankle, toe and heel of the right and the left foot; NaN where missing.
    ``size``: the diagonal of the joints' box, median over time; NaN without a frame that shows it.
    ``frame`` [2]: width and height.
    """

    joints: ndarray
    measured: ndarray
    contacts: ndarray
    size: float
    frame: ndarray

    @property
    def hips(self) -> ndarray:
        """[T, 2] the point between the hips; NaN where one is missing."""
        seen = self.measured[:, HIPS].all(1)
        return np.where(seen[:, None], self.joints[:, HIPS].mean(1), np.nan)

    @property
    def trunk(self) -> ndarray:
        """[T] length from neck to hips; NaN where missing."""
        length = np.linalg.norm(self.joints[:, NECK] - self.hips, axis=-1)
        return np.where(self.measured[:, NECK], length, np.nan)

    @property
    def stature(self) -> float:
        """Standing height, from the trunk and, where they are seen, nose and ankles."""
        told = [self.trunk / TRUNK_BY_STATURE]
        for ankle in ANKLES:
            whole = self.measured[:, [NOSE, ankle]].all(1)
            span = np.linalg.norm(self.joints[:, NOSE] - self.joints[:, ankle], axis=-1)
            told.append(np.where(whole, span / ANKLE_TO_NOSE_BY_STATURE, np.nan))
        known = [np.nanmedian(values) for values in told if np.isfinite(values).any()]
        return float(max(known, default=np.nan))


def unit_of(track: PoseTrack) -> float:
    """This room's px per px of the track."""
    return FRAME_PX / max(track.width, track.height)


def describe_person(track: PoseTrack, number: int) -> Person:
    """The person ``number`` of ``track``, legs untangled."""
    feet = None if track.feet is None else track.feet[:, number]
    keypoints, feet = untangle_legs(track.measured.keypoints[:, number], feet)
    unit = unit_of(track)
    measured = keypoints[..., 2] >= SEEN
    joints = keypoints[..., :2] * unit
    contacts = np.full((len(joints), 2, 3, 2), np.nan)
    contacts[:, :, 0] = np.where(measured[:, ANKLES, None], joints[:, ANKLES], np.nan)
    if feet is not None:
        for place, points in ((1, feet[:, TOES]), (2, feet[:, HEELS])):
            seen = points[..., 2:] >= SEEN
            contacts[:, :, place] = np.where(seen, points[..., :2] * unit, np.nan)
    frame = np.array([track.width, track.height]) * unit
    return Person(joints, measured, contacts, body_size(joints, measured), frame)


def body_size(joints: ndarray, measured: ndarray) -> float:
    """Diagonal of the box around joints [T, 18, 2] where ``measured`` [T, 18], median over time."""
    enough = measured.sum(1) >= MIN_JOINTS_FOR_SIZE
    if not enough.any():
        return np.nan
    known = np.where(measured[..., None], joints, np.nan)[enough]
    return float(np.median(np.linalg.norm(np.nanmax(known, 1) - np.nanmin(known, 1), axis=-1)))


def growth_rate(person: Person) -> ndarray:
    """[T-1] how the trunk grows from frame to frame (natural logarithm).

    A robust line is fitted around each frame: weights of a Gaussian over time, times those of
    Cauchy's loss, in three rounds.
    """
    trunk = person.trunk
    good = np.isfinite(trunk)
    count = len(trunk)
    if good.sum() < MIN_FRAMES_FOR_GROWTH:
        return np.zeros(count - 1)
    level = np.where(good, np.log(np.maximum(np.nan_to_num(trunk), 1e-3)), 0)
    rate = np.array([_slope(np.arange(count) - frame, level, good) for frame in range(count)])
    return (rate[1:] + rate[:-1]) / 2


def _slope(time: ndarray, level: ndarray, good: ndarray) -> float:
    """Of the line through ``level`` [T] around time 0."""
    near = np.abs(time) < 5 * GROWTH_SIGMA_FRAMES
    time, level, good = time[near], level[near], good[near]
    base = np.exp(-0.5 * (time / GROWTH_SIGMA_FRAMES) ** 2) * good
    weight, slope = base, 0.0
    for _ in range(3):
        m0, m1, m2 = weight.sum(), weight @ time, weight @ time**2
        determinant = m0 * m2 - m1**2
        if determinant < 1e-6:
            break
        b0, b1 = weight @ level, weight @ (level * time)
        start, slope = (m2 * b0 - m1 * b1) / determinant, (m0 * b1 - m1 * b0) / determinant
        weight = base / (1 + ((level - start - slope * time) / TRUNK_OUTLIER_LOG) ** 2)
    return float(slope)


def leg_straightness(person: Person) -> float:
    """Lower quartile of hip to ankle by thigh plus shank: 1 is a straight leg, 0 without legs."""
    told = []
    for leg in zip(HIPS, KNEES, ANKLES):
        hip, knee, ankle = person.joints[person.measured[:, leg].all(1)][:, leg].swapaxes(0, 1)
        whole = np.linalg.norm(hip - knee, axis=1) + np.linalg.norm(knee - ankle, axis=1)
        told.append(np.linalg.norm(hip - ankle, axis=1) / np.maximum(whole, 1e-3))
    told = np.concatenate(told)
    return float(np.percentile(told, 25)) if len(told) else 0.0


def median_step(person: Person) -> ndarray:
    """[T-1] median over the joints of how far they move; NaN where no joint is in both frames."""
    both = person.measured[1:] & person.measured[:-1]
    step = np.linalg.norm(np.diff(person.joints, axis=0), axis=-1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # frames without joints
        return np.nanmedian(np.where(both, step, np.nan), axis=1)
