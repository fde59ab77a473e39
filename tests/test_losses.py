"""The latent loss against that of diffusers' training scripts, and the sum of eq. 7."""

import diffusers
import torch
import toys
from animate_anywhere.training import losses


def model_sampling():
    return toys.cogvideox_patcher().model.model_sampling


def scheduler():
    """As in CogVideoX1.5-5B's scheduler_config.json."""
    return diffusers.CogVideoXDPMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=1.0,
        timestep_spacing="trailing",
    )


def test_noise_levels_are_those_of_diffusers():
    """1e-6: the host ends at ᾱ = 5e-8 where diffusers has 0, and keeps sigmas in float32."""
    assert (losses.alphas_cumprod(model_sampling()) - scheduler().alphas_cumprod).abs().max() < 1e-6


def test_latent_loss_equals_that_of_diffusers_training_scripts():
    """1e-4: (x̂0 - x0)/√(1-ᾱ) takes a small difference of float32 numbers at t = 3."""
    timesteps, reference = torch.tensor([3, 250, 700, 990]), scheduler()
    latents, noise, velocity = torch.randn(3, 4, 16, 2, 4, 6).unbind(0)
    noisy = reference.add_noise(latents, noise, timesteps)
    predicted = reference.get_velocity(velocity, noisy, timesteps)
    weights = 1 / (1 - reference.alphas_cumprod[timesteps])
    expected = (weights.view(-1, 1, 1, 1, 1) * (predicted - latents) ** 2).reshape(4, -1).mean(1).mean()
    alphas = losses.alphas_cumprod(model_sampling())[timesteps]
    ours = losses.one_step(losses.add_noise(latents, noise, alphas), velocity, alphas)
    assert torch.isclose(losses.latent_loss(ours, latents, alphas), expected.float(), rtol=1e-4)
    a, s = (part.view(-1, 1, 1, 1, 1).float() for part in (alphas.sqrt(), (1 - alphas).sqrt()))
    assert torch.isclose(
        losses.latent_loss(ours, latents, alphas), ((a * noise - s * latents) - velocity).square().mean(), rtol=1e-4
    )


def test_the_person_weighs_more_and_the_whole_as_much():
    background = torch.ones(2, 2, 3, 4, dtype=torch.bool)
    background[0, 0, 1, 2] = False
    weights = losses.person_weights(background, 3.0)
    assert weights.shape == (2, 1, 4, 6, 8)
    assert torch.allclose(weights.flatten(1).mean(1), torch.ones(2)) and torch.equal(weights[1], torch.ones(1, 4, 6, 8))
    assert torch.isclose(weights[0, 0, 1, 3, 5] / weights[0, 0, 2, 3, 5], torch.tensor(4.0))
    latents = torch.zeros(2, 16, 4, 6, 8)
    wrong = latents.clone()
    wrong[0, :, :2, 2:4, 4:6] = 1  # all of the person, and nothing else
    alphas = torch.tensor([0.5, 0.5], dtype=torch.float64)
    ratio = losses.latent_loss(wrong, latents, alphas, weights) / losses.latent_loss(wrong, latents, alphas)
    assert torch.isclose(ratio, weights.max())


def test_one_step_with_the_true_velocity_gives_the_latents():
    latents, noise = torch.randn(2, 3, 16, 2, 4, 6).unbind(0)
    alphas = losses.alphas_cumprod(model_sampling())[torch.tensor([0, 500, 999])]
    a, s = (part.view(-1, 1, 1, 1, 1).float() for part in (alphas.sqrt(), (1 - alphas).sqrt()))
    noisy = losses.add_noise(latents, noise, alphas)
    assert (losses.one_step(noisy, a * noise - s * latents, alphas) - latents).abs().max() < 1e-5


def test_the_total_weighs_its_parts_as_the_paper_does():
    latent, perceptual, epipolar = (torch.tensor(value, requires_grad=True) for value in (1.0, 2.0, 3.0))
    all_three = losses.total_loss(latent, perceptual, epipolar)
    all_three.total.backward()
    assert torch.isclose(all_three.total, torch.tensor(1.0 + 0.2 * 2 + 0.005 * 3))
    assert torch.isclose(perceptual.grad, torch.tensor(0.2))
    assert torch.isclose(epipolar.grad, torch.tensor(0.005))
    alone = losses.total_loss(latent)
    assert (alone.total, alone.perceptual, alone.epipolar) == (1, 0, 0)
