"""The VAE in training: whole batches, on the device that trains, with gradients through decoding.

models/latents.py takes the host's way, which is one clip at a time, moved between devices, without gradients. The
networks and the alignment are the same; a test holds the two against each other.
"""

import copy
from pathlib import Path

import comfy.sd
import comfy.utils
import torch
from comfy.taesd.taehv import TAEHV, MemBlock, TGrow, TPool, apply_model_with_memblocks
from torch import Tensor, nn

from ..models.checkpoint import Base
from ..models.latents import FRAMES_PER_LATENT, frames_of, pad_for_decoding

CLIPS = 4  # that go through at once; the first layers work on every pixel


class Autoencoder:
    """Frames [B, T, H, W, 3] in 0…1 (or uint8) to latents [B, 16, t, h, w] in the scale of ``base``, and back.

    dtype: of encoding, which has no gradients; decoding is in float32.
    """

    def __init__(self, path: Path, base: Base, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        if not path.is_file():
            raise ValueError(f"model.vae: there is no file {path}.")
        vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(path), safe_load=True))
        if vae.first_stage_model is None or vae.latent_channels != 16 or vae.latent_dim != 3:
            raise ValueError(f"model.vae: {path.name} is no video VAE with 16 latent channels.")
        self.to_input, self.to_output = vae.process_input, vae.process_output
        self.network = vae.first_stage_model.to(device, torch.float32).eval().requires_grad_(False)
        if isinstance(self.network, TAEHV):
            drop_dead_channels(self.network.encoder)
            drop_dead_channels(self.network.decoder)
            self.network.to(memory_format=torch.channels_last)
        self.encoder = copy.deepcopy(self.network).to(dtype) if dtype != torch.float32 else self.network
        self.format = base.latent_format
        self.device = device
        self.dtype = dtype

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        return torch.cat([self._encode(part) for part in frames.split(CLIPS)])

    def _encode(self, frames: Tensor) -> Tensor:
        frames = frames.to(self.device)
        frames = frames.to(self.dtype) / 255 if frames.dtype == torch.uint8 else frames.to(self.dtype)
        pixels = self.to_input(frames.movedim(-1, 1))  # [B, 3, T, H, W]
        if not isinstance(self.network, TAEHV):
            return self.format.process_in(self.encoder.encode(pixels).float())
        # The alignment of models/latents.encode_frames.
        first = pixels[:, :, :1].expand(-1, -1, FRAMES_PER_LATENT - 1, -1, -1)
        pixels = torch.cat([first, pixels], dim=2).movedim(2, 1)  # [B, T + 3, 3, H, W]
        latents = self._run(self.encoder.encoder, pixels)
        return self.format.process_in(latents.movedim(2, 1).float())

    def decode(self, latents: Tensor) -> Tensor:
        """With gradients. Clips of one call are decoded together."""
        latents = self.format.process_out(latents).float()
        if not isinstance(self.network, TAEHV):
            frames = self.to_output(self.network.decode(pad_for_decoding(self.network, latents)))
            return frames[:, :, : frames_of(latents.shape[2])].movedim(1, -1).float()
        frames = self._run(self.network.decoder, latents.movedim(2, 1), decode=True)  # [B, T + 3, 3, H, W]
        frames = frames[:, self.network.frames_to_trim :].movedim(2, -1)
        return self.to_output(frames.float()).clamp(0, 1)

    def _run(self, layers: nn.Sequential, x: Tensor, decode: bool = False) -> Tensor:
        """All frames at once: the host's way frame by frame detaches what one frame hands to the next."""
        with torch.autocast(self.device.type, enabled=False):
            return apply_model_with_memblocks(layers, x.contiguous(), True, False, x.device, decode=decode)


def drop_dead_channels(layers: nn.Sequential) -> None:
    """Take out, in place, the channels that are always zero.

    The embedded VAE is a narrow network inside the widths that the host's loader knows; the rest of them is zeros, ten
    times the work. What comes out is the same but for rounding.
    """
    first = next(layer for layer in layers if isinstance(layer, nn.Conv2d))
    live = torch.arange(first.in_channels)
    for index, layer in enumerate(layers):
        if isinstance(layer, nn.Conv2d):
            written = torch.arange(layer.out_channels) if layer is layers[-1] else _written(layer, live)
            wire = _wire(layers, index + 1, written)
            _slice(layer, wire, live)
            live = wire
        elif isinstance(layer, TPool):
            width = layer.conv.in_channels // layer.stride
            wire = _wire(layers, index + 1, _written(layer.conv, _frames(live, width, layer.stride)))
            _slice(layer.conv, wire, _frames(live, width, layer.stride))
            live = wire
        elif isinstance(layer, TGrow):
            width = layer.conv.in_channels
            _slice(layer.conv, _frames(live, width, layer.stride), live)
        elif isinstance(layer, MemBlock):
            if _adds_nothing(layer) and isinstance(layers[index - 1], MemBlock | nn.Identity):
                layers[index] = nn.Identity()  # what comes in is not negative, so its last ReLU does nothing either
            else:
                _slice_block(layer, live)


def _frames(channels: Tensor, width: int, count: int) -> Tensor:
    """``channels`` of each of ``count`` frames of ``width`` channels, side by side."""
    return torch.cat([channels + frame * width for frame in range(count)])


def _written(layer: nn.Conv2d, inputs: Tensor) -> Tensor:
    """Outputs that can be other than zero while only ``inputs`` are."""
    alive = layer.weight[:, inputs.to(layer.weight.device)].flatten(1).any(1)
    if layer.bias is not None:
        alive = alive | (layer.bias != 0)
    alive[0] |= not alive.any()  # a layer of nothing is no layer
    return alive.nonzero()[:, 0].cpu()


def _wire(layers: nn.Sequential, start: int, live: Tensor) -> Tensor:
    """The channels that live anywhere between here and the next layer that makes new ones."""
    for layer in layers[start:]:
        if isinstance(layer, nn.Conv2d | TPool):
            break
        if isinstance(layer, MemBlock):
            live = torch.cat([live, _written(layer.conv[4], torch.arange(layer.conv[4].in_channels))])
        elif isinstance(layer, TGrow):
            live = torch.cat([live, _written(layer.conv, live) % layer.conv.in_channels])
        live = live.unique()
    return live


def _adds_nothing(block: MemBlock) -> bool:
    last = block.conv[4]
    return not last.weight.any() and not last.bias.any() and isinstance(block.skip, nn.Identity)


def _slice_block(block: MemBlock, live: Tensor) -> None:
    first, second, third = block.conv[0], block.conv[2], block.conv[4]
    inputs = _frames(live, first.in_channels // 2, 2)  # the present and the past
    inner = _written(first, inputs)
    _slice(first, inner, inputs)
    inputs, inner = inner, _written(second, inner)
    _slice(second, inner, inputs)
    _slice(third, live, inner)


def _slice(layer: nn.Conv2d, outputs: Tensor, inputs: Tensor) -> None:
    outputs, inputs = outputs.to(layer.weight.device), inputs.to(layer.weight.device)
    layer.weight = nn.Parameter(layer.weight[outputs][:, inputs], requires_grad=False)
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias[outputs], requires_grad=False)
    layer.out_channels, layer.in_channels = len(outputs), len(inputs)
