"""How a body in a picture compares with one in a video: the ratio of each kind of bone, and how far to trust it.

A picture shows bones foreshortened, and nothing in it tells by how much. The video may: in the frame where its person
holds the limb as the picture's does, both are foreshortened alike, and their ratio is the true one. The less such a
frame there is, the more the ratio comes from the bones' full lengths, drawn to what bodies usually are.
"""

from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from .skeleton import BONES, LEGS, Figure

# 1 - cos of the mean angle, 2.5°, between the bones of two poses that are one pose, which lengths can be read from;
# limbs of one direction in the picture may still point to the camera by different amounts.
ALIKE = 0.001
SPREAD = 0.2  # how much bodies, drawn ones among them, differ in the ratio of a bone to the whole: deviation of its log
# Median and deviation of the log of a ratio of full lengths, measured on people of training.stage whose bodies and
# cameras are known, in a picture from about the front and in a clip, which has seen the bones at their longest.
# Breadths tell little: they shrink with every turn of the body; and people nod more than those of the stage.
SHORTER = {"upper arms": -0.04, "forearms": -0.05, "thighs": -0.02, "shins": -0.12, "head": -0.07}
NOISE = {"torso": 0.04, "upper arms": 0.06, "forearms": 0.07, "thighs": 0.07, "shins": 0.13, "head": 0.15}
NOISE |= {"shoulders": 0.3, "hips": 0.3}
HALVES = 0.8  # a limb's half whose ratio differs more from the other half's points at the camera in one of both
FURTHEST = 2.0  # a ratio to the whole body's beyond this, or below its inverse, is a wrong pose, not a body
HEIGHT = ("head", "torso", "thighs", "shins")  # what a standing body's height is made of
MATES = {"forearms": "upper arms", "upper arms": "forearms", "shins": "thighs", "thighs": "shins", "hips": "shoulders"}
MATES |= {"shoulders": "hips"}
LIMB_HALVES = (("upper arms", "forearms"), ("thighs", "shins"))
TRUSTED = ("torso", "shoulders", "head", "thighs", "upper arms", "shins", "forearms", "hips")  # for the scale
TURNED = 0.3  # width of the shoulders, in lengths of the torso, below which somebody is seen from the side
FOLDED = 0.6  # height of the thigh, in lengths of the shin, below which somebody sits
RARE = 0.1  # share of the frames that is no match for the picture
# By how much a bone's ratio to the whole is off, as deviation of its log, measured on 140 pairs of people of the stage:
# of bones that both show; that one does not show, but its mate; that one does not show; and where the two do not match.
SHOWN, BY_MATE, HIDDEN, HIDDEN_ARM = 0.09, 0.07, 0.15, 0.18
TURNED_AWAY = {"shoulders": 0.175, "hips": 0.09}
SITTING = {"thighs": 0.17}
WILD = 0.2
DOUBTFUL = 0.105  # an error of this size leaves 1/e of the confidence
UNKNOWN = 0.5  # how far apart a bone counts that the picture shows and a frame does not
NO_FIT = (np.inf, 1.0)  # of a bone that no frame shows together with what the picture shows
FRONT, SIDE, BACK = "the front", "the side", "the back"


@dataclass(frozen=True)
class Proportions:
    """How large the picture's bones are in those of the video: by kind, ``ratios``; of the ``torso``, or what else is
    trusted most; of the whole ``height``. ``error`` is the deviation to expect of the log of a ratio to the whole,
    ``confidence`` what that leaves, 0 to 1, and ``warnings`` say what is wrong."""

    ratios: dict[str, float]
    torso: float
    height: float
    error: float
    warnings: list[str]

    @property
    def confidence(self) -> float:
        return float(np.exp(-((self.error / DOUBTFUL) ** 2)))


def compare(driver: Figure, picture: Figure) -> Proportions:
    """``picture`` [1 frame] over ``driver`` [T frames], in px of the picture over px of the driver's frame ``start``.

    Raises ValueError, naming the socket ``reference``, where no bone is in both.
    """
    fits, rests = _fits(driver, picture), _rests(driver, picture)
    torso = _scale(fits, rests)
    known = [kind for kind in BONES if not np.isnan(rests[kind])]
    facing, folding = _facing_doubt(driver, picture), _folding_doubt(driver, picture)
    if facing:  # breadths are foreshortened in one of both, and nothing tells how much
        rests |= {"shoulders": torso, "hips": torso}
    if folding:
        rests |= {"thighs": torso if np.isnan(rests["shins"]) else rests["shins"]}
    for one, other in LIMB_HALVES:
        rests |= _agreed(one, other, rests, torso)
    ratios = {kind: _ratio(kind, *fits.get(kind, NO_FIT), rests[kind], torso) for kind in known}
    ratios |= {kind: ratios.get(MATES.get(kind, kind), torso) for kind in BONES if kind not in known}
    wild = [
        kind
        for kind in known
        if abs(np.log(rests[kind] / torso)) > np.log(FURTHEST) and fits.get(kind, NO_FIT)[0] > ALIKE
    ]
    doubts = [doubt for doubt in (facing, folding) if doubt]
    doubts += [
        f"{kind}: the reference's are too long or short to be true; taken for {FURTHEST:g} times" for kind in wild
    ]
    expected = {kind: _unseen_error(kind, MATES.get(kind) in known) for kind in BONES}
    expected |= {kind: SHOWN * (1 - _weight(fits.get(kind, NO_FIT)[0], ALIKE)) for kind in known}
    for doubt, errors in ((facing, TURNED_AWAY), (folding, SITTING), (wild, dict.fromkeys(wild, WILD))):
        expected |= {kind: errors[kind] for kind in errors if doubt and kind in known}
    error = float(np.sqrt(np.mean(np.square(list(expected.values())))))
    return Proportions(ratios, torso, _height(driver, ratios), error, doubts + _crops(driver, picture))


def _unseen_error(kind: str, mate: bool) -> float:
    """The error to expect of a kind of bone that one of both does not show; ``mate``: both show its mate."""
    if kind in ("shoulders", "hips") and mate:
        return BY_MATE
    return HIDDEN_ARM if kind in ("upper arms", "forearms") else HIDDEN


def _ratio(kind: str, apart: float, ratio: float, rest: float, torso: float) -> float:
    """The likeliest ratio of a kind of bone: ``ratio`` of bones that are held alike, else of full
    lengths, ``rest``, as far as they can be measured, else the ``torso``'s."""
    rest = float(np.clip(rest, torso / FURTHEST, torso * FURTHEST)) / np.exp(SHORTER.get(kind, 0.0))
    rest = _between(SPREAD**2 / (SPREAD**2 + NOISE[kind] ** 2), rest, torso)
    return _between(_weight(apart, ALIKE), ratio, rest)


def _agreed(one: str, other: str, rests: dict[str, float], torso: float) -> dict[str, float]:
    """The full length of the half of a limb that is further from the torso's ratio, brought near the other half's."""
    if np.isnan(rests[one] + rests[other]):
        return {}
    near, far = sorted((one, other), key=lambda kind: abs(np.log(rests[kind] / torso)))
    return {far: float(np.clip(rests[far], HALVES * rests[near], rests[near] / HALVES))}


def _weight(apart: float, scale: float) -> float:
    return float(np.exp(-((apart / scale) ** 2)))


def _between(weight: float, ratio: float, rest: float) -> float:
    """``ratio`` as far as ``weight`` (0…1) goes, else ``rest``."""
    return float(np.exp(weight * np.log(ratio) + (1 - weight) * np.log(rest)))


def _scale(fits: dict[str, tuple[float, float]], rests: dict[str, float]) -> float:
    """The ratio of the whole body by the kind of bone that is trusted most."""
    kind = next((kind for kind in TRUSTED if not np.isnan(rests[kind])), None)
    if kind is None:
        raise ValueError(
            "reference: it shows no part of the body that driving shows as well, so there is nothing to compare. Use a "
            "picture in which shoulders and hips are seen."
        )
    apart, ratio = fits.get(kind, NO_FIT)
    return _between(_weight(apart, ALIKE), ratio, rests[kind])


def _height(driver: Figure, ratios: dict[str, float]) -> float:
    """The ratio of the standing bodies' heights, as far as ``driver`` shows what they are made of."""
    parts = {kind: length for kind in HEIGHT if not np.isnan(length := _longest(driver, kind))}
    parts = parts or {kind: length for kind in BONES if not np.isnan(length := _longest(driver, kind))}
    return sum(ratios[kind] * length for kind, length in parts.items()) / sum(parts.values())


def _rests(driver: Figure, picture: Figure) -> dict[str, float]:
    """By kind of bone, the ratio of full lengths; NaN where one of both does not show it. Of a head, which turns, it is
    that of the bones that both show."""
    ratios = {kind: _longest(picture, kind) / _longest(driver, kind) for kind in BONES}
    theirs, ours = picture.rest["head"], driver.rest["head"]
    both = ~np.isnan(theirs + ours)
    return ratios | {"head": float(theirs[both].sum() / max(ours[both].sum(), 1e-6)) if both.any() else np.nan}


def _longest(figure: Figure, kind: str) -> float:
    """The full length of a kind of bone, px, on the side where it appears longer; NaN where it is never seen."""
    rest = figure.rest[kind]
    return max(float(np.nanmax(rest)), 1e-6) if not np.isnan(rest).all() else np.nan


def _fits(driver: Figure, picture: Figure) -> dict[str, tuple[float, float]]:
    """By kind of bone: how far apart it and the whole pose are held in the frame of ``driver`` that is most like the
    picture, and the ratio of its lengths there."""
    apart = {kind: _apart(driver.vectors[kind], picture.vectors[kind]) for kind in BONES}  # [T, bones]
    limbs = np.concatenate([apart[kind] for kind in BONES if kind != "head"], axis=1)
    shown = np.concatenate(
        [_apart(picture.vectors[kind], picture.vectors[kind])[0] for kind in BONES if kind != "head"]
    )
    limbs = limbs[:, ~np.isnan(shown)]
    whole = np.where(np.isnan(limbs), UNKNOWN, limbs).mean(axis=1) if limbs.size else np.zeros(len(limbs))  # [T]
    fits = {}
    for kind, bones in apart.items():
        both = ~np.isnan(bones)
        own = np.where(both, bones, 0).sum(axis=1) / np.maximum(both.sum(axis=1), 1)
        distance = np.where(both.any(axis=1), (own + whole) / 2, np.inf)
        frame = int(distance.argmin())
        ours, theirs = driver.lengths[kind][frame] / driver.nearness[frame], picture.lengths[kind][0]
        ours, theirs, rest = (lengths[both[frame]].sum() for lengths in (ours, theirs, driver.rest[kind]))
        if min(ours, theirs) > 0:
            # The more foreshortened a bone is, the more its length changes with every degree.
            fits[kind] = float(distance[frame] / min(1.0, 2 * ours / rest)), float(theirs / ours)
    return fits


def _apart(one: ndarray, other: ndarray) -> ndarray:
    """1 - cos of the angles between vectors [T, bones, 2] and [1 or T, bones, 2]; NaN where one has no direction."""
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return 1 - (one * other).sum(axis=-1) / np.where(lengths > 0, lengths, np.nan)


def _facing(figure: Figure) -> ndarray:
    """[T] how far the shoulders spread from right to left in the picture, in lengths of the torso: about 0.7 from the
    front, 0 from the side, negative from behind. NaN where unknown."""
    across = np.where(figure.seen[:, 2] & figure.seen[:, 5], figure.points[:, 5, 0] - figure.points[:, 2, 0], np.nan)
    return across / (_longest(figure, "torso") * figure.nearness)


def _facing_doubt(driver: Figure, picture: Figure) -> str | None:
    def views(figure: Figure) -> ndarray:
        facing = _facing(figure)
        facing = facing[~np.isnan(facing)]
        return np.select([facing > TURNED, facing < -TURNED], [FRONT, BACK], SIDE)

    theirs, ours = views(driver), views(picture)
    if not len(theirs) or not len(ours) or (theirs == ours[0]).mean() >= RARE:
        return None
    names, counts = np.unique(theirs, return_counts=True)
    most = names[counts.argmax()]
    return f"the reference shows {ours[0]} of the character, driving shows {most} of the person"


def _folding(figure: Figure) -> ndarray:
    """[T] how far the knees are below the hips, in lengths of the shin: about 1 for somebody who stands."""
    known = figure.seen[:, LEGS].all(axis=2)  # [T, legs]
    fall = figure.points[:, [leg[1] for leg in LEGS], 1] - figure.points[:, [leg[0] for leg in LEGS], 1]
    falls = np.where(known, fall, 0).sum(axis=1) / np.where(known.any(axis=1), known.sum(axis=1), np.nan)
    return falls / (_longest(figure, "shins") * figure.nearness)


def _folding_doubt(driver: Figure, picture: Figure) -> str | None:
    theirs, ours = _folding(driver), _folding(picture)
    theirs = theirs[~np.isnan(theirs)] < FOLDED
    if not len(theirs) or np.isnan(ours[0]):
        return None
    sits = ours[0] < FOLDED
    if (theirs == sits).mean() >= RARE:
        return None
    here, there = ("sits or crouches", "stands") if sits else ("stands", "sits or crouches")
    return f"the character {here} in the reference, the person of driving {there}"


def _crops(driver: Figure, picture: Figure) -> list[str]:
    """What one of both does not show, in an artist's words."""
    told = []
    for name, figure in (("the reference", picture), ("driving", driver)):
        parts = {
            "knees": (9, 12),
            "ankles": (10, 13),
            "hips": (8, 11),
            "elbows": (3, 6),
            "wrists": (4, 7),
            "nose": (0,),
        }
        lost = [part for part, joints in parts.items() if not figure.ever[list(joints)].any()]
        told += [f"{name} shows no {' and no '.join(lost)}"] if lost else []
    return told
