"""From a window of a shot to latents, through the host's own sampling; and the inputs of the nodes that do it."""

import time
from collections.abc import Callable
from functools import cached_property, partial

import comfy.model_management
import comfy.sample
import comfy.utils
import torch
from comfy_api.latest import io
from torch import Tensor

from ..models import clips, dit, latents, sampler, windows
from ..models.windows import HANDOVERS, LAST_FRAME, Window
from . import cost, preview, sockets
from . import shot as shots

SAME, ONE_EACH = "same", "one a window"
STEPS = {"default": 25, "min": 1, "max": 1000}
STEPS_TOOLTIP = "25 is a good start; 50 gives finer detail in twice the time."
_METHOD_TOOLTIP = "cogvideox_dpm is what CogVideoX was released with. ddim adds no noise on the way: calmer and softer."


def method_input() -> io.Combo.Input:
    return io.Combo.Input("method", options=list(sampler.METHODS), tooltip=_METHOD_TOOLTIP)


def sampling_inputs(next_seed: bool | io.ControlAfterGenerate = True) -> list[io.Input]:
    """The inputs of a node that samples a shot. next_seed: what the page does to the seed after each run; True: draw
    another."""
    return [
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
            control_after_generate=next_seed,
            tooltip="Another seed gives another take of the same shot.",
        ),
        io.Int.Input("steps", **STEPS, tooltip=STEPS_TOOLTIP),
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
        method_input(),
        shots.image_latent_scale_input(),
    ]


class Sampling:
    """The host's own way from a window of a shot to latents, with the same settings for all windows. What is wrong with
    the inputs is said before anything is computed."""

    def __init__(
        self, model, vae, shot, positive, negative, seed, steps, cfg, method, image_latent_scale, seeds=SAME, windows=1
    ) -> None:  # fmt: skip
        dit.check_base(model)
        latents.check_vae(vae)
        shots.check_adapters(model, shot)
        self.sigmas = sampler.trailing_sigmas(model.get_model_object("model_sampling"), steps)
        self.model, self.vae = model, vae
        self.texts = positive, negative
        self.seed, self.seeds = seed, seeds
        self.cfg, self.method = cfg, method
        self.image_latent_scale = image_latent_scale
        self.steps = len(self.sigmas) - 1
        self.total = self.steps * windows
        self.pictures = shot.background[:1]  # for previews: what the video is going to look like, roughly
        self.encoding = self.sampling = 0.0  # seconds so far

    def __str__(self) -> str:
        how = f", {self.seeds}" if self.total > self.steps and self.seeds != SAME else ""
        return f"seed {self.seed}{how}, {self.steps} steps of {self.method}, cfg {self.cfg:g}"

    def __call__(self, part: clips.Shot, window: Window, kept: Tensor | None = None) -> Tensor:
        """``part`` of a shot -> latents [1, 16, t, h, w]; the first of them stay ``kept`` [1, 16, m, h, w] all the
        way."""
        clock = [time.perf_counter()]
        positive, negative, latent = shots.encode(
            part, self.vae, *self.texts, _stop_if_cancelled, self.model, self.image_latent_scale
        )
        show = partial(self._show, self.show, window.index * self.steps)
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
            callback=show,
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=seed,
        )
        clock.append(time.perf_counter())
        self.encoding += clock[1] - clock[0]
        self.sampling += clock[2] - clock[1]
        return samples

    @cached_property
    def show(self) -> Callable[[int, Tensor, Tensor, int], None]:
        """Progress and previews. The latter take the VAE: to be asked for while it is at work anyway."""
        return preview.sampling_callback(self.model, self.vae, self.pictures, self.total)

    def _show(self, show: Callable, before: int, step: int, x0: Tensor, x: Tensor, _: int) -> None:
        show(before + step, x0, x, self.total)

    def times(self, windows: int, seconds: float) -> str:
        """What took how long; ``windows`` were made in ``seconds``."""
        rest = max(0.0, seconds - self.encoding - self.sampling)
        a_step = self.sampling / max(1, self.steps * windows)
        return (
            f"Encoding {self.encoding:.1f} s, sampling {self.sampling:.1f} s ({a_step:.2f} s a step), decoding and "
            f"checking {rest:.1f} s"
        )


def _stop_if_cancelled(_: int) -> None:
    comfy.model_management.throw_exception_if_processing_interrupted()


def window_inputs() -> list[io.Input]:
    """The inputs that say how a shot is cut into windows."""
    later = {"optional": True}  # a prompt saved before they came still runs
    return [
        io.Int.Input(
            "window",
            default=0,
            min=0,
            max=windows.LONGEST,
            tooltip="Frames that are sampled together, at most: 5, 13, 21, 29, 37, 45, … More need more memory and "
            "hold together better. 0: what the model was trained with, or less where Plan Shot found that this does "
            "not fit.",
            **later,
        ),
        io.Combo.Input(
            "handover",
            options=list(HANDOVERS),
            default=LAST_FRAME,
            tooltip="How a window goes on from the one before. last frame: it begins with its last frame (as in the "
            "papers). overlap: its last frames are kept as they are in every step. none: each begins from the "
            "background.",
            **later,
        ),
        io.Int.Input(
            "overlap",
            default=5,
            min=1,
            max=1000,
            tooltip="Frames that two windows have in common with handover overlap: 5, 9, 13, … More is smoother and "
            "takes longer.",
            advanced=True,
            **later,
        ),
        io.Int.Input(
            "blend",
            default=0,
            min=0,
            max=1000,
            tooltip="Of the common frames, how many are cross-faded. 0: they come from the earlier window.",
            advanced=True,
            **later,
        ),
    ]


def long_shot_inputs() -> list[io.Input]:
    """All inputs that say how a shot is made window by window; of Sample Shot and Render Shot."""
    later = {"optional": True}
    return [
        *window_inputs(),
        io.Combo.Input(
            "seeds",
            options=[SAME, ONE_EACH],
            default=SAME,
            tooltip="The same noise in every window keeps textures alike; one a window avoids that they repeat.",
            advanced=True,
            **later,
        ),
        io.Float.Input(
            "drift_control",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.05,
            tooltip="In a shot of several windows: how far colour and contrast of each are brought back to the first "
            "picture's background, or to the background video's. 0: leave them.",
            **later,
        ),
    ]


def plan_windows(
    model, shot: clips.Shot, window: int, handover: str, overlap: int, blend: int, cfg: float
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


def report_outputs() -> list[io.Output]:
    """What Sample Shot and Render Shot say of their windows."""
    return [
        io.String.Output("report_json", tooltip="The report for programs: figures of every window, as JSON."),
        io.Image.Output("plot", tooltip="How far colours drift over time, before and after control."),
    ]
