"""Frames before the driver's first one, in which the character goes there from its own pose."""

from dataclasses import replace

import numpy as np
from numpy import ndarray

from ..landmarks import LANDMARK_CARRIERS
from ..pose import PoseTrack
from ..skeleton import HIPS, PARENTS
from .vectors import smoothstep, wrap_angle

FEET, TRUNK = (10, 13), (8, 11)  # OpenPose's ankles and hips


def add_lead_in(track: PoseTrack, own: PoseTrack, scale: float, count: int) -> PoseTrack:
    """``track`` with ``count`` frames before it, the first in the pose of ``own`` [1 frame],
    ``scale`` times as large and with its feet (else its hips) where the first frame has them.

    Both are of one person. Limbs turn on their joints; a joint that either does not show appears
    where the track begins. Nobody in the first frame: the track itself.
    """
    if count == 0 or not track.present[0]:
        return track
    first = {field: array[0, 0] for field, array in track.arrays.items()}
    start = _placed(own.keypoints[0, 0], first["keypoints"], scale)
    both = (start[:, 2] > 0) & (first["keypoints"][:, 2] > 0)
    marks = None
    if own.landmarks is not None and "landmarks" in first:
        marks = own.landmarks[0, 0] * [scale, scale, 1.0, scale]
        marks[:, :2] += start[1, :2] - scale * own.keypoints[0, 0, 1, :2]
    frames = {field: [] for field in first}
    for share in smoothstep(np.arange(count) / count, 0.0, 1.0):
        body = _between(start, first["keypoints"], both, float(share))
        for field, array in first.items():
            frames[field].append(body if field == "keypoints" else np.zeros_like(array))
        if marks is not None:
            frames["landmarks"][-1] = _carried(
                (start, marks), (first["keypoints"], first["landmarks"]), body, float(share)
            )
    arrays = {
        field: np.concatenate([np.stack(frames[field])[:, None], array])
        for field, array in track.arrays.items()
    }
    return replace(track, **arrays)


def _placed(own: ndarray, first: ndarray, scale: float) -> ndarray:
    """``own`` [18, 3] as large as ``first`` [18, 3], on its ground."""
    own = own * [scale, scale, 1.0]
    for joints in (FEET, TRUNK, range(18)):
        both = [j for j in joints if own[j, 2] > 0 and first[j, 2] > 0]
        if both:
            shift = (first[both, :2] - own[both, :2]).mean(axis=0)
            return np.where(own[:, 2:] > 0, own + np.append(shift, 0.0), own)
    return own


def _between(start: ndarray, end: ndarray, both: ndarray, share: float) -> ndarray:
    """The body [18, 3] ``share`` of the way from ``start`` to ``end``: each bone's angle and length
    on the way between them."""
    tracks = [np.vstack([b, (b[8] + b[11]) / 2]) for b in (start, end)]
    known = np.append(both, both[8] and both[11])
    out = np.zeros((19, 2))
    for joint, parent in PARENTS.items():
        while parent is not None and not known[parent]:
            parent = PARENTS[parent]
        if not known[joint]:
            continue
        old, new = (b[joint, :2] - (0 if parent is None else b[parent, :2]) for b in tracks)
        if parent is None:
            out[joint] = old + share * (new - old)
        else:
            out[joint] = out[parent] + _polar(old, new, share)
    confidence = np.where(both, end[:, 2], 0.0)
    return np.column_stack([out[:HIPS] * both[:, None], confidence])


def _polar(old: ndarray, new: ndarray, share: float) -> ndarray:
    lengths = np.hypot(*old), np.hypot(*new)
    angles = np.arctan2(old[1], old[0]), np.arctan2(new[1], new[0])
    angle = angles[0] + share * wrap_angle(angles[1] - angles[0])
    return (lengths[0] + share * (lengths[1] - lengths[0])) * np.array(
        [np.cos(angle), np.sin(angle)]
    )


def _carried(
    start: tuple[ndarray, ndarray], end: tuple[ndarray, ndarray], body: ndarray, share: float
) -> ndarray:
    """BlazePose's landmarks [33, 4] on the way, each at its offset from the joint it hangs on."""
    out = start[1] + share * (end[1] - start[1])
    for landmark, joint in LANDMARK_CARRIERS.items():
        if body[joint, 2] > 0:
            old, new = (marks[landmark, :2] - joints[joint, :2] for joints, marks in (start, end))
            out[landmark, :2] = body[joint, :2] + old + share * (new - old)
    out[:, 2] = np.minimum(start[1][:, 2], end[1][:, 2])
    return out
