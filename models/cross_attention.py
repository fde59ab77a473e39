"""Cross-attention to the pose (DynamiCtrl 3.1, eq. 1): the other variant that its ablation rejects (table 3).

In each block, queries from the output ŷ of the full attention, keys and values from the pose's tokens (the base's own
patch embedding of its latents, twice on channels); the result is added to ŷ. As in the released code, nothing tells
these keys where they are.
"""

from collections.abc import Iterator
from functools import partial

from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor, nn

from . import dit

EPS = 1e-6


class CrossAttention(nn.Module):
    """The layer of one block."""

    def __init__(self, width: int, heads: int, device=None, dtype=None, operations=nn) -> None:
        super().__init__()
        place = {"device": device, "dtype": dtype}
        self.heads = heads
        self.q, self.k, self.v, self.out = (operations.Linear(width, width, **place) for _ in range(4))
        self.norm_q, self.norm_k = (operations.LayerNorm(width // heads, eps=EPS, **place) for _ in range(2))

    def forward(self, hidden: Tensor, pose: Tensor, strength: float, transformer_options: dict) -> Tensor:
        """hidden [B, N, D], pose's tokens [1 or B, N, D] -> hidden with what it found in the pose, [B, N, D]."""
        pose = pose.expand(len(hidden), -1, -1)
        q, k = (
            norm(layer(x).unflatten(-1, (self.heads, -1))).flatten(2)
            for norm, layer, x in ((self.norm_q, self.q, hidden), (self.norm_k, self.k, pose))
        )
        found = optimized_attention(q, k, self.v(pose), heads=self.heads, transformer_options=transformer_options)
        return hidden + strength * self.out(found)


class PoseAttention(nn.Module):
    def __init__(self, width: int, heads: int, blocks: int, **place) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(CrossAttention(width, heads, **place) for _ in range(blocks))

    def start_from(self, base: nn.Module) -> "PoseAttention":
        """Copy attention from ``base``, and make its output zero: the identity, as training begins."""
        for block, original in zip(self.blocks, base.blocks):
            for name in ("q", "k", "v", "norm_q", "norm_k"):
                getattr(block, name).load_state_dict(getattr(original, name).state_dict())
            nn.init.zeros_(block.out.weight)
            nn.init.zeros_(block.out.bias)
        return self

    def controls(
        self, base: nn.Module, tokens: dit.Tokens, pose: Tensor, strength: float, transformer_options: dict
    ) -> Iterator[dit.BlockControl]:
        """See dit.PoseNetwork."""
        keys = dit.embed_twice(base, pose)
        for block in self.blocks:
            look = partial(block, pose=keys, strength=strength, transformer_options=transformer_options)
            yield dit.BlockControl(attended=look)
