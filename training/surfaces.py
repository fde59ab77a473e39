"""What the stage's planes look like: walls, floors, openings, leaves, the horizon. Each painter returns [3 or 4, S, S].

Painting is put off (``later``) until a camera sees the surface; each has a seed of its own, so what is seen first does
not change what it looks like.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from .bodies import colour
from .textures import blob, curve, mix, noise, shade, soft_step

Paint = Callable[[], Tensor]

SIZE = 128  # texels of a big texture
SMALL = 32  # texels of a small one

PAINTS = ["#d8d2c4", "#cfc6b4", "#b9c4c6", "#c9b8a6", "#a8b5a2", "#c7a894", "#8f9fb0", "#e3ddd2", "#7d8c86", "#b78b76"]
PAINTS += ["#9a8fa6", "#d6c28f", "#5f7380", "#a65f4e", "#496a63", "#d9c7cf"]
FLOORS = ["#9b7653", "#7a5a3f", "#b3926b", "#8d8a84", "#6e6a66", "#a39a8c", "#5d5148", "#7d4f3c", "#4f5a66", "#c0b49c"]
GROUNDS = ["#6f8a46", "#7d9450", "#8f8a5a", "#b8a67c", "#8a8680", "#77736e", "#9a8468", "#a99f90", "#5f7a44"]
WOODS = ["#8a5f3c", "#6b4a34", "#b08a5e", "#e0d6c6", "#3f3a37", "#a34f3e", "#47627a", "#6d7f5a", "#c9a24f", "#7b5f80"]
LEAVES = ["#4d6b34", "#5f7f3f", "#3e5a36", "#7a8a3e", "#8b7a3a", "#55744f"]
CLOTHS = ["#a04a3c", "#31566e", "#c99b45", "#4c6b4a", "#71476b", "#d8cfc0", "#2e3338"]
STONES = ["#8d8880", "#7a756e", "#a29a8c"]
ROADS = ["#8d8a86", "#a59a86", "#75706b", "#b5a78c"]
FRAMES = ["#efece6", "#5b4636", "#2f2f31", "#a88b5c"]
SKIES = [("#6f9fd0", "#d5e2ea"), ("#8fb3d6", "#e8e6dc"), ("#9aa7b2", "#c9ced0"), ("#5b7fb5", "#f0c9a0")]
SKIES += [("#b9c3cb", "#dfe2e0"), ("#7a8fb0", "#e3b79a"), ("#4f86c6", "#bcd8ea")]


def later(rng: np.random.Generator, paint: Callable[..., Tensor], *arguments) -> Paint:
    """``paint(rng of its own, *arguments)``, called when first asked for."""
    seed = int(rng.integers(2**62))
    return cache(lambda: paint(np.random.default_rng(seed), *arguments).clamp_(0, 1))


def pick(rng: np.random.Generator, codes: list[str], spread: float = 0.08) -> ndarray:
    """One of the colours, a little varied."""
    return np.clip(colour(codes[rng.integers(len(codes))]) * rng.normal(1, spread) + rng.normal(0, 0.02, 3), 0.03, 0.97)


def column(values) -> Tensor:
    """A colour [3] as [3, 1, 1]."""
    return torch.as_tensor(np.asarray(values), dtype=torch.float32)[:, None, None]


def places(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """x [1, S] and y [S, 1] in 0…1, and the distance to the nearest rim [S, S]."""
    place = (torch.arange(size) + 0.5) / size
    edge = torch.minimum(place, 1 - place)
    return place[None], place[:, None], torch.minimum(edge[None], edge[:, None])


def wall(rng, base: ndarray, lower: ndarray | None, panel: float) -> Tensor:
    """A painted wall, below ``panel`` (0 top, 1 bottom) in the colour ``lower``; darker in the corners."""
    light, tint = noise(rng, 2, SIZE, 1.6)
    x, y, _ = places(SIZE)
    paint = shade(base, light, tint, 0.02, 0.25)
    if lower is not None:
        paint = mix(paint, shade(lower, light, tint, 0.02, 0.25), soft_step(y - panel, 0.03))
    corner = (torch.minimum(x, 1 - x) * 8).clamp(0, 1)
    return paint * (0.86 + 0.14 * corner) * (1.06 - 0.18 * y) * (0.92 + 0.08 * soft_step(0.97 - y, 0.03))


def floor(rng, base: ndarray, kind: str, contrast: float) -> Tensor:
    """Ground that repeats: "planks", "slabs", "track" (two kinds of earth) or "plain"."""
    light, tint = noise(rng, 2, SIZE, 1.3)
    ground = shade(base, light, tint, contrast, 0.35)
    x, y, _ = places(SIZE)
    if kind == "planks":
        tone = torch.from_numpy(rng.normal(0, 0.09, 8)).float()
        steps = soft_step(x - torch.arange(9)[:, None, None] / 8, 0.015)
        ground = ground * (1 + ((steps[:-1] - steps[1:]) * tone[:, None, None]).sum(0))
    elif kind == "slabs":
        wave = torch.sin(4 * np.pi * x) * torch.sin(4 * np.pi * y)
        ground = ground * (0.95 + rng.uniform(0.05, 0.16) * soft_step(wave, 0.25))
    elif kind == "track":
        other = shade(pick(rng, GROUNDS), light.T, tint, contrast, 0.35)
        ground = mix(ground, other, soft_step(noise(rng, 1, SIZE, 2.2)[0], 0.8))
    return ground


def plain(rng, base: ndarray, contrast: float = 0.05, fall: float = 0.0) -> Tensor:
    """One colour with some noise, darker by ``fall`` at the bottom."""
    light, tint = noise(rng, 2, SMALL, 1.5)
    return shade(base, light, tint, contrast) * (1 + 0.1 * fall - fall * places(SMALL)[1])


def ceiling(rng, base: ndarray) -> Tensor:
    light, tint = noise(rng, 2, SIZE, 1.8)
    return shade(base, light, tint, 0.015)


def door(rng, base: ndarray) -> Tensor:
    _, _, rim = places(SMALL)
    return plain(rng, base) * (1 - 0.12 * soft_step(rim - 0.16, 0.06))


def curtain(rng, base: ndarray) -> Tensor:
    light, tint = noise(rng, 2, SMALL, 1.5)
    x, _, _ = places(SMALL)
    return shade(base, light, tint, 0.04) * (1 + 0.16 * torch.sin(2 * np.pi * rng.integers(2, 4) * x + light * 0.4))


def window(rng, base: ndarray) -> Tensor:
    """The view is sky over something green; ``base`` colours the leaves."""
    light, tint = noise(rng, 2, SMALL, 1.5)
    _, y, rim = places(SMALL)
    sky = column([0.78, 0.86, 0.95]) * (1.05 - 0.2 * y) + 0.03 * light
    view = mix(sky, shade(base, light, tint, 0.12) * 0.9, soft_step(y - rng.uniform(0.5, 0.9) + 0.08 * light, 0.08))
    return mix(column(pick(rng, FRAMES)).expand(3, SMALL, SMALL), view, soft_step(rim - 0.09, 0.035))


def picture(rng, base: ndarray) -> Tensor:
    """A framed painting of soft shapes."""
    light, tint, form = noise(rng, 3, SMALL, 1.7)
    _, _, rim = places(SMALL)
    inner = shade(base, light, tint, 0.25, 1.2)
    inner = mix(inner, shade(pick(rng, CLOTHS), tint, light, 0.2), soft_step(form - rng.normal(0, 0.5), 0.6))
    return mix(column(pick(rng, FRAMES)).expand(3, SMALL, SMALL), inner, soft_step(rim - 0.09, 0.035))


def rug(rng, base: ndarray) -> Tensor:
    _, _, rim = places(SMALL)
    border = plain(rng, pick(rng, CLOTHS), 0.08)
    return mix(border, plain(rng, base, 0.08), soft_step(rim - rng.uniform(0.1, 0.2), 0.04))


def leaves(rng, base: ndarray, metres: float, lobes: int) -> Tensor:
    """A bush or a crown, ``metres`` high, with its outline in channel 3."""
    light, tint = noise(rng, 2, SMALL, 0.9)
    green = shade(base, light, tint, 0.14) * (1.15 - 0.4 * places(SMALL)[1])
    return _outlined(green, blob(rng, SMALL, lobes, 1.0), metres)


def stone(rng, base: ndarray, metres: float) -> Tensor:
    light, tint = noise(rng, 2, SMALL, 1.2)
    return _outlined(shade(base, light, tint, 0.12) * (1.2 - 0.5 * places(SMALL)[1]), blob(rng, SMALL, 3, 0.3), metres)


def _outlined(paint: Tensor, inside: Tensor, metres: float) -> Tensor:
    """Outlines are kept as 0.5 + metres inside, so that they lie in 0…1 like colours."""
    return torch.cat([paint, (0.5 + inside * metres / 2)[None]])


def spot(_rng, dark: float) -> Tensor:
    """Black with a round soft opacity in channel 3."""
    x, y, _ = places(16)
    radius = ((2 * x - 1) ** 2 + (2 * y - 1) ** 2).clamp(max=1)
    return torch.cat([torch.zeros(3, 16, 16), (dark * (1 - radius) ** 2)[None]])


def panorama(rng, horizon: ndarray, zenith: ndarray, leaf: ndarray, quarter: int) -> Tensor:
    """Sky, clouds, hills, trees or houses, a quarter of what is all around; the ground is at the bottom.

    Quarters painted with equal random numbers continue one another.
    """
    part = slice(quarter * SIZE, (quarter + 1) * SIZE)
    _, y, _ = places(SIZE)  # 0 top, 1 ground
    sky = mix(column(zenith), column(horizon), y**1.5)
    cloud = noise(rng, 1, SIZE, 1.5)[:, None, ::3]
    cloud = torch.nn.functional.interpolate(cloud, (SIZE, SIZE), mode="bilinear")[0, 0]
    cover = rng.uniform(0, 0.7) * soft_step(cloud - rng.uniform(0, 1), 0.9) * (1 - y)
    view = mix(sky, column([0.97, 0.96, 0.95]), cover)
    kind = str(rng.choice(["hills", "trees", "houses", "mixed"]))
    layers = int(rng.integers(1, 4))
    light, tint = noise(rng, 2, SIZE, 1.0)
    for layer in range(layers):
        near = (layer + 1) / layers
        top = rng.uniform(0.12, 0.36) * (1.4 - 0.7 * near)
        solid = str(rng.choice(["hills", "trees", "houses"])) if kind == "mixed" else kind
        shape, base = _skyline(rng, solid, 4 * SIZE, leaf)
        tone = shade(base, light.roll(40 * layer, 1), tint.roll(40 * layer, 1), 0.10, 0.3) * (1.08 - 0.16 * y)
        tone = mix(tone, column(horizon), torch.tensor(0.55 * (1 - near) + 0.12))
        view = mix(view, tone, soft_step(y - (1 - top * (1 + 0.6 * shape[part])), 0.02))
    return view


def _skyline(rng, kind: str, wide: int, leaf: ndarray) -> tuple[Tensor, ndarray]:
    """Height [wide] of about -1…1 and colour of one layer of the horizon."""
    if kind == "hills":
        return curve(rng, wide, 1.2, 12), pick(rng, ["#7f9170", "#8a97a0", "#95876f", "#6f8a78"])
    if kind == "trees":
        return curve(rng, wide, 0.5, 60), leaf
    steps = int(rng.integers(14, 30))
    heights = torch.from_numpy(rng.uniform(-0.8, 1.2, steps)).float()
    place = torch.arange(wide) / wide * steps
    index = place.long() % steps
    sharp = ((place - place.floor() - 0.5) * 6 + 0.5).clamp(0, 1)
    return heights[index] * (1 - sharp) + heights[(index + 1) % steps] * sharp, pick(rng, PAINTS) * 0.85
