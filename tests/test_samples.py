"""What is trained on: samples, the steps that they make up, and their way through the VAE."""

from dataclasses import replace

import comfy.sd
import comfy.utils
import numpy as np
import pytest
import safetensors.torch
import torch
import toys
from animate_anywhere.models import checkpoint as adapters
from animate_anywhere.models import latents
from animate_anywhere.models.reference import GREY
from animate_anywhere.training import autoencoder, configuration, dataset, encoded, networks, objective, samples, supply
from training_toys import STAGES, draw_sample

pytest_plugins = ["training_toys"]


def test_noise_is_that_of_diffusers_scheduler():
    from diffusers import CogVideoXDDIMScheduler

    theirs = CogVideoXDDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", rescale_betas_zero_snr=True,
        snr_shift_scale=1.0,
    ).alphas_cumprod  # fmt: skip
    ours = 1 / (1 + objective.noise_schedule().sigmas.double() ** 2)
    # The host stands 5e-8 for "no signal", and its sigmas are float32.
    torch.testing.assert_close(ours, theirs.double(), rtol=2e-4, atol=1e-6)


@pytest.fixture(params=["taehv", "cogvideox"])
def any_vae_file(request, vae_file, tmp_path):
    if request.param == "taehv":
        yield vae_file
        return
    path = tmp_path / "cogvideox_vae.safetensors"
    safetensors.torch.save_file(toys.cogvideox_vae_state(), path)
    with toys.small_cogvideox_vae_class():
        yield path


def test_the_batch_way_through_the_vae_equals_the_nodes_way(any_vae_file):
    base = adapters.Base(64, 1, 5, 16, 24)
    batch = autoencoder.Autoencoder(any_vae_file, base, torch.device("cpu"))
    host = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(any_vae_file)), dtype=torch.float32)
    frames = torch.rand(2, 13, 32, 48, 3)
    seen = batch.encode(frames)
    theirs = torch.cat([latents.encode_frames(host, clip) for clip in frames])
    torch.testing.assert_close(seen, base.latent_format.process_in(theirs), rtol=1e-3, atol=1e-4)
    back = torch.stack([latents.decode_latents(host, clip[None]) for clip in theirs])
    torch.testing.assert_close(batch.decode(seen), back, rtol=1e-3, atol=1e-4)


def test_the_first_latent_frame_is_that_of_the_first_frame_alone(vae_file):
    coder = autoencoder.Autoencoder(vae_file, adapters.Base(64, 1, 5, 16, 24), torch.device("cpu"))
    frames = torch.rand(1, 13, 32, 32, 3)
    torch.testing.assert_close(coder.encode(frames)[:, :, :1], coder.encode(frames[:, :1]), rtol=1e-4, atol=1e-5)


def test_gradients_go_through_decoding_to_every_latent_frame(any_vae_file):
    coder = autoencoder.Autoencoder(any_vae_file, adapters.Base(64, 1, 5, 16, 24), torch.device("cpu"))
    video = torch.randn(1, 16, 4, 4, 4, requires_grad=True)
    coder.decode(video)[:, -1].sum().backward()
    assert (video.grad.abs().sum((0, 1, 3, 4)) > 0).sum() > 1  # the memory of frames before, too


def test_a_window_compares_the_frames_that_belong_together(toy, any_vae_file):
    """A perfect prediction has no perceptual loss against what the VAE makes of the latents."""
    settings = toy("joint", "loss.window_latents=2", "loss.window_side=16")
    coder = autoencoder.Autoencoder(any_vae_file, networks.base_of(settings.model), torch.device("cpu"))
    goal = objective.Objective(settings, coder, torch.device("cpu"), configuration.ROOT)
    clips = [draw_sample(settings.data, number) for number in range(2)]
    draw = replace(samples.draw_step(0, 0, 2, "joint", settings.data, settings.conditions), timesteps=torch.zeros(2))
    kept = encoded.encode(clips, coder)
    assert goal._perceptual(kept.video, kept, draw) == pytest.approx(0, abs=1e-6)  # rounding
    window = objective.Window(1, 2, 1, 2, 2, 2)
    frames = torch.arange(13)[:, None, None].expand(13, 32, 32)
    assert window.frames(frames, 1)[:, 0, 0].tolist() == [5, 6, 7, 8]  # of latent frame 2; 1 is for memory
    assert window.frames(frames[:, ::4, ::4], 4).shape == (4, 4, 4)


def test_every_clip_comes_once_before_one_comes_again(toy):
    data = replace(toy("base").data, sizes=((32, 32), (48, 32)), clips=22)
    numbers = [samples.numbers_at(0, step, 4, data) for step in range(22)]
    assert all(len({number % 2 for number in step}) == 1 for step in numbers)  # one size a step
    even = [number for step in numbers[::2] for number in step]
    assert sorted(even[:11]) == sorted(even[11:22]) == list(range(0, 22, 2))
    assert even[:11] != even[11:22]


def test_a_step_is_drawn_alike_however_many_share_it(toy):
    settings = toy("joint", "run.batch=4")
    whole = samples.draw_step(1, 5, 4, "joint", settings.data, settings.conditions)
    parts = [piece for rank in range(2) for piece in whole.part(rank, 2, 1)]
    assert sum((piece.numbers for piece in parts), ()) == whole.numbers
    noise = torch.cat([piece.noise((3,), torch.device("cpu")) for piece in parts])
    assert torch.equal(noise, whole.noise((3,), torch.device("cpu")))
    assert len(noise.unique()) == 12


def test_timesteps_spread_over_the_batch(toy):
    settings = toy("base")
    for step in range(20):
        times = samples.draw_step(0, step, 10, "base", settings.data, settings.conditions).timesteps
        assert sorted((times // 100).tolist()) == list(range(10))  # one in each tenth


def test_a_shift_brings_noisy_timesteps_more_often_and_changes_nothing_else(toy):
    settings = toy("base")
    even, noisy = (
        [samples.draw_step(0, step, 10, "base", settings.data, settings.conditions, shift) for step in range(50)]
        for shift in (1.0, 3.0)
    )
    times = torch.cat([draw.timesteps for draw in noisy])
    assert 0.73 < (times >= 500).float().mean() < 0.77  # 3 · 0.25 / (1 + 2 · 0.25) = 0.5: three quarters lie above
    assert times.max() < 1000
    for one, other in zip(even, noisy):
        assert (one.numbers, one.seeds, one.starts) == (other.numbers, other.seeds, other.starts)


@pytest.mark.parametrize("stage", STAGES)
def test_conditions_are_dropped_in_their_shares_but_never_the_only_trained_one(toy, stage):
    settings = toy(stage)
    draws = [samples.draw_step(0, step, 1, stage, settings.data, settings.conditions) for step in range(2000)]
    shares = {kind: sum((d.pose, d.reference) == kind for d in draws) / 2000 for kind in
              ((True, True), (True, False), (False, True), (False, False))}  # fmt: skip
    expected = {
        "base": (0, 0, 0, 1),
        "pose_control": (0, 1, 0, 0),
        "reference": (0.85, 0, 0.15, 0),
        "joint": (0.8, 0.05, 0.05, 0.1),
    }.get(stage, (0, 1, 0, 0))
    # 0.03 is more than three standard deviations of a share of 2000.
    assert list(shares.values()) == pytest.approx(expected, abs=0.03)


def test_start_pictures_come_in_their_shares(toy):
    settings = toy("joint", "conditions.clean_start=0.5", "conditions.own_start=0.2", "conditions.environment=0.3")
    starts = samples.draw_step(0, 0, 3000, "joint", settings.data, settings.conditions).starts
    assert [starts.count(kind) / 3000 for kind in ("clean", "own", "environment")] == pytest.approx(
        [0.5, 0.2, 0.3], abs=0.03
    )


def test_a_sample_of_the_stage_has_what_it_says(toy):
    data = replace(toy("joint").data, sizes=((64, 48),), frames=5)
    sample = samples.draw_sample(data, 3)
    again = samples.draw_sample(data, 3)
    assert sample.frames.shape == sample.pose.shape == sample.environment.shape == (5, 48, 64, 3)
    assert sample.background.shape == sample.character.shape == (1, 48, 64, 3)
    assert all(
        torch.equal(getattr(sample, name), getattr(again, name)) for name in ("frames", "environment", "character")
    )
    outside = sample.person[0] == 0
    assert outside.any() and not outside.all()
    away = (sample.frames[0].float() - sample.background[0].float()).abs().mean(-1)
    assert away[~outside].mean() > 5 * away[outside].mean()  # the start picture lacks the person, not the room
    assert sample.cameras.translation.shape == (5, 3)


def test_environment_videos_hide_the_character(toy):
    data = replace(toy("joint").data, sizes=((64, 64),), frames=5)
    hidden = []
    for number in range(6):
        sample = samples.draw_sample(data, number)
        inside = sample.person > 250
        hidden.append((sample.environment[inside] == 128).float().mean().item())
    # Grey, or else the background without them; never the character.
    assert sum(share > 0.99 for share in hidden) >= 4


def put_together(number):
    """A black person with a shadow in a corner of a white room; the character's picture is white, all masked out."""
    frames, person = torch.ones(2, 32, 32, 3), torch.zeros(2, 32, 32)
    person[:, 8:24, 8:24] = 1
    frames[:, 8:24, 8:24] = frames[:, 0, 0] = 0
    return samples._put_together(
        number, frames=frames, clean=torch.ones_like(frames), pose=frames, person=person, hands=0 * person,
        character=torch.ones(32, 32, 3), character_mask=torch.zeros(32, 32), cameras=None,
    )  # fmt: skip


def test_settings_of_a_clip_come_in_their_shares():
    seen = []
    for number in range(600):
        sample = put_together(number)
        inside = sample.environment[sample.person > 0]
        assert ((inside == 128) | (inside == 255)).all()  # grey or the room, never the person
        clean, blanked = sample.environment[0, 0, 0, 0] == 255, (inside == 128).any()
        seen.append(
            [clean and not blanked, clean and blanked, not clean and blanked, sample.character[0, 0, 0, 0] == 128]
        )
    # 0.06 is three standard deviations of a share of 600.
    assert np.mean(seen, axis=0).tolist() == pytest.approx([0.1, 0.4, 0.5, 0.3], abs=0.06)


@pytest.mark.parametrize(("tall", "limit"), [(40, 48), (8, 12)], ids=["fills the picture", "no larger than 1.5 times"])
def test_a_stand_in_is_whole_and_as_large_as_it_may_be(tall, limit):
    character = dataset.Character(*(np.full((tall, tall // 2, *rest), 255, np.uint8) for rest in ((3,), ())))
    heights = []
    for seed in range(30):
        picture, mask = samples._stand_in(np.random.default_rng(seed), character, None, (64, 48))
        assert (picture[mask == 1] == 1).all() and (picture[mask == 0] == GREY).all()
        heights.append(int(mask.any(1).sum()))
        assert mask.sum() == pytest.approx(heights[-1] ** 2 / 2, abs=heights[-1])
    low, high = samples.FILLED
    assert low * limit - 1 <= min(heights) < max(heights) <= high * limit + 1
    assert max(heights) - min(heights) > 0.15 * limit


def test_kept_clips_are_the_drawn_ones(toy, quick_clips, tmp_path):
    settings = toy("joint", "data.keep=true", "data.sizes=[[32, 32], [48, 32]]")
    coder = autoencoder.Autoencoder(
        configuration.ROOT / settings.model.vae, networks.base_of(settings.model), torch.device("cpu")
    )
    fresh, kept = (supply.Supply(settings, coder, torch.device("cpu")) for _ in range(2))
    kept.keep(tmp_path, configuration.ROOT / settings.model.vae, lambda: None)
    for ours, theirs in zip(kept.steps(0, 4), fresh.steps(0, 4)):
        for (draw, stored), (_, drawn) in zip(ours, theirs):
            assert stored.video.shape == drawn.video.shape
            # bfloat16 has eight bits.
            torch.testing.assert_close(stored.video.float(), drawn.video, rtol=2**-8, atol=1e-3)
            torch.testing.assert_close(
                stored.start(draw.starts).float(), drawn.start(draw.starts), rtol=2**-8, atol=1e-3
            )
            assert torch.equal(stored.cameras.translation, drawn.cameras.translation)
    assert encoded.Kept(tmp_path, settings, configuration.ROOT / settings.model.vae).missing() == []


def test_clips_without_cameras_are_left_out_of_the_epipolar_loss(toy, vae_file):
    settings = toy("joint")
    coder = autoencoder.Autoencoder(vae_file, networks.base_of(settings.model), torch.device("cpu"))
    clips = [draw_sample(settings.data, number) for number in range(2)]
    batch = encoded.encode([clips[0], replace(clips[1], cameras=None)], coder)
    assert batch.background_tokens[0].any() and not batch.background_tokens[1].any()


def test_kept_clips_stay_valid_under_another_decoder_alone(toy, tmp_path):
    settings = toy("base", "data.keep=true")
    state = safetensors.torch.load_file(configuration.ROOT / settings.model.vae)

    def folder(name, part):
        changed = {key: value + 0.5 if key.startswith(part) else value for key, value in state.items()}
        safetensors.torch.save_file(changed, tmp_path / name, metadata={"of": name})
        return encoded.Kept(tmp_path, settings, tmp_path / name).folder

    same = folder("same.safetensors", "nothing")
    assert folder("decoder.safetensors", "decoder.") == same != folder("encoder.safetensors", "encoder.")
