"""What the epipolar constraint needs of memory, against what is told of it."""

import math
from functools import partial

import numpy as np
import pytest
import torch
import toys
from animate_anywhere.models import dit
from animate_anywhere.models.latents import latent_frames
from animate_anywhere.training import epipolar
from animate_anywhere.training.epipolar import AttentionProbe, EpipolarConstraint
from comfy.ldm.modules.attention import attention_pytorch
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint


def peak(run) -> int:
    """The most bytes that were allocated at once during ``run``."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as recorded:
        run()
    events = recorded.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return int(np.cumsum([change for _, change in changes]).max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("tokens", "queries", "heads"), [(8192, 64, 8), (4096, 512, 4)])
def test_memory_is_as_told(dtype, tokens, queries, heads, monkeypatch):
    """The constraint's forward and backward beside the queries and keys that the attention holds anyway. At most what
    is told, and not less than half: it counts copies that float32 does without."""
    monkeypatch.setattr(epipolar, "GROUP_BYTES", 2**22)
    text, extra = 226, 500
    q = torch.randn(1, text + tokens, heads * 64).to(dtype).requires_grad_()
    k = torch.randn(1, text + tokens + extra, heads * 64).to(dtype).requires_grad_()
    generator = torch.Generator().manual_seed(0)
    outside = torch.rand(1, queries, 4, tokens // 4, generator=generator) < 0.9
    limits = EpipolarConstraint(torch.randint(tokens, (1, queries), generator=generator), outside)
    probe = AttentionProbe(torch.nn.Module(), [], limits.queries, tokens)
    measured = outside.numel() + peak(lambda: limits(probe._rows(q, k, heads)).backward())
    told = epipolar.epipolar_bytes(tokens, queries, heads, text=text, extra=extra, itemsize=dtype.itemsize)
    assert q.grad.any() and k.grad.any()
    assert told / 2 <= measured <= told


def test_a_checkpointed_training_step_needs_no_more_than_told():
    """Beside fused attention, which builds no map either."""
    grid, count = (2, 16, 32), 64
    network = toys.cogvideox_patcher(num_layers=2).model.diffusion_model.requires_grad_()
    for block in network.blocks:
        block.around = partial(checkpoint, use_reentrant=False)
    given, tokens = toys.inputs(*(2 * side for side in grid)), math.prod(grid)
    outside = torch.rand(1, count, grid[0], tokens // grid[0]) < 0.9
    limits = EpipolarConstraint(torch.randint(tokens, (1, count)), outside)
    fused = {"optimized_attention_override": lambda _, *args, **kwargs: attention_pytorch(*args, **kwargs)}

    def step(blocks):
        network.zero_grad()
        with AttentionProbe(network, blocks, limits.queries, tokens, limits) as probe:
            latent = dit.forward(network, **given, transformer_options=probe.options(fused)).square().mean()
            (latent + probe.mean() if blocks else latent).backward()
        network.zero_grad()

    step([0, 1])  # what is allocated once, is
    extra = peak(lambda: step([0, 1])) - peak(lambda: step([]))
    assert extra <= epipolar.epipolar_bytes(tokens, count, 2, text=5, itemsize=4, blocks=2)


@pytest.mark.parametrize("frames", [45, 85])
def test_the_5b_model_needs_less_than_a_gigabyte_more(frames):
    """At 1360×768 with a reference as large, on every block, even without gradient checkpointing."""
    tokens = latent_frames(frames) // 2 * 48 * 85
    assert epipolar.epipolar_bytes(tokens, 64, 48, extra=48 * 85, blocks=42) < 10**9
    whole_map = 2 * 48 * tokens**2
    assert whole_map > 50 * 10**9
