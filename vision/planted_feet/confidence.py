"""How far each step of the result is to be trusted, in 0...1."""

import numpy as np
from numpy import ndarray

from .depth_share import MOVING_ALONG_SHARE
from .gates import Evidence
from .shake import JITTER_BY_SIZE

UNTOLD = 0.1  # where the pose tells nothing
BENT, STRAIGHT = 0.6, 0.9  # leg straightness: a rider stands, too, on legs that are bent
DEPTH_DOUBT = 0.3  # of the motion: nobody knows how far away the background is ...
ALONG_DOUBT = 1.5  # ... least of all where the camera goes along
ON_THE_SPOT_FACTOR = 0.4  # for somebody who walks and gets nowhere: the camera may go along
GROWTH_DOUBT_LOG = 0.5  # of the body in the clip, at which confidence halves


def rate_still(evidence: Evidence, stands: ndarray, near_feet: ndarray, on_the_spot: bool) -> ndarray:
    """[S] that the camera stands, by its probability ``stands`` [S] and how well feet tell it.

    near_feet: [S] 1 where a foot is known. on_the_spot: the person walks and gets nowhere.
    """
    upright = np.clip((evidence.straightness - BENT) / (STRAIGHT - BENT), 0, 1)
    against = np.clip(1 - max(evidence.nats, 0) / evidence.needed_nats, 0, 1)
    on_ground = (1 - evidence.stance[3]) * evidence.known
    told = stands * on_ground * upright * against * near_feet
    if on_the_spot:
        told = told * ON_THE_SPOT_FACTOR
    return np.maximum(told, UNTOLD)


def rate_motion(
    evidence: Evidence,
    motion: ndarray,
    spread: ndarray,
    stands: ndarray,
    share: ndarray,
    near_feet: ndarray,
    size: float,
) -> ndarray:
    """[S] motion / (motion + doubt), in squares, for ``motion`` and ``spread`` [S, 2].

    Doubt is the filter's spread, the detector's jitter, and the unknown depth of the background.
    """
    square = (motion**2).sum(1)
    along = 1 - np.clip((share - MOVING_ALONG_SHARE) / (1 - MOVING_ALONG_SHARE), 0, 1)
    depth = (DEPTH_DOUBT + (ALONG_DOUBT - DEPTH_DOUBT) * along) ** 2 * square
    doubt = (spread**2).sum(1) + (JITTER_BY_SIZE * size) ** 2 / 4 + depth
    told = square / (square + doubt + 1e-9) / (1 + (evidence.growth / GROWTH_DOUBT_LOG) ** 2)
    return np.maximum((1 - stands) * near_feet * told, UNTOLD)
