"""Poses as pictures, in the style of DWPose."""

import colorsys
import math
from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np
import torch
from torch import Tensor

from .pose import SEEN, PoseTrack

# The drawing of DWPose, whose colours and sizes the pose models were trained on: pixels at a short side of 512.
SHORT_SIDE = 512
STICK, JOINT, FACE_POINT, FINGER = 4, 4, 3, 2
LIMB_BRIGHTNESS = 0.6
LIMBS = [(1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13), (1, 0)]
LIMBS += [(0, 14), (14, 16), (0, 15), (15, 17)]
COLOURS = [(255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0)]
COLOURS += [(0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255)]
COLOURS += [(170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85)]
FINGERS = [bone for root in range(1, 21, 4) for bone in pairwise((0, *range(root, root + 4)))]


def draw(track: PoseTrack, width: int, height: int, progress: Callable[[int], None] | None = None) -> Tensor:
    """The track as pictures [T, height, width, 3] in 0…1, in the style of DWPose; what is missing is not drawn.

    Another size than the track's own stretches the pose as a picture would be. ``progress`` is called with the number
    of frames done, and may raise to stop.
    """
    arrays = track.resized(width, height).arrays
    scale = min(width, height) / SHORT_SIDE
    frames = torch.empty(len(track.keypoints), height, width, 3)
    for index in range(len(frames)):
        canvas = np.zeros((height, width, 3), np.uint8)
        for person in range(track.keypoints.shape[1]):
            _draw_body(canvas, arrays["keypoints"][index, person], scale)
            for hand in arrays["hands"][index, person] if "hands" in arrays else ():
                _draw_hand(canvas, hand, scale)
            if "face" in arrays:
                _draw_points(canvas, arrays["face"][index, person], FACE_POINT * scale, [(255, 255, 255)] * 70)
        torch.div(torch.from_numpy(canvas), 255, out=frames[index])
        if progress:
            progress(index + 1)
    return frames


def _draw_body(canvas: np.ndarray, joints: np.ndarray, scale: float) -> None:
    """Limbs as ellipses, then joints as discs: ``draw_bodypose`` of DWPose, but that its 4 px grow with the canvas."""
    stick = _pixels(STICK * scale)
    for (one, other), colour in zip(LIMBS, COLOURS):
        if min(joints[one, 2], joints[other, 2]) < SEEN:
            continue
        (x1, y1), (x2, y2) = joints[one, :2], joints[other, :2]
        middle = int((x1 + x2) / 2), int((y1 + y2) / 2)
        half, angle = int(math.hypot(x1 - x2, y1 - y2) / 2), int(math.degrees(math.atan2(y1 - y2, x1 - x2)))
        ellipse = cv2.ellipse2Poly(middle, (half, stick), angle, 0, 360, 1)
        cv2.fillConvexPoly(canvas, ellipse, [int(value * LIMB_BRIGHTNESS) for value in colour])
    _draw_points(canvas, joints, JOINT * scale, COLOURS)


def _draw_hand(canvas: np.ndarray, points: np.ndarray, scale: float) -> None:
    """``draw_handpose`` of DWPose: bones in the colours of the rainbow, points in blue."""
    for index, (one, other) in enumerate(FINGERS):
        if min(points[one, 2], points[other, 2]) >= SEEN:
            colour = [255 * value for value in colorsys.hsv_to_rgb(index / len(FINGERS), 1, 1)]
            ends = points[[one, other], :2].astype(int).tolist()
            cv2.line(canvas, *ends, colour, _pixels(FINGER * scale))
    _draw_points(canvas, points, JOINT * scale, [(0, 0, 255)] * len(points))


def _draw_points(canvas: np.ndarray, points: np.ndarray, radius: float, colours: list[tuple]) -> None:
    for (x, y, confidence), colour in zip(points, colours):
        if confidence >= SEEN:
            cv2.circle(canvas, (int(x), int(y)), _pixels(radius), colour, thickness=-1)


def _pixels(size: float) -> int:
    return max(1, round(size))
