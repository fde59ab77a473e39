import pytest
import torch
from animate_anywhere.models import pose_motion
from animate_anywhere.models.clips import GREY
from animate_anywhere.training import evaluate, stage


@pytest.fixture(scope="module")
def head():
    """A motion head that reads two pixels to the right out of every pose of 48 px."""
    network = pose_motion.PoseMotion().eval().requires_grad_(False)
    for layer in (network.motion, network.follow):
        layer.weight.zero_()
        layer.bias.zero_()
    network.motion.bias[0] = 2 / 48 * pose_motion.VELOCITY
    network.follow.bias[-1] = 1e4  # no joint is followed
    return network


def test_the_explicit_way_moves_the_picture_as_the_head_reads_it(head):
    clip = stage.render_clip(stage.draw_plan(3, 5, (64, 48)))
    moved = evaluate.move_background(head, clip)
    assert torch.allclose(moved[2, :, 4:], clip.background[0, :, :-4], atol=1e-3)
    assert torch.allclose(moved[2, :, :3], torch.full_like(moved[2, :, :3], GREY))
