"""Camera paths: steps between frames, homographies from the first, points that are carried along."""

import numpy as np
import pytest
from animate_anywhere.vision.camera_path import CameraPath, fit_steps, similarities

SIZE = (320, 180)
STEPS = np.random.default_rng(0).normal(0, [3, 2, 0.02, 0.01], (7, 4))


def test_steps_survive_the_homographies():
    path = CameraPath.from_steps(STEPS, *SIZE)
    assert len(path) == 8 and np.array_equal(path.homographies[0], np.eye(3))
    np.testing.assert_allclose(path.steps, STEPS, atol=1e-9)


def test_a_step_turns_and_grows_about_the_middle_and_then_shifts():
    middle, right = np.array([[160.0, 90.0]]), np.array([[170.0, 90.0]])
    path = CameraPath.from_steps(np.array([[5.0, -2.0, np.log(2.0), np.pi / 2]]), *SIZE)
    np.testing.assert_allclose(path.carry(middle)[1], middle + np.array([5, -2]))
    np.testing.assert_allclose(path.carry(right)[1], middle + np.array([5, 18]))  # clockwise: right goes down


def test_points_are_carried_from_the_first_frame_to_each():
    points = np.array([[10.0, 20.0], [300.0, 170.0]])
    expected = [points]
    for step in similarities(STEPS, *SIZE):
        expected.append(expected[-1] @ step[:2, :2].T + step[:2, 2])
    np.testing.assert_allclose(CameraPath.from_steps(STEPS, *SIZE).carry(points), expected, atol=1e-9)


def test_steps_of_a_perspective_are_those_at_the_middle():
    tilt = np.array([[1.02, 0.01, 3.0], [-0.01, 1.0, -2.0], [2e-5, 1e-5, 1.0]])
    path = CameraPath(np.stack([np.eye(3), tilt]), *SIZE, np.ones(2))
    middle = np.array([[160.0, 90.0]])
    near = middle + np.array([1e-3, 0.0])
    dx, dy, scale, roll = path.steps[0]
    np.testing.assert_allclose([[dx, dy]], path.carry(middle)[1] - middle)
    along = (path.carry(near)[1] - path.carry(middle)[1]) / 1e-3
    assert np.exp(scale) == pytest.approx(np.linalg.norm(along), abs=0.02)  # the tilt also shears a little
    assert roll == pytest.approx(np.arctan2(along[0, 1], along[0, 0]), abs=0.02)


def test_another_size_moves_alike():
    path = CameraPath.from_steps(STEPS, *SIZE, np.full(7, 0.5))
    large = path.resized(640, 720)
    points = np.array([[10.0, 20.0], [300.0, 170.0]])
    np.testing.assert_allclose(large.carry(points * [2, 4]), path.carry(points) * [2, 4], atol=1e-9)
    assert (large.width, large.height) == (640, 720) and large.confidence[1:].tolist() == [0.5] * 7


@pytest.mark.parametrize(("frames", "sure"), [((3, 3), 3), ((2, 3, 3), 3), ((0, 3, 3), 0)])
def test_parts_that_do_not_belong_together_are_refused(frames, sure):
    with pytest.raises(ValueError, match="^camera_path: "):
        CameraPath(np.zeros(frames), *SIZE, np.ones(sure))


def test_steps_are_read_from_points():
    before = np.random.default_rng(1).uniform(0, 180, (7, 20, 2))
    moves = similarities(STEPS, *SIZE)
    after = before @ moves[:, :2, :2].transpose(0, 2, 1) + moves[:, None, :2, 2]
    after[2, :5], before[3, 7:] = np.nan, np.nan
    np.testing.assert_allclose(fit_steps(before, after, *SIZE), STEPS, atol=1e-9)


def test_without_points_nothing_moves():
    before = np.full((1, 3, 2), np.nan)
    before[0, 0] = 5
    assert not fit_steps(before, before + 3, *SIZE).any()
