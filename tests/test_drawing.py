"""Poses drawn as DWPose draws them: against the code of DWPose that controlnet-aux ships."""

import importlib
import importlib.util
import sys
import types
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from animate_anywhere.vision import drawing
from people import body, track_of


def as_detected(track, frame):
    """A frame of ``track`` as DWPose's detector hands it to the drawing: 0…1 of the canvas, what is missing at -1."""

    def places(points):
        return np.where(points[..., 2:] < 0.3, -1, points[..., :2] / (track.width, track.height))

    joints = track.keypoints[frame]
    numbers = np.arange(18 * len(joints)).reshape(-1, 18)
    return {
        "bodies": {
            "candidate": places(joints).reshape(-1, 2),
            "subset": np.where(joints[..., 2] < 0.3, -1, numbers),
        },
        "hands": () if track.hands is None else places(track.hands[frame].reshape(-1, 21, 3)),
        "faces": () if track.face is None else places(track.face[frame, :, :68]),
    }


@pytest.fixture(scope="module")
def theirs():
    """A function that draws a track as DWPose does, as bytes [T, H, W, 3].

    Its folder is loaded alone: the whole package imports all its detectors, and what they need is not installed.
    """
    package = types.ModuleType("controlnet_aux")
    package.__path__ = importlib.util.find_spec("controlnet_aux").submodule_search_locations
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "controlnet_aux", package)
        patch.setenv("KMP_DUPLICATE_LIB_OK", "TRUE")  # the import sets this; so it does not outlive these tests
        draw_pose = importlib.import_module("controlnet_aux.dwpose").draw_pose
        yield lambda track: np.stack(
            [draw_pose(as_detected(track, frame), track.height, track.width) for frame in range(len(track.keypoints))]
        )


def drawn(track, width=512, height=512):
    """Pictures as bytes [T, H, W, 3]."""
    frames = drawing.draw(track, width, height)
    assert frames.dtype == torch.float32
    return (frames * 255).round().byte().numpy()


def crowd(people, width=512, height=512, low=0.02, high=0.98, missing=0.0):
    """``people`` with hands and faces for three frames, between ``low`` and ``high`` of the canvas."""
    random = np.random.default_rng(3)

    def points(*shape):
        at = random.uniform(low, high, (3, people, *shape, 2)) * (width, height)
        return np.concatenate([at, random.random((3, people, *shape, 1)) >= missing], axis=-1)

    return track_of(points(18), width, height, hands=points(2, 21), face=points(70))


# DWPose draws where the short side is 512 px, and its sizes are for that.
@pytest.mark.parametrize(("width", "height"), [(512, 512), (896, 512), (512, 768)])
@pytest.mark.parametrize("people", [1, 3])
def test_bodies_hands_and_faces_are_drawn_as_dwpose_draws_them(theirs, people, width, height):
    """Where people overlap, too: limbs first, then joints, hands and faces."""
    track = crowd(people, width, height)
    assert np.array_equal(drawn(track, width, height), theirs(track))


def test_a_missing_joint_and_its_limbs_are_left_out_as_dwpose_does(theirs):
    keypoints = np.stack([body()[None]] * 18)
    keypoints[range(18), 0, range(18), 2] = 0.29
    assert np.array_equal(drawn(track_of(keypoints)), theirs(track_of(keypoints)))


def test_missing_points_of_a_crowd_are_left_out_as_dwpose_does(theirs):
    track = crowd(3, missing=0.3)
    assert np.array_equal(drawn(track), theirs(track))


def test_people_who_reach_out_of_the_picture_are_drawn_as_dwpose_draws_them(theirs):
    track = crowd(2, low=-0.3, high=1.3)
    assert np.array_equal(drawn(track), theirs(track))


@pytest.mark.parametrize("side", [768, 1024])
def test_a_large_canvas_shows_dwposes_picture_enlarged(theirs, side):
    """DWPose draws at 512 px and enlarges; we draw at the size asked for, without its soft and stepped edges."""
    track = crowd(1)
    # DWPose cuts off fractions, which are px once enlarged.
    track = replace(track, **{field: np.floor(points) for field, points in track.arrays.items()})
    enlarged = cv2.resize(theirs(track)[0], (side, side), interpolation=cv2.INTER_LINEAR)
    ours = drawn(track, side, side)[0]
    around = np.ones((7, 7), np.uint8)  # 3 px, at most two of DWPose's own, to either side of an edge
    inside = [(cv2.dilate(picture, around) == cv2.erode(picture, around)).all(axis=2) for picture in (ours, enlarged)]
    inside = inside[0] & inside[1]
    assert np.array_equal(ours[inside], enlarged[inside])
    assert ours[inside].any(axis=1).sum() > 5000  # limbs and points, not only black


def test_pupils_leave_the_eyes_colours_alone(theirs):
    """POSE_KEYPOINT repeats the eyes at the end of a face; white on top would hide the joints that models know."""
    keypoints, face = np.zeros((1, 1, 18, 3)), np.zeros((1, 1, 70, 3))
    keypoints[0, 0, 14] = face[0, 0, 68] = 200, 200, 1
    ours = drawn(track_of(keypoints, face=face))
    assert np.array_equal(ours, theirs(track_of(keypoints, face=face)))
    assert ours[0, 200, 200].tolist() == [170, 0, 255]


def test_nobody_is_a_black_picture():
    assert not drawn(track_of(np.zeros((2, 1, 18, 3)))).any()
    assert not drawn(track_of(np.zeros((2, 0, 18, 3)))).any()


def heights(side):
    """How many px high a level limb, a joint, a level finger and a point of a face are on a square canvas."""
    keypoints, face, hands = np.zeros((3, 1, 18, 3)), np.zeros((3, 1, 70, 3)), np.zeros((3, 1, 2, 21, 3))
    keypoints[0, 0, 3:5] = hands[1, 0, 0, :2] = [(0.2 * side, side / 2, 1), (0.8 * side, side / 2, 1)]
    face[2, 0, 0] = side / 2, side / 2, 1
    lit = drawn(track_of(keypoints, side, side, hands=hands, face=face), side, side).any(axis=-1)
    at = [(0, side // 2), (0, int(0.2 * side)), (1, side // 2), (2, side // 2)]
    return [lit[frame, :, column].sum() for frame, column in at]


# Of sticks, joints, fingers and points of a face. The smallest are what the built-in model was trained on.
HEIGHTS = {96: [3, 3, 1, 3], 128: [3, 3, 1, 3], 256: [5, 5, 1, 5], 512: [9, 9, 3, 7], 1024: [17, 17, 5, 13]}


@pytest.mark.parametrize("side", HEIGHTS)
def test_sticks_and_points_grow_with_the_canvas(side):
    assert heights(side) == HEIGHTS[side]


def test_the_short_side_of_the_canvas_counts():
    """A skeleton is no thicker in a wide picture."""
    alone = np.zeros((1, 1, 18, 3))
    alone[0, 0, 0] = 256, 256, 1
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
