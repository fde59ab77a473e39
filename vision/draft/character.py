"""The character as the picture shows it: its pixels, its alpha, and the points of its body."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy import ndarray

from ..mask import INSIDE
from ..pose import PoseTrack
from .body import SIDES, Points, body_points
from .vectors import length, perpendicular, unit

GUESS_ABOVE = 0.03  # visibility from which BlazePose's guess of a hidden limb is taken
# Where a point that the picture does not show is put, in trunks.
FOREARM, HAND, SHORT_HAND, TOE, HEEL, HEAD = 0.45, 0.16, 0.03, 0.2, 0.1, 0.35
PALM_TO_MIDDLE = 1.1  # the detector's hand ends at the knuckles
HEAD_RADIUS = 0.6  # of the way from the neck to the ears
CHIN_BELOW_EYES = 1.75  # of the way from the eyes to the mouth
LONG_TRUNK = 0.12  # of the body's height: a shorter one is seen from above, or wrong


@dataclass(frozen=True, eq=False)
class Character:
    """``picture`` [h, w, 3] and ``alpha`` [h, w], float32 in 0…1, and ``points`` [2] px by name.

    All points are known but those of limbs that are not there: ``arms`` names the sides that have
    one, ``legs`` tells whether both are seen down to the ankles."""

    picture: ndarray
    alpha: ndarray
    points: Points
    arms: tuple[str, ...]
    legs: bool

    @cached_property
    def trunk(self) -> float:
        """From the neck to the hips, px."""
        return length(self.points["neck"] - self.points["hips"])

    @cached_property
    def height(self) -> int:
        """Of the character in the picture, px."""
        return int(np.ptp(np.flatnonzero((self.alpha > INSIDE).any(axis=1)))) + 1

    @cached_property
    def up(self) -> ndarray:
        """[2], the head's own direction, length 1."""
        return unit(self.points["eyes"] - self.points["mouth"])

    @cached_property
    def trunk_up(self) -> ndarray:
        """[2], from the hips to the neck, length 1."""
        return unit(self.points["neck"] - self.points["hips"])

    @cached_property
    def head_radius(self) -> float:
        return HEAD_RADIUS * length(self.points["head"] - self.points["neck"])

    @cached_property
    def chin(self) -> ndarray:
        eyes, mouth = self.points["eyes"], self.points["mouth"]
        return eyes + CHIN_BELOW_EYES * (mouth - eyes)

    @cached_property
    def faces_us(self) -> bool:
        return bool(self.points["left_shoulder"][0] > self.points["right_shoulder"][0])


def reflected(character: Character) -> Character:
    """The points of ``character`` with x of the other sign, as it is seen from behind."""
    return replace(character, points={n: p * (-1, 1) for n, p in character.points.items()})


def read_character(picture: ndarray, alpha: ndarray, track: PoseTrack, frame: int = 0) -> Character:
    """The character in ``picture`` whose ``alpha`` and pose are known; of ``track`` (on the
    picture's canvas) the first person of ``frame``.

    Raises ValueError, naming the socket ``character``, where neck or hips are not seen.
    """
    points = {k: v[frame] for k, v in body_points(track, 0, GUESS_ABOVE).items()}
    known = {name for name, place in points.items() if np.isfinite(place).all()}
    tall = np.ptp(np.flatnonzero((alpha > INSIDE).any(axis=1))) if (alpha > INSIDE).any() else 0
    if not {"neck", "hips"} <= known or length(points["neck"] - points["hips"]) < max(
        4.0, LONG_TRUNK * tall
    ):
        raise ValueError(
            "character: its trunk is not seen from the neck to the hips. Take a picture that shows "
            "the person standing, at least from the head to the hips."
        )
    _complete_head(points)
    arms = tuple(side for side in SIDES if _complete_arm(points, side, known))
    limbs = {f"{side}_{joint}" for side in SIDES for joint in ("knee", "ankle")}
    legs = limbs <= known
    if legs:
        _complete_feet(points)
    absent = [s for s in SIDES if s not in arms]
    gone = {f"{s}_{n}" for s in absent for n in ("elbow", "wrist", "hand")}
    if not legs:
        gone |= {f"{s}_{n}" for s in SIDES for n in ("knee", "ankle", "toe", "heel")}
    points = {name: place for name, place in points.items() if name not in gone}
    return Character(picture, alpha, points, arms, legs)


def _complete_head(points: Points) -> None:
    """Give ``points`` all those of a head, in place."""
    trunk = points["neck"] - points["hips"]
    if not np.isfinite(points["head"]).all():
        points["head"] = points["neck"] + HEAD * trunk
    radius = HEAD_RADIUS * length(points["head"] - points["neck"])
    up = unit(trunk)
    if not np.isfinite(points["eyes"]).all():
        points["eyes"] = points["head"] + 0.1 * radius * up
    if not np.isfinite(points["mouth"]).all():
        points["mouth"] = points["eyes"] - 0.6 * radius * up
    if not np.isfinite(points["nose"]).all():
        points["nose"] = (points["eyes"] + points["mouth"]) / 2
    across = perpendicular(up) * (
        1 if points["left_shoulder"][0] > points["right_shoulder"][0] else -1
    )
    for side, sign in (("left", 0.6), ("right", -0.6)):
        if not np.isfinite(points[f"{side}_ear"]).all():
            points[f"{side}_ear"] = points["head"] + sign * radius * across


def _complete_arm(points: Points, side: str, known: set[str]) -> bool:
    """Give ``points`` the wrist and the hand of an arm, in place; False where there is no arm."""
    if not {f"{side}_shoulder", f"{side}_elbow"} <= known:
        return False
    trunk = length(points["neck"] - points["hips"])
    elbow, hand = points[f"{side}_elbow"], points[f"{side}_hand"]
    if f"{side}_wrist" not in known:
        points[f"{side}_wrist"] = elbow + np.array([0.0, FOREARM * trunk])
    wrist = points[f"{side}_wrist"]
    if not np.isfinite(hand).all() or length(hand - wrist) < SHORT_HAND * trunk:
        points[f"{side}_hand"] = wrist + HAND * trunk * unit(wrist - elbow)
    else:
        points[f"{side}_hand"] = wrist + PALM_TO_MIDDLE * (hand - wrist)
    return True


def _complete_feet(points: Points) -> None:
    trunk = length(points["neck"] - points["hips"])
    for side in SIDES:
        for name, below in (("toe", TOE), ("heel", HEEL)):
            if not np.isfinite(points[f"{side}_{name}"]).all():
                points[f"{side}_{name}"] = points[f"{side}_ankle"] + np.array([0, below * trunk])
