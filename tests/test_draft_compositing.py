"""The draft's pixels over the place: blending, shadow, light; and how everything is placed on its canvas."""

import draft_figures as figures
import numpy as np
import pytest
import torch
from animate_anywhere.vision.camera_path import CameraPath
from animate_anywhere.vision.draft.compositing import draw_over, foot_shadow, light_gain
from animate_anywhere.vision.draft.deformation import Target
from animate_anywhere.vision.draft.place import MovedPicture, Video, cover
from animate_anywhere.vision.draft.placement import fit_pose, place_path, place_pose

ONE = np.ones(3, np.float32)


def test_a_person_is_blended_by_its_alpha():
    place = np.full((4, 4, 3), 0.8, np.float32)
    person = np.zeros((4, 4, 4), np.float32)
    person[1, 2] = 0.1, 0.2, 0.3, 0.5  # colors times alpha
    found = draw_over(place, person, ONE)
    np.testing.assert_allclose(found[1, 2], (0.5, 0.6, 0.7), atol=1e-6)
    np.testing.assert_array_equal(found[0], place[0])
    assert (place == np.float32(0.8)).all()


def test_light_cannot_burn_a_soft_edge():
    person = np.float32([[[0.4, 0.4, 0.4, 0.5]]])
    assert draw_over(np.zeros((1, 1, 3), np.float32), person, 3 * ONE).max() <= 0.5


def standing(lift=0.0):
    points = figures.character().points
    for name in ("toe", "heel"):
        points = points | {f"left_{name}": points[f"left_{name}"] - (0, lift)}
    return Target(points, 1.0)


def test_the_ground_is_dark_under_both_feet_and_nowhere_else():
    dark = foot_shadow(standing(), 80, (figures.WIDTH, figures.HEIGHT))
    x = [int(standing().points[f"{side}_toe"][0]) for side in ("right", "left")]
    assert dark[294, x].min() > 0.5 and dark[:220].max() < 0.02
    assert dark.shape == (figures.HEIGHT, figures.WIDTH) and dark.max() <= 1


def test_a_lifted_foot_has_a_fainter_shadow():
    size, x = (figures.WIDTH, figures.HEIGHT), int(standing().points["left_toe"][0])
    lifted = foot_shadow(standing(40), 80, size)
    assert lifted[254, x] < 0.3 and foot_shadow(standing(), 80, size)[294, x] > 0.5


def test_without_feet_there_is_no_shadow():
    assert foot_shadow(Target({"neck": np.zeros(2)}, 1.0), 80, (20, 20)) is None


def test_the_light_of_a_place_is_its_cast_times_its_brightness():
    """Against the formula by hand: a red place half as bright, at full strength and at a quarter."""
    place = np.tile(np.float32([0.3, 0.2, 0.1]), (64, 64, 1))
    colors = np.full((50, 3), 0.25, np.float32)
    wanted = np.array([1.5, 1.0, 0.5]) * 0.8
    np.testing.assert_allclose(light_gain(colors, place, 1.0), wanted, rtol=1e-4)
    np.testing.assert_allclose(light_gain(colors, place, 0.25), wanted**0.25, rtol=1e-4)
    np.testing.assert_allclose(light_gain(colors, place, 0.0), 1.0)


def test_a_dark_place_does_not_black_a_person_out():
    assert light_gain(np.ones((9, 3), np.float32), np.full((8, 8, 3), 0.01, np.float32), 1.0).min() >= 0.59


def test_a_pose_is_placed_without_stretching_anybody():
    track = figures.track(depth={16: 30})
    placed = place_pose(track, (1000, 640))
    np.testing.assert_allclose(placed.keypoints[0, 0, 4, :2], 2 * np.array(figures.STANDING[4]) + (260, 0))
    np.testing.assert_allclose(placed.landmarks[0, 0, 16, 3], 60)
    missing = track.keypoints.copy()
    missing[0, 0, 4] = 0
    assert not place_pose(type(track)(missing, 240, 320), (1000, 640)).keypoints[0, 0, 4].any()


def test_a_path_moves_the_placed_points_as_it_moved_the_pose():
    path = CameraPath.from_steps(np.array([[5.0, -2.0, 0.1, 0.05]]), 240, 320)
    points = np.array([[30.0, 40.0], [200.0, 300.0]])
    scale, shift = 2.0, np.array([260.0, 0.0])
    moved = place_path(path, (1000, 640)).carry(scale * points + shift)
    np.testing.assert_allclose(moved[1], scale * path.carry(points)[1] + shift)


@pytest.mark.parametrize("retarget", [True, False])
def test_the_scale_is_that_of_the_bodies(retarget):
    """A driver twice as tall: each px of the picture is two of the frame."""
    double = {joint: (2 * x, 2 * y) for joint, (x, y) in figures.STANDING.items()}
    driver = figures.track(double, frames=3, width=480, height=640)
    fitted = fit_pose(driver, figures.track(), retarget)
    np.testing.assert_allclose(fitted.scale, 2.0, rtol=0.01)
    np.testing.assert_allclose(fitted.track.keypoints[0, 0, :, :2], driver.keypoints[0, 0, :, :2], atol=2)


def test_a_body_that_comes_nearer_grows():
    driver = figures.track(frames=20)
    middle = np.array([120.0, 176.0])
    growth = np.linspace(1, 2, 20)[:, None, None, None]
    driver.keypoints[..., :2] = middle + growth * (driver.keypoints[..., :2] - middle)
    scale = fit_pose(driver, figures.track(), True).scale
    assert (np.diff(scale) > 0).all() and scale[-1] / scale[0] > 1.6


def test_a_picture_that_covers_is_cut_around_its_middle():
    image = np.zeros((10, 40, 3), np.float32)
    image[:, 15:25] = 1
    np.testing.assert_array_equal(cover(image, (10, 10)), np.ones((10, 10, 3)))
    assert cover(image, (40, 10)) is image
    assert cover(image, (30, 30)).shape == (30, 30, 3)


def test_a_video_is_held_at_its_end_and_before_its_start():
    frames = torch.arange(3.0)[:, None, None, None].expand(3, 4, 4, 3) / 4
    video = Video(frames, (4, 4), lead_in=2)
    assert [float(video.frame(t)[0, 0, 0]) for t in (0, 1, 2, 3, 4, 9)] == [0, 0, 0, 0.25, 0.5, 0.5]


def test_a_picture_moves_by_its_path_after_the_lead_in():
    image = torch.rand(1, 40, 60, 3)
    path = CameraPath.from_steps(np.array([[3.0, 0.0, 0.0, 0.0]]), 60, 40)
    place = MovedPicture(image, path, (60, 40), lead_in=2)
    first = place.frame(0)
    np.testing.assert_array_equal(place.frame(2), first)
    np.testing.assert_allclose(place.frame(3)[:, 10:50], first[:, 7:47], atol=1e-4)
    np.testing.assert_array_equal(place.frame(8), place.frame(3))
