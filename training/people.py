"""Drawing of the stage's people: tapered capsules, antialiased and shaded, that melt into one another at the joints."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from .bodies import BODY, HAND, Shapes
from .cameras import Camera
from .scenes import Scene

MELT = 0.015  # metres over which two shapes of a body melt into one another
# Of a canvas: red, green, blue, hand, thing (each times its share of the pixel), opacity, depth of the nearest shape.
HANDS, THINGS, OPACITY, DEPTH, CHANNELS = 3, 4, 5, 6, 7
NEAREST = 0.15  # metres; what is nearer is drawn as if it were there
EMPTY = 1e3  # metres; depth where nothing is drawn yet


@dataclass(frozen=True)
class Person:
    """A drawn person, in full frames: ``colour`` [T, 3, H, W] times opacity; ``opacity``, ``hand``, ``thing`` (what is
    held; both are parts of the opacity), ``depth`` m [T, H, W]."""

    colour: Tensor
    opacity: Tensor
    hand: Tensor
    thing: Tensor
    depth: Tensor


def draw_person(shapes: Shapes, camera: Camera, scene: Scene, device: torch.device) -> Person:
    """The shapes of one person; transparent where no frame sees any of them.

    They are drawn on a canvas that goes with the person, so that a limb stays in a small box of it.
    """
    ends, radii, depths = _projected(shapes, camera)
    low, high = (ends - radii[..., None]).min(2), (ends + radii[..., None]).max(2)  # [T, N, 2]
    anchor = np.floor((low.min(1) + high.max(1)) / 2)  # [T, 2] px
    size = np.array([camera.width, camera.height])
    corner = np.maximum(np.floor((low - anchor[:, None]).min((0, 1))) - 1, -anchor.max(0))
    limit = np.minimum(np.ceil((high - anchor[:, None]).max((0, 1))) + 1, size - anchor.min(0))
    span = np.maximum(limit - corner, 1).astype(int)
    canvas = torch.zeros(len(anchor), CHANNELS, span[1], span[0], device=device)
    canvas[:, DEPTH] = EMPTY
    anchor = anchor + corner
    numbers = _numbers(ends - anchor[:, None, None], radii, depths, camera.R @ scene.light).to(device)
    first = np.clip(np.floor((low - anchor[:, None]).min(0)) - 1, 0, span).astype(int)
    last = np.clip(np.ceil((high - anchor[:, None]).max(0)) + 1, 0, span).astype(int)
    # Bodies first, then hands, then things: so what has no hand or thing yet need not keep account of them.
    for n in np.argsort(shapes.label, kind="stable").tolist():
        (x0, y0), (x1, y1) = first[n].tolist(), last[n].tolist()
        if x1 > x0 and y1 > y0:
            part = canvas[:, :, y0:y1, x0:x1]
            _splat(part, (x0, y0), numbers[:, n].unbind(1), shapes, n, scene)
    return _in_frame(canvas, anchor.astype(int), camera)


def _projected(shapes: Shapes, camera: Camera) -> tuple[ndarray, ndarray, ndarray]:
    """Both ends in px [T, N, 2 ends, 2], radii px and depths m [T, N, 2 ends]."""
    (start, start_depth), (end, end_depth) = camera.project(shapes.start), camera.project(shapes.end)
    depths = np.maximum(np.stack([start_depth, end_depth], -1), NEAREST)
    radii = camera.K[:, 0, 0][:, None, None] * shapes.radii / depths
    return np.stack([start, end], -2), radii, depths


def _numbers(ends: ndarray, radii: ndarray, depths: ndarray, light: ndarray) -> Tensor:
    """What ``_splat`` needs of each shape in each frame: [T, N, 14, 1, 1]."""
    along = ends[:, :, 1] - ends[:, :, 0]
    length = np.maximum((along**2).sum(-1, keepdims=True), 1e-6)
    light = np.broadcast_to(light[:, None], (*along.shape[:2], 3))
    columns = [ends[:, :, 0], along / length, along, radii[..., :1], np.diff(radii), depths[..., :1], np.diff(depths)]
    numbers = np.concatenate([*columns, light, np.maximum(np.sqrt(length), 1)], -1)
    return torch.from_numpy(numbers.astype(np.float32))[..., None, None]


def _splat(canvas: Tensor, corner: tuple[int, int], numbers: tuple, shapes: Shapes, n: int, scene: Scene) -> None:
    """Blend one tapered capsule into ``canvas`` [T, 7, h, w], before or behind what is there, pixel by pixel."""
    ax, ay, ux, uy, bx, by, r0, dr, z0, dz, lx, ly, lz, length = numbers
    height, width = canvas.shape[2:]
    dx = torch.arange(width, device=canvas.device) + (corner[0] + 0.5) - ax  # [T, 1, w]
    dy = torch.arange(height, device=canvas.device)[:, None] + (corner[1] + 0.5) - ay  # [T, h, 1]
    share = (dx * ux + dy * uy).clamp_(0, 1)
    dx, dy = torch.addcmul(dx, share, bx, value=-1), torch.addcmul(dy, share, by, value=-1)
    radius = torch.addcmul(r0, share, dr)
    square = (dx * dx).addcmul_(dy, dy)
    cover = (radius - square.sqrt()).add_(0.5).clamp_(0, 1)
    inverse = radius.reciprocal_()
    facing = square.mul_(inverse).mul_(inverse).clamp_(max=1).neg_().add_(1).sqrt_()
    thick, taper = float(shapes.radii[n, 0]), float(shapes.radii[n, 1] - shapes.radii[n, 0])
    depth = torch.addcmul(z0 - float(shapes.lift[n]), share, dz).sub_((share * taper).add_(thick).mul_(facing))
    toward = (dx * lx).addcmul_(dy, ly).mul_(inverse).addcmul_(facing, lz, value=-1).clamp_(min=-0.25)
    bright = toward.mul_(1 - scene.ambient).add_(scene.ambient + 0.08)

    opacity, nearest, label = canvas[:, OPACITY], canvas[:, DEPTH], shapes.label[n]
    front = (nearest - depth).mul_(1 / MELT).sigmoid_()
    keep = (front * cover).neg_().add_(1)
    add = front.neg_().add_(1).mul_(opacity).neg_().add_(1).mul_(cover)
    canvas[:, : HANDS + (0, 1, 2)[label]].mul_(keep[:, None])
    canvas[:, :3].addcmul_(_paint_of(shapes, n, share, length), bright.mul_(add)[:, None])
    if label != BODY:
        canvas[:, HANDS if label == HAND else THINGS].add_(add)
    opacity.addcmul_(cover, 1 - opacity)
    torch.minimum(nearest, depth.masked_fill_(cover == 0, EMPTY), out=nearest)


def _paint_of(shapes: Shapes, n: int, share: Tensor, length: Tensor) -> Tensor:
    """Colour along a capsule [T or 1, 3, h or 1, w or 1]: cloth up to ``split``, or broad bands."""
    ends = np.stack([shapes.inner[n], shapes.outer[n]])[..., None, None]
    inner, outer = torch.as_tensor(ends, dtype=torch.float32, device=share.device)
    if shapes.bands[n]:
        amount = (share * (2 * np.pi * float(shapes.bands[n]))).sin_().mul_(2).add_(0.3).clamp_(0, 1)
    elif shapes.split[n] >= 1.5:
        return inner[None]
    elif shapes.split[n] <= 0:
        return outer[None]
    else:
        amount = (share - float(shapes.split[n])).mul_(length).add_(0.5).clamp_(0, 1)
    return torch.addcmul(inner, outer - inner, amount[:, None])


def _in_frame(canvas: Tensor, corner: ndarray, camera: Camera) -> Person:
    """The canvas, whose top left pixel is at ``corner`` [T, 2], in frames of the camera's size."""
    frames, channels, height, width = canvas.shape
    full = torch.zeros(frames, channels, camera.height, camera.width, device=canvas.device)
    for t, (x, y) in enumerate(corner.tolist()):
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + width, camera.width), min(y + height, camera.height)
        if x1 > x0 and y1 > y0:
            full[t, :, y0:y1, x0:x1] = canvas[t, :, y0 - y : y1 - y, x0 - x : x1 - x]
    return Person(full[:, :3], full[:, OPACITY], full[:, HANDS], full[:, THINGS], full[:, DEPTH])
