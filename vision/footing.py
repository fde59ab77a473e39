"""How a camera moves, told by the feet: a planted foot stands still in the world, so the background goes as it goes.

Which foot stands is not known beforehand. Every step from frame to frame has one of four cases (right, left, both,
neither), and the camera moves smoothly; expectation-maximisation finds the cases and the camera in turns, from three
starts, and the likeliest end is taken. Nothing here is learned.

Lengths are heights of the frame, from its middle; a step is dx, dy, the logarithm of the scale and roll in rad, as in
vision.camera_path.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from .camera_path import CameraPath
from .pose import SEEN, PoseTrack

ANKLES, NECK, HIPS, TRUNK = [10, 13], 1, [8, 11], [1, 2, 5, 8, 11]
# What a camera does, by the speed of the feet: pans most, tilts, scales and rolls less (deviations of a step), and how
# much of a step lives on in the next.
HABIT = np.array([1.0, 0.4, 0.5, 0.1])
STEADY = 0.97
SLOWEST = 0.002  # heights a frame: the speed of feet is taken for this at least
TREMBLE = 0.008  # of the body's size: how well a planted ankle's movement is known; it also rolls over the foot
SWING = 2.0  # how fast a lifted foot may be, by the speed of the feet
CASES = np.array([[1, 0], [0, 1], [1, 1], [0, 0]], bool)  # right, left, both, neither stands
CHANCES = np.array([0.33, 0.33, 0.32, 0.02])
LOWER = 0.04  # of the body's size: a foot so much lower in the picture than the other is likelier to stand
ROUNDS = 8
STRETCH = 0.010  # how well the trunk tells the body's growth in a step, of somebody who stays where he is
STEPPING = 0.05  # and by how much worse where the feet do not tell how fast he comes nearer
HORIZON = 2.8  # trunks from the feet up to the horizon, which is as high as the camera
STRIDE = 3  # frames to either side, of which twice the mean is taken: what strides move to and fro does not count
UNLEVEL = 0.8  # of somebody's coming nearer: what that height, which nothing tells, may add or take
APPLY = "bij,bj->bi"  # matrices to vectors
NEGLIGIBLE = 0.0015  # heights: an error of this size is as good as none


class Walk(NamedTuple):
    """What S steps show of one person. ``move``, ``place`` [S, 2, 2] and ``known`` [S, 2]: right and left ankle;
    ``growth`` [S] the logarithm of the trunk's growth,
    ``drift`` [S] how the middle between the feet moves down, ``middle`` [S, 2] where it is, and ``height`` [S] how far
    below the horizon (NaN where unknown); ``speed`` of the feet, ``size`` of the body, and how far its joints
    ``tremble`` from frame to frame."""

    move: ndarray
    place: ndarray
    known: ndarray
    growth: ndarray
    drift: ndarray
    middle: ndarray
    height: ndarray
    speed: float
    size: float
    tremble: float


def camera_path(track: PoseTrack, progress: Callable[[int], None] | None = None) -> CameraPath:
    """The camera before which the people of ``track`` (T frames) move as they do.

    Where several tell of the background, each counts by how little it is in doubt. Without anybody nothing moves, with
    no confidence. ``progress`` is called with the number of people done.
    """
    steps, crowd = len(track.keypoints) - 1, track.keypoints.shape[1]
    means, doubts = [np.zeros((steps, 4))], [np.ones((steps, 4))]
    for person in range(crowd):
        walk = _see(track, person)
        if walk is not None:
            mean, doubt = _read(walk)
            means.append(mean)
            doubts.append(doubt)
        if progress:
            progress(person + 1)
    weight = np.stack(doubts) ** -2.0
    weight /= weight.sum(0)
    mean, doubt = ((np.stack(part) * weight).sum(0) for part in (means, doubts))
    confidence = _confidence(mean, doubt, track.width / track.height)
    return CameraPath.from_steps(mean * [track.height, track.height, 1, 1], track.width, track.height, confidence)


def _confidence(steps: ndarray, doubt: ndarray, aspect: float) -> ndarray:
    """[S] in 0…1: the share of the motion that is told, reckoned as in models.pose_motion."""
    radius = (aspect**2 + 1) / 12
    weight = np.array([1, 1, radius, radius])
    told = steps**2 @ weight + NEGLIGIBLE**2
    return told / (told + doubt**2 @ weight)


def _see(track: PoseTrack, person: int) -> Walk | None:
    """What the joints of one person show; None where there is nobody in two frames running."""
    joints = track.keypoints[:, person]
    seen = joints[..., 2] >= SEEN
    if not (seen[1:] & seen[:-1]).any():
        return None
    place = (joints[..., :2] - [track.width / 2, track.height / 2]) / track.height
    place = np.where(seen[..., None], place, np.nan)
    size = _size(place)
    moves = np.diff(place, axis=0)
    both = np.isfinite(moves[..., 0])
    feet, known = moves[:, ANKLES], both[:, ANKLES]
    speeds = np.linalg.norm(feet[known] if known.any() else moves[both], axis=-1)
    speed = max(np.sqrt((speeds**2).mean()), SLOWEST)
    middle = (place[1:, ANKLES] + place[:-1, ANKLES]) / 2
    tremble = _tremble(place, size)
    return Walk(np.nan_to_num(feet), np.nan_to_num(middle), known, *_growth(place), float(speed), size, tremble)


def _size(place: ndarray) -> float:
    """The diagonal of the box around the body [T, 18, 2], its median over time."""
    there = np.isfinite(place).any((1, 2))
    spans = np.nanmax(place[there], axis=1) - np.nanmin(place[there], axis=1)
    return max(float(np.median(np.linalg.norm(spans, axis=-1))), 1e-3)


def _tremble(place: ndarray, size: float) -> float:
    """How well the movement of an ankle tells that of the ground, from how far the trunk is from moving evenly: six
    times the variance of noise is in a second difference, twice in a first."""
    bends = np.diff(place[:, TRUNK], n=2, axis=0)
    known = np.isfinite(bends)
    noise = np.median(np.abs(bends[known])) / 0.6745 / np.sqrt(6) if known.any() else 0.0
    return float(np.hypot(TREMBLE * size, np.sqrt(2) * noise))


def _growth(place: ndarray) -> tuple[ndarray, ...]:
    """Growth, drift, middle and height of a Walk, of joints [T, 18, 2], as calm as strides let them be."""
    length = np.linalg.norm(place[:, NECK] - place[:, HIPS].mean(1), axis=-1)
    between = place[:, ANKLES].mean(1)
    told = np.log(np.maximum(length, 1e-3)), *between.T
    logarithm, x, y = (_calm(_calm(values, STRIDE), STRIDE) for values in told)
    return np.diff(logarithm), np.diff(y), np.stack([x, y], 1)[:-1], HORIZON * np.exp(logarithm[:-1])


def _calm(values: ndarray, reach: int) -> ndarray:
    """The mean over ``reach`` values before and after each of ``values`` [S], of those that are no NaN."""
    kernel = np.ones(2 * reach + 1)
    known = np.isfinite(values)
    total = np.convolve(np.where(known, values, 0), kernel)[reach:-reach]
    count = np.convolve(known, kernel)[reach:-reach]
    return np.where(count > 0, total, np.nan) / np.maximum(count, 1)


def _read(walk: Walk) -> tuple[ndarray, ndarray]:
    """Steps [S, 4] and their deviation [S, 4], of the likeliest of three starts: the foot that is lower in the picture
    stands; the slower one; both."""
    lower = 1 / (1 + np.exp((walk.place[:, ::-1, 1] - walk.place[..., 1]) / (LOWER * walk.size)))
    pace = np.linalg.norm(walk.move, axis=-1)
    slower = (pace[:, ::-1] + SLOWEST) / (pace.sum(1, keepdims=True) + 2 * SLOWEST)
    stands = np.stack([lower, slower, np.full_like(lower, 0.5)]) * walk.known  # [3, S, 2]
    mean = np.zeros((*stands.shape[:2], 4))
    for _ in range(ROUNDS):
        mean, covariance = _smooth(*_evidence(walk, stands, mean), walk.speed)
        stands, likelihood = _expect(walk, mean, covariance)
    best = int(np.argmax(likelihood - _effort(mean, walk.speed)))
    return mean[best], np.sqrt(np.diagonal(covariance[best], axis1=-2, axis2=-1))


def _rows(walk: Walk) -> ndarray:
    """[S, 2, 2, 4]: how a step moves the ground under each foot."""
    rows = np.zeros((*walk.place.shape, 4))
    rows[..., 0, 0] = rows[..., 1, 1] = 1
    rows[..., 0, 2], rows[..., 1, 2] = walk.place[..., 0], walk.place[..., 1]
    rows[..., 0, 3], rows[..., 1, 3] = -walk.place[..., 1], walk.place[..., 0]
    return rows


def _evidence(walk: Walk, stands: ndarray, mean: ndarray) -> tuple[ndarray, ndarray]:
    """Information [B, S, 4, 4] and vector [B, S, 4] of feet that stand with probability ``stands`` [B, S, 2], and of
    the body's growth; ``mean`` [B, S, 4] is what the cameras are taken for so far."""
    rows, weight = _rows(walk), stands / walk.tremble**2
    information = np.einsum("bsf,sfki,sfkj->bsij", weight, rows, rows)
    vector = np.einsum("bsf,sfki,sfk->bsi", weight, rows, walk.move)
    row, growth, doubt = _scales(walk, mean)
    information += np.einsum("bs,si,sj->bsij", doubt**-2.0, row, row)
    vector += np.einsum("bs,si,s->bsi", doubt**-2.0, row, growth)
    return information, vector


def _scales(walk: Walk, mean: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """What the body's growth says about the camera's steps [S, 4], as row · step = growth: rows [S, 4], growth [S] and
    its doubt [B, S].

    A body grows where the picture does, and where somebody comes nearer. Who comes nearer goes down on the ground by as
    much, of the feet's distance from the horizon; so what the middle between the feet goes down, less what the ground
    under it does, is taken off.
    """
    x, y = walk.middle.T
    ground = np.stack([0 * x, 1 + 0 * x, y, x], 1)  # how a step moves it down
    row = np.array([0.0, 0, 1, 0]) - ground / walk.height[:, None]
    nearer = (walk.drift - np.einsum("si,bsi->bs", np.nan_to_num(ground), mean)) / walk.height
    doubt = np.hypot(STRETCH, UNLEVEL * nearer)
    growth = walk.growth - walk.drift / walk.height
    blind = ~np.isfinite(growth)  # without both feet
    row[blind], doubt[:, blind] = [0, 0, 1, 0], STRETCH + STEPPING
    growth = np.where(blind, walk.growth, growth)
    doubt[:, ~np.isfinite(growth)] = np.inf
    return row, np.nan_to_num(growth), doubt


def _smooth(information: ndarray, vector: ndarray, speed: float) -> tuple[ndarray, ndarray]:
    """Mean [B, S, 4] and covariance [B, S, 4, 4] of the camera's steps: Kalman's filter forwards, Rauch, Tung and
    Striebel's backwards."""
    habit = np.diag((HABIT * speed) ** 2)
    mean, covariance = np.zeros_like(vector), np.zeros_like(information)
    ahead = np.zeros_like(information)
    state, spread = np.zeros_like(vector[:, 0]), np.broadcast_to(habit, information[:, 0].shape)
    for step in range(vector.shape[1]):
        if step:
            state, spread = STEADY * state, STEADY**2 * spread + (1 - STEADY**2) * habit
        ahead[:, step] = spread
        before = np.linalg.inv(spread)
        spread = np.linalg.inv(before + information[:, step])
        state = np.einsum(APPLY, spread, np.einsum(APPLY, before, state) + vector[:, step])
        mean[:, step], covariance[:, step] = state, spread
    for step in range(vector.shape[1] - 2, -1, -1):
        gain = STEADY * covariance[:, step] @ np.linalg.inv(ahead[:, step + 1])
        mean[:, step] += np.einsum(APPLY, gain, mean[:, step + 1] - STEADY * mean[:, step])
        covariance[:, step] += gain @ (covariance[:, step + 1] - ahead[:, step + 1]) @ gain.swapaxes(-1, -2)
    return mean, covariance


def _expect(walk: Walk, mean: ndarray, covariance: ndarray) -> tuple[ndarray, ndarray]:
    """How likely each foot stands [B, S, 2] before the cameras ``mean``, and the likelihood of all that is seen [B]."""
    rows = _rows(walk)
    error = walk.move - np.einsum("sfki,bsi->bsfk", rows, mean)
    unsure = np.einsum("sfki,bsij,sfkj->bsfk", rows, covariance, rows)
    planted = _density(error, walk.tremble**2 + unsure)
    lifted = _density(error, np.full_like(error, (SWING * walk.speed) ** 2))
    each = np.where(CASES, planted[..., None, :], lifted[..., None, :])  # [B, S, cases, feet]
    each = np.where(walk.known[:, None], each, 0).sum(-1) + np.log(CHANCES)
    top = each.max(-1, keepdims=True)
    share = np.exp(each - top)
    likelihood = (np.log(share.sum(-1)) + top[..., 0]).sum(-1)
    share /= share.sum(-1, keepdims=True)
    return share @ CASES * walk.known, likelihood


def _density(error: ndarray, variance: ndarray) -> ndarray:
    """Logarithm of a normal density over the last axis."""
    return -0.5 * (error**2 / variance + np.log(variance)).sum(-1)


def _effort(mean: ndarray, speed: float) -> ndarray:
    """How unlikely a camera is to move as ``mean`` [B, S, 4] does: [B]."""
    habit = HABIT * speed
    change = (mean[:, 1:] - STEADY * mean[:, :-1]) / (habit * np.sqrt(1 - STEADY**2))
    return 0.5 * ((mean[:, 0] / habit) ** 2).sum(-1) + 0.5 * (change**2).sum((1, 2))
