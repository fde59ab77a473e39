"""Cameras of the stage: they stand, follow, pan, dolly, zoom and sway, and keep a distance from the person.

World: metres, z up. Camera: x right, y down, z forward; ``x_camera = R x_world + t``; pixels ``K x_camera`` with pixel
centres at halves (the top left pixel's centre is 0.5, 0.5).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy import ndarray

from .motion import RATE, ease, smooth, wobble

KINDS = ("stand", "follow", "pan", "dolly", "zoom", "sway")
SHARE = (0.16, 0.30, 0.18, 0.14, 0.10, 0.12)
NEAREST = 1.1  # metres between camera and person


@dataclass(frozen=True)
class Camera:
    """``K``, ``R`` [T, 3, 3] and ``t`` [T, 3], float64; ``width``, ``height`` px."""

    K: ndarray
    R: ndarray
    t: ndarray
    width: int
    height: int

    @cached_property
    def centre(self) -> ndarray:
        """[T, 3] in the world."""
        return -np.einsum("tji,tj->ti", self.R, self.t)

    def view(self, points: ndarray) -> ndarray:
        """World points [T, ..., 3] in camera coordinates."""
        flat = points.reshape(len(points), -1, 3)
        return (flat @ self.R.transpose(0, 2, 1) + self.t[:, None]).reshape(points.shape)

    def project(self, points: ndarray) -> tuple[ndarray, ndarray]:
        """World points [T, ..., 3] to pixels [T, ..., 2] and depths [T, ...]. Behind the camera pixels mean nothing."""
        seen = self.view(points)
        depth = seen[..., 2]
        safe = np.where(np.abs(depth) < 1e-6, 1e-6, depth)[..., None]
        focal = self.K[:, 0, 0].reshape(-1, *[1] * (points.ndim - 1))
        middle = np.array([self.width, self.height]) / 2
        return seen[..., :2] / safe * focal + middle, depth

    @cached_property
    def rays(self) -> ndarray:
        """[T, 3, 3]: ``rays @ (x px, y px, 1)`` is the world direction that is 1 long along the optical axis."""
        return self.R.transpose(0, 2, 1) @ np.linalg.inv(self.K)


def look(centre: ndarray, aim: ndarray, roll: ndarray) -> tuple[ndarray, ndarray]:
    """R [S, 3, 3] and t [S, 3] of cameras at ``centre`` that look at ``aim`` [S, 3]; ``roll`` [S] rad."""
    forward = aim - centre
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    right = np.cross(forward, np.array([0.0, 0.0, 1.0]))
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    down = np.cross(forward, right)
    sine, cosine = np.sin(roll)[:, None], np.cos(roll)[:, None]
    right, down = right * cosine + down * sine, down * cosine - right * sine
    R = np.stack([right, down, forward], 1)
    return R, -np.einsum("tij,tj->ti", R, centre)


@dataclass
class Shot:
    """A camera before it is fixed to pixels: [S] samples at 60 Hz."""

    centre: ndarray  # [S, 3]
    aim: ndarray  # [S, 3]
    focal: ndarray  # px
    roll: ndarray


def film(rng, kind: str, subject: ndarray, tall: float, size: tuple[int, int], whole: bool, side: float) -> Shot:
    """A camera of one of ``KINDS`` for a person ``tall`` m high that goes along ``subject`` [S, 3], heading about x.

    ``size``: width, height px. ``whole``: the feet are in the frame, else about the upper half. ``side``: how far the
    camera may stand from straight in front, in rad.
    """
    width, height = size
    time = np.arange(len(subject)) / RATE
    focal = max(size) * rng.uniform(0.85, 1.7)
    share = rng.uniform(0.6, 0.93) if whole else rng.uniform(1.2, 1.9)
    distance = max(focal * tall / (share * height), focal * 0.55 / width, 1.3)
    azimuth = rng.uniform(-side, side) if rng.random() < 0.3 else rng.uniform(-1, 1) * min(side, 1.4)
    level = rng.uniform(0.5, 1.15) * tall if rng.random() < 0.8 else rng.uniform(1.2, 1.9) * tall
    offset = np.array([np.cos(azimuth), np.sin(azimuth), 0]) * distance
    path = smooth(subject, 0.35)
    path[:, 2] = 0
    aim_height = tall * (rng.uniform(0.44, 0.54) if whole else rng.uniform(0.68, 0.80))
    middle = path[int(rng.uniform(0.2, 0.8) * (len(path) - 1))]
    up = np.array([0.0, 0.0, 1.0])
    shot = Shot(
        np.broadcast_to(middle + offset + up * level, path.shape).copy(),
        np.broadcast_to(middle + up * aim_height, path.shape).copy(),
        np.full(len(path), focal),
        np.zeros(len(path)),
    )
    _move(rng, kind, shot, path, offset, time)
    if kind == "sway" or rng.random() < 0.25:
        _sway(rng, shot, distance, time, rng.uniform(0.6, 1.6) if kind == "sway" else rng.uniform(0.1, 0.5))
    _keep_away(shot, subject)
    return shot


def _move(rng, kind: str, shot: Shot, path: ndarray, offset: ndarray, time: ndarray) -> None:
    """Turn a standing camera into one of its kind."""
    end = time[-1]
    start = rng.uniform(-0.5, 0.3) * end
    course = ease(time, start, start + rng.uniform(0.7, 1.6) * end)[:, None]
    course = course - course[int(rng.integers(len(course)))]
    if kind == "follow":
        track = path - path[len(path) // 2]
        shift = path[len(path) // 2] - shot.aim[0] * [1, 1, 0]
        shot.centre += track * rng.uniform(0.85, 1.0) + shift
        shot.aim += track + shift
    elif kind == "pan":
        if rng.random() < 0.5:
            shot.aim += (path - path[len(path) // 2]) * rng.uniform(0.7, 1.0)
        else:
            angle = course[:, 0] * rng.choice([-1, 1]) * rng.uniform(0.12, 0.5)
            way = shot.aim - shot.centre
            turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], 1).reshape(-1, 2, 2)
            shot.aim[:, :2] = shot.centre[:, :2] + np.einsum("sij,sj->si", turn, way[:, :2])
            shot.aim[:, 2] += course[:, 0] * rng.normal(0, 0.15)
    elif kind == "dolly":
        _dolly(rng, shot, offset, course)
    elif kind == "zoom":
        shot.focal *= np.exp(course[:, 0] * rng.choice([-1, 1]) * rng.uniform(0.25, 0.65))


def _dolly(rng, shot: Shot, offset: ndarray, course: ndarray) -> None:
    distance = np.linalg.norm(offset)
    way = offset / distance
    across = np.array([-way[1], way[0], 0])
    kind = rng.choice(["in", "truck", "arc"], p=[0.4, 0.3, 0.3])
    if kind == "in":
        shot.centre += way * course * distance * rng.choice([-0.45, 0.6])
    elif kind == "truck":
        move = across * course * rng.choice([-1, 1]) * rng.uniform(0.3, 0.9)
        shot.centre += move
        shot.aim += move * rng.choice([1.0, 0.6])
    else:
        angle = course[:, 0] * rng.choice([-1, 1]) * rng.uniform(0.3, 0.9)
        around = way * np.cos(angle)[:, None] + across * np.sin(angle)[:, None]
        shot.centre += (around - way) * distance


def _sway(rng, shot: Shot, distance: float, time: ndarray, amount: float) -> None:
    """A camera held by hand: slow drift of place, direction and roll."""
    drift = np.stack([wobble(rng, time, 0.15, 0.9) for _ in range(6)], 1) * amount
    shot.centre += drift[:, :3] * 0.03
    shot.aim += drift[:, 3:] * [0.02, 0.02, 0.012] * distance
    shot.roll += 0.02 * amount * wobble(rng, time, 0.1, 0.6)


def _keep_away(shot: Shot, subject: ndarray) -> None:
    """Move the whole camera path back until it is nowhere nearer than NEAREST."""
    back = shot.centre - shot.aim
    back[:, 2] = 0
    back = back.mean(0) / max(np.linalg.norm(back.mean(0)), 1e-6)
    for _ in range(12):
        near = np.linalg.norm((shot.centre - subject)[:, :2], axis=1).min()
        depth = ((shot.centre - subject) * back).sum(1).min()
        if min(near, depth) >= NEAREST:
            return
        shot.centre += back * 0.3


def fix(shot: Shot, at: ndarray, size: tuple[int, int]) -> Camera:
    """The camera at samples ``at`` [T] of a shot."""
    width, height = size
    R, t = look(shot.centre[at], shot.aim[at], shot.roll[at])
    K = np.zeros((len(at), 3, 3))
    K[:, 0, 0] = K[:, 1, 1] = shot.focal[at]
    K[:, 0, 2], K[:, 1, 2], K[:, 2, 2] = width / 2, height / 2, 1
    return Camera(K, R, t, width, height)
