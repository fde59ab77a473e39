"""What a picture of a drawn skeleton says about where the person is; drawn by our nodes or by anybody's."""

import numpy as np
from torch import Tensor

from .mask import grow_frame

DARK = 0.1  # brightest colour of a pixel that is no limb
FLESH = 0.06  # of the picture's height: how far body and clothes reach beyond the drawn limbs
SLACK = 0.03  # of the height: how far limbs may lie apart and still show the same pose
ALIKE = 0.5  # share that two skeletons of one pose have in common, at least; two moments of a dance have 0.2 to 0.4


def limbs(drawn: Tensor) -> np.ndarray:
    """Where ``drawn`` [H, W, 3], a skeleton on black, has a limb: [H, W] bool."""
    return (drawn.amax(-1) > DARK).cpu().numpy()


def person(drawn: Tensor) -> np.ndarray:
    """Roughly where the person of ``drawn`` [H, W, 3] is, clothes and all: [H, W] bool."""
    return grow_frame(limbs(drawn), max(1, round(FLESH * drawn.shape[0])))


def overlap(one: Tensor, other: Tensor) -> float:
    """How much two drawn poses [H, W, 3] of one size agree: intersection over union of their limbs, grown by SLACK.

    0 where either shows nobody.
    """
    slack = max(1, round(SLACK * one.shape[0]))
    first, second = (grow_frame(limbs(drawn), slack) for drawn in (one, other))
    either = (first | second).sum()
    return float((first & second).sum() / either) if first.any() and second.any() else 0.0
