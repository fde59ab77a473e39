"""Unify Vision Token, UVT (DynamiCtrl 3.1): the variant that its ablation rejects (table 3).

The pose's latents are further channels of the visual tokens. A patch embedding of noise, picture and pose is the base's
own of noise and picture, plus one of the pose: only the latter is here, zero at first.
"""

from collections.abc import Iterator

from torch import Tensor, nn

from . import dit
from .latents import CHANNELS, PATCH


class UnifiedTokens(nn.Module):
    def __init__(self, width: int, device=None, dtype=None, operations=nn) -> None:
        super().__init__()
        self.pose_embed = operations.Linear(CHANNELS * PATCH**3, width, bias=False, device=device, dtype=dtype)

    def start_from(self, base: nn.Module) -> "UnifiedTokens":
        """Make it the identity, as training begins. ``base`` has nothing that could be copied."""
        nn.init.zeros_(self.pose_embed.weight)
        return self

    def controls(
        self, base: nn.Module, tokens: dit.Tokens, pose: Tensor, strength: float, transformer_options: dict
    ) -> Iterator[dit.BlockControl]:
        """See dit.PoseNetwork: a residual for the first block."""
        yield dit.BlockControl(residual=strength * self.pose_embed(dit.patchify(pose)))
