"""What stands in the stage's scenes: boxes, and flat shapes that face the person (bushes, crowns of trees, rocks)."""

from collections.abc import Callable

import numpy as np
from numpy import ndarray

from . import surfaces
from .bodies import colour
from .scenes import UP, Quad, Scene, Site
from .surfaces import CLOTHS, LEAVES, PAINTS, STONES, WOODS, Paint, later, pick, plain

CLEARANCE = 0.55  # metres between furniture and where the person goes


def furnish(rng: np.random.Generator, scene: Scene, site: Site, clear: ndarray, outdoors: bool) -> None:
    """Put solids where there is room for them, away from the places ``clear`` [M, 2] of person and camera."""
    makers = OUTDOORS if outdoors else INDOORS
    placed: list[tuple[ndarray, float]] = []
    for _ in range(int(rng.integers(2, 8) if outdoors else rng.integers(1, 6))):
        make, reach = makers[rng.integers(len(makers))]
        for spot in _spots(rng, site, clear, reach, outdoors):
            far = np.linalg.norm(clear - spot, axis=1).min() > reach + CLEARANCE
            if far and all(np.linalg.norm(spot - other) > reach + size for other, size in placed):
                toward = clear.mean(0) - spot
                along = np.arctan2(site.ax[1], site.ax[0]) + rng.integers(4) * np.pi / 2
                make(rng, scene, np.array([*spot, 0.0]), np.arctan2(toward[1], toward[0]) if outdoors else along)
                placed.append((spot, reach))
                break


def _spots(rng, site: Site, clear: ndarray, reach: float, outdoors: bool) -> ndarray:
    """Twelve places [12, 2] to try."""
    if outdoors:
        angle, away = rng.uniform(0, 2 * np.pi, 12), rng.uniform(1.5, 9, 12) + reach
        return clear[rng.integers(len(clear), size=12)] + away[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    low, high = site.low + reach, np.maximum(site.high - reach, site.low + reach + 0.01)
    return rng.uniform(low, high, (12, 2)) @ np.stack([site.ax, site.ay])[:, :2]


def seat(rng: np.random.Generator, scene: Scene, place: ndarray) -> None:
    """A stool under somebody who sits at ``place``: x, y, heading, height."""
    x, y, heading, height = place
    base = np.array([x, y, 0.0])
    _shadow(scene, base, 0.5, 0.4)
    size = rng.uniform(0.36, 0.44), rng.uniform(0.45, 1.2), height
    _box(rng, scene, base, heading, size, pick(rng, WOODS + CLOTHS))


def _box(rng, scene: Scene, base: ndarray, heading: float, size: tuple, paint: ndarray, face: Callable = plain) -> None:
    """A box of ``size`` (deep, wide, tall) m standing on ``base``; ``face`` paints its sides."""
    deep, wide, tall = size
    forward = np.array([np.cos(heading), np.sin(heading), 0])
    left = np.array([-forward[1], forward[0], 0])
    side = later(rng, face, paint) if face is not plain else later(rng, face, paint, 0.05, 0.18)
    top = base + UP * tall
    scene.groups += 1
    faces = [(forward, left, deep, wide), (-forward, -left, deep, wide), (left, -forward, wide, deep)]
    for normal, right, out, across in [*faces, (-left, forward, wide, deep)]:
        corner = top + normal * out / 2 - right * across / 2
        scene.quads.append(Quad(corner, right * across, -UP * tall, side, None, scene.groups, scene.lit(normal)))
    corner = top - forward * deep / 2 - left * wide / 2
    lid = later(rng, plain, paint)
    scene.quads.append(Quad(corner, left * wide, forward * deep, lid, None, scene.groups, scene.lit(UP)))


def _shadow(scene: Scene, base: ndarray, reach: float, dark: float = 0.45) -> None:
    """A soft dark spot on the ground."""
    right, down = np.array([2 * reach, 0, 0]), np.array([0, 2 * reach, 0])
    corner = base * [1, 1, 0] - right / 2 - down / 2
    scene.quads.append(Quad(corner, right, down, lambda: surfaces.spot(None, dark), outline="soft"))


def _cut_out(scene: Scene, base: ndarray, heading: float, size: tuple, texture: Paint) -> None:
    wide, tall = size
    right = np.array([-np.sin(heading), np.cos(heading), 0])
    scene.groups += 1
    corner = base + UP * tall - right * wide / 2
    scene.quads.append(Quad(corner, right * wide, -UP * tall, texture, outline="cut", group=scene.groups))


def _bush(rng, scene, base, heading) -> None:
    wide = rng.uniform(0.8, 1.8)
    _shadow(scene, base, wide * 0.6)
    texture = later(rng, surfaces.leaves, pick(rng, LEAVES), wide * 0.8, 5)
    _cut_out(scene, base - UP * 0.1 * wide, heading, (wide, wide * 0.8), texture)


def _tree(rng, scene, base, heading) -> None:
    tall, wide = rng.uniform(2.8, 5.0), rng.uniform(1.8, 3.0)
    _shadow(scene, base, wide * 0.6, 0.35)
    _box(rng, scene, base, heading, (0.2, 0.2, tall * 0.5), pick(rng, ["#6b5140", "#574536", "#857868"]))
    texture = later(rng, surfaces.leaves, pick(rng, LEAVES), wide, 7)
    _cut_out(scene, base + UP * tall * 0.35, heading, (wide, tall * 0.7), texture)


def _rock(rng, scene, base, heading) -> None:
    wide = rng.uniform(0.5, 1.3)
    _shadow(scene, base, wide * 0.6)
    texture = later(rng, surfaces.stone, pick(rng, STONES), wide)
    _cut_out(scene, base - UP * 0.15 * wide, heading, (wide, wide * 0.7), texture)


def _house(rng, scene, base, heading) -> None:
    size = rng.uniform(2.0, 4.0), rng.uniform(2.5, 5.0), rng.uniform(2.6, 4.5)
    _box(rng, scene, base, heading + rng.normal(0, 0.4), size, pick(rng, PAINTS))


def _low_wall(rng, scene, base, heading) -> None:
    wide = rng.uniform(1.5, 3.0)
    _shadow(scene, base, wide * 0.5, 0.25)
    _box(rng, scene, base, heading, (0.3, wide, rng.uniform(0.4, 1.0)), pick(rng, PAINTS + LEAVES))


def _bench(rng, scene, base, heading) -> None:
    paint = pick(rng, WOODS)
    back = base - 0.27 * np.array([np.cos(heading), np.sin(heading), 0])
    _shadow(scene, base, 0.9, 0.35)
    _box(rng, scene, base, heading, (0.45, 1.5, 0.45), paint)
    _box(rng, scene, back, heading, (0.08, 1.5, 0.85), paint)


def _cabinet(rng, scene, base, heading) -> None:
    size = rng.uniform(0.35, 0.5), rng.uniform(0.7, 1.4), rng.uniform(0.7, 2.0)
    _shadow(scene, base, 0.8, 0.35)
    _box(rng, scene, base, heading, size, pick(rng, WOODS), surfaces.door)


def _table(rng, scene, base, heading) -> None:
    paint = pick(rng, WOODS)
    _shadow(scene, base, 0.9, 0.4)
    _box(rng, scene, base, heading, (0.35, 0.5, 0.68), paint * 0.7)
    _box(rng, scene, base + UP * 0.68, heading, (rng.uniform(0.7, 0.9), rng.uniform(0.8, 1.5), 0.07), paint)


def _sofa(rng, scene, base, heading) -> None:
    paint, wide = pick(rng, CLOTHS + PAINTS), rng.uniform(0.9, 1.9)
    forward = np.array([np.cos(heading), np.sin(heading), 0])
    _shadow(scene, base, 0.7 * wide, 0.4)
    _box(rng, scene, base - forward * 0.3, heading, (0.25, wide, 0.85), paint)
    _box(rng, scene, base + forward * 0.15, heading, (0.65, wide, 0.42), paint * 1.05)


def _plant(rng, scene, base, heading) -> None:
    wide = rng.uniform(0.6, 1.0)
    _shadow(scene, base, 0.4, 0.4)
    _box(rng, scene, base, heading, (0.3, 0.3, 0.35), pick(rng, PAINTS))
    texture = later(rng, surfaces.leaves, pick(rng, LEAVES), wide, 6)
    _cut_out(scene, base + UP * 0.25, heading + np.pi / 4, (wide, wide * 1.3), texture)


def _lamp(rng, scene, base, heading) -> None:
    tall = rng.uniform(1.2, 1.6)
    _box(rng, scene, base, heading, (0.05, 0.05, tall), colour("#4a4542"))
    _box(rng, scene, base + UP * tall, heading, (0.34, 0.34, 0.32), np.array([0.95, 0.88, 0.72]))


# What to put, and the radius that it takes on the ground.
INDOORS = [(_cabinet, 0.7), (_table, 0.8), (_sofa, 1.0), (_plant, 0.5), (_lamp, 0.3), (_cabinet, 0.7)]
OUTDOORS = [(_bush, 0.9), (_tree, 1.2), (_rock, 0.7), (_house, 3.4), (_low_wall, 1.5), (_bench, 0.9), (_tree, 1.2)]
