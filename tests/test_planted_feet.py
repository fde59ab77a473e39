"""Cameras from planted feet: each step on its own, and all of them on people made here."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from animate_anywhere.vision.camera_path import CameraPath, similarities
from animate_anywhere.vision.foot_slip import foot_slip
from animate_anywhere.vision.planted_feet import chosen_camera, hmm, likelihood, walking
from animate_anywhere.vision.planted_feet.body import describe_person
from animate_anywhere.vision.planted_feet.depth_share import MOVING_ALONG_SHARE, depth_share
from animate_anywhere.vision.planted_feet.estimate import estimate_camera, estimate_scene
from animate_anywhere.vision.planted_feet.gates import Evidence, Verdict, judge
from animate_anywhere.vision.planted_feet.shake import shake_of_feet
from animate_anywhere.vision.planted_feet.untangling import untangle_legs
from animate_anywhere.vision.planted_feet.visibility import visible_feet
from animate_anywhere.vision.pose import PoseTrack
from scipy.stats import multivariate_t

WIDTH, HEIGHT = 640, 360
JITTER_PX = 0.8  # of every joint, as a detector's
# A standing person of about 250 px, facing the camera.
STANDING = {
    0: (320, 70), 1: (320, 100), 2: (295, 102), 3: (285, 145), 4: (282, 185), 5: (345, 102), 6: (355, 145),
    7: (358, 185), 8: (307, 180), 9: (305, 240), 10: (304, 300), 11: (333, 180), 12: (335, 240), 13: (336, 300),
}  # fmt: skip


def person(frames=60, steps=None, stepping=0.0, travel=0.0, seed=0, jitter=JITTER_PX, moved=None):
    """Somebody before a camera whose background moves by ``steps`` [frames-1, 4].

    stepping: px by which the feet rise in turns, a stride of 24 frames; travel: px a frame to the
    right in the world; moved: joints that are elsewhere.
    """
    joints = np.zeros((frames, 18, 2))
    for joint, place in (STANDING | (moved or {})).items():
        joints[:, joint] = place
    time = np.arange(frames)
    for leg, phase in (((9, 10), 0), ((12, 13), np.pi)):
        rise = np.sin(2 * np.pi * time / 24 + phase).clip(0) * stepping
        for joint, share in zip(leg, (0.6, 1)):
            joints[:, joint, 1] -= share * rise
    joints[..., 0] += travel * time[:, None]
    path, moves = [np.eye(3)], np.zeros((frames - 1, 4)) if steps is None else steps
    for step in similarities(moves, WIDTH, HEIGHT):
        path.append(step @ path[-1])
    flat = np.concatenate([joints, np.ones((frames, 18, 1))], -1) @ np.stack(path).transpose(0, 2, 1)
    noise = np.random.default_rng(seed).normal(scale=jitter, size=(frames, 18, 2))
    keypoints = np.zeros((frames, 1, 18, 3))
    known = sorted(STANDING)
    keypoints[:, 0, known, :2] = (flat[..., :2] + noise)[:, known]
    keypoints[:, 0, known, 2] = 1
    return PoseTrack(keypoints, WIDTH, HEIGHT)


def pan(frames, speed):
    """A pan that eases in and out, ``speed`` px a frame at its quickest."""
    steps = np.zeros((frames - 1, 4))
    steps[:, 0] = speed * np.sin(np.pi * np.arange(frames - 1) / (frames - 2)) ** 2
    return steps


# --- the filter -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def brute():
    """A filter of 3×2 cells over three looks, and every path of its hidden states, summed up."""
    rng = np.random.default_rng(3)
    # Drifts that are not symmetric, so that their direction shows.
    across, down = (
        replace(hmm.make_axis(1.0, count, 1.6), drift=rng.dirichlet(np.ones(count), count)) for count in (3, 2)
    )
    model = replace(hmm.make_model((3, 2)), across=across, down=down)
    looks = rng.uniform(0.05, 1, (3, 4, 7))
    cells = [None, *itertools.product(range(3), range(2))]  # the camera stands, or one of its velocities
    states = [(stance, cell) for stance in range(4) for cell in range(7)]

    def start(stance, cell):
        place = cells[cell]
        chance = hmm.STANDS_AT_FIRST
        if place:
            chance = (1 - chance) * model.across.prior[place[0]] * model.down.prior[place[1]]
        return hmm.FIRST_STANCE[stance] * chance

    def follows(cell, after):
        one, other = cells[cell], cells[after]
        if one is None and other is None:
            return hmm.KEEPS_STANDING
        if one is None:
            return (1 - hmm.KEEPS_STANDING) * model.across.prior[other[0]] * model.down.prior[other[1]]
        if other is None:
            return model.stops[one]
        drift = model.across.drift[one[0], other[0]] * model.down.drift[one[1], other[1]]
        return (1 - model.stops[one]) * drift

    marginal, total, still = np.zeros((3, 4, 7)), 0.0, 0.0
    for way in itertools.product(states, repeat=3):
        chance = start(*way[0]) * looks[0][way[0]]
        for t in (1, 2):
            (stance, cell), (then, after) = way[t - 1], way[t]
            chance *= model.stances[stance, then] * follows(cell, after) * looks[t][way[t]]
        total += chance
        for t, state in enumerate(way):
            marginal[t][state] += chance
    for stances in itertools.product(range(4), repeat=3):
        chance = hmm.FIRST_STANCE[stances[0]] * looks[0, stances[0], 0]
        for t in (1, 2):
            chance *= model.stances[stances[t - 1], stances[t]] * looks[t, stances[t], 0]
        still += chance
    return hmm.run_filter(looks, model), marginal / total, np.log(total), np.log(still), model


def test_the_filter_is_the_sum_over_all_paths(brute):
    found, marginal, log_moves, log_stands, _ = brute
    assert found.log_moves == pytest.approx(log_moves, abs=1e-6)
    assert found.log_stands == pytest.approx(log_stands, abs=1e-9)
    np.testing.assert_allclose(found.stands, marginal[..., 0].sum(1), atol=1e-6)
    np.testing.assert_allclose(found.stance, marginal.sum(2), atol=1e-6)


def test_the_velocity_is_the_median_of_a_moving_cameras(brute):
    found, marginal, _, _, model = brute
    across = marginal[..., 1:].reshape(3, 4, 3, 2).sum((1, 3))
    for t, share in enumerate(across / across.sum(1, keepdims=True)):
        cell = int(np.searchsorted(np.cumsum(share), 0.5))  # the cell in which the median lies
        inside = (0.5 - share[:cell].sum()) / share[cell] - 0.5
        width = model.across.cells[1] - model.across.cells[0]
        median = hmm.FINE_PX * np.sinh(model.across.cells[cell] + inside * width)
        assert found.velocity[t, 0] == pytest.approx(median, abs=1e-4)


def test_students_density_is_scipys():
    places = np.random.default_rng(0).normal(size=(5, 2))
    found = likelihood.log_student((places**2).sum(1), 0.49, 3.0)
    np.testing.assert_allclose(found, multivariate_t.logpdf(places, shape=0.49 * np.eye(2), df=3.0))


def test_a_toe_that_rests_holds_a_foot_whose_heel_rises():
    """The ankle rises while the toe stands: with the toe, a still camera is far likelier."""
    track = person(20, jitter=0)
    track.keypoints[:, 0, [10, 13], 1] -= 3.0 * np.arange(20)[:, None]
    feet = np.zeros((20, 1, 6, 3))
    for foot, ankle in ((0, 13), (3, 10)):
        feet[:, 0, foot] = [STANDING[ankle][0], 315, 1]
    gains = []
    for toes in (None, feet):
        found = describe_person(PoseTrack(track.keypoints, WIDTH, HEIGHT, feet=toes), 0)
        known = np.ones((18, 2), bool)
        looks = likelihood.look_likelihoods(found, known, 2, np.array([[0.0, 0.0], [0.0, -3.0]]))
        gains.append(np.log(looks[:, 0, 0] / looks[:, 0, 1]).mean())
    assert gains[0] < -1 and gains[1] > gains[0] + 2


# --- the pose, cleaned ------------------------------------------------------------------------------------------------


def test_exchanged_legs_are_exchanged_back():
    track = person(40, stepping=20)
    whole = track.keypoints[:, 0]
    wrong, feet = whole.copy(), np.arange(40 * 18.0).reshape(40, 6, 3)
    wrong[15:19, [9, 10, 12, 13]] = whole[15:19][:, [12, 13, 9, 10]]
    found, moved = untangle_legs(wrong, feet)
    np.testing.assert_array_equal(found, whole)
    np.testing.assert_array_equal(moved[16], feet[16][[3, 4, 5, 0, 1, 2]])
    np.testing.assert_array_equal(moved[20], feet[20])


def test_ankles_at_the_edge_of_the_frame_do_not_count():
    low = {10: (304, HEIGHT * 0.96), 13: (WIDTH * 0.99, 300)}
    assert visible_feet(describe_person(person(10, jitter=0), 0)).all()
    assert not visible_feet(describe_person(person(10, jitter=0, moved=low), 0)).any()


# --- what is made of it -----------------------------------------------------------------------------------------------


def test_a_camera_that_stands_moves_nothing_at_all():
    for stepping in (0, 20):
        found = estimate_camera(person(stepping=stepping))
        assert found.verdict is Verdict.STANDS and not found.steps.any()


def test_a_pan_is_told_by_the_feet():
    steps = pan(60, 3.0)
    found = estimate_camera(person(steps=steps))
    assert found.verdict is Verdict.MOVES
    error = np.linalg.norm(found.steps[:, :2] - steps[:, :2], axis=1).mean()
    assert error < 0.3 * np.abs(steps[:, 0]).mean()


def test_a_larger_canvas_moves_by_more_pixels():
    track = person(steps=pan(60, 3.0))
    small, large = estimate_camera(track), estimate_camera(track.resized(3 * WIDTH, 3 * HEIGHT))
    np.testing.assert_allclose(large.steps, small.steps * [3, 3, 1, 1], atol=1e-6)


def test_a_rider_with_bent_legs_is_no_pan():
    bent = {9: (260, 235), 12: (380, 235), 10: (304, 270), 13: (336, 270)}
    found = estimate_camera(person(steps=pan(60, 3.0), moved=bent))
    assert found.verdict is Verdict.GLIDES and not found.steps.any()
    assert (found.confidence == found.confidence.min()).all()


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        ({}, Verdict.MOVES),
        ({"nats": 24.0}, Verdict.STANDS),
        ({"growth": 0.3, "nats": 70.0}, Verdict.STANDS),
        ({"known": 0.5}, Verdict.FEET_LOST),
        ({"stance": np.array([0.5, 0.05, 0.05, 0.4])}, Verdict.AIRBORNE),
        ({"straightness": 0.9}, Verdict.GLIDES),
        ({"straightness": 0.95, "pace": 0.02}, Verdict.GLIDES),
        ({"straightness": 0.98, "pace": 0.02}, Verdict.MOVES),  # nobody rides with legs so straight
        ({"depth_share": 0.7}, Verdict.SLIPS),  # a turntable: the hips of a stander go with the ground
        ({"depth_share": 0.7, "stance": np.array([0.4, 0.3, 0.3, 0])}, Verdict.MOVES),  # walks
    ],
)
def test_each_gate_lets_the_background_stand(seen, verdict):
    pan_over_a_stander = Evidence(
        nats=71.0,
        known=1.0,
        stance=np.array([0.9, 0.05, 0.05, 0.0]),
        straightness=0.95,
        growth=0.1,
        pace=0.005,
        steadiness=0.95,
        depth_share=0.95,
    )
    assert judge(replace(pan_over_a_stander, **seen)) is verdict


def test_somebody_without_feet_moves_nothing():
    track = person(steps=pan(60, 3.0))
    track.keypoints[..., [10, 13], :] = 0
    found = estimate_camera(track)
    assert found.verdict is Verdict.NO_FEET and not found.steps.any()


def test_a_body_that_grows_asks_for_more_evidence():
    steps = pan(60, 2.0)
    calm = estimate_camera(person(steps=steps)).evidence
    steps[:, 2] = 0.008
    growing = estimate_camera(person(steps=steps, moved={10: (304, 270), 13: (336, 270)})).evidence
    assert growing.growth > 0.3
    assert growing.needed_nats == 75 and calm.needed_nats < 35


def test_the_background_shares_the_ground_by_what_the_hips_do():
    ground = np.tile([2.0, 0.0], (30, 1))
    with_ground, in_place = np.stack([2.0 * np.arange(31), np.zeros(31)], 1), np.zeros((31, 2))
    np.testing.assert_allclose(depth_share(with_ground, ground), 1)
    np.testing.assert_allclose(depth_share(in_place, ground), MOVING_ALONG_SHARE)


def test_depth_that_is_chosen_scales_the_motion():
    track = person(steps=pan(60, 3.0))
    whole, half = (estimate_camera(track, depth=depth).steps for depth in (1.0, 0.5))
    assert np.abs(whole).max() > 2
    np.testing.assert_allclose(half[:, :2], whole[:, :2] / 2)


def test_both_feet_shake_with_a_camera_and_each_alone_with_a_detector():
    rng = np.random.default_rng(0)
    stance, calm = np.tile([1.0, 0, 0, 0], (80, 1)), np.zeros((80, 2))
    ankles = np.tile([[300.0, 300], [340, 300]], (81, 1, 1))
    common, own = rng.normal(size=(81, 1, 2)), rng.normal(size=(81, 2, 2))
    shaken, jittered = (shake_of_feet(ankles + 3 * move, calm, stance, 250) for move in (common, own))
    assert np.abs(shaken).mean() > 5 * np.abs(jittered).mean()


def test_the_person_whose_feet_are_seen_longest_tells():
    panned, headless = person(steps=pan(60, 3.0)), person()
    headless.keypoints[..., [10, 13], :] = 0
    both = PoseTrack(np.concatenate([headless.keypoints, panned.keypoints], 1), WIDTH, HEIGHT)
    np.testing.assert_array_equal(estimate_scene(both).steps, estimate_camera(panned).steps)


def test_somebody_who_surely_stands_has_a_veto():
    both = [person(steps=pan(60, 3.0)), person(seed=1)]
    assert estimate_camera(both[0]).verdict is Verdict.MOVES
    found = estimate_scene(PoseTrack(np.concatenate([t.keypoints for t in both], 1), WIDTH, HEIGHT))
    assert found.verdict is Verdict.STANDS and not found.steps.any()


# --- cameras that the artist chooses ----------------------------------------------------------------------------------


def test_a_stride_is_two_steps():
    assert walking.stride_frames(describe_person(person(72, stepping=25), 0)) == pytest.approx(24, abs=1)
    assert walking.stride_frames(describe_person(person(72), 0)) is None


def walker(frames=72, **named):
    """Somebody in profile, who walks to the right on the spot with cropped feet."""
    track = person(frames, stepping=25, moved={0: (345, 70)}, **named)
    track.keypoints[..., [10, 13], :] = 0
    return track


def test_a_camera_that_follows_scrolls_by_cadence_and_stature():
    track = walker()
    found = estimate_camera(track)
    steps, source = chosen_camera.follow_person(found, track, None, None)
    speed = 2 * walking.STEP_BY_STATURE * found.person.stature / 24
    assert source == "cadence"
    np.testing.assert_allclose(steps[:, 0].mean(), -speed, rtol=0.1)
    turned, _ = chosen_camera.follow_person(found, track, "left", 0.5)
    np.testing.assert_allclose(turned[:, 0].mean(), speed / 2, rtol=0.1)


def test_a_walker_who_gets_on_in_the_picture_needs_no_scroll():
    track = walker()
    speed = walking.walking_speed(describe_person(track, 0))
    track = walker(travel=speed)
    steps, _ = chosen_camera.follow_person(estimate_camera(track), track, None, None)
    assert abs(steps[:, 0].mean()) < 0.1 * speed


def test_a_camera_that_backs_off_shrinks_the_background_and_one_that_turns_does_not():
    track = walker()
    found = estimate_camera(track)
    backs_off, _ = chosen_camera.follow_person(found, track, "nearer", None)
    turns, _ = chosen_camera.turn_with_person(found, track, "nearer")
    assert (backs_off[:, 2] < -0.003).all() and not turns.any()


def test_a_camera_that_follows_lets_no_planted_foot_slip():
    track = person(steps=pan(60, 3.0))
    found = estimate_camera(track)
    steps, source = chosen_camera.follow_person(found, track, None, None)
    feet = track.keypoints[:, 0, [10, 13], :2]
    planted, stature = np.ones((59, 2), bool), found.person.stature
    slips = [foot_slip(feet, planted, CameraPath.from_steps(s, WIDTH, HEIGHT), stature) for s in (steps, 0 * steps)]
    assert source == "feet" and slips[0] < 0.1 < 0.4 < slips[1]


def test_foot_slip_is_the_way_of_a_planted_foot_by_stature_and_frame():
    feet = np.zeros((5, 2, 2))
    feet[:, 0, 0] = 3.0 * np.arange(5)  # the right foot moves by 3 px a frame, the background by 2
    feet[:, 1] = np.nan
    planted = np.array([[1, 1], [1, 0], [0, 0], [1, 0]], bool)
    steps = np.zeros((4, 4))
    steps[:, 0] = 2
    assert foot_slip(feet, planted, CameraPath.from_steps(steps, 64, 48), 200.0) == pytest.approx(0.5)
    assert np.isnan(foot_slip(feet, ~planted & False, CameraPath.from_steps(steps, 64, 48), 200.0))
