"""A drawn figure with a known pose, for the steps of the draft: every part of it in a color of its own."""

import cv2
import numpy as np
from animate_anywhere.vision.draft.character import read_character
from animate_anywhere.vision.pose import PoseTrack

WIDTH, HEIGHT = 240, 320
# Places px by OpenPose's joints: from the front, arms off the body.
STANDING = {
    0: (120, 62), 1: (120, 96), 2: (96, 98), 3: (72, 136), 4: (52, 172), 5: (144, 98), 6: (168, 136), 7: (188, 172),
    8: (106, 176), 9: (102, 228), 10: (100, 280), 11: (134, 176), 12: (138, 228), 13: (140, 280),
    14: (115, 56), 15: (125, 56), 16: (108, 60), 17: (132, 60),
}  # fmt: skip
COLORS = {
    "head": (0.9, 0.7, 0.6),
    "trunk": (0.2, 0.4, 0.8),
    "right_upper_arm": (0.9, 0.2, 0.2),
    "right_forearm": (0.7, 0.1, 0.3),
    "left_upper_arm": (0.2, 0.8, 0.3),
    "left_forearm": (0.1, 0.6, 0.2),
    "right_thigh": (0.5, 0.4, 0.1),
    "right_shin": (0.4, 0.3, 0.1),
    "left_thigh": (0.5, 0.1, 0.5),
    "left_shin": (0.4, 0.1, 0.4),
}
BONES = {
    "upper_arm": ((2, 3), (5, 6), 9),
    "forearm": ((3, 4), (6, 7), 8),
    "thigh": ((8, 9), (11, 12), 12),
    "shin": ((9, 10), (12, 13), 10),
}  # right, left, half the breadth px


def track(joints=STANDING, frames=1, width=WIDTH, height=HEIGHT, depth=None):
    """The pose [frames, 1, 18, 3] of ``joints``; with ``depth`` {landmark: z px}, BlazePose's landmarks, too."""
    body = np.zeros((18, 3))
    for joint, place in joints.items():
        body[joint] = *place, 1.0
    marks = None
    if depth is not None:
        marks = np.tile(landmarks(joints, depth), (frames, 1, 1, 1))
    return PoseTrack(np.tile(body, (frames, 1, 1, 1)), width, height, landmarks=marks)


def landmarks(joints, depth):
    """BlazePose's [33, 4] of a drawn figure; hands go on as the forearms, feet point to the outside."""
    from animate_anywhere.vision.landmarks import LANDMARK_CARRIERS

    marks = np.zeros((33, 4))
    for landmark, joint in LANDMARK_CARRIERS.items():
        if joint in joints:
            marks[landmark, :3] = *joints[joint], 0.9
    if 0 in joints:
        nose = np.array(joints[0])
        for landmark, offset in {
            0: (0, 0),
            2: (5, -6),
            5: (-5, -6),
            7: (12, -2),
            8: (-12, -2),
            9: (4, 8),
            10: (-4, 8),
        }.items():
            marks[landmark, :3] = *(nose + offset), 0.9
    for wrist, elbow, hands in ((4, 3, (18, 20, 22)), (7, 6, (17, 19, 21))):
        if wrist in joints:
            way = np.array(joints[wrist]) - joints[elbow]
            marks[list(hands), :2] = joints[wrist] + 0.35 * way
    for ankle, heel, toe, outwards in ((10, 30, 32, -1), (13, 29, 31, 1)):
        if ankle in joints:
            marks[heel, :2] = np.add(joints[ankle], (0, 8))
            marks[toe, :2] = np.add(joints[ankle], (12 * outwards, 12))
    for landmark, z in depth.items():
        marks[landmark, 3] = z
    return marks


def picture(joints=STANDING, hem=None, background=(0.5, 0.5, 0.5)):
    """The figure's colors [h, w, 3] before a plain ground and its alpha [h, w]; with ``hem``, the y px where a skirt
    ends."""
    colors = np.tile(np.float32(background), (HEIGHT, WIDTH, 1))
    alpha = np.zeros((HEIGHT, WIDTH), np.float32)

    def put(shape, color):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        shape(mask)
        colors[mask > 0], alpha[mask > 0] = color, 1

    def bone(name, side):
        right, left, half = BONES[name]
        a, b = right if side == "right" else left
        if a in joints and b in joints:
            line = (tuple(map(int, joints[a])), tuple(map(int, joints[b])))
            put(lambda mask: cv2.line(mask, *line, 1, 2 * half), COLORS[f"{side}_{name}"])

    for side, ankle in (("right", 10), ("left", 13)):
        bone("shin", side)
        bone("thigh", side)
        if ankle in joints:
            center = np.add(joints[ankle], (-5 if side == "right" else 5, 8))
            put(
                lambda mask, at=center: cv2.ellipse(mask, tuple(map(int, at)), (12, 7), 0, 0, 360, 1, -1),
                (0.1, 0.1, 0.1),
            )
    quad = np.add([STANDING[joint] for joint in (2, 5, 11, 8)], [(-6, -8), (6, -8), (8, 8), (-8, 8)])
    put(lambda mask: cv2.fillPoly(mask, [quad.astype(np.int32)], 1), COLORS["trunk"])
    if hem is not None:
        skirt = np.array([(100, 170), (140, 170), (200, hem), (40, hem)], np.int32)
        put(lambda mask: cv2.fillPoly(mask, [skirt], 1), (0.8, 0.7, 0.2))
    neck = np.array(joints[1])
    put(lambda mask: cv2.line(mask, tuple(neck), tuple(neck - (0, 20)), 1, 14), COLORS["head"])
    put(lambda mask: cv2.circle(mask, tuple(np.array(joints[0]) - (0, 4)), 22, 1, -1), COLORS["head"])
    for side in ("right", "left"):
        bone("upper_arm", side)
        bone("forearm", side)
    return colors, alpha


def character(joints=STANDING, hem=None):
    """The Character of the drawn figure."""
    return read_character(*picture(joints, hem), track(joints, depth={}))
