"""The samplers and the schedule: held against diffusers, and at work in the host's own nodes."""

import comfy.model_management
import diffusers
import pytest
import torch
import toys
from animate_anywhere.models import sampler
from animate_anywhere.models.sampler import CogVideoXSampler, trailing_sigmas
from comfy.samplers import simple_scheduler
from comfy_extras import nodes_custom_sampler as stock
from comfy_extras.nodes_differential_diffusion import DifferentialDiffusion
from diffusers.schedulers import scheduling_dpm_cogvideox

pytestmark = pytest.mark.usefixtures("no_gradients")

SCHEDULERS = {"cogvideox_dpm": diffusers.CogVideoXDPMScheduler, "ddim": diffusers.CogVideoXDDIMScheduler}
METHODS = list(SCHEDULERS)
SHAPE = (1, 16, 2, 4, 6)  # latents of 5 frames of 48×32 px


@pytest.fixture(scope="module")
def model():
    return toys.cogvideox_patcher(num_attention_heads=1, num_layers=1)


@pytest.fixture
def model_sampling(model):
    return model.get_model_object("model_sampling")


def conditioning(seed=0):
    generator = torch.Generator().manual_seed(seed)
    text = torch.randn(1, 5, toys.CONFIG["text_embed_dim"], generator=generator)
    return [[text, {"concat_latent_image": torch.randn(SHAPE, generator=generator)}]]


def guider(model, cfg=3.0):
    node = stock.CFGGuider.execute(model, conditioning(0), conditioning(1), cfg)
    return node.result[0]


def run(guider, method, sigmas, seed=7, latent=None, **more):
    """SamplerCustomAdvanced, the stock node: samples and denoised samples."""
    samples = torch.zeros(SHAPE) if latent is None else latent
    noise = more.pop("noise", None) or stock.RandomNoise.execute(seed).result[0]
    out = stock.SamplerCustomAdvanced.execute(
        noise, guider, CogVideoXSampler(method), sigmas, {"samples": samples, **more}
    )
    return out.result[0]["samples"], out.result[1]["samples"]


# --- the schedule


def scheduler(method):
    """As in CogVideoX1.5-5B's scheduler_config.json."""
    return SCHEDULERS[method](
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        set_alpha_to_one=True,
        snr_shift_scale=1.0,
        timestep_spacing="trailing",
        clip_sample=False,
    )


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 13, 25, 30, 48, 50, 61, 999, 1000])
def test_timesteps_are_those_of_diffusers(steps):
    reference = scheduler("ddim")
    reference.set_timesteps(steps)
    # At 61 steps diffusers gives a 62nd timestep, -1.
    assert sampler.trailing_timesteps(steps) == reference.timesteps.tolist()[:steps]


@pytest.mark.parametrize(("steps", "same"), [(20, True), (25, True), (50, True), (30, False), (7, False)])
def test_simple_is_the_same_schedule_at_some_counts_only(model_sampling, steps, same):
    ours = trailing_sigmas(model_sampling, steps)
    assert ours.shape == (steps + 1,) and ours[-1] == 0
    assert torch.equal(ours, simple_scheduler(model_sampling, steps)) == same


def test_the_host_finds_the_same_timesteps_again_in_the_sigmas(model_sampling):
    sigmas = trailing_sigmas(model_sampling, 30)[:-1]
    assert model_sampling.timestep(sigmas).tolist() == sampler.trailing_timesteps(30)


def test_denoise_takes_the_end_of_a_longer_schedule(model_sampling):
    assert torch.equal(trailing_sigmas(model_sampling, 10, 0.4), trailing_sigmas(model_sampling, 25)[-11:])


def test_denoise_0_is_nothing_to_do(model_sampling):
    assert trailing_sigmas(model_sampling, 10, 0.0).shape == (0,)


def test_denoise_of_almost_nothing_keeps_to_the_timesteps_that_exist(model_sampling):
    sigmas = trailing_sigmas(model_sampling, 10, 0.001)
    assert sigmas.shape == (11,) and (sigmas.diff() < 0).all()


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_step_counts_are_refused(model_sampling, steps):
    with pytest.raises(ValueError, match=f"steps: {steps} .* 1 to 1000"):
        trailing_sigmas(model_sampling, steps)


# --- against diffusers


class Network:
    """The toy model as diffusers sees it: velocity with guidance, straight from the transformer."""

    def __init__(self, model, cfg) -> None:
        comfy.model_management.load_models_gpu([model])
        self.core, self.cfg = model.model, cfg

    def velocity(self, x, timestep):
        branches = []
        for seed in (0, 1):
            (text, values), *_ = conditioning(seed)
            start = self.core.process_latent_in(values["concat_latent_image"])
            time = torch.tensor([float(timestep)])
            full = torch.cat([x, start], dim=1)
            branches.append(self.core.diffusion_model(full, time, context=text, ofs=torch.tensor([2.0])))
        positive, negative = branches
        return negative + self.cfg * (positive - negative)


def diffusers_run(method, model, cfg, timesteps, monkeypatch, seed=7):
    """A run of diffusers' scheduler on the noise that the host and the sampler draw from ``seed``.

    Where steps does not divide 1000, each step is told the schedule's true next timestep, because diffusers would go to
    t - 1000 // steps. Everywhere else diffusers is left alone. Its second-order steps draw noise twice and use the
    last, so both draws are the same here.
    """
    reference = scheduler(method)
    reference.set_timesteps(len(timesteps))
    network = Network(model, cfg)
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
    fresh = torch.Generator().manual_seed(seed + 1)
    old, before = None, None
    for now, then in zip(timesteps, [*timesteps[1:], -1]):
        if 1000 % len(timesteps):
            reference.register_to_config(num_train_timesteps=(now - then) * len(timesteps))
        velocity = network.velocity(x, now)
        if method == "ddim":
            x, old = reference.step(velocity, now, x, return_dict=False)
            continue
        noise = torch.randn(SHAPE, generator=fresh)
        monkeypatch.setattr(scheduling_dpm_cogvideox, "randn_tensor", lambda *_, noise=noise, **__: noise)
        x, old = reference.step(velocity, old, now, before, x, return_dict=False)
        before = now
    return x


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("steps", [25, 7, 30])
def test_a_whole_run_equals_diffusers(model, model_sampling, monkeypatch, method, steps):
    """1e-4: the host ends its sigmas at 4519 where diffusers has no signal at all, and keeps them in float32."""
    ours, _ = run(guider(model), method, trailing_sigmas(model_sampling, steps))
    expected = diffusers_run(method, model, 3.0, sampler.trailing_timesteps(steps), monkeypatch)
    expected = model.model.process_latent_out(expected)
    assert expected.std() > 0.1
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)


def test_the_steps_have_seams_that_the_callback_sees(model, model_sampling):
    """x0 of a step is the guider's prediction for x of that step; and at the end, x is x0."""
    sigmas, seen = trailing_sigmas(model_sampling, 4), []
    work = guider(model)
    noise = torch.randn(SHAPE)
    samples = work.sample(
        noise, torch.zeros(SHAPE), CogVideoXSampler("ddim"), sigmas, callback=lambda *step: seen.append(step), seed=1
    )
    assert [(i, total) for i, _, _, total in seen] == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert torch.equal(seen[0][2], noise)
    torch.testing.assert_close(samples, model.model.process_latent_out(seen[-1][1]))


# --- in the host


@pytest.mark.parametrize("method", METHODS)
def test_a_guider_without_guidance_works_and_equals_cfg_1(model, model_sampling, method):
    sigmas = trailing_sigmas(model_sampling, 3)
    basic = stock.BasicGuider.execute(model, conditioning(0)).result[0]
    assert torch.equal(run(basic, method, sigmas)[0], run(guider(model, cfg=1.0), method, sigmas)[0])


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(model, model_sampling, method):
    sigmas = trailing_sigmas(model_sampling, 3)
    first, again, other = (run(guider(model), method, sigmas, seed)[0] for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert (first - other).abs().max() > 0.1


def test_the_last_of_all_seeds_works(model, model_sampling):
    samples, _ = run(guider(model), "cogvideox_dpm", trailing_sigmas(model_sampling, 2), seed=2**64 - 1)
    assert samples.isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_two_runs_with_the_same_conditioning_are_equal_and_leave_it_alone(model, model_sampling, method):
    """The host scales concat_latent_image in place; it must do so on a copy."""
    work = guider(model)
    given = work.original_conds["positive"][0]["concat_latent_image"]
    before = given.clone()
    sigmas = trailing_sigmas(model_sampling, 2)
    assert torch.equal(run(work, method, sigmas)[0], run(work, method, sigmas)[0])
    assert torch.equal(given, before)


@pytest.mark.parametrize("method", METHODS)
def test_every_step_moves_the_hosts_progress_bar(model, model_sampling, monkeypatch, method):
    shown = []
    monkeypatch.setattr(
        stock.comfy.utils, "PROGRESS_BAR_HOOK", lambda done, total, *_, **__: shown.append((done, total))
    )
    monkeypatch.setattr(stock.comfy.utils, "PROGRESS_THROTTLE_MIN_INTERVAL", 0)
    run(guider(model), method, trailing_sigmas(model_sampling, 3))
    assert shown[-3:] == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("method", METHODS)
def test_cancel_is_seen_before_the_next_branch_runs(model, model_sampling, method):
    """Cancelled while the first of two branches of the second step runs: no further one starts."""
    patched, calls = model.clone(), []

    def forward(executor, *args, **kwargs):
        calls.append(1)
        out = executor(*args, **kwargs)
        if len(calls) == 3:
            comfy.model_management.interrupt_current_processing()
        return out

    patched.add_wrapper(stock.comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, forward)
    work = stock.CFGGuider.execute(patched, conditioning(0), longer(conditioning(1)), 3.0).result[0]
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run(work, method, trailing_sigmas(model_sampling, 5))
    # The fourth is entered, and stops in its first layer.
    assert len(calls) <= 4
    assert not comfy.model_management.processing_interrupted()


def longer(conditioning):
    """Text of another length, so that the host runs the branches apart."""
    (text, values), *_ = conditioning
    return [[torch.cat([text, text], dim=1)[:, :7], values]]


@pytest.mark.parametrize("method", METHODS)
def test_a_cancel_between_the_steps_is_seen_at_once(model, model_sampling, monkeypatch, method):
    """Without the layers' own question, as in a compiled model."""
    monkeypatch.setattr("comfy.ops.run_every_op", lambda: None)
    done = []

    def callback(i, *_):
        done.append(i)
        comfy.model_management.interrupt_current_processing()

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        guider(model).sample(
            torch.randn(SHAPE),
            torch.zeros(SHAPE),
            CogVideoXSampler(method),
            trailing_sigmas(model_sampling, 5),
            callback=callback,
            seed=0,
        )
    assert done == [0]


@pytest.mark.parametrize("method", METHODS)
def test_partial_denoise_starts_from_the_latent_image(model, model_sampling, method):
    """At the very end of the schedule there is nearly no noise: what comes out is nearly what went in. The bound is
    five times the noise's size there, σ of timestep 0."""
    latent = torch.randn(SHAPE)
    sigmas = torch.stack([model_sampling.sigmas[0], torch.tensor(0.0)])
    samples, _ = run(guider(model), method, sigmas, latent=latent)
    bound = 5 * float(sigmas[0]) / model.model.latent_format.scale_factor
    assert (samples - latent).abs().max() < bound * (1 + latent.abs().max())


@pytest.mark.parametrize("method", METHODS)
def test_partial_denoise_hands_the_model_a_mixture_of_unit_variance(model, model_sampling, method):
    """a·latent + s·noise, not latent + σ·noise."""
    latent, seen = torch.randn(SHAPE), []
    sigmas = trailing_sigmas(model_sampling, 2, 0.5)
    noise = torch.randn(SHAPE)
    guider(model).sample(
        noise, latent, CogVideoXSampler(method), sigmas, callback=lambda i, x0, x, n: seen.append(x), seed=0
    )
    a = 1 / (1 + sigmas[0] ** 2) ** 0.5
    torch.testing.assert_close(seen[0], a * model.model.process_latent_in(latent) + sigmas[0] * a * noise)


@pytest.mark.parametrize("method", METHODS)
def test_a_masked_region_stays_and_the_rest_fits_it(model, model_sampling, method):
    latent = torch.randn(SHAPE)
    mask = torch.ones(1, 1, *SHAPE[-2:])
    mask[..., :3] = 0  # kept
    sigmas = trailing_sigmas(model_sampling, 4)
    samples, _ = run(guider(model), method, sigmas, latent=latent, noise_mask=mask)
    torch.testing.assert_close(samples[..., :3], latent[..., :3])
    free, _ = run(guider(model), method, sigmas)
    assert (samples - latent)[..., 3:].abs().min() > 0
    assert not torch.equal(samples[..., 3:], free[..., 3:])


def test_the_model_sees_the_masked_region_at_its_own_noise_level(model, model_sampling):
    """All masked: every step's x is replaced by a·latent + s·noise before the model looks."""
    latent, noise, seen = torch.randn(SHAPE), torch.randn(SHAPE), []
    patched = model.clone()

    def apply_model(executor, x, t, *args, **kwargs):
        seen.append((x.clone(), t.clone()))
        return executor(x, t, *args, **kwargs)

    patched.add_wrapper(stock.comfy.patcher_extension.WrappersMP.APPLY_MODEL, apply_model)
    guider(patched, cfg=1.0).sample(
        noise,
        latent,
        CogVideoXSampler("cogvideox_dpm"),
        trailing_sigmas(model_sampling, 4),
        denoise_mask=torch.zeros(1, 1, *SHAPE[-2:]),
        seed=0,
    )
    assert len(seen) == 4
    for x, sigma in seen:
        a = 1 / (1 + sigma**2) ** 0.5
        torch.testing.assert_close(x, a * model.model.process_latent_in(latent) + sigma * a * noise)


def test_differential_diffusion_lets_the_mask_grow(model, model_sampling):
    """A grey mask is on at once without it, and only for the last half of the steps with it."""
    patched = DifferentialDiffusion.execute(model).result[0]
    latent, mask = torch.randn(SHAPE), torch.full((1, 1, *SHAPE[-2:]), 0.5)
    sigmas = trailing_sigmas(model_sampling, 4)
    grown, _ = run(guider(patched), "ddim", sigmas, latent=latent, noise_mask=mask)
    mixed, _ = run(guider(model), "ddim", sigmas, latent=latent, noise_mask=mask)
    assert grown.isfinite().all() and not torch.equal(grown, mixed)


def test_a_schedule_cut_in_two_gives_the_same_video(model, model_sampling):
    """DDIM remembers nothing, so Split Sigmas and a second sampler node without noise must give what one gives. The
    bound is float32's, carried through the division by a (0.02 at the cut) and the steps after it."""
    sigmas = trailing_sigmas(model_sampling, 6)
    whole, _ = run(guider(model), "ddim", sigmas)
    half, _ = run(guider(model), "ddim", sigmas[:4])
    silent = stock.DisableNoise.execute().result[0]
    joined, _ = run(guider(model), "ddim", sigmas[3:], latent=half, noise=silent)
    torch.testing.assert_close(joined, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_repeated_sigmas_do_no_harm(model, method):
    sigmas = torch.tensor([5.0, 5.0, 1.0, 1.0, 1.0, 0.0])
    assert run(guider(model), method, sigmas)[0].isfinite().all()


def test_rising_sigmas_are_refused(model):
    with pytest.raises(ValueError, match="sigmas: they rise"):
        run(guider(model), "cogvideox_dpm", torch.tensor([0.1, 1.0, 5.0]))


def test_another_models_parameterisation_is_refused(model):
    """Model Sampling Discrete swaps the model's way of mixing noise in."""
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    (patched,) = ModelSamplingDiscrete().patch(model, "v_prediction", False)
    with pytest.raises(ValueError, match=r"sampler: .* CogVideoX models only"):
        run(guider(patched), "ddim", torch.tensor([1.0, 0.0]))


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match=r"method: 'euler'.*cogvideox_dpm, ddim"):
        CogVideoXSampler("euler")


def test_easy_cache_skips_steps(model, model_sampling):
    """The stock EasyCache reads the sigmas and the steps of the sampler it runs under."""
    from comfy_extras.nodes_easycache import EasyCacheNode

    calls = []
    patched = EasyCacheNode.execute(model, 1e9, 0.15, 0.95, False).result[0]
    patched.add_wrapper(
        stock.comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL,
        lambda executor, *args, **kwargs: calls.append(1) or executor(*args, **kwargs),
    )
    run(guider(patched, cfg=1.0), "ddim", trailing_sigmas(model_sampling, 10))
    assert 0 < len(calls) < 10
