"""Points of a background that a camera path carries through a shot, as tracks."""

from collections.abc import Callable

import cv2
import numpy as np

from .camera_path import CameraPath
from .pose import SEEN, PoseTrack
from .tracks import Tracks

DEFAULT, FEWEST, MOST = 30, 4, 400  # points at a time
MARGIN = 0.08  # of a body's size around its joints: flesh, hair and clothes
CROWDED = 0.6  # of the distance between neighbours: a new point keeps so far from the others

Progress = Callable[[int], None]


def carry_points(
    path: CameraPath, pose: PoseTrack, points: int, reseed: bool, progress: Progress | None = None
) -> Tracks:
    """About ``points`` points spread over each of T frames, moved as the background is.

    A point is visible while it is in the frame and not behind a person of ``pose``. With ``reseed`` new points appear
    where the camera uncovers more of the place; else all are visible in the first frame. ``progress`` is called with
    the number of frames done.
    """
    cells, spacing = _grid(path.width, path.height, points)
    bodies = [_outlines(pose, frame) for frame in range(len(path))]
    first = cells[~_covered(cells, bodies[0])]
    ways = path.carry(first)  # [T, N, 2]
    for frame in range(1, len(path)):
        empty = cells[_empty(cells, ways[frame], CROWDED * spacing)] if reseed else cells[:0]
        if len(empty):
            back = CameraPath(
                path.homographies @ np.linalg.inv(path.homographies[frame]), path.width, path.height, path.confidence
            )
            ways = np.concatenate([ways, back.carry(empty)], axis=1)
        if progress:
            progress(frame + 1)
    visible = (ways >= 0).all(-1) & (ways < [path.width, path.height]).all(-1)
    for frame, outlines in enumerate(bodies):
        visible[frame] &= ~_covered(ways[frame], outlines)
    return Tracks(ways.astype(np.float32), visible, path.width, path.height)


def _grid(width: int, height: int, points: int) -> tuple[np.ndarray, float]:
    """The middles [N, 2] of about ``points`` squares that fill the frame, and their side in px."""
    side = np.sqrt(width * height / points)
    columns, rows = max(1, round(width / side)), max(1, round(height / side))
    x, y = (np.arange(columns) + 0.5) * width / columns, (np.arange(rows) + 0.5) * height / rows
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2), side


def _empty(cells: np.ndarray, points: np.ndarray, distance: float) -> np.ndarray:
    """[N] bool: which ``cells`` [N, 2] have no point [M, 2] within ``distance``."""
    if not len(points):
        return np.ones(len(cells), bool)
    return (np.linalg.norm(cells[:, None] - points, axis=-1) > distance).all(axis=1)


def _outlines(pose: PoseTrack, frame: int) -> list[tuple[np.ndarray, float]]:
    """The convex outline [M, 1, 2] around the joints of everybody in a frame, and the margin around it in px."""
    outlines = []
    for joints in pose.keypoints[frame]:
        seen = joints[joints[:, 2] >= SEEN, :2].astype(np.float32)
        if len(seen):
            margin = MARGIN * float(np.linalg.norm(np.ptp(seen, axis=0)))
            outlines.append((cv2.convexHull(seen), max(margin, 1.0)))
    return outlines


def _covered(points: np.ndarray, outlines: list[tuple[np.ndarray, float]]) -> np.ndarray:
    """[N] bool: which points [N, 2] px are behind somebody."""
    return np.array(
        [
            any(cv2.pointPolygonTest(outline, (float(x), float(y)), True) > -margin for outline, margin in outlines)
            for x, y in points
        ],
        bool,
    )
