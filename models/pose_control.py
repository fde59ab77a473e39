"""Pose ControlNet (AnimateAnywhere III-B, "Human Pose Sequence Guidance").

A copy of the base's first blocks, fed the base's own embedding of the noisy latents plus a zero-initialised embedding
of the pose video's latents. What each of its blocks computes goes through a zero-initialised linear and is added to the
input of the base's block of the same index, so a fresh one changes nothing.
"""

from collections.abc import Iterator

from comfy.ldm.cogvideo.model import CogVideoXBlock
from torch import Tensor, nn

from . import dit
from .latents import CHANNELS, PATCH


class PoseControl(nn.Module):
    def __init__(
        self, width: int, heads: int, time_width: int, blocks: int, device=None, dtype=None, operations=nn
    ) -> None:
        super().__init__()
        place = {"device": device, "dtype": dtype}
        self.pose_embed = operations.Linear(CHANNELS * PATCH**3, width, **place)
        self.blocks = nn.ModuleList(
            CogVideoXBlock(width, heads, width // heads, time_width, operations=operations, **place)
            for _ in range(blocks)
        )
        self.outputs = nn.ModuleList(operations.Linear(width, width, **place) for _ in range(blocks))

    def start_from(self, base: nn.Module) -> "PoseControl":
        """Copy the blocks of ``base``, and make everything that joins it zero: the identity, as training begins."""
        for block, original in zip(self.blocks, base.blocks):
            block.load_state_dict(original.state_dict())
        for joint in (self.pose_embed, *self.outputs):
            nn.init.zeros_(joint.weight)
            nn.init.zeros_(joint.bias)
        return self

    def controls(
        self, base: nn.Module, tokens: dit.Tokens, pose: Tensor, strength: float, transformer_options: dict
    ) -> Iterator[dit.BlockControl]:
        """See dit.PoseNetwork: residuals for the base's first blocks."""
        tokens = dit.add_to_hidden(tokens, self.pose_embed(dit.patchify(pose)))
        for block, output in zip(self.blocks, self.outputs):
            tokens = dit.run_block(block, tokens, transformer_options)
            yield dit.BlockControl(residual=strength * output(tokens.hidden))
