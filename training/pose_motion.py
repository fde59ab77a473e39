"""Training and measuring of the motion head (models/pose_motion.py) on rehearsed clips of the stage.

The loss is that of an error with a Laplace distribution, whose width the network gives as well: so it learns how far
its answer is to be trusted. Times the root of the width, which keeps the hard shots from being given up (β-NLL of
Seitzer et al. 2022, with β = 1/2).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..models import pose_motion
from ..models.pose_motion import PoseMotion
from . import optimiser, pose_samples, rehearsal
from .configuration import Optimiser as Settings
from .pose_samples import Shots

TOKENS = 1536  # steps in a batch, whatever the length of its shots
LENGTHS = (5, 9, 17, 25, 33, 49)  # frames
CLEAN = 0.35  # of the batches see joints as they are
COOLDOWN = 0.25  # of the steps
UNIT = 0.01  # heights: brings errors near 1


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


def train(
    clips: Shots, options: Options, log: Callable[[int, float, PoseMotion], None], start: PoseMotion | None = None
) -> PoseMotion:
    """A network trained on ``clips``, from the weights of ``start`` on where one is given. ``log`` is called with each
    step, its loss and the network after it. Raises ValueError on a NaN."""
    torch.manual_seed(options.seed)
    network = PoseMotion(start.size if start else None)
    if start:
        network.load_state_dict(start.state_dict())
    settings = Settings(kind="muon", learning_rate=options.rate, muon_rate=options.muon_rate)
    parameters = {f"pose_motion.{name}": parameter for name, parameter in network.named_parameters()}
    updates = optimiser.Optimiser(parameters, settings)
    for step in range(options.steps):
        batch = draw_batch(clips, options, step)
        with torch.autocast("cpu", torch.bfloat16, enabled=options.autocast):
            loss = loss_of(network, batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ValueError(f"the loss is {value} at step {step}: try a smaller rate.")
        loss.backward()
        updates.step(rate_at(options, step), updates.reduce())
        log(step, value, network)
    return network.eval().requires_grad_(False)
