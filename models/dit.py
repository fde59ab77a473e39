"""CogVideoX run block by block, with control: the one file that knows the host's model inside.

The host's transformer (comfy/ldm/cogvideo/model.py) has no patch points inside. ``forward`` restates its outer loop,
calls the host's own blocks, and lets two conditions in: what a pose network changes in a block (BlockControl) and
extra keys and values in its attention (reference). Without conditions it equals the stock forward to the bit.

Shapes: B batch, N visual tokens (t·h·w of the grid), S text tokens, D width.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch
from comfy.ldm.cogvideo.model import (
    CogVideoXBlock,
    CogVideoXTransformer3DModel,
    _get_1d_rotary_pos_embed,
    apply_rotary_emb,
    get_timestep_embedding,
)
from comfy.ldm.common_dit import pad_to_patch_size
from comfy.model_base import CogVideoX
from comfy.model_management import FLOAT8_TYPES
from einops import rearrange
from torch import Tensor, nn

from .latents import CHANNELS, PATCH
from .socket_type import wrong_type

OFS = 2.0  # CogVideoX 1.5 I2V was trained with this one value; the host's forward skips the embedding when it is None
TEXT_TOKENS = 226  # T5 tokens that CogVideoX was trained with
TEXT_WIDTH = 4096
# The embedded default knows no language; equal tokens of an empty text tell it nothing, so it gets few of them.
TOY_TEXT_TOKENS = 16


@dataclass(frozen=True)
class Tokens:
    """What travels from block to block."""

    hidden: Tensor  # [B, N, D]
    text: Tensor  # [B, S, D]
    temb: Tensor  # [B, time_dim]
    rope: tuple[Tensor, Tensor]  # cos and sin, each [N, head_dim]
    grid: tuple[int, int, int]  # tokens along time, height, width


@dataclass(frozen=True)
class ExtraKeys:
    """Hidden states that a block's queries may look at besides their own."""

    hidden: Tensor  # [1 or B, M, D]
    rope: tuple[Tensor, Tensor]  # cos and sin, each [M, head_dim]
    strength: float  # 0: as if they were not there; 1: plain attention over own and extra keys


@dataclass(frozen=True)
class BlockControl:
    """What a pose network changes in one block; what is None stays as it is."""

    residual: Tensor | None = None  # [B, N, D], added to the block's input
    normed: Tensor | None = None  # [B, N, D], added to the output of norm1, and so to q, k and v alone
    attended: Callable[[Tensor], Tensor] | None = None  # from the attention's output [B, N, D] to what takes its place


class PoseNetwork(Protocol):
    """Whatever makes a base follow a pose: PoseControl, PadaLN, UnifiedTokens, PoseAttention."""

    def controls(
        self, base: nn.Module, tokens: Tokens, pose: Tensor, strength: float, transformer_options: dict
    ) -> Iterator[BlockControl]:
        """Yield what base block 0, 1, … is to change, lazily, so that only one block's is alive at a time.

        tokens: what stands before the first block of ``base``; pose: latents of the pose video [1 or B, 16, t, h, w]
        in the model's scale; strength: 1 as trained.
        """


def check_base(model) -> None:
    """Raise ValueError, naming the socket, unless ``model`` (a ModelPatcher) is CogVideoX 1.5 image-to-video."""
    if not hasattr(model, "get_model_object"):
        raise wrong_type("model", model, "a model", "Connect Load Diffusion Model or Load DynamiCtrl")
    network = model.get_model_object("diffusion_model")
    if not isinstance(model.model, CogVideoX) or not isinstance(network, CogVideoXTransformer3DModel):
        raise ValueError(
            f"model: this is a {type(model.model).__name__} model. AnimateAnywhere needs CogVideoX1.5-5B-I2V "
            "(or aa_tiny_base), loaded with Load Diffusion Model."
        )
    stored = {layer.weight.dtype for layer in (network.patch_embed.proj, network.patch_embed.text_proj)}
    if stored & set(FLOAT8_TYPES):
        # The host gives these layers their own precision, but dynamic VRAM takes the file's, and their input with it.
        raise ValueError(
            "model: its file stores the patch embedding in fp8, and with dynamic VRAM ComfyUI would compute it in fp8, "
            "which no device can. Load the bf16 file with weight_dtype fp8_e4m3fn, or start ComfyUI with "
            "--disable-dynamic-vram."
        )
    if network.patch_size_t != PATCH:
        raise ValueError(
            "model: this is a CogVideoX 1.0 or 2B model. Its positions and lengths differ; load CogVideoX1.5-5B-I2V."
        )
    if network.in_channels != 2 * CHANNELS:
        raise ValueError(
            f"model: this CogVideoX 1.5 takes {network.in_channels} latent channels; the image-to-video model takes "
            f"{2 * CHANNELS} (noise and start picture). Load CogVideoX1.5-5B-I2V, not the text-to-video model."
        )


def text_tokens(text_width: int) -> int:
    """How many tokens an empty prompt has for a model that reads text of ``text_width``."""
    return TEXT_TOKENS if text_width == TEXT_WIDTH else TOY_TEXT_TOKENS


def no_text(text_width: int, device=None, dtype=None) -> Tensor:
    """The empty prompt: zeros [1, S, text_width]."""
    return torch.zeros(1, text_tokens(text_width), text_width, device=device, dtype=dtype)


def patchify(latents: Tensor) -> Tensor:
    """[B, C, t, h, w] -> [B, N, C·8] in the order of the host's patch embedding: channel, time, row, column."""
    latents = pad_to_patch_size(latents, (PATCH, PATCH, PATCH))
    return rearrange(
        latents, "b c (t pt) (h ph) (w pw) -> b (t h w) (c pt ph pw)", pt=PATCH, ph=PATCH, pw=PATCH
    )  # fmt: skip


def embed_twice(model: nn.Module, latents: Tensor) -> Tensor:
    """[B, 16, t, h, w] -> [B, N, D] by the base's own patch embedding, which sees them as picture and start picture."""
    x = torch.cat([latents, latents], dim=1)  # [B, 32, t, h, w]
    x = pad_to_patch_size(x, (PATCH, PATCH, PATCH)).permute(0, 2, 1, 3, 4)  # [B, t, 32, h, w]
    word = x.new_zeros(len(x), 1, model.patch_embed.text_proj.in_features)  # one, for not every kernel takes none
    return model.patch_embed(word, x)[:, 1:]


def rope_at(model: nn.Module, times: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Rotary cos and sin, each [len(times)·height·width, head_dim], at the temporal positions ``times``.

    Positions are plain integers, as in the host's "slice" mode for 1.5; ``times`` may lie outside the clip.
    """
    head_dim = model.attention_head_dim
    parts = []
    for axis, (positions, dim) in enumerate(
        (
            (times.float(), head_dim // 4),
            (torch.arange(height, device=times.device, dtype=torch.float32), head_dim // 8 * 3),
            (torch.arange(width, device=times.device, dtype=torch.float32), head_dim // 8 * 3),
        )
    ):
        shape = [1, 1, 1, dim]
        shape[axis] = len(positions)
        parts.append([part.view(shape) for part in _get_1d_rotary_pos_embed(dim, positions)])
    grid = (len(times), height, width, -1)
    cos, sin = (torch.cat([part[i].expand(grid) for part in parts], dim=-1).flatten(0, 2) for i in (0, 1))
    return cos, sin


def embed(model: nn.Module, x: Tensor, timestep: Tensor, context: Tensor, ofs: Tensor | None = None) -> Tokens:
    """What stands before the first block.

    x: [B, C, t, h, w]; timestep: [B] in 0…999; context: [B, S, text width]; ofs: [B].
    """
    x = pad_to_patch_size(x, (PATCH, PATCH, PATCH)).permute(0, 2, 1, 3, 4)  # [B, t, C, h, w]

    def embedding(value: Tensor, dim: int, first: nn.Module, act: nn.Module, second: nn.Module) -> Tensor:
        wave = get_timestep_embedding(value, dim, model.time_proj_flip, model.time_proj_shift)
        return second(act(first(wave.to(x.dtype))))

    temb = embedding(
        timestep,
        model.time_proj_dim,
        model.time_embedding_linear_1,
        model.time_embedding_act,
        model.time_embedding_linear_2,
    )
    if model.ofs_embedding_linear_1 is not None and ofs is not None:
        temb = temb + embedding(
            ofs,
            model.ofs_proj_dim,
            model.ofs_embedding_linear_1,
            model.ofs_embedding_act,
            model.ofs_embedding_linear_2,
        )
    joint = model.patch_embed(context, x)  # [B, S + N, D]
    text, hidden = joint[:, : context.shape[1]], joint[:, context.shape[1] :]
    grid = (x.shape[1] // PATCH, x.shape[3] // PATCH, x.shape[4] // PATCH)
    rope = model._get_rotary_emb(grid[1], grid[2], grid[0], device=x.device)
    return Tokens(hidden, text, temb, rope, grid)


def add_to_hidden(tokens: Tokens, residual: Tensor) -> Tokens:
    return replace(tokens, hidden=tokens.hidden + residual)


def run_block(
    block: nn.Module,
    tokens: Tokens,
    transformer_options: dict,
    extra: ExtraKeys | None = None,
    control: BlockControl | None = None,
) -> Tokens:
    """One of the host's blocks, its attention widened by ``extra``, steered by ``control``.

    A block may carry an attribute ``around``, a function that is given the block's forward and its inputs and calls it:
    gradient checkpointing, in training.
    """
    control = control or BlockControl()
    if control.residual is not None:
        tokens = add_to_hidden(tokens, control.residual)
    if extra is not None and extra.strength:
        transformer_options = _widen_attention(
            transformer_options, *_keys_and_values(block, extra, tokens), extra.strength
        )
    forward = block
    if control.normed is not None or control.attended is not None:
        forward = partial(CogVideoXBlock.forward, _Steered(block, control, tokens.text.shape[1]))
    around = getattr(block, "around", None)
    hidden, text = (forward if around is None else partial(around, forward))(
        hidden_states=tokens.hidden,
        encoder_hidden_states=tokens.text,
        temb=tokens.temb,
        image_rotary_emb=tokens.rope,
        transformer_options=transformer_options,
    )
    return replace(tokens, hidden=hidden, text=text)


class _Steered:
    """The host's block as its own forward sees it, with what comes out of two of its layers changed.

    So the forward stays the host's, and the block's layers keep their names, patches and hooks.
    """

    def __init__(self, block: nn.Module, control: BlockControl, text_tokens: int) -> None:
        self._block = block
        self._control = control
        self._text_tokens = text_tokens

    def __getattr__(self, name: str) -> object:
        return getattr(self._block, name)

    def norm1(self, hidden: Tensor, text: Tensor, temb: Tensor) -> tuple[Tensor, ...]:
        hidden, *rest = self._block.norm1(hidden, text, temb)
        return (hidden if self._control.normed is None else hidden + self._control.normed), *rest

    def attn_out(self, joint: Tensor) -> Tensor:
        joint = self._block.attn_out(joint)  # [B, S + N, D]
        if self._control.attended is None:
            return joint
        text, hidden = joint[:, : self._text_tokens], joint[:, self._text_tokens :]
        return torch.cat([text, self._control.attended(hidden)], dim=1)


def _keys_and_values(block: nn.Module, extra: ExtraKeys, tokens: Tokens) -> tuple[Tensor, Tensor]:
    """Keys and values [B, M, D] of ``extra`` by the block's own norm1, k and v: what it would have computed for them as
    further visual tokens."""
    batch = tokens.temb.shape[0]
    hidden = extra.hidden.expand(batch, -1, -1)
    normed, *_ = block.norm1(hidden, hidden[:, :0], tokens.temb)
    keys = block.norm_k(block.k(normed).unflatten(-1, (block.num_heads, block.head_dim)))  # [B, M, heads, head_dim]
    keys = apply_rotary_emb(keys.transpose(1, 2), extra.rope).transpose(1, 2)
    return keys.flatten(2), block.v(normed)


def _widen_attention(transformer_options: dict, keys: Tensor, values: Tensor, strength: float) -> dict:
    """``transformer_options`` under which the host's attention also sees ``keys`` and ``values`` [B, M, D].

    Queries stay the block's own, which equals concatenating, attending and dropping. Between 0 and 1 the result lies on
    the line between attention without and with them; at 1 that is a single call.
    """
    outer = transformer_options.get("optimized_attention_override")

    def attend(function, q: Tensor, k: Tensor, v: Tensor, *args, **kwargs) -> Tensor:
        def call(k: Tensor, v: Tensor) -> Tensor:
            if outer is not None:
                return outer(function, q, k, v, *args, **kwargs)
            return function(q, k, v, *args, **kwargs)

        joined = call(torch.cat([k, keys], dim=1), torch.cat([v, values], dim=1))
        return joined if strength == 1 else torch.lerp(call(k, v), joined, strength)

    return {**transformer_options, "optimized_attention_override": attend}


def forward(
    model: nn.Module,
    x: Tensor,
    timestep: Tensor,
    context: Tensor,
    ofs: Tensor | None = None,
    transformer_options: dict | None = None,
    *,
    controls: Callable[[Tokens], Iterable[BlockControl]] | None = None,
    extra_keys: Sequence[ExtraKeys] = (),
) -> Tensor:
    """The host's forward, x [B, 32, t, h, w] -> velocity [B, 16, t, h, w], under conditions.

    controls: from the embedded tokens to an iterable, of which the i-th steers block i. It is drawn lazily.
    extra_keys: the i-th widens the attention of block i.
    """
    options = transformer_options or {}
    tokens = embed(model, x, timestep, context, ofs)
    steering = iter(controls(tokens)) if controls is not None else iter(())
    for i, block in enumerate(model.blocks):
        extra = extra_keys[i] if i < len(extra_keys) else None
        tokens = run_block(block, tokens, options, extra, next(steering, None))
    return unembed(model, tokens, x.shape)


def unembed(model: nn.Module, tokens: Tokens, shape: Sequence[int]) -> Tensor:
    """What stands after the last block: tokens -> velocity [B, 16, t, h, w], cropped to ``shape``."""
    hidden = model.norm_out(model.norm_final(tokens.hidden), temb=tokens.temb)
    t, h, w = tokens.grid
    output = rearrange(
        model.proj_out(hidden),
        "b (t h w) (c pt ph pw) -> b c (t pt) (h ph) (w pw)",
        t=t, h=h, w=w, pt=PATCH, ph=PATCH, pw=PATCH,
    )  # fmt: skip
    return output[:, :, : shape[2], : shape[3], : shape[4]]
