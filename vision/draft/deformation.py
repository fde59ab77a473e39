"""Where the vertices of the layers go for a target pose: bones, joints, trunk and head.

A bone's map turns the picture's limb to the target's, stretches it to its length and keeps its
breadth. Between two bones a vertex goes with both, by the weight of its binding, but its angle
and its stretch are mixed apart, so that a bent joint does not collapse.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from .binding import CoreBinding, LimbBinding, reflect
from .body import SIDES, Points
from .character import Character, reflected
from .layers import CORE, Layers
from .vectors import angle, length, perpendicular, rotation, smoothstep, unit, wrap_angle

TRUNK_STRETCH = (0.35, 1.6)  # of the trunk's length, times the scale
LIMB_STRETCH = (0.12, 2.2)
BREADTH = (0.62, 1.35)  # of shoulders and hips: a paper figure cannot be seen from the side
SLOPE = 0.45  # of their breadth: how far shoulders and hips may slope
CHEST_HALF = 0.62  # of the shoulders' breadth
HAND_TURN, HAND_SHARE = 0.6, 0.7  # rad at most; the part of the wrist's turn that the hand makes
FOOT_TURN, FOOT_SHIN = 0.35, 0.5  # rad beyond the shin's turn, and the part of that one it makes
HEAD_TILT, HEAD_YAW, HEAD_PITCH = 0.8, 0.7, 0.4  # rad at most
HEAD_DEPTH = 0.8  # of the head's radius: how far its middle moves when it turns
CHEST_DEPTH = 0.5  # of the half breadth, likewise
CHAINS = {
    "arm": (
        ("trunk", "upper_arm", "shoulder"),
        ("upper_arm", "forearm", "elbow"),
        ("forearm", "hand", "wrist"),
    ),
    "leg": (("trunk", "thigh", "hip"), ("thigh", "shin", "knee"), ("shin", "foot", "ankle")),
}  # bone above, bone below, and the joint between them
BONES = {"upper_arm": ("shoulder", "elbow"), "forearm": ("elbow", "wrist")}
BONES |= {"thigh": ("hip", "knee"), "shin": ("knee", "ankle")}


@dataclass(frozen=True, eq=False)
class Target:
    """One frame's pose: ``points`` [2] px by name, all that the character has; ``scale``, px of
    the frame per px of the picture; ``yaw`` of the trunk in rad against the picture's, positive
    to the right of the frame; ``mirrored`` where the body shows its other side."""

    points: Points
    scale: float
    yaw: float = 0.0
    mirrored: bool = False


class BoneMap(NamedTuple):
    """x ↦ R(``turn``) · ``stretch`` [2, 2] · x, relative to a joint."""

    turn: float
    stretch: ndarray


def deform(character: Character, layers: Layers, target: Target) -> dict[str, ndarray]:
    """The vertices of each layer in the frame, [N, 2] px by the layer's name."""
    positions = {}
    if target.mirrored:
        character = reflected(character)
    trunk = _Trunk(character, target)
    for name, layer in layers.by_name.items():
        at, binding = layer.mesh.vertices, layer.binding
        if target.mirrored:
            at, binding = at * (-1, 1), reflect(binding)
        if name == CORE:
            positions[name] = _bend_core(character, target, trunk, at, binding)
        else:
            kind = name.rpartition("_")[2]
            positions[name] = _bend_limb(character, target, trunk, at, binding, kind)
    return positions


class _Trunk:
    """The map of the trunk: bilinear between the lines of the hips and of the shoulders."""

    def __init__(self, character: Character, target: Target) -> None:
        rest, goal, scale = character.points, target.points, target.scale
        self.target, self.rest_hips, self.hips = target, rest["hips"], goal["hips"]
        self.rest_up, self.tall = character.trunk_up, character.trunk
        across = perpendicular(self.rest_up)
        from_right = rest["left_shoulder"] - rest["right_shoulder"]
        self.rest_across = across if across @ from_right > 0 else -across
        axis = goal["neck"] - goal["hips"]
        low, high = (scale * limit for limit in TRUNK_STRETCH)
        stretch = float(np.clip(length(axis) / self.tall, low, high))
        turn = wrap_angle(angle(axis) - angle(self.rest_up))
        self.up, self.new_tall = unit(axis), stretch * self.tall
        across = perpendicular(self.up)
        self.across = across if across @ rotation(turn) @ self.rest_across > 0 else -across
        self.lines = np.stack([self._line(rest, goal, name) for name in ("hip", "shoulder")])
        self.half = CHEST_HALF * length(from_right)
        breadth = float(np.linalg.norm(self.lines, axis=1).mean())
        along = angle(self.rest_up)
        shape = np.diag([stretch, breadth])
        self.bone = BoneMap(turn, rotation(along) @ shape @ rotation(-along))

    def _line(self, rest: Points, goal: Points, name: str) -> ndarray:
        """Where one pixel across the picture's trunk goes at the height of "hip" or "shoulder",
        [2] px: the target's own line, less the slope that the picture shows already."""
        before = rest[f"left_{name}"] - rest[f"right_{name}"]
        after = goal[f"left_{name}"] - goal[f"right_{name}"]
        breadth = max(length(before), 1e-3)
        full = breadth * self.target.scale
        wide = float(np.clip(abs(after @ self.across), BREADTH[0] * full, BREADTH[1] * full))
        slope = float(np.clip(after @ self.up, -SLOPE * full, SLOPE * full))
        line = (self.across * wide + self.up * slope) / breadth
        own_slope = float(before @ self.rest_up) / breadth
        return line - self.up * (length(line) * own_slope)

    def move(self, at: ndarray) -> ndarray:
        """Points [N, 2] of the picture in the frame."""
        offset = at - self.rest_hips
        height, side = offset @ self.rest_up / self.tall, offset @ self.rest_across
        share = np.clip(height, -0.3, 1.15)
        mix = np.clip(share, 0, 1)[:, None]
        line = self.lines[0] + mix * (self.lines[1] - self.lines[0])
        bulge = np.clip(1 - (side / self.half) ** 2, 0, 1)
        bulge *= np.clip(1.25 - np.abs(share - 0.5), 0, 1)
        shift = CHEST_DEPTH * self.half * np.sin(self.target.yaw) * self.target.scale
        right = self.across if self.across[0] > 0 else -self.across
        upright = self.hips + height[:, None] * self.new_tall * self.up
        return upright + side[:, None] * line + (shift * bulge)[:, None] * right


def _bend_core(
    character: Character, target: Target, trunk: _Trunk, at: ndarray, binding: CoreBinding
) -> ndarray:
    """The vertices [N, 2] of head, trunk and pelvis in the frame."""
    moved = trunk.move(at)
    if binding.limbs:
        right, left = (
            _bend_limb(character, target, trunk, at, binding.limbs[side], "leg") for side in SIDES
        )
        legs = right + binding.left[:, None] * (left - right)
        moved += binding.legs[:, None] * (legs - moved)
    return moved + binding.head[:, None] * (_move_head(character, target, at) - moved)


def _bend_limb(
    character: Character,
    target: Target,
    trunk: _Trunk,
    at: ndarray,
    binding: LimbBinding,
    kind: str,
) -> ndarray:
    """The vertices [N, 2] of an "arm" or "leg" in the frame."""
    bones = {"trunk": trunk.bone}
    for name in [below for _, below, _ in CHAINS[kind][:2]]:
        bones[name] = _bone(binding, target, *BONES[name])
    if kind == "arm":
        bones["hand"] = _hand(binding, target, bones["forearm"], character.trunk)
    else:
        bones["foot"] = _foot(binding, target, bones["shin"], character.trunk)
    moved = np.empty_like(at)
    for number, (above, below, joint) in enumerate(CHAINS[kind]):
        own = binding.joint == number
        shoulder = _outwards(binding.side, target) if joint == "shoulder" else 0
        goal = target.points[f"{binding.side}_{joint}"]
        offset = at[own] - binding.rest[joint]
        moved[own] = goal + _mixed(
            offset, binding.weight[own], bones[above], bones[below], shoulder
        )
    return moved


def _outwards(side: str, target: Target) -> int:
    """The sense in which that arm is lifted sideways in the frame."""
    return 1 if (side == "right") != target.mirrored else -1


def _mixed(
    offset: ndarray, weight: ndarray, above: BoneMap, below: BoneMap, outwards: int
) -> ndarray:
    """``offset`` [N, 2] px from a joint, moved by both bones. With ``outwards`` ±1 the turn between
    them is taken from -90° to 270° in that sense, so that a raised arm does not snap around."""
    turn = wrap_angle(below.turn - above.turn)
    if outwards:
        turn = outwards * ((outwards * turn + np.pi / 2) % (2 * np.pi) - np.pi / 2)
    by_above, by_below = offset @ above.stretch.T, offset @ below.stretch.T
    x, y = (by_above + weight[:, None] * (by_below - by_above)).T
    angles = above.turn + weight * turn
    cos, sin = np.cos(angles), np.sin(angles)
    return np.stack([cos * x - sin * y, sin * x + cos * y], axis=1)


def _bone(binding: LimbBinding, target: Target, start: str, end: str) -> BoneMap:
    before = binding.rest[end] - binding.rest[start]
    after = target.points[f"{binding.side}_{end}"] - target.points[f"{binding.side}_{start}"]
    low, high = (target.scale * limit for limit in LIMB_STRETCH)
    stretch = float(np.clip(length(after) / max(length(before), 1e-3), low, high))
    return _along(before, angle(after) - angle(before), stretch, target)


def _along(before: ndarray, turn: float, stretch: float, target: Target) -> BoneMap:
    """A turn, after a stretch along ``before`` [2] and by the scale across it."""
    own = angle(before)
    shape = rotation(own) @ np.diag([stretch, target.scale]) @ rotation(-own)
    return BoneMap(wrap_angle(turn), shape)


def _hand(binding: LimbBinding, target: Target, forearm: BoneMap, trunk: float) -> BoneMap:
    """The hand keeps its size, and follows a part of the wrist's turn."""
    rest = binding.rest
    elbow, wrist, hand = (target.points[f"{binding.side}_{n}"] for n in ("elbow", "wrist", "hand"))
    turn = 0.0
    if length(hand - wrist) > 0.06 * target.scale * trunk:
        own = wrap_angle(angle(rest["hand"] - rest["wrist"]) - angle(rest["wrist"] - rest["elbow"]))
        bent = wrap_angle(angle(hand - wrist) - angle(wrist - elbow))
        turn = wrap_angle(bent - own)
    turn = HAND_SHARE * float(np.clip(turn, -HAND_TURN, HAND_TURN))
    return _along(rest["wrist"] - rest["elbow"], forearm.turn + turn, target.scale, target)


def _foot(binding: LimbBinding, target: Target, shin: BoneMap, trunk: float) -> BoneMap:
    """The foot keeps its size; it turns with a part of the shin and, where both show it from the
    side, with the target's own foot."""
    before = binding.rest["toe"] - binding.rest["heel"]
    after = target.points[f"{binding.side}_toe"] - target.points[f"{binding.side}_heel"]
    long = min(length(before), length(after) / target.scale) / trunk
    sideways = float(smoothstep(long, 0.12, 0.3))
    by_shin = FOOT_SHIN * shin.turn
    beyond = wrap_angle(wrap_angle(angle(after) - angle(before)) - by_shin)
    turn = by_shin + float(np.clip(beyond, -FOOT_TURN, FOOT_TURN))
    turn = 0.4 * shin.turn * (1 - sideways) + sideways * turn
    return BoneMap(turn, target.scale * np.eye(2))


def _move_head(character: Character, target: Target, at: ndarray) -> ndarray:
    """Points [N, 2] of the head in the frame: a similarity, and a bulge that moves as a face does
    when the head turns and nods."""
    up, center, radius = character.up, character.points["head"], 0.95 * character.head_radius
    side = perpendicular(up)
    offset = at - center
    x, y = offset @ side, offset @ up
    round_ = 1 - (x / radius) ** 2 - ((y + 0.1 * radius) / (1.15 * radius)) ** 2
    bulge = np.clip(round_, 0, 1)[:, None] ** 1.5
    yaw, pitch = _head_turn(character, target)
    right = side if side[0] > 0 else -side
    offset = offset + bulge * HEAD_DEPTH * radius * (np.sin(yaw) * right - np.sin(pitch) * up)
    goal_up = target.points["eyes"] - target.points["mouth"]
    tilt = np.clip(wrap_angle(angle(goal_up) - angle(up)), -HEAD_TILT, HEAD_TILT)
    return target.points["head"] + offset @ (rotation(tilt) * target.scale).T


def _head_turn(character: Character, target: Target) -> tuple[float, float]:
    """By how much the head has turned to the frame's right, and nodded, against the picture."""
    if target.mirrored:
        return 0.0, 0.0  # there is no face at the back of a head
    before, after = _head_angles(character.points), _head_angles(target.points)
    yaw, pitch = (new - old for new, old in zip(after, before))
    return float(np.clip(yaw, -HEAD_YAW, HEAD_YAW)), float(np.clip(pitch, -HEAD_PITCH, HEAD_PITCH))


def _head_angles(points: Points) -> tuple[float, float]:
    """Yaw to the right and pitch downwards, rad, by how far the nose is from between the ears."""
    up = unit(points["eyes"] - points["mouth"])
    side = perpendicular(up)
    right = side if side[0] > 0 else -side
    nose = points["nose"] - points["head"]
    ears = length(points["left_ear"] - points["right_ear"])
    radius = max(0.5 * ears, 0.21 * length(points["head"] - points["neck"]), 1e-3)
    return float(np.arctan2(nose @ right, 1.1 * radius)), float(
        np.arctan2(-(nose @ up), 1.6 * radius)
    )
