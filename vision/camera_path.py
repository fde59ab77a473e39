"""How a camera makes its picture of the background move: one homography a frame, whatever told it.

Pixels count from the picture's upper left corner (the first pixel's centre is at 0.5, 0.5), y down.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class CameraPath:
    """T frames of a camera that shows ``width``×``height`` px.

    ``homographies`` [T, 3, 3] float64 carry a background point's pixels in frame 0 to its pixels in frame t (the first
    is the identity). ``confidence`` [T] in 0…1: how far the step from frame t-1 to t is to be trusted (the first is 1).
    Raises ValueError where the shapes do not belong together.
    """

    homographies: np.ndarray
    width: int
    height: int
    confidence: np.ndarray

    def __post_init__(self) -> None:
        found, sure = self.homographies.shape, self.confidence.shape
        if found[1:] != (3, 3) or sure != found[:1] or not found[0]:
            raise ValueError(
                "camera_path: homographies must be [frames, 3, 3] and confidence [frames], of one frame at least; got "
                f"{list(found)} and {list(sure)}."
            )

    def __len__(self) -> int:
        return len(self.homographies)

    @classmethod
    def from_steps(cls, steps: np.ndarray, width: int, height: int, confidence: np.ndarray | None = None):
        """From what moves between neighbouring frames.

        ``steps`` [T-1, 4]: dx px, dy px, the natural logarithm of the scale, and roll in rad (positive turns the
        picture clockwise), so that a point x of frame t lies at c + d + e^scale R(roll) (x - c) in frame t+1, with c
        the picture's middle. ``confidence`` [T-1] of each step; certain where left out.
        """
        paths = [np.eye(3)]
        for step in similarities(steps, width, height):
            paths.append(step @ paths[-1])
        sure = np.ones(len(steps)) if confidence is None else confidence
        return cls(np.stack(paths), width, height, np.concatenate([[1.0], sure]))

    @property
    def steps(self) -> np.ndarray:
        """[T-1, 4] as from_steps() takes them: the similarity that the homography between two frames is nearest the
        picture's middle."""
        between = self.homographies[1:] @ np.linalg.inv(self.homographies[:-1])
        middle = np.array([self.width / 2, self.height / 2, 1.0])
        moved = between @ middle
        depth = moved[:, 2:]
        to = moved[:, :2] / depth
        # The derivative there, and its nearest similarity: a -b; b a.
        slope = (between[:, :2, :2] - to[:, :, None] * between[:, 2:, :2]) / depth[:, :, None]
        a, b = slope[:, 0, 0] + slope[:, 1, 1], slope[:, 1, 0] - slope[:, 0, 1]
        shape = np.stack([np.log(np.hypot(a, b) / 2), np.arctan2(b, a)], axis=1)
        return np.concatenate([to - middle[:2], shape], axis=1)

    def carry(self, points: np.ndarray) -> np.ndarray:
        """Where points [N, 2] px of frame 0 lie in every frame: [T, N, 2] px."""
        moved = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ self.homographies.transpose(0, 2, 1)
        return moved[..., :2] / moved[..., 2:]

    def resized(self, width: int, height: int) -> "CameraPath":
        """The same movement of a picture of another size, stretched as the picture is."""
        stretch = np.diag([width / self.width, height / self.height, 1.0])
        homographies = stretch @ self.homographies @ np.linalg.inv(stretch)
        return CameraPath(homographies, width, height, self.confidence)


def similarities(steps: np.ndarray, width: int, height: int) -> np.ndarray:
    """Steps [N, 4] as CameraPath.from_steps() takes them -> homographies [N, 3, 3]."""
    shift, scale, roll = steps[:, :2], np.exp(steps[:, 2]), steps[:, 3]
    middle = np.array([width / 2, height / 2])
    out = np.tile(np.eye(3), (len(steps), 1, 1))
    out[:, 0, 0] = out[:, 1, 1] = scale * np.cos(roll)
    out[:, 1, 0] = scale * np.sin(roll)
    out[:, 0, 1] = -out[:, 1, 0]
    out[:, :2, 2] = middle + shift - out[:, :2, :2] @ middle
    return out


def fit_steps(before: np.ndarray, after: np.ndarray, width: int, height: int) -> np.ndarray:
    """The similarities that best carry points ``before`` [S, N, 2] px to ``after`` [S, N, 2] px, by least squares.

    Points that are NaN in either are left out. Returns steps [S, 4] as CameraPath.from_steps() takes them; zeros where
    fewer than two points are left.
    """
    known = np.isfinite(before + after).all(-1)  # [S, N]
    middle = complex(width / 2, height / 2)
    one, other = (np.where(known, points[..., 0] + 1j * points[..., 1], 0) for points in (before, after))
    count = np.maximum(known.sum(1), 1)
    means = [points.sum(1) / count for points in (one, other)]
    one, other = ((points - mean[:, None]) * known for points, mean in zip((one, other), means))
    spread = (np.abs(one) ** 2).sum(1)
    turn = (one.conj() * other).sum(1) / np.where(spread > 0, spread, 1)  # e^(scale + i roll)
    shift = means[1] - middle - turn * (means[0] - middle)
    enough = (known.sum(1) > 1) & (np.abs(turn) > 0)
    turn = np.where(enough, turn, 1)
    return np.stack([shift.real, shift.imag, np.log(np.abs(turn)), np.angle(turn)], axis=1) * enough[:, None]
