"""LaMa (Suvorov et al. 2022) by spandrel, which the host has: pictures with holes, filled."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F

from .placement import Placed

LARGEST = 768  # px, the longer side: it was trained on 256, and on far larger pictures repeats itself


class Lama:
    """Fills holes in pictures."""

    def __init__(self, descriptor) -> None:
        self.descriptor = descriptor  # spandrel's, which pads to the sizes that the network takes
        self.placed = Placed(descriptor.model)

    @torch.inference_mode()
    def fill(self, picture: Tensor, hole: Tensor) -> Tensor:
        """``picture`` [H, W, 3] in 0…1 with what is behind ``hole`` [H, W] bool invented; the rest stays as it is."""
        device = self.placed.load()
        image, mask = picture.movedim(-1, 0)[None].float(), hole[None, None].float()
        scale = min(1.0, LARGEST / max(hole.shape))
        if scale < 1:
            size = [max(16, round(side * scale)) for side in hole.shape]
            image = F.interpolate(image, size, mode="bilinear", antialias=True)
            mask = (F.interpolate(mask, size, mode="bilinear", antialias=True) > 0).float()
        found = self.descriptor(image.to(device), mask.to(device)).float().cpu()
        if scale < 1:
            found = F.interpolate(found, hole.shape, mode="bicubic")
        return torch.where(hole[..., None], found[0].movedim(0, -1).clamp(0, 1), picture)


def load(path: Path) -> Lama:
    """LaMa from big-lama.pt (TorchScript: of it only the weights are used), or from safetensors.

    Raises ValueError where the file is damaged, or holds another network.
    """
    import spandrel

    try:
        descriptor = spandrel.ModelLoader().load_from_file(path)
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError, spandrel.UnsupportedModelError) as error:
        raise ValueError(f"invent: {path.name} is damaged, or no LaMa ({error}). Download it again.") from error
    if not isinstance(descriptor, spandrel.MaskedImageModelDescriptor):
        raise ValueError(
            f"invent: {path.name} is {descriptor.architecture.name}, which fills no holes. Take big-lama.pt."
        )
    return Lama(descriptor)
