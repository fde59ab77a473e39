import cv2
import numpy as np
import torch
from animate_anywhere.vision import drawn_pose


def stick(x, lean=0):
    """A skeleton of two lines in a picture of 100×100 px."""
    canvas = np.zeros((100, 100, 3), np.uint8)
    cv2.line(canvas, (x, 20), (x + lean, 90), (0, 200, 80), 3)
    cv2.line(canvas, (x - 20, 40), (x + 20, 40), (200, 60, 0), 3)
    return torch.from_numpy(canvas).float() / 255


def test_the_person_is_around_the_limbs_and_nowhere_else():
    person = drawn_pose.person(stick(50))
    assert person[50, 50] and person[50, 56] and not person[50, 60] and not person[5].any()


def test_the_same_pose_overlaps_and_another_does_not():
    assert drawn_pose.overlap(stick(50), stick(50)) == 1
    assert drawn_pose.overlap(stick(50), stick(52)) > drawn_pose.ALIKE > drawn_pose.overlap(stick(50), stick(50, 25))


def test_nobody_is_like_nobody():
    empty = torch.zeros(100, 100, 3)
    assert drawn_pose.overlap(empty, empty) == drawn_pose.overlap(stick(50), empty) == 0
    assert not drawn_pose.person(empty).any()
