"""What is seen along single lines of sight through the stage's scenes, without drawing a picture.

A thousand times cheaper than the renderer, whose depth it gives; of cut-out shapes (bushes, rocks) it knows the ellipse
that their outline fills, not the leaves.
"""

import numpy as np
from numpy import ndarray

from . import render
from .cameras import Camera
from .scenes import Scene


class Sight:
    """Lines of sight of ``camera`` through ``scene``; the person stands on ``person`` [T, 3]."""

    def __init__(self, scene: Scene, camera: Camera, person: ndarray) -> None:
        self.camera = camera
        self.planes = [np.stack([getattr(plane, name) for plane in scene.planes]) for name in render.SIDES]
        quads = [quad for quad in scene.quads if quad.group is not None]  # the others lie flat on a plane
        self.cut = np.array([quad.outline is not None for quad in quads], bool)
        self.quads = [np.array([getattr(quad, name) for quad in quads]).reshape(-1, 3) for name in render.SIDES]
        self.hides = np.zeros((len(camera.t), 0), bool)
        if quads:
            low, high, use = render.bounds(camera, *(side[None] for side in self.quads))
            use &= (high > 0).all(-1) & (low < [camera.width, camera.height]).all(-1)
            outside, hides = render.standing(quads, camera, person)
            use &= outside | self.cut
            near = use.any(0)
            self.quads = [side[near] for side in self.quads]
            self.cut, self.use, self.hides = self.cut[near], use[:, near], (hides & use)[:, near]

    def inverse_depth(self, pixels: ndarray) -> ndarray:
        """1/m of what is seen at ``pixels`` [T, N, 2]: [T, N]."""
        rays = self._rays(pixels)
        nearest = _meet(self.camera, rays, self.planes).max(-1)
        if self.cut.size:
            inverse = _meet(self.camera, rays, self.quads)
            solid = self._inside(rays, inverse) & self.use[:, None]
            nearest = np.maximum(nearest, np.where(solid, inverse, 0).max(-1))
        return np.maximum(nearest, 1e-4)

    def hidden(self, pixels: ndarray) -> ndarray:
        """Whether furniture stands before the person at ``pixels`` [T, N, 2]: [T, N] bool."""
        if not self.hides.any():
            return np.zeros(pixels.shape[:2], bool)
        rays = self._rays(pixels)
        return (self._inside(rays, _meet(self.camera, rays, self.quads)) & self.hides[:, None]).any(-1)

    def _rays(self, pixels: ndarray) -> ndarray:
        """[T, N, 3] in the world, 1 long along the optical axis."""
        points = np.concatenate([pixels, np.ones((*pixels.shape[:2], 1))], axis=-1)
        return points @ self.camera.rays.transpose(0, 2, 1)

    def _inside(self, rays: ndarray, inverse: ndarray) -> ndarray:
        """Whether rays [T, N, 3] meet the quads, whose planes they meet at ``inverse`` depth [T, N, Q]."""
        origin, right, down = self.quads
        depth = 1 / np.maximum(inverse, 1e-3)
        at = []
        for side in (right, down):
            along = side / (side**2).sum(-1, keepdims=True)
            start = (self.camera.centre @ along.T - (origin * along).sum(-1))[:, None]
            at.append(start + (rays @ along.T) * depth - 0.5)
        u, v = at
        box = (np.abs(u) < 0.5) & (np.abs(v) < 0.5)
        return box & (inverse > 1e-3) & (~self.cut | (u * u + v * v < 0.25))


def _meet(camera: Camera, rays: ndarray, sides: list[ndarray]) -> ndarray:
    """Inverse depth [T, N, Q] at which rays [T, N, 3] meet planes of ``sides`` origin, right, down [Q, 3]."""
    origin, right, down = sides
    normal = np.cross(right, down)
    away = ((origin - camera.centre[:, None]) * normal).sum(-1)  # [T, Q]
    return (rays @ normal.T) / np.where(np.abs(away) < 1e-6, 1e-6, away)[:, None]
