"""How each vertex of a layer follows the bones: around which joint it bends, and how far.

A vertex belongs to one joint of its limb and has a weight from 0 (it goes with the bone above the
joint) to 1 (with the one below). Layers that overlap share these functions, so that the character
in its own pose has no seam.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy import ndarray

from .body import SIDES, Points
from .character import Character
from .clothing import point_on_leg
from .mesh import Mesh
from .parts import ARM_PARTS, LEG_PARTS, Parts
from .vectors import length, project_on_segment, smoothstep, unit

LEG_SIDE = 0.7  # of half the hips' breadth: where right turns into left at the crotch
SKIRT_SIDE = 0.35  # in trunks: the same in a skirt
FOLDED = 0.2  # length of the sum of two unit vectors below which a joint is folded up


@dataclass(frozen=True, eq=False)
class LimbBinding:
    """``joint`` [N]: 0, 1 or 2 along the limb ("shoulder", "elbow", "wrist" or "hip", "knee",
    "ankle"), ``weight`` [N], and ``along`` [N] from 0 at the root to 2, for the order of drawing.
    ``rest``: the limb's points in the texture."""

    side: str
    joint: ndarray
    weight: ndarray
    along: ndarray
    rest: Points


@dataclass(frozen=True, eq=False)
class CoreBinding:
    """Of head, trunk and pelvis, [N] each: how far a vertex goes with the ``head``, with the
    ``legs`` instead of the trunk, and of these with the ``left`` one."""

    head: ndarray
    legs: ndarray
    left: ndarray
    limbs: dict[str, LimbBinding]


def bind_arm(character: Character, parts: Parts, mesh: Mesh, side: str) -> LimbBinding:
    points, at = character.points, mesh.vertices
    shoulder, elbow, wrist, hand = (
        points[f"{side}_{n}"] for n in ("shoulder", "elbow", "wrist", "hand")
    )
    bone = _nearest_bone(parts, mesh, [f"{side}_{name}" for name in ARM_PARTS])
    upper_at, lower_at = (
        project_on_segment(at, a, b)[0] for a, b in ((shoulder, elbow), (elbow, wrist))
    )
    upper, lower = length(elbow - shoulder), length(wrist - elbow)
    joint = _joints(bone, upper_at, lower_at)
    radius, thin = parts.radius[f"{side}_upper_arm"], parts.radius[f"{side}_forearm"]
    at_shoulder = smoothstep((at - shoulder) @ unit(elbow - shoulder), -0.5 * radius, radius)
    bend = min(0.8 * thin, 0.45 * upper, 0.45 * lower)
    at_elbow = np.where(bone == 2, 1.0, _across_joint(at, elbow, shoulder, wrist, bend))
    at_wrist = _across_joint(at, wrist, elbow, hand, min(0.5 * thin, 0.4 * lower))
    along = np.where(bone == 0, np.clip(upper_at, 0, 1), 1 + np.clip(lower_at, 0, 1))
    weight = np.choose(joint, [at_shoulder, at_elbow, at_wrist])
    return LimbBinding(side, joint, weight, along, _rest(character, side, "arm"))


def bind_leg(
    character: Character, parts: Parts, mesh: Mesh, side: str, core: bool = False
) -> LimbBinding:
    """``core``: for vertices of the core, which are of the thigh as long as they are beside it."""
    points, at = character.points, mesh.vertices
    hip, knee, ankle = (points[f"{side}_{name}"] for name in ("hip", "knee", "ankle"))
    bone = _nearest_bone(parts, mesh, [f"{side}_{name}" for name in LEG_PARTS])
    thigh_at, shin_at = (project_on_segment(at, a, b)[0] for a, b in ((hip, knee), (knee, ankle)))
    if core:
        bone = np.where(thigh_at < 0.8, 0, bone)
    joint = _joints(bone, thigh_at, shin_at)
    thick, thin = parts.radius[f"{side}_thigh"], parts.radius[f"{side}_shin"]
    bend = min(0.9 * thin, 0.45 * length(knee - hip), 0.45 * length(ankle - knee))
    at_hip = smoothstep((at - hip) @ unit(knee - hip), -0.5 * thick, 1.2 * thick)
    at_knee = np.where(bone == 2, 1.0, _across_joint(at, knee, hip, ankle, bend))
    at_ankle = smoothstep((at - ankle) @ unit(ankle - knee), -0.4 * thin, 0.3 * thin)
    at_ankle = np.where(bone == 2, np.maximum(at_ankle, 0.5), at_ankle)
    weight = np.choose(joint, [at_hip, at_knee, at_ankle])
    return LimbBinding(side, joint, weight, joint.astype(float), _rest(character, side, "leg"))


def bind_core(character: Character, parts: Parts, mesh: Mesh, skirt: ndarray | None) -> CoreBinding:
    at, trunk = mesh.vertices, character.trunk
    head = _head_weight(character, parts, mesh)
    if not character.legs:
        nothing = np.zeros(len(at))
        return CoreBinding(head, nothing, nothing, {})
    hips = character.points["hips"]
    below = smoothstep((at - hips) @ -character.trunk_up, -0.25 * trunk, 0.12 * trunk)
    left = _left_weight(character, at) if skirt is None else _left_in_skirt(character, at)
    limbs = {side: bind_leg(character, parts, mesh, side, core=True) for side in SIDES}
    return CoreBinding(head, below, left, limbs)


def reflect(binding: CoreBinding | LimbBinding) -> CoreBinding | LimbBinding:
    """The binding of a layer whose x all change their sign."""
    if isinstance(binding, LimbBinding):
        return replace(binding, rest={n: p * (-1, 1) for n, p in binding.rest.items()})
    return replace(binding, limbs={side: reflect(limb) for side, limb in binding.limbs.items()})


def mirror(binding: LimbBinding, width: int, side: str) -> LimbBinding:
    """The binding of a limb whose texture of ``width`` px is mirrored to be the other side's."""
    rest = {n: np.array([width - 1 - p[0], p[1]]) for n, p in binding.rest.items()}
    return replace(binding, side=side, rest=rest)


def _rest(character: Character, side: str, limb: str) -> Points:
    names = {
        "arm": ("shoulder", "elbow", "wrist", "hand"),
        "leg": ("hip", "knee", "ankle", "toe", "heel"),
    }[limb]
    return {name: character.points[f"{side}_{name}"] for name in names}


def _nearest_bone(parts: Parts, mesh: Mesh, names: list[str]) -> ndarray:
    return np.stack([mesh.sampled(parts.of(name)) for name in names]).argmin(axis=0)


def _joints(bone: ndarray, upper_at: ndarray, lower_at: ndarray) -> ndarray:
    """The joint [N] nearest to each vertex, whose bone [N] is 0, 1 or 2."""
    end = np.where((bone == 1) & (lower_at < 0.5), 1, 2)
    return np.where(bone == 0, np.where(upper_at < 0.5, 0, 1), end)


def _across_joint(
    at: ndarray, joint: ndarray, above: ndarray, below: ndarray, half: float
) -> ndarray:
    """0 to 1 across a joint along the bisector of its bones, ``half`` px to either side."""
    inwards, outwards = unit(joint - above), unit(below - joint)
    along = inwards + outwards
    along = unit(along) if length(along) > FOLDED else outwards
    return smoothstep((at - joint) @ along, -half, half)


def _head_weight(character: Character, parts: Parts, mesh: Mesh) -> ndarray:
    """1 above the chin, fading down to the collar; shoulders have none, long hair does."""
    trunk, neck = character.trunk, character.points["neck"]
    upwards = unit(character.points["head"] - neck)
    height = (mesh.vertices - neck) @ upwards
    collar, chin = 0.05 * trunk, max((character.chin - neck) @ upwards, 0.18 * trunk)
    to_head, to_trunk = (
        mesh.sampled(parts.of(name)) * parts.radius[name] for name in ("head", "trunk")
    )
    nearer_head = to_trunk - to_head  # px
    weight = np.minimum(
        smoothstep(height, collar, chin), smoothstep(nearer_head, -0.25 * trunk, 0.05 * trunk)
    )
    above = np.maximum(weight, smoothstep(nearer_head, -0.12 * trunk, 0.0))
    return np.where(height > chin, above, weight)


def _left_weight(character: Character, at: ndarray) -> ndarray:
    points = character.points
    across = points["left_hip"] - points["right_hip"]
    half = max(0.5 * length(across), 0.08 * character.trunk)
    return smoothstep((at - points["hips"]) @ unit(across), -LEG_SIDE * half, LEG_SIDE * half)


def _left_in_skirt(character: Character, at: ndarray) -> ndarray:
    """From the right leg's bone to the left one's, at each vertex' own height."""
    points, trunk = character.points, character.trunk
    feet = (points["right_ankle"] + points["left_ankle"]) / 2
    down = -character.trunk_up
    share = ((at - points["hips"]) @ down) / max(1.0, (feet - points["hips"]) @ down)
    levels = np.linspace(0, 1, 33)
    legs = [np.stack([point_on_leg(character, side, s) for s in levels]) for side in SIDES]
    right, left = (
        np.stack([np.interp(share, levels, leg[:, axis]) for axis in (0, 1)], 1) for leg in legs
    )
    across = left - right
    apart = np.maximum(np.linalg.norm(across, axis=1), 1)
    from_middle = ((at - (right + left) / 2) * across).sum(axis=1) / apart
    return smoothstep(from_middle, -SKIRT_SIDE * trunk, SKIRT_SIDE * trunk)
