"""The motion head: from a person's joints through time to how the background behind it moves.

A planted foot stands still in the world, so the background passes as the foot does; a body that grows in the frame
comes nearer. A small transformer over time, trained on the synthetic stage (training/pose_motion.py), reads both. It is
the explicit form of what AnimateAnywhere leaves to its background motion learner (section III-B, table III).
"""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import checked_json, shards
from .checked_json import Fields, shown

SEEN = 0.3  # confidence from which a joint counts, as in vision.pose
JOINTS = 18
PARTS = 4  # of a step: dx, dy, scale, roll
LAGS = (-2, -1, 0, 1, 2)  # steps around one, whose joints it may follow
VELOCITY = 20.0  # brings a typical movement between frames, in heights of the frame, near 1
TINY = 0.003  # heights of the frame: the smallest movements that are told apart well
LEAST = 1e-4  # heights of the frame: no step is known better
NEGLIGIBLE = 0.0015  # heights of the frame: an error of this size is as good as none
FORMAT = 1
METADATA_KEY = "animate_anywhere"
# What a header may say at most, several times what there is: larger networks would only be built to fail.
MAX_SIZES = {"width": 1 << 12, "blocks": 1 << 8, "heads": 1 << 8, "window": 1 << 12, "overlap": 1 << 12}


@dataclass(frozen=True)
class Size:
    """``window`` and ``overlap`` are steps; longer shots are read in overlapping windows."""

    width: int = 128
    blocks: int = 4
    heads: int = 4
    window: int = 48
    overlap: int = 16


@dataclass(frozen=True, eq=False)
class Motion:
    """How the background moves from each of T frames to the next.

    ``steps`` [T-1, 4]: dx px, dy px, the logarithm of the scale, roll in rad (positive turns the picture clockwise),
    about the frame's middle. ``spread`` [T-1, 4]: the error to expect of each, in the same units. ``confidence``
    [T-1] in 0…1: the share of the motion that the pose tells.
    """

    steps: Tensor
    spread: Tensor
    confidence: Tensor


class Block(nn.Module):
    """Attention over time with rotary positions, then a feed-forward layer, each on normalised input."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads = size.heads
        self.norm1, self.norm2 = nn.LayerNorm(size.width), nn.LayerNorm(size.width)
        self.q, self.k, self.v, self.attn_out = (nn.Linear(size.width, size.width) for _ in range(4))
        self.ff_proj, self.ff_out = nn.Linear(size.width, 4 * size.width), nn.Linear(4 * size.width, size.width)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """x [B, S, width] -> the same."""
        normed = self.norm1(x)
        q, k, v = (layer(normed).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(_rotate(q, rotation), _rotate(k, rotation), v)  # [B, heads, S, d]
        x = x + self.attn_out(mixed.transpose(1, 2).flatten(2))
        return x + self.ff_out(F.gelu(self.ff_proj(self.norm2(x))))


def _rotations(count: int, channels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine [count, channels / 2] of rotary positions."""
    rate = 100.0 ** (-torch.arange(channels // 2, device=device) / (channels // 2))
    angle = torch.arange(count, device=device)[:, None] * rate
    return angle.cos(), angle.sin()


def _rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    cosine, sine = rotation
    one, other = x.chunk(2, dim=-1)
    return torch.cat([one * cosine - other * sine, one * sine + other * cosine], dim=-1)


class PoseMotion(nn.Module):
    """Joints of T frames -> T-1 steps of the background.

    Each step follows joints: a weighted mean of how they move now and in the steps around, of which each frame chooses
    the weights (a planted foot; for a turning camera any joint that rests), plus what the network adds to it.
    """

    def __init__(self, size: Size | None = None) -> None:
        super().__init__()
        self.size = size = size or Size()
        self.embed = nn.Linear(JOINTS * 8 + 1, size.width)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.blocks))
        self.norm = nn.LayerNorm(size.width)
        self.follow = nn.Linear(size.width, len(LAGS) * JOINTS + 1)  # the last: nothing, the camera rests
        self.motion = nn.Linear(size.width, 2 * PARTS)

    def forward(self, joints: Tensor, aspect: Tensor) -> tuple[Tensor, Tensor]:
        """``joints`` [B, T, 18, 3]: x, y from the frame's middle in heights of the frame, confidence; ``aspect`` [B]:
        width by height. -> steps and the error to expect of them, both [B, T-1, 4]; dx and dy in heights."""
        seen = joints[..., 2] >= SEEN  # [B, T, 18]
        place = torch.where(seen[..., None], joints[..., :2], 0.0)
        both = seen[:, 1:] & seen[:, :-1]
        velocity = torch.where(both[..., None], place[:, 1:] - place[:, :-1], 0.0)  # [B, S, 18, 2]
        told = [
            place[:, :-1],
            velocity * VELOCITY,
            torch.asinh(velocity / TINY),
            seen[:, :-1, :, None],
            both[..., None],
        ]
        told = torch.cat([part.float() for part in told], dim=-1).flatten(2)
        x = self.embed(torch.cat([told, aspect[:, None, None].expand(-1, told.shape[1], 1)], dim=-1))
        rotation = _rotations(x.shape[1], self.size.width // self.size.heads, x.device)
        for block in self.blocks:
            x = block(x, rotation)
        x = self.norm(x)
        steps, spread = self.motion(x).chunk(2, dim=-1)
        followed = self._followed(self.follow(x), velocity, both)
        steps = steps / VELOCITY + F.pad(followed, (0, PARTS - 2))
        return steps, F.softplus(spread) / VELOCITY + LEAST

    @staticmethod
    def _followed(weights: Tensor, velocity: Tensor, both: Tensor) -> Tensor:
        """The mean movement [B, S, 2] of joints with ``weights`` [B, S, lags × 18 + 1], of those that are known."""
        reach, count = max(LAGS), velocity.shape[1]
        padded = F.pad(velocity, (0, 0, 0, 0, reach, reach))
        known = F.pad(both, (0, 0, reach, reach))
        around = torch.cat([padded[:, reach + lag : reach + lag + count] for lag in LAGS], dim=2)  # [B, S, lags·18, 2]
        known = torch.cat([known[:, reach + lag : reach + lag + count] for lag in LAGS], dim=2)
        weights = weights.masked_fill(~F.pad(known, (0, 1), value=True), -math.inf).softmax(-1)
        return (weights[..., :-1, None] * around).sum(2)

    @torch.no_grad()
    def read(self, keypoints: Tensor, width: int, height: int, progress: Callable[[int], None] | None = None) -> Motion:
        """``keypoints`` [T, P, 18, 3] px of P people on a canvas of ``width``×``height`` -> Motion.

        Each person is read alone; where several are there, each counts by how little it is in doubt. A step between two
        frames in which nobody is seen goes on from those around, with a confidence of 0. ``progress`` is called with
        the number of steps done.
        """
        device = self.embed.weight.device
        middle = torch.tensor([width / 2, height / 2, 0.0])
        joints = (keypoints.float().cpu() - middle) / torch.tensor([height, height, 1.0])
        joints = joints.transpose(0, 1).to(device)  # [P, T, 18, 3]
        steps = torch.zeros(joints.shape[0], joints.shape[1] - 1, PARTS, device=device)
        spread, total = steps.clone(), steps[..., :1].clone()
        aspect = torch.full((len(joints),), width / height, device=device)
        for first, last in self._windows(steps.shape[1]):
            share = _share(last - first, self.size.overlap, device)
            part, doubt = self(joints[:, first : last + 1], aspect)
            steps[:, first:last] += part * share
            spread[:, first:last] += doubt * share
            total[:, first:last] += share
            if progress:
                progress(last)
        motion = _joined(steps / total, spread / total, width, height)
        there = (joints[..., 2] >= SEEN).any(-1).any(0).cpu()  # [T]
        return replace(motion, confidence=motion.confidence * (there[1:] | there[:-1]))

    def _windows(self, steps: int) -> Iterator[tuple[int, int]]:
        first, stride = 0, self.size.window - self.size.overlap
        while first < steps:
            last = min(first + self.size.window, steps)
            yield max(last - self.size.window, 0), last
            first = steps if last == steps else first + stride


def _share(count: int, overlap: int, device: torch.device) -> Tensor:
    """[count, 1]: how much a window's steps count, less towards its ends, where it knows one side only."""
    at = torch.arange(count, device=device)
    return (torch.minimum(at, at.flip(0)) + 1).clamp(max=overlap)[:, None] / overlap


def _joined(steps: Tensor, spread: Tensor, width: int, height: int) -> Motion:
    """What P people tell, [P, S, 4] in heights, as one Motion in px."""
    weight = spread.square().reciprocal()
    weight = weight / weight.sum(0)
    steps, spread = (steps * weight).sum(0), (spread * weight).sum(0)
    confidence = confidence_of(steps, spread, width / height)
    pixels = torch.tensor([height, height, 1.0, 1.0], device=steps.device)
    return Motion((steps * pixels).cpu(), (spread * pixels).cpu(), confidence.cpu())


def displacement(steps: Tensor, aspect: Tensor | float) -> Tensor:
    """How far steps [..., 4] (dx, dy in heights) move the frame's points, root mean square in heights: [...]."""
    dx, dy, scale, roll = steps.unbind(-1)
    return (dx**2 + dy**2 + radius(aspect) ** 2 * (scale**2 + roll**2)).sqrt()


def radius(aspect: Tensor | float) -> Tensor | float:
    """How far the points of a frame are from its middle, root mean square in heights."""
    return ((aspect**2 + 1) / 12) ** 0.5


def confidence_of(steps: Tensor, spread: Tensor, aspect: Tensor | float) -> Tensor:
    """The share of the motion that is told: near 0 where the error to expect is as large as the motion.

    A background that rests, and is known to, counts as told: errors below NEGLIGIBLE are none.
    """
    told = displacement(steps, aspect).square() + NEGLIGIBLE**2
    return told / (told + displacement(spread, aspect).square())


def save(path: Path, network: PoseMotion, training: dict) -> None:
    """Write the network in half precision, with a header that says its size and how it was trained."""
    header = {"format": FORMAT, "kind": "pose_motion", "size": asdict(network.size), "training": training}
    state = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    safetensors.torch.save_file(state, path, metadata={METADATA_KEY: json.dumps(header)})


def load(path: Path, device: torch.device | str = "cpu") -> PoseMotion:
    """The network at ``path``. Raises ValueError where the file is no motion head of this version."""
    _, metadata = shards.read_header(path, "method: ")
    source = f"method: {path.name}: its header"
    header = Fields(checked_json.parse_object(metadata.get(METADATA_KEY, "{}"), source), source)
    if header.values.get("kind") != "pose_motion" or header.values.get("format") != FORMAT:
        raise ValueError(
            f"method: {path.name} is no motion head of format {FORMAT}: its header says "
            f"{shown(header.values) if header.values else 'nothing'}. Get the pack's file weights/pose_motion again, "
            "or choose the method geometry."
        )
    size = _read_size(header.table("size"))
    with torch.device("meta"):  # no random weights: they would move the random state of the whole process
        network = PoseMotion(size)
    state = {name: value.float() for name, value in safetensors.torch.load_file(path).items()}
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ValueError(
            f"method: {path.name} does not hold the network that its header describes ({str(error)[:200]}). Get the "
            "pack's file weights/pose_motion again, or choose the method geometry."
        ) from error
    return network.eval().requires_grad_(False).to(device)


def _read_size(found: Fields) -> Size:
    found.only(MAX_SIZES)
    size = Size(**{name: found.integer(name, highest) for name, highest in MAX_SIZES.items()})
    if size.width % (2 * size.heads) or size.overlap >= size.window:
        raise ValueError(f"{found.source} is {shown(found.values)}, which no network can have. Get the file again.")
    return size
