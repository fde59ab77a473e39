"""The named points of a body that the draft bends by, read from a pose of any detector.

Coordinates are pixel centers (the first pixel's center is at 0, 0); NaN where a point is not known.
"""

import numpy as np
from numpy import ndarray

from ..pose import SEEN, PoseTrack

SIDES = ("right", "left")
JOINTS = {
    "neck": 1,
    **{f"right_{name}": joint for name, joint in (("shoulder", 2), ("elbow", 3), ("wrist", 4))},
    **{f"left_{name}": joint for name, joint in (("shoulder", 5), ("elbow", 6), ("wrist", 7))},
    **{f"right_{name}": joint for name, joint in (("hip", 8), ("knee", 9), ("ankle", 10))},
    **{f"left_{name}": joint for name, joint in (("hip", 11), ("knee", 12), ("ankle", 13))},
    "nose": 0,
}
# BlazePose's landmarks behind the points of the head, the hands and the feet: their mean.
LANDMARKS = {
    "nose": (0,),
    "eyes": (2, 5),
    "head": (7, 8),
    "mouth": (9, 10),
    "left_ear": (7,),
    "right_ear": (8,),
    "left_hand": (17, 19),
    "right_hand": (18, 20),
    "left_heel": (29,),
    "right_heel": (30,),
    "left_toe": (31,),
    "right_toe": (32,),
}
LANDMARK_OF_JOINT = {
    "shoulder": (12, 11),
    "elbow": (14, 13),
    "wrist": (16, 15),
    "hip": (24, 23),
    "knee": (26, 25),
    "ankle": (28, 27),
}  # right, left
# What a missing point keeps its distance to; parents first.
CARRIERS = {"hips": None, "neck": "hips"}
for _side in SIDES:
    CARRIERS |= {f"{_side}_shoulder": "neck", f"{_side}_elbow": f"{_side}_shoulder"}
    CARRIERS |= {f"{_side}_wrist": f"{_side}_elbow", f"{_side}_hand": f"{_side}_wrist"}
    CARRIERS |= {f"{_side}_hip": "hips", f"{_side}_knee": f"{_side}_hip"}
    CARRIERS |= {f"{_side}_ankle": f"{_side}_knee", f"{_side}_toe": f"{_side}_ankle"}
    CARRIERS |= {f"{_side}_heel": f"{_side}_ankle"}
CARRIERS |= {"head": "neck", "eyes": "head", "mouth": "head", "nose": "head"}
CARRIERS |= {"left_ear": "head", "right_ear": "head"}

MIDDLE_FINGER, FACE_MOUTH = 9, slice(48, 68)  # of OpenPose's hand and face
Points = dict[str, ndarray]


def body_points(track: PoseTrack, person: int, guess_above: float | None = None) -> Points:
    """The points of one person through time, by name, [T, 2] each.

    ``guess_above``: take BlazePose's guess for limbs it does not see from this visibility on, where
    it lies within the canvas: in a single picture a guess is better than nothing.
    """
    keypoints = track.keypoints[:, person]
    points = {name: _known(keypoints[:, joint]) for name, joint in JOINTS.items()}
    points |= _head(keypoints) | _extremities(track, person)
    if track.landmarks is not None:
        landmarks = track.landmarks[:, person]
        if guess_above is not None:
            _guess_limbs(points, landmarks, guess_above, (track.width, track.height))
        for name, numbers in LANDMARKS.items():
            found = np.mean([_known(landmarks[:, n], 1e-6) for n in numbers], axis=0)
            points[name] = np.where(np.isfinite(found), found, points[name])
    points["hips"] = (points["right_hip"] + points["left_hip"]) / 2
    return {name: place - 0.5 for name, place in points.items()}


def _known(points: ndarray, least: float = SEEN) -> ndarray:
    """x, y of points [T, 3 or 4], NaN below a confidence of ``least``."""
    return np.where(points[:, 2:3] >= least, points[:, :2], np.nan)


def _head(keypoints: ndarray) -> Points:
    """The points of a head out of OpenPose's five joints; from behind there are only ears."""
    nose, right_eye, left_eye, right_ear, left_ear = (
        _known(keypoints[:, joint]) for joint in (0, 14, 15, 16, 17)
    )
    eyes = _mean(right_eye, left_eye)
    ears = _mean(right_ear, left_ear)
    head = np.where(np.isfinite(ears), ears, eyes)
    return {
        "eyes": eyes,
        "head": head,
        "mouth": nose + 0.5 * (nose - eyes),
        "left_ear": left_ear,
        "right_ear": right_ear,
    }


def _mean(one: ndarray, other: ndarray) -> ndarray:
    """The mean of points [T, 2], or that of both which is known."""
    one, other = np.where(np.isfinite(one), one, other), np.where(np.isfinite(other), other, one)
    return (one + other) / 2


def _extremities(track: PoseTrack, person: int) -> Points:
    """Hands, feet and mouth out of the parts that other detectors give."""
    nothing = np.full((len(track.keypoints), 2), np.nan)
    points = dict.fromkeys([f"{s}_{n}" for s in SIDES for n in ("hand", "toe", "heel")], nothing)
    for index, side in enumerate(("left", "right")):
        if track.hands is not None:
            points[f"{side}_hand"] = _known(track.hands[:, person, index, MIDDLE_FINGER])
        if track.feet is not None:
            points[f"{side}_toe"] = _known(track.feet[:, person, 3 * index])
            points[f"{side}_heel"] = _known(track.feet[:, person, 3 * index + 2])
    if track.face is not None:
        mouth = track.face[:, person, FACE_MOUTH]
        seen = (mouth[..., 2] >= SEEN).all(axis=1)[:, None]
        if seen.any():
            points["mouth"] = np.where(seen, mouth[..., :2].mean(axis=1), nothing)
    return points


def _guess_limbs(
    points: Points, landmarks: ndarray, guess_above: float, canvas: tuple[int, int]
) -> None:
    """Put BlazePose's guesses [T, 33, 4] where ``points`` lack a joint."""
    for name, numbers in LANDMARK_OF_JOINT.items():
        for side, number in zip(SIDES, numbers):
            guess = _known(landmarks[:, number], guess_above)
            inside = ((guess >= 0) & (guess < canvas)).all(axis=1, keepdims=True)
            missing = ~np.isfinite(points[f"{side}_{name}"]) & inside
            points[f"{side}_{name}"] = np.where(missing, guess, points[f"{side}_{name}"])


def fill_missing(points: Points) -> Points:
    """``points`` [T, 2] of one unbroken run of frames without gaps: a missing point keeps its
    offset from its carrier, or moves evenly from where it was last to where it is next. Points
    that are never known stay NaN."""
    carriers = dict(CARRIERS)
    known = {name: np.isfinite(points[name]).all(axis=1) for name in carriers}
    if known["neck"].sum() > known["hips"].sum():
        carriers = {"neck": None, "hips": "neck"} | {
            name: carrier for name, carrier in carriers.items() if name not in ("neck", "hips")
        }
    out = {}
    for name, carrier in carriers.items():
        at = np.zeros_like(points[name]) if carrier is None else out[carrier]
        offset = points[name] - at
        frames = np.flatnonzero(np.isfinite(offset).all(axis=1))
        out[name] = np.full_like(offset, np.nan)
        if len(frames):
            every = np.arange(len(offset))
            held = [np.interp(every, frames, offset[frames, axis]) for axis in (0, 1)]
            out[name] = np.stack(held, axis=1) + at
    return out
