"""Exact forward-backward over planted feet and the camera, which stands or moves at a velocity."""

from dataclasses import dataclass

import numpy as np
from numpy import ndarray

FINE_PX = 0.2  # a frame: where the velocity grid goes from even to logarithmic spacing
MAX_PX = (60.0, 30.0)  # a frame, across and down
CELLS = (45, 33)
PRIOR_SCALE = (1.6, 0.8)  # of arcsinh(v / FINE_PX): Laplace, across and down
DRIFT, WIDE_DRIFT = 0.16, 0.6  # of arcsinh(v / FINE_PX), from frame to frame
WIDE_SHARE = 0.2  # of the frames have the wide drift
STANDS_AT_FIRST = 0.6
KEEPS_STANDING = 0.997  # a frame
COMES_TO_STAND = 0.004  # a frame, of a camera that moves slowly
STANDS_FROM_ANYWHERE = 1e-4  # a frame, at any speed
FIRST_STANCE = np.array([0.4, 0.25, 0.25, 0.1])
LIFTS_LAST_FOOT = 0.003  # a frame: the only planted foot leaves the ground
LANDS = 0.25  # a frame, out of the air


@dataclass(frozen=True, eq=False)
class Axis:
    """Velocities along one axis: ``cells`` [n] evenly spaced in arcsinh(v / FINE_PX)."""

    cells: ndarray
    prior: ndarray
    drift: ndarray  # [n, n], from rows to columns

    @property
    def velocities(self) -> ndarray:
        return FINE_PX * np.sinh(self.cells)


@dataclass(frozen=True, eq=False)
class MotionModel:
    """How stances and cameras go on: ``stances`` [4, 4] from rows to columns, two axes, and the
    chance [nx, ny] that a moving camera comes to stand."""

    stances: ndarray
    across: Axis
    down: Axis
    stops: ndarray

    @property
    def velocities(self) -> ndarray:
        """[1 + nx ny, 2] px a frame; the first is 0, a camera that stands."""
        grid = np.meshgrid(self.across.velocities, self.down.velocities, indexing="ij")
        return np.concatenate([np.zeros((1, 2)), np.stack(grid, -1).reshape(-1, 2)])

    @property
    def prior(self) -> ndarray:
        return self.across.prior[:, None] * self.down.prior


@dataclass(frozen=True, eq=False)
class Posterior:
    """``velocity``, ``spread`` [S, 2]: median and deviation of a moving camera's velocity.

    ``stands`` [S]: probability that the camera stands; ``stance`` [S, 4] of the planted feet.
    ``log_moves``, ``log_stands``: log likelihood of all looks for a camera that may move, and for
    one that stands throughout.
    """

    velocity: ndarray
    spread: ndarray
    stands: ndarray
    stance: ndarray
    log_moves: float
    log_stands: float


def make_axis(most: float, count: int, scale: float) -> Axis:
    """``count`` cells up to ``most`` px a frame, with a Laplace prior of ``scale``."""
    end = np.arcsinh(most / FINE_PX)
    cells = np.linspace(-end, end, count)
    prior = np.exp(-np.abs(cells) / scale)
    apart = cells[:, None] - cells
    drift = (1 - WIDE_SHARE) / DRIFT * np.exp(-0.5 * (apart / DRIFT) ** 2)
    drift += WIDE_SHARE / WIDE_DRIFT * np.exp(-0.5 * (apart / WIDE_DRIFT) ** 2)
    return Axis(cells, prior / prior.sum(), drift / drift.sum(1, keepdims=True))


def make_model(cells: tuple[int, int] = CELLS) -> MotionModel:
    """The model of people and cameras that the constants above describe."""
    stances = np.array(
        [[0.90, 0.05, 0.05, 0], [0.06, 0.92, 0.02, 0], [0.06, 0.02, 0.92, 0], [0, 0, 0, 0]]
    )  # a foot stays down for about ten frames
    lifts = LIFTS_LAST_FOOT * np.array([0.3, 1, 1])
    stances[:3] *= 1 - lifts[:, None]
    stances[:3, 3] = lifts
    stances[3] = [0.25 * LANDS, 0.375 * LANDS, 0.375 * LANDS, 1 - LANDS]
    across, down = (make_axis(*parts) for parts in zip(MAX_PX, cells, PRIOR_SCALE))
    square = across.velocities[:, None] ** 2 + down.velocities**2
    stops = COMES_TO_STAND * np.exp(-0.5 * square) + STANDS_FROM_ANYWHERE
    return MotionModel(stances / stances.sum(1, keepdims=True), across, down, stops)


def run_filter(likelihood: ndarray, model: MotionModel) -> Posterior:
    """Filter and smooth looks with ``likelihood`` [S, 4, 1 + nx ny] (the first: camera stands)."""
    still = likelihood[..., 0].astype(float)
    moving = likelihood[..., 1:].reshape(len(still), 4, *model.stops.shape)
    forward, log_moves = _run_forward(still, moving, model)
    velocity, spread = np.zeros((2, len(still), 2))
    stands, stance = np.zeros(len(still)), np.zeros((len(still), 4))
    b_move, b_stand = np.ones(moving.shape[1:]), np.ones(4)
    for t in range(len(still) - 1, -1, -1):
        if t < len(still) - 1:
            b_move, b_stand = _go_back(b_move * moving[t + 1], b_stand * still[t + 1], model)
            peak = max(b_move.max(), b_stand.max())
            b_move, b_stand = b_move / peak, b_stand / peak
        move, stand = forward[t][0] * b_move, forward[t][1] * b_stand
        total = move.sum() + stand.sum()
        stands[t], stance[t] = stand.sum() / total, (move.sum((1, 2)) + stand) / total
        cells = move.sum(0) / max(move.sum(), 1e-300)
        for i, (axis, share) in enumerate(((model.across, cells.sum(1)), (model.down, cells.sum(0)))):
            # A mean would be drawn off by the far cells in frames where no foot tells.
            low, velocity[t, i], high = quantiles(share, axis.cells, (0.16, 0.5, 0.84))
            spread[t, i] = (high - low) / 2
    log_stands = _log_likelihood(still, model.stances)
    return Posterior(velocity, spread, stands, stance, log_moves, log_stands)


def quantiles(share: ndarray, cells: ndarray, at: tuple[float, ...]) -> ndarray:
    """Velocities below which parts ``at`` of the weights ``share`` [n] lie, between cells."""
    half = (cells[1] - cells[0]) / 2
    edges = np.concatenate([[cells[0] - half], cells + half])
    return FINE_PX * np.sinh(np.interp(at, np.concatenate([[0], np.cumsum(share)]), edges))


def _run_forward(still: ndarray, moving: ndarray, model: MotionModel) -> tuple[list, float]:
    """Filtered (moving [4, nx, ny], standing [4]) after each look, and the log likelihood."""
    move = (1 - STANDS_AT_FIRST) * FIRST_STANCE[:, None, None] * model.prior
    stand = STANDS_AT_FIRST * FIRST_STANCE
    forward, log_likelihood = [], 0.0
    for t in range(len(still)):
        if t:
            move, stand = _go_on(move, stand, model)
        move, stand = move * moving[t], stand * still[t]
        total = move.sum() + stand.sum()
        move, stand = move / total, stand / total
        log_likelihood += np.log(total)
        forward.append((move.astype(np.float32), stand))
    return forward, float(log_likelihood)


def _go_on(move: ndarray, stand: ndarray, model: MotionModel) -> tuple[ndarray, ndarray]:
    """Predict the next frame's state."""
    move = np.tensordot(model.stances.T, move, 1)
    stand = stand @ model.stances
    stopping = move * model.stops
    move = model.across.drift.T @ (move - stopping) @ model.down.drift
    move = move + (1 - KEEPS_STANDING) * stand[:, None, None] * model.prior
    return move, KEEPS_STANDING * stand + stopping.sum((1, 2))


def _go_back(move: ndarray, stand: ndarray, model: MotionModel) -> tuple[ndarray, ndarray]:
    """The transpose of _go_on()."""
    before = (1 - model.stops) * (model.across.drift @ move @ model.down.drift.T)
    before = before + model.stops * stand[:, None, None]
    starting = KEEPS_STANDING * stand + (1 - KEEPS_STANDING) * (move * model.prior).sum((1, 2))
    return np.tensordot(model.stances, before, 1), model.stances @ starting


def _log_likelihood(still: ndarray, stances: ndarray) -> float:
    """Of looks ``still`` [S, 4] before a camera that stands throughout."""
    state, total = FIRST_STANCE, 0.0
    for t, look in enumerate(still):
        state = (state @ stances if t else state) * look
        total += np.log(state.sum())
        state = state / state.sum()
    return float(total)
