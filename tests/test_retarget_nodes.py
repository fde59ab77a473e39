"""Retarget Pose, as the graph calls it."""

import math

import numpy as np
import pytest
from animate_anywhere.nodes import retarget as nodes
from animate_anywhere.vision.pose import PoseTrack

# Somebody who stands, from the front: OpenPose's 18 joints in body heights.
STANDING = [(0, 0.1), (0, 0.18), (-0.1, 0.18), (-0.12, 0.35), (-0.12, 0.5), (0.1, 0.18), (0.12, 0.35), (0.12, 0.5)]
STANDING += [(-0.05, 0.48), (-0.05, 0.73), (-0.05, 0.96), (0.05, 0.48), (0.05, 0.73), (0.05, 0.96)]
STANDING += [(-0.02, 0.08), (0.02, 0.08), (-0.04, 0.09), (0.04, 0.09)]


def pose_of(frames=3, tall=200.0, people=1, missing=()):
    keypoints = np.ones((frames, people, 18, 3))
    for person in range(people):
        keypoints[:, person, :, :2] = np.array(STANDING) * tall + [80 + 130 * person, 20]
    keypoints[:, :, list(missing)] = 0
    return PoseTrack(keypoints, 320, 240).to_openpose()


def test_pose_and_report_of_a_match():
    output = nodes.RetargetPose.execute(pose_of(), pose_of(1, tall=100.0))
    pose, report = output.result
    assert len(pose) == 3 and (pose[0]["canvas_width"], pose[0]["canvas_height"]) == (320, 240)
    assert report.startswith("0.50 times as large as in driving (torso 0.50, head 0.50,")
    assert "confidence 1.00 of 1" in report and "DOES NOT MATCH" not in report
    assert output.ui["text"] == (report,)


def test_what_does_not_match_comes_first_in_the_report():
    report = nodes.RetargetPose.execute(pose_of(people=2), pose_of(1, missing=(9, 10, 12, 13)))[1]
    lines = report.splitlines()
    assert lines[0] == "DOES NOT MATCH: the reference shows no knees and no ankles"
    assert any("several people: one got the body of the reference, 1 more" in line for line in lines)


def test_leaving_the_picture_is_told_with_the_way_out():
    report = nodes.RetargetPose.execute(pose_of(tall=100.0), pose_of(1, tall=200.0))[1]
    assert "joints leave the picture in 100% of the frames; set size to driving" in report
    assert "leave" not in nodes.RetargetPose.execute(pose_of(tall=100.0), pose_of(1), size="driving")[1]


def test_off_hands_the_pose_through():
    pose = pose_of()
    assert nodes.RetargetPose.execute(pose, pose_of(1, tall=100.0), "off", legs=2.0)[0] is pose


@pytest.mark.parametrize("mode", ["proportions", "off"])
def test_a_dropped_frame_of_the_driving_pose_changes_nothing(mode):
    def places(driving, **rest):
        pose = nodes.RetargetPose.execute(driving, pose_of(1), mode, **rest)[0]
        return np.array([frame["people"][0]["pose_keypoints_2d"] for frame in pose]).reshape(3, 18, 3)[..., :2]

    wrong = pose_of()
    arm = wrong[1]["people"][0]["pose_keypoints_2d"]
    arm[3 * 4 : 3 * 4 + 2] = [5.0, 5.0]
    assert np.abs(places(wrong) - places(pose_of())).max() > 20
    np.testing.assert_allclose(places(wrong, dropped_frames="1"), places(pose_of()), atol=1e-6)
    with pytest.raises(ValueError, match="^dropped_frames: 3 is not among the frames 0 to 2"):
        places(wrong, dropped_frames="3")


@pytest.mark.parametrize("socket", ["driving", "reference"])
def test_an_empty_pose_is_told_by_its_socket(socket):
    given = {"driving": pose_of(), "reference": pose_of(1)} | {socket: []}
    with pytest.raises(ValueError, match=f"^{socket}: expected a list with one entry a frame, found an empty list"):
        nodes.RetargetPose.execute(**given)


@pytest.mark.parametrize("socket", ["driving", "reference"])
def test_nobody_is_refused(socket):
    nobody = PoseTrack(np.zeros((2, 0, 18, 3)), 320, 240).to_openpose()
    with pytest.raises(ValueError, match=f"^{socket}: there is nobody in any of its 2 frames"):
        nodes.RetargetPose.execute(**({"driving": pose_of(), "reference": pose_of(1)} | {socket: nobody}))


@pytest.mark.parametrize("factor", [0.0, -1.0, math.nan])
def test_a_limb_of_no_length_is_refused(factor):
    with pytest.raises(ValueError, match=r"^legs: .* Use a number from 0\.1 to 10"):
        nodes.RetargetPose.execute(pose_of(), pose_of(1), legs=factor)
