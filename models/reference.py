"""ReferenceNet (AnimateAnywhere III-B, "Reference Human Input"; the "global features" of Liu et al., section 2.2).

A copy of the base's first blocks reads the picture of the character once, at timestep 0 and without text. The hidden
state before its block i is offered to base block i as extra keys and values.
"""

from dataclasses import dataclass

import torch
from comfy.ldm.cogvideo.model import CogVideoXTransformer3DModel
from torch import Tensor, nn

from . import dit
from .latents import PATCH


@dataclass(frozen=True, eq=False)  # compared by identity: the host compares conditions, and tensors have no truth value
class Reference:
    """A character, read once: what AA_REFERENCE carries."""

    states: tuple[Tensor, ...]  # one a base block, each [1, M, D]
    grid: tuple[int, int]  # tokens along height and width, M = height·width

    @property
    def width(self) -> int:
        return self.states[0].shape[-1]

    def to(self, device, dtype) -> "Reference":
        return Reference(tuple(state.to(device, dtype) for state in self.states), self.grid)

    def keys_for(self, model: nn.Module, strength: float) -> list[dit.ExtraKeys]:
        """What base block 0, 1, … is to attend to as well. The character stands one token frame before the clip."""
        before = torch.tensor([-1], device=self.states[0].device)
        rope = dit.rope_at(model, before, *self.grid)
        return [dit.ExtraKeys(state, rope, strength) for state in self.states]


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
        """latent: [1, 16, 1, h, w] of the character's picture in the model's scale -> Reference."""
        still = latent.expand(-1, -1, PATCH, -1, -1)
        x = torch.cat([still, torch.zeros_like(still)], dim=1)  # [1, 32, 2, h, w]: no start picture
        zero = x.new_zeros(1, dtype=torch.float32)
        context = dit.no_text(self.patch_embed.text_proj.in_features, x.device, x.dtype)
        tokens = dit.embed(self, x, zero, context, zero + dit.OFS)
        states = [tokens.hidden]
        for block in self.blocks:
            tokens = dit.run_block(block, tokens, transformer_options or {})
            states.append(tokens.hidden)
        return Reference(tuple(states), tokens.grid[1:])
