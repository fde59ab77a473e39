"""The tiny family's VAE: TAEHV's layout (the host's comfy/taesd/taehv.py), narrower and with fewer blocks.

The host's loader knows one set of widths. A narrow network computes the same as TAEHV whose other channels are zero and
whose other blocks add nothing: it is trained at a tenth of the cost and embedded afterwards (``embed``), exactly;
``extract`` gives it back, or a wider one that computes the same, to train on.
16 latent channels, 4 frames and 8×8 pixels in one latent pixel.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from comfy.taesd.taehv import TAEHV
from torch import Tensor, nn
from torch.nn import functional as F

from ..models.latents import CHANNELS, FRAMES_PER_LATENT

CLAMP = 3.0  # the decoder begins with tanh(x / 3) * 3


@dataclass(frozen=True)
class Widths:
    """Channels, and memory blocks at each scale. Encoder: full size, 1/2, 1/4, 1/8; decoder the other way round."""

    encoder: tuple[int, int, int, int] = (16, 32, 64, 64)
    encoder_blocks: tuple[int, int, int] = (1, 2, 2)
    decoder: tuple[int, int, int, int] = (96, 64, 32, 16)
    decoder_blocks: tuple[int, int, int] = (2, 2, 1)


class Conv(nn.Module):
    """A convolution whose weight is kept as a matrix [out, in * size * size], which is what Muon wants."""

    def __init__(
        self, into: int, out: int, size: int = 3, stride: int = 1, bias: bool = True, gain: float = 2.0
    ) -> None:
        super().__init__()
        self.into, self.size, self.stride = into, size, stride
        self.weight = nn.Parameter(torch.randn(out, into * size * size) * (gain / (into * size * size)) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(out)) if bias else None

    @property
    def kernel(self) -> Tensor:
        """[out, in, size, size]"""
        return self.weight.view(-1, self.into, self.size, self.size)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, self.bias, self.stride, self.size // 2)


class Grow(Conv):
    """Twice the size (nearest), then a 3×3 convolution: done as one of 2×2 before growing, four times as many outputs.

    Each output pixel sees two pixels a side of the small picture, so 4/9 of the work are left.
    """

    def __init__(self, into: int, out: int) -> None:
        super().__init__(into, out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        kernel = self.kernel
        rows = [torch.stack([kernel[:, :, 0], kernel[:, :, 1] + kernel[:, :, 2]], 2)]
        rows += [torch.stack([kernel[:, :, 0] + kernel[:, :, 1], kernel[:, :, 2]], 2)]  # each [out, in, 2, 3]
        parts = [torch.stack([row[..., 0], row[..., 1] + row[..., 2]], 3) for row in rows]
        parts += [torch.stack([row[..., 0] + row[..., 1], row[..., 2]], 3) for row in rows]
        four = F.conv2d(x, torch.cat(parts), padding=1).chunk(4, 1)  # [B, out, H + 1, W + 1] for (y, x) 00, 10, 01, 11
        left, right = ((four[2 * i][..., :-1, i:], four[2 * i + 1][..., 1:, i:]) for i in (0, 1))
        columns = [torch.stack([top[..., :width], low[..., :width]], 3) for top, low in (left, right)]
        return torch.stack(columns, -1).reshape(len(x), -1, 2 * height, 2 * width)  # [B, out, H, 2, W, 2]


class Memory(nn.Module):
    """TAEHV's MemBlock: three convolutions of the present and the past frame, added to the present one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = Conv(2 * width, width), Conv(width, width)
        self.third = Conv(width, width, gain=0.2)  # a small start keeps the sum from growing with depth

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """x [B * frames, C, H, W]"""
        past = x.view(-1, frames, *x.shape[1:])
        past = F.pad(past[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0)).reshape(x.shape)
        inner = F.relu(self.second(F.relu(self.first(torch.cat([x, past], 1)))))
        return F.relu(self.third(inner) + x)


class Encoder(nn.Module):
    def __init__(self, widths: Widths) -> None:
        super().__init__()
        a, b, c, d = widths.encoder
        self.first = Conv(3, a)
        self.pool = nn.ModuleList([Conv(2 * a, a, 1, bias=False, gain=1.0), Conv(2 * b, b, 1, bias=False, gain=1.0)])
        self.down = nn.ModuleList([Conv(i, o, stride=2, bias=False, gain=1.0) for i, o in ((a, b), (b, c), (c, d))])
        counts = zip((b, c, d), widths.encoder_blocks)
        self.blocks = nn.ModuleList([nn.ModuleList(Memory(width) for _ in range(count)) for width, count in counts])
        self.last = Conv(d, CHANNELS, gain=1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Pixels [B, T, 3, H, W] in 0…1, T a multiple of 4, to latents [B, T/4, 16, H/8, W/8]."""
        batch, frames = x.shape[:2]
        x = F.relu(self.first(x.flatten(0, 1).contiguous(memory_format=torch.channels_last)))
        for scale in range(3):
            if scale < 2:
                frames //= 2
                x = self.pool[scale](x.reshape(batch * frames, -1, *x.shape[2:]))
            x = self.down[scale](x)
            for block in self.blocks[scale]:
                x = block(x, frames)
        x = self.last(x)
        return x.view(batch, frames, *x.shape[1:])


class Decoder(nn.Module):
    def __init__(self, widths: Widths) -> None:
        super().__init__()
        a, b, c, d = widths.decoder
        self.first = Conv(CHANNELS, a)
        counts = zip((a, b, c), widths.decoder_blocks)
        self.blocks = nn.ModuleList([nn.ModuleList(Memory(width) for _ in range(count)) for width, count in counts])
        self.grow = nn.ModuleList([Grow(a, b), Grow(b, c), Grow(c, d)])
        self.spread = nn.ModuleList([Conv(b, 2 * b, 1, bias=False, gain=1.0), Conv(c, 2 * c, 1, bias=False, gain=1.0)])
        self.last = Conv(d, 3, gain=1.0)
        nn.init.constant_(self.last.bias, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Latents [B, t, 16, h, w] to pixels [B, 4 t, 3, 8 h, 8 w]; the host trims the first three frames."""
        batch, frames = x.shape[:2]
        x = torch.tanh(x.flatten(0, 1).contiguous(memory_format=torch.channels_last) / CLAMP) * CLAMP
        x = F.relu(self.first(x))
        for scale in range(3):
            for block in self.blocks[scale]:
                x = block(x, frames)
            if scale > 0:
                # TAEHV grows in size first; a 1×1 convolution does not mind.
                x = self.spread[scale - 1](x)
                frames *= 2
                x = x.view(batch * frames, -1, *x.shape[2:])
            x = self.grow[scale](x)
        x = self.last(F.relu(x))
        return x.view(batch, frames, *x.shape[1:])


class VAE(nn.Module):
    """Encoder and decoder. Latents are in TAEHV's own scale: the host multiplies them by its latent format's factor."""

    def __init__(self, widths: Widths | None = None) -> None:
        super().__init__()
        self.widths = widths or Widths()
        self.encoder, self.decoder = Encoder(self.widths), Decoder(self.widths)

    def encode(self, frames: Tensor) -> Tensor:
        """Frames [B, 4k+1, 3, H, W] in 0…1 to latents [B, k+1, 16, H/8, W/8], aligned as models.latents does."""
        first = frames[:, :1].expand(-1, FRAMES_PER_LATENT - 1, -1, -1, -1)
        return self.encoder(torch.cat([first, frames], 1))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, k+1, 16, h, w] to frames [B, 4k+1, 3, 8h, 8w], not clamped."""
        return self.decoder(latents)[:, FRAMES_PER_LATENT - 1 :]


def _places(vae: VAE) -> Iterator[tuple[str, Conv, int, int]]:
    """Each convolution with its name in TAEHV, and how many frames lie side by side in its inputs and outputs."""
    encoder, decoder = vae.encoder, vae.decoder
    yield from (("encoder.0", encoder.first, 1, 1), ("encoder.17", encoder.last, 1, 1))
    yield from (("decoder.1", decoder.first, 1, 1), ("decoder.22", decoder.last, 1, 1))
    yield from ((f"encoder.{index}.conv", pool, 2, 1) for index, pool in zip((2, 7), encoder.pool))
    yield from ((f"encoder.{index}", down, 1, 1) for index, down in zip((3, 8, 13), encoder.down))
    yield from ((f"decoder.{index}", grow, 1, 1) for index, grow in zip((8, 14, 20), decoder.grow))
    yield from ((f"decoder.{index}.conv", spread, 1, 2) for index, spread in zip((13, 19), decoder.spread))
    for part, net, starts in (("encoder", encoder, (4, 9, 14)), ("decoder", decoder, (3, 9, 15))):
        for start, blocks in zip(starts, net.blocks):
            for index, block in enumerate(blocks, start):
                yield f"{part}.{index}.conv.0", block.first, 2, 1
                yield f"{part}.{index}.conv.2", block.second, 1, 1
                yield f"{part}.{index}.conv.4", block.third, 1, 1


def _live(full: Tensor, conv: Conv, frames_in: int, frames_out: int) -> Tensor:
    """The part of TAEHV's kernel that ``conv`` is: a view [frames out, out, frames in, in, size, size]."""
    shape = (frames_out, full.shape[0] // frames_out, frames_in, full.shape[1] // frames_in, *full.shape[2:])
    return full.view(shape)[:, : len(conv.weight) // frames_out, :, : conv.into // frames_in]


@torch.no_grad()
def embed(vae: VAE) -> dict[str, Tensor]:
    """TAEHV's state dict, in its full widths, that computes what ``vae`` does.

    Blocks beyond the narrow network's are zero: TAEHV's relu(0 + x) leaves what comes out of the block before as it is.
    """
    state = {name: torch.zeros_like(value) for name, value in TAEHV(latent_channels=CHANNELS).state_dict().items()}
    for name, conv, frames_in, frames_out in _places(vae):
        part = _live(state[f"{name}.weight"], conv, frames_in, frames_out)
        part.copy_(conv.kernel.view(part.shape))
        if conv.bias is not None:
            state[f"{name}.bias"][: len(conv.bias)] = conv.bias.float()
    for name in ("encoder.12.conv.weight", "decoder.7.conv.weight"):  # time is not pooled there: nothing to compute
        state[name][:, :, 0, 0] = torch.eye(len(state[name]))
    return state


@torch.no_grad()
def extract(state: dict[str, Tensor], widths: Widths | None = None) -> VAE:
    """The network that ``state``, a TAEHV's, is the embedding of; ``embed`` then gives ``state`` again.

    ``widths`` may be larger than its own: what is new has random weights and nothing that reads it yet, so that the
    network computes the same and has more to learn with. Raises ValueError where ``state`` needs larger ones.
    """
    vae = VAE(widths)
    fresh = {name: conv.weight.clone() for name, conv, *_ in _places(vae)}
    for name, conv, *frames in _places(vae):
        conv.weight.copy_(_live(state[f"{name}.weight"].float(), conv, *frames).flatten(0, 1).flatten(1))
        if conv.bias is not None:
            conv.bias.copy_(state[f"{name}.bias"][: len(conv.bias)])
    again = embed(vae)
    other = next((name for name, value in again.items() if not torch.equal(value, state[name].float())), None)
    if other:
        raise ValueError(f"{other} has weights beyond a VAE of {vae.widths}: choose the widths that it was made with.")
    for name, conv, *_ in _places(vae):
        # What a block adds stays nothing where it was nothing. All else that is all zero is new: an output of its own.
        if not name.endswith("conv.4"):
            new = ~conv.weight.any(1)
            conv.weight[new] = fresh[name][new]
    return vae
