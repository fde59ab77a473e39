"""BlazePose's landmarks with their depth, as they travel with a pose from node to node."""

import json

import numpy as np
import pack
import pytest
from animate_anywhere.vision import detectors, landmarks, pose_file
from animate_anywhere.vision.pose import PoseTrack, drop, smooth
from animate_anywhere.vision.retarget import retarget
from people import body, track_of

KEY = "blazepose_landmarks_3d"


@pytest.fixture
def track():
    """Two frames of one person with landmarks all over the canvas, at depths from -160 to 160 px."""
    marks = np.zeros((2, 1, 33, 4))
    marks[..., :2] = np.random.default_rng(2).uniform(100, 400, (2, 1, 33, 2))
    marks[..., 2], marks[..., 3] = 0.9, np.linspace(-160, 160, 33)
    marks[1, ..., 3] += 7
    return track_of(np.stack([body()[None], body(260)[None]]), landmarks=marks)


def test_depth_comes_back_from_openpose_lists(track):
    back = PoseTrack.from_openpose(track.to_openpose())
    np.testing.assert_allclose(back.landmarks, track.landmarks)


def test_a_pose_without_depth_has_none_afterwards():
    track = track_of(body()[None, None])
    assert KEY not in track.to_openpose()[0]["people"][0]
    assert PoseTrack.from_openpose(track.to_openpose()).landmarks is None


def test_depth_comes_back_from_a_file(track, tmp_path):
    pose_file.save_pose(tmp_path / "pose.json", track.to_openpose(), 24.0)
    assert pose_file.load_pose(tmp_path / "pose.json").frames == track.to_openpose()
    assert len(json.loads((tmp_path / "pose.json").read_text())["frames"][0]["people"][0][KEY]) == 132


def test_depth_is_stretched_with_the_width(track):
    larger = track.resized(1024, 256)
    np.testing.assert_allclose(larger.landmarks[..., 0], 2 * track.landmarks[..., 0])
    np.testing.assert_allclose(larger.landmarks[..., 1], 0.5 * track.landmarks[..., 1])
    np.testing.assert_allclose(larger.landmarks[..., 3], 2 * track.landmarks[..., 3])


def test_normalized_depth_is_read_in_pixels(track):
    frames = track.to_openpose()
    for frame in frames:
        for name, numbers in frame["people"][0].items():
            points = np.array(numbers).reshape(-1, 4 if name == KEY else 3)
            points[:, :2] /= 512
            points[:, 3:] /= 512
            frame["people"][0][name] = points.ravel().tolist()
    np.testing.assert_allclose(PoseTrack.from_openpose(frames).landmarks, track.landmarks)


def test_smoothing_keeps_depth_and_drops_nothing(track):
    calm = smooth(track, 1.0)
    np.testing.assert_array_equal(calm.landmarks[..., 2:], track.landmarks[..., 2:])
    assert not np.allclose(calm.landmarks[..., :2], track.landmarks[..., :2])


def test_a_dropped_frame_tells_no_depth(track):
    assert not drop(track, np.array([False, True])).landmarks[1].any()


def test_landmarks_go_along_to_another_body(track):
    """Each landmark keeps its offset from the joint it hangs on, scaled; a joint's own lies on the joint."""
    own = landmarks.LANDMARK_CARRIERS
    for landmark in range(23, 29):
        track.landmarks[:, 0, landmark, :2] = track.keypoints[:, 0, own[landmark], :2]
    small = track_of((track.keypoints[:1] - 256) / 2 * [1, 1, 1] + [256, 256, 256.5])
    moved = retarget(track, small)
    scale = moved.cast[0].scale
    assert scale == pytest.approx(0.5, abs=0.02)
    np.testing.assert_allclose(moved.pose.landmarks[..., 3], scale * track.landmarks[..., 3])
    for landmark in range(23, 29):
        there = moved.pose.keypoints[:, 0, own[landmark], :2]
        np.testing.assert_allclose(moved.pose.landmarks[:, 0, landmark, :2], there)
    heel, ankle = track.landmarks[:, 0, 29, :2], track.keypoints[:, 0, 13, :2]
    moved_heel, moved_ankle = moved.pose.landmarks[:, 0, 29, :2], moved.pose.keypoints[:, 0, 13, :2]
    np.testing.assert_allclose(moved_heel - moved_ankle, scale * (heel - ankle), atol=1e-6)


def test_every_landmark_hangs_on_a_joint():
    assert sorted(landmarks.LANDMARK_CARRIERS) == list(range(33))


def test_a_list_of_another_length_is_told(track):
    frames = track.to_openpose()
    frames[1]["people"][0][KEY] = [0.0] * 99
    with pytest.raises(ValueError, match=f"{KEY} of person 0 in frame 1 must be 33 times x, y, visibility, z"):
        PoseTrack.from_openpose(frames)


def test_the_detector_gives_depth_from_the_hips(dance):
    found = detectors.load_blazepose(pack.ROOT / "weights" / "blazepose").follow(dance[:2])
    marks = found.pose.landmarks[0, 0]
    assert found.pose.landmarks.shape == (2, 1, 33, 4)
    np.testing.assert_allclose(marks[14, :2], found.pose.keypoints[0, 0, 3, :2])  # the right elbow
    assert abs(marks[[23, 24], 3].mean()) < 0.1 * np.ptp(marks[:, 1])
    assert np.ptp(marks[:, 3]) > 20
