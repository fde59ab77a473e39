"""Generated videos against true ones, as the paper measures them (AnimateAnywhere IV-A): PSNR, SSIM, LPIPS, FID and
FVD on 48 frames of each, every fourth of the true video.

The last three compare what foreign networks see. Nothing is downloaded: they are read from files, those TorchScript
archives that the reference implementations of FVD and FID publish, and left out where there are none.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..vision import metrics
from .videos import ENDINGS, BrokenVideo, Reader

# In the form that StyleGAN2-ADA (pictures) and StyleGAN-V (videos) publish them.
INCEPTION, VGG, I3D = "inception-2015-12-05.pt", "vgg16.pt", "i3d_torchscript.pt"
PICTURES = 16  # that go through a network at once
ALL = 10**6  # frames a second: every frame of a file is read

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Networks:
    """What is there of the foreign networks."""

    inception: Callable | None = None
    vgg: Callable | None = None
    i3d: Callable | None = None

    @classmethod
    def load(cls, folder: Path | None, device: torch.device) -> "Networks":
        """Those in ``folder``. Raises ValueError where a file is no TorchScript archive."""
        there = []
        for name in (INCEPTION, VGG, I3D):
            path = None if folder is None else folder / name
            if path is None or not path.is_file():
                log.info("Without %s: put %s into the folder of --networks for it.", MEASURES[name], name)
                there.append(None)
                continue
            try:
                there.append(torch.jit.load(str(path), map_location=device).eval())
            except RuntimeError as error:
                raise ValueError(f"--networks: {path} is no TorchScript archive: {error}") from error
        return cls(*there)


MEASURES = {INCEPTION: "FID", VGG: "LPIPS", I3D: "FVD"}


def pairs_of(generated: Path, truth: Path) -> list[tuple[Path, Path]]:
    """Videos of the same name, whatever their endings. Raises ValueError, naming those that have no partner."""
    folders = []
    for name, folder in (("generated", generated), ("truth", truth)):
        if not folder.is_dir():
            raise ValueError(f"{name}: there is no folder {folder}.")
        folders.append({path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in ENDINGS})
        if not folders[-1]:
            raise ValueError(f"{name}: {folder} holds no videos ({', '.join(ENDINGS)}).")
    alone = sorted(folders[0].keys() - folders[1].keys())
    if alone:
        raise ValueError(f"truth: {truth} has no video named {', '.join(alone[:5])}{' …' if len(alone) > 5 else ''}.")
    return [(path, folders[1][stem]) for stem, path in folders[0].items()]


def read(path: Path, frames: int, stride: int, size: tuple[int, int] | None = None) -> Tensor:
    """Every ``stride``-th frame, ``frames`` of them, scaled to ``size`` (width, height): uint8 [T, H, W, 3].

    Raises ValueError where the video is broken or too short.
    """
    try:
        reader = Reader(path, ALL)
        chosen = []
        for place, frame in enumerate(reader.frames(*(size or (reader.width, reader.height)))):
            if place % stride == 0:
                chosen.append(frame.picture)
            if len(chosen) == frames:
                return torch.from_numpy(np.stack(chosen))
    except BrokenVideo as error:
        raise ValueError(f"{path}: {error}.") from error
    raise ValueError(
        f"{path}: of every {stride} frames one makes {len(chosen)}; {frames} are needed. Choose fewer frames, or a "
        "smaller stride."
    )


class Comparison:
    """Pairs of videos, measured one after the other."""

    def __init__(self, networks: Networks, device: torch.device) -> None:
        self.networks = networks
        self.device = device
        self.pictures: list[list[Tensor]] = [[], []]  # Inception's features, generated and true
        self.videos: list[list[Tensor]] = [[], []]  # I3D's
        self.rows: list[dict[str, float]] = []

    @torch.no_grad()
    def add(self, generated: Tensor, truth: Tensor) -> dict[str, float]:
        """uint8 [T, H, W, 3] each; the pair's own figures."""
        both = [video.to(self.device) for video in (generated, truth)]
        row = {
            "psnr": float(np.mean([metrics.psnr(a[None] / 255, b[None] / 255) for a, b in zip(*both)])),
            "ssim": metrics.ssim(both[0] / 255, both[1] / 255),
        }
        if self.networks.vgg is not None:
            seen = [self._seen(self.networks.vgg, video, resize_images=False, return_lpips=True) for video in both]
            row["lpips"] = float((seen[0] - seen[1]).square().sum(1).mean())
        for place, video in enumerate(both):
            if self.networks.inception is not None:
                self.pictures[place].append(self._seen(self.networks.inception, video, return_features=True))
            if self.networks.i3d is not None:
                clip = video.permute(3, 0, 1, 2)[None].float()  # [1, 3, T, H, W] in 0…255
                self.videos[place].append(
                    self.networks.i3d(clip, rescale=True, resize=True, return_features=True).cpu()
                )
        self.rows.append(row)
        return row

    @staticmethod
    def _seen(network: Callable, video: Tensor, **options: bool) -> Tensor:
        """Features [T, D] of the frames, on the CPU."""
        parts = video.permute(0, 3, 1, 2).split(PICTURES)  # [b, 3, H, W] uint8
        return torch.cat([network(part.float(), **options).cpu() for part in parts])

    def summary(self) -> dict:
        """{"psnr": {"mean", "spread" over videos}, …, "fid": …, "fvd": …}, those that could be measured."""
        found = {}
        for name in self.rows[0]:
            values = [row[name] for row in self.rows]
            found[name] = {"mean": float(np.mean(values)), "spread": float(np.std(values))}
        for name, (generated, truth) in (("fid", self.pictures), ("fvd", self.videos)):
            if generated and sum(map(len, generated)) > 1:
                found[name] = {"mean": metrics.frechet_distance(torch.cat(generated), torch.cat(truth))}
        return {"videos": len(self.rows), **found}


def compare(
    pairs: list[tuple[Path, Path]], comparison: Comparison, frames: int, stride: int, generated_stride: int
) -> Iterator[tuple[str, dict[str, float]]]:
    """Measure the pairs; each one's name and figures as they come. True videos are scaled to the generated's size."""
    for generated, truth in pairs:
        video = read(generated, frames, generated_stride)
        height, width = video.shape[1:3]
        yield generated.stem, comparison.add(video, read(truth, frames, stride, (width, height)))


def text(figures: dict) -> str:
    """Figures of a pair, or of all, in one line."""
    values = {name: value["mean"] if isinstance(value, dict) else value for name, value in figures.items()}
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
