"""The adaptive epipolar constraint (AnimateAnywhere III-C, eq. 4) on sampled rows of the attention of chosen blocks.

Shapes: B clips; T frames of H×W px; t×h×w tokens, N of them; Q sampled query tokens; K keys (text, tokens, reference).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..models.latents import SIZE_STEP
from ..vision.geometry import HALF_WIDTH, Cameras, epipolar_mask

PERCENTILE = 30.0  # δ of section III-C, best in table IV
GROUP_BYTES = 64 * 2**20  # what is looked at at once; heads go by in groups of this size
BLOCK = "animate_anywhere_probed_block"  # in transformer_options: which chosen block is running


class Rows(NamedTuple):
    """Some rows of a block's attention, before the softmax: q and k are normalised and turned by RoPE."""

    queries: Tensor  # [B, Q, heads, head_dim]
    keys: Tensor  # [B, K, heads, head_dim]: text, then the clip's tokens, then what the reference adds
    text: int  # how many keys are text


class AttentionProbe:
    """Looks at the attention of chosen blocks while it runs, at the rows of some queries.

    Use it for one dit.forward, and keep it open until backward has run: gradient checkpointing looks again. ::

        with AttentionProbe(network, blocks, constraint.queries, tokens, constraint) as probe:
            velocity = dit.forward(network, …, transformer_options=probe.options())
            (latent + weight * probe.mean()).backward()

    queries: [B, Q], places among the clip's ``tokens``. look: called with Rows inside the block, so that checkpointing
    need not keep the keys (300 MB a block at 5B); ``seen`` holds what it returns for each block, by default the Rows.
    """

    def __init__(
        self, network: nn.Module, blocks: Sequence[int], queries: Tensor, tokens: int, look: Callable | None = None
    ) -> None:
        self.chosen = {index: network.blocks[index] for index in blocks}
        self.queries = queries
        self.tokens = tokens
        self.look = look or (lambda rows: rows)

    def __enter__(self) -> "AttentionProbe":
        self.seen, self._widest = {}, {}
        self._before = {index: getattr(block, "around", None) for index, block in self.chosen.items()}
        # The mark travels with the call's arguments. Counting calls would fail: the blocks of ControlNet and
        # ReferenceNet share the options, and checkpointing calls blocks again, the last one first. Hooks of a block
        # would fail as well: one that a pose network steers runs without them.
        for index, block in self.chosen.items():
            block.around = partial(_mark, index, self._before[index])
        return self

    def __exit__(self, *exception: object) -> None:
        for index, block in self.chosen.items():
            block.around = self._before[index]

    def options(self, transformer_options: dict | None = None) -> dict:
        """``transformer_options`` under which this probe sees the attention; overrides already there go on working."""
        options = transformer_options or {}
        outer = options.get("optimized_attention_override")
        return {**options, "optimized_attention_override": partial(self._attend, outer)}

    def mean(self) -> Tensor:
        """The mean of what ``look`` returned, over the chosen blocks."""
        if len(self.seen) < len(self.chosen):
            missing = sorted(self.chosen.keys() - self.seen.keys())
            raise ValueError(
                f"blocks {missing}: their attention was not seen. Run dit.forward with options() of this probe."
            )
        return torch.stack([self.seen[index] for index in self.chosen]).mean()

    def _attend(self, outer: Callable | None, function: Callable, q: Tensor, k: Tensor, v: Tensor, *args, **kwargs):
        index = kwargs["transformer_options"].get(BLOCK)
        before = self._widest.get(index, 0)
        # A reference of strength between 0 and 1 makes a block attend twice; the attention with it is looked at.
        if index is not None and k.shape[1] >= before:
            seen = self.look(self._rows(q, k, kwargs["heads"]))
            # Checkpointing comes again and must find the same work, but a result kept would keep the block's tensors.
            if k.shape[1] > before:
                self._widest[index], self.seen[index] = k.shape[1], seen
        return outer(function, q, k, v, *args, **kwargs) if outer else function(q, k, v, *args, **kwargs)

    def _rows(self, q: Tensor, k: Tensor, heads: int) -> Rows:
        """q, k: [B, text + N, D] and [B, K, D]."""
        text = q.shape[1] - self.tokens
        if text < 0 or len(q) != len(self.queries):
            raise ValueError(
                f"queries: they are of {len(self.queries)} clips of {self.tokens} tokens; the model runs {len(q)} "
                f"of {q.shape[1]} (with text)."
            )
        clip = torch.arange(len(q), device=q.device)[:, None]
        rows = q[clip, text + self.queries.to(q.device)]  # [B, Q, D]
        return Rows(rows.unflatten(-1, (heads, -1)), k.unflatten(-1, (heads, -1)), text)


def _mark(index: int, around: Callable | None, forward: Callable, *, transformer_options: dict, **inputs):
    """A block's ``around`` (see dit.run_block) that says which block it is, and then does what ``around`` does."""
    inputs["transformer_options"] = {**transformer_options, BLOCK: index}
    return forward(**inputs) if around is None else around(forward, **inputs)


class HeadMean(torch.autograd.Function):
    """Exact softmax attention averaged over heads, in float32: queries [B, Q, heads, d], keys [B, K, heads, d] ->
    [B, Q, K].

    Heads go by in groups, backwards too, where they are computed anew, so that of [B, heads, Q, K] never more than
    a group's exist, and the gradient of the keys exists once.
    """

    @staticmethod
    def forward(ctx, queries: Tensor, keys: Tensor) -> Tensor:
        ctx.save_for_backward(queries, keys)
        dtype = torch.promote_types(queries.dtype, torch.float32)
        mean = queries.new_zeros(len(queries), queries.shape[1], keys.shape[1], dtype=dtype)
        for heads in _groups(queries, keys):
            mean += _attention(queries[:, :, heads].to(dtype), keys[:, :, heads].to(dtype)).sum(1)
        return mean.div_(queries.shape[2])

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        queries, keys = ctx.saved_tensors
        gradient = gradient / queries.shape[2]
        to_queries, to_keys = torch.empty_like(queries), torch.empty_like(keys)
        for heads in _groups(queries, keys):
            to_queries[:, :, heads], to_keys[:, :, heads] = _attention_gradient(
                queries[:, :, heads].to(gradient.dtype), keys[:, :, heads].to(gradient.dtype), gradient
            )
        return to_queries, to_keys


def _plain_precision(tensor: Tensor) -> torch.autocast:
    """Products in the dtype at hand: scores of 20 have steps of 0.13 in bf16, that is 13 % of the softmax."""
    return torch.autocast(tensor.device.type, enabled=False)


def _attention(queries: Tensor, keys: Tensor) -> Tensor:
    """[B, Q, heads, d] and [B, K, heads, d] -> [B, heads, Q, K]."""
    with _plain_precision(queries):
        return torch.einsum("bqhd,bkhd->bhqk", queries * queries.shape[-1] ** -0.5, keys).softmax(-1)


def _attention_gradient(queries: Tensor, keys: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of a group's queries and keys; ``gradient`` [B, Q, K] is that of each of its heads."""
    attention = _attention(queries, keys)
    scores = attention * gradient[:, None]
    scores.addcmul_(attention, scores.sum(-1, keepdim=True), value=-1)  # through the softmax
    del attention
    scores *= queries.shape[-1] ** -0.5
    with _plain_precision(queries):
        return torch.einsum("bhqk,bkhd->bqhd", scores, keys), torch.einsum("bhqk,bqhd->bkhd", scores, queries)


def _group_size(clips: int, queries: int, heads: int, head_dim: int, keys: int) -> int:
    """How many heads a group has: their scores, and their keys in float32, are to fit into GROUP_BYTES."""
    return min(heads, max(1, GROUP_BYTES // (4 * clips * keys * (queries + head_dim))))


def _groups(queries: Tensor, keys: Tensor) -> list[slice]:
    size = _group_size(*queries.shape, keys.shape[1])
    return [slice(first, first + size) for first in range(0, queries.shape[2], size)]


@dataclass(frozen=True)
class EpipolarConstraint:
    """The adaptive epipolar constraint (eq. 4) on sampled background queries; called with Rows of a block, it gives
    the loss, a scalar: eq. 4's sum over the frames i and j, with the mean over the background's places (u, v).

    A is the attention over all keys, averaged over heads (the A of eq. 1 has no heads); A_ij its part in frame j. Ω_ij
    is where a token of frame j is off the band and A_ij is less than δ, the ``percentile`` of this A_ij over the
    tokens of frame j. So Ω of a query does not depend on which others were sampled, and the loss is an unbiased
    estimate. A frame's attention to itself is left alone: it is no correspondence between views.

    Each Σ_j Σ Ω·A is the share of a query's attention that is suppressed, 0…1 at any size, so the loss is at most t.
    As a plain sum over (u, v) it would be 64 times as large at 1360×768 as at 128×128 for the same attention.
    """

    queries: Tensor  # [B, Q], places among the clip's tokens
    outside: Tensor  # 1 - M, bool [B, Q, t, h·w]
    percentile: float | None = PERCENTILE  # None: Ω = 1 - M, as in the second row of table II

    @classmethod
    def sample(
        cls,
        cameras: Cameras,
        background: Tensor,
        count: int,
        percentile: float | None = PERCENTILE,
        half_width: float = HALF_WIDTH,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
    ) -> "EpipolarConstraint":
        """``count`` queries a clip, drawn on the CPU, alike on every device. With one generator for each clip, those of
        a clip do not depend on which others are beside it.

        cameras: [B, t], see token_cameras. background: bool [B, t, h, w], see background_tokens; a clip without any
        background, or without known cameras and therefore given none, adds 0 to the loss.
        """
        if percentile is not None and not 0 <= percentile <= 100:
            raise ValueError(f"percentile: must be 0 to 100, or None for 1 - M alone; {percentile} is not.")
        weight = background.flatten(1).float().cpu()  # [B, N]
        usable = weight.any(1)
        weight[~usable] = 1
        # With replacement, which needs no special case where a clip has less background than ``count``.
        if isinstance(generator, Sequence):
            rows = [row.multinomial(count, True, generator=own) for row, own in zip(weight, generator)]
            queries = torch.stack(rows).to(background.device)
        else:
            queries = weight.multinomial(count, replacement=True, generator=generator).to(background.device)
        mask = epipolar_mask(cameras.to(queries.device), queries, tuple(background.shape[1:]), SIZE_STEP, half_width)
        outside = ~mask.flatten(-2)
        frame = queries // outside.shape[-1]
        other = frame[..., None] != torch.arange(outside.shape[2], device=frame.device)  # [B, Q, t]
        usable = usable.to(frame.device)[:, None, None]
        return cls(queries, outside & (other & usable)[..., None], percentile)

    def suppressed(self, rows: Rows) -> Tensor:
        """Σ_j Σ Ω·A of each query, [B, Q]; with percentile None, its attention mass outside the bands."""
        attention = HeadMean.apply(rows.queries, rows.keys)[..., rows.text :]  # [B, Q, K - text]
        attention = attention[..., : self.outside[0, 0].numel()].unflatten(-1, self.outside.shape[2:])
        where = self.outside.to(attention.device)
        if self.percentile is not None:
            where = where & (attention < lower_percentile(attention.detach(), self.percentile))
        return (attention * where).sum((-2, -1))

    def __call__(self, rows: Rows) -> Tensor:
        return self.outside.shape[2] * self.suppressed(rows).mean()


def lower_percentile(values: Tensor, percent: float) -> Tensor:
    """The value [..., 1] below which ``percent`` per cent of ``values`` [..., n] lie: numpy's method "lower".

    torch.quantile sorts everything and refuses more than 16 million values.
    """
    rank = math.floor(percent * (values.shape[-1] - 1) / 100)
    return values.kthvalue(rank + 1, dim=-1, keepdim=True).values


def epipolar_bytes(
    tokens: int, queries: int, heads: int, head_dim: int = 64, text: int = 226, extra: int = 0, clips: int = 1,
    itemsize: int = 2, blocks: int = 1,
) -> int:  # fmt: skip
    """Bytes at most that the constraint adds to a training step, whatever the attention itself needs.

    The gradients of keys and queries count, since they exist beside the attention's own. itemsize: bytes of a number
    in the model; extra: keys that the reference adds.
    """
    keys = text + tokens + extra
    row = 4 * clips * queries * keys  # one [B, Q, K] in float32
    heads_at_once = _group_size(clips, queries, heads, head_dim, keys)
    group = heads_at_once * row
    group_keys = 4 * clips * keys * heads_at_once * head_dim
    wide = itemsize * clips * heads * head_dim  # one position of q or k
    kept = clips * queries * tokens * (blocks + 1) + blocks * wide * queries  # Ω of each block and 1 - M; rows of q
    forward = max(3 * row + 2 * group + group_keys, 5 * row)  # the latter for the percentile, on a CPU
    backward = 3 * row + 2 * group + 2 * group_keys + wide * keys
    return kept + max(forward, backward, wide * (keys + text + tokens))
