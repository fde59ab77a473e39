"""ReferenceNet (AnimateAnywhere III-B, "Reference Human Input"; the "global features" of Liu et al., section 2.2).

A copy of the base's first blocks reads the picture of the character once, at timestep 0 and without text. The hidden
state before its block i is offered to base block i as extra keys and values.
"""

import math
from dataclasses import dataclass, field

import comfy.utils
import torch
from comfy.ldm.cogvideo.model import CogVideoXTransformer3DModel
from torch import Tensor, nn

from . import dit
from .latents import PATCH, SIZE_STEP, check_size

LARGEST = 1360 * 768  # pixels: what the 5B model was trained with; beyond it the features only grow
GREY = 0.5  # zero in the VAE's input


@dataclass(frozen=True, eq=False)  # compared by identity: the host compares conditions, and tensors have no truth value
class Reference:
    """A character, read once: what AA_REFERENCE carries."""

    states: tuple[Tensor, ...]  # one a base block, each [1, M, D] ([B, M, D] in training)
    grid: tuple[int, int]  # tokens along height and width, M = height·width

    @property
    def width(self) -> int:
        return self.states[0].shape[-1]

    def to(self, device, dtype=None) -> "Reference":
        return Reference(tuple(state.to(device, dtype or state.dtype) for state in self.states), self.grid)

    def keys_for(self, model: nn.Module, strength: float) -> list[dit.ExtraKeys]:
        """What base block 0, 1, … is to attend to as well. The character stands one token frame before the clip."""
        before = torch.tensor([-1], device=self.states[0].device)
        rope = dit.rope_at(model, before, *self.grid)
        return [dit.ExtraKeys(state, rope, strength) for state in self.states]


@dataclass(frozen=True, eq=False)
class ReferenceOnDevices(Reference):
    """A reference for one run: MultiGPU asks for it on each of its devices in every step, and it is moved once."""

    copies: dict[tuple, Reference] = field(default_factory=dict)

    def to(self, device, dtype=None) -> Reference:
        key = (torch.device(device), dtype)
        if key not in self.copies:
            self.copies[key] = super().to(device, dtype)
        return self.copies[key]


class ReferenceNet(CogVideoXTransformer3DModel):
    """Gives ``states`` hidden states, before its first block and after each, so it has one block less than that.

    It has embeddings of its own and so needs no base model at hand.
    """

    def __init__(self, states: int, **config) -> None:
        super().__init__(num_layers=states - 1, **config)
        del self.norm_final, self.norm_out, self.proj_out

    def start_from(self, base: nn.Module) -> "ReferenceNet":
        """Copy everything that ``base`` has too."""
        own = self.state_dict()
        self.load_state_dict({key: value for key, value in base.state_dict().items() if key in own})
        return self

    def forward(self, latent: Tensor, transformer_options: dict | None = None) -> Reference:
        """latent: [1, 16, 1, h, w] of the character's picture in the model's scale -> Reference. Training reads B."""
        still = latent.expand(-1, -1, PATCH, -1, -1)
        x = torch.cat([still, torch.zeros_like(still)], dim=1)  # [1, 32, 2, h, w]: no start picture
        zero = x.new_zeros(len(x), dtype=torch.float32)
        context = dit.no_text(self.patch_embed.text_proj.in_features, x.device, x.dtype).expand(len(x), -1, -1)
        tokens = dit.embed(self, x, zero, context, zero + dit.OFS)
        states = [tokens.hidden]
        for block in self.blocks:
            tokens = dit.run_block(block, tokens, transformer_options or {})
            states.append(tokens.hidden)
        return Reference(tuple(states), tokens.grid[1:])


def prepare_character(character: Tensor, mask: Tensor | None, width: int = 0, height: int = 0) -> Tensor:
    """The first of ``character`` [T, H, W, 3 or 4], whole, fitted into ``width``×``height`` px: [1, height, width, 3].

    mask: [T or 1, H, W], 1 where the person is; what lies outside becomes grey. The alpha of a picture with 4 channels
    is a mask as well: what is transparent becomes grey. A size of 0 is the picture's own, at most LARGEST pixels.
    Raises ValueError, naming the socket, for an empty or transparent picture, another mask size or a bad size.
    """
    if character.ndim != 4 or not character.shape[0]:
        raise ValueError(f"character: expected a picture, got none (shape {tuple(character.shape)}).")
    if bool(width) != bool(height):
        raise ValueError(f"width and height: give both or leave both at 0; got {width}×{height}.")
    picture, alpha = character[:1, ..., :3], character[:1, ..., 3:]  # [1, H, W, 3], [1, H, W, 0 or 1]
    if alpha.numel() and not alpha.any():
        raise ValueError("character: it is transparent everywhere: nobody is in it. Use a picture of a person.")
    if mask is not None:
        if mask.shape[-2:] != picture.shape[1:3]:
            sizes = [f"{shape[1]}×{shape[0]}" for shape in (mask.shape[-2:], picture.shape[1:3])]
            raise ValueError(f"mask: it is {sizes[0]} px and the character's picture {sizes[1]} px; make them equal.")
        weight = mask.reshape(-1, *mask.shape[-2:])[:1, ..., None].to(picture)  # [1, H, W, 1]
        alpha = weight * alpha if alpha.numel() else weight
        if not alpha.any():
            raise ValueError("mask: it is black wherever the character is opaque. Leave it unconnected, or invert it.")
    if alpha.numel():
        picture = GREY + (picture - GREY) * alpha
    if not width:
        width, height = _own_size(picture.shape[2], picture.shape[1])
    check_size(width, height)
    return _fit(picture, width, height)


def _own_size(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, math.sqrt(LARGEST / (width * height)))
    return tuple(max(SIZE_STEP, round(side * scale / SIZE_STEP) * SIZE_STEP) for side in (width, height))


def _fit(picture: Tensor, width: int, height: int) -> Tensor:
    """``picture`` [1, H, W, 3] scaled to fit, centred on grey [1, height, width, 3]."""
    scale = min(width / picture.shape[2], height / picture.shape[1])
    inner = [
        max(1, min(side, round(own * scale))) for side, own in ((width, picture.shape[2]), (height, picture.shape[1]))
    ]
    small = comfy.utils.common_upscale(picture.movedim(-1, 1), *inner, "lanczos", "disabled").movedim(1, -1)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    fitted = torch.full((1, height, width, 3), GREY, dtype=small.dtype, device=small.device)
    fitted[:, top : top + inner[1], left : left + inner[0]] = small.clamp(0, 1)
    return fitted
