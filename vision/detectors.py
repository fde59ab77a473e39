"""People in frames: where their joints are and which pixels are theirs. BlazePose is built in.

The steps are those of MediaPipe's pose graph (modules/pose_landmark): a detector finds the region around a person, the
landmark network works inside it, and its two auxiliary points give the region of the next frame; so the detector runs
only at the start and after a loss. MediaPipe's smoothing is left out; `vision.pose.smooth` is ours.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from .blazepose import DetectorNetwork, LandmarkNetwork
from .pose import SEEN, PoseTrack
from .region import Region

Progress = Callable[[int], None]

PRESENT = 0.5  # of a person in the region, and of a joint: below it, legs out of the frame are invented
DETECTED = 0.5
OVERLAP = 0.3  # detections that share more than this are one person
HIPS, CIRCLE = 33, 34  # auxiliary landmarks: mid-hip, and a point on the circle around the whole body
KEPT = 35
REFINE_REACH = 3  # heatmap pixels around a landmark
REFINE_ABOVE = 0.5

# OpenPose's 18 joints as BlazePose landmarks; the neck (1), which BlazePose lacks, is between the shoulders.
LEFT_SHOULDER, RIGHT_SHOULDER = 11, 12
OPENPOSE = [0, 12, 12, 14, 16, 11, 13, 15, 24, 26, 28, 23, 25, 27, 5, 2, 8, 7]
NECK = 1
HIP_JOINTS, SHOULDER_JOINTS = [8, 11], [2, 5]


@dataclass(frozen=True)
class Followed:
    """One person through a video of T frames: ``mask`` [T, H, W] in 0…1, ``seen`` [T] bool: frames with any joint."""

    pose: PoseTrack
    mask: Tensor
    seen: Tensor


class Look(NamedTuple):
    """What the landmark network sees in a region: landmarks [35, 3] (x, y in frame pixels, visibility in 0…1), the
    presence of a person in 0…1, and the features of the mask."""

    region: Region
    landmarks: np.ndarray
    presence: float
    features: tuple[Tensor, Tensor]

    @property
    def next_region(self) -> Region:
        """Where to look for the same person in the next frame."""
        return Region.around(self.landmarks[HIPS, :2], self.landmarks[CIRCLE, :2])


def load_blazepose(folder: Path, device: torch.device | str = "cpu") -> "BlazePose":
    """BlazePose from ``detector.safetensors`` and ``landmarks.safetensors`` in ``folder``."""
    return BlazePose(
        _load(DetectorNetwork, folder / "detector.safetensors", device),
        _load(LandmarkNetwork, folder / "landmarks.safetensors", device),
    )


def _load(kind: type[nn.Module], path: Path, device: torch.device | str) -> nn.Module:
    with torch.device("meta"):  # no random weights: they would move the random state of the whole process
        network = kind()
    network.load_state_dict({key: value.float() for key, value in load_file(path).items()}, assign=True)
    # Channels last: half the time of the default layout on a CPU.
    return network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)


class BlazePose:
    """One person's joints and mask in a video (Bazarevsky et al. 2020)."""

    def __init__(self, detector: DetectorNetwork, landmarks: LandmarkNetwork) -> None:
        self.detector, self.landmarks = detector, landmarks
        self.device = next(landmarks.parameters()).device
        self.anchors = _anchors()

    def follow(self, frames: Tensor, progress: Progress | None = None) -> Followed:
        """Joints and mask of the clearest person in ``frames`` [T, H, W, 3] in 0…1, or uint8.

        After a loss the detector starts anew, and whoever is nearest to where the person was is taken. ``progress`` is
        called with the number of frames done, and may raise to stop.
        """
        count, height, width = frames.shape[:3]
        keypoints = np.zeros((count, 1, 18, 3))
        mask = np.zeros((count, height, width), np.float32)
        for index, look in self._pasting(self._track(frames, progress), mask):
            keypoints[index, 0] = openpose_joints(look.landmarks, width, height)
        pose = PoseTrack(keypoints, width, height)
        return Followed(pose, torch.from_numpy(mask), torch.from_numpy(pose.present))

    def segment(self, frames: Tensor, pose: PoseTrack, progress: Progress | None = None) -> Tensor:
        """Mask [T, H, W] in 0…1 of everybody in ``pose`` (T frames, any source), in ``frames`` [T, H, W, 3] in 0…1.

        ``progress`` is called with the number of frames done, and may raise to stop.
        """
        count, height, width = frames.shape[:3]
        mask = np.zeros((count, height, width), np.float32)
        for _ in self._pasting(self._look_at_poses(frames, pose.resized(width, height), progress), mask):
            pass
        return torch.from_numpy(mask)

    def _track(self, frames: Tensor, progress: Progress | None) -> Iterator[tuple[int, Look]]:
        """Every frame in which the person is seen, and the look at it."""
        regions: list[Region | None] = [None] * len(frames)  # where the person was seen
        last = None
        for index in range(len(frames)):
            frame = _picture(frames[index])
            look = self._look_at(frame, regions[index - 1] if index else None) or self._look_for(frame, near=last)
            if look:
                regions[index] = last = look.next_region
                yield index, look
            if progress:
                progress(index + 1)
        # Who is only half in the frame at first is easier to follow back from where the whole body was seen.
        for index in reversed(range(len(frames) - 1)):
            if regions[index] is None and (look := self._look_at(_picture(frames[index]), regions[index + 1])):
                regions[index] = look.next_region
                yield index, look

    def _look_at_poses(self, frames: Tensor, pose: PoseTrack, progress: Progress | None) -> Iterator[tuple[int, Look]]:
        for index in range(len(frames)):
            frame = _picture(frames[index])
            for joints in pose.keypoints[index]:
                if look := self._look_at(frame, region_of_joints(joints)):
                    yield index, look
            if progress:
                progress(index + 1)

    def _look_at(self, frame: np.ndarray, region: Region | None) -> Look | None:
        """A look at ``region``, if it shows a person."""
        look = self.look(frame, region) if region else None
        return look if look and look.presence >= PRESENT else None

    def _look_for(self, frame: np.ndarray, near: Region | None) -> Look | None:
        """Find a person, and look again at where the landmarks then are: what is no person does not stand that."""
        look = self._look_at(frame, self.find(frame, near))
        return self._look_at(frame, look.next_region) if look else None

    def _pasting(self, looks: Iterable[tuple[int, Look]], mask: np.ndarray) -> Iterator[tuple[int, Look]]:
        """Pass ``looks`` on; beside that, write their masks into ``mask`` [T, H, W]."""
        with _worker() as worker:
            pasted = None
            for index, look in looks:
                if pasted:
                    pasted.result()
                pasted = worker.submit(self._paste, look, mask[index])
                yield index, look
            if pasted:
                pasted.result()

    @torch.inference_mode()
    def _paste(self, look: Look, mask: np.ndarray) -> None:
        look.region.paste(self.landmarks.mask(*look.features)[0, 0].sigmoid().cpu().numpy(), mask)

    @torch.inference_mode()
    def find(self, frame: np.ndarray, near: Region | None = None) -> Region | None:
        """The region around the clearest person in ``frame`` [H, W, 3], or around the one nearest to ``near``."""
        height, width = frame.shape[:2]
        scale = max(height, width) / self.detector.SIZE
        scores, boxes = self.detector(self._input(_letterbox(frame, self.detector.SIZE) * 2 - 1))
        scores = scores[0].sigmoid().cpu().numpy()
        points = boxes[0].cpu().numpy().reshape(-1, 6, 2)  # [2254, (center, size, 4 points), (x, y)]
        points[:, [0, 2, 3, 4, 5]] += self.anchors[:, None]
        people = _merge(scores, points)
        if not people:
            return None
        offset = np.array([width, height]) / 2 - self.detector.SIZE / 2 * scale
        regions = [Region.around(*(points[2:4] * scale + offset)) for points in people]
        if near is None:
            return regions[0]
        return min(regions, key=lambda region: np.hypot(region.x - near.x, region.y - near.y))

    @torch.inference_mode()
    def look(self, frame: np.ndarray, region: Region) -> Look:
        """Run the landmark network on ``region`` of ``frame`` [H, W, 3] in 0…1."""
        size = self.landmarks.SIZE
        raw, presence, heatmaps, features = self.landmarks.points(self._input(region.cut(frame, size)))
        raw, heatmaps = raw[0, :KEPT].cpu().numpy(), heatmaps[0, :KEPT].cpu().numpy()
        matrix = region.to_frame(size)
        points = refine(raw[:, :2], heatmaps) @ matrix[:, :2].T + matrix[:, 2]
        return Look(region, np.column_stack([points, _sigmoid(raw[:, 3])]), float(presence), features)

    def _input(self, picture: np.ndarray) -> Tensor:
        """[H, W, 3] -> [1, 3, H, W], channels last."""
        return torch.from_numpy(picture)[None].permute(0, 3, 1, 2).to(self.device)


def openpose_joints(landmarks: np.ndarray, width: int, height: int) -> np.ndarray:
    """BlazePose landmarks [35, 3] as OpenPose joints [18, 3]. Joints that are hidden or outside the frame are zero.

    Confidence is 1 for every joint that is seen: comfyui_controlnet_aux takes anything below 1 for missing.
    """
    joints = landmarks[OPENPOSE].copy()
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
    weights = _sigmoid(windows)  # [N, 7, 7]; 0 beyond the heatmap's edge
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


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits.clip(-80, 80)))


@contextmanager
def _worker() -> Iterator[ThreadPoolExecutor]:
    """A thread beside this one, with one core for each.

    The networks' layers are too small to share among cores: on two idle cores that gains little, and on busy ones the
    cores wait for each other up to twenty times as long. Points and mask side by side gain more, and never wait.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(1) as worker:
            yield worker
    finally:
        torch.set_num_threads(threads)


def _picture(frame: Tensor) -> np.ndarray:
    """[H, W, 3] or more channels -> float32 [H, W, 3] in 0…1 as OpenCV wants it, copied only where it must be."""
    picture = frame[..., :3].float()
    if frame.dtype == torch.uint8:  # a long video as floats would take four times the memory
        picture = picture / 255
    return np.ascontiguousarray(picture.cpu().numpy())


def _letterbox(frame: np.ndarray, size: int) -> np.ndarray:
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


def _anchors() -> np.ndarray:
    """Centers [2254, 2] px of the detector's anchors: 2 a place at strides 8 and 16, 6 at stride 32."""
    centers = []
    for stride, repeats in ((8, 2), (16, 2), (32, 6)):
        steps = np.arange(stride / 2, DetectorNetwork.SIZE, stride, dtype=np.float32)
        grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)  # row by row, (x, y)
        centers.append(grid.repeat(repeats, axis=0))
    return np.concatenate(centers)


def _merge(scores: np.ndarray, points: np.ndarray) -> list[np.ndarray]:
    """Weighted non-maximum suppression: detections [6, 2] (center, size, 4 points), the clearest first.

    From ``scores`` [N] in 0…1 and ``points`` [N, 6, 2]: each is the mean, by score, of all that overlap it.
    """
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= DETECTED]
    merged = []
    while len(order):
        same = _overlap(points[order[0]], points[order]) > OVERLAP
        same[0] = True
        group = order[same]
        merged.append(np.average(points[group], axis=0, weights=scores[group]))
        order = order[~same]
    return merged


def _overlap(one: np.ndarray, many: np.ndarray) -> np.ndarray:
    """Intersection over union of box ``one`` [6, 2] with ``many`` [N, 6, 2] -> [N]."""
    low = np.maximum(one[0] - one[1] / 2, many[:, 0] - many[:, 1] / 2)
    high = np.minimum(one[0] + one[1] / 2, many[:, 0] + many[:, 1] / 2)
    inside = np.maximum(high - low, 0).prod(axis=1)
    return inside / (one[1].prod() + many[:, 1].prod(axis=1) - inside)
