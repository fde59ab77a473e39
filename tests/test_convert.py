"""Weight files in another form."""

import comfy.sd
import convert
import pytest
import safetensors.torch
import torch
import toys
from animate_anywhere.models import checkpoint, dit
from diffusers import CogVideoXTransformer3DModel


class Code:
    def __reduce__(self):
        return (print, ("this ran",))


def test_a_pickled_state_dict_keeps_its_tensors_to_the_bit(tmp_path):
    state = {"a": torch.randn(3, 4), "b": torch.randn(2).to(torch.bfloat16)}
    torch.save({"state_dict": state, "step": 7}, tmp_path / "old.pt")
    convert.unpickle(tmp_path / "old.pt", tmp_path / "new.safetensors")
    new = safetensors.torch.load_file(tmp_path / "new.safetensors")
    assert new.keys() == state.keys() and all(torch.equal(new[key], state[key]) for key in state)


def test_a_pickle_that_would_run_code_is_not_opened(tmp_path, capsys):
    torch.save({"a": torch.zeros(1), "b": Code()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="more than tensors"):
        convert.unpickle(tmp_path / "evil.pt", tmp_path / "new.safetensors")
    assert "this ran" not in capsys.readouterr().out


def test_background_motion_becomes_a_lora_in_the_hosts_names(tmp_path):
    network = toys.cogvideox_patcher().model.diffusion_model
    groups = checkpoint.fresh(network, rank=4)
    checkpoint.save(tmp_path / "adapter.safetensors", checkpoint.Base.of(network), groups)
    convert.background_motion(tmp_path / "adapter.safetensors", tmp_path / "lora.safetensors")
    lora = safetensors.torch.load_file(tmp_path / "lora.safetensors")
    assert lora.keys() == groups["background_motion"].keys()


def diffusers_folder(folder, shards=2):
    """A toy CogVideoX 1.5 I2V as diffusers saves it."""
    config = {key: toys.CONFIG[key] for key in ("num_attention_heads", "attention_head_dim", "time_embed_dim")}
    more = {key: toys.CONFIG[key] for key in ("ofs_embed_dim", "text_embed_dim", "num_layers", "in_channels")}
    network = CogVideoXTransformer3DModel(
        **config, **more, patch_size=2, patch_size_t=2, out_channels=16, use_rotary_positional_embeddings=True
    )
    toys.randomised(network).save_pretrained(folder, max_shard_size="2MB" if shards > 1 else "1GB")
    return network


def test_a_diffusers_folder_becomes_a_file_that_the_stock_loader_reads(tmp_path):
    network = diffusers_folder(tmp_path / "transformer")
    assert len(list((tmp_path / "transformer").glob("*.safetensors"))) > 1
    convert.cogvideox(tmp_path / "transformer", tmp_path / "native.safetensors")
    loaded = comfy.sd.load_diffusion_model(str(tmp_path / "native.safetensors"), model_options={"dtype": torch.float32})
    dit.check_base(loaded)
    state = loaded.model.diffusion_model.state_dict()
    assert all(torch.equal(state[checkpoint.native_key(key)], value) for key, value in network.state_dict().items())


def test_a_missing_shard_is_named(tmp_path):
    diffusers_folder(tmp_path / "transformer")
    gone = sorted((tmp_path / "transformer").glob("*.safetensors"))[0]
    gone.unlink()
    with pytest.raises(ValueError, match=f"lacks {gone.name}"):
        convert.cogvideox(tmp_path / "transformer", tmp_path / "native.safetensors")


def test_another_model_is_no_cogvideox(tmp_path):
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="no CogVideoX transformer"):
        convert.cogvideox(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
