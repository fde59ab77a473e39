"""Following the camera by the background: against virtual cameras whose path is known exactly."""

import numpy as np
import pytest
import torch
from animate_anywhere.vision.alignment import align, displacement
from scene import camera, film, step_in, walker, wall

SIZE = (180, 320)


def nobody(frames: int) -> np.ndarray:
    return np.zeros((frames, *SIZE), bool)


def worst_error(alignment, path) -> float:
    """px, over all frames and the whole picture, against the true ``path`` [T, 3, 3]."""
    truth = np.linalg.inv(path[0]) @ path
    return max(displacement(np.linalg.inv(a) @ b, SIZE).max() for a, b in zip(alignment.to_shot, truth))


@pytest.mark.parametrize("kind", ["pan", "zoom"])
def test_a_moving_camera_is_followed_past_a_walking_person(kind):
    path = camera(kind, 24, SIZE)
    mask = walker(24, SIZE)
    alignment = align(step_in(film(wall(360, 640), path, SIZE), mask), mask.numpy())
    assert not alignment.still
    assert alignment.cuts == alignment.blind == ()
    # A third of a pixel in the corners, where errors are largest: what is put in place that well does not look blurred.
    assert worst_error(alignment, path) < 0.33


def test_motion_is_in_pixels_a_frame():
    path = np.tile(np.eye(3), (10, 1, 1))
    path[:, 0, 2] = 100 + 2.5 * np.arange(10)
    assert align(film(wall(360, 640), path, SIZE), nobody(10)).motion() == pytest.approx(2.5, abs=0.05)


def test_a_camera_on_a_tripod_stands_exactly_despite_noise():
    frames = film(wall(360, 640), camera("still", 10, SIZE), SIZE)
    alignment = align((frames + 0.02 * torch.randn(frames.shape)).clamp(0, 1), nobody(10))
    assert alignment.still
    assert np.array_equal(alignment.to_shot, np.tile(np.eye(3), (10, 1, 1)))
    assert alignment.motion() == 0


def test_a_person_who_fills_most_of_the_picture_does_not_drag_the_camera():
    background = film(wall(360, 640), camera("still", 8, SIZE), SIZE)
    crowd = film(wall(360, 640, seed=1), camera("pan", 8, SIZE), SIZE)
    mask = torch.zeros(8, *SIZE)
    mask[:, 30:, 40:280] = 1
    assert align(torch.where(mask[..., None] > 0, crowd, background), mask.numpy()).still


def test_a_cut_starts_a_new_shot():
    frames = torch.cat([film(wall(360, 640, seed), camera("still", 5, SIZE), SIZE) for seed in (0, 1)])
    alignment = align(frames, nobody(10))
    assert alignment.cuts == (5,)
    assert alignment.shot.tolist() == [0] * 5 + [1] * 5


def test_a_background_without_texture_is_told_and_taken_as_standing():
    alignment = align(torch.full((4, *SIZE, 3), 0.5), nobody(4))
    assert alignment.blind == (0, 1, 2, 3)
    assert np.array_equal(alignment.to_shot[3], np.eye(3))


def test_the_camera_is_found_again_after_a_frame_that_shows_no_background():
    path = camera("pan", 9, SIZE)
    hidden = nobody(9)
    hidden[4] = True
    alignment = align(film(wall(360, 640), path, SIZE), hidden)
    assert alignment.blind == (4,)
    assert alignment.cuts == ()
    others = [t for t in range(9) if t != 4]
    truth = np.linalg.inv(path[0]) @ path
    errors = [displacement(np.linalg.inv(alignment.to_shot[t]) @ truth[t], SIZE).max() for t in others]
    assert max(errors) < 0.25


def test_a_large_picture_is_followed_at_a_smaller_working_size():
    size = (540, 1200)
    path = np.tile(np.eye(3), (3, 1, 1))
    path[:, 0, 2] = [50, 57.25, 64.5]
    alignment = align(film(wall(700, 1400), path, size), np.zeros((3, *size), bool))
    assert displacement(alignment.to_shot[2], size) == pytest.approx(14.5, abs=0.15)
