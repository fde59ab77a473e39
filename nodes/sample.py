"""Sampler, schedule, and one clip at once."""

import time
from itertools import pairwise

import comfy.sample
import comfy.utils
import latent_preview
from comfy_api.latest import io, ui
from torch import Tensor

from ..models import dit, latents, sampler
from . import shot as shots
from . import sockets

STEPS = {"default": 25, "min": 1, "max": 1000}
_STEPS_TOOLTIP = "25 is a good start; 50 gives finer detail in twice the time."
_METHOD_TOOLTIP = "cogvideox_dpm is what CogVideoX was released with. ddim adds no noise on the way: calmer and softer."


def _method_input() -> io.Combo.Input:
    return io.Combo.Input("method", options=list(sampler.METHODS), tooltip=_METHOD_TOOLTIP)


class Sampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}Sampler",
            display_name="CogVideoX Sampler",
            category=sockets.SAMPLING,
            description="A sampler for CogVideoX, for SamplerCustom and SamplerCustomAdvanced. KSampler and the "
            "samplers of KSamplerSelect start CogVideoX from far too much noise.",
            inputs=[_method_input()],
            outputs=[io.Sampler.Output("sampler", tooltip="For SamplerCustom or SamplerCustomAdvanced.")],
            search_aliases=["ksampler select", "cogvideox dpm", "ddim", "sampler"],
        )

    @classmethod
    def execute(cls, method) -> io.NodeOutput:
        return io.NodeOutput(sampler.CogVideoXSampler(method))


class Schedule(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}Schedule",
            display_name="CogVideoX Schedule",
            category=sockets.SAMPLING,
            description="The noise levels that CogVideoX is sampled at, evenly spaced at any number of steps.",
            inputs=[
                io.Model.Input("model", tooltip="The CogVideoX 1.5 model that is to be sampled."),
                io.Int.Input("steps", **STEPS, tooltip=_STEPS_TOOLTIP),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="1: from pure noise. Less: change an existing latent only that much, in the same number "
                    "of steps.",
                    advanced=True,
                ),
            ],
            outputs=[io.Sigmas.Output("sigmas", tooltip="For SamplerCustom or SamplerCustomAdvanced.")],
            search_aliases=["basic scheduler", "sigmas", "noise schedule", "trailing", "steps"],
        )

    @classmethod
    def execute(cls, model, steps, denoise=1.0) -> io.NodeOutput:
        dit.check_base(model)
        return io.NodeOutput(sampler.trailing_sigmas(model.get_model_object("model_sampling"), steps, denoise))


def _sample(model, positive: list, negative: list, latent: Tensor, sigmas: Tensor, seed: int, cfg: float, method: str):
    """The host's own way from noise to latents [1, 16, t, h, w], in the shape of the empty ``latent``."""
    return comfy.sample.sample_custom(
        model,
        comfy.sample.prepare_noise(latent, seed),
        cfg,
        sampler.CogVideoXSampler(method),
        sigmas,
        positive,
        negative,
        latent,
        callback=latent_preview.prepare_callback(model, len(sigmas) - 1),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )


class SampleShot(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}SampleShot",
            display_name="Sample Shot",
            category=sockets.SAMPLING,
            description="Animates a shot: encodes it, samples the video and decodes it. "
            "The same seed gives the same video.",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="CogVideoX 1.5 image-to-video with Apply AnimateAnywhere Adapter, or Load DynamiCtrl.",
                ),
                io.Vae.Input("vae", tooltip="The model's own VAE: CogVideoX's, or aa_tiny_vae with aa_tiny_base."),
                sockets.Shot.Input("shot", tooltip="From Shot."),
                io.Conditioning.Input("positive", tooltip="A prompt, or No Prompt."),
                io.Conditioning.Input("negative", tooltip="A negative prompt, or No Prompt."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Another seed gives another take of the same shot.",
                ),
                io.Int.Input("steps", **STEPS, tooltip=_STEPS_TOOLTIP),
                io.Float.Input(
                    "cfg",
                    default=2.5,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="How much prompt, pose and character are insisted on. 1 turns guidance off and skips the "
                    "negative half of each step; too much burns colours. DynamiCtrl: 3.",
                ),
                _method_input(),
                shots.image_latent_scale_input(),
            ],
            outputs=[
                io.Image.Output("images", tooltip="The video, as many frames as the shot has."),
                io.String.Output("report", tooltip="What was made, with which settings, in what time."),
            ],
            search_aliases=["animate", "ksampler", "generate video"],
        )

    @classmethod
    def execute(
        cls,
        model,
        vae,
        shot,
        positive,
        negative,
        seed,
        steps=25,
        cfg=2.5,
        method="cogvideox_dpm",
        image_latent_scale=shots.TRAINED,
    ) -> io.NodeOutput:
        dit.check_base(model)
        latents.check_vae(vae)
        shots.check_adapters(model, shot)
        sigmas = sampler.trailing_sigmas(model.get_model_object("model_sampling"), steps)
        clock = [time.perf_counter()]
        positive, negative, latent = shots.encode(shot, vae, positive, negative, model, image_latent_scale)
        clock.append(time.perf_counter())
        samples = _sample(model, positive, negative, latent["samples"], sigmas, seed, cfg, method)
        clock.append(time.perf_counter())
        images = latents.decode_latents(vae, samples)
        clock.append(time.perf_counter())
        size = f"{len(images)} frames of {shot.width}×{shot.height} px"
        report = f"{size}, seed {seed}, {steps} steps of {method}, cfg {cfg:g}\n{_times(clock, steps)}"
        return io.NodeOutput(images, report, ui=ui.PreviewText(report))


def _times(clock: list[float], steps: int) -> str:
    encoding, sampling, decoding = (after - before for before, after in pairwise(clock))
    return (
        f"Encoding {encoding:.1f} s, sampling {sampling:.1f} s ({sampling / steps:.2f} s a step), "
        f"decoding {decoding:.1f} s"
    )


NODES = [Sampler, Schedule, SampleShot]
