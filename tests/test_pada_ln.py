"""PadaLN and its two rivals, in the controlled forward: against a restatement of the released model."""

from dataclasses import replace
from functools import lru_cache

import comfy.sd
import pytest
import released
import torch
import toys
from animate_anywhere.models import attach, checkpoint, clips, dit, shards
from animate_anywhere.models.pada_ln import PadaLN
from animate_anywhere.nodes import shot as shots

SIZES = pytest.mark.parametrize(("height", "width"), [(8, 4), (4, 8)], ids=["portrait", "landscape"])
RIVALS = ["pada_ln", "unified_tokens", "cross_attention"]


def given(batch=1, height=4, width=8, timestep=700.0, frames=4):
    """Inputs of the released model."""
    generator = torch.Generator().manual_seed(5)
    shapes = {"x": (frames, 32, height, width), "pose": (frames, 16, height, width), "text": (7, released.TEXT)}
    values = {name: torch.randn(batch, *shape, generator=generator) for name, shape in shapes.items()}
    return {**values, "timestep": torch.linspace(timestep, timestep / 2, batch)}


def native(state):
    return {shards.native_key(key): value for key, value in state.items()}


@lru_cache
def networks(blocks):
    """The host's transformer and our PadaLN with the released toy's weights."""
    parts = native(released.weights(blocks))
    own = {key.replace(".control_norm1.", "."): parts.pop(key) for key in list(parts) if ".control_norm1." in key}
    base = comfy.sd.load_diffusion_model_state_dict(parts, model_options={"dtype": torch.float32})
    network = base.model.diffusion_model
    pada = PadaLN(network.dim, released.TIME, len(network.blocks))
    pada.load_state_dict(own)
    return network, pada


def ours(blocks, x, pose, timestep, text):
    network, pada = networks(blocks)
    with torch.no_grad():
        return dit.forward(
            network, x.movedim(1, 2), timestep, text, torch.full_like(timestep, 2.0),
            controls=lambda tokens: pada.controls(network, tokens, pose.movedim(1, 2), 1.0, {}),
        ).movedim(2, 1)  # fmt: skip


def difference(one, other):
    return float((one - other).norm() / other.norm())


@SIZES
@pytest.mark.parametrize("blocks", [2, 4])
@pytest.mark.parametrize("batch", [1, 2])
def test_the_released_model(blocks, batch, height, width):
    """1e-5: both are float32 and differ in the order of their sums only."""
    state = released.weights(blocks)
    for timestep in (999.0, 480.0, 20.0):
        inputs = given(batch, height, width, timestep)
        assert difference(ours(blocks, **inputs), released.forward(state, **inputs)) < 1e-5


@pytest.mark.parametrize("wrong", released.WRONG)
@pytest.mark.parametrize("blocks", [2, 4])
def test_a_wrong_reading_of_it_is_told_apart(wrong, blocks):
    state, inputs = released.weights(blocks), given()
    assert difference(ours(blocks, **inputs), released.forward(state, **inputs, reading=released.WRONG[wrong])) > 0.1


def test_strength_scales_what_is_added_and_not_the_chain():
    """At strength s the added y is s·y in every block; the norms of the chain see nothing of it."""
    network, pada = networks(2)
    inputs = given()
    tokens = dit.embed(network, inputs["x"].movedim(1, 2), inputs["timestep"], inputs["text"], torch.full((1,), 2.0))
    pose = inputs["pose"].movedim(1, 2)
    whole, half = (list(pada.controls(network, tokens, pose, strength, {})) for strength in (1.0, 0.5))
    for one, other in zip(whole, half):
        torch.testing.assert_close(other.normed, one.normed / 2)


# --- as adapters: trained alone, saved, loaded, applied


@pytest.fixture
def model():
    return toys.cogvideox_patcher()


def build(group, network):
    base = checkpoint.Base.of(network)
    return getattr(checkpoint, f"{group}_for")(base, dtype=torch.float32).start_from(network)


def adapter_of(folder, group, network, seed=None):
    """A file with one group; with a ``seed``, trained."""
    part = build(group, network)
    state = (part if seed is None else toys.randomised(part, seed)).state_dict()
    checkpoint.save(folder / f"{group}.safetensors", checkpoint.Base.of(network), {group: state})
    return checkpoint.load(folder / f"{group}.safetensors")


def velocity(model, **conditions):
    inputs = toys.inputs()
    options = {"wrappers": model.wrappers}
    with torch.no_grad():
        return model.model.diffusion_model(**inputs, transformer_options=options, **conditions)


@pytest.fixture
def pose():
    return torch.randn(1, 16, 2, 4, 8)


@pytest.mark.parametrize("group", RIVALS)
def test_training_starts_from_the_identity(tmp_path, model, pose, group):
    patched = attach.attach(model, adapter_of(tmp_path, group, model.model.diffusion_model))
    torch.testing.assert_close(velocity(patched, aa_pose=pose), velocity(model), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("group", RIVALS)
def test_a_trained_file_acts_and_0_strength_leaves_it_out(tmp_path, model, pose, group):
    adapter = adapter_of(tmp_path, group, model.model.diffusion_model, seed=3)
    assert (velocity(attach.attach(model, adapter), aa_pose=pose) - velocity(model)).abs().max() > 1e-3
    patched = attach.attach(model, adapter, pose_strength=0.0)
    assert not patched.additional_models and torch.equal(velocity(patched), velocity(model))


@pytest.mark.parametrize("group", RIVALS)
def test_what_is_loaded_computes_what_was_trained(tmp_path, model, pose, group):
    network = model.model.diffusion_model
    part, inputs = toys.randomised(build(group, network), 3), toys.inputs()
    with torch.no_grad():
        trained = dit.forward(network, **inputs, controls=lambda tokens: part.controls(network, tokens, pose, 1.0, {}))
    patched = attach.attach(model, adapter_of(tmp_path, group, network, seed=3))
    torch.testing.assert_close(velocity(patched, aa_pose=pose), trained, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("group", RIVALS)
def test_it_learns_alone_on_a_frozen_base(model, pose, group):
    """Every one of its weights gets a gradient within a few steps, though all blocks but the first begin asleep."""
    network = model.model.diffusion_model.requires_grad_(False)
    part, inputs = build(group, network), toys.inputs()
    optimiser = torch.optim.Adam(part.parameters(), lr=0.01)
    target, losses = torch.randn(1, 16, 2, 4, 8), []
    for _ in range(12):
        output = dit.forward(network, **inputs, controls=lambda tokens: part.controls(network, tokens, pose, 1.0, {}))
        loss = (output - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    last = f"blocks.{len(network.blocks) - 1}"  # of PadaLN's gates, the last goes nowhere
    asleep = [name for name, p in part.named_parameters() if not p.grad.any() and not name.startswith(last)]
    assert losses[-1] < losses[0] and not asleep


@pytest.mark.parametrize("group", RIVALS)
def test_with_guidance_both_branches_have_the_pose(tmp_path, model, group):
    """They were trained so, as DynamiCtrl was; at strength 0 nothing of it is left."""
    adapter, vae = adapter_of(tmp_path, group, model.model.diffusion_model), toys.taehv_vae()
    shot = clips.make_shot(torch.rand(5, 32, 48, 3), torch.rand(1, 32, 48, 3))
    words = [[[torch.randn(1, 7, released.TEXT), {}]] for _ in range(2)]
    for strength in (1.0, 0.0):
        patched = attach.attach(model, adapter, pose_strength=strength)
        positive, negative, _ = shots.EncodeShot.execute(shot, vae, *words, model=patched).result
        assert "aa_pose" in positive[0][1]
        assert ("aa_pose" in negative[0][1]) == (strength > 0)


@pytest.mark.parametrize("group", RIVALS)
def test_a_model_follows_the_pose_through_one_network_only(tmp_path, model, group):
    network = model.model.diffusion_model
    patched = attach.attach(model, adapter_of(tmp_path, group, network))
    with pytest.raises(ValueError, match=f"it has a {group} adapter already"):
        attach.attach(patched, adapter_of(tmp_path, "pose_control", network))
    both = replace(adapter_of(tmp_path, group, network), pose_control=patched.additional_models[attach.KEY][0])
    with pytest.raises(ValueError, match=f"it has pose_control and {group}"):
        attach.attach(model, both)
