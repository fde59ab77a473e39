"""Pose of one person -> steps of the camera, what the feet did, and how far to trust it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy import ndarray

from ..pose import PoseTrack
from . import hmm
from .body import Person, describe_person, growth_rate, leg_straightness, unit_of
from .confidence import UNTOLD, rate_motion, rate_still
from .depth_share import depth_share, smooth_over_time
from .gates import MIN_KNOWN_SHARE, Evidence, Verdict, judge
from .hmm import Posterior
from .likelihood import STANCES, look_likelihoods
from .shake import shake_of_feet
from .visibility import fade_without_feet, known_looks, visible_feet
from .walking import walks_on_the_spot

LOOK_FRAMES = 2  # one drowns in the detector's jitter, three lose a hand's shake
MIN_FRAMES = 8
ZOOM_NATS = -2.0  # a priori: cameras zoom seldom
VETO_CONFIDENCE = 0.6  # of somebody before whom the camera stands

Progress = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class Estimate:
    """T frames of one person, in px of the track.

    ``steps`` [T-1, 4]: of the background, as CameraPath.from_steps() takes them; zeros unless
    ``verdict`` is MOVES. ``confidence`` [T-1]. ``ground`` [T-1, 2]: the ground's velocity at the
    feet if the camera moves, whatever the verdict. ``stance`` [T-1, 4]: probabilities of
    likelihood.STANCES. ``feet`` [T, 2] bool: right and left foot are visible. ``growth`` [T-1] of
    the body, logarithm a frame. ``evidence``: None without feet.
    """

    steps: ndarray
    confidence: ndarray
    verdict: Verdict
    ground: ndarray
    stance: ndarray
    feet: ndarray
    growth: ndarray
    evidence: Evidence | None
    person: Person

    @property
    def planted(self) -> ndarray:
        """[T-1, 2] bool: the right and the left foot stand, and are seen."""
        seen = self.feet[1:] & self.feet[:-1]
        return (self.stance @ STANCES > 0.5) & seen


def estimate_scene(track: PoseTrack, depth: float | None = None, progress: Progress | None = None) -> Estimate:
    """Read the camera from the person whose feet are seen longest.

    Somebody else whose feet tell surely that the camera stands has a veto: then it stands.
    progress: called with the number of people done.
    """
    estimates = []
    for number in range(track.keypoints.shape[1]):
        estimates.append(estimate_camera(track, number, depth))
        if progress:
            progress(number + 1)
    best = max(estimates, key=lambda found: (found.feet.any(1).sum(), found.person.measured.sum()))
    if best.verdict is Verdict.MOVES:
        for other in estimates:
            if other.verdict is Verdict.STANDS and other.confidence.mean() >= VETO_CONFIDENCE:
                return other
    return best


@cache
def _model() -> hmm.MotionModel:
    return hmm.make_model()


def estimate_camera(track: PoseTrack, number: int = 0, depth: float | None = None) -> Estimate:
    """Read the camera from the feet of person ``number``, or let it stand.

    depth: the share of the ground's motion that the background has; None reads it from the hips.
    """
    person = describe_person(track, number)
    feet = visible_feet(person)
    growth = growth_rate(person)
    if not _has_feet(person, feet):
        return _nothing(person, feet, growth)
    lag = LOOK_FRAMES
    known = known_looks(person, feet, lag)
    reading = _read(person, known, lag, growth)
    near_feet = fade_without_feet((feet[1:] & feet[:-1]).any(1))
    shake = shake_of_feet(_ankles(person, feet), reading.velocity, reading.stance, person.size)
    ground = (reading.velocity + shake) * near_feet[:, None]
    share = depth_share(person.hips, ground)
    slow = smooth_over_time(reading.velocity)
    evidence = Evidence(
        nats=reading.nats,
        known=float(known.any(1).mean()),
        stance=reading.stance.mean(0),
        straightness=leg_straightness(person),
        growth=float(growth.sum()),
        pace=float(np.median(np.linalg.norm(slow, axis=1))) / person.size,
        steadiness=float(np.linalg.norm(slow.mean(0)) / max(np.sqrt((slow**2).sum(1).mean()), 1e-9)),
        depth_share=float(share.mean()),
    )
    verdict = judge(evidence)
    if depth is not None:
        share = np.full(len(share), depth)
    steps = np.zeros((len(ground), 4))
    if verdict is Verdict.MOVES:
        motion = ground * share[:, None]
        moves = reading.stands < 0.5
        steps[:, :2] = np.where(moves[:, None], motion, 0) / unit_of(track)
        steps[:, 2] = np.where(moves, reading.zoom, 0)
        confidence = rate_motion(evidence, motion, reading.spread, reading.stands, share, near_feet, person.size)
    elif verdict is Verdict.STANDS:
        on_the_spot = walks_on_the_spot(person)
        confidence = rate_still(evidence, reading.stands, near_feet, on_the_spot)
    else:
        confidence = np.full(len(steps), UNTOLD)
    return Estimate(steps, confidence, verdict, ground / unit_of(track), reading.stance, feet, growth, evidence, person)


@dataclass(frozen=True, eq=False)
class _Reading:
    """The filter's posterior by step [T-1]; ``zoom`` its log scale, ``nats`` of evidence."""

    velocity: ndarray
    spread: ndarray
    stands: ndarray
    stance: ndarray
    zoom: ndarray
    nats: float


def _read(person: Person, known: ndarray, lag: int, growth: ndarray) -> _Reading:
    """Filter twice, with the body's growth taken for a zoom and not, and weigh both."""
    model = _model()
    plain, zoomed = (
        hmm.run_filter(look_likelihoods(person, known, lag, model.velocities, zoom), model) for zoom in (None, growth)
    )
    nats = np.array([plain.log_moves, zoomed.log_moves + ZOOM_NATS])
    weight = np.exp(nats - np.logaddexp.reduce(nats))
    stands = weight[0] * plain.stands  # a camera that zooms does not stand
    moves = weight[:, None] * (1 - np.stack([plain.stands, zoomed.stands]))
    velocity = (moves[..., None] * np.stack([plain.velocity, zoomed.velocity])).sum(0)
    velocity /= np.maximum(1 - stands, 0.5)[:, None]
    likelier: Posterior = (plain, zoomed)[int(weight.argmax())]
    count = len(person.joints)
    velocity, spread, stands, stance = (
        _steps_of_looks(values, lag, count) for values in (velocity, likelier.spread, stands, likelier.stance)
    )
    evidence = float(np.logaddexp.reduce(nats) - plain.log_stands)
    return _Reading(velocity, spread, stands, stance, weight[1] * growth, evidence)


def _steps_of_looks(values: ndarray, lag: int, count: int) -> ndarray:
    """[T-1, ...] the mean of the looks [S, ...] in which each step lies."""
    total, looks = np.zeros((count - 1, *values.shape[1:])), np.zeros(count - 1)
    for start in range(lag):
        total[start : start + len(values)] += values
        looks[start : start + len(values)] += 1
    return total / looks.reshape(-1, *(1,) * (values.ndim - 1))


def _has_feet(person: Person, feet: ndarray) -> bool:
    enough = feet.any(1).mean() >= MIN_KNOWN_SHARE
    return bool(person.size > 0 and len(feet) >= MIN_FRAMES and enough)


def _ankles(person: Person, feet: ndarray) -> ndarray:
    return np.where(feet[..., None], person.contacts[:, :, 0], np.nan)


def _nothing(person: Person, feet: ndarray, growth: ndarray) -> Estimate:
    """Of a person without feet."""
    steps = len(growth)
    return Estimate(
        steps=np.zeros((steps, 4)),
        confidence=np.full(steps, UNTOLD),
        verdict=Verdict.NO_FEET,
        ground=np.zeros((steps, 2)),
        stance=np.tile([0.0, 0, 0, 1], (steps, 1)),
        feet=feet,
        growth=growth,
        evidence=None,
        person=person,
    )
