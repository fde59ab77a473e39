"""Points of the background, followed through a video past the people in front of it.

A first pass over the video finds how the camera moves (alignment.py: pyramidal Lucas-Kanade, forward and backward, and
a robust homography). The second, here, follows each point on its own: the camera says about where the point is and how
its surroundings are turned and scaled there, and Lucas-Kanade measures what is left against the picture that the point
had when it was chosen. So errors do not add up from frame to frame, and a point is known again after somebody walked
by.

Within this file points count from the first pixel's centre, as in alignment.py and OpenCV; tracks and camera paths
count from the picture's corner.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np
from torch import Tensor

from . import patches
from .alignment import Alignment, align, project
from .camera_path import CameraPath
from .mask import INSIDE, fit_mask, grow_frame
from .patches import WINDOW, Patch
from .tracks import Tracks

FEWEST, MOST, DEFAULT = 5, 50, 24  # points; Liu et al., section 3.2, draw "from 5 to 50 points for each training video"
GROW = 8  # px: motion blur and the mask's own errors reach this far
AROUND = (WINDOW // 2 | 1,) * 2  # px in which texture is measured
TEXTURE = 3.0  # (grey levels / px)²: the weaker direction's gradient; camera noise of 2 levels alone makes about 1
APART = 0.35  # of the distance at which evenly spread points would lie: nearer than this two points tell the same
SEED_EVERY = 8  # frames between two searches for new points
LOST = 5  # frames in view without being found: the point is given up
SHORTEST = 4  # frames: what cannot be followed even so long was noise
STANDS = 1.0  # px: a point that leaves its place by more, while the camera stands, is part of something that moves
CALM = 1.5  # frames: the sigma over which a point's own deviation from the camera is smoothed
TELLS = 6  # points that are seen, from which what they do together in one frame is told from the noise of each
AGREES = 1.0  # px: a step this near to the camera's speaks for it

Progress = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class Tracked:
    """What track_background() found: the ``tracks``, the ``camera`` (certain where many points agree with it), frames
    that follow a ``cuts``, ``still``: the camera stands, and which of the placed points were ``lost``: hidden, too near
    the edge, without texture, or not found again."""

    tracks: Tracks
    camera: CameraPath
    cuts: tuple[int, ...]
    still: bool
    lost: tuple[int, ...] = ()


def track_background(
    frames: Tensor,
    mask: Tensor | None = None,
    points: int = DEFAULT,
    reseed: bool = True,
    grow: int = GROW,
    progress: Progress | None = None,
    placed: np.ndarray | None = None,
) -> Tracked:
    """Follow ``points`` points at a time through ``frames`` [T, H, W, 3 or 4] in 0…1, outside ``mask`` [T, H, W] (or
    one for all) and ``grow`` px around it. With ``reseed`` others take the place of those that leave; without, only
    points of the first frame are followed. ``progress`` is called with the number of steps done, of 2 T.
    ``placed`` [N, 2] px: where the points of the first frame are to be, and as many as there are to be at a time.

    A background without texture gives no points (N = 0). Raises ValueError where there is one frame only, the mask does
    not fit or covers everything, or the number of points is out of range.
    """
    if len(frames) < 2:
        raise ValueError("images: there is only one frame, and motion needs two. Wire the video, not a picture of it.")
    if not FEWEST <= points <= MOST:
        raise ValueError(f"points is {points}; choose {FEWEST} to {MOST}.")
    hidden = _Hidden(frames, mask, grow)
    report = progress or (lambda done: None)
    alignment = align(frames[..., :3], hidden, report)
    followed = _Points(alignment, points, reseed, placed)
    for t, frame in enumerate(frames):
        followed.add(t, _grey(frame), hidden[t])
        report(len(frames) + t + 1)
    return followed.tracked()


class _Hidden:
    """What is no background in a frame, [H, W] bool, made when it is asked for: kept for a whole film it would need
    more memory than all else."""

    def __init__(self, frames: Tensor, mask: Tensor | None, grow: int) -> None:
        self.size = tuple(frames.shape[1:3])
        self.mask = None if mask is None else fit_mask(mask, frames)
        self.grow = grow
        if self.mask is not None and all(bool(self._person(t).all()) for t in range(len(frames))):
            raise ValueError(
                "mask: it covers every frame completely, so that there is no background to track. Check that the mask "
                "is not inverted."
            )

    def __getitem__(self, t: int) -> np.ndarray:
        if self.mask is None:
            return np.zeros(self.size, bool)
        return grow_frame(self._person(t), self.grow)

    def _person(self, t: int) -> np.ndarray:
        return self.mask[t].float().cpu().numpy() > INSIDE  # several times as fast as torch's


def _grey(frame: Tensor) -> np.ndarray:
    """A frame [H, W, C] as grey levels 0…255, [H, W] float32."""
    return cv2.cvtColor(np.ascontiguousarray(frame[..., :3].float().cpu().numpy()), cv2.COLOR_RGB2GRAY) * 255


@dataclass
class _Point:
    """One point: where it was ``born``, its ``patch`` from there; ``place`` [2] px in the frame last seen to, and where
    it was found, by frame. ``number``: of a placed one."""

    born: int
    home: np.ndarray
    patch: Patch
    place: np.ndarray
    found: dict[int, np.ndarray] = field(default_factory=dict)
    missed: int = 0
    number: int | None = None


class _Points:
    """The points of a video so far; ``here`` are those that are still looked for."""

    def __init__(self, alignment: Alignment, number: int, reseed: bool, placed: np.ndarray | None = None) -> None:
        self.alignment = alignment
        self.placed = None if placed is None else placed - 0.5  # from the picture's corner to pixel centres
        self.number = number if placed is None else len(placed)
        self.reseed = reseed
        self.all: list[_Point] = []
        self.here: list[_Point] = []
        self.seeded = 0

    def add(self, t: int, grey: np.ndarray, hidden: np.ndarray) -> None:
        """Follow the points to frame ``t``, given as ``grey`` [H, W] float32 and ``hidden`` [H, W] bool."""
        open_to_view = _open_to_view(hidden)
        cut = t > 0 and self.alignment.shot[t] != self.alignment.shot[t - 1]
        if cut:
            self.here = []
        if self.here:
            self._follow(t, grey, open_to_view)
        seen = sum(t in point.found for point in self.here)
        due = t - self.seeded >= SEED_EVERY or 2 * seen < self.number
        if t == 0 and self.placed is not None:
            self._plant(grey, open_to_view)
        elif t == 0 or (self.reseed and seen < self.number and (cut or due)):
            self._seed(t, grey, open_to_view)
            self.seeded = t

    def _follow(self, t: int, grey: np.ndarray, open_to_view: np.ndarray) -> None:
        places = project(self.alignment.between(t, t - 1), np.stack([point.place for point in self.here]))
        for point, place in zip(self.here, places):
            point.place = place
        shapes = self._shapes(t)
        looked_for = np.flatnonzero(_at(places, open_to_view))
        if len(looked_for):
            points = [self.here[i] for i in looked_for]
            kept = [point.patch for point in points]
            shifts, good = patches.match(kept, grey, places[looked_for], shapes[looked_for])
            for point, shift, found, shape in zip(points, shifts, good, shapes[looked_for]):
                point.missed = 0 if found else point.missed + 1
                if found:
                    point.place = point.place + shape @ shift
                    point.found[t] = point.place
        self.here = [point for point in self.here if point.missed < LOST and np.isfinite(point.place).all()]

    def _shapes(self, t: int) -> np.ndarray:
        """How the surroundings [2, 2] of each point are turned and scaled in frame ``t``, as the camera has it."""
        moves = self.alignment.between(t, np.array([point.born for point in self.here]))  # [N, 3, 3]
        homes = np.stack([[*point.home, 1.0] for point in self.here])
        there = np.einsum("nij,nj->ni", moves, homes)
        depth = there[:, 2, None, None]
        return (moves[:, :2, :2] - there[:, :2, None] / depth * moves[:, 2:, :2]) / depth

    def _seed(self, t: int, grey: np.ndarray, open_to_view: np.ndarray) -> None:
        """New points in frame ``t``, as far from those that are seen, and from one another, as there is texture."""
        seen = [point.place for point in self.here if t in point.found]
        nearest = APART * np.sqrt(np.count_nonzero(open_to_view) / self.number)
        for place in _spread(_corners(grey, open_to_view), seen, self.number, nearest):
            self._begin(t, grey, place)

    def _plant(self, grey: np.ndarray, open_to_view: np.ndarray) -> None:
        """The placed points in the first frame, where there is something to know them by."""
        good = _at(self.placed, open_to_view & (_texture(grey) >= TEXTURE))
        for number in np.flatnonzero(good):
            self._begin(0, grey, self.placed[number], int(number))

    def _begin(self, t: int, grey: np.ndarray, place: np.ndarray, number: int | None = None) -> None:
        point = _Point(t, place, patches.cut(grey, place), place, {t: place}, number=number)
        self.here.append(point)
        self.all.append(point)

    def tracked(self) -> Tracked:
        height, width = self.alignment.size
        shortest = min(SHORTEST, len(self.alignment.shot))
        points = [point for point in self.all if len(point.found) >= shortest]
        if self.alignment.still:
            points = [point for point in points if _stands(point)]
        path = np.zeros((len(self.alignment.shot), len(points), 2))
        visible = np.zeros(path.shape[:2], bool)
        every = np.arange(len(path))
        steps = {before: self.alignment.between(every, np.clip(every + before, 0, every[-1])) for before in (-1, 1)}
        for n, point in enumerate(points):
            visible[list(point.found), n] = True
            path[:, n] = self._whole(point, steps)
        if points and not self.alignment.still:
            path = _calmed(path, visible, self._carried(points))
        tracks = Tracks(np.float32(path + 0.5), visible, width, height)
        camera = _camera(self.alignment, tracks)
        wanted = range(0 if self.placed is None else len(self.placed))
        lost = set(wanted) - {point.number for point in points}
        return Tracked(tracks, camera, self.alignment.cuts, self.alignment.still, tuple(sorted(lost)))

    def _carried(self, points: list[_Point]) -> np.ndarray:
        """Where the camera alone carries ``points`` from where they were born: [T, N, 2], as far as their shots go."""
        out = np.zeros((len(self.alignment.shot), len(points), 2))
        for n, point in enumerate(points):
            times = np.flatnonzero(self.alignment.shot == self.alignment.shot[point.born])
            out[times, n] = np.nan_to_num(project(self.alignment.between(times, point.born), point.home[None])[:, 0])
        return out

    def _whole(self, point: _Point, steps: dict[int, np.ndarray]) -> np.ndarray:
        """Where a point is in every frame [T, 2]: where it was found, else where the camera carries it from the last
        (before its birth: the next) frame in which it was. ``steps`` [T, 3, 3]: to each frame from the one -1 before,
        and from the one 1 after."""
        shot = self.alignment.shot
        out = np.empty((len(shot), 2))
        out[point.born] = point.home
        for times, before in ((range(point.born + 1, len(shot)), -1), (range(point.born - 1, -1, -1), 1)):
            for t in times:
                if t in point.found:
                    out[t] = point.found[t]
                    continue
                out[t] = out[t + before]
                if shot[t] == shot[t + before]:
                    moved = project(steps[before][t], out[t][None])[0]
                    out[t] = moved if np.isfinite(moved).all() else out[t]
        return out


def _stands(point: _Point) -> bool:
    """Whether ``point`` keeps its place, as the background of a camera that stands does. If so it is put there for
    good: all that is left is noise."""
    places = np.stack(list(point.found.values()))
    place = np.median(places, axis=0)
    if np.linalg.norm(places - place, axis=1).max() > STANDS:
        return False
    point.home = place
    point.found = dict.fromkeys(point.found, place)
    return True


def _open_to_view(hidden: np.ndarray) -> np.ndarray:
    """Where [H, W] a window shows nothing but background: within the picture, and clear of what is ``hidden``."""
    margin = WINDOW // 2
    out = cv2.dilate(hidden.astype(np.uint8), np.ones((WINDOW, WINDOW), np.uint8)) == 0
    out[:margin] = out[-margin:] = False
    out[:, :margin] = out[:, -margin:] = False
    return out


def _at(places: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """What ``picture`` [H, W] bool says [N] at ``places`` [N, 2]; False outside of it."""
    height, width = picture.shape
    x, y = np.rint(np.nan_to_num(places, nan=-1)).T
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    inside[inside] = picture[y[inside].astype(int), x[inside].astype(int)]
    return inside


def _corners(grey: np.ndarray, open_to_view: np.ndarray) -> np.ndarray:
    """Places [N, 2] with texture in both directions where [H, W] ``open_to_view``, best first."""
    weaker = _texture(grey)
    peak = open_to_view & (weaker >= TEXTURE) & (weaker >= cv2.dilate(weaker, np.ones(AROUND, np.uint8)))
    y, x = np.nonzero(peak)
    best = np.argsort(-weaker[y, x], kind="stable")
    return np.stack([x, y], axis=1)[best].astype(np.float64)


def _texture(grey: np.ndarray) -> np.ndarray:
    """How much there is to see around each pixel [H, W] in the direction in which there is less, as TEXTURE counts."""
    smooth = cv2.GaussianBlur(grey, (0, 0), 1.0)
    dx, dy = (cv2.Sobel(smooth, cv2.CV_32F, *order, ksize=3, scale=1 / 8) for order in ((1, 0), (0, 1)))
    xx, yy, xy = (cv2.boxFilter(product, -1, AROUND) for product in (dx * dx, dy * dy, dx * dy))
    return (xx + yy) / 2 - np.sqrt(((xx - yy) / 2) ** 2 + xy * xy)


def _spread(candidates: np.ndarray, seen: list[np.ndarray], number: int, nearest: float) -> list[np.ndarray]:
    """Those of ``candidates`` [N, 2], best first, that bring ``seen`` up to ``number`` places: each time the one that
    lies farthest from all others, as long as that is farther than ``nearest`` px."""
    chosen: list[np.ndarray] = []
    distance = np.full(len(candidates), np.inf)
    for place in seen:
        distance = np.minimum(distance, np.linalg.norm(candidates - place, axis=1))
    while len(candidates) and len(seen) + len(chosen) < number:
        best = int(distance.argmax())  # the first of equals: the best texture
        if distance[best] < nearest:
            break
        chosen.append(candidates[best])
        distance = np.minimum(distance, np.linalg.norm(candidates - candidates[best], axis=1))
    return chosen


def _calmed(path: np.ndarray, visible: np.ndarray, carried: np.ndarray) -> np.ndarray:
    """``path`` [T, N, 2] with less noise where ``visible``. How far a point lies from where the camera alone has
    ``carried`` it changes slowly, unless the camera's own estimate trembles, and then it does so for all alike."""
    off = np.where(visible[..., None], path - carried, 0)
    slow = _local_line(off, visible)
    out = path.copy()
    for t, seen in enumerate(visible):
        if seen.sum() < TELLS:
            continue
        around = np.column_stack([carried[t, seen] - carried[t, seen].mean(axis=0), np.ones(seen.sum())])
        quick = np.clip(off[t, seen] - slow[t, seen], -1, 1)
        together = around @ np.linalg.lstsq(around, quick, rcond=None)[0]
        out[t, seen] = carried[t, seen] + slow[t, seen] + together
    return out


def _local_line(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """``values`` [T, N, 2] smoothed over time by lines through those that are ``known`` [T, N] nearby: unlike a mean,
    they leave a steady change as it is up to the ends."""
    reach = int(np.ceil(3 * CALM))
    lag = np.arange(-reach, reach + 1)
    near = np.exp(-0.5 * (lag / CALM) ** 2)

    def total(weight: np.ndarray, series: np.ndarray) -> np.ndarray:
        kernel = (weight * near)[:, None]
        return cv2.filter2D(np.float64(series), -1, kernel, borderType=cv2.BORDER_CONSTANT)

    ones, lags, squares = (total(lag**power, known) for power in (0, 1, 2))
    spread = ones * squares - lags**2
    lined = spread > 1e-6
    out = np.empty(values.shape)
    for axis in range(2):
        mean, slope = (total(lag**power, values[..., axis]) for power in (0, 1))
        line = (squares * mean - lags * slope) / np.where(lined, spread, 1)
        out[..., axis] = np.where(lined, line, mean / np.maximum(ones, 1e-9))
    return out


def _camera(alignment: Alignment, tracks: Tracks) -> CameraPath:
    """The camera's path from ``alignment``; how far each step is to be trusted is told by the points that took it. A
    cut counts as standing, there is nothing that moves across it, and so does a shot in which no point was seen."""
    count = len(alignment.shot)
    paths, sure = np.tile(np.eye(3), (count, 1, 1)), np.ones(count)
    corner = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # from pixel centres to the picture's corner
    for t in range(1, count):
        paths[t], sure[t] = paths[t - 1], 0.0
        shot = alignment.shot == alignment.shot[t]
        if not shot[t - 1] or not tracks.visible[shot].any():
            continue
        step = corner @ alignment.between(t, t - 1) @ np.linalg.inv(corner)
        paths[t] = step @ paths[t - 1]
        paths[t] /= paths[t][2, 2]
        both = tracks.visible[t] & tracks.visible[t - 1]
        if both.any():
            off = np.linalg.norm(project(step, tracks.path[t - 1, both]) - tracks.path[t, both], axis=1)
            sure[t] = (off < AGREES).mean() * min(1.0, both.sum() / FEWEST)
    return CameraPath(paths, tracks.width, tracks.height, sure)
