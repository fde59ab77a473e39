"""Pose to Tracks, as the graph calls it."""

import re

import comfy.model_management
import numpy as np
import pytest
import torch
from animate_anywhere.nodes import motion as nodes
from animate_anywhere.nodes.pose import ExtractPose
from animate_anywhere.training import rehearsal, stage
from animate_anywhere.vision import metrics
from animate_anywhere.vision import pose as poses
from animate_anywhere.vision.camera_path import CameraPath
from animate_anywhere.vision.planted_feet.body import ANKLES
from animate_anywhere.vision.pose import PoseTrack
from comfy_extras.nodes_wanmove import WanMoveVisualizeTracks, create_pos_embeddings
from walks import cosines, moving_walks

METHODS = pytest.mark.parametrize("method", list(nodes.METHODS))
# The methods that always give a motion; auto lets the background stand without evidence.
GUESSING = pytest.mark.parametrize("method", ["learned", "geometry"])


@pytest.fixture(scope="module")
def walk():
    """Somebody walks, both feet in the frame, and the camera goes along."""
    return rehearsal.rehearse(stage.draw_plan(2 * 10**9 + 4, 29, (160, 96), route="walk", camera="follow", whole=True))


def convert(pose, *inputs, **named):
    return nodes.PoseToTracks.execute(pose.to_openpose(), *inputs, **named).result


@METHODS
def test_tracks_camera_path_and_report_belong_together(walk, method):
    tracks, path, report = convert(walk.pose, method)
    assert isinstance(path, CameraPath) and len(path) == 29 and (path.width, path.height) == (160, 96)
    track, seen = tracks["track_path"], tracks["track_visibility"]
    assert track.shape == (29, seen.shape[1], 2) and seen.shape[0] == 29 and seen.dtype == torch.bool
    first = np.flatnonzero(seen[0].numpy())
    expected = path.carry(track[0, first].double().numpy())
    np.testing.assert_allclose(track[:, first].numpy(), expected, atol=0.01)  # float32 px
    assert f"29 frames of 160×96 px, read by {method}" in report
    assert f"Confidence {path.confidence[1:].mean():.2f} of 1" in report


@GUESSING
def test_the_background_goes_the_way_it_went(walk, method):
    guess, truth = convert(walk.pose, method)[1].steps, walk.steps
    assert guess[:, 0].mean() * truth[:, 0].mean() > 0
    assert abs(guess[:, 0].mean() / truth[:, 0].mean() - 1) < 0.6


@GUESSING
def test_the_report_warns_where_the_pose_says_nothing(method):
    """Over walks: confidence falls without legs, or the trunk still tells the right way (as the learned method
    has it of cameras that follow)."""
    lost = []
    for clip in moving_walks(24, ("pan", "follow", "sway", "zoom")):
        keypoints = clip.pose.keypoints.copy()
        keypoints[:, :, [8, 9, 10, 11, 12, 13]] = 0
        _, path, report = convert(PoseTrack(keypoints, clip.pose.width, clip.pose.height), method)
        lost.append(convert(clip.pose, method)[1].confidence[1:].mean() - path.confidence[1:].mean())
        right = cosines([clip], lambda _, steps=path.steps: steps)[0] > metrics.RIGHT
        assert lost[-1] > 0.15 or (right and method == "learned")
        assert "No foot is seen in any frame" in report
    assert np.mean(lost) > 0.3


@METHODS
@pytest.mark.parametrize("frames", [2, 29])
def test_a_head_alone_tells_nothing_and_breaks_nothing(walk, method, frames):
    keypoints = np.zeros((frames, 1, 18, 3))
    keypoints[:, 0, 0] = walk.pose.keypoints[:frames, 0, 0]
    tracks, path, report = convert(PoseTrack(keypoints, 160, 96), method)
    assert np.isfinite(path.homographies).all() and torch.isfinite(tracks["track_path"]).all()
    assert "No foot is seen in any frame" in report and "the pose does NOT tell the motion" in report


@METHODS
def test_frames_without_anybody_are_told(walk, method):
    keypoints = walk.pose.keypoints.copy()
    keypoints[[5, 6, 20]] = 0
    _, path, report = convert(PoseTrack(keypoints, 160, 96), method)
    assert "Nobody is there in frames 5-6, 20" in report
    assert np.isfinite(path.homographies).all()


@GUESSING
def test_filled_frames_tell_nothing(walk, method):
    """What Extract Pose puts where nobody was seen stands still, and so would the background."""
    keypoints = walk.pose.keypoints.copy()
    keypoints[14:] = 0
    filled, _ = poses.fill_gaps(PoseTrack(keypoints, 160, 96))
    _, path, report = convert(filled, method)
    assert path.confidence[15:].mean() < nodes.DOUBTED < path.confidence[1:13].mean()
    assert "Filled frames, which tell nothing: 14-28" in report


@METHODS
def test_a_filled_foot_is_no_planted_one(walk, method):
    keypoints = walk.pose.keypoints.copy()
    keypoints[10:16, :, ANKLES, 2] = poses.FILLED
    without = keypoints.copy()
    without[10:16, :, ANKLES] = 0
    one, other = (convert(PoseTrack(points, 160, 96), method)[1] for points in (keypoints, without))
    np.testing.assert_array_equal(one.steps, other.steps)


def test_the_hosts_nodes_draw_and_use_the_tracks(walk):
    tracks = convert(walk.pose, reseed=False)[0]
    drawn = WanMoveVisualizeTracks.execute(torch.zeros(29, 96, 160, 3), 24, 3, 1.0, 2, tracks)[0]
    assert drawn.shape == (29, 96, 160, 3) and drawn.amax() > 0.5
    positions = create_pos_embeddings(tracks["track_path"], tracks["track_visibility"], [4, 8, 8], 96, 160)
    seen = tracks["track_visibility"][0]
    assert (positions[:, 0] >= 0).all(-1).sum() == seen.sum()


def test_points_and_reseed_are_heard(walk):
    few, many = (convert(walk.pose, points=points, reseed=False)[0] for points in (8, 200))
    assert few["track_path"].shape[1] < 15 and many["track_path"].shape[1] > 100
    assert convert(walk.pose, points=200)[0]["track_path"].shape[1] >= many["track_path"].shape[1]


def test_one_frame_is_refused():
    with pytest.raises(ValueError, match="^pose: it has one frame"):
        convert(PoseTrack(np.ones((1, 1, 18, 3)), 64, 64))


def test_nobody_is_refused():
    with pytest.raises(ValueError, match="^pose: there is nobody in any of its frames"):
        convert(PoseTrack(np.zeros((3, 1, 18, 3)), 64, 64))


def test_missing_weights_are_told(walk, monkeypatch, tmp_path):
    monkeypatch.setattr(nodes, "WEIGHTS", tmp_path / "pose_motion.safetensors")
    with pytest.raises(ValueError, match="^method: learned needs pose_motion.safetensors"):
        convert(walk.pose, "learned")
    assert convert(walk.pose, "geometry")


def test_it_stops_when_the_artist_cancels(walk):
    for method in nodes.METHODS:
        comfy.model_management.interrupt_current_processing(True)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            convert(walk.pose, method)


@pytest.fixture(scope="module")
def treadmill():
    """Somebody in profile walks on the spot, to the right, with cropped feet."""
    time = np.arange(72)
    keypoints = np.zeros((72, 1, 18, 3))
    places = {0: (350, 70), 1: (320, 100), 2: (310, 102), 5: (330, 102), 8: (312, 180), 9: (312, 240), 11: (328, 180)}
    for joint, place in (places | {12: (328, 240)}).items():
        keypoints[:, 0, joint] = [*place, 1]
    keypoints[:, 0, 9, 0] += 30 * np.sin(2 * np.pi * time / 24)
    keypoints[:, 0, 12, 0] -= 30 * np.sin(2 * np.pi * time / 24)
    return PoseTrack(keypoints, 640, 360)


def test_without_feet_the_background_stands_and_the_report_says_how_to_move_it(treadmill):
    _, path, report = convert(treadmill)
    assert not path.steps[:, :2].any()
    assert "No feet in view: the background stands; choose `camera` to move it" in report


def test_a_chosen_camera_follows_a_treadmill(treadmill):
    _, path, report = convert(treadmill, camera="follows the person")
    assert (path.steps[:, 0] < -2).all()  # he walks to the right
    assert "camera chosen: follows the person, as fast as the steps and the body's height tell" in report
    _, turned, _ = convert(treadmill, camera="follows the person", direction="to the left", depth=0.5)
    np.testing.assert_allclose(turned.steps[:, 0].mean(), -path.steps[:, 0].mean() / 2, rtol=0.2)


def test_a_chosen_camera_that_stands_moves_nothing_whatever_the_method(walk):
    _, path, report = convert(walk.pose, "learned", camera="stands")
    np.testing.assert_allclose(path.steps, 0, atol=1e-9)
    assert "camera chosen: stands" in report and "read by" not in report


def test_growth_is_taken_for_a_zoom_where_the_artist_says_so(treadmill):
    keypoints = treadmill.keypoints.copy()
    middle, scale = np.array([320, 180]), np.exp(0.005 * np.arange(72))
    keypoints[..., :2] = (keypoints[..., :2] - middle) * scale[:, None, None, None] + middle
    zooms = [
        convert(PoseTrack(keypoints, 640, 360), growth=growth)[1].steps[:, 2].mean()
        for growth in ("comes nearer", "half", "zoom")
    ]
    np.testing.assert_allclose(zooms, [0, 0.0025, 0.005], atol=2e-4)
    assert "The body grows by 4" in convert(PoseTrack(keypoints, 640, 360))[2]


def test_a_real_dance_is_given_no_motion_that_its_feet_do_not_show(dance, no_gradients):
    pose = ExtractPose.execute(dance, "blazepose", 0.3).result[0]
    still, guess = (nodes.PoseToTracks.execute(pose, method).result[1].steps for method in ("auto", "learned"))
    np.testing.assert_allclose(still, 0, atol=1e-9)
    assert np.abs(guess[:, :2]).max() > 0.1


def test_the_report_names_planted_feet_and_their_slip(walk):
    report = convert(walk.pose)[2]
    assert re.search(r"[Tt]he left foot stands in frames \d", report)
    assert re.search(r"Foot slip \d+\.\d\d % of the body's height a frame", report)


@pytest.mark.parametrize(
    ("name", "value"),
    [("camera", "flies"), ("growth", ""), ("direction", "up"), ("depth", 1.5), ("depth", float("nan"))],
)
def test_a_linked_value_that_is_none_of_the_choices_is_refused(walk, name, value):
    with pytest.raises(ValueError, match=f"^{name}: "):
        convert(walk.pose, **{name: value})
