"""The family under training: the forward of inference, and files that ComfyUI loads."""

from dataclasses import replace

import comfy.sd
import folder_paths
import pytest
import torch
import toys
from animate_anywhere.models import attach, dit
from animate_anywhere.models import checkpoint as adapters
from animate_anywhere.nodes import adapter as nodes
from animate_anywhere.training import background_motion, checkpoint, networks, sheet
from training_toys import ALONE, STAGES

pytest_plugins = ["training_toys"]


def toy_family(stage: str = "joint", **kwargs) -> networks.Family:
    base = networks.build_base(adapters.Base(64, 1, 5, 16, 24))
    family = networks.Family(toys.randomised(base), stage, 4, **kwargs)
    for part in family.trained().values():  # so that nothing is the identity it begins as
        toys.randomised(part, seed=1, scale=0.2)
    return family


def inputs(batch: int = 2) -> dict:
    generator = torch.Generator().manual_seed(3)
    shapes = {"noisy": (4, 4, 6), "background": (4, 4, 6), "pose": (4, 4, 6), "character": (1, 4, 6)}
    values = {name: torch.randn(batch, 16, *shape, generator=generator) for name, shape in shapes.items()}
    return {**values, "timestep": torch.linspace(900, 100, batch).long()}


def test_background_motion_as_hooks_equals_merged_weights():
    family = toy_family()
    hooked = family(**inputs())
    merged = toy_family()
    for name, down, up in zip(*(getattr(family.background_motion, part) for part in ("layers", "down", "up"))):
        merged.base.get_submodule(name).weight.data += up @ down
    for parameter in merged.background_motion.parameters():
        parameter.data.zero_()
    plain = merged(**inputs())
    for parameter in family.background_motion.parameters():
        parameter.data.zero_()
    assert (family(**inputs()) - hooked).abs().max() > 0.01  # it does something
    torch.testing.assert_close(hooked, plain, rtol=1e-4, atol=1e-5)  # x(W + BA) and xW + xAB round differently


def test_a_freshly_built_family_is_its_base():
    family = networks.Family(toys.randomised(networks.build_base(adapters.Base(64, 1, 5, 16, 24))), "reference", 4)
    values = inputs()
    plain = family(**{**values, "pose": None, "character": None})
    assert torch.equal(family(**{**values, "character": None}), plain)


@pytest.mark.parametrize("stage", ["joint", *ALONE])
def test_gradient_checkpointing_changes_no_gradient(stage):
    gradients = []
    for change in (lambda family: family, networks.Family.checkpoint_blocks):
        family = change(toy_family(stage))
        family(**inputs()).square().mean().backward()
        gradients.append({name: p.grad for name, p in family.named_parameters() if p.requires_grad})
    assert all(gradient is not None for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@pytest.mark.parametrize("stage", STAGES)
def test_only_the_stage_own_networks_are_trained(stage):
    names = {name.split(".")[0] for name, p in toy_family(stage).named_parameters() if p.requires_grad}
    assert names == set(networks.STAGES[stage])


def test_training_runs_the_reference_in_batches_as_inference_runs_one():
    family, values = toy_family(), inputs()
    both = family.reference(values["character"], family.options())
    for i in range(2):
        one = family.reference(values["character"][i : i + 1], family.options())
        for state, batched in zip(one.states, both.states):
            torch.testing.assert_close(state, batched[i : i + 1], rtol=1e-4, atol=1e-5)


@pytest.fixture
def exported(tmp_path):
    """A trained family, its adapter's file, and its base as the stock loader gives it."""
    family = toy_family().requires_grad_(False)
    path = checkpoint.write_networks(tmp_path, family, {"step": 7})
    state = {name: value.clone() for name, value in family.base.state_dict().items()}
    model = comfy.sd.load_diffusion_model_state_dict(state, model_options={"dtype": torch.float32})
    return family, path, model


def host_velocity(model, values: dict, **conditions) -> torch.Tensor:
    """What the graph's MODEL makes of one clip, through the host's apply_model path."""
    comfy.model_management.load_models_gpu([model])
    network = model.model.diffusion_model
    options = {**model.model_options["transformer_options"], "wrappers": model.wrappers}
    return network(
        torch.cat([values["noisy"], values["background"]], 1), values["timestep"],
        dit.no_text(24).expand(1, -1, -1), torch.full((1,), 2.0), options, **conditions,
    )  # fmt: skip


def test_an_exported_adapter_does_in_the_graph_what_it_did_in_training(exported):
    family, path, model = exported
    adapter, values = adapters.load(path), inputs(batch=1)
    assert adapter.header.training == {"stage": "joint", "step": 7, "image_latent_scale": 1.15258426}
    patched = attach.attach(model, adapter)
    with torch.no_grad():
        reference = family.reference(values["character"], family.options())
        seen = host_velocity(patched, values, aa_pose=values["pose"], aa_reference=reference)
        expected = family(**values)
    torch.testing.assert_close(seen, expected, rtol=1e-3, atol=1e-4)
    assert (expected - host_velocity(patched, values)).abs().max() > 0.01


def test_training_shows_the_start_picture_in_the_scale_of_the_released_base(monkeypatch):
    """As the 5B model is shown it, here at toy size: all else is scaled by 1.15258426, the picture is not."""
    family, values = toy_family(), inputs(batch=1)
    with torch.no_grad():
        plain = family(**values)
        monkeypatch.setattr(adapters.Base, "image_latent_scale", 1.0)
        released = family(**values)
        monkeypatch.undo()
        by_hand = family(**values | {"background": values["background"] / 1.15258426})
    torch.testing.assert_close(released, by_hand)
    assert (released - plain).abs().max() > 1e-3


@pytest.mark.usefixtures("quick_clips")
@pytest.mark.parametrize("stage", ALONE)
def test_a_trained_way_to_follow_a_pose_does_in_the_graph_what_it_did_in_training(joint, ladder, monkeypatch, stage):
    """From the run's checkpoint through Load and Apply AnimateAnywhere Adapter."""
    trainer = joint("run.steps=3", "optimiser.learning_rate=0.02", stage=stage)
    trainer.run()
    folder = trainer.folder / checkpoint.folder_of(3)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, nodes.FOLDER, ([str(folder)], {".safetensors"}))
    (adapter,) = nodes.LoadAdapter.execute(checkpoint.ADAPTER).result
    assert adapter.header.training["stage"] == stage and set(adapter.header.groups) == {stage}
    base = str(ladder / "toy" / "base" / checkpoint.BASE)
    model = comfy.sd.load_diffusion_model(base, model_options={"dtype": torch.float32})
    (patched,) = nodes.ApplyAdapter.execute(model, adapter, 1.0, 1.0, 1.0).result
    values = inputs(batch=1)
    with torch.no_grad():
        expected = trainer.family(**values)
        seen, plain = (host_velocity(patched, values, **pose) for pose in ({"aa_pose": values["pose"]}, {}))
    assert (expected - plain).abs().max() > 0.01
    torch.testing.assert_close(seen, expected, rtol=1e-3, atol=1e-4)


class Batch:
    """What a sheet's guider needs of a batch."""

    def __init__(self, values: dict) -> None:
        self.__dict__ |= values

    def start(self, kinds) -> torch.Tensor:
        return self.background


@pytest.mark.parametrize("stage", ["joint", *ALONE])
def test_a_sheet_guides_as_the_graph_does(stage, monkeypatch):
    """DynamiCtrl's branches both have the pose and, without text, are one; the others' differ in pose and reference."""
    family, values, told = toy_family(stage).requires_grad_(False), inputs(), []
    forward = family.forward
    monkeypatch.setattr(family, "forward", lambda *args, **more: told.append("pose" in more) or forward(*args, **more))
    plain, guided = (
        sheet.Guider(family, Batch(values), ("own", "own"), guidance)(values["noisy"], torch.tensor([2.0, 1.0]))
        for guidance in (1.0, 3.0)
    )
    if stage in ALONE:
        assert told == [True, True] and torch.equal(plain, guided)
    else:
        assert told == [True, True, False] and not torch.allclose(plain, guided)


def test_an_exported_adapter_at_strength_0_changes_nothing(exported):
    family, path, model = exported
    values = inputs(batch=1)
    plain = host_velocity(model, values)
    patched = attach.attach(model, adapters.load(path), 0.0, 0.0, 0.0)
    reference = family.reference(values["character"], family.options())
    assert torch.equal(host_velocity(patched, values, aa_reference=reference.to("cpu", torch.float32)), plain)


def test_trained_background_motion_loads_in_the_stock_lora_loader(exported):
    _, path, model = exported
    lora = adapters.read(path)[1]["background_motion"]
    stock, _ = comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0.0)
    only = replace(adapters.load(path), pose_control=None, reference=None)
    values = inputs(batch=1)
    outputs = [host_velocity(each, values).clone() for each in (model, stock, attach.attach(model, only))]
    assert torch.equal(outputs[1], outputs[2])
    assert not torch.equal(outputs[0], outputs[1])


def test_the_base_comes_out_in_the_formats_of_the_host(ladder):
    model = comfy.sd.load_diffusion_model(str(ladder / "toy" / "base" / checkpoint.BASE))
    dit.check_base(model)
    assert adapters.Base.of(model.model.diffusion_model) == adapters.Base(64, 1, 5, 16, 24)


def test_background_motion_of_another_rank_is_refused():
    base = networks.build_base(adapters.Base(64, 1, 2, 16, 24))
    with pytest.raises(ValueError, match="of rank 8; expected 16 of rank 4"):
        background_motion.BackgroundMotion(base, 4).load_file_state(
            background_motion.BackgroundMotion(base, 8).file_state()
        )
