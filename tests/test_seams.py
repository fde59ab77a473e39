"""Figures of how windows join, on scenes whose motion is known, and their plot."""

import numpy as np
import pytest
import scene
import torch
from animate_anywhere.vision import seams
from animate_anywhere.vision.registration import register

SIZE = (180, 320)


@pytest.fixture(scope="module")
def wall():
    return scene.wall(2 * SIZE[0], 2 * SIZE[1])


def view(wall, x, y):
    path = np.eye(3)[None].copy()
    path[0, :2, 2] = x, y
    return scene.film(wall, path, SIZE)[0]


def test_seam_error_is_in_steps_of_eight_bits(wall):
    frame = view(wall, 0, 0) * 0.9
    assert seams.seam_error(frame, frame) == 0
    assert seams.seam_error(frame + 2 / 255, frame) == pytest.approx(2, abs=1e-3)
    with pytest.raises(ValueError, match="handed over"):
        seams.seam_error(frame, frame[:-2])


@pytest.mark.parametrize("moved", [(0.0, 0.0), (1.7, 0.6), (60.0, 20.0)])
def test_flow_is_the_backgrounds_and_not_the_persons(wall, moved):
    """Somebody covers a quarter of the picture and stays in its middle, as whoever is followed by a camera does."""
    mask = torch.zeros(1, *SIZE)
    mask[:, :, 120:200] = 1
    before, after = (scene.step_in(view(wall, *place)[None], mask)[0] for place in ((90, 80), np.add((90, 80), moved)))
    # Points on the edge of somebody whom no mask tells of rest, and pull a little where that is within the tolerance.
    assert seams.flow(before, after) == pytest.approx(np.hypot(*moved), abs=0.15)
    assert seams.flow(before, after, mask[0], mask[0].numpy()) == pytest.approx(np.hypot(*moved), abs=0.1)


def test_there_is_no_flow_across_a_cut(wall):
    assert seams.flow(view(wall, 0, 0), torch.from_numpy(scene.wall(*SIZE, seed=5))) is None


def test_a_view_is_found_however_far_the_camera_went(wall):
    """Zoomed in by 1.5, rolled by 20° and moved aside at once."""
    turn, zoom = np.radians(20), 1 / 1.5
    place = np.eye(3)
    place[:2] = [[zoom * np.cos(turn), -zoom * np.sin(turn), 220], [zoom * np.sin(turn), zoom * np.cos(turn), 130]]
    far = scene.film(wall, place[None], SIZE)[0]
    found = register(view(wall, 160, 90), far)
    start = np.eye(3)
    start[:2, 2] = 160, 90
    true = np.linalg.inv(place) @ start
    corners = np.array([[160, 90, 1], [250, 90, 1], [250, 140, 1]]).T
    there, should = (matrix @ corners for matrix in (found, true))
    assert np.abs(there[:2] / there[2] - should[:2] / should[2]).max() < 0.5  # px


def row(index, **known):
    return {
        "index": index,
        "start": 28 * index,
        "length": 29,
        "drift": None,
        "drift_before": None,
        "seam": None,
    } | known


def has(plot, colour, panel):
    top, bottom = panel
    return bool((np.rint(plot[0, top:bottom].numpy() * 255) == colour).all(-1).any())


def test_the_plot_shows_what_is_known():
    rows = [row(i, drift=0.3, drift_before=1.0 + i, seam=None if i == 0 else 1.5) for i in range(5)]
    plot = seams.plot(rows)
    assert plot.shape == (1, 720, 1280, 3) and plot.min() >= 0 and plot.max() == 1
    assert has(plot, seams.BEFORE, seams.DRIFT_PANEL) and has(plot, seams.AFTER, seams.DRIFT_PANEL)
    assert has(plot, seams.SEAM, seams.SEAM_PANEL)


def test_the_plot_leaves_out_what_is_not_known():
    plot = seams.plot([row(0), row(1)])
    assert not any(has(plot, colour, seams.DRIFT_PANEL) for colour in (seams.BEFORE, seams.AFTER))
    assert not has(plot, seams.SEAM, seams.SEAM_PANEL)


@pytest.mark.parametrize("windows", [1, 200])
def test_the_plot_has_room_for_any_number_of_windows(windows):
    plot = seams.plot([row(i, drift=0.01 * i, drift_before=12.0, seam=i % 7) for i in range(windows)])
    assert has(plot, seams.BEFORE, seams.DRIFT_PANEL) and has(plot, seams.SEAM, seams.SEAM_PANEL) == (windows > 1)
