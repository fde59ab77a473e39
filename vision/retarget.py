"""A driving pose on another body: the driver's angles, the character's lengths, and feet that stay on the ground.

Every step is linear in the driver's joints, with ratios that hold for the whole clip. So nothing trembles that did not
tremble before, and what grows or shrinks in the frame, because a camera zooms or comes nearer, still does.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy import ndarray

from .landmarks import FACE_LANDMARKS, HAND_LANDMARKS, LANDMARK_CARRIERS
from .pose import PoseTrack
from .proportions import Proportions, compare
from .skeleton import BONES, HIPS, KINDS, LEFT_WRIST, LEGS, NECK, PARENTS, RIGHT_WRIST, Figure

MODES = ("proportions", "fit", "off")
WHOLE = 0.9  # part of the joints of the best frame that makes another good enough
WHOSE = ("reference", "driving")  # size and place
# What an artist adjusts: the kinds of bones of a limb.
LIMBS = {
    "torso": ("torso", "shoulders", "hips"),
    "head": ("head",),
    "arms": ("upper arms", "forearms"),
    "legs": ("thighs", "shins"),
    "hands": ("hands",),
}


@dataclass(frozen=True)
class Cast:
    """One ``person`` of driving who got a body, and how it compares. ``scale`` and ``ratios`` by limb are px of the
    result over px of driving; ``left``: part of the frames in which a joint that was in the picture no longer is."""

    person: int
    proportions: Proportions
    scale: float
    ratios: dict[str, float]
    left: float


@dataclass(frozen=True)
class Retargeted:
    """``pose`` on its new bodies; ``frame`` of the reference that they were read from; ``cast``; people of driving
    who had no body of their own and moved ``along`` with the first; people in the reference, ``pictured``."""

    pose: PoseTrack
    frame: int
    cast: list[Cast]
    along: int
    pictured: int


def retarget(
    driving: PoseTrack,
    reference: PoseTrack,
    mode: str = "proportions",
    adjust: dict[str, float] | None = None,
    size: str = "reference",
    place: str = "driving",
) -> Retargeted:
    """Put the people of ``driving`` on the bodies of ``reference``, read from its first frame that shows enough.

    ``mode`` "proportions" compares limb by limb, "fit" takes the torso's ratio for all. ``adjust`` multiplies limbs of
    ``LIMBS``. ``size`` "reference": as large a part of the picture's height as there; "driving": as in driving.
    ``place`` "driving": feet stay where driving has them in such a frame, on its canvas; "reference": where the
    character stands, on the canvas of its picture.

    Raises ValueError, naming the socket, where either shows nobody, or both nothing in common.
    """
    frame = clearest_frame(reference)
    drivers, pictures = _figures(driving.keypoints, clearest_frame(driving)), _figures(reference.keypoints[[frame]])
    _check_people(driving, drivers, "driving")
    _check_people(reference, pictures, "reference")
    canvas = reference if place == "reference" else driving
    arrays = {field: array.copy() for field, array in driving.arrays.items()}
    cast, moves = [], {}
    for person, picture in _pairs(drivers, pictures):
        one, other = drivers[person], pictures[picture]
        found = compare(one, other)
        scale, ratios = found.height, found.ratios
        if mode == "fit":
            scale, ratios = found.torso, dict.fromkeys(BONES, found.torso)
        unit = canvas.height / (reference.height if size == "reference" else driving.height * scale)
        ratios = _adjusted(ratios, adjust or {}, unit)
        source, target = _grounds(one, other) if place == "reference" else [_ground(one)] * 2
        moves[person] = Move(one, ratios, scale * unit, source, target)
        for field, moved in moves[person].arrays({k: array[:, person] for k, array in driving.arrays.items()}).items():
            arrays[field][:, person] = moved
        left = _left(driving.keypoints[:, person], driving, arrays["keypoints"][:, person], canvas)
        cast.append(Cast(person, found, scale * unit, _by_limb(ratios), left))
    for array in arrays.values():
        for person in set(range(array.shape[1])) - moves.keys():
            array[:, person] = moves[cast[0].person].similar(array[:, person])
    pose = replace(driving, width=canvas.width, height=canvas.height, **arrays)
    return Retargeted(pose, frame, cast, len(drivers.keys() - moves.keys()), len(pictures))


def clearest_frame(track: PoseTrack) -> int:
    """The first frame that shows nearly as much of the people as any: not the one in which somebody walks in."""
    seen = track.seen.sum(axis=(1, 2))
    return int((seen >= WHOLE * seen.max(initial=0)).argmax())


def _figures(keypoints: ndarray, start: int = 0) -> dict[int, Figure]:
    """The people of ``keypoints`` [T, P, 18, 3] that are seen, by their index."""
    figures = {person: Figure(keypoints[:, person], start) for person in range(keypoints.shape[1])}
    return {person: figure for person, figure in figures.items() if figure.ever.any()}


def _check_people(track: PoseTrack, people: dict[int, Figure], socket: str) -> None:
    if not people:
        raise ValueError(
            f"{socket}: there is nobody in any of its {len(track.keypoints)} frames. Look at it with Draw Pose: the "
            "detector has found no person, or none it was sure of."
        )


def _pairs(drivers: dict[int, Figure], pictures: dict[int, Figure]) -> list[tuple[int, int]]:
    """Who gets whose body: from left to right where both show as many people, else the most prominent of each."""
    if len(drivers) == len(pictures):
        return list(zip(*(sorted(people, key=lambda one: _left_edge(people[one])) for people in (drivers, pictures))))
    return [tuple(max(people, key=lambda one: _prominence(people[one])) for people in (drivers, pictures))]


def _left_edge(figure: Figure) -> float:
    first = figure.seen.any(axis=1).argmax()
    return float(np.median(figure.keypoints[first, figure.seen[first, :HIPS], 0]))


def _prominence(figure: Figure) -> float:
    """Size in the picture, px, times frames."""
    points = np.where(figure.seen[:, :HIPS, None], figure.keypoints[..., :2], np.nan)[figure.seen.any(axis=1)]
    return float(np.linalg.norm(np.nanmax(points, axis=1) - np.nanmin(points, axis=1), axis=-1).sum())


def _adjusted(ratios: dict[str, float], adjust: dict[str, float], unit: float) -> dict[str, float]:
    """Ratios by kind of bone, and of the hands, which go by the arms, times ``unit`` and what the artist asks for."""
    ratios = ratios | {"hands": float(np.sqrt(ratios["upper arms"] * ratios["forearms"]))}
    return {kind: ratios[kind] * unit * adjust.get(limb, 1.0) for limb, kinds in LIMBS.items() for kind in kinds}


def _by_limb(ratios: dict[str, float]) -> dict[str, float]:
    return {limb: float(np.mean([ratios[kind] for kind in kinds])) for limb, kinds in LIMBS.items()}


def _grounds(driver: Figure, picture: Figure) -> tuple[ndarray, ndarray]:
    """The same point [2] of both bodies, as low as both show it: in driving's clearest frame, and in the picture."""
    for joints in ([leg[2] for leg in LEGS], [leg[1] for leg in LEGS], [HIPS], [NECK], range(HIPS)):
        both = [joint for joint in joints if driver.ever[joint] and picture.ever[joint]]
        if both:
            break
    return driver.points[driver.start, both].mean(axis=0), picture.points[0, both].mean(axis=0)


def _ground(driver: Figure) -> ndarray:
    """Where the body stands [2] in driving's clearest frame: under its feet, or at what is seen instead."""
    return _grounds(driver, driver)[0]


def _left(before: ndarray, canvas: PoseTrack, after: ndarray, new: PoseTrack) -> float:
    """The part of the frames [T, 18, 3] in which a joint has left the picture that was in it."""

    def inside(points: ndarray, track: PoseTrack) -> ndarray:
        return (points[..., :2] >= 0).all(axis=-1) & (points[..., :2] <= [track.width, track.height]).all(axis=-1)

    gone = inside(before, canvas) & ~inside(after, new) & (after[..., 2] > 0)
    return float(gone.any(axis=1).mean())


def _placed(points: ndarray, at: ndarray, scale: float) -> ndarray:
    """``points`` [..., 3 or 4] that are there at new places ``at`` [..., 2], their depth times ``scale``."""
    there = points[..., 2:3] > 0
    depth = points[..., 3:] * np.where(there, scale, 1.0)
    return np.concatenate([np.where(there, at, points[..., :2]), points[..., 2:3], depth], axis=-1)


class Move:
    """Puts one person on another body: limbs by ``ratios``, feet and the path by ``scale``, around ``source`` [2] px of
    driving, which comes to lie on ``target`` [2] px."""

    def __init__(
        self, figure: Figure, ratios: dict[str, float], scale: float, source: ndarray, target: ndarray
    ) -> None:
        self.figure, self.ratios, self.scale, self.source, self.target = figure, ratios, scale, source, target
        self.points = self._place()

    def similar(self, points: ndarray) -> ndarray:
        """``points`` [..., 3] as one picture, enlarged and shifted; what is missing (all zero) stays so."""
        return _placed(points, self._similar(points[..., :2]), self.scale)

    def _similar(self, at: ndarray) -> ndarray:
        return self.target + self.scale * (at - self.source)

    def _ratio(self, joint: int) -> float:
        """Of the way from its parent: the mean over bones, where the joints between are never seen."""
        kinds, above = [KINDS[joint]], PARENTS[joint]
        while above is not None and above != self.figure.parents[joint]:
            kinds, above = [*kinds, KINDS.get(above, "torso")], PARENTS[above]
        return float(np.mean([self.ratios[kind] for kind in kinds]))

    def _place(self) -> ndarray:
        """[T, 19, 2] px: the joints on the new body; NaN for those that are never seen."""
        old, new, root = self.figure.points, np.full(self.figure.points.shape, np.nan), None
        for joint, parent in self.figure.parents.items():
            if self.figure.ever[joint]:
                root = joint if parent is None else root
                way = 0.0 if parent is None else self._ratio(joint) * (old[:, joint] - old[:, parent])
                new[:, joint] = way if parent is None else new[:, parent] + way
        # The feet tell where the body is: their own path, scaled as a picture would be, cannot slide.
        legs = [[joint for joint in leg[1:] if self.figure.ever[joint]] for leg in LEGS]
        legs = [leg for leg in legs if leg]
        carriers = [leg[-1] for leg in legs] or [root]
        goals = self._similar(old[:, carriers])
        new += (goals - new[:, carriers]).mean(axis=1, keepdims=True)
        for leg, goal in zip(legs, goals.swapaxes(0, 1)):
            rest = goal - new[:, leg[-1]]  # what is left between both feet goes into the legs, evenly
            for number, joint in enumerate(leg, start=1):
                new[:, joint] += rest * number / len(leg)
        return new

    def _carry(self, points: ndarray, joint: int | None, ratio: float) -> ndarray:
        """``points`` [T, N, 3] that hang on ``joint``; missing ones stay missing."""
        while joint is not None and not self.figure.ever[joint]:
            joint = self.figure.parents[joint]
        if joint is None:
            return self.similar(points)
        at = self.points[:, [joint]] + ratio * (points[..., :2] - self.figure.points[:, [joint]])
        return _placed(points, at, self.scale)

    def arrays(self, arrays: dict[str, ndarray]) -> dict[str, ndarray]:
        """The person's arrays of a PoseTrack, [T, ...] each, on the new body."""
        moved = {"keypoints": self._body(arrays["keypoints"])}
        if "hands" in arrays:
            hands = [
                self._carry(arrays["hands"][:, side], wrist, self.ratios["hands"])
                for side, wrist in enumerate((LEFT_WRIST, RIGHT_WRIST))
            ]
            moved["hands"] = np.stack(hands, axis=1)
        if "face" in arrays:
            moved["face"] = self._carry(arrays["face"], NECK, self.ratios["head"])
        if "feet" in arrays:  # on the ground like the ankles, so their size is the path's
            feet = [
                self._carry(arrays["feet"][:, 3 * side : 3 * side + 3], LEGS[1 - side][2], self.scale)
                for side in (0, 1)
            ]
            moved["feet"] = np.concatenate(feet, axis=1)
        if "landmarks" in arrays:
            moved["landmarks"] = self._landmarks(arrays["landmarks"])
        return moved

    def _landmarks(self, landmarks: ndarray) -> ndarray:
        """BlazePose's landmarks [T, 33, 4] on the new body, each carried by the joint it hangs on."""
        ratios = dict.fromkeys(FACE_LANDMARKS, self.ratios["head"])
        ratios |= dict.fromkeys(HAND_LANDMARKS, self.ratios["hands"])
        out = np.empty_like(landmarks)
        for landmark, joint in LANDMARK_CARRIERS.items():
            part = landmarks[:, [landmark]]
            out[:, [landmark]] = self._carry(part, joint, ratios.get(landmark, self.scale))
        return out

    def _body(self, keypoints: ndarray) -> ndarray:
        """Joints that are seen lie where they were placed; what is there with too little confidence goes with them."""
        seen = self.figure.seen[:, :HIPS, None]
        unsure = [
            self._carry(keypoints[:, [joint]], self.figure.parents[joint], self._ratio(joint)) for joint in range(HIPS)
        ]
        return np.where(
            seen, np.concatenate([self.points[:, :HIPS], keypoints[..., 2:]], -1), np.concatenate(unsure, 1)
        )
