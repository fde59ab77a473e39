"""People in frames: where their joints are and which pixels are theirs. BlazePose is built in.

The steps are those of MediaPipe's pose graph (modules/pose_landmark): a detector finds the region around a person, the
landmark network works inside it, and its two auxiliary points give the region of the next frame; so the detector runs
only at the start and after a loss (`vision.following`). Its smoothing is left out; `vision.pose.smooth` is ours.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .blazepose import DetectorNetwork, LandmarkNetwork
from .blazepose_heavy import HeavyLandmarkNetwork
from .following import Following
from .frames import Progress, picture
from .landmarks import BODY, CIRCLE, HIPS, KEPT, refine, region_of_joints, sigmoid
from .pose import PoseTrack
from .region import Region
from .search import PersonDetector
from .tracking import Identities

PRESENT = 0.5  # of a person in the region


@dataclass(frozen=True)
class Followed:
    """P people through a video of T frames, the lead first: ``mask`` [T, H, W] in 0…1 of all of them together, ``seen``
    [T] bool: frames with any joint."""

    pose: PoseTrack
    mask: Tensor
    seen: Tensor

    @classmethod
    def of(cls, pose: PoseTrack, mask: Tensor) -> "Followed":
        return cls(pose, mask, torch.from_numpy(pose.present))


class Look(NamedTuple):
    """What the landmark network sees in a region: landmarks [35, 4] (x, y in frame pixels, visibility in 0…1, and z in
    frame pixels, 0 at the hips and negative nearer to the camera), the presence of a person in 0…1, and the features of
    the mask."""

    region: Region
    landmarks: np.ndarray
    presence: float
    features: tuple[Tensor, Tensor]

    @property
    def next_region(self) -> Region:
        """Where to look for the same person in the next frame."""
        return Region.around(self.landmarks[HIPS, :2], self.landmarks[CIRCLE, :2])


def load_blazepose(folder: Path, device: torch.device | str = "cpu", heavy: Path | None = None) -> "BlazePose":
    """BlazePose from ``detector.safetensors`` and ``landmarks.safetensors`` in ``folder``; the landmarks of the file
    ``heavy`` instead, where it is given.

    Raises ValueError, naming the input ``detector``, for a file ``heavy`` that is something else.
    """
    detector = _load(DetectorNetwork, folder / "detector.safetensors", device)
    if heavy is None:
        return BlazePose(detector, _load(LandmarkNetwork, folder / "landmarks.safetensors", device))
    try:
        return BlazePose(detector, _load(HeavyLandmarkNetwork, heavy, device))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"detector: {heavy.name} does not hold BlazePose's heavy landmarks. Make it anew with "
            "scripts/convert_blazepose.py heavy."
        ) from error


def _load(kind: type[nn.Module], path: Path, device: torch.device | str) -> nn.Module:
    with torch.device("meta"):  # no random weights: they would move the random state of the whole process
        network = kind()
    network.load_state_dict({key: value.float() for key, value in load_file(path).items()}, assign=True)
    # Channels last: half the time of the default layout on a CPU.
    return network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)


class BlazePose:
    """Joints and masks of people in a video (Bazarevsky et al. 2020)."""

    def __init__(self, detector: DetectorNetwork, landmarks: LandmarkNetwork) -> None:
        self.search, self.landmarks = PersonDetector(detector), landmarks
        self.device = next(landmarks.parameters()).device

    def follow(
        self, frames: Tensor, progress: Progress | None = None, identities: Identities | None = None
    ) -> Followed:
        """Joints and mask of the people in ``frames`` [T, H, W, 3] in 0…1: of the clearest one, or of as many as
        ``identities`` (new, nobody met yet) are to be.

        After a loss the detector starts anew. ``progress`` is called with the number of frames done, and may raise to
        stop.
        """
        count, height, width = frames.shape[:3]
        identities = identities or Identities(1)
        keypoints = np.zeros((count, identities.most, 18, 3))
        landmarks = np.zeros((count, identities.most, BODY, 4))

        def looks() -> Iterator[tuple[int, Look]]:
            for index, number, sighting in Following(self, frames, identities).run(progress):
                keypoints[index, number] = sighting.joints
                landmarks[index, number] = sighting.source.landmarks[:BODY]
                yield index, sighting.source

        mask = self._masks(looks(), (count, height, width))
        order = identities.order(keypoints[..., 2].any(axis=2))
        order = order or [0]
        pose = PoseTrack(keypoints[:, order], width, height, landmarks=landmarks[:, order])
        return Followed.of(pose, mask)

    def segment(self, frames: Tensor, pose: PoseTrack, progress: Progress | None = None) -> Tensor:
        """Mask [T, H, W] in 0…1 of everybody in ``pose`` (T frames, any source), in ``frames`` [T, H, W, 3] in 0…1.

        ``progress`` is called with the number of frames done, and may raise to stop.
        """
        count, height, width = frames.shape[:3]
        return self._masks(self._look_at_poses(frames, pose.resized(width, height), progress), (count, height, width))

    def look_at(self, frame: np.ndarray, region: Region | None) -> Look | None:
        """A look at ``region`` of ``frame`` [H, W, 3], if it shows a person."""
        look = self.look(frame, region) if region else None
        return look if look and look.presence >= PRESENT else None

    @torch.inference_mode()
    def look(self, frame: np.ndarray, region: Region) -> Look:
        """Run the landmark network on ``region`` of ``frame`` [H, W, 3] in 0…1."""
        size = self.landmarks.SIZE
        crop = torch.from_numpy(region.cut(frame, size))[None].permute(0, 3, 1, 2)  # [1, 3, H, W], channels last
        raw, presence, heatmaps, features = self.landmarks.points(crop.to(self.device))
        raw, heatmaps = raw[0, :KEPT].cpu().numpy(), heatmaps[0, :KEPT].cpu().numpy()
        matrix = region.to_frame(size)
        points = refine(raw[:, :2], heatmaps) @ matrix[:, :2].T + matrix[:, 2]
        depth = raw[:, 2] * region.size / size
        landmarks = np.column_stack([points, sigmoid(raw[:, 3]), depth])
        return Look(region, landmarks, float(presence), features)

    def _look_at_poses(self, frames: Tensor, pose: PoseTrack, progress: Progress | None) -> Iterator[tuple[int, Look]]:
        for index in range(len(frames)):
            frame = picture(frames[index])
            for joints in pose.keypoints[index]:
                if look := self.look_at(frame, region_of_joints(joints)):
                    yield index, look
            if progress:
                progress(index + 1)

    def _masks(self, looks: Iterable[tuple[int, Look]], shape: tuple[int, int, int]) -> Tensor:
        """The masks of all ``looks`` as [T, H, W]; each is made beside the look after it."""
        mask = np.zeros(shape, np.float32)
        with _worker() as worker:
            pasted = None
            for index, look in looks:
                if pasted:
                    pasted.result()
                pasted = worker.submit(self._paste, look, mask[index])
            if pasted:
                pasted.result()
        return torch.from_numpy(mask)

    @torch.inference_mode()
    def _paste(self, look: Look, mask: np.ndarray) -> None:
        look.region.paste(self.landmarks.mask(*look.features)[0, 0].sigmoid().cpu().numpy(), mask)


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
