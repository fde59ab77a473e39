"""Where vertices go: at rest nowhere, with a similarity along, and a bent limb's bones onto the target's."""

import draft_figures as figures
import numpy as np
import pytest
from animate_anywhere.vision.draft.deformation import Target, deform
from animate_anywhere.vision.draft.layers import cut_layers

CHARACTER = figures.character()
LAYERS = cut_layers(CHARACTER)


def moved(points=None, **target):
    return deform(CHARACTER, LAYERS, Target({**CHARACTER.points, **(points or {})}, **target))


def near(name, place, reach=7):
    """The vertices of a layer around a place of the picture."""
    at = LAYERS.by_name[name].mesh.vertices
    return np.linalg.norm(at - place, axis=1) < reach


@pytest.mark.parametrize("name", list(LAYERS.by_name))
def test_in_its_own_pose_nothing_moves(name):
    at = moved(scale=1.0)[name]
    np.testing.assert_allclose(at, LAYERS.by_name[name].mesh.vertices, atol=1e-6)


@pytest.mark.parametrize("name", list(LAYERS.by_name))
def test_a_figure_that_is_larger_and_elsewhere_is_moved_as_a_picture(name):
    points = {key: 1.5 * place + (40, -20) for key, place in CHARACTER.points.items()}
    at = moved(points, scale=1.5)[name]
    np.testing.assert_allclose(at, 1.5 * LAYERS.by_name[name].mesh.vertices + (40, -20), atol=1e-6)


def test_a_leaning_figure_is_turned_as_a_picture():
    """Head and trunk by 0.3 rad about the hips, against the rotation itself; feet keep to the ground."""
    hips, turn = CHARACTER.points["hips"], np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    points = {key: (place - hips) @ turn.T + hips for key, place in CHARACTER.points.items()}
    at = moved(points, scale=1.0)["core"]
    upper = LAYERS.by_name["core"].mesh.vertices[:, 1] < 140
    wanted = (LAYERS.by_name["core"].mesh.vertices - hips) @ turn.T + hips
    np.testing.assert_allclose(at[upper], wanted[upper], atol=0.5)


@pytest.mark.parametrize(("side", "sign"), [("right", -1), ("left", 1)])
def test_a_raised_forearm_lies_on_the_targets_bone(side, sign):
    points = CHARACTER.points
    elbow, wrist = points[f"{side}_elbow"], points[f"{side}_wrist"]
    up = np.array([sign * 10.0, -42.0])
    goal = {f"{side}_wrist": elbow + up, f"{side}_hand": elbow + 1.3 * up}
    at = moved(goal, scale=1.0)[f"{side}_arm"]
    middle = near(f"{side}_arm", (elbow + wrist) / 2)
    assert np.linalg.norm(at[middle].mean(axis=0) - (elbow + up / 2)) < 4
    above = near(f"{side}_arm", (points[f"{side}_shoulder"] + elbow) / 2)
    still = LAYERS.by_name[f"{side}_arm"].mesh.vertices[above]
    assert np.abs(at[above] - still).max() < 3


def test_a_limb_keeps_its_breadth_when_it_is_foreshortened():
    knee, ankle = CHARACTER.points["left_knee"], CHARACTER.points["left_ankle"]
    short = knee + 0.5 * (ankle - knee)
    shift = short - ankle
    goal = {f"left_{name}": CHARACTER.points[f"left_{name}"] + shift for name in ("ankle", "toe", "heel")}
    at = moved(goal, scale=1.0)["left_leg"]
    shin = near("left_leg", (knee + ankle) / 2, 16)
    before = LAYERS.by_name["left_leg"].mesh.vertices[shin]
    assert np.ptp(at[shin, 0]) == pytest.approx(np.ptp(before[:, 0]), rel=0.1)
    assert np.ptp(at[shin, 1]) == pytest.approx(0.5 * np.ptp(before[:, 1]), rel=0.2)


def test_from_behind_the_figure_is_mirrored():
    """Right and left of the target are swapped: the character's right arm is at the frame's right."""
    middle = CHARACTER.points["hips"][0]
    points = {key: np.array([2 * middle - place[0], place[1]]) for key, place in CHARACTER.points.items()}
    at = moved(points, scale=1.0, mirrored=True)
    for name, layer in LAYERS.by_name.items():
        wanted = layer.mesh.vertices.copy()
        wanted[:, 0] = 2 * middle - wanted[:, 0]
        np.testing.assert_allclose(at[name], wanted, atol=0.5, err_msg=name)


def test_a_face_follows_the_nose():
    right = {"nose": CHARACTER.points["nose"] + (9, 0)}
    face = near("core", CHARACTER.points["nose"])
    shift = (moved(right, scale=1.0)["core"] - moved(scale=1.0)["core"])[face].mean(axis=0)
    assert shift[0] > 2 and abs(shift[1]) < 1


def test_a_turned_chest_bulges_to_its_side():
    chest = near("core", (120, 140), 8)
    shift = (moved(scale=1.0, yaw=0.6)["core"] - moved(scale=1.0)["core"])[chest].mean(axis=0)
    assert shift[0] > 3 and abs(shift[1]) < 0.5


def test_a_raised_arm_does_not_snap_around():
    """Lifted sideways in small steps from hanging to overhead and beyond, no vertex jumps."""
    shoulder = CHARACTER.points["right_shoulder"]
    upper = np.linalg.norm(CHARACTER.points["right_elbow"] - shoulder)
    before, largest = None, 0.0
    for angle in np.linspace(0.5, 1.8, 53) * np.pi:  # clockwise on screen: down is π/2, up 3π/2
        way = np.array([np.cos(angle), np.sin(angle)])
        names = {"elbow": 1.0, "wrist": 1.9, "hand": 2.3}
        at = moved({f"right_{n}": shoulder + r * upper * way for n, r in names.items()}, scale=1.0)["right_arm"]
        largest = max(largest, 0.0 if before is None else np.abs(at - before).max())
        before = at
    assert largest < 2.5 * 2.6 * upper * (1.3 * np.pi / 52)


def test_shoulders_never_become_a_line():
    """A driver from the side has shoulders without breadth; a paper figure keeps some."""
    neck = CHARACTER.points["neck"]
    at = moved({"right_shoulder": neck, "left_shoulder": neck}, scale=1.0)["core"]
    row = np.abs(LAYERS.by_name["core"].mesh.vertices[:, 1] - 110) < 4
    before = np.ptp(LAYERS.by_name["core"].mesh.vertices[row, 0])
    assert 0.5 * before < np.ptp(at[row, 0]) < before
