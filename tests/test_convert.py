"""Weight files in another form."""

import errno
import json
from pathlib import Path

import comfy.sd
import convert
import pytest
import released
import safetensors.torch
import torch
import toys
from animate_anywhere.models import checkpoint, dit, shards
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
    assert all(torch.equal(state[shards.native_key(key)], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize("shards_of_it", [1, 3])
def test_dynamictrls_folder_becomes_a_file_and_the_same_folder_again(tmp_path, shards_of_it):
    """Every file to the byte, config and index included."""
    state = {key: value.to(torch.bfloat16) for key, value in released.weights(2).items()}
    folder = released.save(tmp_path / "transformer", state, shards_of_it)
    convert.cogvideox(folder, tmp_path / "native.safetensors")
    native = safetensors.torch.load_file(tmp_path / "native.safetensors")
    assert native["blocks.1.control_norm1.linear.weight"].dtype == torch.bfloat16
    assert native.keys() == {shards.native_key(key) for key in state}
    assert all(torch.equal(native[shards.native_key(key)], value) for key, value in state.items())
    convert.diffusers(tmp_path / "native.safetensors", tmp_path / "again")
    files, again = ({path.name: path.read_bytes() for path in each.iterdir()} for each in (folder, tmp_path / "again"))
    assert files == again and len(files) == shards_of_it + (1 if shards_of_it == 1 else 2)


def test_a_folder_that_diffusers_saved_comes_back_to_the_byte(tmp_path):
    diffusers_folder(tmp_path / "transformer")
    convert.cogvideox(tmp_path / "transformer", tmp_path / "native.safetensors")
    convert.diffusers(tmp_path / "native.safetensors", tmp_path / "again")
    for path in (tmp_path / "transformer").iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_tensors_of_different_width_and_of_no_size_keep_their_values(tmp_path):
    state = {"a": torch.tensor(3), "b": torch.randn(3).to(torch.bfloat16), "c": torch.zeros(0, 4), "d": torch.rand(2)}
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    tensors, _ = shards.read_header(tmp_path / "a.safetensors")
    shards.write(tmp_path / "b.safetensors", dict(reversed(tensors.items())), {})
    written = safetensors.torch.load_file(tmp_path / "b.safetensors")
    assert written.keys() == state.keys() and all(torch.equal(written[key], value) for key, value in state.items())


def test_a_file_of_another_origin_has_no_way_back(tmp_path):
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="a.safetensors was not made from a diffusers folder"):
        convert.diffusers(tmp_path / "a.safetensors", tmp_path / "again")


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


def native(path, origin):
    """A file in the host's names whose record of its folder is ``origin``."""
    text = origin if isinstance(origin, str) else json.dumps(origin)
    safetensors.torch.save_file({"a": torch.zeros(1)}, path, metadata={shards.METADATA_KEY: text})
    return path


@pytest.mark.parametrize(
    "name",
    [
        "../../evil.safetensors",
        "/tmp/evil.safetensors",
        "C:\\evil",
        "config.json",
        "CONFIG.JSON",
        shards.INDEX,
        "a.part",
        7,
        None,
    ],
)
def test_an_index_writes_no_shard_outside_its_folder_or_over_its_config(tmp_path, name):
    index = json.dumps({"weight_map": {"a": name}})
    source = native(tmp_path / "a.safetensors", {"config": "{}", "index": index})
    with pytest.raises(ValueError, match=r"^a\.safetensors: "):
        convert.diffusers(source, tmp_path / "inner" / "again")
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize(
    "origin",
    ["", "7", "[]", "{}", "[" * 100_000, {"config": 7, "index": None}, {"config": None, "index": 7},
     {"config": None, "index": "no json"}, {"config": None, "index": "[]"}, {"config": None, "index": "{}"},
     {"config": None, "index": '{"weight_map": []}'}],
)  # fmt: skip
def test_a_damaged_record_of_the_folder_is_one_error(tmp_path, origin):
    source = native(tmp_path / "a.safetensors", origin)
    with pytest.raises(ValueError, match=r"^a\.safetensors: (?:its metadata|.*index\.json).* Get the file again\.$"):
        convert.diffusers(source, tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    "index", ["no json", "[]", "{}", '{"weight_map": 7}', '{"weight_map": {"a": []}}', "[" * 100_000]
)
def test_a_damaged_index_of_a_folder_is_named(tmp_path, index):
    diffusers_folder(tmp_path / "transformer")
    (tmp_path / "transformer" / shards.INDEX).write_text(index)
    with pytest.raises(ValueError, match=rf"^transformer: {shards.INDEX}.* Get the file again\.$"):
        convert.cogvideox(tmp_path / "transformer", tmp_path / "native.safetensors")


@pytest.mark.parametrize("content", [torch.zeros(3), [torch.zeros(3)], 7, {"state_dict": 7}])
def test_a_checkpoint_of_another_form_is_one_error(tmp_path, content):
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match="^odd.pt "):
        convert.unpickle(tmp_path / "odd.pt", tmp_path / "new.safetensors")


@pytest.mark.parametrize("content", [b"", b"no pickle", b"\x80"])
def test_what_is_no_checkpoint_is_one_line(tmp_path, monkeypatch, capsys, content):
    (tmp_path / "odd.pt").write_bytes(content)
    words = ["unpickle", tmp_path / "odd.pt", tmp_path / "new.safetensors"]
    monkeypatch.setattr("sys.argv", ["convert.py", *map(str, words)])
    assert convert.main() == 1
    assert "odd.pt" in capsys.readouterr().err


def test_a_conversion_that_breaks_off_leaves_nothing(tmp_path, monkeypatch):
    torch.save({"a": torch.zeros(3)}, tmp_path / "old.pt")

    def full(tensors, path, **_) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match="full"):
        convert.unpickle(tmp_path / "old.pt", tmp_path / "new.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["old.pt"]
