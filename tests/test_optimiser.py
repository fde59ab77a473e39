"""AdamW and Muon as they update weights."""

import pytest
import torch
from animate_anywhere.training import configuration, optimiser


def test_bfloat16_weights_take_up_small_updates():
    """1e-5 a step is below what bfloat16 can add to a weight of 1; its float32 copy adds up."""
    weight = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    settings = configuration.Optimiser(learning_rate=1e-5, weight_decay=0.0, clip=0.0)
    updates = optimiser.Optimiser({"weight": weight}, settings)
    for _ in range(600):
        weight.grad = torch.ones_like(weight)
        updates.step(1.0, updates.reduce())
    assert weight.detach().float().mean() == pytest.approx(1 - 600e-5, abs=2**-9)  # half a step of bfloat16


def test_muon_makes_updates_orthogonal():
    for shape in ((3, 24, 60), (3, 60, 24)):
        matrices = torch.randn(shape)
        updates = optimiser.orthogonal(matrices)
        values = torch.linalg.svdvals(updates)
        assert values.min() > 0.5 and values.max() < 1.3  # the five steps are made to end in this band
        assert ((updates * matrices).flatten(1).sum(1) > 0).all()


def test_gradients_are_clipped_to_their_longest():
    weights = {str(i): torch.nn.Parameter(torch.zeros(3)) for i in range(2)}
    updates = optimiser.Optimiser(weights, configuration.Optimiser(clip=1.0))
    for weight in weights.values():
        weight.grad = torch.full((3,), 10.0)
    norm = updates.reduce()
    assert norm == pytest.approx(10 * 6**0.5)
    seen = []
    updates.parts[0].step = lambda factor: seen.extend(weight.grad.clone() for weight in weights.values())
    updates.step(1.0, norm)
    assert torch.cat(seen).norm() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_weight_without_gradient_decays_by_rate_times_decay(kind):
    weight = torch.nn.Parameter(torch.ones(6, 4))
    settings = configuration.Optimiser(kind=kind, learning_rate=0.1, muon_rate=0.1, weight_decay=0.5)
    updates = optimiser.Optimiser({"base.blocks.0.q.weight": weight}, settings)
    weight.grad = torch.zeros_like(weight)
    updates.step(0.5, updates.reduce())
    torch.testing.assert_close(weight.detach(), torch.full((6, 4), 1 - 0.5 * 0.1 * 0.5))


def test_gradients_go_over_the_wire_in_buckets_of_one_dtype(monkeypatch):
    monkeypatch.setattr(optimiser, "BUCKET", 10)
    tensors = [torch.zeros(count) for count in (4, 6, 1, 30, 2)]
    tensors.insert(3, torch.zeros(3, dtype=torch.bfloat16))
    buckets = [[len(tensor) for tensor in bucket] for bucket in optimiser._buckets(tensors)]
    assert buckets == [[4, 6], [1], [3], [30], [2]]


def test_learning_rates_follow_the_step():
    settings = configuration.Optimiser(schedule="cosine", warmup=10)
    rates = [optimiser.learning_rate(settings, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1, abs=0.01)
    assert max(rates) == pytest.approx(1, abs=0.03)
    assert rates[-1] < 0.001
    assert optimiser.learning_rate(configuration.Optimiser(), 77, 100) == 1
