"""BlazePose's landmarks: placed by their heatmaps, as joints of OpenPose, and the region that a body takes up."""

import numpy as np

from .blazepose import LandmarkNetwork
from .pose import SEEN
from .region import Region

KEPT = 35  # of the network's 39 landmarks: 33 of the body, then HIPS and CIRCLE
BODY = 33  # the landmarks of the body itself
HIPS, CIRCLE = 33, 34  # auxiliary landmarks: mid-hip, and a point on the circle around the whole body
PRESENT = 0.5  # of a joint: below it, legs out of the frame are invented
REFINE_REACH = 3  # heatmap pixels around a landmark
REFINE_ABOVE = 0.5

# OpenPose's 18 joints as BlazePose landmarks; the neck (1), which BlazePose lacks, is between the shoulders.
LEFT_SHOULDER, RIGHT_SHOULDER = 11, 12
OPENPOSE = [0, 12, 12, 14, 16, 11, 13, 15, 24, 26, 28, 23, 25, 27, 5, 2, 8, 7]
NECK = 1
# The OpenPose joint on which each landmark of the body hangs: its own, or the neck, a wrist or an ankle.
FACE_LANDMARKS, HAND_LANDMARKS = range(11), range(17, 23)
LANDMARK_CARRIERS = dict.fromkeys(FACE_LANDMARKS, NECK)
LANDMARK_CARRIERS |= {11: 5, 12: 2, 13: 6, 14: 3, 15: 7, 16: 4, 23: 11, 24: 8, 25: 12, 26: 9, 27: 13, 28: 10}
LANDMARK_CARRIERS |= {17: 7, 19: 7, 21: 7, 18: 4, 20: 4, 22: 4, 29: 13, 31: 13, 30: 10, 32: 10}
HIP_JOINTS, SHOULDER_JOINTS = [8, 11], [2, 5]


def openpose_joints(landmarks: np.ndarray, width: int, height: int) -> np.ndarray:
    """BlazePose landmarks [35, 3 or 4] as OpenPose joints [18, 3].

    Joints that are hidden or outside the frame are zero. Confidence is 1 for every joint that is seen:
    comfyui_controlnet_aux takes anything below 1 for missing.
    """
    joints = landmarks[OPENPOSE, :3]
    shoulders = landmarks[[LEFT_SHOULDER, RIGHT_SHOULDER]]
    joints[NECK] = [*shoulders[:, :2].mean(axis=0), shoulders[:, 2].min()]
    x, y, visibility = joints.T
    seen = (visibility >= PRESENT) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return np.where(seen[:, None], np.column_stack([x, y, np.ones(18)]), 0.0)


def refine(points: np.ndarray, heatmaps: np.ndarray) -> np.ndarray:
    """Move ``points`` [N, 2] px of 256 to the mean of their ``heatmaps`` [N, 64, 64] (logits) around them.

    MediaPipe's RefineLandmarksFromHeatmapCalculator. Points outside, and those with a faint heatmap, stay.
    """
    size, reach = heatmaps.shape[-1], REFINE_REACH
    scale = size / LandmarkNetwork.SIZE
    cells = np.trunc(points * scale).astype(int)  # (column, row)
    inside = ((cells >= 0) & (cells < size)).all(axis=1)
    steps = np.arange(-reach, reach + 1)
    columns, rows = cells.clip(0, size - 1).T[:, :, None] + steps  # [N, 7] each
    padded = np.pad(heatmaps, ((0, 0), (reach, reach), (reach, reach)), constant_values=-np.inf)
    windows = padded[np.arange(len(points))[:, None, None], rows[:, :, None] + reach, columns[:, None, :] + reach]
    weights = sigmoid(windows)  # [N, 7, 7]; 0 beyond the heatmap's edge
    total = weights.sum(axis=(1, 2)).clip(1e-9)
    x = (weights.sum(axis=1) * columns).sum(axis=1) / total
    y = (weights.sum(axis=2) * rows).sum(axis=1) / total
    clear = inside & (weights.max(axis=(1, 2)) >= REFINE_ABOVE)
    return np.where(clear[:, None], np.column_stack([x, y]) / scale, points)


def region_of_joints(joints: np.ndarray) -> Region | None:
    """The region around OpenPose ``joints`` [18, 3] px that BlazePose itself would look at; None where there are none.

    Its center is the mid-hip and it stands along the spine. The circle around the body reaches a little beyond the
    joints (crown, toes) and is 1.75 torsos wide where they are cut off: both measured against `HIPS` and `CIRCLE`.
    """
    seen = joints[:, 2] >= SEEN
    points = joints[:, :2]
    if seen.sum() < 2:
        return None
    hips, shoulders = (points[ids][seen[ids]] for ids in (HIP_JOINTS, SHOULDER_JOINTS))
    up, torso = np.array([0.0, -1.0]), 0.0
    if len(hips) and len(shoulders):
        center = hips.mean(axis=0)
        spine = shoulders.mean(axis=0) - center
        torso = np.hypot(*spine)
        up = spine / torso if torso > 0 else up
    elif len(hips):
        center = hips.mean(axis=0)
    elif len(shoulders) == 2:  # a torso is about 1.3 shoulders long
        torso = 1.3 * np.hypot(*(shoulders[0] - shoulders[1]))
        center = shoulders.mean(axis=0) - up * torso
    else:
        center = (points[seen].min(axis=0) + points[seen].max(axis=0)) / 2
    reach = np.hypot(*(points[seen] - center).T).max()
    radius = max(1.15 * reach, 1.75 * torso)
    return Region.around(center, center + up * radius) if radius >= 1 else None


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits.clip(-80, 80)))
