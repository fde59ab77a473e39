"""The driver's pose on the character's body and on the draft's canvas."""

from dataclasses import dataclass, replace

import numpy as np
from numpy import ndarray

from .. import retarget as bodies
from ..camera_path import CameraPath
from ..pose import PoseTrack
from ..proportions import Proportions, compare
from ..skeleton import Figure


@dataclass(frozen=True, eq=False)
class FittedPose:
    """``track``: one person's pose on the character's body, on the driver's canvas. ``scale`` [T]:
    how many px of it are one px of the character's picture. ``proportions`` of the two bodies."""

    track: PoseTrack
    scale: ndarray
    proportions: Proportions


def fit_pose(driver: PoseTrack, picture: PoseTrack, retarget: bool) -> FittedPose:
    """Put the one person of ``driver`` on the body of the one in ``picture``, as tall as the
    driver is; without ``retarget`` the pose stays as it is and only its scale is read.

    Raises ValueError, naming the socket ``driving`` or ``reference``, where either shows nobody.
    """
    start = bodies.clearest_frame(driver)
    figure = Figure(driver.keypoints[:, 0], start)
    if retarget:
        done = bodies.retarget(driver, picture, size="driving")
        track, found = done.pose, done.cast[0].proportions
    else:
        shown = picture.keypoints[[bodies.clearest_frame(picture)], 0]
        track, found = driver, compare(figure, Figure(shown))
    return FittedPose(track, figure.nearness / found.height, found)


def canvas_matrix(before: tuple[int, int], after: tuple[int, int]) -> ndarray:
    """[3, 3] from pixels of a canvas (width, height) to those of another: both have one height,
    and their middles meet."""
    scale = after[1] / before[1]
    shift = (after[0] - scale * before[0]) / 2
    return np.array([[scale, 0.0, shift], [0.0, scale, 0.0], [0.0, 0.0, 1.0]])


def place_pose(track: PoseTrack, size: tuple[int, int]) -> PoseTrack:
    """``track`` on a canvas of ``size`` (width, height), without stretching anybody."""
    matrix = canvas_matrix((track.width, track.height), size)
    arrays = {}
    for field, array in track.arrays.items():
        moved = array.copy()
        moved[..., :2] = array[..., :2] * matrix[0, 0] + matrix[:2, 2]
        moved[..., 3:] = array[..., 3:] * matrix[0, 0]
        arrays[field] = np.where(array[..., 2:3] > 0, moved, array)
    return replace(track, width=size[0], height=size[1], **arrays)


def place_path(path: CameraPath, size: tuple[int, int]) -> CameraPath:
    """``path`` on a canvas of ``size`` (width, height), placed as `place_pose` places the pose."""
    matrix = canvas_matrix((path.width, path.height), size)
    return CameraPath(
        matrix @ path.homographies @ np.linalg.inv(matrix), size[0], size[1], path.confidence
    )
