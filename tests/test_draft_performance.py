"""What the character does in each frame: gaps, cuts, people who leave, and what a driver does not show."""

from dataclasses import replace

import draft_figures as figures
import numpy as np
import pytest
from animate_anywhere.vision.draft.body import body_points, fill_missing
from animate_anywhere.vision.draft.lead_in import add_lead_in
from animate_anywhere.vision.draft.performance import complete, drawn_frames, perform, runs
from animate_anywhere.vision.pose import FILLED

CHARACTER = figures.character()


def walking(frames=12, step=4.0, depth=None):
    """The figure moving to the right by ``step`` px a frame."""
    track = figures.track(frames=frames, depth=depth)
    track.keypoints[..., 0] += step * np.arange(frames)[:, None, None]
    if track.landmarks is not None:
        track.landmarks[..., 0] += step * np.arange(frames)[:, None, None]
    return track


def performance(track):
    return perform(CHARACTER, track, np.ones(len(track.keypoints)), None)


def emptied(track, frames, joints=slice(None)):
    keypoints = track.keypoints.copy()
    keypoints[frames, :, joints] = 0
    return replace(track, keypoints=keypoints)


def test_the_points_are_those_of_the_pose():
    done = performance(walking())
    np.testing.assert_allclose(done.targets[3].points["right_wrist"], np.add(figures.STANDING[4], (12, 0)) - 0.5)
    assert done.present.all() and not done.mirrored.any()


def test_who_is_away_is_not_drawn():
    done = performance(emptied(walking(), [4, 5]))
    assert np.flatnonzero(~done.present).tolist() == [4, 5]


def test_nothing_is_carried_over_an_absence():
    """A hand that is not seen after the absence comes from the picture, not from before it."""
    track = emptied(walking(step=0), [5])
    track.keypoints[:5, 0, 4, :2] += (-30, -60)
    track = emptied(track, slice(6, None), 4)
    after = performance(track).targets[8].points
    own = CHARACTER.points["right_wrist"] - CHARACTER.points["right_elbow"]
    np.testing.assert_allclose(after["right_wrist"] - after["right_elbow"], own)


def test_nothing_is_carried_over_a_cut():
    track = walking(step=0)
    track.keypoints[6:, ..., 0] += 200
    track.keypoints[:6, 0, 4, :2] += (-30, -60)
    track = emptied(track, slice(6, None), 4)
    after = performance(track).targets[6].points
    own = CHARACTER.points["right_wrist"] - CHARACTER.points["right_elbow"]
    np.testing.assert_allclose(after["right_wrist"] - after["right_elbow"], own)


def test_a_joint_that_is_hidden_for_a_while_moves_on_its_limb():
    track = emptied(walking(), [4, 5], 4)
    wrist = np.stack([target.points["right_wrist"] for target in performance(track).targets])
    np.testing.assert_allclose(np.diff(wrist, axis=0), np.tile([4.0, 0.0], (11, 1)), atol=1e-9)


@pytest.mark.parametrize(("length", "there"), [(10, True), (11, False)])
def test_a_gap_is_believed_as_long_as_the_detector_fills_it(length, there):
    track = walking(frames=20)
    track.keypoints[4 : 4 + length, ..., 2] = FILLED
    assert drawn_frames(track)[4 : 4 + length].all() == there
    assert drawn_frames(track)[[0, 19]].all()


def test_legs_that_the_driver_never_shows_hang_as_in_the_picture():
    track = emptied(walking(), slice(None), [9, 10, 12, 13])
    points = performance(track).targets[0].points
    for joint in ("knee", "ankle", "toe"):
        np.testing.assert_allclose(points[f"left_{joint}"], CHARACTER.points[f"left_{joint}"])


def test_a_driver_from_behind_shows_the_mirrored_character():
    track = walking()
    track.keypoints[..., 0] = 240 - track.keypoints[..., 0]
    assert performance(track).mirrored.all()


def test_missing_points_are_mirrored_and_scaled_with_the_figure():
    rest = CHARACTER.points
    points = {name: np.full(2, np.nan) for name in rest} | {"neck": np.array([50.0, 60.0])}
    done = complete(points, rest, 2.0, mirrored=True)
    np.testing.assert_allclose(done["hips"] - done["neck"], 2 * (rest["hips"] - rest["neck"]) * (-1, 1))
    np.testing.assert_allclose(done["left_hand"] - done["neck"], 2 * (rest["left_hand"] - rest["neck"]) * (-1, 1))


def test_depth_is_told_where_it_is_known():
    assert performance(walking(depth={})).depth_known.all()
    assert not performance(walking()).depth_known.any()


def test_the_trunk_turns_by_the_difference_to_the_pictures_turn():
    turned = perform(CHARACTER, walking(depth={11: 20}), np.ones(12), figures.landmarks(figures.STANDING, {11: 20}))
    assert turned.targets[5].yaw == pytest.approx(0, abs=1e-6)
    assert performance(walking(depth={11: 20})).targets[5].yaw == pytest.approx(np.arctan2(20, 48))


def test_runs_of_frames():
    assert runs(np.array([1, 1, 0, 0, 1], bool)) == [(0, 2), (4, 5)]
    assert runs(np.zeros(3, bool)) == []


def test_points_fill_from_their_carriers():
    points = body_points(emptied(walking(frames=3), [1], slice(2, 5)), 0)
    filled = fill_missing(points)
    shoulder = np.add(figures.STANDING[2], (4, 0)) - 0.5
    np.testing.assert_allclose(filled["right_shoulder"][1], shoulder)


class TestLeadIn:
    """Frames in which the character goes from its own pose to the driver's first."""

    own = figures.track(figures.STANDING | {4: (30, 100)}, depth={})

    def lead_in(self, count=6, scale=1.0):
        return add_lead_in(walking(depth={}), self.own, scale, count)

    def test_it_starts_with_the_pictures_pose_on_the_drivers_ground(self):
        track = self.lead_in(scale=1.5)
        feet = track.keypoints[0, 0, [10, 13], :2].mean(axis=0)
        np.testing.assert_allclose(feet, walking().keypoints[0, 0, [10, 13], :2].mean(axis=0))
        wrist = track.keypoints[0, 0, 4, :2] - track.keypoints[0, 0, 3, :2]
        np.testing.assert_allclose(wrist, 1.5 * np.subtract((30, 100), figures.STANDING[3]))

    def test_the_drivers_frames_follow_unchanged(self):
        track = self.lead_in()
        assert len(track.keypoints) == 18 and len(track.landmarks) == 18
        np.testing.assert_array_equal(track.keypoints[6:], walking().keypoints)

    def test_bones_keep_their_length_on_the_way(self):
        track = add_lead_in(walking(), figures.track(figures.STANDING | {4: (72 - 20, 136 - 36)}), 1.0, 8)
        bones = np.linalg.norm(track.keypoints[:8, 0, 4, :2] - track.keypoints[:8, 0, 3, :2], axis=1)
        np.testing.assert_allclose(bones, np.hypot(20, 36), rtol=1e-6)

    def test_landmarks_go_with_their_joints(self):
        track = self.lead_in()
        np.testing.assert_allclose(track.landmarks[:6, 0, 16, :2], track.keypoints[:6, 0, 4, :2])

    def test_none_is_none_and_nobody_gets_none(self):
        assert len(self.lead_in(count=0).keypoints) == 12
        assert len(add_lead_in(emptied(walking(), [0]), self.own, 1.0, 6).keypoints) == 12
