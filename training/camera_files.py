"""Cameras of real videos, from text files: the format of RealEstate10K, and the one in which HumanVid was released.

RealEstate10K: first a line with the video's address, then one line a frame: timestamp, fx fy cx cy as shares of the
picture's width and height, two zeros, and the twelve numbers of [R | t], world to camera, row by row.

HumanVid (its README, "Camera Trajectory Format"): one line a frame: timestamp, tx ty tz and qx qy qz qw of the camera
in the world, as TUM's format has them, and in some files fx fy, as shares of width and height, and a scale.
"""

from pathlib import Path

import numpy as np
import torch

from ..vision.geometry import Cameras
from .videos import Fit

REAL_ESTATE, TUM, TUM_WITH_LENS = 19, 8, 11  # numbers in a line
HUMANVID_FOCAL = 0.688  # of the picture's longer side: what HumanVid's training takes where a file does not say
LEAST_TURN = 1e-2  # of RᵀR from 1: more is no rotation, but a file read wrongly


class WrongCameras(ValueError):
    """A camera file that does not fit its video; why, in one line."""


def read(path: Path, width: int, height: int) -> Cameras:
    """The cameras [N] in ``path`` for a video of ``width``×``height`` px, as it is shown.

    Raises WrongCameras, naming file and line, for anything that is not one of the two formats.
    """
    rows = _rows(path)
    columns = rows.shape[1]
    if columns == REAL_ESTATE:
        focal, centre, pose = rows[:, 1:3] * [width, height], rows[:, 3:5], rows[:, 7:].reshape(-1, 3, 4)
        rotation, translation = pose[..., :3], pose[..., 3]
    else:
        # Pixels are square, and the longer side's focal length is the one that was estimated.
        share = rows[:, 8 if width > height else 9] if columns == TUM_WITH_LENS else np.full(len(rows), HUMANVID_FOCAL)
        focal, centre = (share * max(width, height))[:, None].repeat(2, 1), np.full((len(rows), 2), 0.5)
        rotation = _rotations(rows[:, 4:8]).transpose(0, 2, 1)  # camera to world -> world to camera
        translation = -np.einsum("nij,nj->ni", rotation, rows[:, 1:4])
    intrinsics = np.tile(np.eye(3), (len(rows), 1, 1))
    intrinsics[:, [0, 1], [0, 1]] = focal
    intrinsics[:, :2, 2] = centre * [width, height]
    off = np.abs(rotation.transpose(0, 2, 1) @ rotation - np.eye(3)).max((1, 2))
    for wrong, what in ((off > LEAST_TURN, "rotation"), ((focal <= 0).any(1), "focal length")):
        if wrong.any():
            raise WrongCameras(f"{path}: camera {int(np.flatnonzero(wrong)[0]) + 1} has no valid {what}")
    return Cameras(*(torch.from_numpy(np.ascontiguousarray(part)) for part in (intrinsics, rotation, translation)))


def fitted(cameras: Cameras, fit: Fit, width: int, height: int) -> Cameras:
    """The cameras of a video of ``width``×``height`` px after ``fit``."""
    left, top = fit.crop[:2]
    change = torch.tensor(
        [[fit.width / width, 0, -left], [0, fit.height / height, -top], [0, 0, 1]], dtype=torch.float64
    )
    return Cameras(change @ cameras.intrinsics, cameras.rotation, cameras.translation)


def check_count(cameras: Cameras, path: Path, frames: int) -> None:
    """Raise WrongCameras unless there is one camera for each frame of the file."""
    count = len(cameras.translation)
    if count != frames:
        raise WrongCameras(f"{path}: there are {count} lines with cameras, and the video has {frames} frames")


def _rows(path: Path) -> np.ndarray:
    """The numbers in ``path`` [N, columns]; a first line that holds no numbers (an address) is passed over."""
    rows = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = [float(word) for word in line.split()]
        except ValueError:
            if number == 1:
                continue
            raise WrongCameras(f"{path}: line {number} holds something that is no number") from None
        if len(row) not in (REAL_ESTATE, TUM, TUM_WITH_LENS) or (rows and len(row) != len(rows[0])):
            raise WrongCameras(
                f"{path}: line {number} has {len(row)} numbers; a camera has {REAL_ESTATE} (RealEstate10K), or {TUM} "
                f"or {TUM_WITH_LENS} (HumanVid), in all lines alike"
            )
        rows.append(row)
    if not rows:
        raise WrongCameras(f"{path}: there are no cameras in it")
    rows = np.array(rows)
    if not np.isfinite(rows).all():
        raise WrongCameras(f"{path}: camera {int(np.argwhere(~np.isfinite(rows))[0, 0]) + 1} is not finite")
    return rows


def _rotations(quaternions: np.ndarray) -> np.ndarray:
    """[N, 4] (x, y, z, w) -> [N, 3, 3]; of length 0 -> no rotation, which the check of the result finds."""
    length = np.linalg.norm(quaternions, axis=1, keepdims=True)
    x, y, z, w = (quaternions / np.where(length > 0, length, 1)).T
    rows = [
        [w * w + x * x - y * y - z * z, 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), w * w - x * x + y * y - z * z, 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), w * w - x * x - y * y + z * z],
    ]
    return np.moveaxis(np.array(rows), 2, 0)
