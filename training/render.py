"""Drawing of the stage: textured planes and rounded shapes to pixels, antialiased, with exact depth.

Geometry is small and done in numpy, in float64; only what has a value for every pixel is torch, on any device. The
inverse depth of a plane and its texture coordinates times that are affine in the pixel, so a plane costs a few
additions. Nothing is accumulated by atomics: the same input gives the same bits.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from .cameras import Camera
from .scenes import Plane, Quad, Scene
from .textures import TEXEL, mipmaps, strip

LEVELS = 5
SIDES = ("origin", "right", "down")


@dataclass
class Backdrop:
    """What is behind and in front of the person: ``colour`` [T, 3, H, W], ``inverse`` depth [T, H, W] 1/m, ``cover``
    [T, H, W]: how much of the person furniture hides."""

    colour: Tensor
    inverse: Tensor
    cover: Tensor


def _rows(camera: Camera, origin: ndarray, right: ndarray, down: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """Rows [T, 3] for (x, y, 1): inverse depth of a plane, and both texture coordinates times the inverse depth."""
    normal = np.cross(right, down)
    rays, centre = camera.rays, camera.centre
    height = ((origin - centre) * normal).sum(-1)
    height = np.where(np.abs(height) < 1e-6, 1e-6, height)
    inverse = (normal @ rays) / height[:, None]
    rows = [inverse]
    for axis in (right, down):
        axis = axis / (axis @ axis)
        start = ((centre - origin) * axis).sum(-1)
        rows.append(start[:, None] * inverse + axis @ rays)
    return tuple(rows)


def _scale(camera: Camera, plane: Plane | Quad, size: int) -> ndarray:
    """[T]: times the inverse depth squared, it is how many px a texel's shorter side takes at a pixel."""
    normal = np.cross(plane.right, plane.down)
    away = np.abs((camera.centre - plane.origin) @ (normal / np.linalg.norm(normal)))
    texel = min(np.linalg.norm(plane.right), np.linalg.norm(plane.down)) / size
    return texel * camera.K[:, 0, 0] * np.maximum(away, 1e-3)


class Pixels:
    """Coordinates of the pixels' centres, and how a row (a, b, c) per frame becomes values [T, H, W]."""

    def __init__(self, width: int, height: int, device: torch.device) -> None:
        self.x = torch.arange(width, device=device, dtype=torch.float32) + 0.5
        self.y = torch.arange(height, device=device, dtype=torch.float32)[:, None] + 0.5
        self.device = device

    def put(self, values: ndarray) -> Tensor:
        """Numbers [T] ready to meet [T, H, W]."""
        return torch.as_tensor(values, dtype=torch.float32, device=self.device)[:, None, None]

    def affine(self, *rows: ndarray) -> list[Tensor]:
        """Each of ``rows`` [T, 3] as [T, H, W]: a x + b y + c."""
        numbers = torch.from_numpy(np.stack(rows).astype(np.float32)).to(self.device)[..., None, None]
        a, b, c = numbers.unbind(2)  # [K, T, 1, 1]
        return [across + down for across, down in zip(a * self.x + c, b * self.y)]


def surround(scene: Scene, camera: Camera, device: torch.device) -> tuple[Tensor, Tensor]:
    """The box of planes: colour [T, 3, H, W] and inverse depth [T, H, W]."""
    planes, rows = _visible(scene.planes, camera)
    pixels = Pixels(camera.width, camera.height, device)
    size = planes[0].texture().shape[-1]
    strips = [strip(plane.texture() * plane.bright, plane.wrap, LEVELS) for plane in planes]
    atlas = torch.cat(strips, 2)[None].to(device)
    chosen = None
    for index, (plane, row) in enumerate(zip(planes, rows)):
        mine = pixels.affine(*row)
        level = pixels.put(np.log2(TEXEL / _scale(camera, plane, size)))
        mine += [level, torch.tensor(float(index), device=device), torch.tensor(float(plane.wrap), device=device)]
        if chosen is None:
            chosen = [value.expand_as(mine[0]).contiguous() for value in mine]
        else:
            nearer = mine[0] > chosen[0]
            chosen = [torch.where(nearer, new, old, out=old) for new, old in zip(mine, chosen)]
    inverse, u, v, level, column, wrap = chosen
    inverse.clamp_(min=1e-4)
    for at in (u, v):  # repeated or held at the edges
        at.div_(inverse)
        at.sub_(at.floor().mul_(wrap)).clamp_(0, 1)
    level.sub_(inverse.log2().mul_(2))
    colour = _look_up(atlas, size, u, v, level, column)
    _seams(colour, rows, camera)
    return _hazed(colour, inverse, scene), inverse


def _visible(planes: list[Plane], camera: Camera) -> tuple[list[Plane], list[tuple]]:
    """Those that are nearest somewhere on a coarse grid of pixels, and their rows."""
    x, y = np.meshgrid(np.linspace(0, camera.width, 9), np.linspace(0, camera.height, 9))
    points = np.stack([x.ravel(), y.ravel(), np.ones(81)])
    rows = [_rows(camera, plane.origin, plane.right, plane.down) for plane in planes]
    seen = set(np.argmax(np.stack([row[0] @ points for row in rows]), 0).ravel())
    return [plane for i, plane in enumerate(planes) if i in seen], [row for i, row in enumerate(rows) if i in seen]


def _look_up(atlas: Tensor, size: int, u: Tensor, v: Tensor, level: Tensor, column: Tensor) -> Tensor:
    """Trilinear texture look-up in strips side by side: [T, 3, H, W] from coordinates [T, H, W] in 0…1."""
    level = level.clamp_(0, LEVELS - 1.001)
    low = level.floor()
    share = level.sub_(low)[:, None]
    rows, columns = atlas.shape[2:]
    shrink = torch.exp2(-low)
    left = column.mul_((size + 2) * 2 / columns).add_(2 / columns - 1)
    top = low.mul_(4 / rows).add_(2 / rows - 1 + 4 * size / rows)
    v = v - 2
    found = []
    for _ in range(2):
        grid = torch.empty(*u.shape, 2, device=u.device)
        torch.addcmul(left, u, shrink, value=2 * size / columns, out=grid[..., 0])
        torch.addcmul(top, v, shrink, value=2 * size / rows, out=grid[..., 1])
        grid = grid.view(1, -1, grid.shape[2], 2)
        colour = torch.nn.functional.grid_sample(atlas, grid, padding_mode="border", align_corners=False)
        found.append(colour.view(3, *u.shape).transpose(0, 1))
        shrink, top = shrink.mul_(0.5), top.add_(4 / rows)
    out = torch.empty(len(u), 3, *u.shape[1:], device=u.device)
    return torch.lerp(found[0], found[1], share, out=out)


def _hazed(colour: Tensor, inverse: Tensor, scene: Scene) -> Tensor:
    """Colours [T, 3, H, W] that take on the haze of the distance."""
    if scene.far > 1000:
        return colour
    amount = (inverse * -scene.far).reciprocal_().exp_()  # what is left of the colour
    haze = torch.as_tensor(scene.haze, dtype=torch.float32, device=colour.device)[:, None, None]
    return torch.lerp(haze.expand_as(colour), colour, amount[:, None])


def _seams(colour: Tensor, rows: list, camera: Camera) -> None:
    """Antialias the straight lines where planes meet: a pixel on the line takes both sides by their share."""
    size = camera.width, camera.height
    for one in range(len(rows)):
        for other in range(one):
            line = rows[one][0] - rows[other][0]  # [T, 3]: zero on the line
            steep = np.abs(line[:, 0]) > np.abs(line[:, 1])
            for upright in (False, True):
                use = np.flatnonzero(steep == upright)
                if len(use):
                    _seam(colour, rows, (one, other), line[use], use, upright, size)


def _seam(colour, rows, pair, line, use, upright: bool, size: tuple[int, int]) -> None:
    """One line in frames ``use``; ``upright``: it is crossed going along x, and has one pixel in every row."""
    main, cross = (1, 0) if upright else (0, 1)
    span, limit = size[main], size[cross]
    at = np.arange(span) + 0.5
    where = -(line[:, main : main + 1] * at + line[:, 2:]) / line[:, cross : cross + 1]  # [F, span]
    pixel = np.floor(where).astype(int)
    points = np.empty((len(use), 3, span))
    points[:, main], points[:, cross], points[:, 2] = at, where, 1
    near = np.stack([row[0][use][:, None] @ points for row in rows])[:, :, 0]  # [P, F, span]
    good = (near[pair[0]] >= near.max(0) - 1e-9) & (pixel >= 1) & (pixel < limit - 1)
    frame, place = np.nonzero(good)
    if not len(frame):
        return
    pixel, share = pixel[frame, place], (where - np.floor(where))[frame, place]
    frame, place, pixel = (torch.as_tensor(value, device=colour.device) for value in (use[frame], place, pixel))
    share = torch.as_tensor(share, dtype=torch.float32, device=colour.device)[:, None]

    def at_pixel(step: int) -> tuple:
        return (frame, slice(None), place, pixel + step) if upright else (frame, slice(None), pixel + step, place)

    colour[at_pixel(0)] = torch.lerp(colour[at_pixel(1)], colour[at_pixel(-1)], share)


@dataclass
class Box:
    """The same number of pixels in each of some frames: ``frames`` [F], ``left``, ``top`` [F], ``width``, ``height``.

    Where the frames follow one another and share one place, cutting is a view and pasting is done in place.
    """

    frames: ndarray
    left: ndarray
    top: ndarray
    width: int
    height: int
    still: bool

    @classmethod
    def around(cls, low: ndarray, high: ndarray, use: ndarray, size: tuple[int, int]) -> "Box | None":
        """Around pixels ``low`` … ``high`` [T, 2] in the frames ``use`` [T] that see some of it, cut at ``size``."""
        size = np.array(size)
        use = use & (high > 0).all(1) & (low < size).all(1) & (high > low).all(1)
        if not use.any():
            return None
        frames = np.flatnonzero(use)
        low = np.floor(np.clip(low[frames], 0, size - 1)).astype(int)
        high = np.ceil(np.clip(high[frames], 1, size)).astype(int)
        span = np.maximum((high - low).max(0), 1)
        union = high.max(0) - low.min(0)
        still = frames[-1] - frames[0] + 1 == len(frames) and union.prod() < 1.8 * span.prod()
        if still:
            low, span = np.broadcast_to(low.min(0), low.shape), union
        low = np.minimum(low, size - span)
        return cls(frames, low[:, 0], low[:, 1], int(span[0]), int(span[1]), bool(still))

    def _places(self) -> list[tuple]:
        places = zip(self.frames.tolist(), self.left.tolist(), self.top.tolist())
        return [(f, ..., slice(y, y + self.height), slice(x, x + self.width)) for f, x, y in places]

    def _place(self) -> tuple:
        x, y, first = int(self.left[0]), int(self.top[0]), int(self.frames[0])
        return slice(first, first + len(self.frames)), ..., slice(y, y + self.height), slice(x, x + self.width)

    def cut(self, values: Tensor) -> Tensor:
        """Part [F, ..., h, w] of values [T, ..., H, W], to read only."""
        return values[self._place()] if self.still else torch.stack([values[place] for place in self._places()])

    def paste(self, part: Tensor, values: Tensor) -> None:
        """Write ``part`` back."""
        if self.still:
            values[self._place()] = part
            return
        for index, place in enumerate(self._places()):
            values[place] = part[index]

    def pixels(self, device: torch.device) -> Pixels:
        """Coordinates of the box's pixels: x [F or 1, 1, w], y [F or 1, h, 1]."""
        pixels = Pixels(self.width, self.height, device)
        if self.still:
            pixels.x, pixels.y = pixels.x + float(self.left[0]), pixels.y + float(self.top[0])
        else:
            pixels.x, pixels.y = pixels.x + pixels.put(self.left), pixels.y + pixels.put(self.top)
        return pixels


def bounds(camera: Camera, origin: ndarray, right: ndarray, down: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """Rectangles [T or 1, Q, 3] in pixels: low and high corner [T, Q, 2], and if they are before the camera [T, Q]."""
    origin = np.broadcast_to(origin, (len(camera.t), *origin.shape[1:]))
    corners = np.stack([origin, origin + right, origin + down, origin + right + down], 2)
    at, depth = camera.project(corners)
    low, high = at.min(2) - 1, at.max(2) + 1
    behind = (depth < 0.05).any(2)
    low[behind], high[behind] = 0, (camera.width, camera.height)
    return low, high, (depth > 0.05).any(2)


def _coverage(pixels: Pixels, rows: tuple, use: ndarray, reach: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Share of each pixel inside a rectangle, inverse depth and texture coordinates, all [F, h, w].

    ``reach``: px outside of the edge at which the share ends; one half is exact.
    """
    near, along, across = (row[use] for row in rows)
    # Lines that are zero on the edges, scaled to px.
    edges = [row / np.maximum(np.hypot(row[:, :1], row[:, 1:2]), 1e-12) for row in (along, near - along)]
    edges += [row / np.maximum(np.hypot(row[:, :1], row[:, 1:2]), 1e-12) for row in (across, near - across)]
    inverse, u, v, inside, *others = pixels.affine(near, along, across, *edges)
    for other in others:
        torch.minimum(inside, other, out=inside)
    cover = inside.add_(reach).clamp_(0, 1).mul_(inverse > 1e-3)
    safe = inverse.clamp(min=1e-3)
    return cover, inverse, u.div_(safe), v.div_(safe)


def _face(quad: Quad, camera: Camera, scene: Scene, use: ndarray, near: ndarray, u: Tensor, v: Tensor) -> Tensor:
    """The quad's texture [C, F, h, w], at a level of detail that no frame makes finer than it may be, in the haze."""
    texture = quad.texture()
    size = texture.shape[-1]
    inverse = np.maximum(near[use] @ np.array([camera.width / 2, camera.height / 2, 1]), 1e-3)
    texel = (_scale(camera, quad, size)[use] * inverse**2).min()
    level = int(np.clip(round(np.log2(TEXEL / texel)), 0, np.log2(size / 4)))
    texture = mipmaps(texture, False, size >> level)[level]
    amount = 1 - float(np.exp(-1 / (inverse.mean() * scene.far)))
    haze = torch.as_tensor(scene.haze, dtype=torch.float32)[:, None, None]
    paint = torch.lerp(texture[:3] * quad.bright, haze.expand_as(texture[:3]), amount)
    texture = torch.cat([paint, texture[3:]])[None].to(u.device)
    grid = torch.empty(*u.shape, 2, device=u.device)
    torch.sub(u, 0.5, out=grid[..., 0])
    torch.sub(v, 0.5, out=grid[..., 1])
    grid.mul_(2)
    found = torch.nn.functional.grid_sample(
        texture, grid.view(1, -1, grid.shape[2], 2), padding_mode="border", align_corners=False
    )
    return found.view(-1, *u.shape)


def paint(quad: Quad, box: "Box", backdrop: Backdrop, camera: Camera, scene: Scene, hides: ndarray) -> None:
    """Draw a quad into the backdrop. ``hides`` [T]: frames in which it stands before the person."""
    rows = _rows(camera, quad.origin, quad.right, quad.down)
    pixels = box.pixels(backdrop.colour.device)
    # The faces of a solid meet without a gap: each reaches half a pixel farther.
    solid = quad.group is not None and quad.outline is None
    cover, inverse, u, v = _coverage(pixels, rows, box.frames, 1.0 if solid else 0.5)
    face = _face(quad, camera, scene, box.frames, rows[0], u, v)
    if quad.outline == "cut":
        metre = inverse * pixels.put(camera.K[box.frames, 0, 0])  # px
        cover = cover * (face[3] - 0.5).mul_(metre).add_(0.5).clamp_(0, 1)
    elif quad.outline == "soft":
        cover = cover * face[3]
    box.paste(torch.lerp(box.cut(backdrop.colour), face[:3].transpose(0, 1), cover[:, None]), backdrop.colour)
    if quad.group is not None:
        box.paste(torch.where(cover > 0.5, inverse, box.cut(backdrop.inverse)), backdrop.inverse)
        if hides[box.frames].any():
            hidden = cover * pixels.put(hides[box.frames])
            old = box.cut(backdrop.cover)
            box.paste(old + hidden * (1 - old), backdrop.cover)


def cast(shadow: Tensor, place: ndarray, reach: float, dark: float, backdrop: Backdrop, camera: Camera) -> None:
    """Darken ``shadow`` [T, H, W] by a soft spot on the ground under ``place`` [T, 3], where nothing is before it."""
    right, down = np.array([2 * reach, 0, 0]), np.array([0, 2 * reach, 0])
    origin = place * [1, 1, 0] - right / 2 - down / 2
    low, high, use = (values[:, 0] for values in bounds(camera, origin[:, None], right, down))
    box = Box.around(low, high, use, (camera.width, camera.height))
    if box is None:
        return
    rows = _rows(camera, origin, right, down)
    pixels = box.pixels(shadow.device)
    inverse, u, v = pixels.affine(*(row[box.frames] for row in rows))
    safe = inverse.clamp(min=1e-3)
    u, v = u.div_(safe).mul_(2).sub_(1), v.div_(safe).mul_(2).sub_(1)
    amount = (1 - u * u - v * v).clamp_(min=0).square_().mul_(dark)
    amount *= (inverse * 1.05 > box.cut(backdrop.inverse)) & (inverse > 1e-3)
    old = box.cut(shadow)
    box.paste(old + amount * (1 - old), shadow)


def draw_backdrop(scene: Scene, camera: Camera, person: ndarray, device: torch.device, free: bool = False) -> Backdrop:
    """Everything but the person, who stands on ``person`` [T, 3]. ``free``: leave out what would stand before it."""
    colour, inverse = surround(scene, camera, device)
    backdrop = Backdrop(colour, inverse, torch.zeros_like(inverse))
    if not scene.quads:
        return backdrop
    quads = scene.quads
    origin, right, down = (np.stack([getattr(quad, name) for quad in quads]) for name in SIDES)
    low, high, use = bounds(camera, origin[None], right, down)
    outside, hides = standing(quads, camera, person)
    use &= outside | np.array([quad.group is None or quad.outline is not None for quad in quads])
    if free:
        use &= ~hides
    away = np.linalg.norm(origin + right / 2 + down / 2 - camera.centre.mean(0), axis=1)
    for index in _far_to_near(quads, away):
        box = Box.around(low[:, index], high[:, index], use[:, index], (camera.width, camera.height))
        if box is not None:
            paint(quads[index], box, backdrop, camera, scene, hides[:, index])
    return backdrop


def _far_to_near(quads: list[Quad], away: ndarray) -> list[int]:
    """What lies flat first, then solid by solid, the farthest first."""
    middles: dict[int, list[float]] = {}
    for quad, distance in zip(quads, away):
        middles.setdefault(quad.group, []).append(distance)
    mean = {group: float(np.mean(distances)) for group, distances in middles.items()}
    order = [(quad.group is not None, 0.0 if quad.group is None else -mean[quad.group]) for quad in quads]
    return sorted(range(len(quads)), key=lambda index: order[index])


def standing(quads: list[Quad], camera: Camera, person: ndarray) -> tuple[ndarray, ndarray]:
    """[T, Q]: on whose outer side the camera is, and which stand before the person, who is on ``person`` [T, 3]."""
    origin, right, down = (np.stack([getattr(quad, name) for quad in quads]) for name in SIDES)
    normal = np.cross(down, right)
    sides = [((points[:, None] - origin) * normal).sum(-1) > 0 for points in (camera.centre, person)]
    return sides[0], _hiding(quads, *sides)


def _hiding(quads: list[Quad], camera: ndarray, person: ndarray) -> ndarray:
    """[T, Q]: which quads stand before the person, from the sides that camera and person are on (True: outside).

    A convex solid does if the person is behind each of its faces that the camera sees; a cut-out, if between them.
    """
    hides = np.zeros(camera.shape, bool)
    groups: dict[int, list[int]] = {}
    for index, quad in enumerate(quads):
        if quad.group is not None:
            groups.setdefault(quad.group, []).append(index)
    for members in groups.values():
        if quads[members[0]].outline is None:
            hides[:, members] = (~person[:, members] | ~camera[:, members]).all(1)[:, None]
        else:
            hides[:, members] = person[:, members] != camera[:, members]
    return hides
