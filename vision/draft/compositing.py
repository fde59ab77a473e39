"""The layers over each other and over the place: the draft's pixels, its shadow and its light."""

import cv2
import numpy as np
from numpy import ndarray

from .body import SIDES
from .deformation import Target
from .layers import Layer
from .mesh import texture_map

TORN = 5.5  # cells: an edge of a triangle that is stretched farther is torn
SHADOW_REDUCTION = 4  # the soft shadow is drawn on a smaller picture
LIGHT_RANGE = (0.6, 1.2)
LIGHT_PERCENTILE = 70
SAMPLE_PX = 64  # side of the picture that the place's light is read from


def draw_layer(
    canvas: ndarray, layer: Layer, texture: ndarray, positions: ndarray, torn_px: float
) -> None:
    """Draw one bent layer over ``canvas`` [H, W, 4] (colors times alpha), in place."""
    height, width = canvas.shape[:2]
    left, top = np.maximum(np.floor(positions.min(axis=0)).astype(int) - 1, 0)
    right, bottom = np.minimum(np.ceil(positions.max(axis=0)).astype(int) + 2, (width, height))
    if right <= left or bottom <= top:
        return
    found = texture_map(layer.mesh, positions, (left, top, right, bottom), torn_px)
    patch = cv2.remap(texture, found, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    part = canvas[top:bottom, left:right]
    part *= 1 - patch[..., 3:]
    part += patch


def draw_over(place: ndarray, person: ndarray, gain: ndarray) -> ndarray:
    """``person`` [H, W, 4] (colors times alpha), its colors times ``gain`` [3], over ``place``
    [H, W, 3]; in 0…1."""
    out = place.copy()
    rows, columns = (np.flatnonzero(person[..., 3].any(axis=axis)) for axis in (1, 0))
    if len(rows):
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        front = person[box]
        lit = np.minimum(front[..., :3] * gain, front[..., 3:])
        out[box] = lit + out[box] * (1 - front[..., 3:])
    return out.clip(0, 1)


def foot_shadow(target: Target, trunk_px: float, size: tuple[int, int]) -> ndarray | None:
    """How dark the ground is around the feet, [H, W] in 0…1; None where no foot is known.

    A small ellipse under each foot, fainter for a lifted one, and a broad one under both.
    ``trunk_px``: the trunk's length in the frame; ``size`` (width, height).
    """
    points = target.points
    names = [(f"{side}_toe", f"{side}_heel") for side in SIDES]
    feet = [(points[a] + points[b]) / 2 for a, b in names if a in points and b in points]
    if not feet:
        return None
    ground = max(foot[1] for foot in feet)
    reduced = -(-size[0] // SHADOW_REDUCTION), -(-size[1] // SHADOW_REDUCTION)
    near, broad = (np.zeros(reduced[::-1], np.float32) for _ in range(2))

    def ellipse(canvas: ndarray, center: tuple, half: tuple, dark: float) -> None:
        fixed = [tuple(int(v * 16 / SHADOW_REDUCTION) for v in pair) for pair in (center, half)]
        cv2.ellipse(canvas, *fixed, 0, 0, 360, dark, -1, cv2.LINE_AA, 4)

    for foot in feet:
        lift = float(np.clip((ground - foot[1]) / (0.6 * trunk_px), 0, 1))
        center = foot[0], foot[1] + 0.05 * trunk_px
        ellipse(near, center, (0.26 * trunk_px, 0.075 * trunk_px), 1 - 0.8 * lift)
    across = [foot[0] for foot in feet]
    half = np.ptp(across) / 2 + 0.45 * trunk_px
    center = np.mean(across), ground + 0.03 * trunk_px
    ellipse(broad, center, (half, 0.13 * trunk_px), 0.55)
    sigma = max(1.0, 0.05 * trunk_px) / SHADOW_REDUCTION
    dark = 0.8 * cv2.GaussianBlur(near, (0, 0), sigma)
    dark += 0.7 * cv2.GaussianBlur(broad, (0, 0), 2.2 * sigma)
    return cv2.resize(dark.clip(0, 1), size, interpolation=cv2.INTER_LINEAR)


def light_gain(colors: ndarray, place: ndarray, strength: float) -> ndarray:
    """[3] factors that draw the character's ``colors`` [N, 3] towards the light of ``place``
    [H, W, 3]: its cast and its brightness, each to the power of ``strength``."""
    size = SAMPLE_PX, SAMPLE_PX
    sample = cv2.resize(place, size, interpolation=cv2.INTER_AREA).reshape(-1, 3)
    cast = sample.mean(axis=0) / max(float(sample.mean()), 1e-3)
    cast = np.maximum(cast / max(float(cast.mean()), 1e-3), 1e-3)
    bright, own = (np.percentile(part.mean(axis=1), LIGHT_PERCENTILE) for part in (sample, colors))
    light = float(np.clip(bright / max(float(own), 1e-3), *LIGHT_RANGE))
    return ((cast * light) ** strength).astype(np.float32)
