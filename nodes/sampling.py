"""From a window of a shot to latents, through the host's own sampling; and into which windows a shot is cut for it."""

import time
from collections.abc import Callable
from functools import cached_property

import comfy.model_management
import comfy.sample
import comfy.utils
import torch
from torch import Tensor

from ..models import clips, dit, latents, lora_keys, sampler, windows
from ..models.text import check_conditioning
from ..models.windows import Window
from . import cost, preview
from . import shot as shots

SAME, ONE_EACH = "same", "one a window"  # seeds


class Sampling:
    """The host's own way from a window of a shot to latents, with the same settings for all windows. What is wrong with
    the inputs is said before anything is computed."""

    def __init__(
        self, model, vae, shot, positive, negative, *, seed, steps, cfg, method, image_latent_scale=shots.AUTO,
        seeds=SAME,
    ) -> None:  # fmt: skip
        dit.check_base(model)
        lora_keys.check_effect(model)
        latents.check_vae(vae)
        clips.Shot.check(shot)
        width = model.get_model_object("diffusion_model").patch_embed.text_proj.in_features
        check_conditioning(positive, "positive", width)
        check_conditioning(negative, "negative", width)
        shots.check_adapters(model, shot)
        self.sigmas = sampler.trailing_sigmas(model.get_model_object("model_sampling"), steps)
        self.model, self.vae = model, vae
        self.texts = positive, negative
        self.seed, self.seeds = seed, seeds
        self.steps, self.cfg, self.method = steps, cfg, method
        self.image_latent_scale = image_latent_scale
        self.pictures = shot.background[:1]  # for previews: what the video is going to look like, roughly
        self.windows = 1  # that there are going to be, for the progress bar
        self.done = 0  # of them
        self.begun = None
        self.encoding = self.sampling = 0.0  # seconds so far

    def __str__(self) -> str:
        how = f", {self.seeds}" if self.windows > 1 and self.seeds != SAME else ""
        return f"seed {self.seed}{how}, {self.steps} steps of {self.method}, cfg {self.cfg:g}"

    def __call__(self, part: clips.Shot, window: Window, kept: Tensor | None = None) -> Tensor:
        """``part`` of a shot -> latents [1, 16, t, h, w]; the first of them stay ``kept`` [1, 16, m, h, w] all the
        way."""
        clock = [time.perf_counter()]
        self.begun = self.begun or clock[0]
        positive, negative, latent = shots.encode(
            part, self.vae, *self.texts, _stop_if_cancelled, self.model, self.image_latent_scale
        )
        show, before = self.show, window.index * self.steps
        clock.append(time.perf_counter())
        empty, mask = latent["samples"], None
        if kept is not None:
            empty[:, :, : kept.shape[2]] = kept
            mask = torch.ones_like(empty[:, :1])
            mask[:, :, : kept.shape[2]] = 0
        seed = (self.seed + (window.index if self.seeds == ONE_EACH else 0)) % 2**64
        samples = comfy.sample.sample_custom(
            self.model,
            comfy.sample.prepare_noise(empty, seed),
            self.cfg,
            sampler.CogVideoXSampler(self.method),
            self.sigmas,
            positive,
            negative,
            empty,
            noise_mask=mask,
            callback=lambda step, x0, x, _: show(before + step, x0, x, self.total),
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=seed,
        )
        clock.append(time.perf_counter())
        self.encoding += clock[1] - clock[0]
        self.sampling += clock[2] - clock[1]
        self.done += 1
        return samples

    @property
    def total(self) -> int:
        """Steps of all windows."""
        return self.steps * self.windows

    @cached_property
    def show(self) -> Callable[[int, Tensor, Tensor, int], None]:
        """Progress and previews. The latter take the VAE: to be asked for while it is at work anyway."""
        return preview.sampling_callback(self.model, self.vae, self.pictures, self.total)

    def times(self) -> str:
        """What took how long, since the first window was begun; nothing where none was made."""
        if not self.done:
            return ""
        rest = max(0.0, time.perf_counter() - self.begun - self.encoding - self.sampling)
        return (
            f"Encoding {self.encoding:.1f} s, sampling {self.sampling:.1f} s "
            f"({self.sampling / (self.steps * self.done):.2f} s a step), decoding and checking {rest:.1f} s"
        )


def _stop_if_cancelled(_: int) -> None:
    comfy.model_management.throw_exception_if_processing_interrupted()


def plan_windows(
    model, shot: clips.Shot, cfg: float, window: int, handover: str, overlap: int, blend: int
) -> windows.Plan:
    """The windows of ``shot``; a ``window`` of 0 is chosen for ``model`` and this machine.

    Raises ValueError where Plan Shot has found that such a window does not fit into memory.
    """
    length = window or windows.trained_length(model.get_model_object("diffusion_model").num_attention_heads)
    known, free = cost.find(model, shot, cfg), cost.free_bytes()
    most = None if known is None else known.largest(free)
    if most and not window:
        length = min(length, most)
    plan = windows.plan(shot.length, length, handover, overlap, blend)
    longest = plan.windows[0].length
    if most is not None and longest > most:
        raise ValueError(
            f"window: {longest} frames of {shot.width}×{shot.height} px need about {known.bytes(longest) / 1e9:.1f} GB "
            f"at the peak, and {free / 1e9:.1f} GB can be had. "
            + (f"At most {most} frames fit." if most else "Not even 5 frames fit: make the shot smaller.")
        )
    return plan
