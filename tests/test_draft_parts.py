"""Which part of the body each pixel is of."""

import draft_figures as figures
import numpy as np
import pytest
from animate_anywhere.vision.draft.parts import find_parts, step_graph
from scipy.sparse.csgraph import dijkstra


@pytest.fixture(scope="module")
def parts():
    return find_parts(figures.character())


@pytest.mark.parametrize("name", [name for name in figures.COLORS if name not in ("head", "trunk")])
def test_most_of_a_limb_is_its_own(parts, name):
    """The drawn limbs differ in color; joints are rounded, so that bones share a little."""
    colors, _ = figures.picture()
    own = (np.abs(colors - np.float32(figures.COLORS[name])) < 0.01).all(axis=-1)
    assert parts.are(name)[own].mean() > 0.75


@pytest.mark.parametrize("name", ["head", "trunk"])
def test_head_and_trunk_are_their_own(parts, name):
    colors, _ = figures.picture()
    own = (np.abs(colors - np.float32(figures.COLORS[name])) < 0.01).all(axis=-1)
    assert parts.are(name)[own].mean() > 0.75


def test_hands_and_feet_are_at_the_ends(parts):
    marks = figures.landmarks(figures.STANDING, {})
    for name, landmark in (("right_hand", 20), ("left_hand", 19), ("right_foot", 32), ("left_foot", 31)):
        x, y = marks[landmark, :2].astype(int)
        assert parts.are(name)[y - 6 : y + 7, x - 6 : x + 7].any(), name


def test_radii_are_those_of_the_drawn_limbs(parts):
    for name, (_, _, half) in figures.BONES.items():
        for side in ("right", "left"):
            assert parts.radius[f"{side}_{name}"] == pytest.approx(1.15 * half, rel=0.25)


def test_the_way_is_measured_within_the_figure_and_not_across_a_gap():
    """An arm close beside the trunk, parted from it by a slit: its hand stays the arm's."""
    joints = figures.STANDING | {3: (82, 140), 4: (80, 182)}
    character = figures.character(joints)
    hand = find_parts(character).are("right_hand", "right_forearm")
    x, y = joints[4]
    assert hand[y - 4 : y + 5, x - 6 : x + 3].mean() > 0.9


def test_a_step_costs_its_length_and_its_change_of_color():
    """Against the sums by hand on a picture of 3 by 3 with one white column."""
    picture = np.zeros((3, 3, 3), np.float32)
    picture[:, 2] = 1
    graph, index = step_graph(np.ones((3, 3), bool), picture, 6.0)
    way = dijkstra(graph, directed=False, indices=index[0, 0])
    change = 6.0 * np.sqrt(3)
    wanted = {
        (0, 1): 1,
        (2, 0): 2,
        (1, 1): np.sqrt(2),
        (0, 2): 1 + 1 + change,
        (2, 2): np.sqrt(2) + np.sqrt(2) * (1 + change),
    }
    for place, cost in wanted.items():
        # From column 1 to the white one straight is cheaper than diagonally.
        cost = min(cost, 1 + np.sqrt(2) + 1 + change) if place == (2, 2) else cost
        assert way[index[place]] == pytest.approx(cost)


def test_there_is_no_way_outside():
    inside = np.array([[True, False, True]])
    graph, index = step_graph(inside, np.zeros((1, 3, 3), np.float32), 6.0)
    assert graph.nnz == 0 and index.tolist() == [[0, -1, 1]]
