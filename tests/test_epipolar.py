"""The epipolar constraint against a dense restatement of eq. 4."""

import math
import weakref
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
import toys
from animate_anywhere.models import dit
from animate_anywhere.training import epipolar
from animate_anywhere.training.epipolar import AttentionProbe, EpipolarConstraint, Rows
from animate_anywhere.vision.geometry import HALF_WIDTH, Cameras
from comfy.ldm.cogvideo.model import apply_rotary_emb
from torch.utils.checkpoint import checkpoint

GRID = (3, 4, 6)  # token frames, rows, columns
TOKENS = math.prod(GRID)
BLOCKS = (1, 3)
CENTRES = ((0.0, 0.0, 0.0), (0.4, 0.1, 0.0), (0.9, 0.0, 0.3))  # where the camera stands, a token frame
FOCAL, TOKEN = 80.0, 16


def stock():
    return toys.cogvideox_patcher().model.diffusion_model.requires_grad_()


def inputs(batch=2):
    return toys.inputs(2 * GRID[0], 2 * GRID[1], 2 * GRID[2], batch=batch)


def travelling(batch=2) -> Cameras:
    """A camera that looks along z and travels through CENTRES; the second clip's goes the other way."""
    intrinsics = torch.tensor([[FOCAL, 0, GRID[2] * TOKEN / 2], [0, FOCAL, GRID[1] * TOKEN / 2], [0, 0, 1]])
    centres = torch.tensor([CENTRES, [[-x for x in centre] for centre in CENTRES]])[:batch]
    return Cameras(intrinsics.expand(batch, GRID[0], 3, 3), torch.eye(3).expand(batch, GRID[0], 3, 3), -centres[:batch])


def constraint(count=20, percentile=30.0, batch=2) -> EpipolarConstraint:
    background = torch.ones(batch, *GRID, dtype=torch.bool)
    background[:, :, 1:3, 2:4] = False
    generator = torch.Generator().manual_seed(5)
    return EpipolarConstraint.sample(travelling(batch), background, count, percentile, generator=generator)


def character(network, seed=1) -> list[dit.ExtraKeys]:
    """What a ReferenceNet would offer to the first two blocks: 7 tokens before the clip."""
    generator = torch.Generator().manual_seed(seed)
    rope = dit.rope_at(network, torch.tensor([-1]), 1, 7)
    width = toys.CONFIG["num_attention_heads"] * toys.CONFIG["attention_head_dim"]
    return [dit.ExtraKeys(torch.randn(1, 7, width, generator=generator), rope, 1.0) for _ in range(2)]


def gradients(loss, network) -> dict[str, torch.Tensor]:
    """Of the loss, for q and k of every block; zero where it does not reach."""
    named = {
        f"{i}.{name}": getattr(block, name).weight for i, block in enumerate(network.blocks) for name in ("q", "k")
    }
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {key: torch.zeros_like(named[key]) if one is None else one for key, one in zip(named, found)}


def dense_attention(block, tokens, extra) -> torch.Tensor:
    """The whole attention map of a block averaged over heads, [B, N, N]: queries and keys of the clip alone, the
    softmax over text, clip and extra keys."""
    text = tokens["encoder_hidden_states"].shape[1]
    normed = block.norm1(tokens["hidden_states"], tokens["encoder_hidden_states"], tokens["temb"])[:2]
    joint = torch.cat([normed[1], normed[0]], dim=1)
    heads = []
    for linear, norm in ((block.q, block.norm_q), (block.k, block.norm_k)):
        x = norm(linear(joint).unflatten(-1, (block.num_heads, block.head_dim))).transpose(1, 2)
        turned = apply_rotary_emb(x[:, :, text:], tokens["image_rotary_emb"])
        heads.append(torch.cat([x[:, :, :text], turned], dim=2))
    q, k = heads
    if extra is not None:
        normed = block.norm1(extra.hidden.expand(len(q), -1, -1), joint[:, :0], tokens["temb"])[0]
        more = block.norm_k(block.k(normed).unflatten(-1, (block.num_heads, block.head_dim))).transpose(1, 2)
        k = torch.cat([k, apply_rotary_emb(more, extra.rope)], dim=2)
    attention = torch.softmax(q @ k.mT / math.sqrt(block.head_dim), dim=-1).mean(1)
    return attention[:, text:, text : text + TOKENS]


def off_band(clip: int, i: int, place: int, j: int) -> torch.Tensor:
    """Which tokens [h·w] of frame j the query cannot be: distances to the line through two points of its ray."""
    sign = 1 if clip == 0 else -1
    centre = np.array([GRID[2], GRID[1]]) * TOKEN / 2
    pixel = (np.array([place % GRID[2], place // GRID[2]]) + 0.5) * TOKEN
    ray = np.array([*((pixel - centre) / FOCAL), 1.0])
    move = sign * (np.array(CENTRES[i]) - np.array(CENTRES[j]))
    ends = [centre + FOCAL * (point := depth * ray + move)[:2] / point[2] for depth in (1.0, 4.0)]
    way = (ends[1] - ends[0]) / np.linalg.norm(ends[1] - ends[0])
    off = []
    for row, column in np.ndindex(*GRID[1:]):
        to = (np.array([column, row]) + 0.5) * TOKEN - ends[0]
        off.append(abs(way[0] * to[1] - way[1] * to[0]) > HALF_WIDTH * TOKEN)
    return torch.tensor(off)


def dense_loss(network, given, extra, queries, percent) -> torch.Tensor:
    """Eq. 4 with the whole map, one query and one frame at a time."""
    inside = []
    hooks = [
        network.blocks[i].register_forward_pre_hook(lambda *call: inside.append(call[2]), with_kwargs=True)
        for i in BLOCKS
    ]
    dit.forward(network, **given, extra_keys=extra)
    for hook in hooks:
        hook.remove()
    place_count, total = GRID[1] * GRID[2], 0.0
    for index, tokens in zip(BLOCKS, inside):
        attention = dense_attention(network.blocks[index], tokens, extra[index] if index < len(extra) else None)
        for clip, query in ((c, int(q)) for c in range(len(queries)) for q in queries[c]):
            i, place = divmod(query, place_count)
            for j in set(range(GRID[0])) - {i}:
                row = attention[clip, query, j * place_count : (j + 1) * place_count]
                suppressed = off_band(clip, i, place, j)
                if percent is not None:
                    suppressed = suppressed & (row < row.detach().sort().values[int(percent * (place_count - 1) / 100)])
                total = total + (row * suppressed).sum()
    return total * GRID[0] / queries.numel() / len(BLOCKS)


def probed_loss(network, given, extra, limits, **kwargs) -> torch.Tensor:
    with AttentionProbe(network, BLOCKS, limits.queries, TOKENS, limits) as probe:
        dit.forward(network, **given, extra_keys=extra, transformer_options=probe.options(), **kwargs)
        return probe.mean()


@pytest.mark.parametrize("percent", [None, 30.0, 70.0])
def test_epipolar_loss_and_its_gradient_equal_the_dense_restatement(percent, monkeypatch):
    """Two clips, text, a reference in one of two blocks, one head at a time. 1e-4 of the largest gradient: float32
    through four blocks, summed in another order."""
    monkeypatch.setattr(epipolar, "GROUP_BYTES", 1)
    network, given, limits = stock(), inputs(), constraint(percentile=percent)
    extra = character(network)
    ours = probed_loss(network, given, extra, limits)
    dense = dense_loss(network, given, extra, limits.queries, percent)
    assert dense > 0
    assert abs(ours - dense) <= 1e-5 * dense
    actual, expected = gradients(ours, network), gradients(dense, network)
    largest = max(one.abs().max() for one in expected.values())
    for name, one in expected.items():
        assert (actual[name] - one).abs().max() <= 1e-4 * largest
    assert expected["1.q"].any() and expected["3.k"].any() and expected["0.q"].any()


def test_gradient_of_the_averaged_attention_equals_finite_differences(monkeypatch):
    monkeypatch.setattr(epipolar, "GROUP_BYTES", 4 * 2 * 9 * (4 + 8) * 2)  # three heads in groups of two
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 4, 3, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    k = torch.randn(2, 9, 3, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(epipolar.HeadMean.apply, (q, k))


def test_mixed_precision_does_not_round_the_attention():
    q, k = torch.randn(1, 3, 2, 64), torch.randn(1, 11, 2, 64)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = epipolar.HeadMean.apply(q, k)
    assert torch.equal(mixed, epipolar.HeadMean.apply(q, k))


def whole_block(block):
    """As trainers do that replace the block's forward, hooks stay outside of what is computed again."""
    inner = block.forward
    block.forward = lambda **given: checkpoint(partial(inner, **given), use_reentrant=False)


def from_outside(block):
    """As trainers do that call the block from a checkpointed function, hooks and all."""
    inner = block.__class__.__call__

    class Checkpointed(block.__class__):
        def __call__(self, **given):
            return checkpoint(partial(inner, self, **given), use_reentrant=False)

    block.__class__ = Checkpointed


@pytest.mark.parametrize("wrap", [whole_block, from_outside])
def test_gradient_checkpointing_changes_nothing(wrap):
    network, given, limits = stock(), inputs(), constraint()
    extra = character(network)
    expected = gradients(probed_loss(network, given, extra, limits), network)
    for block in network.blocks:
        wrap(block)
    looks = []

    def look(rows):
        loss = limits(rows)
        looks.append(weakref.ref(loss))
        return loss

    with AttentionProbe(network, BLOCKS, limits.queries, TOKENS, look) as probe:
        dit.forward(network, **given, extra_keys=extra, transformer_options=probe.options())
        actual = gradients(probe.mean(), network)
        # Each block was looked at twice, so it was checkpointed; a second loss kept would keep all that led to it.
        assert [one() is not None for one in looks] == [True] * len(BLOCKS) + [False] * len(BLOCKS)
    assert all(torch.equal(actual[name], one) for name, one in expected.items())


class Ours(torch.nn.Module):
    """dit.forward as a module, for torch's functional_call."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, **given):
        return dit.forward(self.network, **given)


def test_background_motion_learns_from_the_epipolar_loss():
    """LoRA on q and k: a fresh B is moved, as A is zero then only B can be."""
    network, given, limits = stock(), inputs(batch=1), constraint(batch=1)
    generator = torch.Generator().manual_seed(2)
    down = {name: torch.randn(4, 128, generator=generator, requires_grad=True) for name in ("q", "k")}
    up = {name: torch.zeros(128, 4, requires_grad=True) for name in ("q", "k")}
    changed = {
        f"network.blocks.1.{name}.weight": getattr(network.blocks[1], name).weight.detach() + up[name] @ down[name]
        for name in ("q", "k")
    }
    with AttentionProbe(network, [1], limits.queries, TOKENS, limits) as probe:
        torch.func.functional_call(Ours(network), changed, (), {**given, "transformer_options": probe.options()})
        probe.mean().backward()
    assert all(up[name].grad.abs().max() > 0 for name in up)


def test_the_probe_leaves_the_video_as_it_is():
    network, given, limits = stock(), inputs(), constraint()
    extra = character(network)
    with torch.no_grad(), AttentionProbe(network, BLOCKS, limits.queries, TOKENS) as probe:
        seen = dit.forward(network, **given, extra_keys=extra, transformer_options=probe.options())
        assert torch.equal(seen, dit.forward(network, **given, extra_keys=extra))


def test_the_probe_keeps_sampled_rows_and_all_keys():
    network, given, limits = stock(), inputs(), constraint(count=9)
    with torch.no_grad(), AttentionProbe(network, BLOCKS, limits.queries, TOKENS) as probe:
        dit.forward(network, **given, extra_keys=character(network), transformer_options=probe.options())
    text = given["context"].shape[1]
    assert probe.seen.keys() == set(BLOCKS)
    for index, extra in zip(BLOCKS, (7, 0)):
        assert probe.seen[index].queries.shape == (2, 9, 2, 64)
        assert probe.seen[index].keys.shape == (2, text + TOKENS + extra, 2, 64)
        assert probe.seen[index].text == text


STEERED = ("normed", "attended", "residual")


def steering(network, how, batch=2):
    """controls of dit.forward that change nothing, so that a steered block must be seen as one that is not."""
    zero = torch.zeros(batch, TOKENS, network.dim)
    control = dit.BlockControl(**{how: (lambda hidden: hidden) if how == "attended" else zero})
    return lambda tokens: [control] * len(network.blocks)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("how", STEERED)
def test_blocks_that_a_pose_network_steers_are_seen(how, checkpointed):
    """By PadaLN (normed), by cross-attention (attended) and by the others: with and without gradient checkpointing."""
    network, given, limits = stock(), inputs(), constraint()
    expected = gradients(probed_loss(network, given, character(network), limits), network)
    for block in network.blocks if checkpointed else ():
        block.around = partial(checkpoint, use_reentrant=False)
    with AttentionProbe(network, BLOCKS, limits.queries, TOKENS, limits) as probe:
        dit.forward(
            network, **given, extra_keys=character(network), transformer_options=probe.options(),
            controls=steering(network, how),
        )  # fmt: skip
        actual = gradients(probe.mean(), network)
    assert all(torch.equal(actual[name], one) for name, one in expected.items())


def test_a_weak_reference_is_still_among_the_keys():
    """At a strength between 0 and 1 a block attends twice, with it and without."""
    network, given, limits = stock(), inputs(), constraint()
    extra = [dit.ExtraKeys(one.hidden, one.rope, 0.5) for one in character(network)]
    with torch.no_grad(), AttentionProbe(network, [1], limits.queries, TOKENS) as probe:
        dit.forward(network, **given, extra_keys=extra, transformer_options=probe.options())
    assert probe.seen[1].keys.shape[1] == given["context"].shape[1] + TOKENS + 7


def test_the_probe_ignores_other_networks_under_the_same_options():
    """ControlNet runs between the base's blocks, with the same options."""
    network, other, given, limits = stock(), stock(), inputs(), constraint()
    with torch.no_grad(), AttentionProbe(network, BLOCKS, limits.queries, TOKENS, limits) as probe:
        dit.forward(other, **given, transformer_options=probe.options())
        with pytest.raises(ValueError, match=r"blocks \[1, 3\]"):
            probe.mean()


def test_other_overrides_of_the_attention_go_on_working():
    calls = []

    def other(function, *args, **kwargs):
        calls.append(function)
        return function(*args, **kwargs)

    network, given, limits = stock(), inputs(), constraint()
    with torch.no_grad(), AttentionProbe(network, BLOCKS, limits.queries, TOKENS) as probe:
        options = probe.options({"optimized_attention_override": other})
        dit.forward(network, **given, transformer_options=options)
    assert len(calls) == len(network.blocks)
    assert len(probe.seen) == 2


def test_queries_of_another_batch_are_refused():
    network, limits = stock(), constraint()
    with AttentionProbe(network, BLOCKS, limits.queries, TOKENS) as probe, pytest.raises(ValueError, match="2 clips"):
        dit.forward(network, **inputs(batch=1), transformer_options=probe.options())


def test_queries_are_background_drawn_alike_from_a_seed():
    background = torch.rand(2, *GRID, generator=torch.Generator().manual_seed(0)) < 0.3
    draws = [
        EpipolarConstraint.sample(travelling(), background, 200, generator=torch.Generator().manual_seed(seed))
        for seed in (7, 7, 8)
    ]
    assert background.flatten(1).gather(1, draws[0].queries).all()
    assert draws[0].queries[0].unique().numel() == background[0].sum()  # 200 draws miss none of about 20
    assert torch.equal(draws[0].queries, draws[1].queries)
    assert not torch.equal(draws[0].queries, draws[2].queries)


def test_a_frame_may_look_at_itself():
    limits = constraint(count=50)
    own = limits.queries // (GRID[1] * GRID[2])
    for frame in range(GRID[0]):
        assert not limits.outside[own == frame][:, frame].any()
        assert limits.outside[own != frame][:, frame].any()


def test_a_clip_without_background_adds_nothing_but_counts():
    """Divided by all clips, so that processes with unlike shares of them average to what one with all of them has."""
    background = torch.ones(2, *GRID, dtype=torch.bool)
    background[1] = False
    generator = torch.Generator().manual_seed(0)
    limits = EpipolarConstraint.sample(travelling(), background, 12, None, generator=generator)
    rows = Rows(torch.randn(2, 12, 2, 8), torch.randn(2, TOKENS, 2, 8), 0)
    shares = limits.suppressed(rows)
    assert shares[0].min() > 0
    assert not shares[1].any()
    assert torch.isclose(limits(rows), GRID[0] * shares[0].mean() / 2)


def rows_of(attention: torch.Tensor) -> Rows:
    """Rows of one head whose attention is ``attention`` [B, Q, N], each summing to 1: a query selects its own keys."""
    clips, queries, tokens = attention.shape
    keys = torch.zeros(clips, tokens, 1, queries)
    keys[:, :, 0] = attention.clamp_min(1e-30).log().mT * queries**0.5
    return Rows(torch.eye(queries).expand(clips, -1, -1)[:, :, None], keys, 0)


@pytest.mark.parametrize("percent", [10, 30, 50, 70, 90])
def test_only_attention_below_the_percentile_of_its_frame_is_suppressed(percent):
    attention = torch.rand(1, 5, 2 * 40, generator=torch.Generator().manual_seed(percent)).softmax(-1)
    outside = torch.rand(1, 5, 2, 40, generator=torch.Generator().manual_seed(1)) < 0.8
    limits = EpipolarConstraint(torch.zeros(1, 5, dtype=torch.long), outside, percent)
    frames = attention.view(1, 5, 2, 40).numpy()
    threshold = np.percentile(frames, percent, axis=-1, keepdims=True, method="lower")
    expected = (frames * (frames < threshold) * outside.numpy()).sum((-1, -2))
    assert np.allclose(limits.suppressed(rows_of(attention)), expected, rtol=1e-4)


def test_the_threshold_decides_between_nothing_and_all_outside_the_band():
    attention = torch.rand(1, 6, 80, generator=torch.Generator().manual_seed(0)).softmax(-1)
    outside = torch.rand(1, 6, 2, 40, generator=torch.Generator().manual_seed(1)) < 0.8
    shares = [
        EpipolarConstraint(torch.zeros(1, 6, dtype=torch.long), outside, percent).suppressed(rows_of(attention)).sum()
        for percent in (0, 10, 30, 50, 70, 90, None)
    ]
    assert shares[0] == 0
    assert all(less < more for less, more in pairwise(shares))
    assert torch.isclose(shares[-1], (attention * outside.flatten(2)).sum(), rtol=1e-4)


def test_the_loss_is_the_same_at_every_size():
    """Even attention, four fifths of it off the band: 0.8 a token frame, however many tokens there are."""
    for rows, columns in ((4, 5), (48, 85)):
        outside = (torch.arange(rows * columns) % 5 > 0).expand(1, 3, 2, -1)
        limits = EpipolarConstraint(torch.zeros(1, 3, dtype=torch.long), outside, None)
        even = Rows(torch.zeros(1, 3, 2, 8), torch.zeros(1, 2 * rows * columns, 2, 8), 0)
        assert torch.isclose(limits(even), torch.tensor(2 * 0.8))


def test_a_percentile_out_of_range_is_refused():
    with pytest.raises(ValueError, match="300"):
        constraint(percentile=300)
