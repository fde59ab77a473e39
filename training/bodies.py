"""Bodies of the stage's people: proportions, clothes, hair, and the rounded shapes that they are drawn from.

Lengths are metres, axes of the world are x, y on the ground and z up.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy import ndarray

BODY, HAND, OBJECT = 0, 1, 2  # what a shape belongs to: the masks ask

SKIN = ["#f2d3c0", "#e8bc9c", "#d9a37f", "#c08660", "#9c6644", "#7a4a30", "#573322", "#3f2519"]
HAIR = ["#1d1715", "#2e211a", "#4a3222", "#6f4a2c", "#9a6d3c", "#c9a15e", "#8a8683", "#7b2f1c", "#d9d4cc"]
CLOTH = ["#b53a34", "#d9763f", "#e2b04a", "#7f9a48", "#3f7d5c", "#2f7f86", "#3e73b5", "#2c4372", "#6a4a8c", "#b05c86"]
CLOTH += ["#e9e4da", "#c9c0b0", "#8b8d90", "#4a4d54", "#26282d", "#7b5b43", "#5a2f33", "#a9c3d6", "#d8a7a0", "#55603c"]
HAIR_STYLES = ["short", "short", "crop", "bob", "long", "bun", "tail", "hat", "bald"]
THINGS = ["ball", "bag", "stick", "cup", "book", "flower", "case", "balloon"]


def colour(code: str) -> ndarray:
    """ "#rrggbb" as [3] in 0…1."""
    return np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)]) / 255


@dataclass(frozen=True)
class Body:
    """Proportions, as fractions of ``height`` except ``girth``, which multiplies every thickness."""

    height: float = 1.7
    girth: float = 1.0
    shoulder: float = 0.103  # half width
    hip: float = 0.050
    thigh: float = 0.245
    shin: float = 0.240
    torso: float = 0.290  # pelvis to neck
    upper_arm: float = 0.165
    forearm: float = 0.145
    hand: float = 0.075
    head: float = 1.1  # multiplies the head

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Body":
        """A body at random: four of five are grown up."""
        child = rng.random() < 0.2
        height = rng.uniform(1.05, 1.4) if child else rng.normal(1.7, 0.09)
        leg = rng.normal(1.0, 0.03) * (0.94 if child else 1.0)
        return cls(
            height=height,
            girth=float(np.clip(rng.normal(1.04, 0.13), 0.82, 1.5)),
            shoulder=0.103 * rng.normal(1.0, 0.07),
            hip=0.050 * rng.normal(1.05, 0.08),
            thigh=0.245 * leg,
            shin=0.240 * leg,
            head=1.35 if child else rng.normal(1.12, 0.04),
        )

    @property
    def ankle(self) -> float:
        """Height of the ankle over the ground, in metres."""
        return 0.042 * self.height

    @property
    def leg(self) -> float:
        """Hip to ankle, stretched, in metres."""
        return (self.thigh + self.shin) * self.height

    @property
    def arm(self) -> float:
        """Shoulder to wrist, stretched, in metres."""
        return (self.upper_arm + self.forearm) * self.height


@dataclass(frozen=True)
class Outfit:
    """What a person wears. Lengths are fractions of a limb that cloth covers."""

    skin: ndarray
    hair: ndarray
    shirt: ndarray
    trim: ndarray  # second colour of the shirt
    trousers: ndarray
    shoes: ndarray
    sleeve: float
    leg: float
    skirt: float  # 0: none; else its length down the leg
    bands: float  # broad bands on the shirt, count from neck to hip; 0: none
    style: str
    thing: str | None  # what is held
    thing_colour: ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, holds: bool) -> "Outfit":
        """Clothes at random; ``holds``: with something in the hand."""
        cloth = [np.clip(colour(CLOTH[i]) * rng.uniform(0.85, 1.1), 0, 1) for i in rng.permutation(len(CLOTH))[:5]]
        return cls(
            skin=colour(SKIN[rng.integers(len(SKIN))]) * rng.uniform(0.93, 1.05),
            hair=colour(HAIR[rng.integers(len(HAIR))]),
            shirt=cloth[0],
            trim=cloth[1],
            trousers=cloth[2],
            shoes=cloth[3] * 0.6,
            sleeve=float(rng.choice([0.45, 1.9, 1.9, 0.0, 1.2])),
            leg=float(rng.choice([1.9, 1.9, 1.9, 0.75])),
            skirt=float(rng.choice([0.0, 0.0, 0.0, 0.9, 1.3])),
            bands=float(rng.choice([0.0, 0.0, 1.0, 1.5])),
            style=str(rng.choice(HAIR_STYLES)),
            thing=str(rng.choice(THINGS)) if holds else None,
            thing_colour=cloth[4],
        )


@dataclass(frozen=True)
class Shapes:
    """N tapered capsules through T frames: what a person is drawn from.

    ``start``, ``end`` [T, N, 3] m; ``radii`` [N, 2] m at both ends; ``inner``, ``outer`` [N, 3] colours before and
    after ``split`` [N] (0 at start, 1 at end); ``bands`` [N] count of ``outer`` bands along it; ``label`` [N];
    ``lift`` [N] m: how much nearer a shape counts than it is (eyes lie on the face and do not melt into it).
    """

    start: ndarray
    end: ndarray
    radii: ndarray
    inner: ndarray
    outer: ndarray
    split: ndarray
    bands: ndarray
    label: ndarray
    lift: ndarray


@dataclass
class Tailor:
    """Collects shapes one by one; ``scale`` is metres in a unit of radius (for a body: height times girth)."""

    scale: float
    rows: list = field(default_factory=list)

    def add(self, start, end, radii, inner, outer=None, split=2.0, bands=0.0, label=BODY, lift=0.0) -> None:
        """One capsule from ``start`` to ``end`` [T, 3] with ``radii`` at both, in units of the scale."""
        outer = inner if outer is None else outer
        self.rows.append((start, end, np.array(radii) * self.scale, inner, outer, split, bands, label, lift))

    def shapes(self) -> Shapes:
        start, end, *rest = zip(*self.rows)
        return Shapes(np.stack(start, 1), np.stack(end, 1), *(np.array(column) for column in rest))


def dress(body: Body, outfit: Outfit, pose: dict[str, ndarray]) -> Shapes:
    """The shapes of a dressed person. ``pose``: points [T, 3] and axes of ``training.motion.perform``."""
    tailor = Tailor(body.height * body.girth)
    _torso(tailor, body, outfit, pose)
    for side in "rl":
        _leg(tailor, outfit, pose, side)
        _arm(tailor, outfit, pose, side)
    _head(tailor, body, outfit, pose)
    if outfit.thing:
        _thing(tailor, body, outfit, pose)
    return tailor.shapes()


def _torso(tailor: Tailor, body: Body, outfit: Outfit, pose: dict) -> None:
    neck, pelvis = pose["neck"], pose["pelvis"]
    shirt, trim, h = outfit.shirt, outfit.trim, body.height
    skirt = outfit.skirt
    lower = shirt if skirt else outfit.trousers
    tailor.add(pose["hip_r"], pose["hip_l"], (0.062, 0.062), lower)
    down = pose["chest_up"] * h
    low = pelvis + pose["pelvis_up"] * (0.02 * h)
    for side, sign in (("r", 1), ("l", -1)):
        top = pose[f"shoulder_{side}"] * 0.62 + neck * 0.38 - down * 0.035
        bottom = low + sign * pose["pelvis_right"] * (0.036 * h)
        tailor.add(top, bottom, (0.056, 0.058), shirt, trim, bands=outfit.bands)
    tailor.add(neck - down * 0.045, low, (0.060, 0.063), shirt, trim, bands=outfit.bands)
    inner = [neck * 0.15 + pose[f"shoulder_{side}"] * 0.85 - down * 0.012 for side in "rl"]
    tailor.add(*inner, (0.036, 0.036), shirt)
    tailor.add(neck - down * 0.01, neck + pose["head_up"] * (0.05 * h), (0.029, 0.027), outfit.skin)


def _leg(tailor: Tailor, outfit: Outfit, pose: dict, side: str) -> None:
    hip, knee, ankle = (pose[f"{name}_{side}"] for name in ("hip", "knee", "ankle"))
    covered = 0.25 if outfit.skirt else outfit.leg
    tailor.add(hip, knee, (0.056, 0.038), outfit.trousers, outfit.skin, covered)
    tailor.add(knee, ankle, (0.037, 0.025), outfit.trousers, outfit.skin, covered - 1.0)
    tailor.add(pose[f"heel_{side}"], pose[f"toe_{side}"], (0.025, 0.021), outfit.shoes)
    if outfit.skirt:
        above, below = min(outfit.skirt, 1.0), max(outfit.skirt - 1.0, 0.0)
        hem = hip + (knee - hip) * above + (ankle - knee) * below
        tailor.add(hip, hem, (0.066, 0.066 + 0.02 * outfit.skirt), outfit.trousers)


def _arm(tailor: Tailor, outfit: Outfit, pose: dict, side: str) -> None:
    shoulder, elbow, wrist, tip = (pose[f"{name}_{side}"] for name in ("shoulder", "elbow", "wrist", "fingers"))
    tailor.add(shoulder, elbow, (0.031, 0.025), outfit.shirt, outfit.skin, outfit.sleeve)
    tailor.add(elbow, wrist, (0.025, 0.019), outfit.shirt, outfit.skin, outfit.sleeve - 1.0)
    tailor.add(wrist, tip, (0.020, 0.018), outfit.skin, label=HAND)


def _head(tailor: Tailor, body: Body, outfit: Outfit, pose: dict) -> None:
    size = body.height * body.head
    up, forward, right = pose["head_up"] * size, pose["head_forward"] * size, pose["head_right"] * size
    centre, skin, hair = pose["head"], outfit.skin, outfit.hair
    head = Tailor(size)
    head.add(centre - up * 0.024 + forward * 0.010, centre + up * 0.016, (0.038, 0.048), skin)
    head.add(centre - up * 0.006 + forward * 0.044, centre - up * 0.016 + forward * 0.050, (0.007, 0.009), skin)
    for sign in (1, -1):
        eye = centre + up * 0.004 + forward * 0.034 + sign * right * 0.017
        head.add(eye, eye + right * 0.004 * sign, (0.0065, 0.006), colour("#2a2320"), lift=0.03)
        ear = centre - up * 0.004 + sign * right * 0.046
        head.add(ear, ear - up * 0.010, (0.010, 0.008), skin)
    mouth, lips = centre - up * 0.034 + forward * 0.036, skin * np.array([0.78, 0.52, 0.5])
    head.add(mouth - right * 0.010, mouth + right * 0.010, (0.005, 0.005), lips, lift=0.02)
    _hair(head, outfit.style, hair, outfit.trim, centre, up, forward, right)
    tailor.rows += head.rows


def _hair(head: Tailor, style: str, hair, trim, centre, up, forward, right) -> None:
    if style == "bald":
        return
    crown, back = centre + up * 0.028 - forward * 0.006, centre - forward * 0.014
    if style == "hat":
        head.add(crown + up * 0.010, crown + up * 0.016, (0.051, 0.049), trim)
        head.add(crown + up * 0.004, crown + up * 0.002 + forward * 0.050, (0.046, 0.030), trim)
        head.add(back + up * 0.005, back - up * 0.015, (0.044, 0.036), hair)
        return
    head.add(crown, back + up * 0.012, (0.046, 0.047), hair)
    if style == "crop":
        return
    head.add(crown - right * 0.02 + forward * 0.018, crown + right * 0.02 + forward * 0.018, (0.028, 0.028), hair)
    head.add(back + up * 0.010, back - up * 0.016 - forward * 0.006, (0.046, 0.036), hair)
    if style in ("bob", "long"):
        drop = 0.045 if style == "bob" else 0.115
        for sign in (1, -1):
            head.add(back + sign * right * 0.030, back - up * drop + sign * right * 0.028, (0.028, 0.022), hair)
        head.add(back, back - up * drop - forward * 0.012, (0.044, 0.030), hair)
    elif style == "bun":
        head.add(crown - forward * 0.035 + up * 0.020, crown - forward * 0.040 + up * 0.024, (0.022, 0.022), hair)
    elif style == "tail":
        head.add(back - forward * 0.035 + up * 0.02, back - forward * 0.050 - up * 0.085, (0.020, 0.011), hair)


def _thing(tailor: Tailor, body: Body, outfit: Outfit, pose: dict) -> None:
    """What the right hand (ball, book: both hands) holds. Sizes are of the thing, not of the person."""
    kind, paint, size = outfit.thing, outfit.thing_colour, body.height / 1.7
    grip = pose["wrist_r"] * 0.3 + pose["fingers_r"] * 0.7
    both = (pose["fingers_r"] + pose["fingers_l"]) / 2
    up, forward = np.array([0.0, 0.0, 1.0]) * size, pose["chest_forward"] * size
    right = pose["chest_right"] * size
    pale = 0.5 + 0.5 * paint
    lines = {
        "ball": [(both + forward * 0.05, both + forward * 0.051, (0.13, 0.13), paint)],
        "bag": [
            (grip - up * 0.02, grip - up * 0.15, (0.012, 0.012), paint * 0.7),
            (grip - up * 0.24 + forward * 0.07, grip - up * 0.24 - forward * 0.07, (0.10, 0.10), paint),
        ],
        "stick": [(grip - up * 0.35 + forward * 0.05, grip + up * 0.55 - forward * 0.05, (0.020, 0.020), paint)],
        "cup": [(grip + up * 0.01, grip + up * 0.09, (0.036, 0.042), pale)],
        "book": [
            (both + right * 0.08 + up * 0.02, both + right * 0.07 + up * 0.16, (0.05, 0.05), paint),
            (both - right * 0.08 + up * 0.02, both - right * 0.07 + up * 0.16, (0.05, 0.05), paint),
        ],
        "flower": [
            (grip, grip + up * 0.24 + forward * 0.04, (0.012, 0.010), colour("#4f7a3a")),
            (grip + up * 0.27 + forward * 0.045, grip + up * 0.28 + forward * 0.045, (0.055, 0.055), paint),
        ],
        "case": [
            (grip - up * 0.12 + forward * 0.18, grip - up * 0.12 - forward * 0.18, (0.07, 0.07), paint),
            (grip - up * 0.24 + forward * 0.18, grip - up * 0.24 - forward * 0.18, (0.07, 0.07), paint),
        ],
        "balloon": [
            (grip, grip + up * 0.62 + right * 0.08, (0.006, 0.006), pale),
            (grip + up * 0.78 + right * 0.10, grip + up * 0.84 + right * 0.11, (0.14, 0.16), paint),
        ],
    }
    things = Tailor(size)
    for start, end, radii, shade in lines[kind]:
        things.add(start, end, radii, shade, label=OBJECT)
    tailor.rows += things.rows
