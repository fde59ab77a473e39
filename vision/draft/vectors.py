"""Plane geometry shared by the steps of the draft: directions, angles, segments, and a smooth step.

Points are pixels, y down, the center of the first pixel at (0, 0), as OpenCV counts.
"""

import numpy as np
from numpy import ndarray


def unit(vector: ndarray) -> ndarray:
    """``vector`` [2] at length 1; zeros stay zeros."""
    return vector / max(float(np.linalg.norm(vector)), 1e-6)


def length(vector: ndarray) -> float:
    return float(np.linalg.norm(vector))


def angle(vector: ndarray) -> float:
    """The direction of ``vector`` [2] in rad, clockwise on screen from the x axis."""
    return float(np.arctan2(vector[1], vector[0]))


def wrap_angle(radians: float) -> float:
    """The same direction in [-π, π)."""
    return (radians + np.pi) % (2 * np.pi) - np.pi


def rotation(radians: float) -> ndarray:
    cos, sin = np.cos(radians), np.sin(radians)
    return np.array([[cos, -sin], [sin, cos]])


def perpendicular(vector: ndarray) -> ndarray:
    return np.array([-vector[1], vector[0]])


def smoothstep(x: ndarray, low: float, high: float) -> ndarray:
    """0 up to ``low``, 1 from ``high`` on, with level ends."""
    share = np.clip((x - low) / (high - low + 1e-9), 0, 1)
    return share * share * (3 - 2 * share)


def project_on_segment(points: ndarray, start: ndarray, end: ndarray) -> tuple[ndarray, ndarray]:
    """Where ``points`` [..., 2] lie along a segment (0 at ``start``, 1 at ``end``, beyond them
    outside of 0…1), and how far they are from the segment in px."""
    along = end - start
    share = (points - start) @ along / max(float(along @ along), 1e-6)
    nearest = start + np.clip(share, 0, 1)[..., None] * along
    return share, np.linalg.norm(points - nearest, axis=-1)


def pixel_grid(height: int, width: int) -> ndarray:
    """The (x, y) of every pixel, [height, width, 2]."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y], axis=-1).astype(np.float64)
