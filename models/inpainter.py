"""LaMa (Suvorov et al. 2022) by spandrel, which the host has: pictures with holes, filled."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from .placement import Placed

LARGEST = 768  # px, the longer side: it was trained on 256, and on far larger pictures repeats itself
# What safetensors and spandrel raise for files that are cut off, or that hold tensors of other names and shapes.
UNREADABLE = (OSError, RuntimeError, KeyError, IndexError, TypeError, AttributeError, SafetensorError)


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


def load(path: Path, open_torchscript: Callable[[Path], nn.Module]) -> Lama:
    """LaMa from big-lama.pt (TorchScript: of it only the weights are used), or from safetensors.

    open_torchscript: opens such a file, or raises ValueError where it is not to be trusted.
    Raises ValueError where the file is damaged, pickled, or holds another network.
    """
    import spandrel

    try:
        state = load_file(path) if path.suffix == ".safetensors" else open_torchscript(path).state_dict()
        # Weights alone go to spandrel: left to itself it opens whatever file it is given, programs among them.
        descriptor = spandrel.ModelLoader().load_from_state_dict(spandrel.canonicalize_state_dict(state))
    except (*UNREADABLE, spandrel.UnsupportedModelError) as error:
        raise ValueError(f"invent: {path.name} is damaged, or no LaMa ({error}). Download it again.") from error
    if not isinstance(descriptor, spandrel.MaskedImageModelDescriptor):
        raise ValueError(
            f"invent: {path.name} is {descriptor.architecture.name}, which fills no holes. Take big-lama.pt."
        )
    return Lama(descriptor)
