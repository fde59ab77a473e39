"""Where to point in a video so that a network that follows things finds the people of a pose, and what they hold."""

from typing import NamedTuple

import numpy as np

from .pose import SEEN, PoseTrack

NOSE, NECK = 0, 1
HIPS, SHOULDERS = (8, 11), (2, 5)
ON_BODY = (0, 1, 3, 6, 8, 11, 9, 12)  # joints well inside the outline; wrists and ankles may lie beside it
ARMS = ((3, 4), (6, 7))  # elbow, wrist
FEWEST = 3  # joints that a person must show in a frame to be pointed at there
LOOKS = 3  # frames that are pointed at, spread over the video
HAND = 0.35  # of the forearm: how far beyond the wrist the hand's middle is,
HELD = 0.75  # and what it holds
MOST = 0.5  # of the person's area: what is larger is no thing in a hand
OWN = 0.6  # of a thing's area on the person: then it is the hand itself, or a sleeve


class Pointing(NamedTuple):
    """In ``frame``: ``points`` [N, 2] px, each on the thing or (``inside`` [N] False) beside it."""

    frame: int
    points: np.ndarray
    inside: np.ndarray


def people(pose: PoseTrack) -> list[list[Pointing]]:
    """For each person of ``pose``: where to point, in the frames that show most of it."""
    return [pointed for person in range(pose.keypoints.shape[1]) if (pointed := _person(pose, person))]


def _person(pose: PoseTrack, person: int) -> list[Pointing]:
    joints = pose.keypoints[:, person, :18]
    count = (joints[:, :, 2] >= SEEN)[:, ON_BODY].sum(axis=1)
    pointed = []
    for frame in _best(count, FEWEST):
        own = _on_body(joints[frame])
        others = [pose.keypoints[frame, other, :18] for other in range(pose.keypoints.shape[1]) if other != person]
        beside = [_on_body(other) for other in others]
        beside = np.concatenate([np.zeros((0, 2)), *beside])
        inside = np.arange(len(own) + len(beside)) < len(own)
        pointed.append(Pointing(frame, np.concatenate([own, beside]), inside))
    return pointed


def held(pose: PoseTrack) -> list[list[Pointing]]:
    """For each hand of each person of ``pose``: where to point at what it may hold: beyond the hand, along the forearm,
    and not at the arm and the body. Which of these are things, is_held() says, when their masks are known."""
    things = []
    for person in range(pose.keypoints.shape[1]):
        joints = pose.keypoints[:, person, :18]
        for elbow, wrist in ARMS:
            arm = joints[:, [elbow, wrist]]
            seen = (arm[:, :, 2] >= SEEN).all(axis=1)
            length = np.linalg.norm(arm[:, 1, :2] - arm[:, 0, :2], axis=1) * seen
            pointed = [_beyond(frame, joints[frame], elbow, wrist, pose) for frame in _best(length, 1)]
            if pointed := [point for point in pointed if point is not None]:
                things.append(pointed)
    return things


def _beyond(frame: int, joints: np.ndarray, elbow: int, wrist: int, pose: PoseTrack) -> Pointing | None:
    """None where the thing would be out of the picture."""
    along = joints[wrist, :2] - joints[elbow, :2]
    thing = joints[wrist, :2] + HELD * along
    if not ((thing >= 0) & (thing < [pose.width, pose.height])).all():
        return None
    body = np.concatenate([_on_body(joints), joints[wrist, :2][None]])
    points = np.concatenate([thing[None], joints[wrist, :2][None] + HAND * along, body])
    return Pointing(frame, points, np.arange(len(points)) < 2)


def is_held(area: np.ndarray, own: np.ndarray, person: np.ndarray) -> bool:
    """Whether a thing of ``area`` [T] px, of which ``own`` [T] lie on the person, can be something that a person of
    ``person`` [T] px holds: neither mostly the person itself, nor as large as what is behind it, and there in one frame
    in four at least."""
    there = area > 0
    if there.mean() < 0.25:
        return False
    return bool(own.sum() < OWN * area.sum() and np.median(area[there] / np.maximum(person[there], 1)) < MOST)


def _on_body(joints: np.ndarray) -> np.ndarray:
    """Points [N, 2] px inside the outline of a body with ``joints`` [18, 3]: joints, and the middle of the trunk."""
    seen = joints[:, 2] >= SEEN
    points = [joints[j, :2] for j in ON_BODY if seen[j]]
    trunk = [j for j in (*HIPS, *SHOULDERS) if seen[j]]
    if len(trunk) == 4:
        points.append(joints[trunk, :2].mean(axis=0))
    return np.array(points).reshape(-1, 2)


def _best(worth: np.ndarray, least: float) -> list[int]:
    """The frame worth most, of ``worth`` [T], in each of LOOKS parts of the video; none below ``least``."""
    parts = np.array_split(np.arange(len(worth)), min(LOOKS, len(worth)))
    best = [int(part[worth[part].argmax()]) for part in parts]
    return [frame for frame in best if worth[frame] >= least]
