"""From a shot to frames, in the host's own way, and the refusals before it."""

import json
from dataclasses import replace

import comfy.hooks
import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import pytest
import torch
import toys
from animate_anywhere.models import attach, checkpoint, clips, latents, sampler
from animate_anywhere.models.reference import Reference
from animate_anywhere.models.windows import HANDOVERS, NONE, OVERLAP
from animate_anywhere.nodes import decode
from animate_anywhere.nodes import sample as nodes
from animate_anywhere.nodes import shot as shots
from animate_anywhere.nodes.sampling import ONE_EACH, SAME
from comfy_extras import nodes_custom_sampler as stock

import nodes as host_nodes

pytestmark = pytest.mark.usefixtures("no_gradients")

FRAMES, WIDTH, HEIGHT = 5, 32, 16


@pytest.fixture(scope="module")
def vae():
    return toys.taehv_vae()


@pytest.fixture(scope="module")
def base():
    return toys.cogvideox_patcher()


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, base):
    path = tmp_path_factory.mktemp("adapter") / "adapter.safetensors"
    checkpoint.save(path, checkpoint.Base.of(base.model.diffusion_model), toys.trained_groups(base))
    return checkpoint.load(path)


@pytest.fixture(scope="module")
def model(base, adapter):
    return attach.attach(base, adapter)


@pytest.fixture
def shot(adapter):
    character = attach.encode_reference(adapter, torch.randn(1, 16, 1, 2, 4))
    pose, background = torch.rand(FRAMES, HEIGHT, WIDTH, 3), torch.rand(1, HEIGHT, WIDTH, 3)
    return clips.make_shot(pose, background, character)


def sample(model, vae, shot, seed=5, steps=2, **more):
    text = shots.no_prompt(model)
    return nodes.SampleShot.execute(model, vae, shot, text, text, seed, steps, **more)


@pytest.mark.parametrize("method", ["cogvideox_dpm", "ddim"])
def test_a_shot_becomes_exactly_its_frames(model, vae, shot, method):
    shot = clips.make_shot(torch.rand(16, HEIGHT, WIDTH, 3), shot.background, shot.reference)
    images, report, *_ = sample(model, vae, shot, method=method).result
    assert images.shape == (16, HEIGHT, WIDTH, 3)
    assert images.min() >= 0 and images.max() <= 1 and images.std() > 0.01
    assert report.startswith(f"16 frames of 32×16 px, seed 5, 2 steps of {method}, cfg 2.5\nEncoding ")


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(model, vae, shot):
    first, again, other = (sample(model, vae, shot, seed).result[0] for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("change", ["pose", "background", "reference"])
def test_each_part_of_the_shot_reaches_the_video(model, vae, shot, adapter, change):
    other = {
        "pose": shot.pose.flip(0),
        "background": shot.background.flip(1),
        "reference": attach.encode_reference(adapter, torch.randn(1, 16, 1, 2, 4)),
    }
    changed = replace(shot, **{change: other[change]})
    assert not torch.equal(sample(model, vae, shot).result[0], sample(model, vae, changed).result[0])


def test_the_stock_sampler_node_gives_the_same_video(model, vae, shot):
    """Encode Shot, CogVideoX Sampler and Schedule, and SamplerCustomAdvanced, against Sample Shot."""
    text = shots.no_prompt(model)
    positive, negative, latent = shots.EncodeShot.execute(shot, vae, text, text).result
    samples = stock.SamplerCustomAdvanced.execute(
        stock.RandomNoise.execute(5).result[0],
        stock.CFGGuider.execute(model, positive, negative, 2.5).result[0],
        nodes.Sampler.execute("cogvideox_dpm").result[0],
        nodes.Schedule.execute(model, 2).result[0],
        latent,
    ).result[0]["samples"]
    assert torch.equal(latents.decode_latents(vae, samples), sample(model, vae, shot).result[0])


def test_a_plain_shot_needs_no_adapter(base, vae):
    plain = clips.Shot(length=5, background=torch.rand(1, HEIGHT, WIDTH, 3))
    assert len(sample(base, vae, plain).result[0]) == 5


def test_every_step_moves_the_hosts_progress_bar(model, vae, shot, monkeypatch):
    shown = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda done, total, *_, **__: shown.append((done, total)))
    monkeypatch.setattr(comfy.utils, "PROGRESS_THROTTLE_MIN_INTERVAL", 0)
    sample(model, vae, shot, steps=3)
    assert shown == [(1, 3), (2, 3), (3, 3)]


def test_cancel_in_mid_sampling_stops_within_the_step(model, vae, shot, monkeypatch):
    shown = []

    def cancel(done, total, *_, **__):
        shown.append((done, total))
        if (done, total) == (1, 5):
            comfy.model_management.interrupt_current_processing()

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", cancel)
    monkeypatch.setattr(comfy.utils, "PROGRESS_THROTTLE_MIN_INTERVAL", 0)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(model, vae, shot, steps=5)
    assert shown[-1] == (1, 5)


def test_cancel_during_encoding_stops_before_sampling(model, vae, shot, monkeypatch):
    comfy.model_management.interrupt_current_processing()
    monkeypatch.setattr(comfy.sample, "sample_custom", lambda *_, **__: pytest.fail("sampled"))
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(model, vae, shot)


# --- windows


def long(shot, frames=21):
    """What of ``shot`` is one picture, with so many poses."""
    generator = torch.Generator().manual_seed(3)
    return clips.make_shot(torch.rand(frames, HEIGHT, WIDTH, 3, generator=generator), shot.background, shot.reference)


@pytest.mark.parametrize("drift_control", [0.0, 1.0])
def test_what_an_overlap_keeps_stays_in_every_step(model, vae, shot, monkeypatch, drift_control):
    """Of the second window: what is handed over comes out as it is, and the model sees it at each step's noise."""
    shown, kept, sampled = [], [], []
    real = comfy.sample.sample_custom

    def watch(*given, noise_mask=None, callback=None, **more):
        def show(step, x0, x, total):
            shown.append((len(sampled), x0))
            callback(step, x0, x, total)

        kept.append(None if noise_mask is None else given[7][:, :, noise_mask[0, 0, :, 0, 0] == 0].clone())
        sampled.append(real(*given, noise_mask=noise_mask, callback=show, **more))
        return sampled[-1]

    monkeypatch.setattr(comfy.sample, "sample_custom", watch)
    sample(model, vae, long(shot), steps=3, window=13, handover=OVERLAP, overlap=5, drift_control=drift_control)
    assert kept[0] is None and kept[1].shape[2] == 2
    assert (sampled[1][:, :, :2] - kept[1]).abs().max() < 1e-5
    process = model.model.process_latent_in
    steps = [x0 for window, x0 in shown if window == 1]
    assert len(steps) == 3
    assert all((x0[:, :, :2] - process(kept[1])).abs().max() < 1e-5 for x0 in steps)
    assert all((x0[:, :, 2:] - process(sampled[1][:, :, 2:])).abs().max() > 0.01 for x0 in steps[:-1])
    if not drift_control:  # nothing went through the VAE again but the first frame
        assert torch.equal(kept[1][:, :, 1:], sampled[0][:, :, -1:])


@pytest.mark.parametrize("seeds", [SAME, ONE_EACH])
@pytest.mark.parametrize("handover", HANDOVERS)
def test_every_way_to_hand_over_makes_exactly_the_frames_and_twice_the_same(model, vae, shot, handover, seeds):
    first, again = (
        sample(model, vae, long(shot, 18), steps=1, window=13, handover=handover, overlap=5, seeds=seeds).result
        for _ in range(2)
    )
    assert first[0].shape == (18, HEIGHT, WIDTH, 3) and first[0].isfinite().all()
    assert torch.equal(first[0], again[0])
    assert [row["length"] for row in json.loads(first[2])["windows"]] == [13, 5 if handover == NONE else 13]


def test_one_seed_for_each_window_changes_the_windows_behind_the_first(model, vae, shot):
    same, other = (
        sample(model, vae, long(shot), steps=1, window=13, seeds=seeds, drift_control=0).result[0]
        for seeds in (SAME, ONE_EACH)
    )
    assert torch.equal(same[:13], other[:13]) and not torch.equal(same[13:], other[13:])


def test_cancel_in_the_second_window_stops_within_the_step(model, vae, shot, monkeypatch):
    shown = []

    def cancel(done, total, *_, **__):
        shown.append((done, total))
        if done == 4:
            comfy.model_management.interrupt_current_processing()

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", cancel)
    monkeypatch.setattr(comfy.utils, "PROGRESS_THROTTLE_MIN_INTERVAL", 0)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(model, vae, long(shot), steps=3, window=13)
    assert shown == [(1, 6), (2, 6), (3, 6), (4, 6)]


# --- refusals


@pytest.fixture
def no_work(monkeypatch):
    """Nothing may be encoded or sampled."""
    monkeypatch.setattr(clips, "encode", lambda *_: pytest.fail("encoded"))


@pytest.mark.usefixtures("no_work")
class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"in_channels": 16}, "model: this CogVideoX 1.5 takes 16 latent channels"),
            ({"patch_size_t": None, "ofs_embed_dim": None}, "model: this is a CogVideoX 1.0 or 2B model"),
        ],
    )
    def test_another_model(self, vae, shot, changes, message):
        other = toys.cogvideox_patcher(**changes)
        with pytest.raises(ValueError, match=message):
            nodes.SampleShot.execute(other, vae, shot, [], [], 0)
        with pytest.raises(ValueError, match=message):
            nodes.Schedule.execute(other, 25)

    def test_another_vae(self, model, shot):
        with pytest.raises(ValueError, match="vae: CogVideoX needs a video VAE with 16 latent channels"):
            sample(model, toys.taehv_vae(channels=12), shot)

    def test_a_pose_without_its_adapter(self, base, vae, shot):
        with pytest.raises(ValueError, match="model: .*aa_pose, which the shot brings.*Apply AnimateAnywhere Adapter"):
            sample(base, vae, shot)

    def test_a_character_without_its_adapter(self, base, vae, adapter, shot, tmp_path):
        groups = {"pose_control": toys.trained_groups(base)["pose_control"]}
        path = tmp_path / "pose_only.safetensors"
        checkpoint.save(path, adapter.header.base, groups)
        with pytest.raises(ValueError, match="model: .*aa_reference, which the shot brings"):
            sample(attach.attach(base, checkpoint.load(path)), vae, shot)

    def test_a_character_of_another_width(self, model, vae):
        foreign = Reference((torch.zeros(1, 2, 8),), (1, 2))
        shot = clips.make_shot(torch.rand(5, 16, 16, 3), torch.rand(1, 16, 16, 3), foreign)
        with pytest.raises(ValueError, match="model: its width is 128, .* of width 8"):
            sample(model, vae, shot)

    def test_no_steps(self, model, vae, shot):
        with pytest.raises(ValueError, match="steps: 0"):
            sample(model, vae, shot, steps=0)


# --- the other nodes


def test_schedule_gives_the_end_of_it_for_less_denoise(base):
    whole, part = (nodes.Schedule.execute(base, steps, denoise).result[0] for steps, denoise in ((20, 1.0), (5, 0.25)))
    assert whole.shape == (21,) and torch.equal(part, whole[-6:])


def test_auto_scale_needs_no_model_where_the_model_has_an_adapter(model, vae, shot):
    """Encode Shot with and without its model, and Sample Shot, give the same picture."""
    text = shots.no_prompt(model)
    sigmas = sampler.trailing_sigmas(model.get_model_object("model_sampling"), 1)

    def sampled(**more):
        positive, negative, latent = shots.EncodeShot.execute(shot, vae, text, text, **more).result
        noise = comfy.sample.prepare_noise(latent["samples"], 5)
        chosen = sampler.CogVideoXSampler("ddim")
        return comfy.sample.sample_custom(
            model, noise, 1.0, chosen, sigmas, positive, negative, latent["samples"], disable_pbar=True, seed=5
        )

    torch.testing.assert_close(sampled(), sampled(model=model))
    assert (sampled() - sampled(model=model, image_latent_scale="1.0")).abs().max() > 1e-3
    images = sample(model, vae, shot, steps=1, cfg=1.0, method="ddim").result[0]
    torch.testing.assert_close(images, latents.decode_latents(vae, sampled()), rtol=0, atol=1e-5)


def sample_stock(model, encoded, chosen, cfg=1.0):
    positive, negative, latent = encoded
    noise = comfy.sample.prepare_noise(latent["samples"], 5)
    sigmas = sampler.trailing_sigmas(model.get_model_object("model_sampling"), 1)
    return comfy.sample.sample_custom(
        model, noise, cfg, chosen, sigmas, positive, negative, latent["samples"], disable_pbar=True, seed=5
    )


@pytest.mark.parametrize("name", ["euler", "dpmpp_2m", "uni_pc", "ddim"])
def test_stock_samplers_are_refused_before_the_first_step(base, model, vae, shot, name):
    """On a model with an adapter by what the model carries, on a plain one by what Encode Shot puts into positive."""
    chosen = comfy.samplers.sampler_object(name)
    refusal = "would turn this shot into noise.* Use Sample Shot, or SamplerCustomAdvanced with CogVideoX Sampler"
    text = shots.no_prompt(model)
    plain = replace(shot, pose=None, reference=None)
    for patcher, part in ((model, shot), (base, plain)):
        encoded = shots.EncodeShot.execute(part, vae, text, text).result
        with pytest.raises(ValueError, match=refusal):
            sample_stock(patcher, encoded, chosen)
        assert torch.isfinite(sample_stock(patcher, encoded, sampler.CogVideoXSampler("ddim"))).all()


def test_the_host_s_ksampler_is_refused(model, vae, shot):
    text = shots.no_prompt(model)
    positive, negative, latent = shots.EncodeShot.execute(shot, vae, text, text).result
    with pytest.raises(ValueError, match="^sampler: euler would turn this shot into noise"):
        host_nodes.KSampler().sample(model, 1, 2, 1.0, "euler", "simple", positive, negative, latent)


def test_a_model_without_an_adapter_is_told_which_part_of_the_shot_it_cannot_take(base, vae, shot):
    text = shots.no_prompt(base)
    encoded = shots.EncodeShot.execute(shot, vae, text, text).result
    with pytest.raises(ValueError, match="model: it has no adapter for aa_pose"):
        sample_stock(base, encoded, sampler.CogVideoXSampler("ddim"))


def test_the_mark_of_encode_shot_leaves_hooks_of_others_alone(model, vae, shot):
    others = comfy.hooks.HookGroup()
    others.add(comfy.hooks.TransformerOptionsHook({"wrappers": {}}))
    text = comfy.hooks.set_hooks_for_conditioning(shots.no_prompt(model), others)
    positive, *_ = shots.EncodeShot.execute(shot, vae, text, text).result
    kept = positive[0][1]["hooks"].hooks
    assert len(kept) == 2 and others.hooks[0] in kept


def test_the_mark_of_encode_shot_leaves_both_branches_in_one_batch(model, vae, shot):
    batches = []

    def count(apply, given):
        batches.append(len(given["input"]))
        return apply(given["input"], given["timestep"], **given["c"])

    patched = model.clone()
    patched.set_model_unet_function_wrapper(count)
    text = shots.no_prompt(model)
    positive, _, latent = shots.EncodeShot.execute(replace(shot, reference=None), vae, text, text).result
    sample_stock(patched, (positive, positive, latent), sampler.CogVideoXSampler("ddim"), cfg=2.0)
    assert batches == [2]


# --- CogVideoX's own VAE, which decodes an even number of latent frames three frames late


@pytest.fixture(scope="module")
def cogvideox_vae():
    return toys.cogvideox_vae()


@pytest.mark.parametrize("window", [0, 5])
def test_a_shot_through_cogvideox_s_own_vae_is_in_step(model, cogvideox_vae, window):
    """As many frames as the shot has, none of them frozen, in one window and in several."""
    frames = 13
    made = clips.make_shot(torch.rand(frames, HEIGHT, WIDTH, 3), torch.rand(1, HEIGHT, WIDTH, 3))
    images, *_ = sample(model, cogvideox_vae, made, steps=1, cfg=1.0, window=window, drift_control=0.0).result
    assert images.shape == (frames, HEIGHT, WIDTH, 3)
    steps = images.diff(dim=0).abs().flatten(1).mean(1)
    assert steps.min() > 0.01 * steps.max()


def test_decode_shot_gives_the_frames_that_were_encoded(cogvideox_vae):
    video = torch.rand(13, HEIGHT, WIDTH, 3)
    coded = latents.encode_frames(cogvideox_vae, video)
    images = decode.DecodeShot.execute({"samples": coded}, cogvideox_vae).result[0]
    assert torch.equal(images, latents.decode_latents(cogvideox_vae, coded)) and len(images) == 13
    both = decode.DecodeShot.execute({"samples": torch.cat([coded, coded])}, cogvideox_vae).result[0]
    assert torch.equal(both, torch.cat([images, images]))


@pytest.mark.parametrize("shape", [(1, 16, 4, 4), (1, 4, 2, 4, 4)])
def test_decode_shot_refuses_latents_of_other_models(vae, shape):
    with pytest.raises(ValueError, match=r"^samples: this latent has the shape \[1, "):
        decode.DecodeShot.execute({"samples": torch.zeros(shape)}, vae)
