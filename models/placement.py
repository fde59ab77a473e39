"""Networks that are not the host's, under the host's memory management: on the device while they work, off it after."""

import comfy.model_management
import comfy.model_patcher
import torch
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
