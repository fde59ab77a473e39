"""How good a family is: base, adapter and VAE on clips of the stage that no training has seen, in figures.

Each clip is sampled as an artist would have it sampled, under several conditions (SAMPLED), and beside them stand the
answers that need no network (GIVEN). All are measured alike, so each figure comes with what it is to be compared with.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from ..models import checkpoint as adapters
from ..models.clips import blank
from ..models.pose_motion import PoseMotion
from ..vision import backdrop, metrics, track_motion
from ..vision.camera_path import CameraPath
from . import checkpoint, epipolar, losses, samples, sheet, stage
from .autoencoder import Autoencoder
from .encoded import Encoded, encode
from .journal import span
from .networks import GROUPS, Family, load_base
from .objective import noise_schedule

FIRST = stage.HELD_OUT + 10**6  # the first clip; those before it are on sample sheets
TRACKED = 1.0  # px: a point is asked after where it can be followed this well in the true video
FEWEST = 4  # points that a clip must have at that
MOVING = 1.0  # px: a background that goes farther than this on average moves
GROWN = 0.025  # of the longer side: the blur around the person belongs to it
BLOCKS = (8, 16)  # px: sides of what one latent pixel and one token show
NOISE = (250, 500, 750)  # timesteps at which attention is looked at
QUERIES = 64  # of a clip, whose attention is looked at

# figure -> its unit, and of what it is
PICTURE = {
    "psnr": "dB, whole clips",
    "ssim": "whole clips",
    "person": "dB, inside the person's mask",
    "colour": "ΔE, person against the reference picture",
}
MOTION = {
    "motion": "px, end-point error of the background",
    "direction": "cosine with the true motion of the background",
    "blocks8": "step at borders of 8 px against elsewhere",
    "blocks16": "step at borders of 16 px against elsewhere",
    "person_blocks8": "the same for 8 px, inside the person's mask",
    "person_blocks16": "the same for 16 px, inside the person's mask",
}
UNITS = PICTURE | MOTION

log = logging.getLogger(__name__)


class Condition(NamedTuple):
    """What a family is told: the ``start`` (see Encoded.start), and whether pose or character are another clip's."""

    start: str
    wrong_pose: bool = False
    wrong_character: bool = False


SAMPLED = {
    "pose": Condition("clean"),
    "environment": Condition("environment"),
    "two-stage": Condition("environment"),  # an environment video made of the picture and the motion head's motion
    "wrong pose": Condition("clean", wrong_pose=True),
    "wrong reference": Condition("clean", wrong_character=True),
}
GIVEN = ("truth", "through the VAE", "empty", "still")
MOVES = ("pose", "environment", "two-stage", "truth", "through the VAE", "still")  # whose background is followed


@dataclass(frozen=True)
class Options:
    clips: int = 200  # an even number: clips lend each other wrong poses and references in pairs
    steps: int = 20
    guidance: float = 2.5
    method: str = "ddim"  # of models.sampler.METHODS
    frames: int = 29
    size: tuple[int, int] = (128, 128)  # width, height
    batch: int = 8
    first: int = FIRST
    conditions: tuple[str, ...] = ("pose", "environment", "wrong pose", "wrong reference")
    attention: bool = True
    given: bool = True  # the rows of GIVEN, too, which are the same for every family
    autocast: bool = False

    def __post_init__(self) -> None:
        if self.clips < 2 or self.clips % 2 or self.batch < 2 or self.batch % 2:
            raise ValueError(
                f"clips and batch: choose even numbers from 2 up, not {self.clips} and {self.batch}; clips lend each "
                "other their poses in pairs."
            )
        unknown = [name for name in self.conditions if name not in SAMPLED]
        if unknown:
            raise ValueError(f"conditions: {', '.join(unknown)} is not known; choose among {', '.join(SAMPLED)}.")


# --- what is measured -------------------------------------------------------------------------------------------------


def load_family(base: Path, adapter: Path, device: torch.device) -> Family:
    """The family of a base and an adapter file (or a folder with one), in float32, ready to sample.

    Raises ValueError where a file is missing or does not belong to the other.
    """
    path = adapter / checkpoint.ADAPTER if adapter.is_dir() else adapter
    if not path.is_file():
        raise ValueError(f"adapter: there is no file {path}.")
    header, groups = adapters.read(path)
    missing = [name for name in GROUPS[:2] if name not in groups]
    if missing:
        raise ValueError(f"adapter: {path.name} has no {' and no '.join(missing)}; a family needs both to be measured.")
    ranks = [state.shape[0] for key, state in groups.get("background_motion", {}).items() if "lora_A" in key]
    family = Family(load_base(base, header.base, torch.float32).to(device), "joint", ranks[0] if ranks else 0)
    family.load_groups(groups)
    return family.eval().requires_grad_(False)


@dataclass(frozen=True, eq=False)
class Scene:
    """A clip with what its figures need."""

    clip: stage.Clip
    sample: samples.Sample
    person: Tensor  # [T, H, W] in 0…1
    hidden: np.ndarray  # [T, H, W] where no background is, with a margin
    points: np.ndarray  # [P, 2] px of the first frame
    paths: np.ndarray  # [T, P, 2] where they go
    visible: np.ndarray  # [T, P] where they are seen, and can be followed in the true video

    @property
    def still(self) -> float:
        """px: the end-point error of a background that does not move."""
        return metrics.end_point_error(metrics.still(self.paths), self.paths, self.visible)

    @classmethod
    def draw(cls, number: int, frames: int, size: tuple[int, int]) -> "Scene":
        clip = stage.render_clip(stage.draw_plan(number, frames, size))
        person = (clip.mask + clip.thing).clamp(0, 1)
        margin = np.ones(2 * [2 * round(GROWN * max(size)) + 1], np.uint8)
        hidden = np.stack([cv2.dilate(frame, margin) for frame in (person > 0.05).numpy().astype(np.uint8)])
        points = metrics.corners(clip.frames[0], 1 - hidden[0])
        paths, visible = stage.background_paths(clip, points)
        # An even surface, or an edge along which anything may slide, tells no video's motion, however good.
        followed = metrics.follow(clip.frames, points, hidden)
        visible = visible & (np.linalg.norm(followed - paths, axis=-1) < TRACKED)
        if visible[1:].any(0).sum() < FEWEST:
            visible = np.zeros_like(visible)
        return cls(clip, samples.from_stage(clip, number), person, hidden, points, paths, visible)


def measure(scene: Scene, video: Tensor, moves: bool) -> dict[str, float]:
    """The figures of a video [T, H, W, 3] that answers ``scene``; those of MOTION only with ``moves``."""
    clip = scene.clip
    found = {
        "psnr": metrics.psnr(video, clip.frames),
        "ssim": metrics.ssim(video, clip.frames),
        "person": metrics.psnr(video, clip.frames, scene.person),
        "colour": metrics.colour_error(video, scene.person, clip.character, clip.character_mask),
    }
    if moves:
        path = metrics.follow(video, scene.points, scene.hidden)
        found["motion"] = metrics.end_point_error(path, scene.paths, scene.visible)
        found["direction"] = metrics.direction(path, scene.paths, scene.visible)
        for side in BLOCKS:
            found[f"blocks{side}"] = metrics.block_pattern(video, side)
            found[f"person_blocks{side}"] = metrics.block_pattern(video, side, scene.person)
    return found


class Evaluation:
    """A family on held-out clips. ``head``: the motion head, for the condition "two-stage"."""

    def __init__(self, family: Family, vae: Autoencoder, options: Options, head: PoseMotion | None = None) -> None:
        if "two-stage" in options.conditions and head is None:
            raise ValueError("conditions: two-stage needs a motion head, and none was given.")
        self.family = family
        self.vae = vae
        self.options = options
        self.head = head

    def clips(self, known: Collection[int] = (), report: Callable[[int], None] | None = None) -> Iterator[dict]:
        """The figures of each clip, clip by clip: {"clip": number, "still": px, "rows": {row: figures}, …}.

        known: clips that are passed over. report: called with the number of clips done.
        """
        options = self.options
        numbers = [options.first + place for place in range(options.clips)]
        pairs = [pair for pair in zip(numbers[::2], numbers[1::2]) if not set(pair).issubset(known)]
        done = options.clips - 2 * len(pairs)
        for first in range(0, len(pairs), options.batch // 2):
            chosen = [number for pair in pairs[first : first + options.batch // 2] for number in pair]
            yield from self._batch(chosen)
            done += len(chosen)
            if report is not None:
                report(done)

    @torch.no_grad()
    def _batch(self, numbers: list[int]) -> list[dict]:
        scenes = [Scene.draw(number, self.options.frames, self.options.size) for number in numbers]
        batch = encode([scene.sample for scene in scenes], self.vae).to(self.vae.device)
        found = [{"clip": number, "still": scene.still, "rows": {}} for number, scene in zip(numbers, scenes)]
        for row, videos in self._videos(numbers, scenes, batch):
            for clip, scene, video in zip(found, scenes, videos):
                clip["rows"][row] = measure(scene, video, row in MOVES)
        if self.options.attention:
            for clip, shares in zip(found, self._attention(numbers, batch)):
                clip |= shares
        return found

    def _videos(
        self, numbers: list[int], scenes: list[Scene], batch: Encoded
    ) -> Iterator[tuple[str, Sequence[Tensor]]]:
        """Each row's answers to the clips, on the CPU."""
        for name in self.options.conditions:
            yield name, self.decode(self._sample(name, numbers, scenes, batch))
        if self.options.given:
            yield from self._given(scenes, batch)

    def _given(self, scenes: list[Scene], batch: Encoded) -> Iterator[tuple[str, Sequence[Tensor]]]:
        count = self.options.frames
        yield "truth", [scene.clip.frames for scene in scenes]
        yield "through the VAE", self.decode(batch.video)
        yield "empty", [scene.clip.background for scene in scenes]
        yield "still", [scene.clip.background[:1].expand(count, -1, -1, -1) for scene in scenes]

    def decode(self, latents: Tensor) -> Tensor:
        return self.vae.decode(latents.float()).cpu()

    def _sample(self, name: str, numbers: list[int], scenes: list[Scene], batch: Encoded) -> Tensor:
        """Latents [B, 16, t, h, w] under the condition ``name``. Noise is a clip's own, whatever is beside it."""
        condition = SAMPLED[name]
        partner = torch.arange(len(numbers)) ^ 1
        if condition.wrong_pose:
            batch = replace(batch, pose=batch.pose[partner])
        if condition.wrong_character:
            batch = replace(batch, character=batch.character[partner])
        if name == "two-stage":
            moved = torch.stack([move_background(self.head, scene.clip) for scene in scenes])
            batch = replace(batch, environment=self.vae.encode(moved))
        starts = (condition.start,) * len(numbers)
        guider = sheet.Guider(self.family, batch, starts, self.options.guidance, self.options.autocast)
        shape = batch.video.shape[1:]
        noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(n)) for n in numbers])
        return sheet.sample(guider, self.options.steps, numbers[0], noise, self.options.method)

    def _attention(self, numbers: list[int], batch: Encoded) -> list[dict[str, float]]:
        """How much of the attention of background tokens goes outside the epipolar bands in other frames, averaged
        over all blocks and NOISE; and what an even attention would send there."""
        generators = [torch.Generator().manual_seed(number) for number in numbers]
        constraint = epipolar.EpipolarConstraint.sample(
            batch.cameras, batch.background_tokens, QUERIES, None, generator=generators
        )
        tokens, blocks = batch.background_tokens[0].numel(), range(len(self.family.base.blocks))
        alphas = losses.alphas_cumprod(noise_schedule())
        shares = []
        for timestep in NOISE:
            noise = torch.stack([torch.randn(batch.video.shape[1:], generator=one) for one in generators])
            at = torch.full((len(numbers),), timestep)
            noisy = losses.add_noise(batch.video, noise.to(batch.video), alphas[at])
            look = partial(_share_outside, constraint)
            with epipolar.AttentionProbe(self.family.base, blocks, constraint.queries, tokens, look) as probe:
                start, options = batch.start(("clean",) * len(numbers)), probe.options(self.family.options())
                self.family(noisy, at.to(noisy.device), start, batch.pose, batch.character, options)
            shares += probe.seen.values()
        even = constraint.outside.float().mean((-1, -2, -3))
        usable = batch.background_tokens.flatten(1).any(1)
        return [
            {"attention": float(share), "even": float(flat)} if there else {}
            for share, flat, there in zip(torch.stack(shares).mean(0), even, usable)
        ]


def _share_outside(constraint: epipolar.EpipolarConstraint, rows: epipolar.Rows) -> Tensor:
    """[B]"""
    return constraint.suppressed(rows).mean(1)


def move_background(head: PoseMotion, clip: stage.Clip) -> Tensor:
    """The explicit way (table III, "Explicit Two-stage"): the clean first picture moved as the motion head reads it
    from the pose, [T, H, W, 3]; what the picture does not show is grey."""
    width, height = clip.plan.width, clip.plan.height
    motion = head.read(torch.from_numpy(clip.pose.keypoints), width, height)
    path = CameraPath.from_steps(motion.steps.double().numpy(), width, height)
    return blank(*backdrop.move_background(clip.background[:1], track_motion.of_camera(path, width, height)))


# --- to files, and from them ------------------------------------------------------------------------------------------


def marks(files: dict[str, Path | None]) -> dict[str, str]:
    """What tells ``files`` from others of the same name, by what they are; None: there is none."""
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items() if path is not None}


def run(evaluation: Evaluation, folder: Path, about: dict) -> list[dict]:
    """The figures of all clips; each is written to ``folder`` as it comes, so that a run that was broken off goes on.

    about: what else was measured with (files and their hashes). Raises ValueError where the folder holds figures of
    something else.
    """
    path, options = folder / "clips.jsonl", evaluation.options
    head = json.loads(json.dumps({**about, **asdict(options), "figures": list(UNITS)}))
    head.pop("clips"), head.pop("batch")  # more clips may be added later
    found = _known(path, head)
    folder.mkdir(parents=True, exist_ok=True)
    begun, before = time.monotonic(), len(found)

    def report(done: int) -> None:
        left = (options.clips - done) * (time.monotonic() - begun) / max(1, done - before)
        log.info("%d of %d clips, %s left", done, options.clips, span(left))

    with checkpoint.whole(path) as partial:  # without the line that was cut off, and not at the cost of the others
        partial.write_text("".join(json.dumps(line) + "\n" for line in (head, *found.values())))
    with path.open("a") as file:
        for clip in evaluation.clips(found, report):
            found[clip["clip"]] = clip
            file.write(json.dumps(clip) + "\n")
            file.flush()
    return [found[number] for number in range(options.first, options.first + options.clips)]


def _known(path: Path, head: dict) -> dict[int, dict]:
    """What was measured before, by the numbers of the clips."""
    if not path.is_file():
        return {}
    first, *rest = path.read_text().splitlines()
    if json.loads(first) != head:
        raise ValueError(f"{path} holds figures of other files or options; choose another folder, or clear it.")
    return {clip["clip"]: clip for clip in map(_whole_line, rest) if clip}


def _whole_line(line: str) -> dict | None:
    """A line of figures; None where it was cut off."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None
