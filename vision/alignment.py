"""Where each frame of a video lies against the others: homographies, from points of the background alone.

A homography is exact for a camera that turns or zooms in place and for a flat background; for a camera that walks
through a room it follows the surface that holds most points, and ``parallax`` says how the rest moves against it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from torch import Tensor

from . import parallax
from .parallax import Parallax, Sighting

WORKING_SIZE = 960  # px, the longer side: points are found to about 0.05 px there, more pixels only cost time
POINTS = 300
FEWEST_POINTS = 12  # below this a homography through points with a few wrong ones is a guess
WINDOW = 21  # px of the Lucas-Kanade window
TOLERANCE = 2.0  # px: farther than this from where the camera says, a point moves by itself, or lies at another depth
ROUNDS = 10  # of reweighting the points, at most
SETTLED = 1e-3  # px: a round that changes no point by more was the last
SMOOTH = 0.002  # of the points' weight: how strongly the camera is held where there are no points
STANDS = 0.6  # px: a camera that never leaves its first place by more than this stands on a tripod
SAME = 0.1  # px: two frames nearer than this are taken as they are, resampling would cost more than it mends
FAR = 0.2  # of the picture's shorter side: a new keyframe is due,
TIED = 4  # keyframes that a new one is compared with
KEPT = 0.5  # and also when less than this share of its points is still there


@dataclass(frozen=True)
class Alignment:
    """Where the frames of a video lie.

    ``to_shot`` [T, 3, 3] takes pixels (x, y, 1) of a frame to the plane of its shot's first frame; ``shot`` [T] numbers
    the shots: frames on two sides of a cut cannot be compared. ``blind`` and ``cuts`` list the frames that could not
    be followed (too little background in view; they are taken to lie where the frame before them does), and the first
    frames after a cut. ``still``: the camera stands, and every homography is the identity.
    """

    to_shot: np.ndarray
    shot: np.ndarray
    size: tuple[int, int]  # height, width
    still: bool
    blind: tuple[int, ...] = ()
    cuts: tuple[int, ...] = ()
    parallax: Parallax | None = None

    def between(self, source: int | np.ndarray, target: int | np.ndarray) -> np.ndarray:
        """Homography from pixels of frame ``target`` to pixels of frame ``source``, [3, 3], or [S, 3, 3] where
        either is an array of S frames, or both are."""
        return np.linalg.inv(self.to_shot[source]) @ self.to_shot[target]

    def epipole(self, source: int | np.ndarray, target: int) -> np.ndarray:
        """[3], or [S, 3] for S frames: a pixel p of frame ``target`` with a depth lies at between(source, target) p +
        depth · epipole in frame ``source``. 0 where there is no parallax."""
        if self.parallax is None:
            return np.zeros((*np.shape(source), 3))
        return self.parallax.epipoles[source] - self.between(source, target) @ self.parallax.epipoles[target]

    def place(self, sources: np.ndarray, target: int, points: np.ndarray, depths: np.ndarray) -> np.ndarray:
        """Where [S, P, 2] ``points`` [P, 2] of frame ``target``, at ``depths`` [P], are in the frames ``sources`` [S];
        NaN behind the camera."""
        rays = np.column_stack([points, np.ones(len(points))])
        there = rays @ np.swapaxes(self.between(sources, target), 1, 2)  # [S, P, 3]
        there += depths[:, None] * self.epipole(sources, target)[:, None]
        return there[..., :2] / np.where(there[..., 2:] > 1e-6, there[..., 2:], np.nan)

    def depths(self, target: int) -> tuple[np.ndarray, np.ndarray]:
        """Points [N, 2] px of frame ``target`` and their depths [N], of all keyframes of its shot."""
        points, depths = [np.zeros((0, 2))], [np.zeros(0)]
        for key, known in (self.parallax.depths if self.parallax else {}).items():
            if self.shot[key] != self.shot[target]:
                continue
            kept = np.isfinite(known)
            p, d = np.column_stack([self.parallax.points[key][kept], np.ones(kept.sum())]), known[kept]
            there = p @ self.between(target, key).T + d[:, None] * self.epipole(target, key)
            front = there[:, 2] > 1e-6
            points.append(there[front, :2] / there[front, 2:])
            depths.append(d[front] / there[front, 2])
        return np.concatenate(points), np.concatenate(depths)

    def same_place(self, source: int, target: int) -> bool:
        """Whether the camera is at one place in both frames, so that pixels need no resampling. With parallax that is
        not asked: two places may see the plane alike, and what is before it otherwise."""
        if self.still or self.parallax is not None:
            return self.still
        return float(displacement(self.between(source, target), self.size).max()) < SAME

    def motion(self) -> float:
        """How far the camera moves the picture, in px a frame, on average."""
        moves = [
            displacement(self.between(t, t + 1), self.size).mean()
            for t in range(len(self.shot) - 1)
            if self.shot[t] == self.shot[t + 1]
        ]
        return float(np.mean(moves)) if moves else 0.0


def displacement(homography: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """How far [25] px ``homography`` [3, 3] moves a grid of points over a picture of ``size`` (height, width)."""
    points = _grid(size)
    return np.linalg.norm(project(homography, points) - points, axis=1)


def _grid(size: tuple[int, int]) -> np.ndarray:
    """5×5 points [25, 2] (x, y) over a picture of ``size`` (height, width), corners included."""
    y, x = np.meshgrid(*(np.linspace(0, side - 1, 5) for side in size), indexing="ij")
    return np.stack([x.ravel(), y.ravel()], 1)


def project(homography: np.ndarray, points: np.ndarray) -> np.ndarray:
    """``points`` [P, 2] through ``homography`` [..., 3, 3] -> [..., P, 2]; points behind the camera become NaN."""
    moved = np.concatenate([points, np.ones((len(points), 1))], 1) @ np.swapaxes(homography, -1, -2)  # [..., P, 3]
    depth = np.where(moved[..., 2:] > 1e-6, moved[..., 2:], np.nan)
    return moved[..., :2] / depth


def align(frames: Tensor, hidden: np.ndarray, progress: Callable[[int], None] | None = None) -> Alignment:
    """Follow the camera through ``frames`` [T, H, W, 3] by points outside ``hidden`` [T, H, W] (nonzero: not
    background). ``progress`` is called with the number of frames done."""
    path = _Path(size=frames.shape[1:3])
    for t, frame in enumerate(frames):
        path.add(t, *_working_view(frame, hidden[t]))
        if progress is not None:
            progress(t + 1)
    return path.alignment()


def match(
    source: Tensor, target: Tensor, hidden_source: np.ndarray, hidden_target: np.ndarray, guess: np.ndarray
) -> np.ndarray | None:
    """Homography [3, 3] from pixels of one picture [H, W, 3] to those of another of the same size, searched near
    ``guess`` by points outside the ``hidden`` masks [H, W]; None where they do not agree on one."""
    views = (
        _View(i, *_working_view(*pair)) for i, pair in enumerate(((source, hidden_source), (target, hidden_target)))
    )
    return _homography(*views, guess, 0.0, tuple(source.shape[:2]))[0]


def _working_view(frame: Tensor, hidden: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Grey picture and background (uint8, 1 where points may be) of a frame at working size, and its scale."""
    height, width = frame.shape[:2]
    scale = min(1.0, WORKING_SIZE / max(height, width))
    grey = cv2.cvtColor(frame.float().cpu().numpy()[..., :3], cv2.COLOR_RGB2GRAY)
    size = (round(width * scale), round(height * scale))
    person = (hidden > 0).astype(np.uint8)
    if scale < 1:
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        person = (cv2.resize(person * 255, size, interpolation=cv2.INTER_AREA) > 0).astype(np.uint8)
    # A point's window must not reach into the person, or the person drags it along.
    person = cv2.dilate(person, np.ones((WINDOW // 2, WINDOW // 2), np.uint8))
    return cv2.convertScaleAbs(grey, alpha=255), 1 - person, scale


@dataclass
class _View:
    """A frame at working size: ``grey`` and ``background`` [h, w] uint8."""

    index: int
    grey: np.ndarray
    background: np.ndarray
    scale: float

    @cached_property
    def points(self) -> np.ndarray:
        """[N, 2] in the view's own pixels; looked for when they are asked for, which most frames' never are."""
        apart = max(4.0, max(self.grey.shape) / 60)  # spread over the picture, not all on one rich texture
        found = cv2.goodFeaturesToTrack(self.grey, POINTS, 0.003, apart, mask=self.background, blockSize=5)
        return np.zeros((0, 2), np.float32) if found is None else found.reshape(-1, 2)

    def full_size(self, points: np.ndarray) -> np.ndarray:
        """Working pixels as pixels of the frame (their centres scale, not their corners)."""
        return (points + 0.5) / self.scale - 0.5


class _Path:
    """The camera's path so far. Points are followed from a keyframe straight to each frame, so that their errors do not
    add up from frame to frame; a new keyframe is taken when the camera has gone far or most points are lost."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = tuple(size)
        self.to_shot: list[np.ndarray] = []
        self.shot: list[int] = []
        self.blind: list[int] = []
        self.cuts: list[int] = []
        self.key: _View | None = None
        self.shift = np.zeros((0, 2))  # [N, 2] px: how far the keyframe's points lie from the plane in the last frame
        self.last: _View | None = None
        self.keys: dict[int, np.ndarray] = {}  # the points of each keyframe, px
        self.views: list[_View] = []  # the last keyframes of the shot
        self.sightings: list[Sighting] = []

    def add(self, index: int, grey: np.ndarray, background: np.ndarray, scale: float) -> None:
        view = _View(index, grey, background, scale)
        if not self.to_shot:
            self._place(view, np.eye(3), 0)
            self._take_key(view)
            if len(view.points) < FEWEST_POINTS:
                self.blind.append(index)
            return
        step = self._follow(view)
        if step is not None:
            self._place(view, self.to_shot[self.key.index] @ np.linalg.inv(step), self.shot[-1])
            return
        place, shot = self.to_shot[-1], self.shot[-1]
        if min(len(view.points), len(self.key.points)) < FEWEST_POINTS:
            self.blind.append(index)
        else:
            self.cuts.append(index)
            self.views.clear()
            place, shot = np.eye(3), shot + 1
        self._place(view, place, shot)
        if len(view.points) >= FEWEST_POINTS:
            self._take_key(view)

    def _take_key(self, view: _View) -> None:
        """Follow from ``view`` from now on. Its points are looked for in the keyframes before it, too, which gives
        their depths the same scale."""
        self.key = view
        self.shift = np.zeros((len(view.points), 2))
        self.keys[view.index] = view.full_size(view.points)
        for before in self.views:
            good, there = _track(view, before, np.linalg.inv(self.to_shot[before.index]) @ self.to_shot[view.index])
            self.sightings.append(Sighting.of(view.index, before.index, good, there))
        self.views = [*self.views, view][-TIED:]

    def _place(self, view: _View, to_shot: np.ndarray, shot: int) -> None:
        self.to_shot.append(to_shot)
        self.shot.append(shot)
        self.last = view

    def _follow(self, view: _View) -> np.ndarray | None:
        """Homography from the keyframe's pixels to ``view``'s; None where there is none. May move the keyframe on to
        the frame before, which shows the same places when the keyframe no longer does."""
        far = None
        for key in (self.key, self.last):
            guess = np.linalg.inv(self.to_shot[self.last.index]) @ self.to_shot[key.index]
            shift = self.shift if key is self.key else np.zeros((len(key.points), 2))
            homography, kept, sighting = _homography(key, view, guess, shift, self.size)
            if homography is None:
                continue
            if key is self.key and (kept < KEPT or displacement(homography, self.size).mean() > FAR * min(self.size)):
                far = homography, sighting
                continue
            if key is not self.key:
                self._take_key(key)
            return self._found(homography, sighting)
        return None if far is None else self._found(*far)

    def _found(self, homography: np.ndarray, sighting: Sighting) -> np.ndarray:
        self.sightings.append(sighting)
        there = project(homography, self.key.full_size(self.key.points[sighting.points]))
        self.shift[sighting.points] = sighting.there - there
        return homography

    def alignment(self) -> Alignment:
        to_shot, shot = np.stack(self.to_shot), np.array(self.shot)
        still = not self.cuts and all(displacement(place, self.size).max() < STANDS for place in to_shot)
        if still:
            to_shot = np.broadcast_to(np.eye(3), to_shot.shape)
        depth = None if still else parallax.solve(self.keys, self.sightings, to_shot, shot, max(self.size))
        return Alignment(to_shot, shot, self.size, still, tuple(self.blind), tuple(self.cuts), depth)


def _homography(
    key: _View, view: _View, guess: np.ndarray, shift: np.ndarray | float, size: tuple[int, int]
) -> tuple[np.ndarray | None, float, Sighting | None]:
    """Homography [3, 3] in full-size pixels from ``key`` to ``view``, the share of the keyframe's points that follow
    it, and all points that were found; (None, 0, None) where the points do not agree on one."""
    good, there = _track(key, view, guess, shift)
    if good.sum() < FEWEST_POINTS:
        return None, 0.0, None
    homography, errors = _fit(key.full_size(key.points[good]), there[good], guess, size)
    inliers = int((errors < TOLERANCE).sum())
    # A picture that leaves itself altogether, or folds, is a wrong answer to points that moved at random.
    sane = displacement(homography, size).max() < max(size) and np.linalg.det(homography) > 0.05
    if inliers < max(FEWEST_POINTS, 0.3 * good.sum()) or not sane:
        return None, 0.0, None
    return homography, inliers / len(key.points), Sighting.of(key.index, view.index, good, there)


def _track(
    key: _View, view: _View, guess: np.ndarray, shift: np.ndarray | float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Which [N] of the points of ``key`` are found on the background of ``view``, and where [N, 2] px, searched from
    where ``guess`` [3, 3] puts them, and ``shift`` [N, 2] px beside."""
    if len(key.points) < FEWEST_POINTS:
        return np.zeros(len(key.points), bool), np.zeros((len(key.points), 2))
    expected = (project(guess, key.full_size(key.points)) + shift + 0.5) * view.scale - 0.5
    start = np.where(np.isfinite(expected), expected, key.points).astype(np.float32)
    seen = _as_bright(key, view, start)
    options = {"winSize": (WINDOW, WINDOW), "maxLevel": 3, "flags": cv2.OPTFLOW_USE_INITIAL_FLOW}
    there, found, _ = cv2.calcOpticalFlowPyrLK(key.grey, seen, key.points, start.copy(), **options)
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(seen, key.grey, there, key.points.copy(), **options)
    good = (found.ravel() > 0) & (found_back.ravel() > 0) & (np.linalg.norm(back - key.points, axis=1) < 0.5)
    x, y = np.rint(np.nan_to_num(there, nan=-1)).astype(int).T
    height, width = view.background.shape
    good &= (x >= 0) & (y >= 0) & (x < width) & (y < height)
    good[good] &= view.background[y[good], x[good]] > 0
    return good, view.full_size(there)


def _as_bright(key: _View, view: _View, expected: np.ndarray) -> np.ndarray:
    """The picture of ``view`` as bright as that of ``key``, by the key's points and where they are ``expected`` [N, 2]:
    Lucas-Kanade would follow a change of light."""
    height, width = view.grey.shape
    x, y = np.rint(expected).astype(int).T
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    if inside.sum() < FEWEST_POINTS:
        return view.grey
    at_key = np.rint(key.points[inside]).astype(int)
    changes = key.grey[at_key[:, 1], at_key[:, 0]].astype(int) - view.grey[y[inside], x[inside]]
    change = np.median(changes)
    sure = 5 * np.median(np.abs(changes - change)) / np.sqrt(len(changes))  # a guess that is off is no change of light
    if abs(change) <= max(1, sure):
        return view.grey
    return np.clip(view.grey + np.rint(change), 0, 255).astype(np.uint8)


def _fit(
    source: np.ndarray, target: np.ndarray, guess: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The homography from ``source`` to ``target`` [N, 2] px that most points follow, and the error [N] of each.

    Starts from ``guess``, where the camera was last, and stays with the same points as long as another choice explains
    them no better: where a scene has depth, each surface has its own answer, and changing between them from frame to
    frame shakes the picture. A grid over the picture of ``size`` holds on to the guess, too weakly to matter where
    there are points.
    """
    grid = _grid(size)
    pairs = _Pairs(np.concatenate([source, grid]), np.concatenate([target, project(guess, grid)]))
    share = np.concatenate([np.full(len(source), 1 / len(source)), np.full(len(grid), SMOOTH / len(grid))])
    best, least = guess, np.inf
    for start in (guess, cv2.findHomography(source, target, cv2.RANSAC, TOLERANCE)[0]):
        if start is not None:
            homography, cost = _reweighted(pairs, share, start, len(source))
            if cost < 0.95 * least:
                best, least = homography, cost
    return best, _errors(best, source, target)


def _reweighted(pairs: "_Pairs", share: np.ndarray, start: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """The homography that most of the first ``count`` pairs follow, searched from ``start``, and its cost in 0…1."""
    homography, errors = start, _errors(start, pairs.source, pairs.target)
    for _ in range(ROUNDS):
        far = (errors / TOLERANCE) ** 2
        homography = pairs.homography(share / (1 + far) ** 2)  # Geman and McClure's weights
        before, errors = errors, _errors(homography, pairs.source, pairs.target)
        if np.abs(errors - before).max() < SETTLED:
            break
    far = (errors[:count] / TOLERANCE) ** 2
    return homography, float((far / (1 + far)).mean())


def _errors(homography: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """How far [N] px ``source`` [N, 2] comes out from ``target``; far away where it is behind the camera."""
    return np.nan_to_num(np.linalg.norm(project(homography, source) - target, axis=1), nan=1e6)


class _Pairs:
    """Points ``source`` and ``target`` [N, 2] px, made ready for the normalised direct linear transform."""

    def __init__(self, source: np.ndarray, target: np.ndarray) -> None:
        self.source, self.target = source, target
        (p, self.to_p), (q, to_q) = _normalised(source), _normalised(target)
        p, zero = np.column_stack([p, np.ones(len(p))]), np.zeros((len(p), 3))
        self.from_q = np.linalg.inv(to_q)
        self.rows = np.concatenate(
            [np.column_stack([p, zero, -q[:, :1] * p]), np.column_stack([zero, p, -q[:, 1:] * p])]
        )  # [2N, 9]

    def homography(self, weight: np.ndarray) -> np.ndarray:
        """The homography [3, 3] from source to target, by ``weight`` [N]."""
        square = self.rows.T @ (self.rows * np.concatenate([weight, weight])[:, None])
        homography = self.from_q @ np.linalg.eigh(square)[1][:, 0].reshape(3, 3) @ self.to_p
        return homography / homography[2, 2]


def _normalised(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``points`` [N, 2] around 0 with spread 1, and the map [3, 3] that brought them there."""
    center = points.mean(axis=0)
    scale = 1 / (np.abs(points - center).mean() + 1e-9)
    return (points - center) * scale, np.array(
        [[scale, 0, -scale * center[0]], [0, scale, -scale * center[1]], [0, 0, 1]]
    )
