"""Trains the tiny family's VAE on clips of the stage. A run that resumes goes on as if it had never stopped."""

import csv
import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ..models.latents import CHANNELS, PIXELS_PER_LATENT
from ..vision.metrics import psnr
from . import checkpoint
from .configuration import Optimiser as Rates
from .optimiser import AdamW, Muon
from .stage import HELD_OUT
from .train import TrainingError
from .vae import VAE, Widths, embed
from .vae_samples import Material, Options, Pool, cut_batch, draw_material, poses_of

SCALE = 1.15258426  # what the host multiplies latents by (CogVideoX below 48 heads); their variance is then to be 1
# Training's crops lie around people and are recoloured: their latents deviate as much more than those of whole clips,
# which are to have the deviation 1.
CROPS_DEVIATE = 1.6
CHECKPOINT, KIND = "checkpoint.safetensors", "vae"

log = logging.getLogger(__name__)


def losses(frames: Tensor, latents: Tensor, target: Tensor, poses: int = 0) -> dict[str, Tensor]:
    """Parts of the loss: pixels, squares, their differences along x, y and time, colours, and the latents' moments.

    Colours are the mean error of 8×8 px, so that a shirt's hue counts beside its outline.
    The moments are of pictures alone, without the last ``poses`` samples: it is pictures that the transformer makes.
    """
    error = frames - target
    edges = [error.diff(dim=axis).abs().mean() for axis in (3, 4) if error.shape[axis] > 1]
    edges += [error.diff(dim=1).abs().mean()] if error.shape[1] > 1 else []
    return {
        "pixels": error.abs().mean(),
        "squares": 8 * error.square().mean(),
        "edges": 0.5 * torch.stack(edges).sum(),
        "colours": 24 * torch.nn.functional.avg_pool2d(error.flatten(0, 1), PIXELS_PER_LATENT).square().mean(),
        "moments": 0.2 * moments(latents[: len(latents) - poses] / CROPS_DEVIATE),
    }


def moments(latents: Tensor) -> Tensor:
    """How far latents [B, t, 16, h, w] are from mean 0, deviation 1 (after the host's scale) and no correlation.

    Of deviations, not variances: these would hardly pull where latents are near zero, as they are at the start.
    """
    columns = (latents.float() * SCALE).transpose(0, 2).flatten(1)  # [16, all]
    mean = columns.mean(1)
    centred = columns - mean[:, None]
    deviation = (centred.square().mean(1) + 1e-6).sqrt()
    correlation = (centred @ centred.T / columns.shape[1]) / (deviation[:, None] * deviation)
    wrong = correlation - torch.eye(CHANNELS, device=latents.device)
    return mean.square().mean() + (deviation - 1).square().mean() + wrong.square().mean()


class Trainer:
    """A run in a folder: network, its running average, optimisers, step. ``start``: a network to go on from."""

    def __init__(
        self,
        folder: Path,
        options: Options,
        device: str = "cpu",
        widths: Widths | None = None,
        start: VAE | None = None,
    ) -> None:
        torch.manual_seed(options.seed)
        self.folder, self.options, self.device = folder, options, torch.device(device)
        self.started = start is not None
        self.network = VAE(start.widths if start else widths).to(self.device)
        if start:
            self.network.load_state_dict(start.state_dict())
        self.network.encoder.requires_grad_(options.encoder)
        self.average = VAE(self.network.widths).to(self.device).requires_grad_(False)
        self.average.load_state_dict(self.network.state_dict())
        named = {name: part for name, part in self.network.named_parameters() if part.requires_grad}
        # Between pixels or latents and the first features AdamW, as Muon's authors advise for embeddings.
        outer = {name for name in named if ".first." in name and "blocks" not in name} | {
            "encoder.last",
            "decoder.last",
        }
        matrices = {n: p for n, p in named.items() if p.ndim == 2 and n not in outer and ".last." not in n}
        rest = {name: parameter for name, parameter in named.items() if name not in matrices}
        self.parts = {"muon": Muon(matrices, options.muon_rate, 0.0)}
        self.parts["adamw"] = AdamW(rest, Rates(learning_rate=options.rate, weight_decay=0.0))
        self.pool = Pool(options)
        self.step = 0

    @torch.no_grad()
    def begin(self) -> None:
        """Start from latents of the moments they shall have: the decoder then learns from the first step on."""
        last = self.network.encoder.last
        latents = self.network.encode(cut_batch(self.pool.at(0), self.options, 0).to(self.device)).transpose(0, 2)
        columns = latents.flatten(1) * SCALE
        deviation = columns.std(1) / CROPS_DEVIATE
        last.weight /= deviation[:, None]
        last.bias.copy_((last.bias - columns.mean(1) / SCALE) / deviation)
        self.average.load_state_dict(self.network.state_dict())

    def factor(self) -> float:
        """On the rates: warm-up, a plateau, and a fall to nothing at the end."""
        left = (self.options.steps - self.step) / max(self.options.cooldown * self.options.steps, 1)
        return min(1.0, (self.step + 1) / self.options.warmup, max(left, 0.0))

    def train_step(self) -> dict[str, float]:
        """One update. Raises TrainingError, and changes nothing, when the loss is not a number."""
        target = cut_batch(self.pool.at(self.step), self.options, self.step).to(self.device)
        generator = torch.Generator().manual_seed(self.options.seed * 10**6 + self.step)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.autocast):
            latents = self.network.encode(target)
            spread = torch.rand(len(latents), 1, 1, 1, 1, generator=generator) * self.options.noise / SCALE
            noise = torch.randn(latents.shape, generator=generator) * spread
            frames = self.network.decode(latents + noise.to(self.device))
        parts = losses(frames.float(), latents.float(), target, poses_of(self.options))
        loss = torch.stack(list(parts.values())).sum()
        loss.backward()
        told = {"loss": loss.detach(), **{name: part.detach() for name, part in parts.items()}}
        norm = float(torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0))
        if not (math.isfinite(told["loss"]) and math.isfinite(norm)):
            path = self.folder / CHECKPOINT
            raise TrainingError(checkpoint.not_a_number(path, self.step, float(told["loss"]), norm))
        for part in self.parts.values():
            part.step(self.factor())
        self.network.zero_grad(set_to_none=True)
        self._follow()
        self.step += 1
        return {name: float(value) for name, value in told.items()}

    @torch.no_grad()
    def _follow(self) -> None:
        keep = min(self.options.average, (1 + self.step) / (10 + self.step))
        for mean, value in zip(self.average.parameters(), self.network.parameters()):
            mean.lerp_(value, 1 - keep)

    def save(self) -> None:
        """Write the checkpoint whole, or leave the one that is there. Raises OSError then."""
        state = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        state |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for part, optimiser in self.parts.items():
            state |= {f"{part}.{name}": value for name, value in optimiser.state().items()}
        told = {"step": self.step, "options": asdict(self.options), "widths": asdict(self.network.widths)}
        checkpoint.write_file(self.folder / CHECKPOINT, KIND, told, state)

    @classmethod
    def resumed(cls, folder: Path, options: Options, device: str = "cpu") -> "Trainer":
        """The run in ``folder``, as its checkpoint left it; its network has the checkpoint's widths."""
        told, _ = checkpoint.read_file(folder / CHECKPOINT, KIND)
        trainer = cls(folder, options, device, _widths(told))
        trainer.load()
        return trainer

    def load(self) -> None:
        """Go on from the folder's checkpoint. Raises ValueError when its network is another one, or its options are."""
        path = self.folder / CHECKPOINT
        told, state = checkpoint.read_file(path, KIND)
        if told["widths"] != json.loads(json.dumps(asdict(self.network.widths))):
            raise ValueError(f"{path} holds a network of {told['widths']}.")
        options = asdict(self.options)
        checkpoint.check_options(path, told["step"], told["options"], options, self.options.cooldown)
        self.network.load_state_dict(checkpoint.under(state, "network."))
        self.average.load_state_dict(checkpoint.under(state, "average."))
        for part, optimiser in self.parts.items():
            optimiser.load(checkpoint.under(state, f"{part}."))
        self.step = told["step"]


def load_average(path: Path) -> tuple[VAE, dict]:
    """The averaged network of a run's checkpoint, and what the checkpoint tells of itself."""
    told, state = checkpoint.read_file(path, KIND)
    vae = VAE(_widths(told))
    vae.load_state_dict(checkpoint.under(state, "average."))
    return vae.requires_grad_(False), told


def write_weights(path: Path, vae: VAE, told: dict) -> None:
    """``vae`` for the host's loader, bfloat16: an fp16 one it would take for HunyuanVideo's, and scale. ``told``: what
    the run's checkpoint tells of itself."""
    state = {name: value.to(torch.bfloat16).contiguous() for name, value in embed(vae).items()}
    notes = {"training": "synthetic stage", "steps": str(told["step"]), "seed": str(told["options"]["seed"])}
    notes["widths"] = json.dumps(asdict(vae.widths))
    with checkpoint.whole(path) as partial:
        safetensors.torch.save_file(state, partial, metadata=notes)


def read_weights(path: Path) -> tuple[dict[str, Tensor], Widths]:
    """What write_weights() wrote, and the widths of the network that it was. Raises ValueError for any other file."""
    with safetensors.safe_open(path, framework="pt") as file:
        notes = file.metadata() or {}
        if "widths" not in notes:
            raise ValueError(
                f"--start: {path.name} does not say how wide its network was: scripts/train_vae.py has not made it."
            )
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return state, _widths({"widths": json.loads(notes["widths"])})


def _widths(told: dict) -> Widths:
    return Widths(**{field.name: tuple(told["widths"][field.name]) for field in fields(Widths)})


@torch.no_grad()
def measure(vae: VAE, clips: list[Material]) -> dict[str, float]:
    """PSNR of frames and drawn poses (dB, mean over clips); mean and variance of latents after the host's scale."""
    device = next(vae.parameters()).device
    figures: dict[str, list[float]] = {"frames": [], "pose": []}
    latents = []
    for clip in clips:
        for name, values in figures.items():
            target = (getattr(clip, name)[None].permute(0, 1, 4, 2, 3).float() / 255).to(device)
            coded = vae.encode(target)
            back = vae.decode(coded).clamp(0, 1)
            values.append(psnr(back[0].movedim(1, -1), target[0].movedim(1, -1)))
            if name == "frames":
                latents.append(coded.transpose(0, 2).flatten(1))
    columns = torch.cat(latents, 1) * SCALE
    means = {f"psnr_{name}": float(np.mean(values)) for name, values in figures.items()}
    return {**means, "latent_mean": float(columns.mean()), "latent_variance": float(columns.var())}


@torch.no_grad()
def calibrate(vae: VAE, clips: list[Material]) -> float:
    """Scale latents so that their variance after the host's scale is 1; the factor. The decoder's clamp bends nothing
    as long as the factor is near 1, which training sees to."""
    factor = measure(vae, clips)["latent_variance"] ** -0.5
    vae.encoder.last.weight *= factor
    vae.encoder.last.bias *= factor
    vae.decoder.first.weight /= factor
    return factor


@torch.no_grad()
def sheet(vae: VAE, clips: list[Material], shown: int = 4) -> Tensor:
    """Frames and poses above what comes back: [H, W, 3] uint8."""
    device = next(vae.parameters()).device
    rows = []
    for clip in clips:
        for pictures in (clip.frames, clip.pose):
            target = pictures[None].permute(0, 1, 4, 2, 3).float() / 255
            back = vae.decode(vae.encode(target.to(device))).clamp(0, 1).cpu()
            at = torch.linspace(0, len(pictures) - 1, shown).round().long()
            rows.append(torch.cat([torch.cat(list(values[0, at]), 2) for values in (target, back)], 2))
    return (torch.cat(rows, 1).permute(1, 2, 0) * 255).round().byte()


def train(trainer: Trainer, minutes: float, pause: Path, every: int, show: Callable[[Tensor, int], None]) -> None:
    """Train until the steps are done or ``minutes`` are over; sleeps while the file ``pause`` exists.

    Every ``every`` steps: a checkpoint and a line of log.csv; at each fifth of them ``show(sheet, step)``.
    """
    held_out = [draw_material(HELD_OUT + number, trainer.options.clip_frames, (128, 128)) for number in range(6)]
    end = time.monotonic() + minutes * 60
    if trainer.step == 0 and not trainer.started:
        trainer.begin()
    sums: dict[str, float] = {}
    since, working = trainer.step, 0.0
    while trainer.step < trainer.options.steps and time.monotonic() < end:
        if pause.exists():
            time.sleep(5)
            continue
        start = time.monotonic()
        for name, value in trainer.train_step().items():
            sums[name] = sums.get(name, 0.0) + value
        working += time.monotonic() - start
        if trainer.step % every == 0 or trainer.step == trainer.options.steps:
            count = trainer.step - since
            row = {name: value / count for name, value in sums.items()}
            row = {"step": trainer.step, **row, "seconds_a_step": working / count, **measure(trainer.average, held_out)}
            trainer.save()  # before its line, which would come twice if the run went on from the one before
            write_row(trainer.folder / "log.csv", row)
            log.info(", ".join(f"{name} {value:.4g}" for name, value in row.items()))
            if trainer.step % (5 * every) == 0 or trainer.step == every:
                show(sheet(trainer.average, held_out[:3]), trainer.step)
            sums, since, working = {}, trainer.step, 0.0
    trainer.save()


def write_row(path: Path, row: dict[str, float]) -> None:
    """Append a line to a CSV file, with a header if it is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow({name: round(value, 6) for name, value in row.items()})
