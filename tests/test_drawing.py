"""Poses drawn as DWPose draws them."""

import colorsys
import math

import cv2
import numpy as np
import pytest
import torch
from animate_anywhere.vision import drawing
from people import body, track_of

LIMBS = [(2, 3), (2, 6), (3, 4), (4, 5), (6, 7), (7, 8), (2, 9), (9, 10), (10, 11), (2, 12), (12, 13), (13, 14), (2, 1)]
LIMBS += [(1, 15), (15, 17), (1, 16), (16, 18)]
COLOURS = [[255, 0, 0], [255, 85, 0], [255, 170, 0], [255, 255, 0], [170, 255, 0], [85, 255, 0], [0, 255, 0]]
COLOURS += [[0, 255, 85], [0, 255, 170], [0, 255, 255], [0, 170, 255], [0, 85, 255], [0, 0, 255], [85, 0, 255]]
COLOURS += [[170, 0, 255], [255, 0, 255], [255, 0, 170], [255, 0, 85]]


FINGERS = [(0, 1), (1, 2), (2, 3), (3, 4), (0, 5), (5, 6), (6, 7), (7, 8), (0, 9), (9, 10), (10, 11), (11, 12)]
FINGERS += [(0, 13), (13, 14), (14, 15), (15, 16), (0, 17), (17, 18), (18, 19), (19, 20)]


def draw_as_dwpose_does(people, hands=(), faces=(), side=512, stick=4, joint=4, finger=2, landmark=3):
    """draw_pose() of DWPose, restated: OpenPose numbers from 1, "Y" is across, the sizes are what it has for 512 px."""
    canvas = np.zeros((side, side, 3), np.uint8)
    for (first, second), colour in zip(LIMBS, COLOURS):
        for joints in people:
            y, x = joints[[first - 1, second - 1], :2].T
            length = np.hypot(x[0] - x[1], y[0] - y[1])
            angle = math.degrees(math.atan2(x[0] - x[1], y[0] - y[1]))
            center = (int(np.mean(y)), int(np.mean(x)))
            cv2.fillConvexPoly(
                canvas, cv2.ellipse2Poly(center, (int(length / 2), stick), int(angle), 0, 360, 1), colour
            )
    canvas = (canvas * 0.6).astype(np.uint8)
    for number, colour in enumerate(COLOURS):
        for joints in people:
            cv2.circle(canvas, (int(joints[number, 0]), int(joints[number, 1])), joint, colour, thickness=-1)
    for hand in hands:
        for number, (first, second) in enumerate(FINGERS):
            colour = [255 * value for value in colorsys.hsv_to_rgb(number / 20, 1, 1)]
            ends = [(int(hand[end, 0]), int(hand[end, 1])) for end in (first, second)]
            cv2.line(canvas, *ends, colour, thickness=finger)
        for x, y, _ in hand:
            cv2.circle(canvas, (int(x), int(y)), joint, (0, 0, 255), thickness=-1)
    for face in faces:
        for x, y, _ in face[:68]:
            cv2.circle(canvas, (int(x), int(y)), landmark, (255, 255, 255), thickness=-1)
    return canvas


def drawn(track, width=512, height=512):
    """Pictures as bytes [T, H, W, 3]."""
    frames = drawing.draw(track, width, height)
    assert frames.dtype == torch.float32
    return (frames * 255).round().byte().numpy()


def test_a_body_is_drawn_as_dwpose_draws_it():
    track = track_of([[body()], [body(x=300)]])
    assert np.array_equal(drawn(track), [draw_as_dwpose_does([body()]), draw_as_dwpose_does([body(x=300)])])


def crowd(people, side=512, seed=3):
    """``people`` with hands and faces on a canvas of ``side`` px: keypoints, hands and face of one frame."""
    random = np.random.default_rng(seed)

    def points(*shape):
        at = random.uniform(0.02 * side, 0.98 * side, (1, people, *shape, 2))
        return np.concatenate([at, np.ones_like(at[..., :1])], axis=-1)

    return points(18), points(2, 21), points(70)


@pytest.mark.parametrize("people", [1, 3])
def test_whole_people_are_drawn_as_dwpose_draws_them(people):
    """Where people overlap, too: limbs first, then joints, hands and faces."""
    keypoints, hands, face = crowd(people)
    ours = drawn(track_of(keypoints, hands=hands, face=face))[0]
    assert np.array_equal(ours, draw_as_dwpose_does(keypoints[0], hands.reshape(-1, 21, 3), face[0]))


@pytest.mark.parametrize(("side", "sizes"), [(96, (1, 1, 1, 1)), (128, (1, 1, 1, 1)), (256, (2, 2, 1, 2))])
def test_small_canvases_are_drawn_as_the_built_in_model_was_trained_on(side, sizes):
    keypoints, hands, face = crowd(1, side)
    theirs = draw_as_dwpose_does(keypoints[0], hands[0, 0], face[0], side, *sizes)
    assert np.array_equal(drawn(track_of(keypoints, side, side, hands=hands, face=face), side, side)[0], theirs)


def test_a_large_canvas_shows_dwposes_picture_enlarged():
    """DWPose draws at 512 px and enlarges; we draw at the size asked for, without its soft and stepped edges."""
    keypoints = np.floor(body())[None, None]  # DWPose cuts off fractions, which are px once enlarged
    theirs = cv2.resize(draw_as_dwpose_does(keypoints[0]), (1024, 1024), interpolation=cv2.INTER_LINEAR)
    ours = drawn(track_of(keypoints), 1024, 1024)[0]
    around = np.ones((7, 7), np.uint8)  # 3 px, one and a half of DWPose's own, to either side of an edge
    inside = [(cv2.dilate(picture, around) == cv2.erode(picture, around)).all(axis=2) for picture in (ours, theirs)]
    inside = inside[0] & inside[1]
    assert np.array_equal(ours[inside], theirs[inside])
    assert ours[inside].any(axis=1).sum() > 5000  # limbs and joints, not only black


def test_pupils_leave_the_eyes_colours_alone():
    """POSE_KEYPOINT repeats the eyes at the end of a face; white on top would hide the joints that models know."""
    keypoints, face = np.zeros((1, 1, 18, 3)), np.zeros((1, 1, 70, 3))
    keypoints[0, 0, 14] = face[0, 0, 68] = 200, 200, 1
    assert tuple(drawn(track_of(keypoints, face=face))[0, 200, 200]) == tuple(COLOURS[14])


@pytest.mark.parametrize("joint", [0, 3, 10, 17])
def test_a_missing_joint_and_its_limbs_are_not_drawn(joint):
    keypoints = body()
    keypoints[joint, 2] = 0.29
    frame = drawn(track_of([[keypoints]]))[0]
    colours = {tuple(colour) for colour in frame[frame.any(axis=2)].tolist()}
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


def test_drawing_counts_its_frames():
    counted = []
    drawing.draw(track_of([[body()]] * 3), 64, 64, counted.append)
    assert counted == [1, 2, 3]


# --- plain ------------------------------------------------------------------------------------------------------------


def plain(track):
    return (drawing.draw(track, track.width, track.height, style="plain") * 255).round().byte().numpy()


def arm(side, confidence):
    """A forearm [1, 1, 18, 3] of the ``side`` across the middle of a canvas of 512 px."""
    keypoints = np.zeros((1, 1, 18, 3))
    keypoints[0, 0, {"right": [3, 4], "left": [6, 7]}[side]] = [(100.5, 256.5, 1), (400.5, 256.5, confidence)]
    return keypoints


def test_plain_tells_right_from_left():
    right, left = (plain(track_of(arm(side, 1.0)))[0, 256, 250].astype(int) for side in ("right", "left"))
    assert right[0] > right[2] + 100 and left[2] > left[0] + 100


def test_plain_is_darker_where_the_detector_was_less_sure():
    light = [plain(track_of(arm("right", sure)))[0, 256, 250].max() for sure in (1.0, 0.6, 0.3)]
    assert light[0] > light[1] > light[2] > 60


def test_plain_shows_what_others_leave_out_thin_and_grey():
    frame = plain(track_of(arm("right", 0.2)))[0]
    assert len(set(frame[256, 250].tolist())) == 1 and frame[256, 250].any()
    assert (frame[:, 250].any(axis=1)).sum() <= 3
    assert not drawn(track_of(arm("right", 0.2)))[0, :, 250].any()


def test_plain_draws_feet_where_there_are_any():
    legs = np.zeros((1, 1, 18, 3))
    legs[0, 0, 10] = 256, 200, 1
    feet = np.zeros((1, 1, 6, 3))
    feet[0, 0, 3:] = [(256, 400, 1), (300, 400, 1), (256, 300, 1)]
    assert plain(track_of(legs, feet=feet))[0, 350, 256].any()
    assert not plain(track_of(legs))[0, 350, 256].any()


def test_plain_numbers_several_people():
    """Each number stands over the highest joint; one person needs none."""
    keypoints = np.zeros((1, 2, 18, 3))
    keypoints[0, :, 0] = [(100, 256, 1), (400, 256, 1)]
    above = plain(track_of(keypoints))[0, 210:250]
    assert above[:, 80:140].any() and above[:, 380:440].any()
    assert not plain(track_of(keypoints[:, :1]))[0, 210:250].any()


# --- over a video -----------------------------------------------------------------------------------------------------


def clip(frames=2):
    return torch.rand(frames, 100, 200, 3, generator=torch.Generator().manual_seed(0))


def test_over_a_video_only_the_skeletons_pixels_change():
    track = track_of(np.stack([body(60, 50)[None] * [1, 1, 1], body(90, 50)[None]]) * [0.2, 0.2, 1], 200, 100)
    over, alone = drawing.draw_over(track, clip(), 1.0), drawing.draw(track, 200, 100)
    there = alone.any(dim=-1)
    assert torch.equal(over[~there], clip()[~there])
    assert there.any() and torch.allclose(over[there], alone[there], atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize("style", ["dwpose", "plain"])
def test_opacity_mixes_skeleton_and_video(style):
    track = track_of(np.stack([body(500, 250)[None]] * 2) * [0.2, 0.2, 1], 200, 100)
    whole, half, none = (drawing.draw_over(track, clip(), opacity, style=style) for opacity in (1.0, 0.5, 0.0))
    assert torch.equal(none, clip()) and not torch.equal(whole, none)
    assert torch.allclose(half, (whole + none) / 2, atol=1 / 255)


def test_one_picture_lies_under_all_frames():
    track = track_of(np.stack([body(500, 250)[None]] * 3) * [0.2, 0.2, 1], 200, 100)
    repeated = drawing.draw_over(track, clip(1).repeat(3, 1, 1, 1), 1.0)
    assert torch.equal(drawing.draw_over(track, clip(1), 1.0), repeated)
