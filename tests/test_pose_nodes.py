"""Extract Pose and Draw Pose, as the graph calls them, on a real dancer."""

import comfy.model_management
import numpy as np
import pytest
import torch
from animate_anywhere.nodes import feedback
from animate_anywhere.nodes import pose as nodes
from animate_anywhere.vision.detectors import load_blazepose
from animate_anywhere.vision.pose import PoseTrack


@pytest.fixture
def clip(dance):
    return dance[:6].clone()


def pose_of(frames, width, height):
    """Somebody in the middle of ``frames`` frames, as POSE_KEYPOINT."""
    joints = np.random.default_rng(0).uniform((width / 4, height / 4), (width / 2, height / 2), (18, 2))
    keypoints = np.column_stack([joints, np.ones(18)])
    return PoseTrack(np.repeat(keypoints[None, None], frames, axis=0), width, height).to_openpose()


def extract(images, smoothing=0.3):
    return nodes.ExtractPose.execute(images, "blazepose", smoothing)


def test_pose_mask_and_report_of_a_video(clip):
    output = extract(clip)
    pose, mask, report = output.result
    assert len(pose) == 6 and {(frame["canvas_width"], frame["canvas_height"]) for frame in pose} == {(350, 350)}
    assert mask.shape == (6, 350, 350) and (mask.amax(dim=(1, 2)) > 0.9).all()
    assert report == "6 frames of 350×350 px\nA person was seen in 6 of 6"
    assert output.ui.as_dict() == {"text": (report,)}


def test_gaps_are_filled_and_reported(clip):
    clip[[0, 1, 4]] = 0
    pose, mask, report = extract(clip).result
    assert all(frame["people"] for frame in pose)
    assert not mask[[0, 1, 4]].any()
    assert "seen in 3 of 6" in report and "0-1, 4 (the first frame is 0)" in report


def test_smoothing_of_0_is_the_pose_as_found(clip):
    found = load_blazepose(nodes.WEIGHTS).follow(clip).pose.to_openpose()
    assert extract(clip, smoothing=0).result[0] == found
    assert extract(clip, smoothing=0.5).result[0] != found


def test_one_picture_and_transparency_are_fine(clip):
    transparent = torch.cat([clip[:1], torch.zeros(1, 350, 350, 1)], dim=-1)
    assert extract(transparent).result[0] == extract(clip[:1]).result[0]


@pytest.mark.parametrize(
    ("shape", "message"),
    [((0, 64, 64, 3), "no picture"), ((64, 64, 3), "found 64×64×3"), ((2, 3, 64, 64), "found 2×3×64×64")],
)
def test_images_that_are_no_video_are_refused(shape, message):
    with pytest.raises(ValueError, match=f"^images: .*{message}"):
        extract(torch.zeros(shape))


def test_a_video_without_people_is_refused():
    with pytest.raises(ValueError, match="^images: no person was found in any of the 3 frames"):
        extract(torch.rand(3, 90, 160, 3))


def test_both_nodes_stop_when_the_artist_cancels(clip):
    pose = pose_of(1, 64, 64)
    for work in (lambda: extract(clip), lambda: nodes.DrawPose.execute(pose)):
        comfy.model_management.interrupt_current_processing(True)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            work()


def test_draw_pose_is_as_large_as_the_video_or_as_asked():
    pose = pose_of(2, 320, 200)
    assert nodes.DrawPose.execute(pose)[0].shape == (2, 200, 320, 3)
    assert nodes.DrawPose.execute(pose, 64, 48)[0].shape == (2, 48, 64, 3)


@pytest.mark.parametrize(
    ("width", "height", "named"), [(64, 0, "height"), (0, 64, "width"), (-1, 64, "width"), (64, -1, "height")]
)
def test_half_a_size_is_refused(width, height, named):
    with pytest.raises(ValueError, match=f"^{named}: {width}×{height} is no size"):
        nodes.DrawPose.execute(pose_of(1, 64, 64), width, height)


def test_an_empty_pose_is_refused():
    with pytest.raises(ValueError, match="^pose: .*empty list"):
        nodes.DrawPose.execute([])


@pytest.mark.parametrize(
    ("frames", "text"), [([1, 1, 0, 1], "0-1, 3"), ([0, 0], ""), ([1], "0"), ([0, 1, 1, 1], "1-3")]
)
def test_frames_are_told_as_ranges(frames, text):
    assert feedback.ranges(np.array(frames, bool)) == text
