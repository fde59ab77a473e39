"""Evidence or stillness: whether feet show that the camera moves, and if not, why."""

from dataclasses import dataclass
from enum import Enum

import numpy as np

# Over the clip, that the camera moves. Cameras that stand reach 7; people on turntables, whose feet
# go round with them, reach 24.
MIN_EVIDENCE_NATS = 25.0
GROWING_BODY_LOG = 0.25  # of the trunk in the clip: a zoom or somebody who comes nearer ...
GROWING_BODY_FACTOR = 3.0  # ... asks for so much more evidence, and for less the less it grows
MIN_KNOWN_SHARE = 0.6  # of the looks in which a foot is known
MAX_AIRBORNE_SHARE = 0.35  # of the time with no foot down: a jump, a ride, a bad pose
MAX_AIRBORNE_SHARE_WALKING = 0.5
WALKING_STRAIGHTNESS = 0.9  # of the legs, above which somebody walks upright
MIN_WALKING_SHARE = 0.2  # of the time each foot stands alone, of somebody who walks
MIN_STEPPING_SHARE = 0.1  # ... of somebody who takes steps; nobody lifts both feet off a board
MIN_STRAIGHTNESS = 0.93  # without steps; boards, skis and bikes are ridden with bent legs
UPRIGHT_STRAIGHTNESS = 0.97  # nobody rides with legs so straight
MAX_STEADY_PACE = 0.012  # body sizes a frame, of a steady motion: a ride, or a pan over somebody
MIN_STEADINESS = 0.9  # of a ride
MIN_DEPTH_SHARE_STANDING = 0.8  # hips of somebody who does not walk go with the ground under them
MAX_DEPTH_SHARE_AT_PACE = 0.7  # above: hips go with the ground, so nobody can tell a ride


class Verdict(Enum):
    """What the feet show of the camera."""

    MOVES = "moves"
    STANDS = "stands"
    NO_FEET = "no feet"
    FEET_LOST = "feet lost"
    AIRBORNE = "airborne"
    GLIDES = "glides"
    SLIPS = "slips"


@dataclass(frozen=True)
class Evidence:
    """What the gates look at.

    ``nats``: log likelihood of a camera that may move against one that stands. ``stance`` [4]:
    shares of the time of both, right, left and no foot down. ``growth``: of the body in the clip,
    logarithm. ``pace``: median speed of the slow motion, body sizes a frame; ``steadiness``: its
    mean velocity by its root mean square, 1 for an even motion.
    """

    nats: float
    known: float
    stance: np.ndarray
    straightness: float
    growth: float
    pace: float
    steadiness: float
    depth_share: float

    @property
    def walks(self) -> bool:
        return bool(min(self.stance[1], self.stance[2]) > MIN_WALKING_SHARE)

    @property
    def steps(self) -> bool:
        return bool(min(self.stance[1], self.stance[2]) > MIN_STEPPING_SHARE)

    @property
    def needed_nats(self) -> float:
        grown = min(abs(self.growth) / GROWING_BODY_LOG, 1.0)
        return MIN_EVIDENCE_NATS * (1 + (GROWING_BODY_FACTOR - 1) * grown)


def judge(evidence: Evidence) -> Verdict:
    """Whether the camera moves. Only `Verdict.MOVES` moves the background."""
    upright = evidence.walks and evidence.straightness > WALKING_STRAIGHTNESS
    most_airborne = MAX_AIRBORNE_SHARE_WALKING if upright else MAX_AIRBORNE_SHARE
    if evidence.nats < evidence.needed_nats:
        return Verdict.STANDS
    if evidence.known < MIN_KNOWN_SHARE:
        return Verdict.FEET_LOST
    if evidence.stance[3] > most_airborne:
        return Verdict.AIRBORNE
    if not evidence.steps and evidence.straightness < MIN_STRAIGHTNESS:
        return Verdict.GLIDES
    if evidence.pace > MAX_STEADY_PACE and _may_ride(evidence):
        return Verdict.GLIDES
    if not evidence.walks and evidence.depth_share < MIN_DEPTH_SHARE_STANDING:
        return Verdict.SLIPS
    return Verdict.MOVES


def _may_ride(evidence: Evidence) -> bool:
    """Whether somebody whose ground goes by at a steady pace may be carried along."""
    if evidence.steadiness < MIN_STEADINESS and evidence.steps:
        return False
    if evidence.walks:
        return evidence.depth_share > MAX_DEPTH_SHARE_AT_PACE
    return evidence.straightness < UPRIGHT_STRAIGHTNESS
