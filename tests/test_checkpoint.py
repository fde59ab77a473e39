"""Adapter files: round trip, and one clear error for each way in which a file can be wrong.

Training's checkpoints, where its processes have disks of their own.
"""

import json
import os

import pytest
import safetensors.torch
import torch
import toys
from animate_anywhere.models import checkpoint
from animate_anywhere.training import checkpoint as training
from animate_anywhere.training import configuration, optimiser

pytest_plugins = ["training_toys"]


@pytest.fixture
def network():
    return toys.cogvideox_patcher().model.diffusion_model


@pytest.fixture
def path(tmp_path, network):
    path = tmp_path / "adapter.safetensors"
    checkpoint.save(
        path, checkpoint.Base.of(network), checkpoint.fresh(network, rank=4), training={"stage": "untrained"}
    )
    return path


def rewrite(path, **changes):
    """The same file with other header fields."""
    with safetensors.safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()[checkpoint.METADATA_KEY])
    tensors = safetensors.torch.load_file(path)
    header.update(changes)
    safetensors.torch.save_file(tensors, path, metadata={checkpoint.METADATA_KEY: json.dumps(header)})


def test_round_trip_is_exact(path, network):
    header, groups = checkpoint.read(path)
    assert header.base == checkpoint.Base.of(network)
    assert header.training == {"stage": "untrained", "image_latent_scale": 1.15258426} and header.licence == "GPL-3.0"
    for name, group in checkpoint.fresh(network, rank=4).items():
        assert groups[name].keys() == group.keys()
        assert all(torch.equal(groups[name][key], value) for key, value in group.items())


def test_networks_are_built_to_the_files_depth(path):
    adapter = checkpoint.load(path)
    assert len(adapter.pose_control.model.blocks) == 2  # 3/7 of 4
    assert len(adapter.reference.model.blocks) == 1  # two states: before its one block and after it


def test_three_sevenths_of_the_5b_model_are_18_blocks():
    assert checkpoint.Base(3072, 48, 42, 512, 4096).controlled_blocks == 18


def test_latent_scale_follows_the_hosts_rule():
    assert checkpoint.Base(3072, 48, 42, 512, 4096).latent_format.scale_factor == 0.7
    assert checkpoint.Base(128, 2, 4, 32, 24).latent_format.scale_factor == 1.15258426


def test_a_pickled_file_is_refused_with_the_command_that_converts_it(tmp_path):
    path = tmp_path / "old.pt"
    torch.save({}, path)
    with pytest.raises(ValueError, match=r"convert.py unpickle old.pt old.safetensors"):
        checkpoint.read(path)


def test_a_truncated_file_is_named(path):
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(ValueError, match=r"adapter.safetensors .* cut off"):
        checkpoint.read(path)


def test_an_unknown_format_says_which_and_what_is_read(path):
    rewrite(path, format=7)
    with pytest.raises(ValueError, match="format 7; this version of the pack reads format 1"):
        checkpoint.read(path)


@pytest.mark.parametrize(
    ("part", "added", "found"),
    [
        ("groups", {"objects": {"tensors": 0, "parameters": 0}}, "groups objects"),
        ("base", {"family": "wan2.2-i2v"}, "a base of the family wan2.2-i2v"),
    ],
)
def test_what_only_a_later_version_knows_is_named(path, part, added, found):
    with safetensors.safe_open(path, framework="pt") as file:
        there = json.loads(file.metadata()[checkpoint.METADATA_KEY])[part]
    rewrite(path, **{part: {**there, **added}})
    with pytest.raises(ValueError, match=f"adapter.safetensors has {found}, which this version"):
        checkpoint.read(path)


def test_a_group_that_nobody_could_load_is_not_saved(path, network):
    with pytest.raises(ValueError, match="got objects"):
        checkpoint.save(path, checkpoint.Base.of(network), {"objects": {}})


def test_a_missing_group_says_how_many_tensors_were_expected(path):
    tensors = {k: v for k, v in safetensors.torch.load_file(path).items() if not k.startswith("reference.")}
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    safetensors.torch.save_file(tensors, path, metadata=metadata)
    with pytest.raises(ValueError, match="group reference and has 0"):
        checkpoint.read(path)


def test_a_header_that_contradicts_the_weights_is_refused(path):
    with safetensors.safe_open(path, framework="pt") as file:
        base = json.loads(file.metadata()[checkpoint.METADATA_KEY])["base"]
    rewrite(path, base={**base, "width": 192, "heads": 3})
    with pytest.raises(ValueError, match="does not fit its header"):
        checkpoint.load(path)


def test_a_plain_lora_is_no_adapter_and_the_error_says_what_loads_it(tmp_path):
    path = tmp_path / "lora.safetensors"
    safetensors.torch.save_file({"diffusion_model.blocks.0.q.lora_A.weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="Load LoRA"):
        checkpoint.read(path)


def test_a_save_that_fails_leaves_the_old_file(path, network, monkeypatch):
    before = path.read_bytes()

    def full(*_args, **_kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(path, checkpoint.Base.of(network), {})
    assert path.read_bytes() == before


def weights_of(rank):
    """The optimiser of one process of two."""
    weights = {name: torch.nn.Parameter(torch.ones(4)) for name in ("one", "other")}
    return optimiser.Optimiser(weights, configuration.Optimiser(), rank, 2)


def test_a_process_with_a_disk_of_its_own_writes_its_memory_there(toy, tmp_path):
    """The first process makes the folder on another machine."""
    run, settings, team = tmp_path / "runs", toy("base", "run.keep=2"), training.Team(1, 2)
    for step in (1, 2, 3):
        training.save(run, step, None, weights_of(1), settings, team)
    kept = sorted(path.relative_to(run).as_posix() for path in run.rglob("*.safetensors"))
    assert kept == [f"checkpoint-0000000{step}.part/optimiser-1.safetensors" for step in (2, 3)]


def test_a_checkpoint_without_a_processs_memory_is_refused(joint, quick_clips):
    trainer, team = joint(), training.Team(0, 2)
    path = training.save(trainer.folder, 2, trainer.family, trainer.optimiser, trainer.configuration, team)
    with pytest.raises(ValueError, match=r"lacks optimiser-1.safetensors. It lies in checkpoint-00000002.part on"):
        joint(resume=True)
    (path / "optimiser-1.safetensors").write_bytes((path / "optimiser-0.safetensors").read_bytes())
    assert joint(resume=True).first == 2
