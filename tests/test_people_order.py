"""People whose detector lists them in another order from frame to frame are linked by where they stand."""

import random

import actors
import numpy as np
import pytest
from animate_anywhere.nodes.motion import PoseToTracks
from animate_anywhere.nodes.retarget import RetargetPose
from animate_anywhere.vision.people_order import link_people
from animate_anywhere.vision.pose import PoseTrack
from people import body, track_of

FRAMES = 12


def two_people(apart=400.0):
    """[T, 2, 18, 3]: one stands, the other walks beside."""
    steps = 4 * np.arange(FRAMES)
    return np.stack([np.stack([body(x=200), body(x=200 + apart + step)]) for step in steps])


def shuffled(people, seed=3):
    rng = random.Random(seed)
    orders = [[0, 1], *(rng.sample([0, 1], 2) for _ in people[1:])]
    return np.stack([frame[order] for frame, order in zip(people, orders)]), np.array(orders)


def test_people_keep_one_index_each():
    mixed, orders = shuffled(two_people())
    linked, changed = link_people(track_of(mixed))
    assert np.array_equal(linked.keypoints, two_people())
    assert np.array_equal(changed[1:], orders[1:, 0] != orders[:-1, 0])


def test_hands_go_with_their_person():
    mixed, orders = shuffled(two_people())
    hands = np.ones((FRAMES, 2, 2, 21, 3)) * orders[:, :, None, None, None]
    linked, _ = link_people(track_of(mixed, hands=hands))
    assert (linked.hands[:, 0] == 0).all() and (linked.hands[:, 1] == 1).all()


def test_the_others_move_up_where_somebody_is_missing():
    people = two_people()
    people[4:6, 0] = people[4:6, 1]
    people[4:6, 1] = 0
    linked, changed = link_people(track_of(people))
    assert np.flatnonzero(changed).tolist() == [4, 6]
    assert np.array_equal(linked.keypoints[:, 0], two_people()[:, 1])  # is seen longer, and so comes first
    assert not linked.keypoints[4:6, 1].any()


@pytest.mark.parametrize(
    "track", [track_of(two_people()), track_of(two_people(apart=0)), track_of(two_people()[:, :1])]
)
def test_people_in_order_are_left_alone(track):
    linked, changed = link_people(track)
    assert linked is track and not changed.any()


def test_a_leap_to_a_free_place_is_no_change_of_order():
    people = two_people()
    people[6:, 1, :, :2] += [0, 900]
    assert not link_people(track_of(people))[1].any()


def pairs():
    """A walker and somebody like him 300 px beside, in order and mixed, as POSE_KEYPOINT."""
    walker = actors.clip(actors.LANKY).keypoints[:, 0]
    people = np.stack([walker, walker - [300, 0, 0]], axis=1)
    return [PoseTrack(each, 960, 540).to_openpose() for each in (people, shuffled(people)[0])]


def test_tracks_of_mixed_people_are_those_of_people_in_order():
    ordered, mixed = (PoseToTracks.execute(pose).result for pose in pairs())
    assert np.allclose(ordered[0]["track_path"], mixed[0]["track_path"])
    assert "The people of pose change places" in mixed[2] and "change places" not in ordered[2]


@pytest.mark.parametrize("mode", ["proportions", "off"])
def test_retargeted_people_do_not_jump(mode):
    reference = actors.picture(actors.STOCKY).to_openpose()
    ordered, mixed = (RetargetPose.execute(pose, reference, mode=mode).result for pose in pairs())
    assert np.allclose(*(PoseTrack.from_openpose(pose).keypoints for pose in (ordered[0], mixed[0])))
    assert "The people of driving change places" in mixed[1]
