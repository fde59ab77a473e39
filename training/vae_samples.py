"""What the tiny VAE is trained on: cut-outs of stage clips, drawn poses, and what the nodes make of them.

Chance is a function of seed and step, and the pool of clips a function of the step.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..models.reference import GREY
from . import stage

FIRST = 5 * 10**8  # seed of the first clip


@dataclass(frozen=True)
class Options:
    """A run. ``crop`` px and ``frames`` of a sample (4k+1); every ``stills``-th step is single pictures instead."""

    steps: int = 6800
    batch: int = 6
    crop: int = 64
    frames: int = 13
    stills: int = 6
    pool: int = 160  # clips that samples are cut from; one is replaced every ``renew`` steps
    renew: int = 3
    clip_frames: int = 29
    muon_rate: float = 1e-3
    rate: float = 1e-3
    warmup: int = 100
    cooldown: float = 0.35  # last part of the steps, over which rates fall to nothing
    average: float = 0.998
    noise: float = 0.12  # largest deviation of noise on latents before decoding: what a small transformer leaves
    autocast: bool = True  # bf16 arithmetic with float32 weights: half as long where the processor has it
    encoder: bool = True  # trained, too; False: what was trained on its latents stays valid
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Material:
    """What is kept of a clip, as uint8: frames, clean background, pose [T, H, W, 3]; character [1, H, W, 3], its mask
    [1, H, W]. ``joints`` [N, 3]: frame, x, y of those that are seen."""

    frames: Tensor
    background: Tensor
    pose: Tensor
    character: Tensor
    mask: Tensor
    joints: np.ndarray


def draw_material(seed: int, frames: int, size: tuple[int, int] | None = None) -> Material:
    """The clip of a seed of the stage."""
    clip = stage.render_clip(stage.draw_plan(seed, frames, size))
    points = clip.pose.keypoints[:, 0]
    seen = np.argwhere(points[..., 2] > 0)
    joints = np.concatenate([seen[:, :1], points[seen[:, 0], seen[:, 1], :2]], 1)
    pictures = (clip.frames, clip.background, clip.drawn_pose, clip.character[None], clip.character_mask[None])
    return Material(*((picture.clamp(0, 1) * 255).round().byte().contiguous() for picture in pictures), joints)


class Pool:
    """Clips to cut samples from. Which clips it holds follows from the step."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.clips: dict[int, Material] = {}

    def at(self, step: int) -> list[Material]:
        """The pool's clips at ``step``; draws those that are missing."""
        newest = self.options.pool + step // self.options.renew
        wanted = range(newest - self.options.pool, newest)
        for number in [number for number in self.clips if number not in wanted]:
            del self.clips[number]
        for number in wanted:
            if number not in self.clips:
                self.clips[number] = draw_material(FIRST + number, self.options.clip_frames)
        return [self.clips[number] for number in wanted]


def cut_batch(pool: list[Material], options: Options, step: int) -> Tensor:
    """The samples of a step: [B, T, 3, S, S] in 0…1, the drawn poses at the end."""
    rng = np.random.default_rng([options.seed, step])
    frames, size = options.frames, options.crop
    if options.stills and step % options.stills == options.stills - 1:
        # One picture makes one latent frame, so it may be twice as large for the same work.
        frames, size = 1, 96
    kinds = [str(kind) for kind in rng.choice(list(KINDS), options.batch - poses_of(options), p=list(KINDS.values()))]
    kinds += ["pose"] * poses_of(options)
    return torch.stack([_cut(rng, pool, kind, frames, size) for kind in kinds])


def poses_of(options: Options) -> int:
    """How many samples of a batch are drawn poses."""
    return max(1, round(POSES * options.batch))


POSES = 0.5  # share of drawn poses in a batch, its last samples: thin lines are the harder half
KINDS = {"frames": 0.66, "background": 0.10, "blocks": 0.12, "character": 0.12}  # of the others


def _cut(rng: np.random.Generator, pool: list[Material], kind: str, frames: int, size: int) -> Tensor:
    """One sample [T, 3, S, S]."""
    material = pool[rng.integers(len(pool))]
    pictures = _pictures(rng, material, kind)
    far = kind != "pose" and rng.random() < 0.25 and min(pictures.shape[1:3]) >= 1.5 * size  # seen from farther away
    span = min(round(size * rng.uniform(1.3, 2.0)), *pictures.shape[1:3]) if far else size
    start = int(rng.integers(len(pictures) - frames + 1)) if len(pictures) >= frames else 0
    x, y = _corner(rng, material, kind, start, frames, span, pictures.shape)
    part = pictures[start : start + frames, y : y + span, x : x + span].permute(0, 3, 1, 2).float() / 255
    part = part.expand(frames, -1, -1, -1) if len(part) < frames else part
    if kind == "blocks":
        part = _blank(rng, part)
    if span != size:
        part = torch.nn.functional.interpolate(part, (size, size), mode="bilinear", antialias=True)
    part = part.flip(3) if rng.random() < 0.5 else part
    part = part.flip(0) if rng.random() < 0.5 else part
    return part if kind == "pose" else _recoloured(rng, part)


def _pictures(rng, material: Material, kind: str) -> Tensor:
    if kind != "character":
        return {"pose": material.pose, "background": material.background}.get(kind, material.frames)
    if rng.random() < 0.5:
        return material.character
    share = material.mask[..., None].float() / 255
    return (material.character * share + GREY * 255 * (1 - share)).round().byte()


def _corner(rng, material: Material, kind: str, start: int, frames: int, span: int, shape: tuple) -> tuple[int, int]:
    """Top left of a crop, more often than not around a joint: there is most to learn."""
    height, width = shape[1:3]
    x, y = rng.uniform(0, width - span), rng.uniform(0, height - span)
    near = material.joints[(material.joints[:, 0] >= start) & (material.joints[:, 0] < start + frames)]
    if kind != "character" and len(near) and rng.random() < (0.9 if kind == "pose" else 0.6):
        x, y = near[rng.integers(len(near)), 1:] - span / 2 + rng.normal(0, span / 6, 2)
    return int(np.clip(x, 0, width - span)), int(np.clip(y, 0, height - span))


def _blank(rng, part: Tensor) -> Tensor:
    """Grey rectangles, as in the environment that Animate Anyone 2 is given."""
    part = part.clone()
    for _ in range(int(rng.integers(1, 4))):
        high, wide = rng.integers(8, part.shape[2] // 2 + 1, 2)
        y, x = rng.integers(0, part.shape[2] - high + 1), rng.integers(0, part.shape[3] - wide + 1)
        part[:, :, y : y + high, x : x + wide] = GREY
    return part


def _recoloured(rng, part: Tensor) -> Tensor:
    """Other colours than the stage's palette has, in half of the cases."""
    if rng.random() < 0.5:
        return part
    part = part[:, rng.permutation(3).tolist()] if rng.random() < 0.3 else part
    turn = torch.from_numpy(np.eye(3) + rng.normal(0, 0.12, (3, 3))).float()
    part = torch.einsum("ij,tjhw->tihw", turn, part)
    return ((part - 0.5) * rng.uniform(0.8, 1.4) + 0.5 + rng.normal(0, 0.06)).clamp(0, 1)
