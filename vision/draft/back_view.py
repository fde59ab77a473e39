"""The character from behind, out of a picture of its front: hair where the face is."""

import cv2
import numpy as np
from numpy import ndarray

from .character import Character
from .layers import CORE, Layers
from .vectors import length, perpendicular, pixel_grid, smoothstep

BROW = 0.55  # of the way from the mouth to the eyes, above the eyes
ENOUGH_PX = 20  # of hair, to learn from
MEAN_SHARE = 0.25  # of the hair's mean color in what covers the face


def hide_face(character: Character, layers: Layers) -> ndarray:
    """The texture [h, w, 4] of the core with the hair above the brow folded down over the face."""
    texture = layers.by_name[CORE].texture.copy()
    eyes, mouth, radius = character.points["eyes"], character.points["mouth"], character.head_radius
    up, side = character.up, perpendicular(character.up)
    brow = eyes + BROW * length(eyes - mouth) * up
    offset = pixel_grid(*texture.shape[:2]) - brow
    x, y = offset @ side, offset @ up
    chin = float((character.chin - brow) @ up)
    alpha = texture[..., 3:]
    colors = texture[..., :3] / np.maximum(alpha, 1e-3)
    hair = layers.head & (y > 0.05 * radius) & (np.abs(x) < 0.5 * radius) & (character.alpha > 0.9)
    enough = hair.sum() > ENOUGH_PX
    tall = float(np.percentile(y[hair], 92)) if enough else 0.3 * radius
    fold = np.abs(-y) / max(0.9 * tall, 1) % 2
    fold = np.where(fold > 1, 2 - fold, fold)  # up and down again through the hair
    source = brow + 0.9 * x[..., None] * side + (tall * (0.05 + 0.85 * fold))[..., None] * up
    source = source.astype(np.float32)
    cover = cv2.remap(
        colors, source[..., 0], source[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    sample = hair if enough else layers.head
    mean = colors[sample].mean(axis=0) if sample.any() else colors.mean(axis=(0, 1))
    cover += MEAN_SHARE * (mean - cover)
    face = smoothstep(-y, -0.12 * radius, 0.05 * radius) * smoothstep(y, 1.15 * chin, 0.9 * chin)
    face *= smoothstep(-np.abs(x), -1.05 * radius, -0.85 * radius) * (character.alpha > 0.02)
    face = cv2.GaussianBlur(face.astype(np.float32), (0, 0), max(1.0, 0.06 * radius))[..., None]
    texture[..., :3] = (colors + face * (cover - colors)) * alpha
    return texture
