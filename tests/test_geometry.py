"""Epipolar geometry against restatements of it, point by point and token by token."""

import math

import numpy as np
import pytest
import torch
from animate_anywhere.vision import geometry
from animate_anywhere.vision.geometry import Cameras

GRID = (4, 6, 9)  # token frames, rows, columns
TOKEN = 16
DEEPEST = 8.0  # how far the farthest things of the scene are from a camera


def turn(axis: str, angle: float) -> np.ndarray:
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = math.cos(angle)
    matrix[i, j], matrix[j, i] = -math.sin(angle), math.sin(angle)
    return matrix


def camera(rotation=None, centre=(0, 0, 0), focal=120.0, middle=None) -> tuple[np.ndarray, ...]:
    """K, R, t of a camera that stands at ``centre`` and looks along z before it is turned."""
    rotation = np.eye(3) if rotation is None else rotation
    x, y = middle or (GRID[2] * TOKEN / 2, GRID[1] * TOKEN / 2)
    return np.array([[focal, 0, x], [0, focal * 1.1, y], [0, 0, 1]]), rotation, -rotation @ np.array(centre, float)


def cameras(*clips) -> Cameras:
    """Lists of camera() -> Cameras [B, t]."""
    return Cameras(*(torch.tensor(np.stack([[c[part] for c in clip] for clip in clips])) for part in range(3)))


def wandering(seed: int) -> list:
    """A camera that walks, turns, rolls and zooms at random, one pose a token frame."""
    rng = np.random.default_rng(seed)
    poses = []
    for _ in range(GRID[0]):
        rotation = turn("x", rng.normal(0, 0.15)) @ turn("y", rng.normal(0, 0.2)) @ turn("z", rng.normal(0, 0.1))
        middle = (GRID[2] * TOKEN * rng.uniform(0.4, 0.6), GRID[1] * TOKEN * rng.uniform(0.4, 0.6))
        poses.append(camera(rotation, rng.normal(0, 0.6, 3), rng.uniform(90, 180), middle))
    return poses


def token(frame: int, row: int, column: int) -> int:
    return (frame * GRID[1] + row) * GRID[2] + column


def lit(mask: torch.Tensor) -> set[tuple[int, int]]:
    """Places (row, column) of a mask [h, w]."""
    return {tuple(place) for place in mask.nonzero().tolist()}


def disc(row: float, column: float) -> set[tuple[int, int]]:
    """Tokens whose centres are within the default distance of a point that is given in tokens."""
    return {
        (r, c)
        for r in range(GRID[1])
        for c in range(GRID[2])
        if math.hypot(r + 0.5 - row, c + 0.5 - column) <= geometry.HALF_WIDTH
    }


def test_fundamental_matrix_equals_its_formula_and_vanishes_on_the_two_views_of_a_point():
    first, second = wandering(0)[:2]
    K_i, R_i, t_i = first
    K_j, R_j, t_j = second
    R = R_j @ R_i.T
    t = t_j - R @ t_i
    cross = np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]])
    expected = np.linalg.inv(K_j).T @ cross @ R @ np.linalg.inv(K_i)
    shot = cameras([first, second])
    actual = geometry.fundamental_matrix(shot[0, 0], shot[0, 1])
    assert np.allclose(actual, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    points = torch.randn(50, 3) + torch.tensor([0.0, 0.0, 6.0])
    (seen, _), (there, _) = shot[0, 0].project(points), shot[0, 1].project(points)
    lines = geometry.epipolar_lines(shot[0, 0], shot[0, 1], seen)
    distance = (lines * torch.cat([there, torch.ones(50, 1)], dim=1)).sum(1)
    assert distance.abs().max() < 1e-9  # px


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("half_width", [0.5, geometry.HALF_WIDTH])
def test_mask_equals_the_distance_to_the_line_of_every_token_one_by_one(seed, half_width):
    """Random cameras, two clips at once; tokens nearer than 1e-9 to the rim are left to rounding."""
    clips = [wandering(seed), wandering(100 + seed)]
    queries = torch.randint(math.prod(GRID), (2, 12), generator=torch.Generator().manual_seed(seed))
    mask = geometry.epipolar_mask(cameras(*clips), queries, GRID, TOKEN, half_width)
    assert mask.shape == (2, 12, *GRID)
    for b, q, j in np.ndindex(2, 12, GRID[0]):
        i, row, column = np.unravel_index(int(queries[b, q]), GRID)
        if i == j:
            continue
        (K_i, R_i, t_i), (K_j, R_j, t_j) = clips[b][i], clips[b][j]
        ray = R_i.T @ np.linalg.inv(K_i) @ [(column + 0.5) * TOKEN, (row + 0.5) * TOKEN, 1]
        start = -R_i.T @ t_i  # two points of the query's ray, as frame j sees them, span the line
        one, other = (K_j @ (R_j @ (start + depth * ray) + t_j) for depth in (1.0, 2.0))
        line = np.cross(one, other)
        for r, c in np.ndindex(*GRID[1:]):
            centre = [(c + 0.5) * TOKEN, (r + 0.5) * TOKEN, 1]
            distance = abs(line @ centre) / math.hypot(*line[:2]) / TOKEN
            if abs(distance - half_width) > 1e-9:
                assert bool(mask[b, q, j, r, c]) == (distance <= half_width)


def shown(shot: Cameras, seed: int, spread: float) -> tuple[int, int]:
    """How many of the views of world points are in the band of a token that shows them, and how many there are.

    The points are at any depth, on rays through query tokens of ``shot`` [1, t]: through their centres (``spread`` 0)
    to anywhere within them (1).
    """
    generator, count = torch.Generator().manual_seed(seed), 400
    queries = torch.randint(math.prod(GRID), (1, count), generator=generator)
    mask = geometry.epipolar_mask(shot, queries, GRID, TOKEN)
    frame, place = queries[0] // (GRID[1] * GRID[2]), queries[0] % (GRID[1] * GRID[2])
    source = shot[0][frame]
    inside = 0.5 + spread * (torch.rand(2, count, generator=generator, dtype=torch.float64) - 0.5)
    pixels = torch.stack([place % GRID[2] + inside[0], place // GRID[2] + inside[1]], 1) * TOKEN
    depth = 0.5 + DEEPEST * torch.rand(count, 1, generator=generator)
    rays = torch.linalg.solve(source.intrinsics, torch.cat([pixels, torch.ones(count, 1)], 1)[..., None])[..., 0]
    world = torch.einsum("qji,qj->qi", source.rotation, rays * depth - source.translation)
    there = total = 0
    for j in range(GRID[0]):
        pixels, before = shot[0, j].project(world)
        column, row = (pixels // TOKEN).long().unbind(1)
        seen = (frame != j) & (before > 0) & (column >= 0) & (column < GRID[2]) & (row >= 0) & (row < GRID[1])
        there += int(mask[0, seen, j, row[seen], column[seen]].sum())
        total += int(seen.sum())
    return there, total


@pytest.mark.parametrize("seed", range(4))
def test_what_the_centre_of_a_query_shows_always_lies_in_its_band(seed):
    there, total = shown(cameras(wandering(seed)), seed, spread=0)
    assert there == total > 300


def test_nearly_all_that_a_query_shows_lies_in_its_band():
    """99.9 %: a zoom spreads a token over several, with only their middle on the line. Half a diagonal gives 92 %."""
    counts = [shown(cameras(wandering(seed)), seed, spread=1) for seed in range(12)]
    assert sum(there for there, _ in counts) >= 0.999 * sum(total for _, total in counts)


def test_a_resting_camera_matches_each_token_with_its_own_place():
    """The stage and SLAM move the world's origin about; the pose's own rounding must not become motion."""
    pose = camera(turn("y", 0.3), (3.0, -7.0, 2.0))
    shot = cameras([pose] * GRID[0])
    shot = Cameras(shot.intrinsics.float(), shot.rotation.float(), shot.translation.float())
    shot.translation[:, 1] += 1e-6
    mask = geometry.epipolar_mask(shot, torch.tensor([[token(0, 2, 3), token(3, 5, 8)]]), GRID, TOKEN)
    for j in range(GRID[0]):
        assert lit(mask[0, 0, j]) == disc(2.5, 3.5)
        assert lit(mask[0, 1, j]) == disc(5.5, 8.5)


def test_a_turning_camera_matches_each_token_with_the_place_that_it_turned_to():
    angle = 2 * TOKEN / 120.0  # about two tokens at this focal length
    shot = cameras([camera(turn("y", -angle * i), (1.0, 2.0, 3.0)) for i in range(GRID[0])])
    mask = geometry.epipolar_mask(shot, torch.tensor([[token(0, 3, 6)]]), GRID, TOKEN)
    middle = GRID[2] / 2
    here = math.atan((6.5 - middle) * TOKEN / 120.0)
    for j in range(GRID[0]):
        there = math.tan(here - angle * j) * 120.0 / TOKEN + middle
        lower = 3.0 + 0.5 * math.cos(here) / math.cos(here - angle * j)  # a token off the horizon, and perspective
        assert lit(mask[0, 0, j]) == disc(lower, there)


def test_a_zoom_matches_each_token_with_the_place_that_it_grew_to():
    shot = cameras([camera(focal=120.0 * (1 + 0.25 * i)) for i in range(GRID[0])])
    mask = geometry.epipolar_mask(shot, torch.tensor([[token(0, 3, 6)]]), GRID, TOKEN)
    for j in range(GRID[0]):
        grown = 1 + 0.25 * j
        assert lit(mask[0, 0, j]) == disc(3.0 + 0.5 * grown, 4.5 + 2.0 * grown)


def test_a_camera_that_turned_away_has_no_match():
    """F would be zero, and its line everywhere; the homography's point is behind the camera."""
    shot = cameras([camera(turn("y", angle)) for angle in (0, math.pi, math.pi - 0.1, 2.5)])
    mask = geometry.epipolar_mask(shot, torch.tensor([[token(0, 3, 4)]]), GRID, TOKEN)
    assert not mask[0, 0, 1:].any()
    assert mask[0, 0, 0].any()


def test_a_dolly_matches_the_place_that_it_drives_towards_with_itself():
    """The query at the epipole: F x is zero, and the line through it is anything."""
    middle = ((4 + 0.5) * TOKEN, (3 + 0.5) * TOKEN)
    shot = cameras([camera(centre=(0, 0, 0.3 * i), middle=middle) for i in range(GRID[0])])
    mask = geometry.epipolar_mask(shot, torch.tensor([[token(0, 3, 4), token(0, 3, 7)]]), GRID, TOKEN)
    for j in range(1, GRID[0]):
        assert lit(mask[0, 0, j]) == disc(3.5, 4.5)
        assert lit(mask[0, 1, j]) == {(r, c) for r in (2, 3, 4) for c in range(GRID[2])}  # its row and one about


def test_the_band_is_a_small_part_of_a_real_picture():
    """45 frames of 1360×768: l ≪ hw (section III-C)."""
    grid = (6, 48, 85)
    path = [camera(turn("y", 0.02 * i), (0.1 * i, 0, 0.05 * i), 1000.0, (680, 384)) for i in range(grid[0])]
    queries = torch.randint(math.prod(grid), (1, 64), generator=torch.Generator().manual_seed(0))
    mask = geometry.epipolar_mask(cameras(path), queries, grid, TOKEN)
    assert mask.double().mean() < 0.06


def test_cameras_that_do_not_match_the_tokens_are_refused():
    with pytest.raises(ValueError, match="1 clips × 3 token frames"):
        geometry.epipolar_mask(cameras(wandering(0)), torch.zeros(1, 1, dtype=torch.long), (3, 6, 9), TOKEN)
    with pytest.raises(ValueError, match=r"\(2, 3, 3\), \(1, 3, 3\)"):
        Cameras(torch.eye(3).expand(2, 3, 3), torch.eye(3)[None], torch.zeros(2, 3))
