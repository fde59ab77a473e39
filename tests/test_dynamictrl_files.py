"""DynamiCtrl's files: found and loaded in every form they have; and those that cannot be are named before any weight is
read."""

import ctypes
import gc
import json
from pathlib import Path

import comfy.model_management
import folder_paths
import pytest
import released
import safetensors.torch
import torch
from animate_anywhere.models import attach, dynamictrl, shards
from animate_anywhere.nodes import dynamictrl as nodes

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.fixture(scope="module")
def state():
    return released.weights(2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, state):
    return released.save(tmp_path_factory.mktemp("models") / "DynamiCtrl" / "transformer", state, shards=3)


@pytest.fixture(scope="module")
def model(folder):
    with torch.inference_mode(False):
        return dynamictrl.load(folder)


def listed(monkeypatch, folder):
    """``folder``'s grandparent is models/diffusion_models."""
    root = folder.parent.parent
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "diffusion_models", ([str(root)], {".safetensors"}))
    folder_paths.filename_list_cache.pop("diffusion_models", None)
    return root


def test_the_node_finds_the_folder_and_its_model_computes_what_was_released(monkeypatch, folder, state):
    listed(monkeypatch, folder)
    assert nodes.checkpoints() == ["DynamiCtrl/transformer/"]
    (model,) = nodes.LoadDynamiCtrl.execute("DynamiCtrl/transformer/").result
    comfy.model_management.load_models_gpu([model, *model.get_nested_additional_models()])
    x, pose, text = torch.randn(1, 32, 4, 4, 6), torch.randn(1, 16, 4, 4, 6), torch.randn(1, 7, released.TEXT)
    timestep, options = torch.tensor([640.0]), {"wrappers": model.wrappers}
    network = model.model.diffusion_model
    ours = network(x, timestep, text, torch.tensor([2.0]), transformer_options=options, aa_pose=pose)
    expected = released.forward(state, x.movedim(2, 1), pose.movedim(2, 1), timestep, text).movedim(2, 1)
    assert (ours - expected).norm() < 1e-5 * expected.norm()  # the order of sums


def test_a_single_file_is_listed_by_its_name_and_found(monkeypatch, tmp_path, folder):
    target = tmp_path / "models" / "one" / "dynamictrl.safetensors"
    target.parent.mkdir(parents=True)
    shards.to_native(shards.read(folder), target)
    listed(monkeypatch, target)
    assert nodes.checkpoints() == ["one/dynamictrl.safetensors"]
    assert nodes.path_of("one/dynamictrl.safetensors") == target


def test_a_folder_that_has_gone_is_named(monkeypatch, folder):
    listed(monkeypatch, folder)
    with pytest.raises(ValueError, match="checkpoint: there is no folder Gone/ in models/diffusion_models"):
        nodes.path_of("Gone/")


def weights_of(model):
    pada = model.additional_models[attach.KEY][0].model
    return {**model.model.diffusion_model.state_dict(), **{f"pada.{k}": v for k, v in pada.state_dict().items()}}


@pytest.mark.parametrize("count", [1, 2, 5])
def test_any_number_of_shards_in_any_order_is_the_same_model(tmp_path, state, model, count):
    """Tensors are dealt to the shards from the last to the first."""
    backwards = dict(reversed(state.items()))
    loaded = dynamictrl.load(released.save(tmp_path / "transformer", backwards, count))
    expected = weights_of(model)
    assert weights_of(loaded).keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in weights_of(loaded).items())


def test_the_single_native_file_is_the_same_model(tmp_path, folder, model):
    shards.to_native(shards.read(folder), tmp_path / "dynamictrl.safetensors")
    loaded = dynamictrl.load(tmp_path / "dynamictrl.safetensors")
    assert all(torch.equal(value, weights_of(model)[key]) for key, value in weights_of(loaded).items())


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="asks Linux for the highest resident memory")
def test_memory_peaks_at_the_weights_size_and_one_shard(tmp_path):
    """Resident memory, mapped files included; 10 % on top for the network's own objects and what torch keeps."""
    state = released.weights(8, width=256)
    size = sum(value.numel() * value.element_size() for value in state.values())
    count = 4
    folder = released.save(tmp_path / "transformer", state, count)
    del state
    dynamictrl.load(released.save(tmp_path / "small", released.weights(1)))  # what a first load imports and caches
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed and not given back would be counted as there already

    def resident(name):
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
        return int(line.split()[1]) * 1024

    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the highest mark starts again from here
    model = dynamictrl.load(folder)
    peak = resident("VmHWM") - before
    assert model is not None and size < peak < 1.1 * size * (1 + 1 / count)


def test_progress_counts_files_and_may_cancel(folder):
    done = []
    dynamictrl.load(folder, progress=done.append)
    assert done == [1, 2, 3]

    def cancel(count):
        raise comfy.model_management.InterruptProcessingException

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        dynamictrl.load(folder, progress=cancel)


def test_fp8_is_the_hosts_own(monkeypatch, folder):
    """The base in 3 bits of mantissa, PadaLN as it is."""
    listed(monkeypatch, folder)
    (model,) = nodes.LoadDynamiCtrl.execute("DynamiCtrl/transformer/", "fp8_e4m3fn").result
    assert model.model.diffusion_model.blocks[1].q.weight.dtype == torch.float8_e4m3fn
    assert model.additional_models[attach.KEY][0].model.blocks[1].linear.weight.dtype == torch.float32


# --- refusals


def edited(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


class TestFilesThatAreRefused:
    @pytest.fixture(autouse=True)
    def nothing_is_read(self, monkeypatch):
        monkeypatch.setattr(dynamictrl.comfy.utils, "load_torch_file", lambda *_, **__: pytest.fail("read weights"))

    def refuses(self, path, says):
        with pytest.raises(ValueError, match=says):
            dynamictrl.load(path)

    def test_a_plain_cogvideox(self, tmp_path):
        folder = released.save(tmp_path / "plain", released.weights(1, pada=False))
        self.refuses(folder, "no PadaLN found in plain, .*Load Diffusion Model")

    def test_a_1_0_or_2b_model(self, tmp_path, state):
        old = {**state, "patch_embed.proj.weight": torch.zeros(128, 32, 2, 2)}
        self.refuses(released.save(tmp_path / "old", old), "old is a CogVideoX 1.0 or 2B model")

    def test_a_text_to_video_model(self, tmp_path, state):
        other = {**state, "patch_embed.proj.weight": torch.zeros(128, 128)}
        self.refuses(released.save(tmp_path / "t2v", other), "t2v takes 16 latent channels")

    def test_another_network(self, tmp_path):
        safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
        self.refuses(tmp_path / "a.safetensors", "a.safetensors is no CogVideoX transformer")

    def test_a_missing_shard(self, tmp_path, state):
        folder = released.save(tmp_path / "torn", state, 3)
        (folder / "diffusion_pytorch_model-00002-of-00003.safetensors").unlink()
        self.refuses(folder, "torn lacks diffusion_pytorch_model-00002-of-00003.safetensors")

    def test_a_shard_that_is_cut_off(self, tmp_path, state):
        folder = released.save(tmp_path / "torn", state, 2)
        shard = folder / "diffusion_pytorch_model-00002-of-00002.safetensors"
        shard.write_bytes(shard.read_bytes()[:-100])
        self.refuses(folder, "00002-of-00002.safetensors .* is cut off")

    def test_a_file_of_rubbish(self, tmp_path):
        (tmp_path / "a.safetensors").write_bytes(b"rubbish" * 9)
        self.refuses(tmp_path / "a.safetensors", "a.safetensors .* is no safetensors file")

    @pytest.mark.parametrize("key", ["transformer_blocks.1.control_norm1.norm.bias", "norm_out.linear.weight"])
    def test_a_missing_weight(self, tmp_path, state, key):
        rest = {name: value for name, value in state.items() if name != key}
        self.refuses(released.save(tmp_path / "torn", rest), "torn lacks 1 weights, .* first")

    @pytest.mark.parametrize("change", [{"num_layers": 42}, {"num_attention_heads": 48}, {"patch_size_t": None}])
    def test_a_config_that_contradicts_the_weights(self, tmp_path, state, change):
        ((key, value),) = change.items()
        folder = edited(released.save(tmp_path / "mixed", state), **change)
        self.refuses(folder, f"config.json of mixed says {key} {value}, its weights")
