"""What the character does in each frame: where its points go, which side it shows, what is nearer.

Nothing is carried over a cut, or over frames in which the person is away.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy import ndarray

from ..pose import LONGEST_GAP, PoseTrack
from .body import CARRIERS, SIDES, Points, body_points, fill_missing
from .character import Character
from .deformation import Target
from .order import Depth, Order, hysteresis, lifted_legs, read_depth, steady

CUT = 1.5  # trunks: a body that moves farther within one frame was cut to
FRONT, BACK = 0.1, -0.25  # breadth of the shoulders in trunks from which a side is shown
HIPS_SHARE = 0.6  # of the hips' breadth against the shoulders' in telling the side
SHORT_TRUNK = 0.7  # of its median length: a shorter one leans to the camera
MOST_YAW = 1.0  # rad, against the picture's


@dataclass(frozen=True, eq=False)
class Performance:
    """[T] each: ``targets``, None where nobody is there, and the ``orders`` of the layers' names.
    ``depth_known`` [T] bool: frames whose pose tells what is nearer."""

    targets: list[Target | None]
    orders: list[list[str]]
    depth_known: ndarray

    @property
    def present(self) -> ndarray:
        """[T] bool: frames in which the person is drawn."""
        return np.array([target is not None for target in self.targets])

    @property
    def mirrored(self) -> ndarray:
        """[T] bool: frames in which the side is shown that the picture does not show."""
        return np.array([target is not None and target.mirrored for target in self.targets])


def perform(
    character: Character, track: PoseTrack, scale: ndarray, picture_landmarks: ndarray | None
) -> Performance:
    """Let ``character`` follow the one person of ``track``.

    ``scale`` [T]: px of the frame per px of the character's picture. ``picture_landmarks``
    [33, 4]: BlazePose's in the picture, for how far it is turned there (None: not at all).
    """
    count = len(track.keypoints)
    targets: list[Target | None] = [None] * count
    orders: list[list[str]] = [[]] * count
    points = body_points(track, 0)
    own_yaw = 0.0
    if picture_landmarks is not None:
        own_yaw = float(read_depth(picture_landmarks[None], 1).yaw[0])
    known = np.zeros(count, bool)
    for start, stop in _unbroken(track, points):
        here = slice(start, stop)
        run = fill_missing({name: places[here] for name, places in points.items()})
        if not (np.isfinite(run["neck"]).all() or np.isfinite(run["hips"]).all()):
            continue
        marks = None if track.landmarks is None else track.landmarks[here, 0]
        depth = read_depth(marks, stop - start)
        known[here] = depth.known
        mirrored = _shows_back(run, character) == character.faces_us
        for t, target in enumerate(_targets(character, run, scale[here], mirrored, depth, own_yaw)):
            targets[start + t] = target
        order = Order.of(depth)
        for t in range(stop - start):
            target = targets[start + t]
            orders[start + t] = order.layers(
                t, lifted_legs(character.points, target.points, target.scale)
            )
    return Performance(targets, orders, known)


def runs(flags: ndarray) -> list[tuple[int, int]]:
    """(start, stop) of each unbroken run of true in ``flags`` [T]."""
    edges = np.flatnonzero(np.diff(flags.astype(int), prepend=0, append=0))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist()))


def drawn_frames(track: PoseTrack) -> ndarray:
    """[T] bool: frames in which the one person of ``track`` is there: seen, or filled in over a
    gap that is short enough to be believed."""
    filled = track.present & ~track.measured.present
    present = track.present.copy()
    for start, stop in runs(filled):
        if stop - start > LONGEST_GAP:
            present[start:stop] = False
    return present


def _unbroken(track: PoseTrack, points: Points) -> list[tuple[int, int]]:
    """(start, stop) of the runs of frames without a cut in which the person is there."""
    found = []
    for start, stop in runs(drawn_frames(track)):
        steps, trunk = [], []
        for name in ("neck", "hips"):
            steps.append(np.linalg.norm(np.diff(points[name][start:stop], axis=0), axis=1))
        trunk = np.linalg.norm(points["neck"][start:stop] - points["hips"][start:stop], axis=1)
        if np.isfinite(trunk).any():
            moved = np.nan_to_num(np.fmin(*steps), nan=0.0)
            cuts = start + 1 + np.flatnonzero(moved > CUT * np.nanmedian(trunk))
            edges = [start, *cuts.tolist(), stop]
        else:
            edges = [start, stop]
        found += list(pairwise(edges))
    return found


def _shows_back(run: Points, character: Character) -> ndarray:
    """[T] bool: whether the driver of this run is seen from behind, by the order of shoulders and
    hips."""
    breadth = (run["left_shoulder"] - run["right_shoulder"])[:, 0]
    hips = (run["left_hip"] - run["right_hip"])[:, 0]
    breadth = np.nan_to_num(breadth) + HIPS_SHARE * np.nan_to_num(hips)
    trunk = np.linalg.norm(run["neck"] - run["hips"], axis=1)
    if not np.isfinite(trunk).all():
        trunk = np.full(len(breadth), max(1.0, float(np.abs(breadth).max())))
    median = max(float(np.median(trunk)), 1.0)
    turned = steady(breadth / steady(np.maximum(trunk, SHORT_TRUNK * median), 2.0), 1.0)
    return ~hysteresis(turned, BACK, FRONT, bool(np.median(turned) > -FRONT))


def _targets(
    character: Character,
    run: Points,
    scale: ndarray,
    mirrored: ndarray,
    depth: Depth,
    own_yaw: float,
) -> list[Target]:
    out = []
    for t, (size, flip) in enumerate(zip(scale, mirrored)):
        points = {name: places[t] for name, places in run.items()}
        points = complete(points, character.points, float(size), bool(flip))
        turn = float(np.clip(depth.yaw[t] - own_yaw, -MOST_YAW, MOST_YAW))
        turn = turn if depth.known.any() and not flip else 0.0
        out.append(Target(points, float(size), turn, bool(flip)))
    return out


def complete(points: Points, rest: Points, scale: float, mirrored: bool) -> Points:
    """One frame's ``points`` [2], with those that are NaN put where the picture's ``rest`` has them
    from the points they hang on. A limb that the picture lacks has its points from the other."""
    flip = np.array([-scale if mirrored else scale, scale])
    out = dict(points)
    if not np.isfinite(out["hips"]).all():
        out["hips"] = out["neck"] + flip * (rest["hips"] - rest["neck"])
    for name, carrier in CARRIERS.items():
        if carrier is None or np.isfinite(out[name]).all():
            continue
        offset = _offset(rest, name, carrier)
        if offset is not None:
            out[name] = out[carrier] + flip * offset
    return out


def _offset(rest: Points, name: str, carrier: str) -> ndarray | None:
    """From ``carrier`` to ``name`` in the picture, [2]; the other side's if it lacks this one."""
    if name in rest and carrier in rest:
        return rest[name] - rest[carrier]
    side, _, part = name.partition("_")
    if side not in SIDES:
        return None
    other = SIDES[1 - SIDES.index(side)]
    swapped, above = f"{other}_{part}", carrier.replace(side, other)
    if swapped in rest and above in rest:
        return (rest[swapped] - rest[above]) * (-1, 1)
    return None
