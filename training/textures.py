"""Smooth textures of the stage: nothing in them is finer than 4 texels, and a texel is never drawn below 2.5 px.

So no texture has detail under 10 px, at any distance: finer patterns are more than a small VAE can carry.
"""

from functools import cache

import numpy as np
import torch
from torch import Tensor

SHORTEST = 4.0  # texels of the finest wave
TEXEL = 2.5  # px that a texel takes at least


def noise(rng: np.random.Generator, count: int, size: int, slope: float = 1.3) -> Tensor:
    """[count, size, size] periodic noise, mean 0, standard deviation 1, amplitude falling as frequency^-slope.

    Photographs of natural scenes have a slope of about 1; no wave is shorter than 4 texels.
    """
    gain = _gain(size, slope)
    reach = gain.shape[1] - 1
    waves = (
        torch.view_as_complex(torch.from_numpy(rng.standard_normal((count, *gain.shape, 2), dtype=np.float32))) * gain
    )
    spectrum = torch.zeros(count, size, size // 2 + 1, dtype=torch.complex64)
    spectrum[:, :reach, : reach + 1] = waves[:, :reach]
    spectrum[:, -reach - 1 :, : reach + 1] = waves[:, reach:]
    return torch.fft.irfft2(spectrum, s=(size, size))


@cache
def _gain(size: int, slope: float) -> Tensor:
    """[2 reach + 1, reach + 1]: amplitude of each wave, so that the sum has standard deviation 1."""
    reach = int(size / SHORTEST)
    y = torch.cat([torch.arange(reach), torch.arange(-reach - 1, 0)])[:, None]
    x = torch.arange(reach + 1)[None]
    radius = (y**2 + x**2).sqrt()
    gain = radius.clamp(min=1) ** -slope * (radius > 0) * (radius <= reach)
    gain = gain * torch.sigmoid((reach * 0.85 - radius) * (20 / reach))
    # Waves with x > 0 stand for their mirror image too, those with x = 0 come in pairs of which irfft2 takes one half.
    power = (4 * gain[:, 1:] ** 2).sum() + (gain[:, 0] ** 2).sum()
    return gain * (size**2 / power.sqrt())


def curve(rng: np.random.Generator, size: int, slope: float, reach: int) -> Tensor:
    """[size] periodic smooth curve of about -1…1, with waves down to ``size / reach`` texels."""
    place = np.arange(size) / size * 2 * np.pi
    order = np.arange(1, reach + 1)
    height, start = rng.standard_normal(reach) * order**-slope, rng.uniform(0, 2 * np.pi, reach)
    values = (height[:, None] * np.sin(order[:, None] * place + start[:, None])).sum(0)
    return torch.from_numpy(values / max(np.abs(values).max(), 1e-6)).float()


def soft_step(values: Tensor, width: float) -> Tensor:
    """0 below zero, 1 above, over ``width`` on both sides: the edge inside a texture that is not too fine for it."""
    x = (values / width * 0.5 + 0.5).clamp(0, 1)
    return x * x * (3 - 2 * x)


def mix(under: Tensor, over: Tensor, amount: Tensor) -> Tensor:
    """Colours [3, ...] blended by ``amount`` [...]."""
    return under + (over - under) * amount


def shade(base, light: Tensor, tint: Tensor, contrast: float, colour: float = 0.4) -> Tensor:
    """A surface of colour ``base`` [3] with noise in brightness ``light`` and in warmth ``tint`` [H, W]: [3, H, W]."""
    base = torch.as_tensor(np.asarray(base), dtype=torch.float32)[:, None, None]
    warm = torch.tensor([1.0, 0.1, -1.0])[:, None, None]
    return base * (1 + contrast * light) + base.mean() * contrast * colour * warm * tint


def halve(texture: Tensor, wrap: bool) -> Tensor:
    """[C, H, W] to half its size, smoothed first."""
    mode = "circular" if wrap else "replicate"
    padded = torch.nn.functional.pad(texture[None], (1, 1, 1, 1), mode=mode)
    return torch.nn.functional.avg_pool2d(padded, 4, 2)[0]


def mipmaps(texture: Tensor, wrap: bool, smallest: int = 8) -> list[Tensor]:
    """The texture [C, H, W] at its size, half of it, a quarter, …"""
    levels = [texture]
    while min(levels[-1].shape[1:]) > smallest:
        levels.append(halve(levels[-1], wrap))
    return levels


def strip(texture: Tensor, wrap: bool, levels: int) -> Tensor:
    """Mipmaps of a square texture [C, S, S] one below the other, each in a border of one texel: [C, rows, S + 2].

    Level l begins at row 2 S (1 - 2^-l) + 2 l, so that its place is arithmetic instead of a table.
    """
    mode = "circular" if wrap else "replicate"
    size = texture.shape[-1]
    rows = []
    for level in mipmaps(texture, wrap, size >> (levels - 1)):
        bordered = torch.nn.functional.pad(level[None], (1, 1, 1, 1), mode=mode)[0]
        rows.append(torch.nn.functional.pad(bordered, (0, size + 2 - bordered.shape[2])))
    return torch.cat(rows, 1)


def blob(rng: np.random.Generator, size: int, lobes: int, rough: float) -> Tensor:
    """[size, size] signed distance of a bush-like outline in half sizes of the square: positive inside, smooth."""
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    y, x = axis[:, None], axis[None]
    inside = torch.full((size, size), -1.0)
    for _ in range(lobes):
        reach = rng.uniform(0.28, 0.5)
        cx, cy = rng.uniform(-1, 1) * (0.9 - reach), rng.uniform(-1, 1) * (0.9 - reach)
        inside = torch.maximum(inside, reach - ((x - cx) ** 2 + (y - cy) ** 2).sqrt())
    inside = inside + rough * 0.06 * noise(rng, 1, size, 0.6)[0]
    return torch.minimum(inside, 0.97 - torch.maximum(x.abs(), y.abs()))
