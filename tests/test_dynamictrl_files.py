"""DynamiCtrl's files that cannot be loaded: each is named before any weight is read."""

import json

import pytest
import released
import safetensors.torch
import torch
from animate_anywhere.models import dynamictrl


@pytest.fixture(scope="module")
def state():
    return released.weights(2)


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
