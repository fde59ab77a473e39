"""What a network is trained on: samples in pixels, and which of them make up a step.

Everything here is a pure function of seeds, numbers and steps. So a run that resumes at a step sees what it would have
seen, and any number of processes see together what one would.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from ..models.clips import blank
from ..models.reference import GREY
from ..vision import drawing
from ..vision import mask as masks
from ..vision.geometry import Cameras
from . import dataset, stage
from .configuration import Conditions, Data
from .networks import groups_of

GREY_BACKGROUND = 0.3  # share of reference pictures cut out by a mask, as Encode Character Reference does it
CLEAN_ENVIRONMENT = 0.5  # share of environment videos from which the person was taken before, shadow and all
OPEN_ENVIRONMENT = 0.2  # share of those that are not blanked either: the artist wired no mask
FILLED = (0.7, 0.95)  # how much of a reference picture's width or height a character out of a video takes
LARGEST_CHARACTER = 1.5  # times its size in the video
GROWN = 0.05  # of the height: how far the blanked region may reach beyond the character


@dataclass(frozen=True, eq=False)
class Sample:
    """One clip of T frames of H×W px as training sees it. Pictures are uint8, so that they travel light."""

    number: int
    frames: Tensor  # [T, H, W, 3]
    pose: Tensor  # [T, H, W, 3] drawn as the nodes draw it
    background: Tensor  # [1, H, W, 3] the first frame without the character
    environment: Tensor  # [T, H, W, 3] the video with the character's region grey
    character: Tensor  # [1, H, W, 3] somewhere else, on a random background or on grey
    person: Tensor  # [T, H, W] nonzero on the character and what it holds
    hands: Tensor  # [T, H, W] 255 on hands
    cameras: Cameras | None  # [T]; None: not known, and the epipolar loss leaves the clip out


def size_of(data: Data, number: int) -> tuple[int, int]:
    """Width and height of clip ``number``: sizes take turns."""
    return data.sizes[number % len(data.sizes)]


def held_out_numbers(data: Data, count: int) -> tuple[int, ...]:
    """``count`` clips of the first size that are never trained on."""
    return tuple(_first_held_out(data) + len(data.sizes) * place for place in range(count))


def _first_held_out(data: Data) -> int:
    return stage.HELD_OUT + -stage.HELD_OUT % len(data.sizes)  # of the first size


def draw_sample(data: Data, number: int) -> Sample:
    """Clip ``number``: out of the videos of ``data.folder``, or else acted on the stage."""
    if data.folder:
        return from_videos(dataset.load(data.folder), data, number)
    plan = stage.draw_plan(data.first + number, data.frames, size_of(data, number))
    return from_stage(stage.render_clip(plan), number)


def from_stage(clip: stage.Clip, number: int) -> Sample:
    camera = clip.camera
    return _put_together(
        number,
        frames=clip.frames,
        clean=clip.background,
        pose=clip.drawn_pose,
        person=(clip.mask + clip.thing).clamp(0, 1),
        hands=clip.hands,
        character=clip.character,
        character_mask=clip.character_mask,
        cameras=Cameras(*(torch.from_numpy(part.copy()).double() for part in (camera.K, camera.R, camera.t))),
    )


def from_videos(videos: dataset.Dataset, data: Data, number: int) -> Sample:
    """A number is a clip together with everything else that is drawn: the clip comes again under other numbers, with
    another picture of the character on another background."""
    kinds, kept_back = len(data.sizes), number >= _first_held_out(data)
    turn = (number - _first_held_out(data) if kept_back else number) // kinds
    place = videos.place(data, number % kinds, turn, kept_back)
    clip, rng = videos.clip(place), np.random.default_rng([number, 11])
    character, opacity = _stand_in(
        rng, videos.character(place, rng), videos.backdrop(place, rng), size_of(data, number)
    )
    frames, clean = (torch.from_numpy(pictures).float() / 255 for pictures in (clip.frames, clip.clean))
    return _put_together(
        number,
        frames=frames,
        clean=clean,
        pose=drawing.draw(clip.pose, clip.pose.width, clip.pose.height),
        person=torch.from_numpy(clip.person).float(),
        hands=torch.from_numpy(clip.hands).float(),
        character=character,
        character_mask=opacity,
        cameras=clip.cameras,
    )


def _stand_in(
    rng: np.random.Generator, character: dataset.Character, backdrop: np.ndarray | None, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """The whole character somewhere in a picture of ``size``: picture [H, W, 3] and its mask [H, W], in 0…1.

    backdrop: uint8 [H, W, 3] of another place; None: grey.
    """
    width, height = size
    tall, wide = character.opacity.shape
    scale = min(width / wide, height / tall, LARGEST_CHARACTER) * rng.uniform(*FILLED)
    inner = [max(1, round(side * scale)) for side in (wide, tall)]
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    picture, opacity = (cv2.resize(part, inner, interpolation=method).astype(np.float32) / 255 for part in character)
    left, top = (int(rng.integers(0, side - own + 1)) for side, own in zip(size, inner))
    mask, whole = np.zeros((height, width), np.float32), np.full((height, width, 3), GREY, np.float32)
    if backdrop is not None:
        whole = backdrop.astype(np.float32) / 255
    mask[top : top + inner[1], left : left + inner[0]] = opacity
    part = whole[top : top + inner[1], left : left + inner[0]]
    part += opacity[..., None] * (picture - part)
    return torch.from_numpy(whole), torch.from_numpy(mask)


def _put_together(
    number: int, *, frames: Tensor, clean: Tensor, pose: Tensor, person: Tensor, hands: Tensor, character: Tensor,
    character_mask: Tensor, cameras: Cameras | None,
) -> Sample:  # fmt: skip
    """Sample ``number`` from pictures in 0…1, [T, H, W, 3] or [T, H, W]; those of the character are without T."""
    rng = np.random.default_rng([number, 10])
    if rng.random() < GREY_BACKGROUND:
        character = blank(character[None], 1 - character_mask[None])[0]
    return Sample(
        number=number,
        frames=_bytes(frames),
        pose=_bytes(pose),
        background=_bytes(clean[:1]),
        environment=_bytes(_environment(rng, frames, clean, person)),
        character=_bytes(character[None]),
        person=_bytes(person),
        hands=_bytes(hands),
        cameras=cameras,
    )


def _environment(rng: np.random.Generator, frames: Tensor, background: Tensor, person: Tensor) -> Tensor:
    """The video that says how the surroundings move, [T, H, W, 3] (Animate Anyone 2, section 3.2)."""
    grown = int(rng.integers(0, round(GROWN * person.shape[1]) + 1))
    clean, opened = rng.random() < CLEAN_ENVIRONMENT, rng.random() < OPEN_ENVIRONMENT
    if clean and opened:
        return background
    region = masks.grow(person, grown)
    region = masks.shape_agnostic(region, *masks.random_block(rng, region), steady=True)
    return blank(background if clean else frames, region)


def _bytes(pictures: Tensor) -> Tensor:
    return (pictures.clamp(0, 1) * 255).round().to(torch.uint8).cpu()


# --- which samples, at which noise, under which conditions ------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Draw:
    """All that chance decides in one step, for all B samples of all processes."""

    step: int
    numbers: tuple[int, ...]  # [B] clips, all of one size
    timesteps: Tensor  # [B] 0…999
    seeds: tuple[int, ...]  # [B] of noise and of what else is drawn for a sample
    starts: tuple[str, ...]  # [B] "clean", "own" or "environment"
    pose: bool  # whether the step has a pose, and
    reference: bool  # a reference

    def part(self, rank: int, world: int, size: int) -> Iterator["Draw"]:
        """Process ``rank``'s share in pieces of ``size`` samples."""
        per = len(self.numbers) // world
        for first in range(rank * per, (rank + 1) * per, size):
            piece = slice(first, first + size)
            yield Draw(
                self.step, self.numbers[piece], self.timesteps[piece], self.seeds[piece], self.starts[piece],
                self.pose, self.reference,
            )  # fmt: skip

    def noise(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """[b, *shape], each sample's from its own seed."""
        noises = []
        for seed in self.seeds:
            generator = torch.Generator(device).manual_seed(seed)
            noises.append(torch.randn(shape, generator=generator, device=device))
        return torch.stack(noises)

    def generators(self) -> list[torch.Generator]:
        """One a sample, on the CPU, for what is drawn besides noise."""
        return [torch.Generator().manual_seed(seed + 1) for seed in self.seeds]


def draw_step(
    seed: int, step: int, batch: int, stage_name: str, data: Data, conditions: Conditions, shift: float = 1.0
) -> Draw:
    """What happens at ``step`` of a run of ``seed``.

    Timesteps are spread evenly over the batch from a random start (CogVideoX, "explicit uniform sampling"): the loss
    jumps less. ``shift`` moves them towards noise, see shifted(). Conditions are dropped for a step as a whole: a
    network that has nothing to say then does not run at all, and one attention serves the batch.
    """
    rng = np.random.default_rng([seed, step, 1])
    shares = (np.arange(batch) + rng.random()) / batch
    timesteps = torch.from_numpy(np.floor(shifted(rng.permutation(shares), shift) * 1000).astype(np.int64))
    shares = [conditions.clean_start, conditions.own_start, conditions.environment]
    starts = tuple(str(kind) for kind in rng.choice(["clean", "own", "environment"], batch, p=shares))
    seeds = tuple(int(value) for value in rng.integers(2**62, size=batch))
    pose, reference = _draw_conditions(rng, stage_name, conditions)
    return Draw(step, numbers_at(seed, step, batch, data), timesteps, seeds, starts, pose, reference)


def shifted(times: np.ndarray, shift: float) -> np.ndarray:
    """Times in 0…1 moved towards 1 (noise) by the timestep shift of Stable Diffusion 3 (eq. 23); 1 leaves them.

    Where things are and how they move is decided in noise; what is evenly spread spends most steps on finish.
    """
    return shift * times / (1 + (shift - 1) * times)


def _draw_conditions(rng: np.random.Generator, stage_name: str, conditions: Conditions) -> tuple[bool, bool]:
    """Whether a step has pose and reference.

    Where only one network is trained, a step without its condition would have no gradient: its branch without guidance
    is the frozen rest. So stages pose_control and DynamiCtrl's never drop the pose, nor stage reference the reference.
    """
    chance = rng.random()
    groups = groups_of(stage_name)
    if "reference" not in groups:
        return bool(groups), False
    if stage_name == "reference":
        return chance >= conditions.drop_all + conditions.drop_pose, True
    limits = np.cumsum([conditions.drop_all, conditions.drop_pose, conditions.drop_reference])
    kind = int(np.searchsorted(limits, chance, side="right"))
    return ((False, False), (False, True), (True, False), (True, True))[kind]


def numbers_at(seed: int, step: int, batch: int, data: Data) -> tuple[int, ...]:
    """The clips of a step: sizes take turns; within a size, every clip comes once before one comes again."""
    kinds = len(data.sizes)
    size, turn = step % kinds, step // kinds
    places = range(turn * batch, (turn + 1) * batch)
    if not data.clips:
        return tuple(size + kinds * place for place in places)
    count = clips_of_size(data, size)
    orders = {round_: _order(seed, size, round_, count) for round_ in {place // count for place in places}}
    return tuple(size + kinds * int(orders[place // count][place % count]) for place in places)


def clips_of_size(data: Data, size: int) -> int:
    """How many of ``data.clips`` have the size number ``size``."""
    return max(1, len(range(size, data.clips, len(data.sizes))))


def _order(seed: int, size: int, round_: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, size, round_, 2]).permutation(count)
