"""How likely a foot's move is, for every camera velocity, when it is planted and when lifted."""

import numpy as np
from numpy import ndarray

from .body import ANKLES, KNEES, Person

# Which of the right and left foot are planted: both, right, left, none.
STANCES = np.array([[1, 1], [1, 0], [0, 1], [0, 0]], bool)
PLANTED_NOISE_BY_SIZE = 0.005  # measured: 0.0030 to 0.0048 body sizes a frame on real clips
PLANTED_NOISE_BY_CAMERA = 0.06  # of the camera's way: feet roll, cameras are uneven
PLANTED_FREEDOM = 3.0  # Student's degrees of freedom
LIFTED_SCALE_BY_SIZE = 0.1
LIFTED_FREEDOM = 2.0
KNEE_LEAK = 0.1  # of the knee's move that a planted ankle shows: detectors draw it along
LOWER_FOOT_NATS = 1.0  # for the foot that is lower in the picture
LOWER_FOOT_BY_SIZE = 0.05  # by how much lower, for three quarters of that


def look_likelihoods(
    person: Person, known: ndarray, lag: int, velocities: ndarray, zoom: ndarray | None = None
) -> ndarray:
    """Likelihood of each look, a move over ``lag`` frames, in every stance and at every velocity.

    known: [S, 2] bool, feet to count with, S = T - lag. velocities: [V, 2] px a frame.
    zoom: [T-1] log growth of the picture about its middle, which is taken off the feet's moves.
    Returns float32 [S, 4, V], each look scaled to 1 at most. Neighboring looks overlap, so each
    counts 1 / lag.
    """
    planted, lifted = _foot_densities(person, lag, velocities, zoom)
    nats = np.zeros((len(known), len(STANCES), len(velocities)), np.float32)
    for foot in range(2):
        seen = known[:, foot, None]
        for stance, stands in enumerate(STANCES[:, foot]):
            nats[:, stance] += np.where(seen, (planted if stands else lifted)[:, foot], 0)
    lean = _lower_foot(person, known, lag)
    nats[:, 1] += lean[:, None]
    nats[:, 2] -= lean[:, None]
    nats /= lag
    return np.exp(nats - nats.max((1, 2), keepdims=True))


def log_student(square: ndarray, scale_square: ndarray, freedom: float) -> ndarray:
    """Log density of a Student t in the plane at squared distance ``square``."""
    spread = np.log1p(square / (freedom * scale_square))
    return -np.log(2 * np.pi * scale_square) - (freedom + 2) / 2 * spread


def _foot_densities(person: Person, lag: int, velocities: ndarray, zoom: ndarray | None) -> tuple[ndarray, ndarray]:
    """Log densities [S, 2, V] of each foot's move when planted and when lifted.

    A foot bears on its ankle, toe or heel, whichever are known, with equal chances: a heel may
    rise while the toe rests.
    """
    moves = person.contacts[lag:] - person.contacts[:-lag]  # [S, feet, points, 2]
    if zoom is not None:
        middle = (person.contacts[lag:] + person.contacts[:-lag]) / 2 - person.frame / 2
        total = np.lib.stride_tricks.sliding_window_view(zoom, lag).sum(1)
        moves = moves - middle * total[:, None, None, None]
    knees = np.where(person.measured[:, KNEES, None], person.joints[:, KNEES], np.nan)
    knees = knees[lag:] - knees[:-lag]
    way = lag * velocities
    planted_square = (PLANTED_NOISE_BY_SIZE * person.size) ** 2
    planted_square = planted_square + PLANTED_NOISE_BY_CAMERA**2 * (way**2).sum(-1)
    lifted_square = (LIFTED_SCALE_BY_SIZE * person.size) ** 2
    planted, lifted = [], []
    for point in range(moves.shape[2]):
        if not np.isfinite(moves[:, :, point, 0]).any():
            continue
        away = moves[:, :, point, None] - way  # [S, feet, V, 2]
        lifted.append(log_student((away**2).sum(-1), lifted_square, LIFTED_FREEDOM))
        if point == 0:
            leak = KNEE_LEAK * (knees[:, :, None] - way)
            away = away - np.where(np.isfinite(leak), leak, 0)
        planted.append(log_student((away**2).sum(-1), planted_square, PLANTED_FREEDOM))
    return _mean_density(planted), _mean_density(lifted)


def _mean_density(parts: list[ndarray]) -> ndarray:
    """Logarithm of the mean of densities, over those that are known."""
    if len(parts) == 1:
        return parts[0]
    parts = np.stack(parts)
    count = np.isfinite(parts).sum(0)
    parts = np.where(np.isfinite(parts), parts, -np.inf)
    return np.logaddexp.reduce(parts) - np.log(np.maximum(count, 1))


def _lower_foot(person: Person, known: ndarray, lag: int) -> ndarray:
    """[S] nats for "the right foot alone stands"; the left gets as many less."""
    height = person.joints[:, ANKLES, 1]
    height = (height[lag:] + height[:-lag]) / 2
    lean = np.tanh((height[:, 0] - height[:, 1]) / (LOWER_FOOT_BY_SIZE * person.size))
    return np.where(known.all(1), LOWER_FOOT_NATS * lean, 0)
