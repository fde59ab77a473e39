"""Extract Pose, as the graph calls it, on a real dancer."""

import comfy.model_management
import numpy as np
import pytest
import torch
from animate_anywhere.nodes import feedback
from animate_anywhere.nodes import pose as nodes
from animate_anywhere.vision.detectors import load_blazepose


@pytest.fixture
def clip(dance):
    return dance[:6].clone()


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


def test_cancelling_stops_it(clip):
    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        extract(clip)


@pytest.mark.parametrize(
    ("frames", "text"), [([1, 1, 0, 1], "0-1, 3"), ([0, 0], ""), ([1], "0"), ([0, 1, 1, 1], "1-3")]
)
def test_frames_are_told_as_ranges(frames, text):
    assert feedback.ranges(np.array(frames, bool)) == text
