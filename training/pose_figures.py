"""How well a background's motion is read from poses, in figures: whatever reads it, the network or the geometry."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from ..models.pose_motion import PoseMotion
from ..vision import footing
from ..vision.camera_path import similarities
from ..vision.metrics import RIGHT
from ..vision.pose import PoseTrack
from . import pose_samples
from .rehearsal import Rehearsal

NOISE = 0.005  # trembling of noisy joints, of the body's size; BlazePose's on real clips is 0.004
MOVING = 1.0  # px of mean motion from which a step of the background has a direction

# keypoints [T, P, 18, 3] px, width, height -> steps [T-1, 4] as vision.camera_path takes them, confidence [T-1]
Reader = Callable[[Tensor, int, int], tuple[ndarray, ndarray]]


def learned(network: PoseMotion) -> Reader:
    """What the motion head reads."""

    def read(keypoints: Tensor, width: int, height: int) -> tuple[ndarray, ndarray]:
        motion = network.read(keypoints, width, height)
        return motion.steps.double().numpy(), motion.confidence.double().numpy()

    return read


def geometry(keypoints: Tensor, width: int, height: int) -> tuple[ndarray, ndarray]:
    """A Reader: what the feet alone tell."""
    path = footing.camera_path(PoseTrack(keypoints.double().numpy(), width, height))
    return path.steps, path.confidence[1:]


@dataclass(frozen=True)
class Figures:
    """Over all steps of some clips. ``correlation`` of dx, dy, scale and roll, lengths in heights of the frame;
    end-point errors in px over points of the background: ``error``, and that of a background which ``still`` stands,
    and of the best similarity (``floor``: what parallax leaves). ``direction``: share of the moving steps whose
    direction is right; ``clips``: the same for whole clips in which the camera moves. ``told``, ``untold``: mean
    confidence where a planted foot is in the frame nearly always, and elsewhere (NaN where there is no such clip).
    ``sure``, ``unsure``: error by motion in the third of the steps with the most, and the least, confidence."""

    correlation: tuple[float, ...]
    error: float
    still: float
    floor: float
    direction: float
    clips: float
    told: float
    untold: float
    sure: float
    unsure: float

    @property
    def lines(self) -> list[str]:
        parts = ", ".join(f"{name} {r:.3f}" for name, r in zip(("dx", "dy", "scale", "roll"), self.correlation))
        return [
            f"correlation: {parts}",
            f"end-point error {self.error:.3f} px, still background {self.still:.3f} px: {self.error / self.still:.3f}"
            f" of it (best similarity {self.floor / self.still:.3f})",
            f"direction right in {self.direction:.1%} of the steps that move by more than {MOVING:g} px, and in "
            f"{self.clips:.1%} of the clips that do",
            f"confidence {self.told:.2f} where the feet tell, {self.untold:.2f} elsewhere",
            f"error by motion {self.sure:.2f} in the surest third of the steps, {self.unsure:.2f} in the least sure",
        ]


def measure(read: Reader, known: list[Rehearsal], noisy: bool, seed: int = 0) -> Figures:
    """``read`` on the poses of rehearsed clips, as they are or as a detector would find them."""
    rows = []
    for number, clip in enumerate(known):
        width, height = clip.plan.width, clip.plan.height
        shot = pose_samples.shot_of(clip)
        if noisy:
            shot = pose_samples.spoil(shot, torch.Generator().manual_seed(seed + number), NOISE)
        steps, confidence = read(pose_samples.keypoints_of(shot, 0, width, height), width, height)
        rows.append(_compare(clip, steps, confidence))
    return _summary(rows)


def fields(clip: Rehearsal, steps: ndarray) -> tuple[ndarray, ndarray]:
    """How ``steps`` [T-1, 4] px and the truth move the points of the background: two fields [T-1, N, 2] px, zero for
    points that are lost."""
    moves = similarities(steps, clip.plan.width, clip.plan.height)
    after = clip.before @ moves[:, :2, :2].transpose(0, 2, 1) + moves[:, None, :2, 2]
    known = np.isfinite(clip.after)
    return np.where(known, after - clip.before, 0), np.where(known, clip.after - clip.before, 0)


def alike(one: ndarray, other: ndarray, axes: tuple[int, ...]) -> ndarray:
    """The cosine between two fields over ``axes``."""
    product = (one * other).sum(axes)
    return product / np.sqrt((one**2).sum(axes) * (other**2).sum(axes) + 1e-12)


def _compare(clip: Rehearsal, steps: ndarray, confidence: ndarray) -> dict[str, ndarray]:
    """What is told of one clip, by step."""
    guess, truth = fields(clip, steps)
    best, _ = fields(clip, clip.steps)
    lengths = np.array([clip.plan.height, clip.plan.height, 1, 1])
    error, still, floor = (np.linalg.norm(part - truth, axis=-1).mean(1) for part in (guess, 0 * guess, best))
    moves = still > MOVING
    return {
        "steps": np.stack([steps / lengths, clip.steps / lengths]),
        "errors": np.stack([error, still, floor]),
        "right": (alike(guess, truth, (1, 2)) > RIGHT)[moves],
        "clip": np.array([alike(guess, truth, (0, 1, 2)) > RIGHT] if still.mean() > MOVING else [], bool),
        "confidence": confidence,
        "told": np.full(len(steps), clip.told),
    }


def _summary(rows: list[dict[str, ndarray]]) -> Figures:
    column = {name: np.concatenate([row[name] for row in rows], axis=-1) for name in rows[0] if name != "steps"}
    guess, truth = np.concatenate([row["steps"] for row in rows], axis=1)
    error, still, floor = column["errors"]
    sure, told = column["confidence"], column["told"]
    low, high = np.quantile(sure, [1 / 3, 2 / 3])
    return Figures(
        correlation=tuple(float(np.corrcoef(guess[:, part], truth[:, part])[0, 1]) for part in range(4)),
        error=float(error.mean()),
        still=float(still.mean()),
        floor=float(floor.mean()),
        direction=float(column["right"].mean()),
        clips=float(column["clip"].mean()),
        told=float(sure[told].mean()) if told.any() else math.nan,
        untold=float(sure[~told].mean()) if not told.all() else math.nan,
        sure=float(error[sure >= high].sum() / still[sure >= high].sum()),
        unsure=float(error[sure <= low].sum() / still[sure <= low].sum()),
    )
