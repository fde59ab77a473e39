"""What training minimises (AnimateAnywhere eq. 5 and 7): the latent loss, and its sum with those of epipolar.py and
perceptual.py."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..models.latents import PATCH

PERCEPTUAL_WEIGHT, EPIPOLAR_WEIGHT = 0.2, 0.005  # λ of eq. 7, as in section IV


def alphas_cumprod(model_sampling) -> Tensor:
    """ᾱ [1000] of the host's noise schedule (x_t = √ᾱ x0 + √(1-ᾱ) ε), from its sigmas √((1-ᾱ)/ᾱ)."""
    return 1 / (1 + model_sampling.sigmas.double() ** 2)


def _amounts(alphas: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """ᾱ [B] -> how much signal √ᾱ and noise √(1-ᾱ) x_t holds, each [B, 1, 1, 1, 1]."""
    alphas = alphas.double().to(like.device)[:, None, None, None, None]
    return alphas.sqrt().float(), (1 - alphas).sqrt().float()


def add_noise(latents: Tensor, noise: Tensor, alphas: Tensor) -> Tensor:
    """x_t [B, 16, t, h, w] at ᾱ [B]."""
    signal, spread = _amounts(alphas, latents)
    return (signal * latents + spread * noise).to(latents.dtype)


def one_step(noisy: Tensor, velocity: Tensor, alphas: Tensor) -> Tensor:
    """x̂0 = √ᾱ x_t - √(1-ᾱ) v in float32: the "one-step sampling" of section III-D. alphas: ᾱ [B]."""
    signal, spread = _amounts(alphas, noisy)
    return signal * noisy.float() - spread * velocity.float()


def latent_loss(predicted: Tensor, latents: Tensor, alphas: Tensor, weights: Tensor | None = None) -> Tensor:
    """Eq. 5 as CogVideoX is trained: |x̂0 - x0|² / (1-ᾱ), averaged.

    It is what diffusers' examples/cogvideo/train_cogvideox_*lora.py and CogVideo's own finetune/ minimise, and equals
    |v̂ - v|². predicted: one_step(...), latents: x0, both [B, 16, t, h, w]; alphas: ᾱ [B]; weights: [B, 1, t, h, w],
    as person_weights() gives them.
    """
    _, spread = _amounts(alphas, latents)
    errors = ((predicted - latents.float()) / spread).square()
    return (errors if weights is None else weights * errors).mean()


def person_weights(background: Tensor, extra: float) -> Tensor:
    """Weights of mean 1 for latent_loss, ``1 + extra`` times as large where a person is as elsewhere.

    Not in the paper. A person covers an eighth of a clip, and a small network spends what it learns where most pixels
    are. background: bool [B, t, h, w] of tokens -> [B, 1, 2t, 2h, 2w] of latents. Clips whose tokens are all alike
    weigh evenly.
    """
    weights = torch.where(background, 1.0, 1.0 + extra)
    weights = weights / weights.flatten(1).mean(1)[:, None, None, None]
    for dim in (1, 2, 3):
        weights = weights.repeat_interleave(PATCH, dim)
    return weights[:, None]


class Losses(NamedTuple):
    """The total with its graph, and its parts without weights or graph, for the record."""

    total: Tensor
    latent: Tensor
    perceptual: Tensor
    epipolar: Tensor


def total_loss(
    latent: Tensor,
    perceptual: Tensor | None = None,
    epipolar: Tensor | None = None,
    perceptual_weight: float = PERCEPTUAL_WEIGHT,
    epipolar_weight: float = EPIPOLAR_WEIGHT,
) -> Losses:
    """L = L_latent + λ_vgg L_vgg + λ_epipolar L_epipolar (eq. 7). A part that a stage does not use is None."""
    parts = [latent.new_zeros(()) if part is None else part for part in (perceptual, epipolar)]
    total = latent + perceptual_weight * parts[0] + epipolar_weight * parts[1]
    return Losses(total, *(part.detach() for part in (latent, *parts)))
