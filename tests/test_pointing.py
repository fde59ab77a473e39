"""Where a network is pointed at, on bodies whose outline is known."""

import numpy as np
from animate_anywhere.vision import pointing
from animate_anywhere.vision.pose import PoseTrack

WIDTH, HEIGHT = 200, 240
# Somebody upright around x = 100, right arm (2, 3, 4) held out to the left of the picture.
BODY = {0: (100, 40), 1: (100, 60), 2: (85, 62), 3: (65, 75), 4: (45, 80), 5: (115, 62), 6: (120, 90), 7: (122, 115)}
BODY |= {8: (90, 120), 9: (88, 165), 10: (88, 210), 11: (110, 120), 12: (112, 165), 13: (112, 210)}


def track(*people, frames=6):
    """The same bodies, moved right by dx px each, in every frame."""
    keypoints = np.zeros((frames, len(people), 18, 3))
    for number, dx in enumerate(people):
        for joint, (x, y) in BODY.items():
            keypoints[:, number, joint] = x + dx, y, 1
    return PoseTrack(keypoints, WIDTH, HEIGHT)


def test_a_person_is_pointed_at_in_three_frames_on_the_body():
    (person,) = pointing.people(track(0))
    assert [point.frame for point in person] == [0, 2, 4]  # each third's first: all are equally good
    for point in person:
        assert point.inside.all() and len(point.points) == 9  # eight joints and the middle of the trunk
        assert (np.abs(point.points[:, 0] - 100) <= 36).all()


def test_the_frames_that_show_most_are_chosen():
    pose = track(0)
    pose.keypoints[:4, 0, 8:14] = 0  # the legs come into view late
    assert [point.frame for point in pointing.people(pose)[0]][-2:] == [2, 4]
    pose.keypoints[0:2] = 0
    assert [point.frame for point in pointing.people(pose)[0]] == [2, 4]  # nobody is there in the first third


def test_another_person_is_beside_and_nobody_gives_nothing():
    one, other = pointing.people(track(-40, 40))
    assert one[0].inside.sum() == (~one[0].inside).sum() == 9
    assert np.allclose(one[0].points[~one[0].inside], other[0].points[other[0].inside])
    empty = track(0)
    empty.keypoints[:] = 0
    assert pointing.people(empty) == pointing.held(empty) == []


def test_a_thing_is_looked_for_beyond_the_hand():
    right, left = pointing.held(track(0))
    assert right[0].inside.sum() == left[0].inside.sum() == 2
    thing, hand = right[0].points[:2]
    assert thing[0] < hand[0] < 45  # further along the arm than the wrist
    assert left[0].points[0][1] > 115
    beside = right[0].points[~right[0].inside]
    assert len(beside) == 10 and (45, 80) in map(tuple, beside)  # the body, and the wrist


def test_a_hand_at_the_border_of_the_picture_holds_nothing_that_shows():
    assert len(pointing.held(track(-42))) == 1  # the right hand's thing would be outside


def person_and(thing):
    person = np.zeros((4, 100, 100), bool)
    person[:, 20:90, 40:60] = True
    held = np.zeros_like(person)
    held[(slice(None), *thing)] = True
    return held, person


def is_held(thing, person):
    """``thing`` and ``person`` [T, H, W] bool."""
    return pointing.is_held(*(part.sum(axis=(1, 2)) for part in (thing, thing & person, person)))


def test_a_ball_is_held_and_an_arm_a_wall_and_a_glimpse_are_not():
    assert is_held(*person_and((slice(50, 60), slice(58, 70))))
    assert not is_held(*person_and((slice(50, 60), slice(45, 62))))  # mostly the person
    assert not is_held(*person_and((slice(0, 100), slice(60, 100))))  # larger than half the person
    held, person = person_and((slice(50, 60), slice(58, 70)))
    held[1:] = False
    assert is_held(held, person)  # one frame in four
    assert not is_held(np.concatenate([held, 0 * held]), np.concatenate([person, person]))
