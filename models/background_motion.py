"""Background Motion Learner, BML (AnimateAnywhere III-B, eq. 2): h_out = T(h_in + h_pose) + B(h_in + h_pose).

B is a low-rank change of the attention's weights (LoRA), so T + B is the block with its weights changed. It is stored
as an ordinary LoRA in the host's names and applied as the host's weight patches: merged, it costs nothing at run time.
"""

import math

import comfy.lora
import torch
from torch import Tensor, nn

ATTENTION = ("q", "k", "v", "attn_out")


def build(base: nn.Module, rank: int, seed: int = 0, dtype=torch.float32) -> dict[str, Tensor]:
    """A fresh BML for every block of ``base``: A [rank, in] random, B [out, rank] zero, so it changes nothing."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for i, block in enumerate(base.blocks):
        for target in ATTENTION:
            layer = getattr(block, target)
            name = f"diffusion_model.blocks.{i}.{target}"
            down = torch.randn(rank, layer.in_features, generator=generator) / math.sqrt(layer.in_features)
            state[f"{name}.lora_A.weight"] = down.to(dtype)
            state[f"{name}.lora_B.weight"] = torch.zeros(layer.out_features, rank, dtype=dtype)
    return state


def rank_of(state: dict[str, Tensor]) -> int:
    return next(value.shape[0] for key, value in state.items() if key.endswith("lora_A.weight"))


def apply(model, state: dict[str, Tensor], strength: float) -> None:
    """Add the BML ``state`` to ``model`` (a ModelPatcher already cloned) as weight patches.

    Raises ValueError when a weight has no counterpart in the model.
    """
    patches = comfy.lora.load_lora(state, comfy.lora.model_lora_keys_unet(model.model, {}), log_missing=False)
    added = model.add_patches(patches, strength)
    pairs = sum(key.endswith("lora_A.weight") for key in state)
    if len(added) != pairs:
        raise ValueError(
            f"adapter: {pairs - len(added)} of {pairs} weights of its background motion have no place in this model. "
            "Was it trained for a deeper base?"
        )
