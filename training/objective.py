"""From a batch to gradients: noise, conditions, the networks, and the three losses of eq. 7."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

import comfy.model_base
import comfy.model_sampling
import comfy.supported_models
import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.latents import PIXELS_PER_LATENT, frames_of
from . import losses
from .autoencoder import Autoencoder
from .configuration import Configuration
from .encoded import HAND_CELL, Encoded
from .epipolar import AttentionProbe, EpipolarConstraint
from .networks import Family
from .perceptual import BELOW, load_features, perceptual_loss
from .samples import Draw


def noise_schedule() -> comfy.model_sampling.ModelSamplingDiscrete:
    """The host's own schedule for CogVideoX: 1000 steps of scaled_linear 0.00085…0.012, no signal at the last one."""
    settings = comfy.supported_models.CogVideoX_I2V({"image_model": "cogvideox", "in_channels": 32})
    return comfy.model_base.model_sampling(settings, comfy.model_base.ModelType.V_PREDICTION_DDPM)


class Objective:
    """The loss of one stage, and its gradients."""

    def __init__(self, configuration: Configuration, vae: Autoencoder, device: torch.device, root: Path) -> None:
        self.settings = configuration.loss
        self.autocast = configuration.run.autocast
        self.vae = vae
        self.device = device
        self.alphas = losses.alphas_cumprod(noise_schedule())  # [1000], on the CPU, in float64
        self.features = None
        if self.settings.perceptual:
            vgg = str(root / self.settings.vgg) if self.settings.vgg else None
            self.features = load_features(vgg).to(device)

    def backward(self, family: Family, batch: Encoded, draw: Draw, share: float = 1.0) -> losses.Losses:
        """Add ``share`` of the gradients of the batch's loss to the parameters; the losses, detached.

        batch: the clips of ``draw``, on the training device.
        """
        probe = self._probe(family, batch, draw)
        with probe:  # until the gradients are there: recomputed blocks are looked at again
            found = self._losses(family, batch, draw, probe)
            if found.total.requires_grad:  # not where nothing that is trained took part: no BML, no pose, no reference
                (found.total * share).backward()
        return losses.Losses(*(part.detach() for part in found))

    @torch.no_grad()
    def measure(self, family: Family, batch: Encoded, draw: Draw) -> float:
        """The latent loss alone."""
        velocity, noisy = self._velocity(family, batch, draw, {})
        return float(self._latent(velocity, noisy, batch, draw)[0])

    def _losses(self, family: Family, batch: Encoded, draw: Draw, probe: AbstractContextManager) -> losses.Losses:
        epipolar = isinstance(probe, AttentionProbe)
        velocity, noisy = self._velocity(family, batch, draw, probe.options(family.options()) if epipolar else None)
        latent, predicted = self._latent(velocity, noisy, batch, draw)
        perceptual = None
        if self.features is not None:
            perceptual = self._perceptual(predicted, batch, draw)
        return losses.total_loss(
            latent, perceptual, probe.mean() if epipolar else None, self.settings.perceptual, self.settings.epipolar
        )

    def _velocity(self, family: Family, batch: Encoded, draw: Draw, options: dict | None) -> tuple[Tensor, Tensor]:
        """Predicted velocity and x_t, each [B, 16, t, h, w]."""
        dtype = family.dtype
        video = batch.video.to(dtype)
        noise = draw.noise(tuple(video.shape[1:]), self.device).to(dtype)
        noisy = losses.add_noise(video, noise, self.alphas[draw.timesteps])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            velocity = family(
                noisy,
                draw.timesteps.to(self.device),
                batch.start(draw.starts).to(dtype),
                batch.pose.to(dtype) if draw.pose else None,
                batch.character.to(dtype) if draw.reference else None,
                options,
            )
        return velocity, noisy

    def _latent(self, velocity: Tensor, noisy: Tensor, batch: Encoded, draw: Draw) -> tuple[Tensor, Tensor]:
        alphas = self.alphas[draw.timesteps]
        predicted = losses.one_step(noisy, velocity, alphas)
        extra = self.settings.person
        weights = losses.person_weights(batch.background_tokens, extra) if extra else None
        return losses.latent_loss(predicted, batch.video, alphas, weights), predicted

    def _probe(self, family: Family, batch: Encoded, draw: Draw) -> AbstractContextManager:
        """A probe of the attention in the chosen blocks, where the epipolar loss has a part in this stage."""
        if not (self.settings.epipolar and self.settings.probed_blocks):
            return nullcontext()
        percentile = None if self.settings.percentile >= 100 else self.settings.percentile
        constraint = EpipolarConstraint.sample(
            batch.cameras, batch.background_tokens, self.settings.queries, percentile, generator=draw.generators()
        )
        tokens = batch.background_tokens[0].numel()
        return AttentionProbe(family.base, self.settings.probed_blocks, constraint.queries, tokens, constraint)

    def _perceptual(self, predicted: Tensor, batch: Encoded, draw: Draw) -> Tensor:
        """Eq. 6. Where the frames were not kept, what the VAE makes of their latents stands for them."""
        counts = (draw.timesteps < BELOW).nonzero()[:, 0]
        if not len(counts):
            return predicted.new_zeros(())
        # Timesteps are in random order, so the first ones are as good as any.
        chosen = counts[: self.settings.decoded or None].tolist()
        generators = draw.generators()
        windows = [self._window(predicted.shape, generators[i]) for i in chosen]

        predicted_part = torch.stack([window.latents(predicted[i]) for i, window in zip(chosen, windows)])
        decode = partial(self._decode, whole=windows[0].count == predicted.shape[2])
        if batch.frames is None:
            with torch.no_grad():
                truth = decode(torch.stack([w.latents(batch.video[i].float()) for i, w in zip(chosen, windows)]))
        else:
            truth = torch.stack([w.frames(batch.frames[i], 1) for i, w in zip(chosen, windows)]).float() / 255
        hands = torch.stack([w.frames(batch.hands[i], HAND_CELL) for i, w in zip(chosen, windows)]).float() / 255
        hands = F.interpolate(hands, scale_factor=HAND_CELL)  # [b, T, H/4, W/4] -> [b, T, H, W]
        loss = perceptual_loss(self.features, decode, predicted_part, truth, hands, draw.timesteps[chosen])
        return loss * len(counts) / len(predicted)  # it is the mean over the clips it was given

    def _window(self, shape: Sequence[int], generator: torch.Generator) -> "Window":
        """A random part of a clip whose latents are [B, 16, t, h, w]; all of it where no window is set."""
        count, side = self.settings.window_latents, self.settings.window_side // PIXELS_PER_LATENT
        if not count:
            return Window(0, shape[2], 0, shape[3], 0, shape[4])
        sizes = [min(size, whole) for size, whole in zip((count, side, side), shape[2:])]
        places = [
            int(torch.randint(whole - size + 1, (), generator=generator)) for size, whole in zip(sizes, shape[2:])
        ]
        return Window(*(value for pair in zip(places, sizes) for value in pair))

    def _decode(self, latents: Tensor, whole: bool) -> Tensor:
        """Of a part of a clip, the first latent frame is what the decoder remembers; what it makes of it is no frame of
        the clip."""
        frames = self.vae.decode(latents)
        return frames if whole else frames[:, 1:]


class Window(NamedTuple):
    """A part of a clip, in latent frames and latent pixels."""

    start: int
    count: int
    top: int
    height: int
    left: int
    width: int

    def latents(self, clip: Tensor) -> Tensor:
        """[16, t, h, w] -> its part."""
        return clip[
            :, self.start : self.start + self.count,
            self.top : self.top + self.height, self.left : self.left + self.width,
        ]  # fmt: skip

    def frames(self, clip: Tensor, cell: int) -> Tensor:
        """[T, H / cell, W / cell, ...] -> the frames that decoding latents() gives."""
        scale = PIXELS_PER_LATENT // cell
        whole = frames_of(self.count) == len(clip)
        first = 0 if whole else frames_of(self.start + 1)
        last = frames_of(self.start + self.count)
        return clip[
            first:last, scale * self.top : scale * (self.top + self.height),
            scale * self.left : scale * (self.left + self.width),
        ]  # fmt: skip
