"""Networks that are not the host's: read from folders of transformers, and under the host's memory management, on the
device while they work, off it after."""

from collections.abc import Mapping
from pathlib import Path

import comfy.model_management
import comfy.model_patcher
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from . import network_config

CONFIG, WEIGHTS = "config.json", "model.safetensors"
MAX_DERIVED_WEIGHTS = 1 << 20  # that files may leave out, because the network makes them itself


class Placed:
    """``network``, which the host moves to its device and away again, as it does with its own models."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network.eval().requires_grad_(False)
        # A plain module around it: the host writes a ``device`` on what it manages, which others' classes may forbid.
        holder = nn.Module()
        holder.network = self.network
        self.patcher = comfy.model_patcher.CoreModelPatcher(
            holder,
            load_device=comfy.model_management.get_torch_device(),
            offload_device=comfy.model_management.unet_offload_device(),
        )

    def load(self) -> torch.device:
        """Bring the network to the device, and say which that is. Whole: its layers cannot be fetched one by one."""
        comfy.model_management.load_models_gpu([self.patcher], force_full_load=True)
        return self.patcher.load_device


def from_folder(kind: type, default: object, folder: Path, socket: str, name: str, source: str) -> nn.Module:
    """The network of transformers' class ``kind`` in ``folder`` (Hugging Face's layout), in float32.

    Only config.json and model.safetensors are read. transformers gets their contents, not the folder, so that it never
    looks for more files, in the folder or on the internet.

    default: a configuration of the class; it says which fields there are (see network_config).
    source: where a whole one is to be had.
    Raises ValueError, in the name of ``socket``, where the folder does not hold ``name``, is damaged or pickled.
    """
    try:
        fields = network_config.checked_fields(folder / CONFIG, default.to_dict())
        config = type(default)(**fields)
        state = load_file(folder / WEIGHTS)
        _check_size(kind, config, state)
        network, found = kind.from_pretrained(
            None, config=config, state_dict=state, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
        if found["missing_keys"]:  # transformers makes them up
            raise ValueError(f"{len(found['missing_keys'])} weights are missing")
    except Exception as error:  # transformers, torch and safetensors have kinds of their own, with no other parent
        raise ValueError(
            f"{socket}: {folder} does not hold {name} ({str(error)[:500]}). It needs config.json and "
            f"model.safetensors of {source}."
        ) from error
    return network


def _check_size(kind: type, config: object, state: Mapping[str, Tensor]) -> None:
    """Raise ValueError where the network would be larger than its weights: what is missing would be allocated."""
    with torch.device("meta"):
        network = kind(config)
    expected = sum(weight.numel() for weight in network.state_dict().values())
    found = sum(weight.numel() for weight in state.values())
    if expected > found + MAX_DERIVED_WEIGHTS:
        raise ValueError(f"{CONFIG} describes a network of {expected:,} weights, and the file has {found:,}")
