"""Poses drawn as DWPose draws them."""

import colorsys
import math

import cv2
import numpy as np
import pytest
import torch
from animate_anywhere.vision import drawing
from animate_anywhere.vision.pose import PoseTrack


def track_of(keypoints, width=512, height=512, **parts):
    return PoseTrack(np.asarray(keypoints, dtype=np.float64), width, height, **parts)


def body(x=256.0, y=256.0, confidence=1.0):
    """A person [18, 3] whose joints spread around (x, y)."""
    random = np.random.default_rng(1)
    return np.column_stack([random.uniform(-150, 150, (18, 2)) + np.array([x, y]), np.full(18, confidence)])


LIMBS = [(2, 3), (2, 6), (3, 4), (4, 5), (6, 7), (7, 8), (2, 9), (9, 10), (10, 11), (2, 12), (12, 13), (13, 14), (2, 1)]
LIMBS += [(1, 15), (15, 17), (1, 16), (16, 18)]
COLOURS = [[255, 0, 0], [255, 85, 0], [255, 170, 0], [255, 255, 0], [170, 255, 0], [85, 255, 0], [0, 255, 0]]
COLOURS += [[0, 255, 85], [0, 255, 170], [0, 255, 255], [0, 170, 255], [0, 85, 255], [0, 0, 255], [85, 0, 255]]
COLOURS += [[170, 0, 255], [255, 0, 255], [255, 0, 170], [255, 0, 85]]


def draw_as_dwpose_does(joints):
    """draw_bodypose() of DWPose, restated: OpenPose numbers from 1, "Y" is across, sizes are for 512 px."""
    canvas = np.zeros((512, 512, 3), np.uint8)
    for (first, second), colour in zip(LIMBS, COLOURS):
        y, x = joints[[first - 1, second - 1], :2].T
        length = np.hypot(x[0] - x[1], y[0] - y[1])
        angle = math.degrees(math.atan2(x[0] - x[1], y[0] - y[1]))
        center = (int(np.mean(y)), int(np.mean(x)))
        polygon = cv2.ellipse2Poly(center, (int(length / 2), 4), int(angle), 0, 360, 1)
        cv2.fillConvexPoly(canvas, polygon, [int(value * 0.6) for value in colour])
    for (x, y, _), colour in zip(joints, COLOURS):
        cv2.circle(canvas, (int(x), int(y)), 4, colour, thickness=-1)
    return canvas


def drawn(track, width=512, height=512):
    """Pictures as bytes [T, H, W, 3]."""
    frames = drawing.draw(track, width, height)
    assert frames.dtype == torch.float32
    return (frames * 255).round().byte().numpy()


def test_a_body_is_drawn_as_dwpose_draws_it():
    track = track_of([[body()], [body(x=300)]])
    assert np.array_equal(drawn(track), [draw_as_dwpose_does(body()), draw_as_dwpose_does(body(x=300))])


def test_later_people_are_drawn_over_earlier_ones():
    both = drawn(track_of([[body(), body(x=290)]]))[0]
    last = draw_as_dwpose_does(body(x=290))
    where = last.any(axis=2)
    assert np.array_equal(both[where], last[where])
    assert (both.any(axis=2) & ~where).any()


@pytest.mark.parametrize("joint", [0, 3, 10, 17])
def test_a_missing_joint_and_its_limbs_are_not_drawn(joint):
    keypoints = body()
    keypoints[joint, 2] = 0.29
    colours = {tuple(colour) for colour in drawn(track_of([[keypoints]])).reshape(-1, 3).tolist()}
    assert tuple(COLOURS[joint]) not in colours
    for limb, colour in zip(LIMBS, COLOURS):
        assert (tuple(int(value * 0.6) for value in colour) in colours) == (joint + 1 not in limb)


def test_nobody_is_a_black_picture():
    assert not drawn(track_of(np.zeros((2, 1, 18, 3)))).any()
    assert not drawn(track_of(np.zeros((2, 0, 18, 3)))).any()


def test_sticks_and_points_grow_with_the_canvas():
    alone = np.zeros((1, 1, 18, 3))
    alone[0, 0, 0] = 256, 256, 1
    width = {
        size: np.ptp(np.flatnonzero(drawn(track_of(alone), size, size).any(axis=(0, 1, 3)))) + 1
        for size in (256, 512, 1024)
    }
    assert width == {256: 5, 512: 9, 1024: 17}  # discs of radius 2, 4 and 8
    # The short side counts: a skeleton is no thicker in a wide picture.
    assert np.ptp(np.flatnonzero(drawn(track_of(alone), 1024, 512).any(axis=(0, 2, 3)))) + 1 == 9


def test_another_size_stretches_the_pose():
    alone = np.zeros((1, 1, 18, 3))
    alone[0, 0, 0] = 100, 400, 1
    frame = drawn(track_of(alone), 1024, 256)[0]
    rows, columns = np.nonzero(frame.any(axis=2))
    assert frame.shape == (256, 1024, 3)
    assert (rows.mean(), columns.mean()) == (200, 200)


def test_hands_and_faces_are_drawn_as_dwpose_draws_them():
    random = np.random.default_rng(3)
    hand = np.column_stack([random.uniform(50, 250, (21, 2)), np.ones(21)])
    face = np.column_stack([random.uniform(300, 450, (70, 2)), np.ones(70)])
    hands = np.stack([np.zeros((21, 3)), hand])[None, None]
    frame = drawn(track_of(np.zeros((1, 1, 18, 3)), hands=hands, face=face[None, None]))[0]

    canvas = np.zeros((512, 512, 3), np.uint8)
    fingers = [(0, 1), (1, 2), (2, 3), (3, 4), (0, 5), (5, 6), (6, 7), (7, 8), (0, 9), (9, 10), (10, 11), (11, 12)]
    fingers += [(0, 13), (13, 14), (14, 15), (15, 16), (0, 17), (17, 18), (18, 19), (19, 20)]
    for number, (first, second) in enumerate(fingers):
        colour = [255 * value for value in colorsys.hsv_to_rgb(number / 20, 1, 1)]
        ends = [(int(hand[end, 0]), int(hand[end, 1])) for end in (first, second)]
        cv2.line(canvas, *ends, colour, thickness=2)
    for x, y, _ in hand:
        cv2.circle(canvas, (int(x), int(y)), 4, (0, 0, 255), thickness=-1)
    for x, y, _ in face:
        cv2.circle(canvas, (int(x), int(y)), 3, (255, 255, 255), thickness=-1)
    assert np.array_equal(frame, canvas)


def test_drawing_counts_its_frames():
    counted = []
    drawing.draw(track_of([[body()]] * 3), 64, 64, counted.append)
    assert counted == [1, 2, 3]
