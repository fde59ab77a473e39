"""Pose-adaptive Layer Norm, PadaLN (DynamiCtrl 3.1, eq. 2 to 4, exactly as its code was released).

The pose's latents, twice on channels, go through the base's own patch embedding: c_0. In block i

    shift, scale, gate = Linear_i(SiLU(temb))
    y_i = LayerNorm_i(c_i) · (1 + scale) + shift
    c_{i+1} = y_i · (1 + gate)

and y_i is added to the visual tokens that norm1 of base block i hands to its attention. Zero pose latents still give a
c_0 and are not "no pose".
"""

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.functional import silu

from . import dit

EPS = 1e-5


class PoseNorm(nn.Module):
    """PadaLN of one block."""

    def __init__(self, width: int, time_width: int, device=None, dtype=None, operations=nn) -> None:
        super().__init__()
        self.linear = operations.Linear(time_width, 3 * width, device=device, dtype=dtype)
        self.norm = operations.LayerNorm(width, eps=EPS, device=device, dtype=dtype)

    def forward(self, chain: Tensor, temb: Tensor) -> tuple[Tensor, Tensor]:
        """chain [1 or B, N, D], temb [B, time_width] -> y [B, N, D], and the next block's chain of the same shape."""
        shift, scale, gate = self.linear(silu(temb))[:, None].chunk(3, dim=2)  # each [B, 1, D]
        normed = self.norm(chain) * (1 + scale) + shift
        return normed, normed * (1 + gate)


class PadaLN(nn.Module):
    def __init__(self, width: int, time_width: int, blocks: int, **place) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(PoseNorm(width, time_width, **place) for _ in range(blocks))

    def start_from(self, base: nn.Module) -> "PadaLN":
        """Make y zero: the identity, as training begins. ``base`` has nothing that could be copied.

        A block's chain is then zero as well, so the blocks wake up one after the other, in the first steps.
        """
        for parameter in self.parameters():
            nn.init.zeros_(parameter)
        return self

    def controls(
        self, base: nn.Module, tokens: dit.Tokens, pose: Tensor, strength: float, transformer_options: dict
    ) -> Iterator[dit.BlockControl]:
        """See dit.PoseNetwork. ``strength`` scales what is added, not what goes on to the next block."""
        chain = dit.embed_twice(base, pose)
        for block in self.blocks:
            normed, chain = block(chain, tokens.temb)
            yield dit.BlockControl(normed=strength * normed)
