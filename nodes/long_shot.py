"""A shot of any length, window by window (Liu et al., section 2.2; Animate Anyone 2, section 4.1).

Each window begins with what the one before ended with, and the character's reference stays in all of them. Nothing of a
window is kept but what the next one needs, so that memory does not grow with the length.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..models import latents
from ..models.clips import Shot
from ..models.windows import NONE, OVERLAP, Plan, Window
from ..vision import drawn_pose, levels, seams
from .memory import Peak

NEGLIGIBLE = 0.004  # of full brightness, one step of 255: latents whose picture is to change less stay as they are
PAIRS = 4  # of neighbouring frames inside a window whose motion the seam's is compared with

# the window's part of the shot, the window, and latents [1, 16, m, h, w] to begin with or None, all in the VAE's scale,
# -> latents [1, 16, t, h, w]
Take = Callable[[Shot, Window, Tensor | None], Tensor]


@dataclass(frozen=True, eq=False)
class Handover:
    """What a window leaves to the next one."""

    first: Tensor  # [1, H, W, 3] the next window's first frame; with no hand-over, the frame before it
    last: Tensor  # [1, H, W, 3] this window's last frame
    blended: Tensor  # [blend, H, W, 3] frames that are to be cross-faded with the next window's
    latents: Tensor | None  # [1, 16, m, h, w] of the frames that both have, for hand-over "overlap"


def handover_bytes(plan: Plan, width: int, height: int) -> int:
    """Size of a Handover of ``plan`` in float32, for frames of ``width`` × ``height`` px; 0 where there is none."""
    if len(plan.windows) < 2:
        return 0
    values = (2 + plan.blend) * height * width * 3
    if plan.handover == OVERLAP:
        coarse = (height // latents.PIXELS_PER_LATENT) * (width // latents.PIXELS_PER_LATENT)
        values += latents.CHANNELS * latents.latent_frames(plan.shared) * coarse
    return 4 * values


@dataclass(frozen=True, eq=False)
class Made:
    """What is done once a window is."""

    window: Window
    frames: Tensor  # [n, H, W, 3], those of plan.finished(window)
    handover: Handover | None  # None: this was the last window
    figures: dict[str, float | int | None]  # a line of the report, see shot_report.py


class LongShot:
    """``plan`` carried out on ``shot``; ``drift_control``: 0 leaves colours alone, 1 brings them back altogether.

    A shot of one window is left as the model made it.
    """

    def __init__(self, shot: Shot, plan: Plan, vae, take: Take, drift_control: float = 1.0) -> None:
        self.shot = shot
        self.plan = plan
        self.vae = vae
        self.take = take
        self.drift_control = drift_control if len(plan.windows) > 1 else 0.0
        first = shot.background[:1] if shot.start is None else shot.start
        hidden = None if shot.start is None else _hidden(shot, 0)
        self.anchor = None if shot.has_environment else levels.Anchor(first[0], hidden)

    def windows(self, after: Handover | None = None, first: int = 0) -> Iterator[Made]:
        """Window ``first`` and all that follow; ``after``: what the one before ``first`` left."""
        for window in self.plan.windows[first:]:
            made = self._make(window, after)
            yield made
            after = made.handover

    def _make(self, window: Window, before: Handover | None) -> Made:
        begun = time.perf_counter()
        with Peak() as peak:
            frames, handover, figures = self._frames(window, before)
        figures |= {"seconds": time.perf_counter() - begun, "memory": peak.most / 1e6}
        return Made(window, frames, handover, figures)

    def _frames(self, window: Window, before: Handover | None) -> tuple[Tensor, Handover | None, dict]:
        part = self.shot.window(window.start, window.length, hold=True)
        if before is not None and self.plan.handover != NONE:
            part = replace(part, start=before.first)
        samples = self.take(part, window, None if before is None else before.latents)
        raw = latents.decode_latents(self.vae, samples)
        self._check_finite(window, samples, raw)
        correction, figures = self._look(part, window, raw, before)
        frames = levels.apply(raw, *correction)
        figures |= self._seam(part, window, frames, before)
        handover = self._handover(window, samples, raw, frames)
        return self._finished(window, frames, before), handover, figures

    def _check_finite(self, window: Window, samples: Tensor, frames: Tensor) -> None:
        """Raise ValueError, naming the window, where its latents or frames are not finite numbers."""
        if torch.isfinite(samples).all() and torch.isfinite(frames).all():
            return
        where = "vae: the decoded frames" if torch.isfinite(samples).all() else "model: the latents"
        raise ValueError(
            f"{where} of window {window.index + 1} of {len(self.plan.windows)} are not finite (NaN or infinity). Load "
            "the model with weight_dtype default, start ComfyUI with --bf16-unet and --fp32-vae instead of fp16, and "
            "try a lower cfg and weaker LoRA."
        )

    # --- colour ---

    def _look(self, part: Shot, window: Window, frames: Tensor, before: Handover | None) -> tuple[tuple, dict]:
        """How the colours of the window's first and last frame are to change, and the drift before and after."""
        last = min(window.length, self.plan.total - window.start) - 1
        readings = [self._read(part, place, frames[place]) for place in (0, last)]
        if readings[0] is None and before is not None and self.plan.handover != NONE:
            # Nothing of the first picture is in view any more; but the window before was brought to it.
            readings[0] = levels.compare(frames[0], before.first[0], _hidden(part, 0))
        first = levels.IDENTITY if readings[0] is None else readings[0].level
        ends = [first, first if readings[1] is None else readings[1].level]
        correction = tuple(level.towards(self.drift_control) for level in ends)
        drift, left = None, None
        if readings[1] is not None:
            drift = left = readings[1].drift
            if self.drift_control:
                after = self._read(part, last, levels.apply(frames[last : last + 1], correction[1], correction[1])[0])
                left = drift if after is None else after.drift
        return correction, {"drift": left, "drift_before": drift}

    def _read(self, part: Shot, place: int, frame: Tensor) -> levels.Reading | None:
        hidden = _hidden(part, place)
        if self.anchor is None:
            return levels.compare(frame, part.background[place], hidden)
        return self.anchor.read(frame, hidden)

    # --- seams ---

    def _seam(self, part: Shot, window: Window, frames: Tensor, before: Handover | None) -> dict:
        places = np.linspace(0, window.length - 2, PAIRS).astype(int)
        inside = [seams.flow(frames[i], frames[i + 1], _hidden(part, i)) for i in places]
        known = [flow for flow in inside if flow is not None]
        figures = {"seam": None, "flow": None, "flow_inside": float(np.median(known)) if known else None}
        if before is not None:
            figures["flow"] = seams.flow(before.last[0], frames[window.shared], _hidden(part, window.shared))
            if self.plan.handover != NONE:
                figures["seam"] = seams.seam_error(frames[0], before.first[0])
        return figures

    def _handover(self, window: Window, samples: Tensor, raw: Tensor, frames: Tensor) -> Handover | None:
        if window.index == len(self.plan.windows) - 1:
            return None
        shared, blend = self.plan.shared, self.plan.blend
        start = min(window.length - shared, window.length - 1)
        kept = None
        if self.plan.handover == OVERLAP:
            kept = self._kept(samples, raw[start:], frames[start:])
        return Handover(
            frames[start : start + 1].clone(), frames[-1:].clone(), frames[window.length - blend :].clone(), kept
        )

    def _kept(self, samples: Tensor, raw: Tensor, frames: Tensor) -> Tensor:
        """Latents [1, 16, m, h, w] of ``frames``, the last ones of a window; ``raw``: before their colours changed.

        The first latent frame holds one frame and so differs from any in the window before; the others are the same
        there and do not go through the VAE again, unless their colours have changed.
        """
        if (frames - raw).abs().max() > NEGLIGIBLE:
            return latents.encode_frames(self.vae, frames)
        first = latents.encode_frames(self.vae, frames[:1])
        more = latents.latent_frames(len(frames)) - 1
        return torch.cat([first, samples[:, :, samples.shape[2] - more :].to(first)], dim=2)

    def _finished(self, window: Window, frames: Tensor, before: Handover | None) -> Tensor:
        wanted = self.plan.finished(window)
        frames = frames[wanted.start - window.start : wanted.stop - window.start]
        if before is not None and self.plan.blend:
            ramp = torch.arange(1, self.plan.blend + 1).view(-1, 1, 1, 1) / (self.plan.blend + 1)
            frames[: self.plan.blend] = torch.lerp(before.blended, frames[: self.plan.blend], ramp.to(frames))
        return frames


def _hidden(part: Shot, place: int) -> np.ndarray | None:
    """Where the character is in frame ``place`` of ``part``, or what stands for it: [H, W] bool."""
    hidden = None if part.pose is None else drawn_pose.person(part.pose[place])
    if part.mask is not None:
        masked = (part.mask[min(place, len(part.mask) - 1)] > 0.5).cpu().numpy()
        hidden = masked if hidden is None else hidden | masked
    return hidden
