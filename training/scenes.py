"""Rooms and landscapes of the stage: a convex box of textured planes, with rectangles in it.

Outdoors the box is tens of metres wide and its walls carry sky, hills and houses. Everything is a plane, so depth and
point tracks are exact.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy import ndarray

from . import surfaces
from .bodies import colour
from .surfaces import CLOTHS, FLOORS, GROUNDS, LEAVES, PAINTS, ROADS, WOODS, Paint, later, pick

UP = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class Plane:
    """A plane of the surrounding box: texture coordinate (0, 0) at ``origin``, (1, 1) at ``origin + right + down``.

    ``right`` and ``down`` [3] m are at right angles; ``texture`` [3, S, S]; ``wrap``: repeated, else held at its edges;
    ``bright`` multiplies its colours.
    """

    origin: ndarray
    right: ndarray
    down: ndarray
    texture: Paint
    wrap: bool
    bright: float = 1.0


@dataclass(frozen=True)
class Quad:
    """A rectangle like ``Plane``; ``texture`` [3, S, S] fills it, [4, S, S] has in channel 3 an outline.

    ``outline``: None, "cut" (0.5 + metres inside the shape, sharp edge) or "soft" (opacity). ``group``: quads of one
    convex solid; None lies flat on a wall or the ground and hides nothing.
    """

    origin: ndarray
    right: ndarray
    down: ndarray
    texture: Paint
    outline: str | None = None
    group: int | None = None
    bright: float = 1.0


@dataclass
class Scene:
    """``haze``: colour [3] that the distance takes on, ``far`` m; ``light`` [3] direction to the light, ``ambient``."""

    planes: list[Plane]
    quads: list[Quad] = field(default_factory=list)
    haze: ndarray = field(default_factory=lambda: np.zeros(3))
    far: float = 1e4
    light: ndarray = field(default_factory=lambda: UP)
    ambient: float = 0.6
    groups: int = 0

    def lit(self, normal: ndarray) -> float:
        """Brightness of a surface with this normal."""
        return self.ambient + (1 - self.ambient) * max(float(normal @ self.light), 0.0)


@dataclass(frozen=True)
class Site:
    """The plan of a box: unit axes ``ax``, ``ay`` [3], corners ``low``, ``high`` [2] along them, ``height`` m."""

    ax: ndarray
    ay: ndarray
    low: ndarray
    high: ndarray
    height: float

    def point(self, x: float, y: float, z: float = 0.0) -> ndarray:
        return self.ax * x + self.ay * y + UP * z

    def walls(self) -> list[tuple[ndarray, ndarray, ndarray]]:
        """Top left corner as seen from inside, right and down of the four walls, in the order met turning right."""
        (x0, y0), (x1, y1) = self.low, self.high
        corners = [self.point(x, y, self.height) for x, y in ((x0, y1), (x1, y1), (x1, y0), (x0, y0))]
        return [(corners[i], corners[(i + 1) % 4] - corners[i], -UP * self.height) for i in range(4)]


def draw_scene(rng: np.random.Generator, kept: ndarray, outdoors: bool) -> tuple[Scene, Site]:
    """An unfurnished scene around the points ``kept`` [N, 3] (person and camera)."""
    turn = rng.uniform(-np.pi, np.pi) if outdoors else rng.normal(0, 0.5) + rng.integers(4) * np.pi / 2
    ax, ay = np.array([np.cos(turn), np.sin(turn), 0]), np.array([-np.sin(turn), np.cos(turn), 0])
    inside = kept @ np.stack([ax, ay], 1)
    margin = rng.uniform(22, 50, 4) if outdoors else rng.uniform(0.9, 3.5, 4)
    low, high = inside.min(0) - margin[:2], inside.max(0) + margin[2:]
    indoors = max(rng.uniform(2.5, 3.4), kept[:, 2].max() + 0.5)
    site = Site(ax, ay, low, high, (high - low).mean() * rng.uniform(0.5, 0.6) if outdoors else indoors)
    light = np.array([rng.normal(0, 0.6), rng.normal(0, 0.6), rng.uniform(0.5, 1.2)])
    scene = Scene([], light=light / np.linalg.norm(light), ambient=rng.uniform(0.5, 0.75))
    (_landscape if outdoors else _room)(rng, scene, site)
    return scene, site


def _room(rng, scene: Scene, site: Site) -> None:
    base, accent = pick(rng, PAINTS), pick(rng, PAINTS)
    lower, panel = (accent * 0.8, rng.uniform(0.6, 0.75)) if rng.random() < 0.3 else (None, 0.0)
    odd = rng.integers(4) if rng.random() < 0.4 else -1  # one wall in another colour
    for index, (origin, right, down) in enumerate(site.walls()):
        texture = later(rng, surfaces.wall, accent if index == odd else base, lower, panel)
        inward = np.cross(down, right)
        bright = scene.lit(inward / np.linalg.norm(inward))
        scene.planes.append(Plane(origin, right, down, texture, False, bright))
    kind = str(rng.choice(["planks", "slabs", "plain"]))
    _ground(rng, scene, site, later(rng, surfaces.floor, pick(rng, FLOORS), kind, rng.uniform(0.03, 0.07)))
    white = np.array([0.9, 0.9, 0.88]) * rng.uniform(0.8, 0.95)
    texture = later(rng, surfaces.ceiling, white)
    scene.planes.append(Plane(UP * site.height, site.ax * 6, site.ay * 6, texture, True))
    _openings(rng, scene, site)


def _ground(rng, scene: Scene, site: Site, texture: Paint) -> None:
    period = rng.uniform(5.5, 8.5)
    scene.planes.append(Plane(np.zeros(3), site.ax * period, site.ay * period, texture, True, scene.lit(UP)))


def _openings(rng, scene: Scene, site: Site) -> None:
    """Windows, pictures, doors and curtains along the walls, and perhaps a rug."""
    for (origin, right, _), plane in zip(site.walls(), scene.planes):
        width = np.linalg.norm(right)
        along = right / width
        at = rng.uniform(0.2, 0.9)
        while at < width - 0.8:
            kind = str(rng.choice(["window", "picture", "door", "curtain", "none"], p=[0.22, 0.3, 0.12, 0.1, 0.26]))
            wide, tall, top, codes = _opening(rng, kind, site.height)
            if kind != "none" and at + wide < width - 0.15:
                texture = later(rng, getattr(surfaces, kind), pick(rng, codes))
                corner = origin + along * at - UP * (site.height - top)
                bright = 1.0 if kind == "window" else plane.bright
                scene.quads.append(Quad(corner, along * wide, -UP * tall, texture, bright=bright))
            at += wide + rng.uniform(0.4, 1.8)
    if rng.random() < 0.5:
        span = rng.uniform(1.6, 3.2, 2)
        corner = site.point(*((site.low + site.high) / 2 + rng.normal(0, 0.5, 2) - span / 2))
        texture = later(rng, surfaces.rug, pick(rng, CLOTHS))
        scene.quads.append(Quad(corner, site.ax * span[0], site.ay * span[1], texture, bright=scene.lit(UP)))


def _opening(rng, kind: str, ceiling: float) -> tuple[float, float, float, list[str]]:
    """Width, height and upper edge in metres, and the colours to pick from."""
    if kind == "door":
        return 0.95, 2.05, 2.05, WOODS
    if kind == "window":
        return rng.uniform(0.9, 2.0), rng.uniform(0.9, 1.3), min(2.2, ceiling - 0.2), LEAVES
    if kind == "curtain":
        return rng.uniform(0.8, 1.6), ceiling - 0.25, ceiling - 0.15, PAINTS + WOODS
    return rng.uniform(0.5, 1.2), rng.uniform(0.45, 0.9), rng.uniform(1.7, 2.0), PAINTS + CLOTHS


def _landscape(rng, scene: Scene, site: Site) -> None:
    zenith, horizon = (colour(code) for code in surfaces.SKIES[rng.integers(len(surfaces.SKIES))])
    leaf = pick(rng, LEAVES)
    seed = rng.integers(2**62)
    for quarter, (origin, right, down) in enumerate(site.walls()):
        texture = later(np.random.default_rng(seed), surfaces.panorama, horizon, zenith, leaf, quarter)
        scene.planes.append(Plane(origin, right, down, texture, False))
    kind = str(rng.choice(["plain", "plain", "slabs", "track"]))
    _ground(rng, scene, site, later(rng, surfaces.floor, pick(rng, GROUNDS), kind, rng.uniform(0.06, 0.13)))
    scene.haze, scene.far = horizon * 0.5 + leaf * 0.5, rng.uniform(40, 140)
    if rng.random() < 0.45:
        _road(rng, scene)


def _road(rng, scene: Scene) -> None:
    angle, wide, aside = rng.uniform(0, np.pi), rng.uniform(1.5, 5), rng.uniform(-3, 3)
    along, across = np.array([np.cos(angle), np.sin(angle), 0]), np.array([-np.sin(angle), np.cos(angle), 0])
    texture = later(rng, surfaces.plain, pick(rng, ROADS), 0.06)
    for part in range(-2, 2):  # pieces, so that haze and level of detail can follow the distance
        corner = across * (aside - wide / 2) + along * (part * 9.0)
        scene.quads.append(Quad(corner, along * 9.0, across * wide, texture, bright=scene.lit(UP)))
