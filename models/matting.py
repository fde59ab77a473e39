"""ViTMatte (Yao et al. 2024) by transformers: how much of each pixel at the edge belongs to the character."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .placement import Placed, from_folder

STRIDE = 32  # px: the network wants sizes that are multiples of it
MARGIN = 32  # px of surroundings around what is unknown
LARGEST = 1536  # px, the longer side: its attention over more does not fit into common devices
HUGGING_FACE = "hustvl/vitmatte-small-composition-1k"

Progress = Callable[[int], None]


class VitMatte:
    """Draws soft edges into masks."""

    def __init__(self, network: nn.Module) -> None:
        self.placed = Placed(network)

    @torch.inference_mode()
    def matte(self, frames: Tensor, trimaps: Tensor, progress: Progress | None = None) -> Tensor:
        """Alpha [T, H, W] in 0…1 of ``frames`` [T, H, W, 3] in 0…1; ``trimaps`` [T, H, W] are 1 on the character, 0
        beside it and 0.5 where it is to be found. What is known stays as it is. Trimaps in float32 are changed in
        place.

        ``progress`` is called with the number of frames done, and may raise to stop.
        """
        device = self.placed.load()
        alphas = trimaps.float()
        for index, (frame, alpha) in enumerate(zip(frames, alphas)):
            unknown = (alpha > 0) & (alpha < 1)
            if unknown.any():
                box = _box_around(unknown)
                found = self._alpha(frame[box][..., :3].to(alpha), alpha[box], device)
                alpha[box] = torch.where(unknown[box], found, alpha[box])
            if progress is not None:
                progress(index + 1)
        return alphas

    def _alpha(self, picture: Tensor, trimap: Tensor, device: torch.device) -> Tensor:
        """Alpha [h, w] of ``picture`` [h, w, 3] with ``trimap`` [h, w]."""
        height, width = trimap.shape
        pixels = torch.cat([picture.movedim(-1, 0) * 2 - 1, trimap[None]])[None].to(device)  # [1, 4, h, w]
        scale = min(1.0, LARGEST / max(height, width))
        if scale < 1:
            pixels = F.interpolate(pixels, scale_factor=scale, mode="bilinear", antialias=True)
        h, w = pixels.shape[2:]
        padded = F.pad(pixels, (0, -w % STRIDE, 0, -h % STRIDE))
        alpha = self.placed.network(pixel_values=padded).alphas[:, :, :h, :w]
        return F.interpolate(alpha.float(), (height, width), mode="bilinear")[0, 0].clamp(0, 1).cpu()


def load(folder: Path) -> VitMatte:
    """ViTMatte from a folder in the Hugging Face layout (config.json and model.safetensors).

    Raises ValueError where the folder is damaged, or holds another network.
    """
    from transformers import VitDetConfig, VitMatteConfig, VitMatteForImageMatting

    default = VitMatteConfig(backbone_config=VitDetConfig())
    return VitMatte(from_folder(VitMatteForImageMatting, default, folder, "matting", "ViTMatte", HUGGING_FACE))


def _box_around(where: Tensor) -> tuple[slice, slice]:
    """Rows and columns of the box around ``where`` [H, W] bool, with a margin."""
    return tuple(
        slice(max(0, int(hits[0]) - MARGIN), int(hits[-1]) + 1 + MARGIN)
        for hits in (where.any(dim=1).nonzero().ravel(), where.any(dim=0).nonzero().ravel())
    )
