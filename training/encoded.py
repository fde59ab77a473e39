"""Samples in the model's language: encoded once, put together into batches, and kept in files for the next time."""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.latents import first_frame_only
from ..vision.geometry import Cameras
from . import dataset
from .autoencoder import Autoencoder
from .configuration import Configuration
from .samples import Sample, clips_of_size
from .tokens import background_tokens, token_cameras

SHARD = 32  # clips in a file
HAND_CELL = 4  # px

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Encoded:
    """B clips; latents in the model's scale, t×h×w tokens in cameras and background_tokens, pixels elsewhere."""

    video: Tensor  # [B, 16, t, h, w]
    pose: Tensor  # [B, 16, t, h, w]
    environment: Tensor  # [B, 16, t, h, w]
    clean_start: Tensor  # [B, 16, 1, h, w]
    character: Tensor  # [B, 16, 1, h, w]
    background_tokens: Tensor  # bool [B, t, h, w]; all false where cameras are not known
    intrinsics: Tensor  # [B, t, 3, 3]
    rotation: Tensor  # [B, t, 3, 3]
    translation: Tensor  # [B, t, 3]
    hands: Tensor  # uint8 [B, T, H/4, W/4]: a weight needs no finer detail
    frames: Tensor | None = None  # uint8 [B, T, H, W, 3]; None in files, where they would be ten times all the rest

    @property
    def cameras(self) -> Cameras:
        return Cameras(self.intrinsics, self.rotation, self.translation)

    def start(self, kinds: Sequence[str]) -> Tensor:
        """What goes beside the noise, [B, 16, t, h, w]; kinds: [B] "clean", "own" or "environment"."""
        count = self.video.shape[2]
        starts = {
            "clean": first_frame_only(self.clean_start, count),
            # Both VAEs are causal: the first latent frame is that of the first frame alone.
            "own": first_frame_only(self.video, count),
            "environment": self.environment,
        }
        return torch.stack([starts[kind][i] for i, kind in enumerate(kinds)])

    def to(self, device: torch.device) -> "Encoded":
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pick(self, index: Tensor | slice) -> "Encoded":
        return self._map(lambda tensor: tensor[index])

    def tensors(self) -> dict[str, Tensor]:
        """By name, without those that are not there."""
        return {item.name: value for item in fields(self) if (value := getattr(self, item.name)) is not None}

    def _map(self, change) -> "Encoded":
        return replace(self, **{name: change(tensor) for name, tensor in self.tensors().items()})

    @classmethod
    def join(cls, parts: Sequence["Encoded"]) -> "Encoded":
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in parts[0].tensors()})


def encode(samples: Sequence[Sample], vae: Autoencoder, with_frames: bool = False) -> Encoded:
    """Samples of one size through the VAE; ``with_frames``: for the perceptual loss."""

    def latents(name: str) -> Tensor:
        return vae.encode(torch.stack([getattr(sample, name) for sample in samples]))

    hands = torch.stack([sample.hands for sample in samples])
    tokens = background_tokens(torch.stack([sample.person for sample in samples]))
    known = torch.tensor([sample.cameras is not None for sample in samples])
    cameras = token_cameras(_join_cameras(samples))
    return Encoded(
        video=latents("frames"),
        pose=latents("pose"),
        environment=latents("environment"),
        clean_start=latents("background"),
        character=latents("character"),
        background_tokens=tokens & known[:, None, None, None],
        intrinsics=cameras.intrinsics,
        rotation=cameras.rotation,
        translation=cameras.translation,
        hands=F.avg_pool2d(hands.float(), HAND_CELL).round().to(torch.uint8),
        frames=torch.stack([sample.frames for sample in samples]) if with_frames else None,
    )


def _join_cameras(samples: Sequence[Sample]) -> Cameras:
    """[B, T]; a standing one where it is not known, for the shape."""
    count = len(samples[0].frames)
    still = Cameras(
        *(part.expand(count, *part.shape).double() for part in (torch.eye(3), torch.eye(3), torch.zeros(3)))
    )
    parts = [sample.cameras or still for sample in samples]
    names = ("intrinsics", "rotation", "translation")
    return Cameras(*(torch.stack([getattr(part, name) for part in parts]) for name in names))


# --- kept clips -------------------------------------------------------------------------------------------------------


def _encoder_mark(vae: Path) -> str:
    """A hash of the VAE's tensors but its decoder's: a better decoder changes no latents. Of the whole file where it is
    no safetensors file."""
    mark = hashlib.sha256()
    if vae.suffix != ".safetensors":
        return hashlib.sha256(vae.read_bytes()).hexdigest()
    with safetensors.safe_open(vae, framework="pt") as file:
        for name in sorted(name for name in file.keys() if not name.startswith("decoder.")):  # noqa: SIM118
            tensor = file.get_tensor(name)
            mark.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            mark.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return mark.hexdigest()


class Kept:
    """All ``data.clips`` of a configuration, encoded, in files of SHARD clips of one size and then in memory.

    Files belong to one encoder and one way of drawing clips: their folder is named by a hash of both.
    """

    def __init__(self, runs: Path, configuration: Configuration, vae: Path) -> None:
        data = configuration.data
        what = {
            "frames": data.frames,
            "sizes": data.sizes,
            "first": data.first,
            "encoder": _encoder_mark(vae),
            "heads": configuration.model.heads,  # decide the scale of latents
        }
        if data.folder:
            what["dataset"] = dataset.mark(data)
        self.data = data
        self.folder = runs / "latents" / hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
        self.bank: list[Encoded] = []

    def shards(self) -> list[tuple[int, int]]:
        """(size, index) of all files."""
        counts = [clips_of_size(self.data, size) for size in range(len(self.data.sizes))]
        return [(size, index) for size, count in enumerate(counts) for index in range(-(-count // SHARD))]

    def missing(self) -> list[tuple[int, int]]:
        return [shard for shard in self.shards() if not self.path(*shard).exists()]

    def numbers(self, size: int, index: int) -> list[int]:
        """The clips of a file; whole files, so that another number of clips finds them again."""
        return [size + len(self.data.sizes) * place for place in range(index * SHARD, (index + 1) * SHARD)]

    def path(self, size: int, index: int) -> Path:
        width, height = self.data.sizes[size]
        return self.folder / f"{width}x{height}-{index:05d}.safetensors"

    def write(self, shard: tuple[int, int], encoded: Encoded, dtype: torch.dtype = torch.bfloat16) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path(*shard)
        latents = ("video", "pose", "environment", "clean_start", "character")
        tensors = {
            name: (value.to(dtype) if name in latents else value).cpu().contiguous()
            for name, value in encoded.tensors().items()
        }
        partial = path.with_suffix(f".{os.getpid()}.part")
        safetensors.torch.save_file(tensors, partial)
        os.replace(partial, path)

    def read(self, device: torch.device) -> None:
        """Into memory: the device's where all clips take less than half of what is free, else the machine's."""
        sizes = [self.path(*shard).stat().st_size for shard in self.shards()]
        fits = device.type == "cuda" and sum(sizes) < torch.cuda.mem_get_info(device)[0] / 2
        place = device if fits else torch.device("cpu")
        log.info("%d files of kept clips, %.1f GB, in memory of %s.", len(sizes), sum(sizes) / 1e9, place)
        self.bank = []
        for size in range(len(self.data.sizes)):
            files = [self.path(*shard) for shard in self.shards() if shard[0] == size]
            parts = [Encoded(**safetensors.torch.load_file(path)).to(place) for path in files]
            self.bank.append(Encoded.join(parts))

    def batch(self, numbers: Iterable[int]) -> Encoded:
        """The clips ``numbers``, all of one size."""
        kinds = len(self.data.sizes)
        numbers = list(numbers)
        bank = self.bank[numbers[0] % kinds]
        return bank.pick(torch.tensor([number // kinds for number in numbers], device=bank.video.device))
