"""Near things shift against far ones: points and pictures of two planes whose depths are known exactly."""

import numpy as np
import pytest
from animate_anywhere.vision import mask as masks
from animate_anywhere.vision import parallax, plate, sweep
from animate_anywhere.vision.alignment import align
from scene import past_posts, psnr, step_in, walker, wall

SIZE = (120, 200)
FRAMES = 16


def points_of(depths, frames=8, noise=0.0, seed=0):
    """N points with ``depths`` [N] before a camera that walks to the right: keyframe 0, sightings, homographies."""
    random = np.random.default_rng(seed)
    points = random.uniform([0, 0], SIZE[::-1], (len(depths), 2))
    sightings = []
    for t in range(1, frames):
        there = points + t * np.array([2.0, 0.3]) + depths[:, None] * t * np.array([1.5, 0.2])
        there += noise * random.standard_normal(there.shape)
        sightings.append(parallax.Sighting(0, t, np.arange(len(depths)), there))
    to_shot = np.tile(np.eye(3), (frames, 1, 1))
    to_shot[:, 0, 2], to_shot[:, 1, 2] = -2.0 * np.arange(frames), -0.3 * np.arange(frames)
    return {0: points}, sightings, to_shot, np.zeros(frames, int), SIZE[1]


def test_depths_and_epipoles_explain_where_points_went():
    depths = np.repeat([0.0, 1.0, 2.5], 30)
    points, sightings, to_shot, shot, size = points_of(depths, noise=0.05)
    found = parallax.solve(points, sightings, to_shot, shot, size)
    scale = found.depths[0][60:].mean() / 2.5  # only the product of depth and epipole is in the picture
    assert np.allclose(found.depths[0] / scale, depths, atol=0.05)
    assert np.allclose(found.epipoles[7] * scale, [7 * 1.5, 7 * 0.2, 0], atol=0.2)


def test_a_point_that_moves_by_itself_does_not_bend_the_others():
    depths = np.repeat([0.0, 2.0], 30)
    points, sightings, *rest = points_of(depths)
    for sighting in sightings:
        sighting.there[:5] += sighting.frame * np.array([-3.0, 4.0])
    found = parallax.solve(points, sightings, *rest)
    assert np.allclose(found.depths[0][30:] / found.depths[0][30:].mean(), 1, atol=0.02)
    assert np.abs(found.depths[0][5:30]).max() < 0.02 * abs(found.depths[0][30:].mean())


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_one_plane_has_no_depth(noise):
    assert parallax.solve(*points_of(np.zeros(60), noise=noise)) is None


def test_points_at_random_have_no_depth():
    points, sightings, *rest = points_of(np.zeros(60), noise=4.0)
    assert parallax.solve(points, sightings, *rest) is None


def test_a_sweep_finds_the_depth_at_which_pictures_agree():
    picture = wall(40, 60)
    truth = np.where(np.arange(60) < 30, 1.0, 3.0)

    def look(level):
        shown = [np.stack([np.roll(picture, round(k * (level - d)), axis=1)[:, x] for x, d in enumerate(truth)], 1)
                 for k in range(3)]  # fmt: skip
        return np.stack(shown), np.ones((3, 40, 60), bool)

    depth = sweep.depth_map(np.linspace(0, 4, 9), look)
    assert (np.abs(depth - truth) < 0.3).mean() > 0.9


def test_levels_are_no_finer_than_pictures_can_tell():
    assert sweep.levels(1.0, 2.0, slope=0.1).tolist() == [1.5]
    assert len(sweep.levels(0.0, 1.0, slope=3.0)) == 5
    assert len(sweep.levels(0.0, 1.0, slope=1e6)) == sweep.LEVELS


@pytest.fixture(scope="module")
def walked():
    background, mask = past_posts(FRAMES, SIZE), walker(FRAMES, SIZE)
    return background, step_in(background, mask), mask


def test_a_walk_past_posts_is_filled_by_depth(walked, monkeypatch):
    background, frames, mask = walked
    hidden = masks.grow(mask, 4)
    result = plate.clean_background(frames, mask, grow=4)
    assert result.alignment.parallax is not None
    first = plate.clean_background(frames, mask, grow=4, method="telea")
    deep = psnr(result.frames, background, hidden)
    assert deep > psnr(first.frames, background, hidden) + 6  # what a plate must bring over inventing
    monkeypatch.setattr(parallax, "LEFT_OVER", 1.1)  # one plane for all
    flat = plate.clean_background(frames, mask, grow=4)
    assert flat.alignment.parallax is None
    assert deep > psnr(flat.frames, background, hidden) + 4  # 7.7 dB were measured on a larger one


def test_depths_of_a_frame_lie_on_its_posts(walked):
    _, frames, mask = walked
    alignment = align(frames, mask.numpy() > 0)
    points, depths = alignment.depths(8)
    there = alignment.place(np.array([4]), 8, points, depths)[0]
    straight = alignment.place(np.array([4]), 8, points, np.zeros(len(points)))[0]
    moved = np.linalg.norm(there - straight, axis=1)
    assert np.quantile(moved, 0.25) < 0.7  # the wall; corners of posts are many, too
    # The posts: 4 frames at 2 px a frame, 0.6 times faster than the wall, are 4.8 px. A window on a post's edge sees
    # both, and a depth that few frames tell of is held back.
    assert 2.4 < np.quantile(moved, 0.97) < 6.3
