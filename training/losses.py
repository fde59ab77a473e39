"""What training minimises (AnimateAnywhere III-C and III-D, eq. 4 to 7): latent, epipolar and perceptual loss.

Shapes: B clips; T frames of H×W px; t×h×w tokens, N of them; Q sampled query tokens; K keys (text, tokens, reference).
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import comfy.utils
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..models.latents import FRAMES_PER_LATENT, PATCH, SIZE_STEP, frames_of, latent_frames
from ..vision.geometry import HALF_WIDTH, Cameras, epipolar_mask

PERCEPTUAL_WEIGHT, EPIPOLAR_WEIGHT = 0.2, 0.005  # λ of eq. 7, as in section IV
PERCENTILE = 30.0  # δ of section III-C, best in table IV
PERCEPTUAL_BELOW = 300  # of 1000 timesteps: the last 30 % of denoising, where one step from x_t shows a picture
GROUP_BYTES = 64 * 2**20  # what the epipolar loss looks at at once; heads go by in groups of this size
BLOCK = "animate_anywhere_probed_block"  # in transformer_options: which chosen block is running

log = logging.getLogger(__name__)


def alphas_cumprod(model_sampling) -> Tensor:
    """ᾱ [1000] of the host's noise schedule (x_t = √ᾱ x0 + √(1-ᾱ) ε), from its sigmas √((1-ᾱ)/ᾱ)."""
    return 1 / (1 + model_sampling.sigmas.double() ** 2)


def _amounts(alphas: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """ᾱ [B] -> how much signal √ᾱ and noise √(1-ᾱ) x_t holds, each [B, 1, 1, 1, 1]."""
    alphas = alphas.double().to(like.device)[:, None, None, None, None]
    return alphas.sqrt().float(), (1 - alphas).sqrt().float()


def add_noise(latents: Tensor, noise: Tensor, alphas: Tensor) -> Tensor:
    """x_t [B, 16, t, h, w] at ᾱ [B]."""
    signal, spread = _amounts(alphas, latents)
    return (signal * latents + spread * noise).to(latents.dtype)


def one_step(noisy: Tensor, velocity: Tensor, alphas: Tensor) -> Tensor:
    """x̂0 = √ᾱ x_t - √(1-ᾱ) v in float32: the "one-step sampling" of section III-D. alphas: ᾱ [B]."""
    signal, spread = _amounts(alphas, noisy)
    return signal * noisy.float() - spread * velocity.float()


def latent_loss(predicted: Tensor, latents: Tensor, alphas: Tensor) -> Tensor:
    """Eq. 5 as CogVideoX is trained: |x̂0 - x0|² / (1-ᾱ), averaged.

    It is what diffusers' examples/cogvideo/train_cogvideox_*lora.py and CogVideo's own finetune/ minimise, and equals
    |v̂ - v|². predicted: one_step(...), latents: x0, both [B, 16, t, h, w]; alphas: ᾱ [B].
    """
    _, spread = _amounts(alphas, latents)
    return ((predicted - latents.float()) / spread).square().mean()


def token_frames(frames: int) -> list[range]:
    """The frames that each token frame of a clip of ``frames`` frames stands for: 0…4, 5…12, 13…20, …

    The first latent frame holds one frame, the others four, and a token pairs two of them. Raises ValueError unless
    there are 8k+5 frames.
    """
    latents = latent_frames(frames)
    if frames_of(latents) != frames or latents % PATCH:
        raise ValueError(f"frames: clips have 8k+5 frames (5, 13, 21, …); this one has {frames}.")
    starts = [max(0, frames_of(latent)) for latent in range(0, latents + 1, PATCH)]
    return [range(first, after) for first, after in pairwise(starts)]


def token_cameras(cameras: Cameras) -> Cameras:
    """Cameras [B, T] of the frames -> [B, t] of the token frames: the camera of each one's middle frame (2, 8, 16, …).

    A token mixes what its frames show; from the middle none is farther than four frames away. Granting the lines of
    its first and last frame too would save the 1.6 % of true matches that pans on the stage lose, and pass 60 % of the
    picture instead of 28 % where the camera sways.
    """
    ranges = token_frames(cameras.translation.shape[1])
    return cameras[:, [(frames[0] + frames[-1]) // 2 for frames in ranges]]


def background_tokens(foreground: Tensor) -> Tensor:
    """Pixels [B, T, H, W], nonzero where a person or an object is -> bool [B, t, h, w]: tokens that see none of it."""
    token_frames(foreground.shape[1])
    cells = (FRAMES_PER_LATENT * PATCH, SIZE_STEP, SIZE_STEP)
    # The VAE's first latent frame holds one frame; with three copies of it in front, all of them hold four.
    first = foreground[:, :1].expand(-1, FRAMES_PER_LATENT - 1, -1, -1)
    return F.max_pool3d((torch.cat([first, foreground], dim=1) != 0).float(), cells) == 0


class Rows(NamedTuple):
    """Some rows of a block's attention, before the softmax: q and k are normalised and turned by RoPE."""

    queries: Tensor  # [B, Q, heads, head_dim]
    keys: Tensor  # [B, K, heads, head_dim]: text, then the clip's tokens, then what the reference adds
    text: int  # how many keys are text


class AttentionProbe:
    """Looks at the attention of chosen blocks while it runs, at the rows of some queries.

    Use it for one forward, and keep it open until backward has run: gradient checkpointing looks again. ::

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
        # The mark travels with the call's arguments. Counting calls would fail: the blocks of ControlNet and
        # ReferenceNet share the options, and checkpointing calls blocks again, the last one first.
        self._hooks = [
            block.register_forward_pre_hook(partial(_mark, index), with_kwargs=True)
            for index, block in self.chosen.items()
        ]
        return self

    def __exit__(self, *exception: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def options(self, transformer_options: dict | None = None) -> dict:
        """``transformer_options`` under which this probe sees the attention; overrides already there go on working."""
        options = transformer_options or {}
        outer = options.get("optimized_attention_override")
        return {**options, "optimized_attention_override": partial(self._attend, outer)}

    def mean(self) -> Tensor:
        """The mean of what ``look`` returned, over the chosen blocks."""
        if len(self.seen) < len(self.chosen):
            missing = sorted(self.chosen.keys() - self.seen.keys())
            raise ValueError(f"blocks {missing}: their attention was not seen. Run them with options() of this probe.")
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


def _mark(index: int, block: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    return args, {**kwargs, "transformer_options": {**(kwargs.get("transformer_options") or {}), BLOCK: index}}


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


class VGGFeatures(nn.Module):
    """What VGG16 or VGG19 sees: the ReLU before each of its first four poolings (relu1_2, relu2_2, relu3_3, relu4_3).

    state: torchvision's keys, ``features.N.weight`` and ``.bias``. Raises ValueError when it is no VGG.
    """

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        places = sorted(int(key.split(".")[1]) for key in state if key.startswith("features.") and ".weight" in key)
        # A ReLU follows each convolution; where the next one comes a place later still, a pooling is between.
        ends = [i for i, (here, after) in enumerate(pairwise(places), 1) if after - here == 3]
        if len(ends) < 4 or any(state[f"features.{place}.weight"].ndim != 4 for place in places):
            raise ValueError(f"expected VGG16 or VGG19 without batch normalisation; found {len(places)} layers.")
        self.ends = ends[:4]
        for i, place in enumerate(places[: self.ends[-1]]):
            self.register_buffer(f"weight{i}", state[f"features.{place}.weight"].float())
            self.register_buffer(f"bias{i}", state[f"features.{place}.bias"].float())
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None])
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None])

    def forward(self, frames: Tensor) -> list[Tensor]:
        """[N, 3, H, W] in 0…1 -> four of [N, C, H', W']."""
        x, seen = (frames - self.mean) / self.std, []
        for i in range(self.ends[-1]):
            x = F.relu(F.conv2d(x, getattr(self, f"weight{i}"), getattr(self, f"bias{i}"), padding=1))
            if i + 1 in self.ends:
                seen.append(x)
                x = F.max_pool2d(x, 2)
        return seen


class EdgePyramid(nn.Module):
    """Stands in for VGG where its weights are not given: colours and their slopes (Sobel, 1 at a step from black to
    white) at four sizes, each half the one before. Nothing is learned: it sees blurred contours, not what they show."""

    def __init__(self) -> None:
        super().__init__()
        slope = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 4
        self.register_buffer("slopes", torch.stack([slope, slope.T])[:, None].repeat(3, 1, 1, 1))  # [6, 1, 3, 3]

    def forward(self, frames: Tensor) -> list[Tensor]:
        """[N, 3, H, W] in 0…1 -> four of [N, 9, H', W']."""
        seen = []
        for _ in range(4):
            edges = F.conv2d(F.pad(frames, (1, 1, 1, 1), mode="replicate"), self.slopes, groups=3)
            seen.append(torch.cat([frames, edges], dim=1))
            frames = F.avg_pool2d(frames, 2, ceil_mode=True)
        return seen


def load_features(vgg: str | None) -> nn.Module:
    """VGG from a file of torchvision's weights (.pth or .safetensors), or the stand-in when ``vgg`` is None."""
    if vgg is None:
        log.warning("Perceptual loss: no VGG weights given, so it compares colours and edges at four sizes instead.")
        return EdgePyramid()
    try:
        features = VGGFeatures(comfy.utils.load_torch_file(str(vgg), safe_load=True))
    except ValueError as error:
        raise ValueError(f"vgg: {vgg}: {error}") from error
    log.info("Perceptual loss: VGG from %s.", vgg)
    return features


def perceptual_loss(
    features: Callable, decode: Callable, predicted: Tensor, frames: Tensor, hands: Tensor, timestep: Tensor
) -> Tensor:
    """(1 + m)·VGG(V̂, V) of the clips whose timestep is below PERCEPTUAL_BELOW, a scalar (eq. 6).

    The distance is the mean |difference| of the features, of each size with equal weight; m is averaged down to it. It
    is divided by all clips, so that 30 % of the timesteps weigh the same in a batch of one and of eight.
    features: VGGFeatures or EdgePyramid. decode: from x̂0 [b, 16, t, h, w], with gradients, to frames [b, T, H, W, 3] in
    0…1. predicted: x̂0 of one_step. frames: [B, T, H, W, 3] in 0…1; hands: [B, T, H, W], 1 on hands. timestep: [B].
    Only the clips that count are decoded.
    """
    chosen = (timestep < PERCEPTUAL_BELOW).nonzero()[:, 0].to(predicted.device)
    if not len(chosen):
        return predicted.new_zeros(())
    decoded, truth = decode(predicted[chosen]), frames[chosen]
    if decoded.shape != truth.shape or hands.shape != frames.shape[:-1]:
        raise ValueError(
            f"frames: decoded they are {tuple(decoded.shape)}; expected {tuple(truth.shape)}, and hands of the same "
            f"frames, not {tuple(hands.shape)}."
        )
    pictures = [video.flatten(0, 1).movedim(-1, 1).float() for video in (decoded, truth)]  # [b·T, 3, H, W]
    weight = 1 + hands[chosen].flatten(0, 1)[:, None].to(decoded)  # [b·T, 1, H, W]
    levels = [
        (F.adaptive_avg_pool2d(weight, ours.shape[-2:]) * (ours - theirs).abs()).mean()
        for ours, theirs in zip(*map(features, pictures))
    ]
    return torch.stack(levels).mean() * len(chosen) / len(predicted)


class Losses(NamedTuple):
    """The total with its graph, and its parts without weights or graph, for the record."""

    total: Tensor
    latent: Tensor
    perceptual: Tensor
    epipolar: Tensor


def total_loss(
    latent: Tensor,
    perceptual: Tensor | None = None,
    epipolar: Tensor | None = None,
    perceptual_weight: float = PERCEPTUAL_WEIGHT,
    epipolar_weight: float = EPIPOLAR_WEIGHT,
) -> Losses:
    """L = L_latent + λ_vgg L_vgg + λ_epipolar L_epipolar (eq. 7). A part that a stage does not use is None."""
    parts = [latent.new_zeros(()) if part is None else part for part in (perceptual, epipolar)]
    total = latent + perceptual_weight * parts[0] + epipolar_weight * parts[1]
    return Losses(total, *(part.detach() for part in (latent, *parts)))
