"""Training and measuring of the motion head (models/pose_motion.py) on rehearsed clips of the stage.

The loss is that of an error with a Laplace distribution, whose width the network gives as well: so it learns how far
its answer is to be trusted. Times the root of the width, which keeps the hard shots from being given up (β-NLL of
Seitzer et al. 2022, with β = 1/2).
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..models import pose_motion
from ..models.pose_motion import PoseMotion, Size
from . import checkpoint, optimiser, pose_samples, rehearsal
from .configuration import Optimiser as Settings
from .pose_samples import Shots
from .train import Stops, TrainingError

TOKENS = 1536  # steps in a batch, whatever the length of its shots
LENGTHS = (5, 9, 17, 25, 33, 49)  # frames
CLEAN = 0.35  # of the batches see joints as they are
COOLDOWN = 0.25  # of the steps
UNIT = 0.01  # heights: brings errors near 1
CHECKPOINT, KIND = "checkpoint.safetensors", "pose_motion"


@dataclass(frozen=True)
class Options:
    clips: int = 30000
    steps: int = 32000
    muon_rate: float = 6e-3
    rate: float = 4e-3
    warmup: int = 50
    autocast: bool = True  # bf16 arithmetic with float32 weights: half the time
    seed: int = 0


def rehearse_clips(count: int, first: int = 0, progress: Callable[[int], None] | None = None) -> Shots:
    """The training clips of ``count`` seeds."""
    shots = []
    for seed in range(first, first + count):
        shots.append(pose_samples.shot_of(rehearsal.rehearse(pose_samples.plan_of(seed))))
        if progress:
            progress(len(shots))
    return pose_samples.gather(shots)


def loss_of(network: PoseMotion, shots: Shots) -> Tensor:
    """β-NLL of all four parts of a step, as far as they move the picture."""
    steps, spread = network(shots.joints, shots.aspect)
    weight = torch.ones(len(shots), 1, pose_motion.PARTS)
    weight[..., 2:] = pose_motion.radius(shots.aspect)[:, None, None]
    error, width = (steps - shots.steps).abs() * weight / UNIT, spread * weight / UNIT
    return ((error / width + width.log()) * width.detach().sqrt()).mean()


def draw_batch(clips: Shots, options: Options, step: int) -> Shots:
    """The batch of a step: a function of the seed and the step alone."""
    generator = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
    frames = LENGTHS[torch.randint(len(LENGTHS), (), generator=generator)]
    count = min(TOKENS // (frames - 1), 192)
    chosen = torch.randint(len(clips), (count,), generator=generator)
    first = torch.randint(clips.place.shape[1] - frames + 1, (count,), generator=generator)
    shots = pose_samples.vary(clips.cut(chosen, first, frames), generator)
    clean = torch.rand((), generator=generator) < CLEAN
    return shots if clean else pose_samples.spoil(shots, generator)


def rate_at(options: Options, step: int) -> float:
    """The factor on the learning rates: up in the first steps, level, down to nothing in the last quarter."""
    left = (options.steps - step) / max(1, int(COOLDOWN * options.steps))
    return min(1.0, (step + 1) / options.warmup, left)


class Trainer:
    """A run in a folder: network, optimiser, and how many steps are done. ``start``: a network to go on from."""

    def __init__(self, folder: Path, options: Options, start: PoseMotion | None = None) -> None:
        torch.manual_seed(options.seed)
        self.folder, self.options = folder, options
        self.network = PoseMotion(start.size if start else None)
        if start:
            self.network.load_state_dict(start.state_dict())
        settings = Settings(kind="muon", learning_rate=options.rate, muon_rate=options.muon_rate)
        parameters = {f"pose_motion.{name}": parameter for name, parameter in self.network.named_parameters()}
        self.updates = optimiser.Optimiser(parameters, settings)
        self.step = 0

    def train_step(self, clips: Shots) -> float:
        """One update; its loss. Raises TrainingError, and changes nothing, when it is not a number."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.options.autocast):
            loss = loss_of(self.network, draw_batch(clips, self.options, self.step))
        loss.backward()
        value, norm = float(loss.detach()), self.updates.reduce()
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise TrainingError(checkpoint.not_a_number(self.folder / CHECKPOINT, self.step, value, norm))
        self.updates.step(rate_at(self.options, self.step), norm)
        self.step += 1
        return value

    def save(self) -> None:
        """Write the checkpoint whole, or leave the one that is there. Raises OSError then."""
        state = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        state |= {f"updates.{name}": value for name, value in self.updates.state().items()}
        told = {"step": self.step, "options": asdict(self.options), "size": asdict(self.network.size)}
        checkpoint.write_file(self.folder / CHECKPOINT, KIND, told, state)

    @classmethod
    def resumed(cls, folder: Path, options: Options) -> "Trainer":
        """The run in ``folder``, as its checkpoint left it. Raises ValueError when there is none, or one of other
        options."""
        path = folder / CHECKPOINT
        if not path.is_file():
            raise ValueError(f"--resume: there is no checkpoint in {folder}. Start without --resume.")
        told, state = checkpoint.read_file(path, KIND)
        checkpoint.check_options(path, told["step"], told["options"], asdict(options), COOLDOWN)
        trainer = cls(folder, options, PoseMotion(Size(**told["size"])))
        trainer.network.load_state_dict(checkpoint.under(state, "network."))
        trainer.updates.load(checkpoint.under(state, "updates."))
        trainer.step = told["step"]
        return trainer


def train(
    trainer: Trainer,
    clips: Shots,
    log: Callable[[int, float, PoseMotion], None],
    pause: Path,
    every: int = 1000,
    stops: Stops | None = None,
) -> bool:
    """Train on ``clips`` until the steps are done or ``stops`` are due; whether they are done.

    ``log`` is called with each step, its loss and the network after it; every ``every`` steps, and at the end, there is
    a checkpoint. Sleeps while the file ``pause`` exists. Raises TrainingError when the loss is not a number, OSError
    when a checkpoint could not be written; the last good one stays.
    """
    stops = stops or Stops()
    while trainer.step < trainer.options.steps and not stops.due:
        if pause.exists():
            time.sleep(1)
            continue
        step, loss = trainer.step, trainer.train_step(clips)
        log(step, loss, trainer.network)
        if trainer.step % every == 0 or trainer.step == trainer.options.steps:
            trainer.save()
    if stops.due:
        trainer.save()
    return trainer.step >= trainer.options.steps
