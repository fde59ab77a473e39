"""The motion head: any number of frames, people and pixels; its file; its confidence."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch
from animate_anywhere.models import pose_motion
from animate_anywhere.models.pose_motion import PoseMotion, Size

TOY = Size(width=32, blocks=2, heads=2, window=8, overlap=3)


@pytest.fixture
def network():
    return PoseMotion(TOY).eval()


def somebody(frames, people=1, width=128, height=96):
    """Joints [T, P, 18, 3] px that wander about."""
    steps = torch.randn(frames, people, 18, 2).cumsum(0)
    place = torch.rand(people, 18, 2) * torch.tensor([width, height]) + steps
    return torch.cat([place, torch.ones(frames, people, 18, 1)], dim=-1)


@pytest.mark.parametrize("frames", [1, 2, 5, 9, 10, 31])
def test_any_length_gives_a_step_between_frames(network, frames):
    motion = network.read(somebody(frames, 2), 128, 96)
    assert motion.steps.shape == motion.spread.shape == (frames - 1, 4)
    assert motion.confidence.shape == (frames - 1,)
    assert torch.isfinite(motion.steps).all() and (motion.spread > 0).all()
    assert ((motion.confidence >= 0) & (motion.confidence <= 1)).all()


def test_a_larger_canvas_moves_by_more_pixels_and_scales_alike(network):
    pose = somebody(7)
    one = network.read(pose, 128, 96)
    large = network.read(pose * torch.tensor([3.0, 3.0, 1.0]), 384, 288)
    torch.testing.assert_close(large.steps, one.steps * torch.tensor([3.0, 3, 1, 1]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(large.confidence, one.confidence, rtol=1e-3, atol=1e-4)


def test_windows_of_a_long_shot_join_without_a_jump(network):
    """In the middle of a window a step is what that window alone says; joints between windows mix both."""
    pose = somebody(25)
    whole = network.read(pose, 128, 96).steps
    first = network.read(pose[:9], 128, 96).steps  # one window of 8 steps
    torch.testing.assert_close(whole[:5], first[:5])  # the second window begins at step 5
    second = network.read(pose[5:14], 128, 96).steps
    between = torch.stack([first[5:8], second[:3]])
    assert ((whole[5:8] >= between.amin(0) - 1e-5) & (whole[5:8] <= between.amax(0) + 1e-5)).all()


def test_missing_joints_say_nothing(network):
    pose = somebody(6)
    pose[:, :, 4:] = 0
    other = pose.clone()
    other[:, :, 4:, :2] = 77.0
    torch.testing.assert_close(network.read(pose, 128, 96).steps, network.read(other, 128, 96).steps)


def test_several_people_are_joined_by_their_doubt(network):
    pose = somebody(6, 2)
    each = [network.read(pose[:, [person]], 128, 96) for person in (0, 1)]
    both = network.read(pose, 128, 96)
    weights = torch.stack([one.spread.double() ** -2 for one in each])
    expected = (torch.stack([one.steps for one in each]) * weights).sum(0) / weights.sum(0)
    torch.testing.assert_close(both.steps, expected.float(), rtol=1e-3, atol=1e-4)


def test_confidence_is_the_share_of_the_motion_that_is_told():
    steps = torch.tensor([[0.02, 0.0, 0.0, 0.0], [0.02, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    spread = torch.tensor([[0.001, 0, 0, 0], [0.02, 0, 0, 0], [0.0002, 0, 0, 0]])
    sure, half, rest = pose_motion.confidence_of(steps, spread, 1.0)
    assert sure > 0.99 and half == pytest.approx(0.5, abs=0.01)
    assert rest > 0.95  # known to rest


def test_the_file_brings_the_network_back(network, tmp_path):
    path = tmp_path / "head.safetensors"
    pose_motion.save(path, network, {"steps": 3})
    again, pose = pose_motion.load(path), somebody(5)
    torch.testing.assert_close(
        again.read(pose, 128, 96).steps, network.read(pose, 128, 96).steps, rtol=1e-2, atol=0.02
    )  # half precision in the file
    with safetensors.safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["animate_anywhere"])
    assert header["training"] == {"steps": 3} and header["size"]["width"] == 32


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="^method: other.safetensors is no motion head"):
        pose_motion.load(path)


def test_reading_can_be_stopped(network):
    told = []

    def stop(steps):
        told.append(steps)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        network.read(somebody(40), 128, 96, stop)
    assert told == [8]


def test_displacement_is_that_of_the_points_of_a_frame():
    """Root mean square over points spread evenly over a frame of 1.5 by 1, to first order in scale and roll."""
    steps = torch.tensor([0.01, -0.02, 0.03, 0.04])
    x, y = torch.meshgrid(torch.linspace(-0.75, 0.75, 301), torch.linspace(-0.5, 0.5, 201), indexing="ij")
    points = torch.complex(x, y)
    moved = points * torch.complex(steps[2], steps[3]) + torch.complex(steps[0], steps[1])
    assert torch.isclose(pose_motion.displacement(steps, 1.5), moved.abs().square().mean().sqrt(), rtol=0.01)


def test_it_follows_the_joint_that_it_weighs(network):
    """With everything else silent, the background moves as the joint that the weights choose."""
    velocity = torch.zeros(1, 3, 18, 2)
    velocity[0, :, 10] = torch.tensor([0.02, -0.01])
    both = torch.zeros(1, 3, 18, dtype=torch.bool)
    both[0, :, [10, 4]] = True
    weights = torch.zeros(1, 3, len(pose_motion.LAGS) * 18 + 1)
    weights[..., 2 * 18 + 10] = 50.0  # the ankle, now
    weights[..., 5] = 90.0  # a joint that is not seen counts for nothing
    followed = PoseMotion._followed(weights, velocity, both)
    np.testing.assert_allclose(followed[0], np.tile([0.02, -0.01], (3, 1)), atol=1e-6)
