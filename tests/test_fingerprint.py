"""What models, pictures and objects are, as hashes."""

import gc

import pytest
import render_toys
import torch
from animate_anywhere.models import attach, fingerprint

pytestmark = pytest.mark.usefixtures("no_gradients")


def test_a_model_is_what_it_is_set_to_and_not_what_was_done_with_it():
    """Sampling merges background motion into the weights, and the host leaves it there."""
    toy = render_toys.make(5)

    def weaker(**strengths):
        return attach.attach(toy.base, toy.adapter, pose_strength=0.5, **strengths)

    gc.collect()
    before = fingerprint.of_model(weaker())
    render_toys.sample(toy._replace(model=weaker()))
    assert fingerprint.of_model(weaker()) == before
    assert fingerprint.of_model(weaker(background_motion_strength=0.9)) != before
    assert fingerprint.of_model(toy.model) != before


def test_what_an_object_is_set_to_and_closes_over_counts():
    def patched(strength, bias):
        return {"patch": lambda weight: weight * strength, "bias": [bias, ("text", 1.0)]}

    one = fingerprint.of(patched(1.0, torch.zeros(3)))
    assert fingerprint.of(patched(1.0, torch.zeros(3))) == one
    assert fingerprint.of(patched(2.0, torch.zeros(3))) != one
    assert fingerprint.of(patched(1.0, torch.tensor([0, 0, 1e-9]))) != one
    assert fingerprint.of(torch.zeros(1).expand(5)) == fingerprint.of(torch.zeros(5))
