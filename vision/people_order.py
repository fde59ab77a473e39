"""Links people by place in poses whose detector lists them in another order from frame to frame."""

from dataclasses import replace

import numpy as np

from .pose import PoseTrack
from .tracking import NEAR, SAME_BODY, STEP_SLACK, Identities, Sighting, assign, body_size, similarity

INDICES_PER_PERSON = 3  # of the fullest frame: whoever is lost and comes back elsewhere gets a new index


def link_people(track: PoseTrack) -> tuple[PoseTrack, np.ndarray]:
    """``track`` with one index for each person, who is seen longest first, and the frames [T] bool in which
    people change places in its list; ``track`` itself where none is.

    A track that keeps its people in order is left alone: its maker knew more than where they stand.
    """
    changed = np.array([False, *(_change_places(*pair) for pair in zip(track.keypoints, track.keypoints[1:]))])
    if not changed.any():
        return track, changed
    identities, places = Identities(INDICES_PER_PERSON * track.keypoints.shape[1]), []
    for index, (people, seen) in enumerate(zip(track.keypoints, track.seen.any(axis=2))):
        # Of newcomers, the first in the list comes first.
        sightings = [Sighting(people[row], None, -row, row) for row in np.flatnonzero(seen)]
        places += [(index, number, sighting.source) for number, sighting in identities.meet(index, sightings)]
    frame, number, row = np.array(places).T
    there = np.zeros((len(changed), number.max() + 1), bool)
    there[frame, number] = True
    order = np.argsort(identities.order(there))  # number -> index
    arrays = {}
    for field, array in track.arrays.items():
        arrays[field] = np.zeros((len(array), len(order), *array.shape[2:]))
        arrays[field][frame, order[number]] = array[frame, row]
    return replace(track, **arrays), changed


def _change_places(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether somebody of ``before`` [P, 18, 3] has another index in the next frame, ``after``, for certain: stands
    there as a person at another index did, and not as the one at the same index."""
    if len(before) < 2:
        return False
    alike = np.array([[_alike(one, other) for other in after] for one in before])  # [P, P]
    own = np.diagonal(alike)
    return any(
        one != other and alike[one, other] > SAME_BODY and max(own[one], own[other]) < NEAR
        for one, other in assign(1 - alike)
    )


def _alike(one: np.ndarray, other: np.ndarray) -> float:
    return similarity(one, other, body_size(one) * STEP_SLACK)
