"""The draft's alpha and the character's own colors at its edge."""

import cv2
import numpy as np
import pytest
from animate_anywhere.vision.draft.foreground import foreground_colors
from animate_anywhere.vision.draft.matte import refine_matte

RED, GREEN = np.float32([0.8, 0.2, 0.1]), np.float32([0.1, 0.5, 0.2])


@pytest.fixture(scope="module")
def scene():
    """A red shape before a green ground with grain: (picture, true alpha, a mask that is coarse and shifted)."""
    alpha = np.zeros((300, 200), np.float32)
    cv2.ellipse(alpha, (100, 150), (45, 110), 0, 0, 360, 1, -1)
    alpha = cv2.GaussianBlur(alpha, (0, 0), 0.8)
    picture = alpha[..., None] * RED + (1 - alpha[..., None]) * GREEN
    picture = (picture + np.random.default_rng(0).normal(0, 0.02, picture.shape)).clip(0, 1).astype(np.float32)
    coarse = cv2.GaussianBlur(np.roll(alpha, 3, axis=1), (0, 0), 4)
    return picture, alpha, coarse


def overlap(one, other):
    one, other = one > 0.5, other > 0.5
    return (one & other).sum() / (one | other).sum()


def test_the_outline_is_drawn_to_the_edges_of_the_picture(scene):
    picture, alpha, coarse = scene
    found = refine_matte(picture, coarse)
    assert overlap(coarse, alpha) < 0.97 < 0.99 < overlap(found, alpha)
    assert found.dtype == np.float32 and found.min() >= 0 and found.max() <= 1


def test_the_edge_is_narrow(scene):
    """A blurred edge would leave a halo of the old place around the character."""
    picture, alpha, coarse = scene
    found = refine_matte(picture, coarse)
    soft = ((found > 0.05) & (found < 0.95)).sum()
    assert soft < 4 * (cv2.Canny((alpha > 0.5).astype(np.uint8) * 255, 50, 100) > 0).sum()


def test_the_same_picture_gives_the_same_bits(scene):
    picture, _, coarse = scene
    cv2.setRNGSeed(7)
    first = refine_matte(picture, coarse)
    cv2.setRNGSeed(8)
    np.testing.assert_array_equal(refine_matte(picture, coarse), first)


def test_nobody_stays_nobody(scene):
    picture, alpha, _ = scene
    assert not refine_matte(picture, np.zeros_like(alpha)).any()


def test_a_mask_that_fills_the_picture_stays_full(scene):
    picture, alpha, _ = scene
    assert refine_matte(picture, np.ones_like(alpha)).min() > 0.99


def test_the_edge_has_the_characters_color_and_not_the_old_places(scene):
    picture, alpha, _ = scene
    edge = (alpha > 0.1) & (alpha < 0.9)
    found = foreground_colors(picture, alpha, 220)
    assert np.abs(picture[edge] - RED).mean() > 0.15
    assert np.abs(found[edge] - RED).mean() < 0.05


def test_colors_go_on_beyond_the_edge(scene):
    picture, alpha, _ = scene
    found = foreground_colors(picture, alpha, 220)
    outside = (alpha < 0.01) & (cv2.dilate(alpha, np.ones((15, 15))) > 0.9)
    assert np.abs(found[outside] - RED).mean() < 0.05


def test_the_blend_of_front_and_place_is_the_picture(scene):
    """Forte 2021, eq. 1: I = αF + (1-α)B, with the true B."""
    picture, alpha, _ = scene
    found = foreground_colors(picture, alpha, 220)
    again = alpha[..., None] * found + (1 - alpha[..., None]) * GREEN
    assert np.abs(again - picture)[alpha > 0.3].mean() < 0.02
