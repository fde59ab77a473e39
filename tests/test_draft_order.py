"""Which layer is before which: by depth, with hysteresis, and by default."""

import draft_figures as figures
import numpy as np
import pytest
from animate_anywhere.vision.draft.order import Order, hysteresis, lifted_legs, read_depth

TRUNK = 80  # px of the drawn figure: 96 to 176


def order(depth, frames=1):
    return Order.of(read_depth(figures.track(frames=frames, depth=depth).landmarks[:, 0], frames))


@pytest.mark.parametrize(("depth", "behind"), [(0.3, False), (0.6, True)])
def test_an_arm_far_behind_the_trunk_is_drawn_first(depth, behind):
    names = order({14: depth * TRUNK, 16: depth * TRUNK}).layers(0, set())
    assert (names.index("right_arm") < names.index("core")) == behind
    assert names.index("left_arm") > names.index("core")


def test_the_nearer_arm_is_on_top():
    assert order({14: -30, 16: -30}).layers(0, set())[-1] == "right_arm"
    assert order({13: -30, 15: -30}).layers(0, set())[-1] == "left_arm"


def test_the_nearer_leg_is_on_top_of_the_other():
    right = order({26: -20, 28: -20}).layers(0, set())
    left = order({25: -20, 27: -20}).layers(0, set())
    assert right.index("right_leg") > right.index("left_leg")
    assert left.index("left_leg") > left.index("right_leg")


def test_a_lifted_leg_is_before_the_trunk():
    names = order({}).layers(0, {"left"})
    assert names.index("right_leg") < names.index("core") < names.index("left_leg")


def test_without_depth_legs_lie_under_the_trunk_and_arms_over_it():
    depth = read_depth(None, 3)
    assert not depth.known.any() and not depth.yaw.any()
    names = Order.of(depth).layers(2, set())
    assert names.index("core") == 2 and set(names[:2]) == {"right_leg", "left_leg"}


def test_frames_without_depth_take_the_nearest_ones():
    marks = figures.track(frames=5, depth={14: 60, 16: 60}).landmarks[:, 0]
    marks[3:] = 0
    depth = read_depth(marks, 5)
    assert depth.known.tolist() == [True] * 3 + [False] * 2
    np.testing.assert_allclose(depth.forearm["right"], depth.forearm["right"][0])


def test_depth_is_measured_in_trunks():
    marks = figures.track(depth={14: 40, 16: 40}).landmarks[:, 0]
    larger = marks * [3, 3, 1, 3]
    assert read_depth(marks, 1).forearm["right"] == pytest.approx(read_depth(larger, 1).forearm["right"])
    assert read_depth(marks, 1).forearm["right"][0] == pytest.approx(40 / 79, rel=0.05)


def test_a_value_that_trembles_between_both_bounds_changes_nothing():
    values = np.array([0.0, 0.3, 0.5, 0.3, 0.2, 0.44, 0.1, 0.3])
    assert hysteresis(values, 0.15, 0.45, False).tolist() == [False, False, True, True, True, True, False, False]


def test_the_yaw_is_that_of_the_shoulders():
    """The left shoulder 48 px beside the right one and 48 px farther back: 45 degrees."""
    assert read_depth(figures.track(depth={11: 48}).landmarks[:, 0], 1).yaw[0] == pytest.approx(np.pi / 4)


def test_a_thigh_that_points_at_the_camera_is_lifted():
    rest = figures.character().points
    assert lifted_legs(rest, rest, 1.0) == set()
    lifted = rest | {"left_knee": rest["left_hip"] + (8, 6)}
    assert lifted_legs(rest, lifted, 1.0) == {"left"}
