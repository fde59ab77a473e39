"""The character cut into five layers: head with trunk, two arms and two legs.

A layer reaches a little under its neighbors, so that nothing gapes when it moves.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy import ndarray
from scipy.ndimage import distance_transform_edt

from ..mask import grow_frame
from .binding import CoreBinding, LimbBinding, bind_arm, bind_core, bind_leg, mirror
from .body import SIDES
from .character import Character
from .clothing import fill_hidden, find_skirt, hidden_trunk
from .foreground import foreground_colors
from .mesh import VISIBLE, Mesh, cell_size, make_mesh
from .parts import ARM_PARTS, LEG_PARTS, Parts, find_parts
from .vectors import length, pixel_grid, smoothstep, unit

CORE = "core"
CUT_SOFTNESS = 0.7  # px, sigma, of a cut through the character
UNDERLAP_PX = 2  # how far a layer goes on under its neighbor, so that no cut lets light through
# How far from a bone, in its radii, a pixel still is the limb's and not cloth beside it.
LOOSE = {"upper_arm": 4.0, "forearm": 2.6, "hand": 3.2}
PIECE = 0.15  # of the largest piece of a limb: a smaller loose one is left out
CAP_ABOVE = 0.6  # of the upper arm's radius: how far the shoulder's cap reaches up the trunk
UNDER_TRUNK, UNDER_SKIRT, PELVIS = 0.12, 0.12, 0.22  # in trunks: how far layers overlap
SMALL_ARM = 0.5  # of the other arm's area: a smaller one is hidden
TRUSTED = 0.5


@dataclass(frozen=True, eq=False)
class Layer:
    """``texture`` [h, w, 4], colors times alpha; the ``mesh`` over it and what it is bound to."""

    texture: ndarray
    mesh: Mesh
    binding: CoreBinding | LimbBinding


@dataclass(frozen=True, eq=False)
class Layers:
    """``by_name``: "core", "right_arm", "left_arm", "right_leg", "left_leg", those that there are.
    ``stand_ins``: the other arm, mirrored, for one that the picture hides or folds up; its own
    layer, where it has one, only fits its own pose. ``head`` [h, w] bool: its part of the core."""

    by_name: dict[str, Layer]
    stand_ins: dict[str, Layer]
    head: ndarray
    skirt: bool


def cut_layers(character: Character) -> Layers:
    """Cut ``character`` into layers and bind them to its bones."""
    parts = find_parts(character)
    colors = foreground_colors(character.picture, character.alpha, character.height)
    grid = pixel_grid(*character.alpha.shape)
    visible = character.alpha > VISIBLE
    skirt = find_skirt(character, parts)
    arms = {side: _arm_mask(parts, visible, side) for side in character.arms}
    all_arms = np.logical_or.reduce([np.zeros_like(visible), *arms.values()])
    legs = {}
    if character.legs:
        names = {side: [f"{side}_{part}" for part in LEG_PARTS] for side in SIDES}
        legs = {side: _main_pieces(parts.are(*names[side]) & visible) for side in SIDES}
    all_legs = np.logical_or.reduce([np.zeros_like(visible), *legs.values()])
    body = _main_pieces(visible & ~all_arms & ~all_legs)
    hidden = hidden_trunk(character, all_arms, body | all_legs) & visible
    source = (body | all_legs) & (character.alpha > 0.6) & ~hidden
    filled = fill_hidden(colors, source, hidden, character.height)
    cut = _Cutter(character, parts, grid, all_arms, all_legs)
    layers = {f"{side}_arm": cut.arm(colors, mask, side) for side, mask in arms.items()}
    layers[CORE] = cut.core(filled, body, all_legs, hidden, skirt)
    for side, mask in legs.items():
        layers[f"{side}_leg"] = cut.leg(filled, mask, body, hidden, skirt, side)
    return Layers(layers, _stand_ins(character, layers), parts.are("head"), skirt is not None)


class _Cutter:
    """Makes the layers of one character."""

    def __init__(
        self, character: Character, parts: Parts, grid: ndarray, arms: ndarray, legs: ndarray
    ) -> None:
        self.character, self.parts, self.grid = character, parts, grid
        self.arms, self.limbs = arms, arms | legs  # [h, w] bool
        self.cell = cell_size(character.height)
        depth = (grid - character.points["hips"]) @ -character.trunk_up
        self.below_hips = depth / character.trunk  # [h, w] in trunks

    def _layer(
        self, colors: ndarray, mask: ndarray, opaque: ndarray | None
    ) -> tuple[ndarray, Mesh]:
        # Doubled, so that the layer's own pixels at a cut are whole: at rest there is no seam.
        soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), CUT_SOFTNESS)
        soft = np.minimum(2 * soft, 1)
        alpha = self.character.alpha
        alpha = soft * (alpha if opaque is None else np.where(opaque, 1, alpha))
        texture = np.dstack([colors * alpha[..., None], alpha]).astype(np.float32)
        return texture, make_mesh(alpha, self.cell)

    def _underlapped(self, colors: ndarray, mask: ndarray, under: ndarray) -> tuple:
        """``mask`` [h, w] a little larger ``under`` [h, w] its neighbors, and colors for it: under
        an arm the layer's own go on."""
        ring = grow_frame(mask, UNDERLAP_PX) & under & ~mask
        hidden = ring & self.arms
        if hidden.any():
            near = distance_transform_edt(~mask, return_distances=False, return_indices=True)
            colors = colors.copy()
            colors[hidden] = colors[tuple(near[:, hidden])]
        return colors, mask | ring

    def arm(self, colors: ndarray, mask: ndarray, side: str) -> Layer:
        points = self.character.points
        shoulder, elbow = points[f"{side}_shoulder"], points[f"{side}_elbow"]
        radius = self.parts.radius[f"{side}_upper_arm"]
        cap = np.linalg.norm(self.grid - shoulder, axis=-1) < radius
        cap &= (self.grid - shoulder) @ unit(elbow - shoulder) > -CAP_ABOVE * radius
        cap &= ~self.parts.are("head")
        texture, mesh = self._layer(colors, mask | cap, None)
        binding = bind_arm(self.character, self.parts, mesh, side)
        return Layer(texture, _sorted_along(mesh, binding), binding)

    def core(
        self,
        colors: ndarray,
        body: ndarray,
        legs: ndarray,
        hidden: ndarray,
        skirt: ndarray | None,
    ) -> Layer:
        of_legs = self.below_hips < PELVIS if skirt is None else skirt
        mask = body | (legs & of_legs) | hidden
        texture, mesh = self._layer(*self._underlapped(colors, mask, self.arms), hidden)
        return Layer(texture, mesh, bind_core(self.character, self.parts, mesh, skirt))

    def leg(
        self,
        colors: ndarray,
        mask: ndarray,
        body: ndarray,
        hidden: ndarray,
        skirt: ndarray | None,
        side: str,
    ) -> Layer:
        points, trunk = self.character.points, self.character.trunk
        across = (self.grid - points["hips"]) @ unit(points["left_hip"] - points["right_hip"])
        own_side = across < 0.04 * trunk if side == "right" else across > -0.04 * trunk
        under = own_side & (self.below_hips > -UNDER_TRUNK)
        hidden = hidden & under
        mask = mask | (body & under & ~self.parts.are("head")) | hidden
        if skirt is not None:
            mask &= ~skirt | grow_frame(~skirt, round(UNDER_SKIRT * trunk))
        texture, mesh = self._layer(*self._underlapped(colors, mask, self.limbs), hidden)
        return Layer(texture, mesh, bind_leg(self.character, self.parts, mesh, side))


def _arm_mask(parts: Parts, visible: ndarray, side: str) -> ndarray:
    mask = np.zeros_like(visible)
    for part in ARM_PARTS:
        own = parts.are(f"{side}_{part}")
        mask |= own & (parts.of(f"{side}_{part}") < LOOSE[part])
    return _main_pieces(mask & visible)


def _main_pieces(mask: ndarray) -> ndarray:
    """``mask`` [h, w] bool without small loose pieces."""
    count, label, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count <= 2:
        return mask
    area = stats[:, cv2.CC_STAT_AREA].astype(float)
    area[0] = 0
    return (area > PIECE * area.max())[label]


def _sorted_along(mesh: Mesh, binding: LimbBinding) -> Mesh:
    """The same mesh drawn from the root of the limb to its end: unsorted, a folded arm sparkles."""
    order = np.argsort(binding.along[mesh.triangles].mean(axis=1), kind="stable")
    return replace(mesh, triangles=mesh.triangles[order])


def _stand_ins(character: Character, layers: dict[str, Layer]) -> dict[str, Layer]:
    """The other arm, mirrored, for one that the picture hides, by its layer's name."""
    area = dict.fromkeys(SIDES, 0.0)
    area |= {side: float(layers[f"{side}_arm"].texture[..., 3].sum()) for side in character.arms}
    trust = {side: arm_trust(character, side) for side in SIDES}
    for side, other in (SIDES, SIDES[::-1]):
        small = area[side] < SMALL_ARM * area[other] and trust[other] > TRUSTED
        if area[other] and (small or trust[side] < TRUSTED < trust[other]):
            source = layers[f"{other}_arm"]
            width = source.texture.shape[1]
            at = source.mesh.vertices
            mesh = replace(source.mesh, vertices=np.column_stack([width - 1 - at[:, 0], at[:, 1]]))
            texture = np.ascontiguousarray(source.texture[:, ::-1])
            binding = mirror(source.binding, width, side)
            return {f"{side}_arm": Layer(texture, mesh, binding)}
    return {}


def arm_trust(character: Character, side: str) -> float:
    """How far, 0 to 1, an arm of the picture can be used: long enough, and not folded up."""
    if side not in character.arms:
        return 0.0
    shoulder, elbow, wrist = (
        character.points[f"{side}_{n}"] for n in ("shoulder", "elbow", "wrist")
    )
    upper, lower = length(elbow - shoulder), length(wrist - elbow)
    reach = length(wrist - shoulder) / max(upper + lower, 1e-3)
    long = smoothstep((upper + lower) / character.trunk, 0.5, 0.9)
    shorter = smoothstep(min(upper, lower) / character.trunk, 0.1, 0.3)
    return float(min(long, smoothstep(reach, 0.2, 0.5), shorter))
