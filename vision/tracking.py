"""Who is who: the people sighted in each frame become persons that keep their number through a video.

A sighting is given to the person whose predicted pose it is nearest to (object keypoint similarity, as COCO measures
poses) and whose shirt has its colours. So two people who cross keep their identities: he who is hidden goes on as he
went, and is known again by both when he comes out.
"""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from .pose import SEEN

LEADS = ("clearest", "largest", "leftmost", "rightmost", "point")

# COCO's tolerances (2σ, in body sizes) in OpenPose's order; the neck is taken as the shoulders are.
TOLERANCES = np.array([0.052, 0.158, *(0.158, 0.144, 0.124) * 2, *(0.214, 0.174, 0.178) * 2, 0.05, 0.05, 0.07, 0.07])
BODY_SIZE = 0.5  # of the joints' diagonal: what COCO takes for size is the root of the body's area
SAME_BODY = 0.4  # similarity from which two sightings are of one body
STEP_SLACK = 2.0  # a step may differ from the prediction by so many tolerances …
GAP_SLACK, MOST_SLACK = 0.25, 6.0  # … and by more with each frame that a person was away
NEAR = 0.05  # similarity to the prediction below which a sighting is somewhere else
SAME_COLOURS = 0.3  # colour difference below which somebody who was away may come back anywhere
DOUBT = 0.4  # colour difference from which a person may have been mistaken for another
UNKNOWN_COLOURS = 0.3  # the difference that is assumed where a torso cannot be seen
COLOUR_WEIGHT = 1.5  # of the colours' difference against the pose's
FORGET = 24  # frames after which whoever comes may take the place of somebody who is gone
VELOCITY_WEIGHT, VELOCITY_KEPT = 0.4, 0.95  # of a new step, and of the speed in each frame without a sighting
LEARN, LEARN_IN_DOUBT = 0.1, 0.03  # how fast a person's colours follow what is seen: people turn round, light changes

TORSO = [2, 5, 11, 8]  # corners: right shoulder, left shoulder, left hip, right hip
SAMPLES, INSET = 12, 0.15  # a side, of the torso without its rim
COLOUR_RANGES = np.array([[0.0, 100.0], [-60.0, 60.0], [-60.0, 60.0]])  # L, a, b
BINS = 12
OUT_OF_REACH = 1e3


class Sighting(NamedTuple):
    """Somebody in one frame: ``joints`` [18, 3] px, the ``colours`` of the torso (None where it is not seen), how clear
    the detector found the person, and whatever the detector wants back with it."""

    joints: np.ndarray
    colours: np.ndarray | None
    score: float
    source: object = None

    @property
    def center(self) -> np.ndarray:
        """[2] px: the middle of the joints."""
        return self.joints[self.joints[:, 2] >= SEEN, :2].mean(axis=0)

    @property
    def size(self) -> float:
        """px, see `BODY_SIZE`."""
        return body_size(self.joints)


class Person:
    """What is known of somebody who was sighted in frame ``index`` and since: where the person was when it surely was
    that person (``sure``, a frame), how fast, and in which colours."""

    def __init__(self, sighting: Sighting, index: int) -> None:
        self.last, self.sure = index, index
        self.start = sighting.center
        self.joints, self.colours, self.source = sighting.joints, sighting.colours, sighting.source
        self.velocity = np.zeros(2)  # px a frame
        self.sizes = [sighting.size]

    def predicted(self, index: int) -> np.ndarray:
        """Joints [18, 3] as they should be in frame ``index``."""
        return self.joints + np.append(self.travelled(index), 0.0)

    def travelled(self, index: int) -> np.ndarray:
        """[2] px that this person should have moved by frame ``index``, going on as before, slower with each frame."""
        return self.velocity * (1 - VELOCITY_KEPT ** (index - self.sure)) / (1 - VELOCITY_KEPT)

    def cost(self, sighting: Sighting, index: int) -> float:
        """How unlike this person the sighting is, from 0; `OUT_OF_REACH` where it cannot be this person."""
        away = index - self.sure
        slack = min(STEP_SLACK + GAP_SLACK * (away - 1), MOST_SLACK)
        near = similarity(self.predicted(index), sighting.joints, self.sizes[-1] * slack)
        difference = colour_difference(self.colours, sighting.colours)
        known_again = away > 1 and difference < SAME_COLOURS
        if near < NEAR and not known_again:
            return OUT_OF_REACH
        return 1 - near + COLOUR_WEIGHT * difference

    def is_doubtful(self, sighting: Sighting) -> bool:
        """Whether the sighting may be of somebody else, although it is where this person should be."""
        return colour_difference(self.colours, sighting.colours) > DOUBT

    def meet(self, sighting: Sighting, index: int) -> None:
        """Take in that the sighting in frame ``index`` was this person. One in doubt changes little: if it was the one
        who walked past in front, this person goes on behind."""
        self.last = index
        doubtful = self.is_doubtful(sighting)
        if self.colours is None:
            self.colours = sighting.colours
        elif sighting.colours is not None:
            weight = LEARN_IN_DOUBT if doubtful else LEARN
            self.colours = self.colours + weight * (sighting.colours - self.colours)
        if not doubtful:
            self._move(sighting, index)

    def _move(self, sighting: Sighting, index: int) -> None:
        common = (self.joints[:, 2] >= SEEN) & (sighting.joints[:, 2] >= SEEN)
        if common.any():
            steps = (sighting.joints - self.joints)[common, :2] / (index - self.sure)
            self.velocity = self.velocity + VELOCITY_WEIGHT * (np.median(steps, axis=0) - self.velocity)
        self.joints, self.source, self.sure = sighting.joints, sighting.source, index
        self.sizes.append(sighting.size)


class Identities:
    """Up to ``most`` people through a video. ``lead`` is the rule of `LEADS` by which people are chosen where more are
    in view, and by which they are ordered at the end; ``point`` [2] px is what its last rule means."""

    def __init__(self, most: int, lead: str = "clearest", point: np.ndarray | None = None) -> None:
        self.most, self.lead, self.point = most, lead, point
        self.people: list[Person] = []

    def meet(self, index: int, sightings: list[Sighting]) -> list[tuple[int, Sighting]]:
        """Who is who among ``sightings`` of frame ``index``: (number, sighting) of all who are followed."""
        costs = np.array([[person.cost(sighting, index) for sighting in sightings] for person in self.people])
        pairs = [(row, column) for row, column in assign(costs) if costs[row, column] < OUT_OF_REACH]
        for number, column in pairs:
            self.people[number].meet(sightings[column], index)
        taken = {column for _, column in pairs}
        others = [sighting for column, sighting in enumerate(sightings) if column not in taken]
        newcomers = [pair for sighting in sorted(others, key=self._rank) if (pair := self._welcome(sighting, index))]
        return [(number, sightings[column]) for number, column in pairs] + newcomers

    def lost(self, index: int) -> list[int]:
        """Numbers of those who were not surely sighted in the frame before ``index``."""
        return [number for number, person in enumerate(self.people) if person.sure < index - 1]

    def in_doubt(self, index: int, sightings: list[Sighting]) -> bool:
        """Whether one of ``sightings`` might be of somebody else than the person who is expected there."""
        for sighting in sightings:
            costs = [person.cost(sighting, index) for person in self.people]
            if min(costs) < OUT_OF_REACH and self.people[int(np.argmin(costs))].is_doubtful(sighting):
                return True
        return False

    def order(self, seen: np.ndarray) -> list[int]:
        """Numbers of all people, the lead first; ``seen`` [T, most] bool says in which frames each was sighted."""
        rules: dict[str, Callable[[int], float]] = {
            "clearest": lambda number: -seen[:, number].sum(),
            "largest": lambda number: -np.median(self.people[number].sizes),
        }
        rule = rules.get(self.lead) or (lambda number: self._rank_place(self.people[number].start))
        return sorted(range(len(self.people)), key=rule)

    def _welcome(self, sighting: Sighting, index: int) -> tuple[int, Sighting] | None:
        """Give the sighting of a stranger a number, where one is free or its owner is forgotten."""
        if len(self.people) < self.most:
            self.people.append(Person(sighting, index))
            return len(self.people) - 1, sighting
        for number, person in enumerate(self.people):
            if index - person.last > FORGET:
                self.people[number] = Person(sighting, index)
                return number, sighting
        return None

    def _rank(self, sighting: Sighting) -> float:
        if self.lead == "clearest":
            return -sighting.score
        return -sighting.size if self.lead == "largest" else self._rank_place(sighting.center)

    def _rank_place(self, center: np.ndarray) -> float:
        if self.lead == "point":
            return float(np.hypot(*(center - self.point)))
        return float(center[0] if self.lead == "leftmost" else -center[0])


def body_size(joints: np.ndarray) -> float:
    """The size in px of the body of ``joints`` [18, 3], at least 1."""
    points = joints[joints[:, 2] >= SEEN, :2]
    return max(1.0, BODY_SIZE * float(np.hypot(*np.ptp(points, axis=0)))) if len(points) else 1.0


def similarity(one: np.ndarray, other: np.ndarray, size: float) -> float:
    """Object keypoint similarity in 0…1 of two poses [18, 3], over the joints that both have; 0 where none is."""
    common = (one[:, 2] >= SEEN) & (other[:, 2] >= SEEN)
    if not common.any():
        return 0.0
    distances = np.linalg.norm((one - other)[common, :2], axis=1) / (size * TOLERANCES[common])
    return float(np.exp(-(distances**2) / 2).mean())


def distinct(sightings: list[Sighting]) -> list[Sighting]:
    """``sightings`` without those of a body that another, clearer one is of."""
    kept: list[Sighting] = []
    for sighting in sorted(sightings, key=lambda sighting: -sighting.score):
        if not any(similarity(sighting.joints, other.joints, other.size) > SAME_BODY for other in kept):
            kept.append(sighting)
    return kept


def torso_colours(frame: np.ndarray, joints: np.ndarray) -> np.ndarray | None:
    """Histograms [3, BINS] of L, a and b over the torso of ``joints`` [18, 3] in ``frame`` [H, W, 3] in 0…1; None where
    the shoulders cannot be seen. Where the hips cannot, the torso is taken to be 1.3 shoulders long."""
    corners = joints[TORSO, :2].copy()
    seen = joints[TORSO, 2] >= SEEN
    if not seen[:2].all():
        return None
    if not seen[2:].all():
        across = corners[1] - corners[0]
        corners[2:] = corners[[1, 0]] + 1.3 * np.array([0.0, np.hypot(*across)])
    share = np.linspace(INSET, 1 - INSET, SAMPLES)
    across, down = share[None, :, None], share[:, None, None]
    top = corners[0] + across * (corners[1] - corners[0])
    bottom = corners[3] + across * (corners[2] - corners[3])
    places = (top + down * (bottom - top)).reshape(-1, 2).astype(int)
    x, y = places.clip(0, np.array(frame.shape[1::-1]) - 1).T
    return _histograms(cv2.cvtColor(np.float32(frame[y, x][None]), cv2.COLOR_RGB2Lab)[0])


def _histograms(colours: np.ndarray) -> np.ndarray:
    """[N, 3] -> [3, BINS], each with a sum of 1; a value counts for the two bins that it lies between."""
    low, high = COLOUR_RANGES.T
    places = ((colours - low) / (high - low) * (BINS - 1)).clip(0, BINS - 1.001)
    lower = places.astype(int)
    share = places - lower
    histograms = np.zeros((3, BINS))
    channels = np.broadcast_to(np.arange(3), lower.shape)
    np.add.at(histograms, (channels, lower), 1 - share)
    np.add.at(histograms, (channels, lower + 1), share)
    return histograms / len(colours)


def colour_difference(one: np.ndarray | None, other: np.ndarray | None) -> float:
    """Hellinger distance in 0…1 between two histograms [3, BINS], the mean of the three."""
    if one is None or other is None:
        return UNKNOWN_COLOURS
    return float(np.sqrt((1 - np.sqrt(one * other).sum(axis=1)).clip(0)).mean())


def assign(costs: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (row, column) of ``costs`` [R, C] with the least sum, min(R, C) of them: the Hungarian method with
    potentials (Jonker and Volgenant 1987), a row at a time along the shortest augmenting path."""
    if costs.size == 0:
        return []
    if len(costs) > costs.shape[1]:
        return sorted((row, column) for column, row in assign(costs.T))
    rows, columns = costs.shape
    row_price, column_price = np.zeros(rows), np.zeros(columns + 1)
    owner = np.full(columns + 1, -1)  # of each column; the last column is where a new row starts from
    for row in range(rows):
        owner[columns], column = row, columns
        slack, done = np.full(columns, np.inf), np.zeros(columns, bool)
        came_from = np.full(columns, columns)
        while owner[column] >= 0:
            if column < columns:
                done[column] = True
            reduced = costs[owner[column]] - row_price[owner[column]] - column_price[:-1]
            better = ~done & (reduced < slack)
            slack[better], came_from[better] = reduced[better], column
            step = slack[~done].min()
            visited = np.append(done, True)
            row_price[owner[visited]] += step
            column_price[visited] -= step
            slack[~done] -= step
            column = int(np.flatnonzero(~done & (slack <= slack[~done].min()))[0])
        while column != columns:
            owner[column], column = owner[came_from[column]], came_from[column]
    return [(int(owner[column]), column) for column in range(columns) if owner[column] >= 0]
