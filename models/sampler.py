"""CogVideoX samplers and schedule, as the host's SAMPLER and SIGMAS.

CogVideoX looks at x = a·x0 + s·ε with a² + s² = 1 ("alpha space"), and the host hands x to the model as it is. The
host's own samplers walk in x/a = x0 + σ·ε instead and would start at 4519 times the noise. So these stay in alpha space
and speak x/a only at their two ends, where the host's other nodes (Split Sigmas, Add Noise) expect it.

The steps restate CogVideoXDPMScheduler and CogVideoXDDIMScheduler of diffusers in terms of σ = s/a. One difference:
they step to timestep t - 1000 // steps, which misses the schedule's next timestep by one where steps does not divide
1000; these step to where the schedule goes on.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import comfy.model_management
import comfy.utils
import torch
from comfy.model_sampling import V_PREDICTION_DDPM
from comfy.patcher_extension import WrapperExecutor
from comfy.samplers import CFGGuider, Sampler
from torch import Tensor

from . import context_windows


class Level(NamedTuple):
    """How noisy x = a·x0 + s·ε is."""

    sigma: float  # s/a; infinite where no signal is left
    a: float
    s: float

    @classmethod
    def of(cls, sigma: float) -> "Level":
        a = 1 / math.hypot(1, sigma)
        return cls(sigma, a, sigma * a if math.isfinite(sigma) else 1.0)


class Past(NamedTuple):
    """What a second-order step remembers of the step before."""

    level: Level
    x0: Tensor


def ddim_step(x: Tensor, x0: Tensor, now: Level, then: Level) -> Tensor:
    """From x at level ``now``, with x0 predicted there, to level ``then`` (diffusers' CogVideoXDDIMScheduler.step)."""
    keep = then.s / now.s
    return keep * x + (then.a - now.a * keep) * x0


def dpm_step(x: Tensor, x0: Tensor, now: Level, then: Level, noise: Tensor, past: Past | None) -> Tensor:
    """The same with fresh noise and a look back (diffusers' CogVideoXDPMScheduler.step: second-order SDE-DPM-Solver++).

    The first step, which has nothing to look back at, and the last, which ends at x0, are of first order.
    """
    if then.sigma == 0:
        return x0
    if then.sigma > now.sigma:
        raise ValueError("sigmas: they rise, and CogVideoX-DPM only goes down. Take them from CogVideoX Schedule.")
    ratio = 0.0 if math.isinf(now.sigma) else then.sigma / now.sigma
    target = x0
    if past is not None and past.level.sigma > now.sigma:
        back = math.log(now.sigma / then.sigma) / (2 * math.log(past.level.sigma / now.sigma))
        target = (1 + back) * x0 - back * past.x0
    keep = then.s / now.s * ratio
    return keep * x + (1 - ratio**2) * then.a * target + then.s * math.sqrt(1 - ratio**2) * noise


class CogVideoXSampler(Sampler):
    """A SAMPLER for any of the host's guiders. ``method``: a key of METHODS."""

    def __init__(self, method: str) -> None:
        if not isinstance(method, str) or method not in METHODS:
            raise ValueError(f"method: {method!r} is not known. Choose one of {', '.join(METHODS)}.")
        self.method = method

    @torch.no_grad()
    def sample(
        self,
        model_wrap: CFGGuider,
        sigmas: Tensor,
        extra_args: dict,
        callback: Callable | None,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """noise, latent_image: [B, 16, t, h, w], unit noise and latents in the model's scale; sigmas: [steps + 1].

        Called by the host. Returns x0 + σ·ε at the last sigma.
        """
        context_windows.check(extra_args.get("model_options", {}).get("context_handler"), noise.shape)
        latent_image = torch.zeros_like(noise) if latent_image is None else latent_image
        start, end = Level.of(float(sigmas[0])), Level.of(float(sigmas[-1]))
        model = _Denoiser(model_wrap, sigmas, extra_args, noise, latent_image, denoise_mask)
        levels = _levels(sigmas, model_wrap.inner_model.model_sampling)
        step = METHODS[self.method](noise, extra_args.get("seed"))
        x = start.a * latent_image + start.s * noise
        for i in comfy.utils.model_trange(len(levels) - 1, disable=disable_pbar):
            # The host asks this in every layer, but not in compiled models.
            comfy.model_management.throw_exception_if_processing_interrupted()
            x0 = model(x, sigmas[i])
            if callback is not None:
                callback(i, x0, x, len(levels) - 1)
            x = step(x, x0, levels[i], levels[i + 1])
        return x / end.a


def _ddim(noise: Tensor, seed: int | None) -> Callable[[Tensor, Tensor, Level, Level], Tensor]:
    return ddim_step


def _dpm(noise: Tensor, seed: int | None) -> Callable[[Tensor, Tensor, Level, Level], Tensor]:
    """Steps that share one stream of noise and remember each other.

    The noise is drawn on the CPU from the seed after the start noise's, as the host does when it runs there: the same
    seed gives the same video on every device.
    """
    generator = None if seed is None else torch.Generator().manual_seed((seed + 1) % 2**64)
    past = None

    def step(x: Tensor, x0: Tensor, now: Level, then: Level) -> Tensor:
        nonlocal past
        fresh = torch.randn(noise.shape, generator=generator).to(x) if then.sigma else x
        result = dpm_step(x, x0, now, then, fresh, past)
        past = Past(now, x0)
        return result

    return step


METHODS = {"cogvideox_dpm": _dpm, "ddim": _ddim}


class _Denoiser:
    """The guider's prediction of x0, with the region outside the mask held at the latent image.

    What the host's KSamplerX0Inpaint does, in alpha space.
    """

    def __init__(
        self,
        guider: CFGGuider,
        sigmas: Tensor,
        extra_args: dict,
        noise: Tensor,
        latent_image: Tensor,
        denoise_mask: Tensor | None,
    ) -> None:
        self.guider = guider
        self.sigmas = sigmas
        self.extra_args = extra_args
        self.noise = noise
        self.latent_image = latent_image
        self.denoise_mask = denoise_mask

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """x: [B, 16, t, h, w] in alpha space; sigma: a scalar. Returns x0 of the same shape."""
        sigma = sigma.expand(x.shape[0])
        if self.denoise_mask is None:
            return self.guider(x, sigma, **self.extra_args)
        mask = self._mask(sigma)
        level = Level.of(float(sigma[0]))
        known = level.a * self.latent_image + level.s * self.noise
        x0 = self.guider(torch.lerp(known, x, mask), sigma, **self.extra_args)
        return torch.lerp(self.latent_image, x0, mask)

    def _mask(self, sigma: Tensor) -> Tensor:
        """The mask at this step: Differential Diffusion lets it grow."""
        change = self.extra_args["model_options"].get("denoise_mask_function")
        if change is None:
            return self.denoise_mask
        return change(sigma, self.denoise_mask, extra_options={"model": self.guider, "sigmas": self.sigmas})


def require_cogvideox_sampler(executor: WrapperExecutor, *args, **kwargs) -> Tensor:
    """Refuse every sampler but CogVideoXSampler: a wrapper of kind SAMPLER_SAMPLE.

    The host's own samplers start CogVideoX from thousands of times the noise that it knows and return noise.
    """
    sampler = executor.class_obj
    if not isinstance(sampler, CogVideoXSampler):
        function = getattr(sampler, "sampler_function", sampler)
        name = getattr(function, "__name__", type(function).__name__).removeprefix("sample_")
        raise ValueError(
            f"sampler: {name} would turn this shot into noise, because CogVideoX counts noise in another way. Use "
            "Sample Shot, or SamplerCustomAdvanced with CogVideoX Sampler and CogVideoX Schedule."
        )
    return executor(*args, **kwargs)


def _levels(sigmas: Tensor, model_sampling) -> list[Level]:
    """The levels that the sigmas stand for. The host's largest sigma, 4519, is its stand-in for "no signal left"."""
    if not isinstance(model_sampling, V_PREDICTION_DDPM):
        raise ValueError("sampler: this sampler is for CogVideoX models only. For this model, use KSamplerSelect.")
    highest = float(model_sampling.sigma_max) if model_sampling.zsnr else math.inf
    return [Level.of(math.inf if sigma >= highest else sigma) for sigma in sigmas.tolist()]


def trailing_sigmas(model_sampling, steps: int, denoise: float = 1.0) -> Tensor:
    """SIGMAS [steps + 1] at the timesteps that diffusers' "trailing" spacing gives, and 0 at the end.

    denoise: below 1, the last ``steps`` of a schedule of steps/denoise, as the host's schedulers do it; at 0 there is
        nothing to do, and no sigma. Raises ValueError when steps is not between 1 and the 1000 of training.
    """
    count = len(model_sampling.sigmas)
    if not isinstance(steps, int) or not 1 <= steps <= count:
        raise ValueError(f"steps: {steps} is not possible. Choose 1 to {count}; 25 to 50 are usual.")
    if not isinstance(denoise, int | float) or not math.isfinite(denoise):
        raise ValueError(f"denoise: {denoise!r} is not a number from 0 to 1. Choose 1 to sample all the way.")
    if denoise <= 0:
        return torch.zeros(0)
    total = min(int(steps / min(denoise, 1.0)), count)
    timesteps = torch.tensor(trailing_timesteps(total, count)[-steps:])
    sigmas = model_sampling.sigmas.cpu()[timesteps]
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def trailing_timesteps(steps: int, count: int = 1000) -> list[int]:
    """``steps`` timesteps from ``count`` - 1 downwards, evenly spaced, the last one as far from -1 as the others.

    diffusers rounds what numpy's arange gives, which decides ties (48 steps, for one); its way of counting is kept. At
    a few counts (61) it gives one timestep too many, -1; that one is left out.
    """
    stride = (count - count / steps) - count
    return [round(count + i * stride) - 1 for i in range(steps)]
