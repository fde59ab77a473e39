"""A rehearsal knows what the drawn clip shows."""

import numpy as np
import pytest
from animate_anywhere.training import rehearsal, stage
from animate_anywhere.training.sight import Sight
from animate_anywhere.vision import camera_path

SEEDS = range(10)


@pytest.fixture(scope="module")
def pairs():
    plans = [stage.draw_plan(seed, 13, (96, 96)) for seed in SEEDS]
    return [(stage.render_clip(plan), rehearsal.rehearse(plan)) for plan in plans]


def test_the_pose_is_that_of_the_drawn_clip(pairs):
    alike = []
    for clip, known in pairs:
        drawn, told = clip.pose.keypoints, known.pose.keypoints
        both = (drawn[..., 2] > 0) & (told[..., 2] > 0)
        np.testing.assert_array_equal(drawn[both], told[both])
        alike.append((drawn[..., 2] == told[..., 2]).mean())
    assert np.mean(alike) > 0.99  # leaves hide a little less than the ellipse around them
    assert np.mean([clip.told == known.told for clip, known in pairs]) >= 0.9  # a foot at the edge of a seat


def test_the_depth_is_that_of_the_drawn_clip(pairs):
    alike = []
    for clip, known in pairs:
        setting = stage.set_up(clip.plan)
        sight = Sight(setting.scene, setting.camera, setting.actor.pose["pelvis"] * [1, 1, 0])
        pixel = np.floor(rehearsal.grid(clip.plan)).astype(int)
        inverse = sight.inverse_depth(np.broadcast_to(pixel + 0.5, (13, *pixel.shape)))
        drawn = clip.background_depth.numpy()[:, pixel[:, 1], pixel[:, 0]]
        alike.append(np.abs(inverse * drawn - 1) < 0.01)
        assert known.before.shape == known.after.shape == (12, len(pixel), 2)
    assert np.mean(alike) > 0.97  # leaves, and edges that the renderer draws half a pixel wider


def test_the_motion_is_that_of_the_drawn_tracks(pairs):
    drawn, known = [], []
    for clip, rehearsed in pairs:
        visible = clip.visibility.numpy()
        tracks = np.where(visible[..., None], clip.tracks.numpy(), np.nan)
        drawn.append(camera_path.fit_steps(tracks[:-1], tracks[1:], 96, 96))
        known.append(rehearsed.steps)
    drawn, known = np.concatenate(drawn), np.concatenate(known)
    for part, least in enumerate((0.98, 0.9, 0.98, 0.9)):  # dy and roll are small; other points have other parallax
        assert np.corrcoef(drawn[:, part], known[:, part])[0, 1] > least


def test_a_zoom_scales_and_a_camera_on_its_stand_moves_nothing():
    kinds = {"zoom": [], "stand": []}
    for kind, found in kinds.items():
        for seed in range(6):  # some sway a little besides, as if held by hand
            known = rehearsal.rehearse(stage.draw_plan(seed, 13, camera=kind))
            focal = np.diff(np.log(known.camera.K[:, 0, 0]))
            found.append(np.abs(known.steps - np.stack([focal * part for part in (0, 0, 1, 0)], 1)).max())
    assert np.median(kinds["zoom"]) < 1e-9 and np.median(kinds["stand"]) < 1e-9
