"""How tracks move a whole picture: one homography a frame for the camera, and a smooth remainder for what has depth.

The homography is as rich as the points allow (a shift from one point, a similarity from two, an affinity from six, a
perspective from twelve). The remainder is a weighted mean of what the homography leaves at the points nearby, which
fades to nothing where there are none: no choice of few points can fold the picture.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from .alignment import project
from .camera_path import CameraPath
from .tracks import Tracks

AFFINE, PERSPECTIVE = 6, 12  # points from which the camera may also shear, and also tilt
TOLERANCE = 2.0  # px at 960 px of width: farther from the camera's motion a point lies at another depth
REACH = 0.15  # of the picture's diagonal: how far around a point its remainder is felt
FAINT = 0.05  # weight of "nothing" against the points'
WILD = 0.08  # of the diagonal: a remainder beyond this is a point that went astray
FADE = 9  # frames over which a point's remainder comes and goes, so that nothing jumps
GRID = 20  # cells of the remainder across the longer side


@dataclass(frozen=True, eq=False)
class Motion:
    """How a picture of ``width``×``height`` px moves in T frames: ``homographies`` [T, 3, 3] from pixels of frame 0 to
    those of frame t, and then by ``remainder`` [T, h, w, 2] px, a coarse grid over frame t (None: nothing). ``held``
    [T]: nothing told how this frame moved, and it stands as the one before."""

    homographies: np.ndarray
    width: int
    height: int
    held: np.ndarray
    remainder: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.homographies)


def of_camera(path: CameraPath, width: int, height: int) -> Motion:
    """The motion of a camera path, for a picture of ``width``×``height`` px."""
    path = path.resized(width, height)
    return Motion(path.homographies, width, height, np.zeros(len(path), bool))


def of_tracks(tracks: Tracks) -> Motion:
    """The motion of the picture that the ``tracks`` (of known size) are of."""
    homographies, homes, held = _follow(tracks)
    return Motion(homographies, tracks.width, tracks.height, held, _remainder(tracks, homographies, homes))


def _follow(tracks: Tracks) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Homographies [T, 3, 3] from frame 0, where each point lies in frame 0 [N, 2] (for one that comes later: where it
    would lie), and the frames [T] that nothing told about."""
    count, number = tracks.visible.shape
    homographies = np.tile(np.eye(3), (count, 1, 1))
    homes, known = np.zeros((number, 2)), np.zeros(number, bool)
    held = np.zeros(count, bool)
    tolerance = TOLERANCE * max(tracks.width, tracks.height) / 960
    for t in range(count):
        places = tracks.path[t].astype(np.float64)
        use = tracks.visible[t] & known
        if t:
            homographies[t] = _fit(homes[use], places[use], homographies[t - 1], tolerance)
            held[t] = not use.any()
        new = tracks.visible[t] & ~known
        back = project(np.linalg.inv(homographies[t]), places[new])
        homes[new], known[new] = np.nan_to_num(back), np.isfinite(back).all(axis=1)
    return homographies, homes, held


def _fit(homes: np.ndarray, places: np.ndarray, before: np.ndarray, tolerance: float) -> np.ndarray:
    """The homography that takes most of ``homes`` to ``places`` [N, 2]; ``before`` is that of the frame before."""
    fit = None
    options = {"ransacReprojThreshold": tolerance}
    if len(homes) >= PERSPECTIVE:
        fit = cv2.findHomography(homes, places, cv2.RANSAC, **options)[0]
    if fit is None and len(homes) >= AFFINE:
        fit = cv2.estimateAffine2D(homes, places, **options)[0]
    if fit is None and len(homes) >= 2:
        fit = cv2.estimateAffinePartial2D(homes, places, **options)[0]
    if fit is not None:
        fit = np.vstack([fit, [0, 0, 1]])[:3]
        if np.linalg.det(fit[:2, :2]) > 0.05:  # else the points lie on a line or went astray: it would fold the picture
            return fit / fit[2, 2]
    if not len(homes):
        return before
    shift = np.eye(3)
    shift[:2, 2] = np.nan_to_num(np.median(places - project(before, homes), axis=0))
    return shift @ before


def _remainder(tracks: Tracks, homographies: np.ndarray, homes: np.ndarray) -> np.ndarray:
    """What the homographies leave, on a grid over each frame: [T, h, w, 2] px."""
    diagonal = float(np.hypot(tracks.width, tracks.height))
    carried = np.stack([np.nan_to_num(project(homography, homes)) for homography in homographies])  # [T, N, 2]
    left = tracks.path - carried
    sure = tracks.visible & (np.linalg.norm(left, axis=-1) < WILD * diagonal)
    left = _hold(left, sure)
    weight = cv2.blur(sure.astype(np.float32), (1, FADE), borderType=cv2.BORDER_REPLICATE).reshape(sure.shape)
    cells = np.array([tracks.height, tracks.width]) * GRID / max(tracks.width, tracks.height)
    rows, columns = np.maximum(np.rint(cells).astype(int), 2)
    y, x = np.meshgrid(
        (np.arange(rows) + 0.5) * tracks.height / rows,
        (np.arange(columns) + 0.5) * tracks.width / columns,
        indexing="ij",
    )
    nodes = np.stack([x.ravel(), y.ravel()], axis=1)  # [h w, 2]
    out = np.empty((len(tracks), rows, columns, 2), np.float32)
    for t in range(len(tracks)):
        apart = np.linalg.norm(nodes[:, None] - (carried[t] + left[t])[None], axis=-1)  # [h w, N]
        near = weight[t] * np.exp(-0.5 * (apart / (REACH * diagonal)) ** 2)
        out[t] = (near @ left[t] / (near.sum(axis=1, keepdims=True) + FAINT)).reshape(rows, columns, 2)
    return out


def _hold(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """``values`` [T, N, 2] with the last known one (before the first: the first) wherever they are not ``known``."""
    times = np.arange(len(values))[:, None]
    last = np.maximum.accumulate(np.where(known, times, -1), axis=0)
    first = np.where(known.any(axis=0), known.argmax(axis=0), 0)
    held = np.take_along_axis(values, np.where(last < 0, first, last)[..., None], axis=0)
    return np.where(known.any(axis=0)[None, :, None], held, 0)
