"""A shot window by window. Where the model would be, a double makes pictures of known content; so the VAE must give
back what goes in, and a coarse but exact one stands in for it. tests/test_sample.py has the real ones."""

import numpy as np
import pytest
import torch
from animate_anywhere.models import clips, latents, windows
from animate_anywhere.models.windows import NONE, OVERLAP
from animate_anywhere.nodes.long_shot import LongShot
from animate_anywhere.vision import levels, metrics

pytestmark = pytest.mark.usefixtures("no_gradients")

SIDE = 64


class Blocks:
    """A VAE of CogVideoX's form: 12 of its channels hold the mean colours of 8×8 px in four frames."""

    latent_channels, latent_dim, first_stage_model = latents.CHANNELS, 3, None

    def encode(self, frames):
        coarse = torch.nn.functional.avg_pool2d(frames.movedim(-1, 1), 8)  # [T, 3, h, w]
        coarse = torch.cat([coarse[:1].expand(3, -1, -1, -1), coarse])
        packed = coarse.unflatten(0, (-1, 4)).flatten(1, 2)  # [t, 12, h, w]
        return torch.nn.functional.pad(packed, (0, 0, 0, 0, 0, 4)).movedim(0, 1)[None]

    def decode(self, coded):
        coarse = coded[0, :12].movedim(1, 0).unflatten(1, (4, 3)).flatten(0, 1)[3:]
        return torch.nn.functional.interpolate(coarse, scale_factor=8).movedim(1, -1)[None]


@pytest.fixture(scope="module")
def vae():
    return Blocks()


def scenery(seed=0):
    """Coloured squares that Blocks holds exactly, [1, SIDE, SIDE, 3]."""
    coarse = torch.rand(1, 3, SIDE // 8, SIDE // 8, generator=torch.Generator().manual_seed(seed)) * 0.6 + 0.2
    return torch.nn.functional.interpolate(coarse, scale_factor=8).movedim(1, -1)


def numbered(frames):
    """Frames that carry their number as grey: 0, 1/250, 2/250, …"""
    return (torch.arange(frames) / 250).view(-1, 1, 1, 1).expand(-1, SIDE, SIDE, 3)


def numbers(frames):
    return [round(float(frame.mean()) * 250) for frame in frames]


class Camera:
    """In the place of the model: what it is asked to film, ``frames_of(part, window)``, as latents."""

    def __init__(self, vae, frames_of):
        self.vae = vae
        self.frames_of = frames_of
        self.asked = []

    def __call__(self, part, window, kept):
        self.asked.append((part, window, kept))
        return latents.encode_frames(self.vae, self.frames_of(part, window))


def film(shot, plan, vae, camera, **more):
    made = list(LongShot(shot, plan, vae, camera, **more).windows())
    return torch.cat([each.frames for each in made]), made


# --- slicing


@pytest.mark.parametrize("handover", windows.HANDOVERS)
@pytest.mark.parametrize("total", [1, 4, 6, 30, 61])
def test_each_window_sees_the_pose_of_its_frames(vae, handover, total):
    shot = clips.Shot(length=total, background=scenery(), pose=numbered(total))
    plan = windows.plan(total, 21, handover, overlap=5)
    camera = Camera(vae, lambda part, window: part.background.expand(window.length, -1, -1, -1))
    frames, _ = film(shot, plan, vae, camera)
    assert len(frames) == total
    for part, window, _ in camera.asked:
        expected = [min(frame, total - 1) for frame in range(window.start, window.start + window.length)]
        assert numbers(part.pose) == expected


@pytest.mark.parametrize(("handover", "blend"), [("last frame", 0), ("overlap", 0), ("overlap", 3), ("none", 0)])
def test_no_frame_is_left_out_doubled_or_moved(vae, handover, blend):
    """The double films the pose, whose frames carry their number."""
    total = 50
    shot = clips.Shot(length=total, background=scenery(), pose=numbered(total))
    plan = windows.plan(total, 21, handover, overlap=5, blend=blend)
    frames, _ = film(shot, plan, vae, Camera(vae, lambda part, window: part.pose), drift_control=0)
    assert numbers(frames) == list(range(total))


def test_an_environment_video_is_cut_like_the_pose(vae):
    shot = clips.Shot(length=50, background=numbered(50), pose=numbered(50), mask=numbered(50)[..., 0])
    camera = Camera(vae, lambda part, window: part.background)
    film(shot, windows.plan(50, 21), vae, camera)
    for part, window, _ in camera.asked:
        expected = [min(frame, 49) for frame in range(window.start, window.start + window.length)]
        assert numbers(part.background) == numbers(part.mask) == expected


# --- handing over


def test_a_window_begins_with_the_last_frame_of_the_one_before(vae):
    shot = clips.Shot(length=50, background=scenery(), start=scenery(1))
    camera = Camera(vae, lambda part, window: scenery(2 + window.index).expand(window.length, -1, -1, -1))
    _, made = film(shot, windows.plan(50, 21), vae, camera)
    starts = [part.start for part, _, _ in camera.asked]
    assert torch.equal(starts[0], shot.start)
    for before, start in zip(made, starts[1:]):
        assert torch.equal(start, before.frames[-1:])


def test_without_hand_over_every_window_begins_from_the_background(vae):
    shot = clips.Shot(length=50, background=scenery(), start=scenery(1))
    camera = Camera(vae, lambda part, window: scenery().expand(window.length, -1, -1, -1))
    film(shot, windows.plan(50, 21, NONE), vae, camera)
    assert torch.equal(camera.asked[0][0].start, shot.start)
    assert all(part.start is None and kept is None for part, _, kept in camera.asked[1:])


def drifting(vae, shot, step, figure=False):
    """A double that takes the shade of its start picture and adds ``step`` to it in the course of a window. It knows
    the scenery, and reads the shade from the picture's lower left corner, where no figure comes."""
    clean = shot.background[0]

    def frames_of(part, window):
        begin = clean if part.start is None else part.start[0]
        shade = (begin[-16:, :16] - clean[-16:, :16]).mean((0, 1))
        course = torch.linspace(0, 1, window.length).view(-1, 1, 1, 1)
        frames = clean + shade + course * torch.tensor(step)
        if figure:
            for place, frame in enumerate(frames):
                left = (window.start + place) * SIDE // shot.length
                frame[8:40, left : left + 20] = torch.tensor([0.8, 0.1, 0.1])
        return frames.clamp(0, 1)

    return Camera(vae, frames_of)


def drift_of(frame, clean):
    corner = torch.zeros(SIDE, SIDE)
    corner[-16:, :] = 1  # under the figure's feet
    return metrics.colour_error(frame[None], corner[None], clean[None], corner[None])


STEP = [0.012, -0.004, 0.004]


@pytest.fixture(scope="module")
def twenty():
    return clips.Shot(length=81, background=scenery()), windows.plan(81, 5)


@pytest.fixture(scope="module")
def held(vae, twenty):
    with torch.inference_mode():
        return film(*twenty, vae, drifting(vae, twenty[0], STEP))


def test_drift_of_twenty_windows_is_held_below_one(vae, twenty, held):
    shot, plan = twenty
    assert len(plan.windows) == 20
    clean = shot.background[0]
    free, _ = film(shot, plan, vae, drifting(vae, shot, STEP), drift_control=0)
    frames, made = held
    assert drift_of(free[-1], clean) > 5
    assert max(drift_of(frame, clean) for frame in frames) < 1
    assert made[-1].figures["drift"] < 1 < made[-1].figures["drift_before"]


def test_a_red_figure_that_crosses_the_picture_hardly_moves_the_colours(vae, twenty, held):
    shot, plan = twenty
    crossed, _ = film(shot, plan, vae, drifting(vae, shot, STEP, figure=True))
    ground, everywhere = slice(-16, None), torch.ones(1, 16, SIDE)
    moved = [
        metrics.colour_error(one[None, ground], everywhere, other[None, ground], everywhere)
        for one, other in zip(held[0], crossed)
    ]
    assert max(moved) < 0.5


def test_with_an_environment_video_every_frame_is_held_to_its_own(vae):
    """The place changes all the time, so that nothing of the first picture is left; the video tells its colours."""
    wide = torch.cat([scenery(seed) for seed in range(6)], dim=2)[0]
    video = torch.stack([wide[:, 8 * t : 8 * t + SIDE] for t in range(37)])
    shot = clips.Shot(length=37, background=video)

    def frames_of(part, window):
        brighter = levels.Level(np.array([1.2, 1.0, 0.9]), np.array([0.01, 0.0, 0.0]) * window.index)
        return levels.apply(part.background, brighter, brighter)

    frames, made = film(shot, windows.plan(37, 13), vae, Camera(vae, frames_of))
    ground = torch.ones(1, SIDE, SIDE)
    drift = [metrics.colour_error(one[None], ground, other[None], ground) for one, other in zip(frames, video)]
    assert len(made) == 3 and max(drift) < 1 and made[-1].figures["drift_before"] > 4


def test_one_window_is_left_as_the_model_made_it(vae):
    shot = clips.Shot(length=13, background=scenery())
    camera = drifting(vae, shot, [0.2, 0.0, 0.0])
    frames, _ = film(shot, windows.plan(13, 21), vae, camera)
    again = latents.decode_latents(vae, camera(shot, windows.Window(0, 0, 13, 0), None))
    assert torch.equal(frames, again)


def test_overlapping_latents_are_handed_on_without_the_vae(vae):
    shot = clips.Shot(length=37, background=scenery())
    plan = windows.plan(37, 21, OVERLAP, overlap=5)
    camera = drifting(vae, shot, STEP)
    film(shot, plan, vae, camera, drift_control=0)
    (_, _, none), (part, _, kept) = camera.asked
    before = camera(*camera.asked[0])
    assert none is None and kept.shape[2] == latents.latent_frames(5) == 2
    assert torch.equal(kept[:, :, 1:], before[:, :, -1:])
    assert torch.equal(kept[:, :, :1], latents.encode_frames(vae, part.start))


def test_overlapping_latents_are_made_anew_where_colours_were_brought_back(vae):
    shot = clips.Shot(length=37, background=scenery())
    camera = drifting(vae, shot, [0.1, -0.05, 0.0])
    film(shot, windows.plan(37, 21, OVERLAP, overlap=5), vae, camera)
    before, (_, _, kept) = camera(*camera.asked[0]), camera.asked[1]
    assert (kept[:, :, 1:] - before[:, :, -1:]).abs().mean() > 0.01


def test_a_film_goes_on_where_it_was_left_and_is_the_same(vae, twenty):
    shot, plan = twenty
    whole, made = film(shot, plan, vae, drifting(vae, shot, STEP))
    rest = LongShot(shot, plan, vae, drifting(vae, shot, STEP)).windows(made[6].handover, 7)
    assert torch.equal(torch.cat([each.frames for each in rest]), whole[plan.windows[7].start + 1 :])


def test_figures_tell_of_seams_drift_time_and_memory(vae):
    shot = clips.Shot(length=37, background=scenery())
    _, made = film(shot, windows.plan(37, 21), vae, drifting(vae, shot, STEP))
    first, second = (each.figures for each in made)
    assert first["seam"] is None and second["seam"] < 3
    assert second["flow"] == pytest.approx(0, abs=0.3) == second["flow_inside"]
    assert all(figures["seconds"] > 0 and figures["memory"] > 50 for figures in (first, second))
