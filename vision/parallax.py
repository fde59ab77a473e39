"""What one plane leaves over of a camera that walks: near things shift against far ones, along lines through a point.

Plane and parallax (Irani and Anandan 1996; Triggs 2000): a point p of one frame lies in another at H p + depth · e. H
is the homography of the background's main plane, e the epipole, one a pair of frames, and depth belongs to the point: 0
on the plane, and what it is in one frame it is against all others. For any one depth, H + e (0, 0, depth) is again a
homography. So the scene is a stack of planes, and each pixel has to say only which of them it lies on.
"""

from dataclasses import dataclass

import numpy as np

TOLERANCE = 1.0  # px: farther than this from where it should be, a point moves by itself
ROUNDS = 15  # of solving for epipoles and depths in turns
LEFT_OVER = 0.1  # share of sightings that one plane must miss by TOLERANCE before depth is looked for
WORTH = 0.8  # of the plane's cost: depth must explain the sightings that much better, or it is noise
UNSURE = 0.5  # of its last step: how far an epipole is off that goes on as before, where no point tells of it
FAINT = 0.3  # px: a point that parallax has moved by less, over all its sightings, is rather on the plane


@dataclass(frozen=True)
class Sighting:
    """Points of a keyframe found again: ``points`` [N] number them, ``there`` [N, 2] px is where they are in
    ``frame``."""

    key: int
    frame: int
    points: np.ndarray
    there: np.ndarray

    @classmethod
    def of(cls, key: int, frame: int, good: np.ndarray, there: np.ndarray) -> "Sighting":
        """Those of the points ``there`` [N, 2] that are ``good`` [N] bool, in short numbers: all are kept."""
        return cls(key, frame, np.flatnonzero(good).astype(np.int16), there[good].astype(np.float32))


@dataclass(frozen=True)
class Parallax:
    """``epipoles`` [T, 3]: where each frame's camera is, seen from the first frame of its shot. ``points`` and
    ``depths``: for each keyframe [N, 2] px and [N]; NaN where a point's depth is not known."""

    epipoles: np.ndarray
    points: dict[int, np.ndarray]
    depths: dict[int, np.ndarray]


def solve(
    points: dict[int, np.ndarray], sightings: list[Sighting], to_shot: np.ndarray, shot: np.ndarray, size: float
) -> Parallax | None:
    """The Parallax behind ``sightings`` of keyframes' ``points`` [N, 2] px, given the homographies ``to_shot``
    [T, 3, 3] within each ``shot`` [T]; None where one plane is enough. ``size``: the picture's longer side in px."""
    units = np.array([[1 / size, 0, -0.5], [0, 1 / size, -0.5], [0, 0, 1]])  # around 1, for well-conditioned sums
    planes = units @ to_shot @ np.linalg.inv(units)
    rays = {key: (np.column_stack([p, np.ones(len(p))]) @ units.T) for key, p in points.items()}
    pairs = [_Pair(s, rays[s.key][s.points], s.there / size - 0.5, planes, size) for s in sightings]
    missed = np.concatenate([np.linalg.norm(pair.residual, axis=1) for pair in pairs] or [np.zeros(1)]) * size
    if (missed > TOLERANCE).mean() < LEFT_OVER:
        return None
    epipoles = np.zeros((len(to_shot), 3))
    depths = {}
    for key in sorted(points):
        first = int(np.argmax(shot == shot[key]))
        depths[key] = _solve_key([pair for pair in pairs if pair.key == key], len(points[key]), epipoles, first)
    seen = {pair.frame for pair in pairs}
    for frame in range(1, len(to_shot)):
        if frame not in seen and shot[frame] == shot[frame - 1]:  # taken to lie where the frame before it does
            epipoles[frame] = epipoles[frame - 1]
    with_depth = np.concatenate([pair.errors(depths[pair.key][pair.points], epipoles) for pair in pairs]) * size
    if not _cost(with_depth).mean() < WORTH * _cost(missed).mean():
        return None
    return Parallax(epipoles @ np.linalg.inv(units).T, points, depths)


class _Pair:
    """The points of a sighting in one keyframe and one other frame, as equations in depth and epipole.

    With q = H p and the point found at x: depth · (e_xy - x e_z) = q_z (x - q_xy / q_z), two equations a point. Both
    sides are divided by q_z, so that errors are lengths in the picture.
    """

    def __init__(
        self, sighting: Sighting, rays: np.ndarray, there: np.ndarray, planes: np.ndarray, size: float
    ) -> None:
        self.key, self.frame, self.points = sighting.key, sighting.frame, sighting.points
        self.there, self.size = there, size
        self.plane = np.linalg.inv(planes[self.frame]) @ planes[self.key]
        q = rays @ self.plane.T
        self.scale = q[:, 2:]  # [N, 1]
        self.residual = there - q[:, :2] / self.scale  # [N, 2]

    def slope(self, epipoles: np.ndarray) -> np.ndarray:
        """How far [N, 2] a point moves a unit of depth."""
        e = epipoles[self.frame] - self.plane @ epipoles[self.key]
        return (e[:2] - self.there * e[2]) / self.scale

    def errors(self, depths: np.ndarray, epipoles: np.ndarray) -> np.ndarray:
        """How far [N] the points lie from where ``depths`` [N] put them; a point without a depth is on the plane."""
        return np.linalg.norm(self.residual - np.nan_to_num(depths)[:, None] * self.slope(epipoles), axis=1)

    def weights(self, depths: np.ndarray, epipoles: np.ndarray) -> np.ndarray:
        """[N], Geman and McClure's; 0 for a point without a depth."""
        far = (self.errors(depths, epipoles) * self.size / TOLERANCE) ** 2
        return np.where(np.isnan(depths), 0, 1 / (1 + far) ** 2)

    def place(self, depths: np.ndarray, epipoles: np.ndarray, first: int) -> None:
        """Write the frame's epipole, which the keyframe's and ``depths`` [N] give, and faintly the two frames before
        it, of a shot that begins at ``first``: cameras do not jump."""
        weight = self.weights(depths, epipoles)
        d = np.nan_to_num(depths)[:, None] / self.scale
        zero = np.zeros_like(d)
        rows = np.concatenate(
            [np.column_stack([d, zero, -d * self.there[:, :1]]), np.column_stack([zero, d, -d * self.there[:, 1:]])]
        )  # [2N, 3]
        weighted = rows * np.concatenate([weight, weight])[:, None]
        step = epipoles[self.frame - 1] - epipoles[self.frame - 2] if self.frame - 2 >= first else np.zeros(3)
        carried = self.plane @ epipoles[self.key]
        expected = epipoles[self.frame - 1] + step - carried
        hold = (FAINT / self.size) ** 2 / ((UNSURE * step) @ (UNSURE * step) + 1e-6)
        square, right = weighted.T @ rows, weighted.T @ self.residual.T.ravel()
        epipoles[self.frame] = np.linalg.solve(square + (hold + 1e-12) * np.eye(3), right + hold * expected) + carried


def _solve_key(pairs: list[_Pair], count: int, epipoles: np.ndarray, first: int) -> np.ndarray:
    """Depths [count] of a keyframe's points; writes the epipoles of the frames that were followed from it."""
    later = [pair for pair in pairs if pair.frame > pair.key]
    tied = [pair for pair in pairs if pair.frame < pair.key]  # frames whose epipoles are known, so depths have a scale
    depths = _depths(tied, count, epipoles, np.full(count, np.nan))
    if np.isnan(depths).all() and later:
        depths = _first_depths(max(later, key=lambda pair: np.median(np.abs(pair.residual))), count)
    for _ in range(ROUNDS):
        for pair in later:
            pair.place(depths[pair.points], epipoles, first)
        depths = _depths(pairs, count, epipoles, depths)
        if not tied and not np.isnan(depths).all():  # the scale of the first keyframe's depths is free: keep it
            depths /= np.sqrt(np.nanmean(depths**2)) + 1e-12
    return depths


def _first_depths(pair: _Pair, count: int) -> np.ndarray:
    """Depths [count] up to scale, as if all points moved in one direction: a start for _solve_key()."""
    depths = np.full(count, np.nan)
    far = np.linalg.norm(pair.residual, axis=1, keepdims=True)
    limit = np.quantile(far, 0.9) + 1e-12  # a point that moves by itself must not choose the direction
    kept = pair.residual * np.minimum(1, limit / (far + 1e-12))
    direction = np.linalg.eigh(kept.T @ kept)[1][:, -1]
    depths[pair.points] = kept @ direction / limit
    return depths


def _depths(pairs: list[_Pair], count: int, epipoles: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Each point's depth [count] that the ``pairs`` give by least squares, weighted by how well ``before`` fits."""
    across, along = np.zeros(count), np.zeros(count)
    faint = (FAINT / pairs[0].size) ** 2 if pairs else 0
    for pair in pairs:
        slope = pair.slope(epipoles)
        known = before[pair.points]
        weight = np.where(np.isnan(known), 1, pair.weights(known, epipoles))
        np.add.at(across, pair.points, weight * (slope * pair.residual).sum(1))
        np.add.at(along, pair.points, weight * (slope**2).sum(1))
    return np.where(along > 0, across / (along + faint + 1e-12), np.nan)


def _cost(errors: np.ndarray) -> np.ndarray:
    """Geman and McClure's, of ``errors`` in px: 0 … 1."""
    far = (errors / TOLERANCE) ** 2
    return far / (1 + far)
