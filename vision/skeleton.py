"""The body behind a pose: which joint hangs on which, how long its bones are, and how near it is to the camera."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy import ndarray

from .pose import SEEN

HIPS = 18  # the point between the hips, put behind OpenPose's 18 joints; no detector gives it
NECK, LEFT_WRIST, RIGHT_WRIST = 1, 7, 4
HEAD = (0, 14, 15, 16, 17)
LEGS = ((8, 9, 10), (11, 12, 13))  # hip, knee, ankle: right, left

# What each joint hangs on, parents first. The head turns and nods as one piece on the neck.
PARENTS = {HIPS: None, 1: HIPS, 2: 1, 3: 2, 4: 3, 5: 1, 6: 5, 7: 6, 8: HIPS, 9: 8, 10: 9, 11: HIPS, 12: 11, 13: 12}
PARENTS |= dict.fromkeys(HEAD, NECK)

# Bones of one kind, right and left: they share a length. From behind, a head has only its ears.
BONES = {
    "torso": ((HIPS, 1),),
    "shoulders": ((1, 2), (1, 5)),
    "upper arms": ((2, 3), (5, 6)),
    "forearms": ((3, 4), (6, 7)),
    "hips": ((HIPS, 8), (HIPS, 11)),
    "thighs": ((8, 9), (11, 12)),
    "shins": ((9, 10), (12, 13)),
    "head": tuple((1, joint) for joint in HEAD),
}
KINDS = {other: kind for kind, bones in BONES.items() for _, other in bones}

STRETCHED = 90  # percentile of a bone's lengths that counts as unforeshortened, so that a few wild frames do not
NEAREST = 80  # percentile of the bones of a frame that tells how near the body is: most are foreshortened
ROUNDS = 4  # of asking lengths and nearness of each other in turn
STEADY = 0.08  # part of a clip over which nearness is averaged: a camera moves slower than limbs


@dataclass(frozen=True, eq=False)
class Figure:
    """One person through T frames. ``keypoints`` [T, 18, 3]: x px, y px, confidence, as in a PoseTrack; lengths are
    measured as near as the person is in frame ``start``."""

    keypoints: ndarray
    start: int = 0

    @cached_property
    def seen(self) -> ndarray:
        """[T, 19] bool: joints to count with; the point between the hips where both are."""
        seen = self.keypoints[..., 2] >= SEEN
        return np.concatenate([seen, seen[:, [8]] & seen[:, [11]]], axis=1)

    @cached_property
    def ever(self) -> ndarray:
        """[19] bool: joints seen in some frame."""
        return self.seen.any(axis=0)

    @cached_property
    def parents(self) -> dict[int, int | None]:
        """The nearest joint of the tree above each that this clip ever shows, parents first; None for the root.

        Joints that are never seen have a parent too: what is given with too little confidence hangs on it.
        """
        found, root = {}, None
        for joint, parent in PARENTS.items():
            while parent is not None and not self.ever[parent]:
                parent = PARENTS[parent]
            if parent is None and self.ever[joint] and root is None:
                root = joint
            found[joint] = root if parent is None and joint != root else parent
        return found

    @cached_property
    def points(self) -> ndarray:
        """[T, 19, 2] px without gaps: a joint that is missing keeps its place on its parent, or moves evenly from
        where it was seen last to where it is seen next. NaN for joints that are never seen."""
        raw = np.concatenate([self.keypoints[..., :2], self.keypoints[:, [8, 11], :2].mean(axis=1, keepdims=True)], 1)
        carriers = {joint: parent for joint, parent in self.parents.items() if self.ever[joint]}
        if self.ever[HIPS] and self.ever[NECK] and self.seen[:, NECK].sum() > self.seen[:, HIPS].sum():
            carriers = {NECK: None, HIPS: NECK} | {k: v for k, v in carriers.items() if k not in (NECK, HIPS)}
        points, every = np.full(raw.shape, np.nan), np.arange(len(raw))
        for joint, carrier in carriers.items():
            at = 0.0 if carrier is None else points[:, carrier]
            offset, frames = raw[:, joint] - at, np.flatnonzero(self.seen[:, joint])
            points[:, joint] = np.stack([np.interp(every, frames, offset[frames, axis]) for axis in (0, 1)], 1) + at
        return points

    @cached_property
    def lengths(self) -> dict[str, ndarray]:
        """By kind of bone, [T, bones] px as they appear in each frame; NaN where an end is not seen."""
        return {kind: np.linalg.norm(vectors, axis=-1) for kind, vectors in self.vectors.items()}

    @cached_property
    def vectors(self) -> dict[str, ndarray]:
        """By kind of bone, [T, bones, 2] px from one end to the other; NaN where an end is not seen."""
        points = np.where(self.seen[..., None], self.points, np.nan)
        return {
            kind: np.stack([points[:, other] - points[:, one] for one, other in bones], axis=1)
            for kind, bones in BONES.items()
        }

    @cached_property
    def nearness(self) -> ndarray:
        """[T] how large the body appears for its distance and the camera's zoom, 1 in frame ``start``.

        A bone appears at most as long as it is. So its true length is about the longest that it appears in any frame,
        and a frame's nearness is about the most that any of its bones reaches of its own true length.
        """
        bones = np.concatenate([self.lengths[kind] for kind in BONES], axis=1)  # [T, bones]
        bones = bones[:, ~np.isnan(bones).all(axis=0)]
        near, frames = np.ones(len(bones)), np.flatnonzero(~np.isnan(bones).all(axis=1))
        for _ in range(ROUNDS if len(frames) else 0):
            true = np.nanpercentile(bones / near[:, None], STRETCHED, axis=0)
            share = np.nanpercentile(bones[frames] / np.maximum(true, 1e-9), NEAREST, axis=1)
            near = _steady(np.exp(np.interp(np.arange(len(bones)), frames, np.log(np.maximum(share, 1e-3)))))
        return near / near[self.start]

    @cached_property
    def rest(self) -> dict[str, ndarray]:
        """By kind of bone, [bones] px without foreshortening, as near as in frame ``start``; NaN where never seen."""
        rest = {}
        for kind, lengths in self.lengths.items():
            lengths = lengths / self.nearness[:, None]
            there = ~np.isnan(lengths)
            rest[kind] = np.array(
                [
                    np.percentile(bone[known], STRETCHED) if known.any() else np.nan
                    for bone, known in zip(lengths.T, there.T)
                ]
            )
        return rest


def _steady(values: ndarray) -> ndarray:
    """Average ``values`` [T] over time with a bell that is narrower than the clip; ends are held."""
    width = STEADY * len(values)
    reach = int(3 * width) + 1
    bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(width, 1e-6)) ** 2)
    return np.convolve(np.pad(values, reach, mode="edge"), bell / bell.sum(), mode="valid")
