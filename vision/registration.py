"""Where one picture lies in another that may have been made long after it, with no path of frames between them.

register(picture, frame, hidden=None, hidden_frame=None) -> homography [3, 3] or None
Place(picture, hidden=None).find(frame, hidden_frame=None)      the same, for many frames of one picture
"""

from functools import cached_property

import cv2
import numpy as np
from numpy import ndarray
from torch import Tensor

from . import alignment
from .alignment import FEWEST_POINTS, TOLERANCE, WORKING_SIZE, displacement

FEATURES = 1500
FAINT = 0.01  # contrast of a feature: generated frames are softer than photographs
DISTINCT = 0.8  # a match is believed where the second best is farther by so much (Lowe 2004, section 7.1)
LARGEST = 4.0  # times: what zooms or shrinks the picture by more is a wrong answer


def register(
    picture: Tensor, frame: Tensor, hidden: ndarray | None = None, hidden_frame: ndarray | None = None
) -> ndarray | None:
    """Homography [3, 3] from pixels (x, y, 1) of ``picture`` to those of ``frame``, both [H, W, 3] in 0…1 of one size,
    by the points outside ``hidden`` and ``hidden_frame`` [H, W] (nonzero: not background). None where too few agree.

    Features (SIFT) find a place however far away, Lucas-Kanade then measures it to a tenth of a pixel; where the
    pictures are too soft for the one, the other may do alone.
    """
    return Place(picture, hidden).find(frame, hidden_frame)


class Place:
    """A picture with its features, which are found once. See `register`."""

    def __init__(self, picture: Tensor, hidden: ndarray | None = None) -> None:
        self.picture = picture
        self.hidden = _mask(hidden, picture)

    def find(self, frame: Tensor, hidden_frame: ndarray | None = None) -> ndarray | None:
        hidden_frame = _mask(hidden_frame, frame)
        far = _by_features(self.features, _features(frame, hidden_frame), self.picture.shape[:2])
        guess = np.eye(3) if far is None else far
        near = alignment.match(self.picture, frame, self.hidden, hidden_frame, guess)
        return far if near is None else near

    @cached_property
    def features(self) -> tuple[ndarray, ndarray]:
        return _features(self.picture, self.hidden)


def _mask(hidden: ndarray | None, picture: Tensor) -> ndarray:
    return np.zeros(picture.shape[:2], bool) if hidden is None else hidden


def _by_features(
    found: tuple[ndarray, ndarray], found_there: tuple[ndarray, ndarray], size: tuple[int, int]
) -> ndarray | None:
    (points, looks), (points_there, looks_there) = found, found_there
    if min(len(points), len(points_there)) < FEWEST_POINTS:
        return None
    pairs = cv2.BFMatcher().knnMatch(looks, looks_there, k=2)
    pairs = [best for best, second in pairs if best.distance < DISTINCT * second.distance]
    if len(pairs) < FEWEST_POINTS:
        return None
    source = points[[pair.queryIdx for pair in pairs]]
    target = points_there[[pair.trainIdx for pair in pairs]]
    homography, agree = cv2.findHomography(source, target, cv2.USAC_MAGSAC, TOLERANCE, maxIters=5000)
    if homography is None or agree.sum() < max(FEWEST_POINTS, 0.3 * len(pairs)):
        return None
    return homography if _sane(homography, size) else None


def _features(image: Tensor, hidden: ndarray) -> tuple[ndarray, ndarray]:
    """Points [N, 2] px of the full-size image, and their descriptors [N, 128]."""
    scale = min(1.0, WORKING_SIZE / max(image.shape[:2]))
    grey = cv2.cvtColor(image[..., :3].float().clamp(0, 1).cpu().numpy(), cv2.COLOR_RGB2GRAY)
    clear = (np.asarray(hidden) == 0).astype(np.uint8)
    if scale < 1:
        size = tuple(round(side * scale) for side in reversed(grey.shape))
        grey, clear = (
            cv2.resize(part, size, interpolation=method)
            for part, method in ((grey, cv2.INTER_AREA), (clear, cv2.INTER_NEAREST))
        )
    detector = cv2.SIFT_create(nfeatures=FEATURES, contrastThreshold=FAINT)
    points, looks = detector.detectAndCompute(np.rint(grey * 255).astype(np.uint8), clear)
    return (np.array([point.pt for point in points]).reshape(-1, 2) + 0.5) / scale - 0.5, looks


def _sane(homography: ndarray, size: tuple[int, int]) -> bool:
    """Neither folded, nor mirrored, nor of another size altogether."""
    zoom = np.linalg.det(homography[:2, :2]) / homography[2, 2] ** 2
    moved = displacement(homography, size)
    return 1 / LARGEST**2 < zoom < LARGEST**2 and bool((moved < LARGEST * max(size)).all())
