"""Poses as pictures: as pose models know them (DWPose), or plain for people to read, on black or over the video."""

import colorsys
import math
from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np
import torch
from torch import Tensor

from .pose import SEEN, PoseTrack

SHORT_SIDE = 512  # sizes below are pixels where the short side of the canvas is as long as this

# The drawing of DWPose, whose colours and sizes the pose models were trained on.
STICK, JOINT, FACE_POINT, FINGER = 4, 4, 3, 2
LIMB_BRIGHTNESS = 0.6
LIMBS = [(1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13), (1, 0)]
LIMBS += [(0, 14), (14, 16), (0, 15), (15, 17)]
COLOURS = [(255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0)]
COLOURS += [(0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255)]
COLOURS += [(170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85)]
FINGERS = [bone for root in range(1, 21, 4) for bone in pairwise((0, *range(root, root + 4)))]
LANDMARKS = 68  # of a face; OpenPose's last two are the pupils, which DWPose draws as joints of the body only

# The plain drawing: a side of the body is a colour, and the less sure a limb is, the darker.
PLAIN_STICK, PLAIN_JOINT, PLAIN_FINGER, PLAIN_FACE_POINT = 4.0, 3.0, 1.5, 1.0
MIDDLE, RIGHT, LEFT, JOINTS, UNSURE = (230, 230, 230), (255, 140, 50), (70, 170, 255), (255, 255, 255), (130, 130, 130)
DARKEST = 0.35  # of a limb just sure enough to count
# Feet are big toe, small toe and heel, left and then right; the 18 joints of the body come before them here.
FEET = [(13, 20), (20, 18), (20, 19), (10, 23), (23, 21), (23, 22)]
SIDES = dict.fromkeys((2, 3, 4, 8, 9, 10, 14, 16, 21, 22, 23), RIGHT)
SIDES |= dict.fromkeys((5, 6, 7, 11, 12, 13, 15, 17, 18, 19, 20), LEFT)
SUBPIXEL = 4  # bits: where lines lie between the pixels


def draw(
    track: PoseTrack, width: int, height: int, progress: Callable[[int], None] | None = None, style: str = "dwpose"
) -> Tensor:
    """The track as pictures [T, height, width, 3] in 0…1 on black, in a style of ``STYLES``; nothing is drawn for what
    is missing.

    Another size than the track's own stretches the pose as a picture would be. ``progress`` is called with the number
    of frames done, and may raise to stop.
    """
    arrays = track.resized(width, height).arrays
    frames = torch.empty(len(track.keypoints), height, width, 3)
    for index in range(len(frames)):
        canvas = np.zeros((height, width, 3), np.uint8)
        _paint(canvas, arrays, index, style)
        torch.div(torch.from_numpy(canvas), 255, out=frames[index])
        if progress:
            progress(index + 1)
    return frames


def draw_over(
    track: PoseTrack,
    images: Tensor,
    opacity: float,
    progress: Callable[[int], None] | None = None,
    style: str = "dwpose",
) -> Tensor:
    """The track over ``images`` [T or 1, H, W, 3 or more] in 0…1, as pictures [T, H, W, 3].

    ``opacity`` is 0 (the images themselves) to 1. One image serves all frames. Where nothing is drawn, the images stay
    as they are to the bit. ``progress`` as in `draw`.
    """
    height, width = images.shape[1:3]
    arrays = track.resized(width, height).arrays
    frames = images[..., :3].expand(len(track.keypoints), -1, -1, -1).clone()
    for index in range(len(frames)):
        before = (frames[index] * 255).round().clamp(0, 255).byte().cpu().numpy()
        canvas = before.copy()
        _paint(canvas, arrays, index, style)
        change = torch.from_numpy(canvas.astype(np.float32) - before).to(frames) * (opacity / 255)
        frames[index] = torch.where(change != 0, (frames[index] + change).clamp(0, 1), frames[index])
        if progress:
            progress(index + 1)
    return frames


def _paint(canvas: np.ndarray, arrays: dict[str, np.ndarray], index: int, style: str) -> None:
    """Draw frame ``index`` of a track's ``arrays`` onto ``canvas`` [H, W, 3] uint8."""
    STYLES[style](canvas, {field: array[index] for field, array in arrays.items()}, min(canvas.shape[:2]) / SHORT_SIDE)


def _paint_dwpose(canvas: np.ndarray, people: dict[str, np.ndarray], scale: float) -> None:
    """``draw_pose`` of DWPose, but that its pixels, meant for 512, grow with the canvas.

    All limbs come first, then all joints, all hands, all faces: where people overlap, this is what lies over what.
    """
    _draw_bodies(canvas, people["keypoints"], scale)
    for hand in people["hands"].reshape(-1, 21, 3) if "hands" in people else ():
        _draw_hand(canvas, _without_marked(hand), scale)
    for face in people.get("face", ()):
        landmarks = _without_marked(face[:LANDMARKS])
        _draw_points(canvas, landmarks, FACE_POINT * scale, [(255, 255, 255)] * LANDMARKS)


def _without_marked(points: np.ndarray) -> np.ndarray:
    """Points [N, 3] of a hand or a face, gone where they lie beyond the left or the upper edge: DWPose marks missing
    ones with -1, and leaves out all that are not above 0."""
    return np.where((points[:, :2] >= 1).all(axis=1, keepdims=True), points, 0)


def _draw_bodies(canvas: np.ndarray, people: np.ndarray, scale: float) -> None:
    """``draw_bodypose``: limbs of ``people`` [P, 18, 3] as ellipses, then joints as discs."""
    stick = _pixels(STICK * scale)
    for (one, other), colour in zip(LIMBS, COLOURS):
        for joints in people:
            if min(joints[one, 2], joints[other, 2]) < SEEN:
                continue
            (x1, y1), (x2, y2) = joints[one, :2], joints[other, :2]
            middle = int((x1 + x2) / 2), int((y1 + y2) / 2)
            half, angle = int(math.hypot(x1 - x2, y1 - y2) / 2), int(math.degrees(math.atan2(y1 - y2, x1 - x2)))
            ellipse = cv2.ellipse2Poly(middle, (half, stick), angle, 0, 360, 1)
            cv2.fillConvexPoly(canvas, ellipse, [int(value * LIMB_BRIGHTNESS) for value in colour])
    for number, colour in enumerate(COLOURS):
        _draw_points(canvas, people[:, number], JOINT * scale, [colour] * len(people))


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


def _paint_plain(canvas: np.ndarray, people: dict[str, np.ndarray], scale: float) -> None:
    """The right side in orange, the left in blue; dark where the detector was unsure, thin and grey where so unsure
    that other nodes leave the limb out. Feet too. Several people are numbered, in the order of the pose."""
    for number, joints in enumerate(people["keypoints"]):
        limbs = LIMBS
        if "feet" in people:
            joints, limbs = np.concatenate([joints, people["feet"][number]]), LIMBS + FEET
        for one, other in limbs:
            _line(canvas, joints[one], joints[other], SIDES.get(other, MIDDLE), PLAIN_STICK * scale)
        for side, hand in zip((LEFT, RIGHT), people["hands"][number] if "hands" in people else ()):
            for one, other in FINGERS:
                _line(canvas, hand[one], hand[other], side, PLAIN_FINGER * scale)
        for point in people["face"][number] if "face" in people else ():
            _disc(canvas, point, PLAIN_FACE_POINT * scale)
        for point in joints:
            _disc(canvas, point, PLAIN_JOINT * scale)
        if len(people["keypoints"]) > 1:
            _number(canvas, joints, number, scale)


def _shade(colour: tuple[int, int, int], confidence: float) -> list[float]:
    sure = (min(confidence, 1.0) - SEEN) / (1 - SEEN)
    return [value * (DARKEST + (1 - DARKEST) * sure) for value in colour]


def _line(canvas: np.ndarray, one: np.ndarray, other: np.ndarray, colour: tuple, width: float) -> None:
    confidence = min(one[2], other[2])
    if confidence <= 0:
        return
    sure = confidence >= SEEN
    ends = [_fixed(point) for point in (one, other)]
    shade, thick = (_shade(colour, confidence), _pixels(width)) if sure else (UNSURE, 1)
    if sure:  # a rim, for clothes of the same colour
        cv2.line(canvas, *ends, (0, 0, 0), thick + 2, cv2.LINE_AA, SUBPIXEL)
    cv2.line(canvas, *ends, shade, thick, cv2.LINE_AA, SUBPIXEL)


def _disc(canvas: np.ndarray, point: np.ndarray, radius: float) -> None:
    if point[2] >= SEEN:
        size = max(1, round(radius * 2**SUBPIXEL))
        cv2.circle(canvas, _fixed(point), size, _shade(JOINTS, point[2]), -1, cv2.LINE_AA, SUBPIXEL)


def _number(canvas: np.ndarray, joints: np.ndarray, number: int, scale: float) -> None:
    """Write ``number`` over the highest joint that is seen."""
    seen = joints[joints[:, 2] >= SEEN]
    if len(seen):
        x, y, _ = seen[seen[:, 1].argmin()]
        size = max(0.35, 0.8 * scale)
        place = round(x), max(round(y - 12 * scale), round(24 * size))
        cv2.putText(canvas, str(number), place, cv2.FONT_HERSHEY_SIMPLEX, size, JOINTS, _pixels(2 * scale), cv2.LINE_AA)


def _fixed(point: np.ndarray) -> tuple[int, int]:
    """A point in OpenCV's fixed-point pixels, whose centre of the first pixel is at 0."""
    return tuple(np.round((point[:2] - 0.5) * 2**SUBPIXEL).astype(int).tolist())


def _pixels(size: float) -> int:
    return max(1, round(size))


STYLES = {"dwpose": _paint_dwpose, "plain": _paint_plain}
