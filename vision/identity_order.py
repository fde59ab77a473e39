"""Poses of detectors that do not track: their people come in another order in every frame."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from .pose import PoseTrack
from .tracking import assign, body_size

REORDER_COST = 0.5  # body sizes that another order must save before it is believed
UNSEEN_COST = 1.0  # body sizes: between two poses that have no joint in common


class Ordered(NamedTuple):
    """A track whose people keep their place in the list, and in which frames [T] bool they had to be moved."""

    track: PoseTrack
    moved: np.ndarray


def order_people(track: PoseTrack) -> Ordered:
    """Give everybody in ``track`` the number of whoever stood there in the frame before.

    The order of the list is kept unless another one saves clearly: people who cross keep the numbers that a tracking
    detector gave them.
    """
    frames, crowd = track.keypoints.shape[:2]
    order = np.tile(np.arange(crowd), (frames, 1))
    if crowd > 1:
        last = [None] * crowd  # joints [18, 3] of everybody when last seen
        for index in range(frames):
            present = track.keypoints[index]
            order[index] = _best_order(last, present, track.seen[index])
            for number, source in enumerate(order[index]):
                if track.seen[index, source].any():
                    last[number] = present[source]
    moved = (order != np.arange(crowd)).any(axis=1)
    if not moved.any():
        return Ordered(track, moved)
    rows = np.arange(frames)[:, None]
    return Ordered(replace(track, **{field: array[rows, order] for field, array in track.arrays.items()}), moved)


def _best_order(last: list[np.ndarray | None], present: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Which of the people in ``present`` [P, 18, 3] each number is, [P]."""
    crowd = len(present)
    costs = np.zeros((crowd, crowd))
    for number, before in enumerate(last):
        for source in range(crowd):
            costs[number, source] = _distance(before, present[source], seen[source])
    in_order = np.diagonal(costs).sum()
    pairs = dict(assign(costs))
    saved = in_order - sum(costs[pair] for pair in pairs.items())
    return np.array([pairs[number] for number in range(crowd)]) if saved > REORDER_COST else np.arange(crowd)


def _distance(before: np.ndarray | None, joints: np.ndarray, seen: np.ndarray) -> float:
    """Median distance of the joints that both poses have, in body sizes; 0 where one of them is not there."""
    if before is None or not seen.any():
        return 0.0
    common = seen & (before[:, 2] > 0)
    if not common.any():
        return UNSEEN_COST
    distances = np.linalg.norm((before - joints)[common, :2], axis=1)
    return float(np.median(distances)) / body_size(before)
