"""Networks that are not the host's: read from folders of transformers, and under the host's memory management, on the
device while they work, off it after."""

from pathlib import Path

import comfy.model_management
import comfy.model_patcher
import torch
from safetensors import SafetensorError
from torch import nn


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


def from_folder(kind: type, folder: Path, socket: str, name: str, source: str) -> nn.Module:
    """The network of transformers' class ``kind`` in ``folder`` (Hugging Face's layout), in float32.

    Raises ValueError, in the name of ``socket``, where the folder does not hold ``name``, is damaged or pickled.
    source: where a whole one is to be had.
    """
    try:
        network, found = kind.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
        if found["missing_keys"]:  # transformers makes them up
            raise ValueError(f"{len(found['missing_keys'])} weights are missing")
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise ValueError(
            f"{socket}: {folder} does not hold {name} ({error}). It needs config.json and model.safetensors of "
            f"{source}."
        ) from error
    return network
