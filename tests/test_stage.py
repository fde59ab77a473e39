"""The synthetic stage is exact: what it says about a clip is what the clip shows."""

from collections import Counter
from dataclasses import fields

import numpy as np
import pytest
import torch
from animate_anywhere.training import bodies, cameras, furniture, motion, rehearsal, render, scenes, stage, surfaces
from animate_anywhere.vision import metrics

SEEDS = range(8)


def clip_of(seed, frames=13, size=(96, 96), **fixed):
    return stage.render_clip(stage.draw_plan(seed, frames, size, **fixed))


@pytest.fixture(scope="module")
def clips():
    return [clip_of(seed) for seed in SEEDS]


def tensors(clip):
    return {field.name: value for field in fields(clip) if torch.is_tensor(value := getattr(clip, field.name))}


def test_the_same_seed_is_the_same_clip_to_the_bit(clips):
    again = clip_of(SEEDS[3])
    for name, value in tensors(clips[3]).items():
        assert torch.equal(value, getattr(again, name)), name
    assert np.array_equal(clips[3].pose.keypoints, again.pose.keypoints)
    assert not torch.equal(clips[3].frames, clips[4].frames)


def unproject(clip, frame, at):
    """World points [N, 3] of pixel places [N, 2] by depth; NaN where the four pixels around lie on different planes."""
    inverse = 1 / clip.background_depth[frame].double().numpy()
    column, row = np.floor(at - 0.5).astype(int).T
    good = (column >= 0) & (row >= 0) & (column < inverse.shape[1] - 1) & (row < inverse.shape[0] - 1)
    column, row = np.where(good, column, 0), np.where(good, row, 0)
    corners = [inverse[row + y, column + x] for y in (0, 1) for x in (0, 1)]
    good &= np.abs(corners[0] + corners[3] - corners[1] - corners[2]) < 1e-5 * corners[0]
    x, y = (at - 0.5 - np.floor(at - 0.5)).T
    near = corners[0] * (1 - x) * (1 - y) + corners[1] * x * (1 - y) + corners[2] * (1 - x) * y + corners[3] * x * y
    pixel = np.concatenate([at, np.ones((len(at), 1))], 1)
    camera = clip.camera
    seen = (np.linalg.inv(camera.K[frame]) @ pixel.T).T / near[:, None]
    world = (seen - camera.t[frame]) @ camera.R[frame]
    return np.where(good[:, None], world, np.nan)


def test_tracks_agree_with_cameras_and_depth(clips):
    checked = 0
    for clip in clips:
        tracks, visible, last = clip.tracks.numpy(), clip.visibility.numpy(), len(clip.frames) - 1
        both = np.flatnonzero(visible[0] & visible[last])
        world = unproject(clip, 0, tracks[0, both])
        seen = (clip.camera.K[last] @ (clip.camera.R[last] @ world.T + clip.camera.t[last][:, None])).T
        error = np.linalg.norm(seen[:, :2] / seen[:, 2:] - tracks[last, both], axis=1)
        error = error[np.isfinite(error)]
        checked += len(error)
        assert len(error) == 0 or error.max() < 0.01  # px; float32 depth leaves about 0.002
    assert checked > 100


def test_tracks_follow_what_is_seen():
    clip = clip_of(5, camera="dolly", whole=True)
    at = clip.tracks.float() / torch.tensor([96, 96]) * 2 - 1
    colours = torch.nn.functional.grid_sample(clip.background.permute(0, 3, 1, 2), at[:, :, None], align_corners=False)[
        ..., 0
    ]  # [T, 3, N]
    seen = clip.visibility
    both = seen[0] & seen[-1]
    change = (colours[0] - colours[-1]).abs().mean(0)[both]
    moved = (clip.tracks[0] - clip.tracks[-1]).norm(dim=1)[both]
    assert both.sum() > 10 and moved.mean() > 2
    assert change.median() < 0.02  # level of detail and haze change with the distance, the surface does not


def test_planted_feet_stay(clips):
    slides = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        body = bodies.Body.draw(rng)
        route = motion.draw_route(rng, motion.ROUTES[seed % len(motion.ROUTES)], 2.5, body)
        pose = motion.perform(rng, body, route, {"r": "swing", "l": "swing"}, 60, 150)
        for side in "rl":
            both = pose[f"planted_{side}"][1:] & pose[f"planted_{side}"][:-1]
            step = np.linalg.norm(np.diff(pose[f"ball_{side}"], axis=0), axis=1)[both]
            slides.append(step.max() / body.height if len(step) else 0.0)
            assert pose[f"ball_{side}"][:, 2].min() >= 0
    assert max(slides) < 1e-6  # of body height, between frames; the foot is set from one place while it stands


def test_a_planted_foot_stays_within_a_hundredth_of_the_body(clips):
    for clip in clips:
        for side in range(2):
            stances = np.split(np.arange(len(clip.planted)), np.flatnonzero(np.diff(clip.planted[:, side])) + 1)
            for stance in stances:
                if clip.planted[stance[0], side]:
                    places = clip.feet[stance, side]
                    steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
                    # A whole swing can pass between two frames of a dancer; then the foot stands somewhere else.
                    assert ((steps < 0.01 * clip.body.height) | (steps > 0.03 * clip.body.height)).all()


def test_legs_and_arms_keep_their_lengths(clips):
    for clip in clips:
        joints = dict(zip(stage.JOINTS, clip.joints.transpose(1, 0, 2)))
        for side in "rl":
            bones = [("hip", "knee", "thigh"), ("knee", "ankle", "shin"), ("shoulder", "elbow", "upper_arm")]
            for one, other, name in [*bones, ("elbow", "wrist", "forearm")]:
                length = np.linalg.norm(joints[f"{one}_{side}"] - joints[f"{other}_{side}"], axis=1)
                expected = getattr(clip.body, name) * clip.body.height
                assert np.abs(length / expected - 1).max() < 0.02, (clip.plan, name)


def test_keypoints_lie_on_the_person(clips):
    inside, count = 0, 0
    for clip in clips:
        points = clip.pose.keypoints[:, 0]
        covered = torch.nn.functional.max_pool2d((clip.mask + clip.thing)[:, None], 3, 1, 1)[:, 0].numpy()
        for frame, joint in zip(*np.nonzero(points[..., 2] > 0)):
            x, y = np.floor(points[frame, joint, :2]).astype(int)
            inside += covered[frame, y, x] > 0.3
            count += 1
    assert count > 500
    assert inside / count > 0.995  # a joint at the very rim of furniture may be counted on the wrong side


def test_the_background_is_what_is_seen_beside_the_person(clips):
    for clip in clips:
        free = (clip.mask + clip.thing) == 0
        expected = clip.background * (1 - clip.shadow)[..., None]
        assert (clip.frames - expected).abs()[free].max() < 1e-6
        assert free.float().mean() > 0.2
        lit = free & (clip.shadow == 0)
        assert torch.equal(clip.frames[lit], clip.background[lit])
        behind = (clip.mask + clip.thing) < 0.5
        assert torch.equal(clip.depth[behind], clip.background_depth[behind])
        assert (clip.depth <= clip.background_depth + 0.3).all()  # nobody stands in a wall


def test_masks_are_shares_of_the_person(clips):
    for clip in clips:
        assert clip.mask.min() > -1e-5 and (clip.mask + clip.thing).max() < 1 + 1e-5
        assert (clip.hands <= clip.mask + 1e-5).all()
    assert sum(float(clip.hands.sum()) for clip in clips) > 100
    holding = clip_of(1, holds=True, route="stand", camera="stand", whole=True, arms=("front", "swing"))
    assert holding.thing.sum() > 10


def test_plans_cover_every_kind_of_camera_and_route():
    plans = [stage.draw_plan(seed) for seed in range(400)]
    kinds = Counter(plan.camera for plan in plans)
    assert set(kinds) == set(cameras.KINDS) and min(kinds.values()) > 20
    assert {plan.route for plan in plans} == set(motion.ROUTES)
    assert {(plan.width, plan.height) for plan in plans} == set(stage.SIZES)
    assert 0.1 < np.mean([not plan.whole for plan in plans]) < 0.5


def turning_points(course, least):
    """How often a course [T] turns round, where it spans more than ``least``."""
    way = np.sign(np.diff(course))
    return int((way[1:] != way[:-1]).sum()) if len(course) > 2 and np.ptp(course) > least else 0


def deeds(seed):
    """What somebody is seen to do. Lengths are shares of the body's height, whatever the route is called."""
    plan = stage.draw_plan(seed)
    actor = stage.set_up(plan).actor
    at = dict(zip(stage.JOINTS, stage.joints_of(actor).transpose(1, 0, 2) / actor.body.height))
    hips, knees = ((at[f"{joint}_r"] + at[f"{joint}_l"]) / 2 for joint in ("hip", "knee"))
    away = np.linalg.norm(hips - hips[0], axis=1).max()
    across = at["shoulder_l"] - at["shoulder_r"]
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    heading = np.unwrap(np.arctan2(across[:, 1], across[:, 0]))
    hands = [at[f"wrist_{side}"] - at[f"shoulder_{side}"] for side in "rl"]
    swings = [turning_points((hand * across).sum(1)[hand[:, 2] > 0.13], 0.03) for hand in hands]
    beats = [turning_points(hand[:, 2], 0.1) for hand in hands]
    torso = [stage.JOINTS.index(name) for name in ("neck", "shoulder_r", "shoulder_l", "hip_r", "hip_l")]
    seen = (rehearsal.rehearse(plan).pose.keypoints[:, 0, torso, 2] > 0).sum(1)
    return {
        "walks": away > 0.5,
        "turns": np.ptp(heading) > np.pi / 2,
        # one hand above the shoulder goes to and fro while the other one hangs
        "waves": any(swings[i] > 1 and hands[1 - i][:, 2].max() < 0 for i in (0, 1)),
        # on the spot, with both arms and the shoulders
        "dances": min(beats) > 0 and np.ptp(across[:, 2]) > 0.06 and away < 0.35,
        "sits": (hips - knees)[:, 2].min() < 0.1,
        "comes": seen[0] == 0 and seen.max() >= 4,
        "goes": seen[-1] == 0 and seen.max() >= 4,
    }


@pytest.fixture(scope="module")
def done():
    """How many of 400 clips show each deed."""
    return Counter(deed for seed in range(400) for deed, is_done in deeds(seed).items() if is_done)


@pytest.mark.parametrize(
    ("deed", "least"),
    [("walks", 80), ("turns", 22), ("waves", 22), ("dances", 30), ("sits", 12), ("comes", 3), ("goes", 8)],
)
def test_people_are_seen_to_walk_turn_wave_dance_sit_come_and_go(done, deed, least):
    """At least a third of what was counted. Nobody is told to come or go: in one clip of 50 and of 20 people happen to
    walk into or out of what the camera sees."""
    assert done[deed] >= least


def test_characters_differ_in_hair_and_clothes(clips):
    outfits = [stage.set_up(stage.draw_plan(seed)).outfit for seed in range(60)]
    assert len({outfit.style for outfit in outfits}) >= 6
    assert len({tuple(outfit.hair) for outfit in outfits}) >= 6
    assert len({(*outfit.shirt, *outfit.trousers) for outfit in outfits}) == len(outfits)
    errors = [
        metrics.colour_error(one.character[None], one.character_mask[None], other.character, other.character_mask)
        for place, one in enumerate(clips)
        for other in clips[:place]
    ]
    assert min(errors) > 2  # is just seen
    assert np.median(errors) > 10  # is another tone


def test_the_character_stands_somewhere_else_in_its_picture(clips):
    for clip in clips:
        free = clip.character_mask == 0
        assert (clip.character - clip.background).abs()[:, free].mean((1, 2)).min() > 0.05


def test_the_pose_tells_the_motion_in_most_clips_and_not_in_all():
    told = [clip_of(seed, 5, (48, 48)).told for seed in range(24)]
    assert 0.4 < np.mean(told) < 0.95


@pytest.mark.parametrize("kind", cameras.KINDS)
def test_each_camera_moves_as_its_name_says(kind):
    cams = [clip_of(seed, 13, (48, 48), camera=kind, route="walk").camera for seed in range(6)]
    place = np.array([np.linalg.norm(np.ptp(cam.centre, axis=0)) for cam in cams])
    turn = np.array([np.ptp(cam.R, axis=0).max() for cam in cams])
    focal = np.array([np.ptp(np.log(cam.K[:, 0, 0])) for cam in cams])
    assert (np.median(place) > 0.1) == (kind in ("follow", "dolly"))
    assert (np.median(turn) > 0.015) == (kind in ("pan", "dolly", "sway"))
    assert (np.median(focal) > 0.05) == (kind == "zoom")


@pytest.mark.parametrize("frames, size", [(5, (160, 96)), (21, (96, 160)), (29, (64, 64))])
def test_lengths_and_sizes(frames, size):
    clip = clip_of(2, frames, size)
    width, height = size
    assert clip.frames.shape == clip.background.shape == clip.drawn_pose.shape == (frames, height, width, 3)
    assert clip.mask.shape == clip.hands.shape == clip.thing.shape == clip.depth.shape == (frames, height, width)
    assert clip.camera.K.shape == clip.camera.R.shape == (frames, 3, 3) and clip.camera.t.shape == (frames, 3)
    assert clip.tracks.shape == (frames, stage.POINTS, 2) and clip.visibility.shape == (frames, stage.POINTS)
    assert clip.character.shape == (height, width, 3) and clip.character_mask.max() > 0.9
    assert clip.pose.keypoints.shape == (frames, 1, 18, 3)


@pytest.mark.parametrize("frames", [0, 4, 12, 30])
def test_other_lengths_are_refused(frames):
    with pytest.raises(ValueError, match="8k\\+5"):
        stage.draw_plan(0, frames)


def fine_share(pictures):
    """Share of the variance of [N, H, W] in waves shorter than 10 px, by a windowed spectrum."""
    height, width = pictures.shape[1:]
    window = torch.hann_window(height, periodic=False)[:, None] * torch.hann_window(width, periodic=False)
    pictures = (pictures - pictures.mean((1, 2), keepdim=True)) * window
    power = torch.fft.fft2(pictures).abs().square().sum(0)
    radius = (torch.fft.fftfreq(height)[:, None] ** 2 + torch.fft.fftfreq(width)[None] ** 2).sqrt()
    return float(power[radius > 0.1].sum() / power.sum())


@pytest.mark.parametrize("kind", ["planks", "slabs", "track", "plain"])
def test_textures_have_no_detail_below_ten_pixels(kind):
    """A floor seen from above and along: the level of detail must keep waves under 10 px out at any distance."""
    rng = np.random.default_rng(0)
    texture = surfaces.later(rng, surfaces.floor, np.array([0.5, 0.5, 0.5]), kind, 0.1)
    plane = scenes.Plane(np.zeros(3), np.array([7.0, 0, 0]), np.array([0, 7.0, 0]), texture, True)
    centre, aim = np.array([[0, 0, 2.5], [0, 0, 1.2]]), np.array([[0.5, 0.5, 0], [6, 6, 0]])
    R, t = cameras.look(centre, aim, np.zeros(2))
    K = np.array([[[150.0, 0, 64], [0, 150, 64], [0, 0, 1]]]).repeat(2, 0)
    colour, _ = render.surround(scenes.Scene([plane]), cameras.Camera(K, R, t, 128, 128), torch.device("cpu"))
    assert colour.std() > 0.01
    # Of the variance; the window's own leakage and the texels' linear interpolation leave about one in a hundred.
    assert fine_share(colour.mean(1)[:, 64:]) < 0.02


def test_backgrounds_are_mostly_smooth():
    """Edges of walls and furniture are sharp, so some variance is fine: for one step edge it would be about 8 %."""
    shares = [fine_share(clip_of(seed, 5, (128, 128)).background[:1].mean(-1)) for seed in range(12)]
    assert np.median(shares) < 0.06


def test_a_scene_keeps_furniture_away_from_where_people_go():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        path = np.stack([np.linspace(-1, 1, 9), np.zeros(9), np.ones(9)], 1)
        scene, site = scenes.draw_scene(rng, path, outdoors=bool(seed % 2))
        furniture.furnish(rng, scene, site, path[:, :2], outdoors=bool(seed % 2))
        for quad in scene.quads:
            if quad.group is not None:
                corners = [quad.origin + a * quad.right + b * quad.down for a in (0, 0.5, 1) for b in (0, 1)]
                away = np.linalg.norm(np.array(corners)[:, None, :2] - path[None, :, :2], axis=-1)
                assert away.min() > 0.25
