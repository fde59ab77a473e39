"""Evidence or stillness: whether feet show that the camera moves, and if not, why."""

from dataclasses import dataclass
from enum import Enum

import numpy as np

MIN_EVIDENCE_NATS = 16.0  # over the clip, that the camera moves; cameras that stand reach 7
GROWING_BODY_LOG = 0.25  # of the trunk in the clip: a zoom or somebody who comes nearer ...
GROWING_BODY_FACTOR = 2.0  # ... asks for so much more evidence
MIN_KNOWN_SHARE = 0.6  # of the looks in which a foot is known
MAX_AIRBORNE_SHARE = 0.35  # of the time with no foot down: a jump, a ride, a bad pose
MAX_AIRBORNE_SHARE_WALKING = 0.5
WALKING_STRAIGHTNESS = 0.9  # of the legs, above which somebody walks upright
MIN_STANCE_SHARE = 0.2  # of the time each foot stands alone, of somebody who walks
MIN_STRAIGHTNESS = 0.93  # without steps; boards, skis and bikes are ridden with bent legs
MAX_STEADY_PACE = 0.012  # body sizes a frame without steps: a ride, or a pan over somebody
MAX_DEPTH_SHARE_AT_PACE = 0.7  # above: hips go with the ground, so nobody can tell a ride


class Verdict(Enum):
    """What the feet show of the camera."""

    MOVES = "moves"
    STANDS = "stands"
    NO_FEET = "no feet"
    FEET_LOST = "feet lost"
    AIRBORNE = "airborne"
    GLIDES = "glides"


@dataclass(frozen=True)
class Evidence:
    """What the gates look at. ``nats``: log likelihood of a camera that may move against one that
    stands. ``stance`` [4]: shares of the time of both, right, left and no foot down. ``growth``:
    of the body in the clip, logarithm. ``pace``: of the slow motion, body sizes a frame."""

    nats: float
    known: float
    stance: np.ndarray
    straightness: float
    growth: float
    pace: float
    depth_share: float

    @property
    def walks(self) -> bool:
        return bool(min(self.stance[1], self.stance[2]) > MIN_STANCE_SHARE)

    @property
    def needed_nats(self) -> float:
        grows = abs(self.growth) > GROWING_BODY_LOG
        return MIN_EVIDENCE_NATS * (GROWING_BODY_FACTOR if grows else 1)


def judge(evidence: Evidence) -> Verdict:
    """Whether the camera moves. Only `Verdict.MOVES` moves the background."""
    upright = evidence.walks and evidence.straightness > WALKING_STRAIGHTNESS
    most_airborne = MAX_AIRBORNE_SHARE_WALKING if upright else MAX_AIRBORNE_SHARE
    with_ground = evidence.depth_share > MAX_DEPTH_SHARE_AT_PACE
    if evidence.nats < evidence.needed_nats:
        return Verdict.STANDS
    if evidence.known < MIN_KNOWN_SHARE:
        return Verdict.FEET_LOST
    if evidence.stance[3] > most_airborne:
        return Verdict.AIRBORNE
    if not evidence.walks and evidence.straightness < MIN_STRAIGHTNESS:
        return Verdict.GLIDES
    if evidence.pace > MAX_STEADY_PACE and (not evidence.walks or with_ground):
        return Verdict.GLIDES
    return Verdict.MOVES
