"""Draw Pose, as the graph calls it."""

import comfy.model_management
import numpy as np
import pytest
import torch
from animate_anywhere.nodes import drawing as nodes
from animate_anywhere.vision.pose import PoseTrack


def pose_of(frames, width, height):
    """Somebody in the middle of ``frames`` frames, as POSE_KEYPOINT."""
    joints = np.random.default_rng(0).uniform((width / 4, height / 4), (width / 2, height / 2), (18, 2))
    keypoints = np.column_stack([joints, np.ones(18)])
    return PoseTrack(np.repeat(keypoints[None, None], frames, axis=0), width, height).to_openpose()


def test_draw_pose_is_as_large_as_the_video_or_as_asked():
    pose = pose_of(2, 320, 200)
    assert nodes.DrawPose.execute(pose)[0].shape == (2, 200, 320, 3)
    assert nodes.DrawPose.execute(pose, 64, 48)[0].shape == (2, 48, 64, 3)


@pytest.mark.parametrize(("width", "height", "named"), [(64, 0, "height"), (0, 64, "width")])
def test_half_a_size_is_refused(width, height, named):
    with pytest.raises(ValueError, match=f"^{named}: {width}×{height} is no size"):
        nodes.DrawPose.execute(pose_of(1, 64, 64), width, height)


@pytest.mark.parametrize(("width", "height", "named"), [(-1, 64, "width"), (64, -1, "height")])
def test_a_negative_size_is_refused(width, height, named):
    with pytest.raises(ValueError, match=f"^{named}: -1 lies outside its range"):
        nodes.DrawPose.execute(pose_of(1, 64, 64), width, height)


def test_an_empty_pose_is_refused():
    with pytest.raises(ValueError, match="^pose: .*empty list"):
        nodes.DrawPose.execute([])


def test_cancelling_stops_it():
    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        nodes.DrawPose.execute(pose_of(1, 64, 64))


def test_the_drawing_lies_over_the_images_in_the_style_asked_for():
    images = torch.full((2, 100, 160, 4), 0.5)
    over = nodes.DrawPose.execute(pose_of(2, 320, 200), style="plain", images=images)[0]
    assert over.shape == (2, 100, 160, 3) and (over == 0.5).any() and (over != 0.5).any()
    assert torch.equal(nodes.DrawPose.execute(pose_of(2, 320, 200), images=images, opacity=0.0)[0], images[..., :3])


def test_a_size_may_be_told_again_with_images():
    images = torch.zeros(1, 100, 160, 3)
    assert nodes.DrawPose.execute(pose_of(3, 320, 200), 160, 100, images=images)[0].shape == (3, 100, 160, 3)


@pytest.mark.parametrize(
    ("shape", "size", "message"),
    [
        ((3, 200, 320, 3), (0, 0), "images: there are 3, but the pose has 2 frames"),
        ((2, 200, 200, 3), (0, 0), "images: they are 200×200, but the pose was made for 320×200"),
        ((2, 100, 160, 3), (320, 200), "width: 320×200 was asked for, but .* as large as these, 160×100"),
        ((0, 200, 320, 3), (0, 0), "images: there is no picture"),
    ],
)
def test_images_that_the_pose_does_not_fit_are_refused(shape, size, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        nodes.DrawPose.execute(pose_of(2, 320, 200), *size, images=torch.zeros(shape))
