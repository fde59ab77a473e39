"""Weight files in another form."""

import convert
import pytest
import safetensors.torch
import torch
import toys
from animate_anywhere.models import checkpoint


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
