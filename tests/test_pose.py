"""Poses: read and written as other packs do, filled, smoothed."""

import math

import numpy as np
import pytest
from animate_anywhere.vision import pose as poses
from animate_anywhere.vision.pose import FILLED, PoseTrack
from comfy_extras import nodes_sdpose
from people import body, track_of

# --- POSE_KEYPOINT ----------------------------------------------------------------------------------------------------


def sdpose_frames(people, width=640, height=480):
    """What the host's SDPose node hands out: whole bodies with feet, ``people`` of them in each frame."""
    random = np.random.default_rng(0)
    keypoints = [[random.uniform(0, [width, height], (133, 2)) for _ in range(count)] for count in people]
    scores = [[random.uniform(0, 1, 133) for _ in range(count)] for count in people]
    return nodes_sdpose._to_openpose_frames(keypoints, scores, height, width)


def test_sdpose_frames_go_through_unchanged():
    frames = sdpose_frames([1, 2, 0, 1])
    assert PoseTrack.from_openpose(frames).to_openpose() == frames


def test_a_track_goes_through_unchanged():
    random = np.random.default_rng(0)
    keypoints, face = random.uniform(3, 500, (3, 2, 18, 3)), random.uniform(3, 500, (3, 2, 70, 3))
    keypoints[1, 0] = face[1, 0] = 0  # the first person is away: the second stays the second
    face[2, 1] = 0
    back = PoseTrack.from_openpose(track_of(keypoints, face=face).to_openpose())
    assert np.array_equal(back.keypoints, keypoints) and np.array_equal(back.face, face)
    assert (back.width, back.height, back.hands, back.feet) == (512, 512, None, None)


def test_missing_lists_are_read_as_missing():
    """comfyui_controlnet_aux writes None for hands and faces it did not look for."""
    person = {"pose_keypoints_2d": body().flatten().tolist(), "face_keypoints_2d": None, "hand_left_keypoints_2d": []}
    track = PoseTrack.from_openpose([{"people": [person], "canvas_width": 512, "canvas_height": 512}])
    assert np.array_equal(track.keypoints[0, 0], body()) and track.face is None and track.hands is None


def test_points_from_0_to_1_become_pixels():
    pixels = track_of(body()[None, None], 640, 480)
    frames = pixels.to_openpose()
    share = body() / [640, 480, 1]
    frames[0]["people"][0]["pose_keypoints_2d"] = share.flatten().tolist()
    assert np.allclose(PoseTrack.from_openpose(frames).keypoints, pixels.keypoints)


def test_a_face_without_pupils_is_read():
    frames = sdpose_frames([1])
    whole = frames[0]["people"][0]["face_keypoints_2d"]
    frames[0]["people"][0]["face_keypoints_2d"] = whole[: 68 * 3]
    face = PoseTrack.from_openpose(frames).face[0, 0]
    assert face[:68].flatten().tolist() == whole[: 68 * 3] and not face[68:].any()


def test_the_hosts_own_node_draws_our_pose():
    frames = track_of(body()[None, None]).to_openpose()
    arguments = dict.fromkeys(("draw_body", "draw_hands", "draw_face", "draw_feet", "draw_head"), True)
    drawn = nodes_sdpose.SDPoseDrawKeypoints.execute(
        frames, stick_width=4, face_point_size=3, score_threshold=0.3, **arguments
    )
    assert drawn[0].shape == (1, 512, 512, 3) and drawn[0].any()


def broken(**changes):
    frame = {"people": [], "canvas_width": 64, "canvas_height": 48} | changes
    return [{"people": [], "canvas_width": 64, "canvas_height": 48}, frame]


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "an empty list"),
        ({"people": []}, "found dict"),
        (["nose"], "frame 0 has no canvas"),
        ([{"people": []}], "frame 0 has no canvas"),
        (broken(canvas_width=0)[1:], "larger than 0×0; it is 0×48"),
        (broken(canvas_width=80), "frame 0 has 64×48, frame 1 has 80×48"),
        (broken(people={"pose_keypoints_2d": []}), "people of frame 1"),
        (broken(people=[{"pose_keypoints_2d": [1.0] * 53}]), "person 0 in frame 1 must be 18 times .* there are 53"),
        (broken(people=[{"pose_keypoints_2d": [1.0] * 75}]), "there are 75"),
        (broken(people=[{"hand_left_keypoints_2d": ["a"] * 63}]), "hand_left_keypoints_2d .* no number"),
        (broken(people=[{"pose_keypoints_2d": [math.nan] * 54}]), "not finite"),
    ],
)
def test_malformed_poses_are_told_apart(frames, message):
    with pytest.raises(ValueError, match=f"^pose: .*{message}"):
        PoseTrack.from_openpose(frames)


def one_person(numbers):
    return [{"people": [{"pose_keypoints_2d": numbers}], "canvas_width": 64, "canvas_height": 48}]


def test_a_joint_without_a_place_is_missing():
    numbers = [20.0, 30.0, 1.0] * 18
    numbers[3], numbers[7], numbers[9] = None, math.nan, math.inf
    joints = PoseTrack.from_openpose(one_person(numbers)).keypoints[0, 0]
    assert not joints[1:4].any()
    assert (joints[[0, *range(4, 18)]] == [20, 30, 1]).all()


def test_a_joint_without_a_confidence_is_sure_but_for_0_0():
    numbers = [20.0, 30.0, None] * 17 + [0.0, 0.0, None]
    joints = PoseTrack.from_openpose(one_person(numbers)).keypoints[0, 0]
    assert (joints[:17, 2] == 1).all() and not joints[17].any()


def test_a_hand_of_none_is_no_hand():
    person = {"pose_keypoints_2d": [20.0, 30.0, 1.0] * 18, "hand_left_keypoints_2d": [None] * 63}
    assert PoseTrack.from_openpose([{**broken()[0], "people": [person]}]).hands is None


@pytest.mark.parametrize("far", [2.4, -3.0, 50.0])
def test_a_joint_far_outside_does_not_change_the_unit(far):
    numbers = [0.25, 0.5, 1.0] * 17 + [0.5, far, 1.0]
    joints = PoseTrack.from_openpose(one_person(numbers)).keypoints[0, 0]
    assert np.allclose(joints[:17, :2], [16, 24])
    assert np.allclose(joints[17, :2], [32, far * 48])


def test_missing_joints_at_0_0_do_not_change_the_unit():
    numbers = [0.0, 0.0, 1.0] * 12 + [20.0, 30.0, 1.0] * 6
    assert np.allclose(PoseTrack.from_openpose(one_person(numbers)).keypoints[0, 0, 12:, :2], [20, 30])


@pytest.mark.parametrize("frames", [[], broken(canvas_width=80), broken(people=[{"pose_keypoints_2d": [1.0]}])])
def test_the_socket_that_was_wired_is_the_one_named(frames):
    with pytest.raises(ValueError, match="^driving: "):
        PoseTrack.from_openpose(frames, "driving")


def test_resizing_stretches_points_and_leaves_confidence():
    track = track_of(body()[None, None], hands=np.full((1, 1, 2, 21, 3), 0.5)).resized(1024, 256)
    assert np.allclose(track.keypoints[0, 0], body() * [2, 0.5, 1])
    assert np.allclose(track.hands, [1, 0.25, 0.5])


# --- gaps -------------------------------------------------------------------------------------------------------------


def walk(frames=9):
    """One person [T, 1, 18, 3] who moves 10 px a frame to the right."""
    return np.stack([body(x=200 + 10 * index)[None] for index in range(frames)])


def test_a_missing_person_is_interpolated_and_marked():
    keypoints = walk()
    keypoints[3:6] = 0
    filled, whole = poses.fill_gaps(track_of(keypoints))
    assert np.allclose(filled.keypoints[..., :2], walk()[..., :2])
    assert whole.tolist() == [False] * 3 + [True] * 3 + [False] * 3
    assert (filled.keypoints[3:6, ..., 2] == FILLED).all() and (filled.keypoints[:3, ..., 2] == 1).all()


def test_a_person_missing_at_the_ends_holds_still():
    keypoints = walk()
    keypoints[:2] = keypoints[7:] = 0
    keypoints[2, 0, 4] = 0  # a wrist that is hidden then is not invented
    filled, whole = poses.fill_gaps(track_of(keypoints))
    assert np.flatnonzero(whole).tolist() == [0, 1, 7, 8]
    seen = np.delete(np.arange(18), 4)
    assert np.array_equal(filled.keypoints[0, 0, seen, :2], walk()[2, 0, seen, :2])
    assert np.array_equal(filled.keypoints[8, 0, :, :2], walk()[6, 0, :, :2])
    assert not filled.keypoints[:3, 0, 4].any()


def test_a_joint_is_filled_in_a_short_gap_and_not_in_a_long_one():
    keypoints = walk(30)
    keypoints[2:5, 0, 7] = keypoints[2:20, 0, 0] = keypoints[25:, 0, 3] = 0
    filled, whole = poses.fill_gaps(track_of(keypoints))
    assert np.allclose(filled.keypoints[2:5, 0, 7, :2], walk(30)[2:5, 0, 7, :2])
    assert not filled.keypoints[2:20, 0, 0].any(), "18 frames without a nose: the face is turned away"
    assert not filled.keypoints[25:, 0, 3].any(), "nothing comes after"
    assert not whole.any()


def test_people_are_filled_apart_and_nobody_is_invented():
    keypoints = np.concatenate([walk(), walk(), np.zeros_like(walk())], axis=1)
    keypoints[4, 0] = 0
    filled, whole = poses.fill_gaps(track_of(keypoints))
    assert np.flatnonzero(whole).tolist() == [4]
    assert np.array_equal(filled.keypoints[:, 1:], keypoints[:, 1:])


def test_people_beside_the_lead_are_filled_in_short_gaps_only():
    """Who comes and goes beside the lead was not there; the lead is, or a pose video would have holes."""
    keypoints = np.concatenate([walk(30), walk(30), walk(30)], axis=1)
    keypoints[:4] = keypoints[26:] = 0
    keypoints[10:15, 1] = 0
    keypoints[8:19, 2] = 0
    filled = poses.fill_gaps(track_of(keypoints))[0].seen.any(axis=2)
    assert filled[:, 0].all()
    assert np.flatnonzero(filled[:, 1]).tolist() == list(range(4, 26))
    assert np.flatnonzero(~filled[4:26, 2]).tolist() == list(range(4, 15))


def test_filling_leaves_the_given_track_alone():
    keypoints = walk()
    keypoints[3] = 0
    before = keypoints.copy()
    poses.fill_gaps(track_of(keypoints))
    assert np.array_equal(keypoints, before)


# --- smoothing --------------------------------------------------------------------------------------------------------


def test_strength_0_is_the_track_itself():
    track = track_of(walk())
    assert poses.smooth(track, 0) is track


@pytest.mark.parametrize("strength", [0.01, 0.3, 1.0])
def test_a_still_pose_stays_where_it_is(strength):
    still = np.repeat(walk(1), 12, axis=0)
    assert np.array_equal(poses.smooth(track_of(still), strength).keypoints, still)


def trembling(frames=60, pixels=0.6):
    """A person who stands still, and what a detector makes of it."""
    still = np.repeat(walk(1), frames, axis=0)
    shaken = still.copy()
    shaken[..., :2] += np.random.default_rng(2).normal(0, pixels, shaken[..., :2].shape)
    return still, shaken


def test_trembling_falls_with_strength():
    still, shaken = trembling()
    left = [np.abs(poses.smooth(track_of(shaken), s).keypoints - still)[..., :2].mean() for s in (0, 0.3, 0.6, 1.0)]
    assert left == sorted(left, reverse=True)
    # Measured: 0.57, 0.42 and 0.30 of the trembling is left.
    assert left[1] < 0.9 * left[0] and left[3] < 0.5 * left[0]


def height_of(track):
    return np.ptp(track[0, 0, :, 1])


def test_a_still_body_trembles_by_less_than_three_thousandths_of_its_height():
    """At the default strength, with as much noise as BlazePose makes of a still picture with a camera's grain."""
    still = np.repeat(walk(1), 60, axis=0)
    height = height_of(still)
    shaken = still.copy()
    # 0.36 % of the height, both directions together, is what was measured; 0.4 % is taken.
    shaken[..., :2] += np.random.default_rng(2).normal(0, 0.004 / 2**0.5 * height, shaken[..., :2].shape)
    left = (poses.smooth(track_of(shaken), 0.3).keypoints - still)[..., :2]
    assert np.sqrt((left**2).sum(axis=-1).mean()) < 0.003 * height


@pytest.mark.parametrize("strength", [0.3, 1.0])
@pytest.mark.parametrize("seconds", [0.5, 1.0, 2.0])
def test_a_swinging_arm_lags_by_less_than_a_frame(strength, seconds):
    """At 24 frames a second: the shift that fits the smoothed swing best to the true one."""
    frames = np.arange(96)
    swing = np.repeat(walk(1), len(frames), axis=0)
    angle = 2 * np.pi * frames / (24 * seconds)
    swing[:, 0, 4, 0] += 60 * np.sin(angle)
    smoothed = poses.smooth(track_of(swing), strength).keypoints[:, 0, 4, 0]
    smoothed = smoothed - smoothed.mean()
    phase = np.arctan2((smoothed * np.cos(angle)).sum(), (smoothed * np.sin(angle)).sum())
    assert abs(phase) / (2 * np.pi) * 24 * seconds < 0.1  # of the one frame that is promised


def test_a_walk_lags_by_less_than_a_frame_even_at_its_ends():
    keypoints = walk(40)  # 10 px a frame
    smoothed = poses.smooth(track_of(keypoints), 1.0).keypoints
    assert np.abs(smoothed - keypoints)[..., 0].max() < 10


def test_a_fast_move_neither_lags_nor_shrinks():
    """A kick of a third of the body's size within six frames keeps its time and nearly all of its height."""
    kick = np.repeat(walk(1), 41, axis=0)
    kick[:, 0, 10, 1] -= 130 * np.exp(-((np.arange(41) - 20) ** 2) / 8)
    smoothed = poses.smooth(track_of(kick), 1.0).keypoints[:, 0, 10, 1]
    assert smoothed.argmin() == 20
    assert np.allclose(smoothed, smoothed[::-1]), "both ways alike: no lag"
    height = (smoothed[0] - smoothed[20]) / 130
    assert height > 0.9  # measured: 0.97; a filter that does not open with speed leaves 0.23


def test_joints_that_come_and_go_are_not_dragged():
    keypoints = walk()
    keypoints[3:6, 0, 4] = 0
    keypoints[6:, 0, 4, 0] += 200  # it comes back elsewhere
    smoothed = poses.smooth(track_of(keypoints), 1.0).keypoints
    assert not smoothed[3:6, 0, 4].any()
    # The first frame after the gap starts anew; only frames after it may pull it, by less than one step of 10 px.
    assert abs(smoothed[6, 0, 4, 0] - keypoints[6, 0, 4, 0]) < 10


def test_hands_are_smoothed_like_the_body():
    _, shaken = trembling()
    hands = np.concatenate([shaken, shaken[:, :, :3]], axis=2)[:, :, None].repeat(2, axis=2)  # [T, P, 2, 21, 3]
    smoothed = poses.smooth(track_of(shaken, hands=hands), 0.5)
    assert np.allclose(smoothed.hands[:, :, 1, :18], smoothed.keypoints)


@pytest.mark.parametrize("strength", [-0.1, 1.1, math.nan])
def test_smoothing_outside_its_range_is_refused(strength):
    with pytest.raises(ValueError, match="smoothing must be between 0 and 1"):
        poses.smooth(track_of(walk()), strength)
