"""DynamiCtrl at work: what its shots carry, sampling, refusals. tests/test_dynamictrl_files.py loads it."""

from dataclasses import replace

import comfy.model_management
import comfy.sample
import comfy.sd
import diffusers
import pytest
import released
import torch
import toys
from animate_anywhere.models import attach, clips, dynamictrl, latents, sampler
from animate_anywhere.nodes import dynamictrl as nodes
from animate_anywhere.nodes import sample as samples
from animate_anywhere.nodes import shot as shots
from diffusers.schedulers import scheduling_dpm_cogvideox

FRAMES, HEIGHT, WIDTH = 13, 32, 48  # 4 latent frames of 4×6
pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.fixture(scope="module")
def state():
    return released.weights(2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, state):
    return released.save(tmp_path_factory.mktemp("models") / "DynamiCtrl" / "transformer", state, shards=3)


@pytest.fixture(scope="module")
def model(folder):
    with torch.inference_mode(False):
        return dynamictrl.load(folder)


@pytest.fixture(scope="module")
def vae():
    return toys.taehv_vae()


def words(seed):
    return torch.randn(1, 7, released.TEXT, generator=torch.Generator().manual_seed(seed))


def prompts():
    return [[words(1), {}]], [[words(2), {}]]


@pytest.fixture
def shot():
    return clips.make_shot(torch.rand(FRAMES, HEIGHT, WIDTH, 3), torch.rand(1, HEIGHT, WIDTH, 3))


def encoded(shot, vae, model, **more):
    return shots.EncodeShot.execute(shot, vae, *prompts(), model=model, **more).result


def as_coded(shot, vae, model):
    """The same with the start picture's latents as the VAE gives them, for the host to scale."""
    return encoded(shot, vae, model, image_latent_scale="0.7")


def guided(model, positive, negative, latent, steps, seed=7, cfg=3.0):
    """The host's way from noise to latents, in the model's scale."""
    sigmas = sampler.trailing_sigmas(model.get_model_object("model_sampling"), steps)
    output = comfy.sample.sample_custom(
        model, comfy.sample.prepare_noise(latent["samples"], seed), cfg, sampler.CogVideoXSampler("cogvideox_dpm"),
        sigmas, positive, negative, latent["samples"], disable_pbar=True, seed=seed,
    )  # fmt: skip
    return model.model.process_latent_in(output)


def released_run(state, positive, negative, scale, steps, monkeypatch, seed=7, cfg=3.0, image_scale=1.0):
    """The released pipeline: its scheduler, its forward, guidance over the text alone, in [B, t, C, h, w].

    positive, negative: from as_coded(). The released script leaves the start picture's latents as they are.
    """
    scheduler = diffusers.CogVideoXDPMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type="v_prediction",
        rescale_betas_zero_snr=True, set_alpha_to_one=True, snr_shift_scale=1.0, timestep_spacing="trailing",
        clip_sample=False,
    )  # fmt: skip
    scheduler.set_timesteps(steps)
    (text, values), (no_text, _) = positive[0], negative[0]
    pose = scale * values["aa_pose"].movedim(2, 1)
    picture = image_scale * values["concat_latent_image"].movedim(2, 1)
    x = torch.randn(pose.movedim(2, 1).shape, generator=torch.Generator().manual_seed(seed)).movedim(2, 1)
    fresh = torch.Generator().manual_seed(seed + 1)
    old, before = None, None
    for now in scheduler.timesteps:
        both = torch.cat([x, picture], dim=2).expand(2, -1, -1, -1, -1)
        velocity = released.forward(
            state, both, pose.expand(2, -1, -1, -1, -1), now.float().expand(2), torch.cat([no_text, text])
        )
        uncond, cond = velocity.chunk(2)
        noise = torch.randn(x.movedim(2, 1).shape, generator=fresh).movedim(2, 1)
        monkeypatch.setattr(scheduling_dpm_cogvideox, "randn_tensor", lambda *_, noise=noise, **__: noise)
        x, old = scheduler.step(uncond + cfg * (cond - uncond), old, now, before, x, return_dict=False)
        before = now
    return x.movedim(2, 1)


# --- with what else the host does


def test_it_samples_in_fp8(folder, vae, shot):
    model = dynamictrl.load(folder, nodes.PRECISIONS["fp8_e4m3fn"])
    assert guided(model, *encoded(shot, vae, model), steps=1).isfinite().all()


def with_lora(model):
    """A LoRA on an attention and on the patch embedding, through which the pose goes as well, by the stock loader."""
    lora = {}
    for layer, into in (("blocks.0.q", 128), ("patch_embed.proj", 256)):
        lora[f"diffusion_model.{layer}.lora_A.weight"] = torch.randn(2, into)
        lora[f"diffusion_model.{layer}.lora_B.weight"] = torch.randn(128, 2)
    return comfy.sd.load_lora_for_models(model, None, lora, 0.2, 0)[0]


def test_a_stock_lora_works_on_it(model, vae, shot):
    given = encoded(shot, vae, model)
    assert not torch.equal(guided(with_lora(model), *given, steps=1), guided(model, *given, steps=1))


def test_offloaded_it_computes_the_same(folder):
    """As the host does it with little memory: weights stay where they are, and every layer casts and patches its own
    when it runs. A layer whose weights were read past the host would miss the LoRA."""
    model = with_lora(dynamictrl.load(folder))
    parts = [model, *model.get_nested_additional_models()]
    inputs = torch.randn(1, 32, 4, 4, 6), torch.tensor([640.0]), words(3), torch.tensor([2.0])
    pose = torch.randn(1, 16, 4, 4, 6)

    def velocity():
        options = {"wrappers": model.wrappers}
        return model.model.diffusion_model(*inputs, transformer_options=options, aa_pose=pose)

    plain = velocity()
    comfy.model_management.load_models_gpu(parts)
    whole = velocity()
    for part in parts:
        part.unpatch_model(part.offload_device)
        part.load(part.load_device, lowvram_model_memory=1)
    assert all(part.model.model_lowvram and not part.model.model_loaded_weight_memory for part in parts)
    torch.testing.assert_close(velocity(), whole, rtol=1e-4, atol=1e-5)  # the LoRA's sums, in another order
    assert (whole - plain).norm() > 0.01 * plain.norm()


def test_the_host_can_load_the_base_once_more_for_another_device(model):
    function, arguments = model.cached_patcher_init
    again = function(*arguments, disable_dynamic=True)
    expected = model.model.diffusion_model.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in again.model.diffusion_model.state_dict().items())


# --- shots


def test_both_branches_carry_picture_and_pose_and_differ_in_their_text(model, vae, shot):
    positive, negative, _ = encoded(shot, vae, model)
    shared = {"concat_latent_image", "aa_pose"}
    assert positive[0][1].keys() == negative[0][1].keys() == shared | {"hooks"}
    assert all(torch.equal(positive[0][1][key], negative[0][1][key]) for key in shared)
    assert not torch.equal(positive[0][0], negative[0][0])


def test_the_start_is_the_whole_picture(model, vae, shot):
    positive, *_ = as_coded(shot, vae, model)
    start = positive[0][1]["concat_latent_image"]
    assert torch.equal(start[:, :, :1], latents.encode_frames(vae, shot.background)) and not start[:, :, 1:].any()


def test_frame_0_is_the_pose_of_the_picture_and_the_driving_video_follows():
    driving, own = torch.rand(12, HEIGHT, WIDTH, 3), torch.rand(2, HEIGHT, WIDTH, 3)
    made = shots.Shot.execute(driving, torch.rand(1, HEIGHT, WIDTH, 3), start_pose=own).result[0]
    assert made.length == FRAMES
    assert torch.equal(made.pose[0], own[0]) and torch.equal(made.pose[1:], driving)


def test_a_pose_of_another_shape_is_cropped_as_its_picture_is():
    wide = torch.zeros(1, HEIGHT, 2 * WIDTH, 3)
    wide[:, :, WIDTH // 2 : -WIDTH // 2] = 1  # the middle half
    made = shots.Shot.execute(torch.rand(12, HEIGHT, WIDTH, 3), wide, start_pose=wide).result[0]
    assert made.pose[0].min() == 1 and made.background.min() == 1


# --- sampling


def test_a_whole_run_equals_the_released_pipeline(model, vae, shot, state, monkeypatch):
    """25 steps with guidance, against diffusers' CogVideoXDPMScheduler on the same noise."""
    expected = released_run(state, *as_coded(shot, vae, model)[:2], 1.15258426, 25, monkeypatch)
    ours = guided(model, *encoded(shot, vae, model), 25)
    assert expected.std() > 0.1
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("wrong", ["negative without pose", "no guidance"])
def test_another_way_to_guide_is_told_apart(model, vae, shot, state, monkeypatch, wrong):
    positive, negative, latent = encoded(shot, vae, model)
    expected = released_run(state, *as_coded(shot, vae, model)[:2], 1.15258426, 2, monkeypatch)
    if wrong == "no guidance":
        other = guided(model, positive, negative, latent, 2, cfg=1.0)
    else:
        control = replace(attach.control_of(model), joint_text=False)
        plain = model.clone()
        plain.add_object_patch("extra_conds", attach._extra_conds(plain, control))
        bare = [[negative[0][0], {"concat_latent_image": negative[0][1]["concat_latent_image"]}]]
        other = guided(plain, positive, bare, latent, 2)
    assert (other - expected).norm() > 0.1 * expected.norm()


@pytest.mark.parametrize(("choice", "scale"), [("auto", 1.0), ("1.0", 1.0), ("0.7", 1.15258426)])
def test_start_pictures_are_scaled_as_chosen(model, vae, shot, state, monkeypatch, choice, scale):
    """0.7 stands for the scale of all latents, which is 1.15258426 for models of fewer than 48 heads."""
    raw = as_coded(shot, vae, model)[:2]
    ours = guided(model, *encoded(shot, vae, model, image_latent_scale=choice), 2)
    expected = released_run(state, *raw, 1.15258426, 2, monkeypatch, image_scale=scale)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-3)
    other = released_run(state, *raw, 1.15258426, 2, monkeypatch, image_scale=1.15258426 if scale == 1 else 1)
    assert (ours - other).abs().max() > 0.01


def test_48_heads_get_the_scale_of_the_5b_model(tmp_path, vae, monkeypatch):
    state = {key: value.to(torch.bfloat16).float() for key, value in released.weights(1, width=3072).items()}
    small = {key: value.to(torch.bfloat16) for key, value in state.items()}
    model = dynamictrl.load(released.save(tmp_path / "transformer", small, 1), {"dtype": torch.float32})
    assert model.model.latent_format.scale_factor == 0.7
    shot = clips.make_shot(torch.rand(5, 16, 16, 3), torch.rand(1, 16, 16, 3))
    expected = released_run(state, *as_coded(shot, vae, model)[:2], 0.7, 2, monkeypatch)
    ours = guided(model, *encoded(shot, vae, model), 2)
    # Its PadaLN computes in bf16, in which it is stored: 8 bits of mantissa.
    assert (ours - expected).norm() < 0.02 * expected.norm()


def test_sample_shot_does_it_all(model, vae, shot):
    positive, negative = prompts()
    images, report, *_ = samples.SampleShot.execute(model, vae, shot, positive, negative, 7, 2, 3.0).result
    samples_of_parts = guided(model, *encoded(shot, vae, model), 2)
    expected = latents.decode_latents(vae, model.model.process_latent_out(samples_of_parts))
    assert images.shape == (FRAMES, HEIGHT, WIDTH, 3) and report.startswith("13 frames of 48×32 px, seed 7")
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)


def test_text_beyond_226_tokens_does_not_reach_the_model(model, vae, shot):
    long = torch.randn(1, 300, released.TEXT)
    positive, negative, latent = encoded(shot, vae, model)
    whole, cut = ([[text, positive[0][1]]] for text in (long, long[:, :226]))
    assert torch.equal(*(guided(model, each, negative, latent, 1) for each in (whole, cut)))


# --- pictures that the prompt fills


def test_blacked_out_pictures_are_those_of_training():
    """Everything but what the mask keeps is 0, with no soft edge: 200 of 255 and less is not kept."""
    picture = torch.rand(1, 2, 4, 3) / 2 + 0.5
    person = torch.tensor([[[0.0, 0.7, 0.79, 1.0]]]).expand(1, 2, 4)
    keep = torch.tensor([0.0, 0.0, 1.0, 1.0])[None, None, :, None]
    (background,) = nodes.BlackOut.execute(picture, person, "background").result
    assert torch.equal(background, picture * keep)
    (clothing,) = nodes.BlackOut.execute(picture, person, "clothing").result
    assert torch.equal(clothing, picture * torch.tensor([1.0, 0.0, 0.0, 0.0])[None, None, :, None])


@pytest.mark.parametrize(
    ("mask", "blank", "says"),
    [
        (torch.ones(1, 8, 8), "background", "mask: there are 1 of 8×8 px, and pictures 1 of 4×2 px"),
        (torch.ones(2, 2, 4), "background", "mask: there are 2 of 4×2 px"),
        (torch.ones(1, 2, 4), "background", "mask: it blanks nothing. It must be white on the person"),
        (torch.zeros(1, 2, 4), "background", "mask: it leaves nothing of the picture"),
        (torch.zeros(1, 2, 4), "clothing", "mask: it blanks nothing. It must be white on the clothes"),
    ],
)
def test_masks_that_make_no_sense_are_refused(mask, blank, says):
    with pytest.raises(ValueError, match=says):
        nodes.BlackOut.execute(torch.rand(1, 2, 4, 3), mask, blank)


# --- refusals


def test_a_shot_without_pose_is_refused_before_anything_is_encoded(model, vae, monkeypatch):
    monkeypatch.setattr(clips, "encode", lambda *_: pytest.fail("encoded"))
    plain = clips.Shot(length=5, background=torch.rand(1, HEIGHT, WIDTH, 3))
    for node in (samples.SampleShot, shots.EncodeShot):
        given = {"model": model, "vae": vae, "shot": plain, "positive": prompts()[0], "negative": prompts()[1]}
        with pytest.raises(ValueError, match="model: DynamiCtrl cannot run without a pose"):
            node.execute(**given, **({"seed": 0} if node is samples.SampleShot else {}))


def test_conditioning_without_pose_is_refused_when_sampling_starts(model, vae, shot):
    """Encode Shot without the model leaves the pose out of the negative."""
    with pytest.raises(
        ValueError, match="model: DynamiCtrl cannot run without a pose.*Connect the model to Encode Shot"
    ):
        guided(model, *encoded(shot, vae, None), 1)


def test_a_pose_video_shorter_than_the_clip_is_refused():
    with pytest.raises(ValueError, match="length: 13 frames are asked for; choose 1 to 9"):
        shots.Shot.execute(
            torch.rand(8, 32, 48, 3), torch.rand(1, 32, 48, 3), length=13, start_pose=torch.rand(1, 32, 48, 3)
        )


def test_a_pose_shorter_than_the_latent_is_refused(model, vae, shot):
    positive, negative, latent = encoded(shot, vae, model)
    latent = {"samples": torch.zeros(1, 16, 6, 4, 6)}
    with pytest.raises(ValueError, match="Take positive and latent from the same Encode Shot"):
        guided(model, positive, negative, latent, 1)


def test_text_of_another_encoder_is_refused(model, vae, shot):
    positive, negative, latent = encoded(shot, vae, model)
    positive = [[torch.zeros(1, 77, 768), positive[0][1]]]
    with pytest.raises(ValueError, match="its text encoder's width is 768, and the model reads 24"):
        guided(model, positive, negative, latent, 1)


def test_the_scale_needs_the_model(vae, shot):
    with pytest.raises(ValueError, match="model: image_latent_scale 1.0 needs the model"):
        encoded(shot, vae, None, image_latent_scale="1.0")
