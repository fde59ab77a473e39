"""Which layer lies before which: by the depth of the limbs, or, without it, by a default."""

from dataclasses import dataclass

import numpy as np
from numpy import ndarray
from scipy.ndimage import gaussian_filter1d

from .body import SIDES, Points
from .layers import CORE

STEADY_FRAMES = 1.2  # sigma of the smoothing over time
ARM_BEHIND, ARM_BEFORE = 0.45, 0.15  # depth of a forearm behind the trunk, in trunks
LEG_NEARER = 0.08  # in trunks: the legs change places only beyond this
LIFTED = 0.35  # of the thigh's length in the picture: one that reaches less far down is lifted
# Of BlazePose's landmarks: shoulder, elbow, wrist, hip, knee, ankle.
LIMBS = {"right": (12, 14, 16, 24, 26, 28), "left": (11, 13, 15, 23, 25, 27)}


@dataclass(frozen=True, eq=False)
class Depth:
    """How far back the limbs are, in lengths of the trunk, [T] by side: ``forearm`` against the
    trunk, and ``leg``; and the ``yaw`` [T] of the shoulders in rad, positive to the frame's right.
    ``known`` [T] bool: frames whose pose tells depth."""

    forearm: dict[str, ndarray]
    leg: dict[str, ndarray]
    yaw: ndarray
    known: ndarray


def read_depth(landmarks: ndarray | None, frames: int) -> Depth:
    """The depth in BlazePose's ``landmarks`` [T, 33, 4] of one person, steadied over time. Frames
    without it take that of the nearest frame with it; without any all is at depth 0."""
    nothing = {side: np.zeros(frames) for side in SIDES}
    known = np.zeros(frames, bool) if landmarks is None else landmarks.any(axis=(1, 2))
    if not known.any():
        return Depth(nothing, nothing, np.zeros(frames), known)
    shown = np.flatnonzero(known)
    every = np.arange(frames)
    nearest = shown[np.abs(every[:, None] - shown).argmin(axis=1)]
    marks = landmarks[nearest]
    middle = {
        part: marks[:, ids, :2].mean(axis=1)
        for part, ids in (("top", (11, 12)), ("hips", (23, 24)))
    }
    trunk = np.maximum(np.linalg.norm(middle["top"] - middle["hips"], axis=1), 1)
    trunk = np.maximum(trunk, 0.5 * np.median(trunk))
    z = steady(marks[..., 3] / trunk[:, None])
    body = z[:, [11, 12, 23, 24]].mean(axis=1)
    forearm, leg = {}, {}
    for side, (_, elbow, wrist, _, knee, ankle) in LIMBS.items():
        forearm[side] = 0.3 * z[:, elbow] + 0.7 * z[:, wrist] - body
        leg[side] = (z[:, knee] + z[:, ankle]) / 2
    across = np.maximum(np.abs(marks[:, 11, 0] - marks[:, 12, 0]), 1)
    yaw = steady(np.arctan2(marks[:, 11, 3] - marks[:, 12, 3], across))
    return Depth(forearm, leg, yaw, known)


def steady(values: ndarray, sigma: float = STEADY_FRAMES) -> ndarray:
    """``values`` [T, ...] smoothed over time."""
    return gaussian_filter1d(values, sigma, axis=0, mode="nearest") if len(values) > 2 else values


def hysteresis(values: ndarray, low: float, high: float, start: bool) -> ndarray:
    """[T] bool: true from where ``values`` [T] exceed ``high`` until they fall below ``low``."""
    out, current = np.zeros(len(values), bool), start
    for index, value in enumerate(values):
        current = True if value > high else False if value < low else current
        out[index] = current
    return out


@dataclass(frozen=True, eq=False)
class Order:
    """The order of layers through time, of a ``Depth`` that belongs to one unbroken run."""

    arm_behind: dict[str, ndarray]
    forearm: dict[str, ndarray]
    right_leg_behind: ndarray

    @classmethod
    def of(cls, depth: Depth) -> "Order":
        behind = {
            side: hysteresis(values, ARM_BEFORE, ARM_BEHIND, False)
            for side, values in depth.forearm.items()
        }
        apart = depth.leg["right"] - depth.leg["left"]
        right_behind = hysteresis(apart, -LEG_NEARER, LEG_NEARER, bool(apart[0] > 0))
        return cls(behind, depth.forearm, right_behind)

    def layers(self, t: int, lifted: set[str]) -> list[str]:
        """The names of all layers in frame ``t``, the farthest first. ``lifted``: the sides whose
        thigh points at the camera."""
        by_depth = sorted(SIDES, key=lambda side: -self.forearm[side][t])
        arms = {side: f"{side}_arm" for side in by_depth}
        legs = SIDES if self.right_leg_behind[t] else SIDES[::-1]
        behind = [name for side, name in arms.items() if self.arm_behind[side][t]]
        before = [name for side, name in arms.items() if not self.arm_behind[side][t]]
        under = [f"{side}_leg" for side in legs if side not in lifted]
        over = [f"{side}_leg" for side in legs if side in lifted]
        return [*behind, *under, CORE, *over, *before]


def lifted_legs(rest: Points, points: Points, scale: float) -> set[str]:
    """The sides whose thigh reaches less far down along the trunk than it is long."""
    if "right_knee" not in rest:
        return set()
    down = points["hips"] - points["neck"]
    down = down / (np.linalg.norm(down) + 1e-6)
    lifted = set()
    for side in SIDES:
        thigh = points[f"{side}_knee"] - points[f"{side}_hip"]
        own = np.linalg.norm(rest[f"{side}_knee"] - rest[f"{side}_hip"])
        if thigh @ down < LIFTED * own * scale:
            lifted.add(side)
    return lifted
