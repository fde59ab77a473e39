"""Where in a picture people are: BlazePose's detector on the whole picture, on tiles of it, or around one place."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
import torch

from .blazepose import DetectorNetwork
from .region import Region

DETECTED = 0.5
OVERLAP = 0.3  # detections that share more than this are one person
# A person must be about a fifth as tall as the picture that the detector is given. So tiles have a half of the
# picture's longer side, then a quarter and so on; as they overlap by half, who fits into half a tile is whole in one.
SMALLEST_TILE = 128  # px: people 30 px tall; the landmarks of smaller ones are guesses


class Found(NamedTuple):
    """A person that the detector found: the region around the body, and how clear it is in 0…1."""

    region: Region
    score: float


class PersonDetector:
    """Finds people in pictures [H, W, 3] in 0…1."""

    def __init__(self, network: DetectorNetwork) -> None:
        self.network = network
        self.device = next(network.parameters()).device
        self.anchors = anchors()

    def whole(self, frame: np.ndarray) -> list[Found]:
        """People in ``frame`` as large as a fifth of it, the clearest first."""
        return self._detect(frame)

    def inside(self, frame: np.ndarray, left: int, top: int, side: int) -> list[Found]:
        """People in the square of ``side`` px at (``left``, ``top``) of ``frame``, the clearest first."""
        rows, columns = (slice(max(0, start), max(0, start + side)) for start in (top, left))
        crop = np.ascontiguousarray(frame[rows, columns])
        if not crop.size:
            return []
        corner = columns.start, rows.start
        return [Found(found.region.moved(*corner), found.score) for found in self._detect(crop)]

    def around(self, frame: np.ndarray, region: Region) -> list[Found]:
        """People near ``region``, where somebody of its size was; nobody where the whole picture shows as much."""
        side = round(2 * region.size)
        if 2 * side > max(frame.shape[:2]):
            return []
        return self.inside(frame, round(region.x - side / 2), round(region.y - side / 2), side)

    def in_tiles(
        self, frame: np.ndarray, wanted: int, smallest: float = 0.0, check: Callable[[], None] | None = None
    ) -> list[Found]:
        """Small people: tiles are made smaller, to no less than ``smallest`` px, until at least ``wanted`` people are
        found; the clearest first.

        ``check`` is called before each tile, of which a large picture has thousands, and may raise to stop.
        """
        people: list[Found] = []
        for squares in tilings(*frame.shape[:2], max(smallest, SMALLEST_TILE)):
            for square in squares:
                if check is not None:
                    check()
                people += self.inside(frame, *square)
            people = distinct(people)
            if len(people) >= wanted:
                break
        return people

    def _detect(self, frame: np.ndarray) -> list[Found]:
        height, width = frame.shape[:2]
        size = self.network.SIZE
        with torch.inference_mode():
            picture = torch.from_numpy(letterbox(frame, size) * 2 - 1)[None].permute(0, 3, 1, 2).to(self.device)
            scores, boxes = self.network(picture)
        scores = scores[0].sigmoid().cpu().numpy()
        points = boxes[0].cpu().numpy().reshape(-1, 6, 2)  # [2254, (center, size, 4 points), (x, y)]
        points[:, [0, 2, 3, 4, 5]] += self.anchors[:, None]
        scale = max(height, width) / size
        offset = np.array([width, height]) / 2 - size / 2 * scale
        return [Found(Region.around(*(points[2:4] * scale + offset)), score) for score, points in merge(scores, points)]


def tilings(height: int, width: int, smallest: float) -> Iterator[list[tuple[int, int, int]]]:
    """Squares (left, top, side) that cover a picture and overlap by half, each list with smaller ones, down to sides of
    ``smallest`` px."""
    side = -(-max(height, width) // 2)
    while side >= smallest:
        columns, rows = (_starts(length, side) for length in (width, height))
        yield [(left, top, side) for top in rows for left in columns]
        side //= 2


def _starts(length: int, side: int) -> list[int]:
    """Where squares of ``side`` begin, so that they cover ``length`` evenly."""
    count = 1 + -(-max(0, length - side) // (side // 2))
    return np.linspace(0, max(0, length - side), count).round().astype(int).tolist()


def distinct(people: list[Found]) -> list[Found]:
    """``people`` without those whom a clearer one repeats: the tiles overlap."""
    kept: list[Found] = []
    for found in sorted(people, key=lambda found: -found.score):
        if not any(same_place(found.region, other.region) for other in kept):
            kept.append(found)
    return kept


def same_place(one: Region, other: Region) -> bool:
    """Whether two regions are about one body: centers nearer than a sixth of the larger one's side."""
    return np.hypot(one.x - other.x, one.y - other.y) < max(one.size, other.size) / 6


def letterbox(frame: np.ndarray, size: int) -> np.ndarray:
    """``frame`` [H, W, 3] shrunk into the middle of a black square [size, size, 3]."""
    height, width = frame.shape[:2]
    scale = size / max(height, width)
    small = cv2.resize(
        frame, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA
    )
    square = np.zeros((size, size, 3), np.float32)
    top, left = (size - small.shape[0]) // 2, (size - small.shape[1]) // 2
    square[top : top + small.shape[0], left : left + small.shape[1]] = small
    return square


def anchors() -> np.ndarray:
    """Centers [2254, 2] px of the detector's anchors: 2 a place at strides 8 and 16, 6 at stride 32."""
    centers = []
    for stride, repeats in ((8, 2), (16, 2), (32, 6)):
        steps = np.arange(stride / 2, DetectorNetwork.SIZE, stride, dtype=np.float32)
        grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)  # row by row, (x, y)
        centers.append(grid.repeat(repeats, axis=0))
    return np.concatenate(centers)


def merge(scores: np.ndarray, points: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """Weighted non-maximum suppression: scores and detections [6, 2] (center, size, 4 points), the clearest first.

    From ``scores`` [N] in 0…1 and ``points`` [N, 6, 2]: each is the mean, by score, of all that overlap it.
    """
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= DETECTED]
    merged = []
    while len(order):
        same = _overlap(points[order[0]], points[order]) > OVERLAP
        same[0] = True
        group = order[same]
        merged.append((float(scores[order[0]]), np.average(points[group], axis=0, weights=scores[group])))
        order = order[~same]
    return merged


def _overlap(one: np.ndarray, many: np.ndarray) -> np.ndarray:
    """Intersection over union of box ``one`` [6, 2] with ``many`` [N, 6, 2] -> [N]."""
    low = np.maximum(one[0] - one[1] / 2, many[:, 0] - many[:, 1] / 2)
    high = np.minimum(one[0] + one[1] / 2, many[:, 0] + many[:, 1] / 2)
    inside = np.maximum(high - low, 0).prod(axis=1)
    return inside / (one[1].prod() + many[:, 1].prod(axis=1) - inside)
