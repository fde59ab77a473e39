"""Outlines that tremble and run beside the picture's edges, mended, against a figure whose outline is known."""

import cv2
import numpy as np
import pytest
import torch
from animate_anywhere.vision import outline
from scene import wall

SIZE = (96, 128)
FRAMES = 8


@pytest.fixture(scope="module")
def figure():
    """Somebody who walks before a wall: frames [T, H, W, 3], the true mask, and a coarse one that trembles."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    back, cloth = wall(*SIZE) * 0.5, 0.5 + 0.5 * wall(*SIZE, seed=5)
    frames, truth, rough = [], [], []
    for t in range(FRAMES):
        inside = (((x - 40 - 3 * t) / 18) ** 2 + ((y - 50) / 34) ** 2 < 1).astype(np.float32)
        frames.append(np.where(inside[..., None] > 0, np.roll(cloth, 3 * t, axis=1), back))
        truth.append(inside)
        rough.append(coarse(inside, rng))
    return torch.from_numpy(np.stack(frames).astype(np.float32)), np.stack(truth), np.stack(rough)


def coarse(inside, rng):
    """As a network gives it that sees each frame alone: at a quarter of the size, a pixel or two off, wavy."""
    dx, dy = rng.uniform(-2, 2, 2)
    moved = cv2.warpAffine(inside, np.array([[1, 0, dx], [0, 1, dy]]), SIZE[::-1])
    waves = cv2.resize(rng.standard_normal((6, 8)).astype(np.float32), SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    small = cv2.resize(moved, (SIZE[1] // 4, SIZE[0] // 4), interpolation=cv2.INTER_AREA)
    soft = cv2.resize(small, SIZE[::-1], interpolation=cv2.INTER_LINEAR)
    return np.clip(soft + 0.25 * waves * (soft > 0.05) * (soft < 0.95), 0, 1)


def overlap(mask, truth):
    one, other = mask > 0.5, truth > 0.5
    return (one & other).sum() / (one | other).sum()


def trembling(mask, truth):
    """How many pixels turn right or wrong from frame to frame: what moves with the figure is no trembling."""
    return np.abs(np.diff((mask > 0.5) - truth, axis=0)).sum() / np.abs(np.diff(truth, axis=0)).sum()


def test_votes_calm_the_outline_and_lose_nothing(figure):
    frames, truth, rough = figure
    calm = rough.copy()
    done = []
    outline.steady(frames, calm, 1.0, done.append)
    assert done == list(range(1, FRAMES + 1))
    # Five independent votes would leave 0.45 of it; but two of them come from places that the flow only guesses.
    assert trembling(calm, truth) < 0.75 * trembling(rough, truth)
    assert 1 - overlap(calm, truth) < 0.75 * (1 - overlap(rough, truth))


def test_no_strength_leaves_the_mask_as_it_is(figure):
    frames, _, rough = figure
    same = rough.copy()
    outline.steady(frames, same, 0.0)
    assert np.allclose(same, rough, atol=1e-6)


def test_a_neighbour_that_shows_something_else_has_no_vote(figure):
    frames, truth, _ = figure
    cut = torch.cat([frames[:2], torch.rand(2, *SIZE, 3, generator=torch.Generator().manual_seed(0))])
    mask = np.concatenate([truth[:2], np.zeros((2, *SIZE), np.float32)])
    outline.steady(cut, mask, 1.0)
    assert overlap(mask[1], truth[1]) > 0.97
    assert mask[2:].max() < 0.5


def test_the_outline_moves_to_the_edge_of_the_picture(figure):
    frames, truth, rough = figure
    drawn = np.stack([outline.refine(frame.numpy(), mask) for frame, mask in zip(frames, rough)])
    missed, before = 1 - overlap(drawn, truth), 1 - overlap(rough, truth)
    assert missed < 0.8 * before
    far = rough == 0
    assert np.abs(drawn - rough)[far].max() < 0.6 and drawn.min() >= 0 and drawn.max() <= 1


@pytest.mark.parametrize("colours", [1.0, 0.0], ids=["coloured", "grey"])
def test_the_filter_is_the_ridge_regression_of_each_window(colours):
    """He et al. 2013, eq. 19 and 20, solved window by window in float64; a grey guide is nearly singular."""
    rng, size, window = np.random.default_rng(3), (24, 32), 7
    grey = cv2.GaussianBlur(rng.random(size), (0, 0), 2)[..., None]
    guide = np.float32(grey + colours * cv2.GaussianBlur(rng.random((*size, 3)), (0, 0), 2))
    target = np.float32(cv2.GaussianBlur(rng.random(size), (0, 0), 2))
    found = outline.guided_filter(guide, target, window)

    around = np.pad(np.dstack([guide, target]).astype(float), [(window // 2,) * 2] * 2 + [(0, 0)], mode="reflect")
    lines = np.empty((*size, 4))
    for y, x in np.ndindex(size):
        pixels = around[y : y + window, x : x + window].reshape(-1, 4)
        (middle, average), off = np.split(pixels.mean(axis=0), [3]), pixels - pixels.mean(axis=0)
        cov = off.T @ off / len(pixels)
        slope = np.linalg.solve(cov[:3, :3] + outline.SMOOTH * np.eye(3), cov[:3, 3])
        lines[y, x] = *slope, average.item() - slope @ middle
    lines = cv2.blur(lines, (window, window))
    assert np.abs(np.dstack(found) - lines).max() < 1e-3 * np.abs(lines).max()


def test_nobody_in_the_picture_stays_nobody():
    mask = np.zeros(SIZE, np.float32)
    assert np.array_equal(outline.refine(wall(*SIZE), mask), mask)


def test_cancelling_stops(figure):
    frames, _, rough = figure

    def cancel(done):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        outline.steady(frames, rough.copy(), 1.0, cancel)
