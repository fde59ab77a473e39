"""Clips whose background's motion is known, for scripts/bench_motion.py and the tests.

Real clips have it from Track Background; virtual ones are real poses before a camera that stood,
moved as a drawn camera would move them, so that the truth is exact.
"""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

UNIT_PX = 640.0  # errors are px a frame of a picture with so long a longer side
MIN_TRACK_CONFIDENCE, MIN_POINTS, MAX_CUTS = 0.8, 8, 1  # what a reference must have to be trusted
STANDING_PX = 0.15  # a frame: the most that the background of a standing camera moves
MIN_ERROR_PX = 0.15  # a frame: an error this small is right, whatever the motion
RIGHT_RATIO = 0.6  # of a still background's error, up to which a motion is right
VIRTUAL_KINDS = ("pan", "ease", "slow", "follow", "hand", "zoom")
GRID = 7  # points of a virtual background along either side of the frame
MEDIA = "comfyui_workflow_templates_media_"  # the host's packages of template clips
MAX_MEDIA_FRAMES = 120


@dataclass(frozen=True, eq=False)
class MotionClip:
    """T frames: the pose, and points of the background [T, N, 2] px, NaN where not seen."""

    name: str
    pose: object  # PoseTrack
    points: np.ndarray

    @property
    def moves(self) -> np.ndarray:
        """[T-1, N, 2] px; NaN where a point is not in both frames."""
        return np.diff(self.points, axis=0)

    @property
    def still_error(self) -> float:
        return self.error(np.zeros((len(self.points) - 1, 4)))

    @property
    def stands(self) -> bool:
        return self.still_error <= STANDING_PX

    def error(self, steps: np.ndarray) -> float:
        """Of ``steps`` [T-1, 4]: mean over steps and points, px a frame of a 640 px picture."""
        from animate_anywhere.vision.camera_path import similarities

        width, height = self.pose.width, self.pose.height
        between = similarities(steps, width, height)
        before = self.points[:-1]
        after = before @ between[:, :2, :2].transpose(0, 2, 1) + between[:, None, :2, 2]
        off = np.linalg.norm(after - self.points[1:], axis=-1)
        told = np.isfinite(off).any(1)
        return float(np.nanmean(off[told], axis=1).mean() * UNIT_PX / max(width, height))

    def is_right(self, error: float) -> bool:
        return error <= max(MIN_ERROR_PX, RIGHT_RATIO * self.still_error)

    def part(self, name: str, frames: slice) -> "MotionClip":
        arrays = {field: array[frames] for field, array in self.pose.arrays.items()}
        return MotionClip(f"{self.name}, {name}", replace(self.pose, **arrays), self.points[frames])


def load_folder(folder: Path) -> list[MotionClip]:
    """The trusted clips of ``folder``/*.npz: keypoints [T, 18, 3], width, height, points, visible,
    confidence, cuts."""
    from animate_anywhere.vision.pose import PoseTrack

    clips = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as data:
            known = data["confidence"].mean(), data["points"].shape[1], len(data["cuts"])
            keypoints = data["keypoints"].astype(float)[:, None]
            pose = PoseTrack(keypoints, int(data["width"]), int(data["height"]))
            points = np.where(data["visible"][..., None], data["points"].astype(float), np.nan)
        if _trusted(*known):
            clips.append(MotionClip(path.stem, pose, points))
    return clips


def load_media(names: tuple[str, ...]) -> Iterator[MotionClip]:
    """Template clips of the host's packages, where they are installed: extract, track."""
    from animate_anywhere.nodes.pose import ExtractPose
    from animate_anywhere.vision.background_tracks import track_background
    from animate_anywhere.vision.pose import PoseTrack

    for name in names:
        frames = read_media(name)
        if frames is None:
            continue
        pose, mask, _ = ExtractPose.execute(frames, "blazepose", 0.3).result
        found = track_background(frames, mask)
        if _trusted(found.camera.confidence.mean(), found.tracks.path.shape[1], len(found.cuts)):
            points = np.where(found.tracks.visible[..., None], found.tracks.path, np.nan)
            yield MotionClip(name, PoseTrack.from_openpose(pose), points)


def read_media(name: str):
    """Frames [T, H, W, 3] in 0…1 of the clip "package/file"; None where it is not installed."""
    import torch
    from PIL import Image, ImageSequence

    package, _, file = name.partition("/")
    spec = importlib.util.find_spec(MEDIA + package)
    found = None if spec is None else next(Path(spec.submodule_search_locations[0]).rglob(file), None)
    if found is None:
        return None
    with Image.open(found) as clip:
        frames = [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(clip)]
    return torch.from_numpy(np.stack(frames[:MAX_MEDIA_FRAMES])).float() / 255


def _trusted(confidence: float, points: int, cuts: int) -> bool:
    return confidence >= MIN_TRACK_CONFIDENCE and points >= MIN_POINTS and cuts <= MAX_CUTS


def variants(clip: MotionClip) -> Iterator[MotionClip]:
    """The clip as it is, smoothed, at half the frame rate, and its halves."""
    from animate_anywhere.vision.pose import smooth

    middle = len(clip.points) // 2
    yield clip
    yield MotionClip(f"{clip.name}, smoothed", smooth(clip.pose, 0.3), clip.points)
    yield clip.part("half rate", slice(None, None, 2))
    yield clip.part("first half", slice(middle))
    yield clip.part("second half", slice(middle, None))


def film_virtually(clip: MotionClip, kind: str, seed: int) -> MotionClip:
    """The pose of ``clip``, whose camera stood, before a virtual camera of ``kind``.

    Joints that leave the frame are lost, as a detector would lose them.
    """
    from animate_anywhere.vision.camera_path import CameraPath

    pose = clip.pose
    steps = _virtual_steps(clip, kind, np.random.default_rng([seed, VIRTUAL_KINDS.index(kind)]))
    path = CameraPath.from_steps(steps, pose.width, pose.height)
    count = len(path)
    keypoints = pose.keypoints.copy()
    flat = np.concatenate([keypoints[..., :2].reshape(count, -1, 2), np.ones((count, keypoints.shape[1] * 18, 1))], -1)
    moved = (flat @ path.homographies.transpose(0, 2, 1))[..., :2].reshape(keypoints[..., :2].shape)
    inside = ((moved >= 0) & (moved < [pose.width, pose.height])).all(-1)
    keypoints[..., :2] = moved
    keypoints[~(inside & (keypoints[..., 2] > 0))] = 0
    share = (np.arange(GRID) + 0.5) / GRID
    places = np.stack(np.meshgrid(share * pose.width, share * pose.height), -1).reshape(-1, 2)
    # Every frame has fresh points all over it: the motion that fills the frame.
    return _VirtualClip(f"{clip.name}, {kind} {seed}", replace(pose, keypoints=keypoints), places, steps)


class _VirtualClip(MotionClip):
    """A clip whose true steps are known: an error is measured on a grid in every frame."""

    def __init__(self, name, pose, places, steps) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "pose", pose)
        object.__setattr__(self, "points", np.broadcast_to(places, (len(steps) + 1, *places.shape)))
        object.__setattr__(self, "steps", steps)

    def error(self, steps: np.ndarray) -> float:
        from animate_anywhere.vision.camera_path import similarities

        width, height = self.pose.width, self.pose.height
        ones = np.ones((len(self.points[0]), 1))
        places = np.concatenate([self.points[0], ones], 1)
        guess, truth = (similarities(part, width, height) for part in (steps, self.steps))
        off = places @ (guess - truth)[:, :2].transpose(0, 2, 1)
        return float(np.linalg.norm(off, axis=-1).mean() * UNIT_PX / max(width, height))


def _virtual_steps(clip: MotionClip, kind: str, rng: np.random.Generator) -> np.ndarray:
    """[T-1, 4] px of the clip's frame; speeds are drawn in px of a 640 px frame."""
    count = len(clip.points) - 1
    unit = max(clip.pose.width, clip.pose.height) / UNIT_PX
    steps, time = np.zeros((count, 4)), np.arange(count) / count
    side = rng.choice([-1, 1])
    if kind == "pan":
        steps[:, 0] = side * rng.uniform(1, 5) * unit
    elif kind == "ease":
        start = rng.uniform(0.1, 0.4)
        shape = np.clip((time - start) / (0.9 - start), 0, 1)
        steps[:, 0] = side * rng.uniform(3, 8) * unit * np.sin(np.pi * shape) ** 2
        steps[:, 1] = rng.uniform(-0.3, 0.3) * steps[:, 0]
    elif kind == "slow":
        steps[:, 0] = side * rng.uniform(0.3, 0.8) * unit
    elif kind == "follow":
        steps[:, :2] = -_hip_velocity(clip.pose)
    elif kind == "hand":
        steps[:, :2] = _wander(count, 3.0, rng) * rng.uniform(0.5, 1.5) * unit
        steps[:, :2] += _wander(count, 15.0, rng) * rng.uniform(0.5, 2) * unit
    else:
        steps[:, 2] = side * rng.uniform(0.002, 0.006)
    return steps


def _wander(count: int, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """[count, 2] smooth noise of deviation 1."""
    reach = np.arange(-int(4 * sigma), int(4 * sigma) + 1)
    kernel = np.exp(-0.5 * (reach / sigma) ** 2)
    noise = rng.normal(size=(count + len(kernel) - 1, 2))
    smooth = np.stack([np.convolve(column, kernel, "valid") for column in noise.T], 1)
    return smooth / np.sqrt((kernel**2).sum())


def _hip_velocity(pose) -> np.ndarray:
    """[T-1, 2] px: how the middle between the hips moves, over half a second."""
    from animate_anywhere.vision.planted_feet.depth_share import smooth_over_time

    hips = np.where(pose.keypoints[:, 0, [8, 11], 2:] > 0, pose.keypoints[:, 0, [8, 11], :2], np.nan)
    return smooth_over_time(np.diff(hips.mean(1), axis=0), 8.0)
