"""What the motion head is trained and measured on: rehearsed clips, other frames and cameras, and poses as found.

Points of a frame are complex numbers here, x + iy from its middle in heights of the frame: a similarity is then a
product and a sum, and the motion of the background from a frame to the next is z -> turn z + shift.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..models.pose_motion import SEEN
from . import rehearsal, stage

SIZES = ((128, 128), (160, 96), (96, 160), (171, 96), (96, 171), (128, 96), (96, 128), (192, 96))
RATES = (10, 12, 15, 20, 30, 60)
RATE_SHARE = (0.15, 0.15, 0.2, 0.2, 0.2, 0.1)
FRAMES = 53
# Of the clips, besides the stage's own share: cameras that travel, and circle the person above all, are its rarest and
# the hardest to tell from a person who turns. Where they are one in twenty-five, "it stands" is mostly right.
TRAVELLING = 0.25
MIRRORED = [0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16]
NECK, SHOULDERS, HIPS = 1, [2, 5], [8, 11]
FACE, ARMS, LEGS, FEET = [0, 14, 15, 16, 17], [3, 4, 6, 7], [9, 10, 12, 13], [10, 13]


@dataclass(frozen=True, eq=False)
class Shots:
    """B shots of T frames. ``place`` [B, T, 18] complex, ``seen`` [B, T, 18] bool; the background's ``turn`` and
    ``shift`` [B, T-1] complex; ``aspect`` [B], width by height."""

    place: Tensor
    seen: Tensor
    turn: Tensor
    shift: Tensor
    aspect: Tensor

    def __len__(self) -> int:
        return len(self.place)

    def cut(self, chosen: Tensor, first: Tensor, frames: int) -> "Shots":
        """``frames`` frames from ``first`` [N] on of the shots ``chosen`` [N]."""
        at = first[:, None] + torch.arange(frames)
        row = chosen[:, None]
        steps = at[:, :-1]
        return Shots(
            self.place[row, at], self.seen[row, at], self.turn[row, steps], self.shift[row, steps], self.aspect[chosen]
        )

    @property
    def joints(self) -> Tensor:
        """[B, T, 18, 3] as the motion head takes them."""
        place = torch.where(self.seen, self.place, 0)
        return torch.stack([place.real, place.imag, self.seen.to(place.real.dtype)], dim=-1).float()

    @property
    def steps(self) -> Tensor:
        """[B, T-1, 4]: dx, dy in heights, logarithm of the scale, roll."""
        parts = [self.shift.real, self.shift.imag, self.turn.abs().log(), self.turn.angle()]
        return torch.stack(parts, dim=-1).float()

    @property
    def size(self) -> Tensor:
        """[B, 1, 1]: how large the people are, in heights: the diagonal of the box around them, its mean over time."""
        x, y = self.place.real, self.place.imag
        spans = [
            torch.where(self.seen, part, -math.inf).amax(-1) - torch.where(self.seen, part, math.inf).amin(-1)
            for part in (x, y)
        ]
        there = self.seen.any(-1)
        diagonal = torch.where(there, torch.stack(spans).nan_to_num(0, 0, 0).norm(dim=0), 0)
        return (diagonal.sum(-1) / there.sum(-1).clamp_min(1))[:, None, None]


def plan_of(seed: int, frames: int = FRAMES) -> stage.Plan:
    """The plan of a training clip: the stage's, in more frame sizes and rates, and more often before a camera that
    travels."""
    rng = np.random.default_rng([seed, 7])
    size, rate = SIZES[rng.integers(len(SIZES))], int(rng.choice(RATES, p=RATE_SHARE))
    fixed = {"camera": "dolly"} if rng.random() < TRAVELLING else {}
    return stage.draw_plan(seed, frames, size, fps=rate, **fixed)


def shot_of(known: rehearsal.Rehearsal) -> Shots:
    """One rehearsed clip."""
    plan, points = known.plan, known.pose.keypoints[:, 0]
    place = (points[..., 0] - plan.width / 2 + 1j * (points[..., 1] - plan.height / 2)) / plan.height
    steps = known.steps
    parts = [
        place,
        points[..., 2] >= SEEN,
        np.exp(steps[:, 2] + 1j * steps[:, 3]),
        (steps[:, 0] + 1j * steps[:, 1]) / plan.height,
        np.array(plan.width / plan.height),
    ]
    place, seen, turn, shift, aspect = (torch.from_numpy(np.asarray(part))[None] for part in parts)
    return Shots(place.to(torch.complex64), seen, turn.to(torch.complex64), shift.to(torch.complex64), aspect.float())


def gather(shots: list[Shots]) -> Shots:
    """Shots of one length as one batch."""
    fields = Shots.__dataclass_fields__
    return Shots(*(torch.cat([getattr(shot, name) for shot in shots]) for name in fields))


def view(shots: Shots, turn: Tensor, shift: Tensor, aspect: Tensor) -> Shots:
    """The shots through another camera, which shows the point z of a frame at turn z + shift.

    ``turn``, ``shift`` [B, T] complex: a camera that turns or zooms besides, or a part of the frame cut out (constant).
    Joints that leave the frame of ``aspect`` [B] are lost.
    """
    place = turn[..., None] * shots.place + shift[..., None]
    inside = (place.real.abs() < aspect[:, None, None] / 2) & (place.imag.abs() < 0.5)
    new_turn = turn[:, 1:] * shots.turn / turn[:, :-1]
    new_shift = turn[:, 1:] * shots.shift + shift[:, 1:] - new_turn * shift[:, :-1]
    return Shots(place, shots.seen & inside, new_turn, new_shift, aspect)


def mirror(shots: Shots, which: Tensor) -> Shots:
    """Left and right exchanged in the shots ``which`` [B] bool."""
    swapped, seen = -shots.place[..., MIRRORED].conj(), shots.seen[..., MIRRORED]
    wide, long = which[:, None, None], which[:, None]
    return Shots(
        torch.where(wide, swapped, shots.place),
        torch.where(wide, seen, shots.seen),
        torch.where(long, shots.turn.conj(), shots.turn),
        torch.where(long, -shots.shift.conj(), shots.shift),
        shots.aspect,
    )


class Chance:
    """Draws for B shots from one generator."""

    def __init__(self, shots: Shots, generator: torch.Generator) -> None:
        self.generator = generator
        self.shots, self.frames = shots.place.shape[:2]

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(self.shots, *shape, generator=self.generator)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(self.shots, *shape, generator=self.generator)

    def happens(self, chance: float, *shape: int) -> Tensor:
        return torch.rand(self.shots, *shape, generator=self.generator) < chance

    def complex_normal(self, *shape: int) -> Tensor:
        return torch.complex(self.normal(*shape), self.normal(*shape))

    def smooth(self, *shape: int) -> Tensor:
        """Smooth noise of deviation about 1 over time, complex [B, T, ...]: three waves, slow to quick."""
        time = torch.arange(self.frames)[:, None]
        total = torch.zeros(self.shots, self.frames, math.prod(shape), dtype=torch.complex64)
        for _ in range(3):
            waves = torch.exp(self.uniform(-4.5, -0.8, 1, total.shape[2]))  # rad a frame
            phase = self.uniform(0, 2 * math.pi, 2, 1, total.shape[2])
            x, y = torch.sin(time * waves + phase[:, 0]), torch.sin(time * waves * 1.3 + phase[:, 1])
            total += torch.complex(x, y)
        return total.view(self.shots, self.frames, *shape) / 1.22


def vary(shots: Shots, generator: torch.Generator) -> Shots:
    """The same people in other frames, mirrored, and half of them before cameras that pan, zoom and shake besides."""
    chance = Chance(shots, generator)
    shots = mirror(shots, chance.happens(0.5))
    cut = chance.happens(0.5)
    zoom = torch.where(cut, torch.exp(chance.uniform(-0.4, 0.5)), 1.0)
    aspect = torch.where(cut, shots.aspect * torch.exp(chance.uniform(-0.3, 0.3)), shots.aspect)
    offset = torch.where(cut, chance.complex_normal() * 0.1, 0)
    speed = torch.exp(chance.uniform(-7.5, -3.5, 2)) * chance.happens(0.5, 1)  # heights a frame
    steady = torch.stack([chance.complex_normal(), chance.complex_normal() * 0.6], 1)  # shift; scale and roll
    steady[:, 1] = torch.complex(steady[:, 1].real, steady[:, 1].imag * 0.3)
    moves = steady[:, None] * chance.happens(0.6, 1, 1) + chance.smooth(2) * chance.happens(0.6, 1, 1)
    path = torch.cumsum(moves * speed[:, None], dim=1)
    path = path - path[:, chance.frames // 2][:, None]
    turn = torch.exp(path[..., 1].real.clamp(-0.7, 0.7) + 1j * path[..., 1].imag.clamp(-0.4, 0.4))
    return view(shots, turn * zoom[:, None], path[..., 0] + offset[:, None], aspect)


def spoil(shots: Shots, generator: torch.Generator, amount: float | None = None) -> Shots:
    """Poses as a detector finds them: joints that tremble and drift, a body measured a little otherwise, joints,
    limbs and frames missing, and now and then left taken for right.

    ``amount`` of the trembling as a share of the body's size, its deviation; drawn for each shot where left out.
    """
    chance = Chance(shots, generator)
    size = shots.size
    tremble = chance.uniform(0, 0.006, 1, 1) if amount is None else amount
    place = shots.place + chance.complex_normal(chance.frames, 18) * size * tremble * 0.7
    place = place + chance.smooth(18) * size * tremble
    place = place + chance.complex_normal(1, 18) * size * 0.008
    place = _as_blazepose(place, chance.happens(0.6, 1, 1), chance.uniform(0.85, 1.3, 1, 1))
    calm = (place[:, :-2] + place[:, 1:-1] + place[:, 2:]) / 3
    place = torch.where(chance.happens(0.4, 1, 1), torch.cat([place[:, :1], calm, place[:, -1:]], 1), place)
    seen = shots.seen & ~_missing(chance)
    swapped = chance.happens(0.1, 1, 1) & chance.happens(0.04, chance.frames, 1)
    place, seen = (torch.where(swapped, part[..., MIRRORED], part) for part in (place, seen))
    return replace(shots, place=place, seen=seen)


def _as_blazepose(place: Tensor, which: Tensor, hips: Tensor) -> Tensor:
    """A neck between the shoulders, and hips ``hips`` times as far apart, in the shots ``which`` [B, 1, 1]."""
    other = place.clone()
    other[..., NECK] = place[..., SHOULDERS].mean(-1)
    middle = place[..., HIPS].mean(-1, keepdim=True)
    other[..., HIPS] = middle + (place[..., HIPS] - middle) * hips
    return torch.where(which, other, place)


def _missing(chance: Chance) -> Tensor:
    """[B, T, 18] bool: joints that the detector does not give."""
    lost = chance.happens(0.5, 1, 1) & (chance.uniform(0, 1, chance.frames, 18) < chance.uniform(0, 0.15, 1, 1))
    time = torch.arange(chance.frames)[:, None]
    begin = chance.uniform(-10, chance.frames, 1, 18)
    lost |= chance.happens(0.1, 1, 18) & (time >= begin) & (time < begin + chance.uniform(3, 20, 1, 18))
    for limbs, share in ((FACE, 0.15), (ARMS, 0.08), (LEGS, 0.1), (FEET, 0.08)):
        lost[..., limbs] |= chance.happens(share, 1, 1)
    return lost | (chance.happens(0.15, 1, 1) & chance.happens(0.06, chance.frames, 1))


def keypoints_of(shots: Shots, index: int, width: int, height: int) -> Tensor:
    """A shot as a pose detector would give it on a canvas: [T, 1, 18, 3] px."""
    joints = shots.joints[index]
    place = joints[..., :2] * height + torch.tensor([width / 2, height / 2])
    return torch.cat([place * joints[..., 2:], joints[..., 2:]], dim=-1)[:, None]
