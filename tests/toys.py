"""The real classes of the host at toy size, with seeded random weights, loaded through the host's own loaders."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

import comfy.ldm.cogvideo.vae
import comfy.sd
import comfy.taesd.taehv
import torch
from animate_anywhere.models import checkpoint
from comfy.ldm.cogvideo.model import CogVideoXTransformer3DModel
from comfy.ldm.cogvideo.vae import AutoencoderKLCogVideoX
from comfy.model_patcher import ModelPatcher

CONFIG = {
    "num_attention_heads": 2,
    "attention_head_dim": 64,
    "in_channels": 32,
    "out_channels": 16,
    "time_embed_dim": 32,
    "ofs_embed_dim": 32,
    "text_embed_dim": 24,
    "num_layers": 4,
    "patch_size": 2,
    "patch_size_t": 2,
    "use_rotary_positional_embeddings": True,
}


def randomised(module: torch.nn.Module, seed: int = 0, scale: float = 0.5) -> torch.nn.Module:
    """Every parameter drawn from a seed, matrices at ``scale``/sqrt(fan in), so that nothing is zero, one or equal."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
            spread = scale / fan_in**0.5 if parameter.ndim > 1 else 0.1
            centre = 1.0 if parameter.ndim == 1 and parameter.mean() == 1 else 0.0
            parameter.copy_(centre + spread * torch.randn(parameter.shape, generator=generator))
    return module


def cogvideox_state(seed: int = 0, **changes) -> dict[str, torch.Tensor]:
    """State dict of a toy CogVideoX 1.5 I2V transformer in the host's own keys."""
    network = CogVideoXTransformer3DModel(**{**CONFIG, **changes}, operations=torch.nn, dtype=torch.float32)
    return {key: value.clone() for key, value in randomised(network, seed).state_dict().items()}


def cogvideox_patcher(seed: int = 0, dtype: torch.dtype = torch.float32, **changes) -> ModelPatcher:
    """A toy CogVideoX 1.5 I2V MODEL, as the stock UNETLoader gives it."""
    return comfy.sd.load_diffusion_model_state_dict(cogvideox_state(seed, **changes), model_options={"dtype": dtype})


def trained_groups(model: ModelPatcher) -> dict[str, dict[str, torch.Tensor]]:
    """Groups of an adapter for ``model`` as if trained: what is zero in a fresh one is filled, so that every part has
    an effect."""
    groups = checkpoint.fresh(model.model.diffusion_model, rank=4, dtype=torch.float32)
    generator = torch.Generator().manual_seed(1)
    for group in groups.values():
        for key, value in group.items():
            if not value.any():
                group[key] = 0.1 * torch.randn(value.shape, generator=generator)
    return groups


def taehv_vae(seed: int = 0, channels: int = 16) -> comfy.sd.VAE:
    """A TAEHV video VAE of random weights, as the stock VAELoader gives it."""
    network = randomised(comfy.taesd.taehv.TAEHV(latent_channels=channels), seed, scale=1.0)
    return comfy.sd.VAE(sd={key: value.clone() for key, value in network.state_dict().items()})


@contextmanager
def small_cogvideox_vae_class(width: int = 32) -> Iterator[Callable[[], torch.nn.Module]]:
    """Let the host's loader, which builds CogVideoX's VAE at full width only, build it with ``width`` channels."""
    small = partial(AutoencoderKLCogVideoX, block_out_channels=(width,) * 4, layers_per_block=1)
    with patch.object(comfy.ldm.cogvideo.vae, "AutoencoderKLCogVideoX", small):
        yield small


def cogvideox_vae_state(seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights of a small VAE of CogVideoX's own class."""
    with small_cogvideox_vae_class() as network_class:
        network = randomised(network_class(), seed, scale=1.0)
    return {key: value.clone() for key, value in network.state_dict().items()}


def cogvideox_vae(seed: int = 0) -> comfy.sd.VAE:
    """The same as the stock VAELoader gives it, in float32."""
    with small_cogvideox_vae_class():
        return comfy.sd.VAE(sd=cogvideox_vae_state(seed), dtype=torch.float32)


def inputs(frames: int = 2, height: int = 4, width: int = 8, batch: int = 1, text: int = 5, seed: int = 0) -> dict:
    """What the host hands to the transformer: x [B, 32, t, h, w], timestep [B], context [B, text, 24], ofs [B]."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "x": torch.randn(batch, CONFIG["in_channels"], frames, height, width, generator=generator),
        "timestep": torch.linspace(900, 100, batch),
        "context": torch.randn(batch, text, CONFIG["text_embed_dim"], generator=generator),
        "ofs": torch.full((batch,), 2.0),
    }
