"""Configurations of training: the shipped ones are right, and mistakes are named."""

from dataclasses import replace

import pytest
import torch
from animate_anywhere.models import checkpoint as adapters
from animate_anywhere.training import configuration, networks
from training_toys import LADDER, TINY


@pytest.mark.parametrize("name", configuration.names())
def test_every_stage_of_every_configuration_is_valid(name):
    for stage in configuration.stages_of(name):
        assert configuration.load(name, stage).stage == stage


@pytest.mark.parametrize("name", TINY)
def test_the_tiny_configurations_describe_the_family_that_ships(name):
    model = configuration.load(name, "joint").model
    shipped = configuration.ROOT / "weights"
    base = networks.base_of(model)
    networks.load_base(shipped / "diffusion_models" / "aa_tiny_base.safetensors", base, torch.bfloat16)
    header, groups = adapters.read(shipped / "animate_anywhere" / "aa_tiny_adapter.safetensors")
    assert header.base == base
    assert len(next(value for name, value in groups["background_motion"].items() if "lora_A" in name)) == model.rank


@pytest.mark.parametrize("stage", LADDER)
def test_the_tiny_configurations_teach_the_same(stage):
    """On the GPU with more samples. What a processor has no time for, decoding whole clips, is left out."""
    cpu, gpu = (configuration.load(name, stage) for name in TINY)
    window = {name: getattr(gpu.loss, name) for name in ("decoded", "window_latents", "window_side")}
    assert (cpu.model, cpu.conditions, replace(cpu.loss, **window)) == (gpu.model, gpu.conditions, gpu.loss)
    assert gpu.run.steps * gpu.run.batch > 2 * cpu.run.steps * cpu.run.batch


def test_the_paper_s_numbers():
    settings = configuration.load("cogvideox1.5-5b", "joint")
    assert (settings.run.steps, settings.run.batch, settings.optimiser.learning_rate) == (20000, 8, 1e-5)
    assert (settings.loss.perceptual, settings.loss.epipolar, settings.loss.percentile) == (0.2, 0.005, 30)
    assert settings.data.sizes == ((1360, 768), (768, 1360))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[modle]\nheads = 3", r"unknown key modle. Did you mean model\?"),
        ("[run]\nstep = 3", r"unknown key run.step. Did you mean run.steps\?"),
        ("[stages.joint.losses]\nepipolar = 1.0", r"unknown key stages.joint.losses. Did you mean stages.joint.loss\?"),
        ("[stages.joint.loss]\nepipolr = 1.0", r"unknown key loss.epipolr. Did you mean loss.epipolar\?"),
        ("[run]\nsteps = 'many'", r"\[run\] expected int, found 'many'"),
        ("[data]\nsizes = [[128]]", r"\[data\] expected a list like"),
        ("[data]\nframes = 30", r"toy.toml: data.frames: 30 frames .* Use 37"),
        ("[conditions]\nclean_start = 0.9", "their sum is 1.4"),
        ("[optimiser]\nkind = 'sgd'", "optimiser.kind is 'sgd'; choose one of adamw, muon"),
        ("[loss]\nprobed_blocks = [7]", "loss.probed_blocks"),
        ("[loss]\ntimestep_shift = 0.0", "loss.timestep_shift is 0; it must be more than 0"),
        ("[run", "toy.toml: "),
    ],
)  # fmt: skip
def test_mistakes_in_a_configuration_are_named(tmp_path, text, message):
    model = "[model]\nheads = 1\nblocks = 5\ntime_width = 16\ntext_width = 24\nvae = 'x'\n"
    stage = "" if "stages.joint" in text else "[stages.joint]\n"
    (tmp_path / "toy.toml").write_text(f"{model}{text}\n{stage}")
    with pytest.raises(ValueError, match=message):
        configuration.load(str(tmp_path / "toy.toml"), "joint")


def test_a_missing_key_of_the_model_is_named(tmp_path):
    (tmp_path / "toy.toml").write_text("[model]\nheads = 1\n[stages.joint]\n")
    with pytest.raises(ValueError, match=r"toy.toml: \[model\] missing .*blocks"):
        configuration.load(str(tmp_path / "toy.toml"), "joint")


def test_a_stage_that_a_configuration_lacks_is_named():
    with pytest.raises(ValueError, match="has no stage 'base'. Its stages: pose_control, reference, joint"):
        configuration.load("cogvideox1.5-5b", "base")
