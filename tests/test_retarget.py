"""A movement on another body, on people whose bodies and movements are known: those of the stage."""

from dataclasses import replace

import numpy as np
import pytest
from actors import FRAMES, LANKY, STOCKY, TALL, acted, clip, filmed, picture, track_of
from animate_anywhere.vision import retarget as bodies
from animate_anywhere.vision.retarget import retarget


def whole(seed=0):
    """A walk with hands, face and feet, with gaps, and with joints that the detector was unsure of."""
    rng = np.random.default_rng(seed)
    track = clip()
    base = track.keypoints[:, 0]

    def around(joint, count):
        at = base[:, [joint], :2] + rng.normal(0, 8, (1, count, 2))
        return np.concatenate([at, np.ones_like(at[..., :1])], axis=-1)

    hands = np.stack([around(7, 21), around(4, 21)], axis=1)[:, None]
    feet = np.concatenate([around(13, 3), around(10, 3)], axis=1)[:, None]
    keypoints = track.keypoints.copy()
    keypoints[5:9, 0, 4] = keypoints[:, 0, 16] = hands[3:6, 0, 1] = 0
    keypoints[10:14, 0, 6, 2] = 0.1
    return replace(track, keypoints=keypoints, hands=hands, feet=feet, face=around(0, 70)[:, None])


def scaled(track, factor):
    return replace(track, **{name: array * [factor, factor, 1] for name, array in track.arrays.items()})


# --- must be true -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["proportions", "fit"])
@pytest.mark.parametrize("place", bodies.WHOSE)
@pytest.mark.parametrize("size", bodies.WHOSE)
def test_onto_itself_nothing_changes(mode, place, size):
    track = whole()
    done = retarget(track, track, mode, size=size, place=place)
    for name, array in track.arrays.items():
        assert np.allclose(done.pose.arrays[name], array, atol=1e-6), name
    assert done.cast[0].scale == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("mode", ["proportions", "fit"])
@pytest.mark.parametrize("factor", [0.4, 1.7])
def test_onto_a_scaled_copy_the_scale_is_found(mode, factor):
    track, copy = whole(), scaled(whole(), factor)
    done = retarget(track, copy, mode, place="reference")
    assert done.cast[0].scale == pytest.approx(factor, rel=1e-9)
    for name, array in copy.arrays.items():
        assert np.allclose(done.pose.arrays[name], array, atol=1e-6), name


def test_feet_stay_where_they_stood_when_the_body_changes_its_size():
    track = clip()
    done = retarget(track, scaled(track, 0.5))
    ankles = [pose.keypoints[0, 0, [10, 13], :2].mean(axis=0) for pose in (track, done.pose)]
    assert np.allclose(*ankles, atol=1e-6)


@pytest.mark.parametrize("adjust", [{}, {"legs": 1.3, "torso": 0.8}])
def test_planted_feet_do_not_slide(adjust):
    joints, toes, planted = acted(LANKY)
    feet = np.zeros((FRAMES, 6, 3))
    feet[:, [3, 0]] = filmed(toes, 0.6)
    track = track_of(filmed(joints, 0.6), feet=feet)
    done = retarget(track, picture(STOCKY), adjust=adjust)
    slid = []
    for side, toe in enumerate((3, 0)):
        at = done.pose.feet[:, 0, toe, :2]
        stands = planted[1:, side] & planted[:-1, side]
        slid += np.linalg.norm(np.diff(at, axis=0), axis=-1)[stands].tolist()
    # A stance lasts 9 frames here: its whole slide stays below 1 % of the body's height.
    assert len(slid) > 20 and 9 * max(slid) < 0.01 * TALL * done.cast[0].scale


@pytest.mark.parametrize("route", ["walk", "dance", "turn"])
def test_another_body_moves_as_it_would_itself(route):
    """A lanky person's movement on a stocky body, against that body in the same movement."""
    track, truth = clip(LANKY, route), clip(STOCKY, route)
    done = retarget(track, picture(STOCKY), size="driving").pose

    def off(pose):
        """Mean distance of the joints from the truth in body heights, once both are laid over each other."""
        here, there = (one.keypoints[:, 0, :, :2].reshape(-1, 2) for one in (pose, truth))
        here, there = here - here.mean(axis=0), there - there.mean(axis=0)
        return np.linalg.norm(here * (here * there).sum() / (here**2).sum() - there, axis=-1).mean() / TALL

    assert off(done) < 0.6 * off(track)  # measured: 0.12 to 0.50 of it


def test_a_trembling_pose_trembles_no_more_than_it_did():
    track = clip()
    shaken = track.keypoints + np.random.default_rng(0).normal(0, 1, track.keypoints.shape) * [1, 1, 0]
    done = retarget(replace(track, keypoints=shaken), picture(STOCKY), size="driving").pose.keypoints
    bend = [np.diff(points[:, 0, :, :2], n=2, axis=0).std() for points in (shaken, done)]
    assert bend[1] < 1.15 * bend[0]  # single limbs are longer here, by less than this on the whole


def test_joints_that_come_and_go_do_not_shake_the_rest():
    track = clip()
    flicker = track.keypoints.copy()
    for joint in (3, 9, 10, 11, 6):
        flicker[np.random.default_rng(joint).random(FRAMES) < 0.2, 0, joint] = 0
    steady, done = (
        retarget(replace(track, keypoints=keypoints), picture(STOCKY), size="driving").pose.keypoints[:, 0, :, :2]
        for keypoints in (track.keypoints, flicker)
    )
    there = flicker[:, 0, :, 2] > 0
    step = [
        np.linalg.norm(np.diff(points, n=2, axis=0), axis=-1)[there[2:] & there[1:-1] & there[:-2]]
        for points in (steady, done)
    ]
    assert step[1].max() < step[0].max() + 0.02 * TALL


def test_the_cameras_zoom_and_the_path_stay():
    """What grows by half in driving grows by half on the new body, and its path is scaled with it."""
    joints = acted(LANKY)[0]
    zoom = np.linspace(1, 1.5, FRAMES)[:, None, None]
    middle = np.array([480.0, 270.0])
    near = filmed(joints, 0.6)
    near[..., :2] = middle + (near[..., :2] - middle) * zoom
    done = retarget(track_of(near), picture(STOCKY))
    torso = [
        np.linalg.norm(p[:, 1, :2] - p[:, [8, 11], :2].mean(axis=1), axis=-1) for p in (near, done.pose.keypoints[:, 0])
    ]
    ratio = torso[1] / torso[0]
    assert np.allclose(ratio, ratio[0], rtol=1e-6)
    feet = [points[:, [10, 13], :2].mean(axis=1) for points in (near, done.pose.keypoints[:, 0])]
    assert np.allclose(np.diff(feet[1], axis=0), done.cast[0].scale * np.diff(feet[0], axis=0))


# --- sizes and places -------------------------------------------------------------------------------------------------


def test_another_canvas_counts_by_its_height():
    track = clip()
    large = replace(scaled(track, 2.0), width=1920, height=1080)
    assert retarget(track, large).cast[0].scale == pytest.approx(1)
    there = retarget(track, large, place="reference").pose
    assert (there.width, there.height) == (1920, 1080) and np.allclose(there.keypoints, large.keypoints)


@pytest.mark.parametrize("mode", ["proportions", "fit"])
def test_as_large_as_in_driving(mode):
    track = clip()
    done = retarget(track, picture(STOCKY, tall=120), mode, size="driving")
    assert done.cast[0].scale == pytest.approx(1)
    heights = [np.ptp(pose.keypoints[:, 0, :, 1], axis=1).mean() for pose in (track, done.pose)]
    assert heights[1] == pytest.approx(heights[0], rel=0.08)


def test_ratios_lengthen_one_limb_and_leave_the_feet():
    track = clip()
    plain, longer = (
        retarget(track, picture(STOCKY), adjust={"legs": factor}).pose.keypoints[:, 0] for factor in (1, 1.3)
    )
    shins = [np.linalg.norm(points[:, 9] - points[:, 10], axis=-1).mean() for points in (plain, longer)]
    arms = [np.linalg.norm(points[:, 3] - points[:, 4], axis=-1) for points in (plain, longer)]
    assert shins[1] / shins[0] == pytest.approx(1.3, rel=0.02)
    assert np.allclose(*arms) and np.allclose(plain[:, [10, 13]], longer[:, [10, 13]])


def test_a_limb_that_the_picture_lacks_takes_the_other_sides_ratio():
    track, reference = clip(), picture(STOCKY)
    cut = reference.keypoints.copy()
    cut[0, 0, [6, 7]] = 0
    whole_arm, one_arm = (retarget(track, replace(reference, keypoints=k)).cast[0] for k in (reference.keypoints, cut))
    assert one_arm.ratios["arms"] == pytest.approx(whole_arm.ratios["arms"], rel=0.1)
    assert not any("elbow" in warning for warning in one_arm.proportions.warnings)


def test_a_forearm_that_points_at_the_camera_is_no_short_forearm():
    track, reference = clip(), picture(STOCKY)
    bent = reference.keypoints.copy()
    for elbow, wrist in ((3, 4), (6, 7)):
        bent[0, 0, wrist, :2] += 0.7 * (bent[0, 0, elbow, :2] - bent[0, 0, wrist, :2])
    found = [
        retarget(track, replace(reference, keypoints=k)).cast[0].ratios["arms"] for k in (reference.keypoints, bent)
    ]
    assert found[1] > 0.8 * found[0]  # 0.3 of a forearm is left, 0.65 of the arm


def test_hands_face_and_feet_go_with_their_limbs():
    track = whole()
    done = retarget(track, picture(STOCKY), adjust={"hands": 2.0, "head": 0.5}).pose
    plain = retarget(track, picture(STOCKY)).pose
    size = {
        name: [np.ptp(pose.arrays[name][20, 0][..., :2].reshape(-1, 2)[-21:], axis=0).max() for pose in (plain, done)]
        for name in ("hands", "face", "feet")
    }
    assert size["hands"][1] == pytest.approx(2 * size["hands"][0])
    assert size["face"][1] == pytest.approx(0.5 * size["face"][0])
    assert size["feet"][1] == pytest.approx(size["feet"][0])
    for pose in (plain, done):
        away = np.linalg.norm(pose.hands[20, 0, 1, :, :2].mean(axis=0) - pose.keypoints[20, 0, 4, :2])
        assert away < 0.1 * TALL


# --- people and gaps -------------------------------------------------------------------------------------------------


def pair(left, right):
    """Two tracks of one person each as one track of two."""
    return replace(left, keypoints=np.concatenate([left.keypoints, right.keypoints], axis=1))


def test_as_many_people_as_in_the_picture_are_paired_from_left_to_right():
    at = {"left": (250.0, 420.0), "right": (700.0, 420.0)}
    driving = pair(clip(at=at["right"]), clip(at=at["left"]))
    reference = pair(picture(STOCKY, at=at["left"], tall=150), picture(LANKY, at=at["right"], tall=300))
    done = retarget(driving, reference)
    scales = {cast.person: cast.scale for cast in done.cast}
    assert scales[0] > 1.5 * scales[1] and (done.along, done.pictured) == (0, 2)


def test_further_people_move_along_with_the_first():
    small = clip(at=(250.0, 300.0), tall=100)
    driving = pair(small, clip())
    done = retarget(driving, scaled(clip(), 0.5))
    assert [cast.person for cast in done.cast] == [1] and done.along == 1
    assert np.allclose(
        np.diff(done.pose.keypoints[:, 0], axis=0), np.diff(small.keypoints[:, 0], axis=0) * [0.5, 0.5, 1]
    )


def test_the_first_frame_with_somebody_is_the_reference():
    reference = scaled(clip(), 0.5)
    late = np.concatenate([np.zeros_like(reference.keypoints[:3]), reference.keypoints])
    done = retarget(clip(), replace(reference, keypoints=late))
    assert done.frame == 3 and done.cast[0].scale == pytest.approx(0.5)


def test_a_frame_in_which_somebody_walks_in_is_no_reference():
    reference = scaled(clip(), 0.5)
    entering = reference.keypoints.copy()
    entering[:4, 0, 3:] = 0
    done = retarget(clip(), replace(reference, keypoints=entering))
    assert done.frame == 4 and "knees" not in " ".join(done.cast[0].proportions.warnings)


@pytest.mark.parametrize("socket", ["driving", "reference"])
def test_nobody_is_refused(socket):
    given = {"driving": clip(), "reference": picture(STOCKY)}
    given[socket] = replace(given[socket], keypoints=given[socket].keypoints * [1, 1, 0.1])
    with pytest.raises(ValueError, match=f"^{socket}: there is nobody in any of its"):
        retarget(**given)


def test_bodies_with_nothing_in_common_are_refused():
    face, legs = clip(), picture(STOCKY)
    face.keypoints[:, 0, 1:14] = 0
    legs.keypoints[:, 0, [*range(9), 11, *range(14, 18)]] = 0
    with pytest.raises(ValueError, match="^reference: it shows no part of the body that driving shows as well"):
        retarget(face, legs)


def test_a_face_alone_is_retargeted():
    face, large = clip(), clip(tall=2 * TALL)
    for track in (face, large):
        track.keypoints[:, 0, 2:14] = 0
    done = retarget(face, large)
    assert done.cast[0].scale == pytest.approx(2) and np.isfinite(done.pose.keypoints).all()


def test_whatever_is_missing_the_result_is_finite_and_no_joint_is_invented():
    rng = np.random.default_rng(0)
    done = 0
    for _ in range(40):
        driving, reference = clip(), picture(STOCKY)
        for track in (driving, reference):
            track.keypoints[:, 0, rng.random(18) < 0.4] = 0
        try:
            pose = retarget(driving, reference).pose.keypoints
        except ValueError as error:
            assert str(error).startswith("reference: it shows no part")
            continue
        done += 1
        assert np.isfinite(pose).all() and np.array_equal(pose[..., 2], driving.keypoints[..., 2])
        assert not pose[pose[..., 2] == 0].any()
    assert done > 20
