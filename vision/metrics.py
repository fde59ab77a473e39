"""How near a video comes to the truth: PSNR, SSIM, colours, block pattern, and how its background moves.

Videos are [T, H, W, 3] in 0…1, masks [T, H, W] in 0…1. Pixel coordinates (x, y) have the centre of the top left pixel
at (0.5, 0.5).
"""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy import ndarray
from torch import Tensor

HIGHEST = 100.0  # dB: PSNR of equal videos, which would otherwise be infinite and spoil every mean
WINDOW, DEVIATION = 11, 1.5  # px: SSIM's Gaussian window (Wang et al. 2004)
LUMINANCE, CONTRAST = 0.01**2, 0.03**2  # SSIM's constants, for pictures in 0…1
LEVELS = 64  # quantiles at which two distributions of colours are compared

POINTS = 160  # of the background are followed at most
FEWEST = 5  # points that must agree before they are believed
APART = 1 / 32  # of the longer side: distance between points
SEEN = 21  # px of the Lucas-Kanade window
BLUR = 1.5  # px: generated frames differ in sharpness, which a blur makes more alike
RETURNS = 1.0  # px: a point followed there and back must come back this near
AGREES = 1 / 20  # of the longer side: parallax that a point may have against the picture's common motion
LEAP = 1 / 16  # of the longer side: more than this between two frames is no motion of a camera
SURE = 0.9  # correlation above which two whole pictures count as matched
RIGHT = 0.5**0.5  # cosine of 45°: a direction that is right


# --- pictures ---------------------------------------------------------------------------------------------------------


def _check_alike(video: Tensor, truth: Tensor) -> None:
    if video.shape != truth.shape:
        raise ValueError(
            f"video: it is {tuple(video.shape)} and the truth {tuple(truth.shape)} (frames, height, width, colours); "
            "make them equal in length and size."
        )


def psnr(video: Tensor, truth: Tensor, mask: Tensor | None = None) -> float:
    """Peak signal-to-noise ratio in dB, from the mean squared error of all frames together; at most HIGHEST.

    mask: counts pixels by their weight; nan where it is empty. Raises ValueError where the sizes differ.
    """
    _check_alike(video, truth)
    error = (video.double() - truth.double()).square().mean(-1)  # [T, H, W]
    if mask is not None:
        weight = mask.to(error)
        if not weight.any():
            return float("nan")
        error = error * weight / weight.mean()
    return float(-10 * error.mean().clamp_min(10 ** (-HIGHEST / 10)).log10())


def ssim(video: Tensor, truth: Tensor) -> float:
    """Structural similarity, at most 1: the mean over frames, colours and all places of a whole window."""
    _check_alike(video, truth)
    if min(video.shape[1:3]) < WINDOW:
        raise ValueError(f"video: SSIM looks at {WINDOW}×{WINDOW} px; frames of {tuple(video.shape[1:3])} are smaller.")
    return float(np.mean([_ssim(a, b) for a, b in zip(video, truth)]))


def _ssim(picture: Tensor, truth: Tensor) -> float:
    """One frame [H, W, 3]."""
    a, b = (part.double().movedim(-1, 0) for part in (picture, truth))  # [3, H, W]
    place = torch.arange(WINDOW, dtype=a.dtype, device=a.device) - WINDOW // 2
    kernel = (-(place**2) / (2 * DEVIATION**2)).exp()
    kernel = kernel / kernel.sum()
    moments = torch.cat([a, b, a * a, b * b, a * b])[:, None]  # [15, 1, H, W]
    moments = F.conv2d(F.conv2d(moments, kernel[None, None, :, None]), kernel[None, None, None])
    mean_a, mean_b, square_a, square_b, product = moments[:, 0].unflatten(0, (5, 3))
    spread_a, spread_b, joint = square_a - mean_a**2, square_b - mean_b**2, product - mean_a * mean_b
    above = (2 * mean_a * mean_b + LUMINANCE) * (2 * joint + CONTRAST)
    below = (mean_a**2 + mean_b**2 + LUMINANCE) * (spread_a + spread_b + CONTRAST)
    return float((above / below).mean())


def colour_error(video: Tensor, mask: Tensor, picture: Tensor, picture_mask: Tensor) -> float:
    """How far the colours inside ``mask`` are from those of a picture [H', W', 3] inside ``picture_mask``, in CIELAB.

    Distributions are compared, not places, since the person stands otherwise in both: along each of L, a and b the
    distance at equal quantiles (Wasserstein-1), joined as ΔE is. 2 is just seen, 10 is another tone. nan where a mask
    is empty.
    """
    parts = [_lab(video, mask), _lab(picture[None], picture_mask[None])]
    if any(not len(part) for part in parts):
        return float("nan")
    share = (np.arange(LEVELS) + 0.5) / LEVELS
    first, second = (np.quantile(part, share, axis=0) for part in parts)  # [LEVELS, 3]
    return float(np.linalg.norm(np.abs(first - second).mean(axis=0)))


def _lab(video: Tensor, mask: Tensor) -> ndarray:
    """The colours [N, 3] of pixels that are inside by more than half, in CIELAB."""
    inside = video[mask > 0.5].float().clamp(0, 1).cpu().numpy()  # [N, 3]
    return cv2.cvtColor(inside[None], cv2.COLOR_RGB2LAB)[0] if len(inside) else inside


def block_pattern(video: Tensor, side: int, mask: Tensor | None = None) -> float:
    """Mean step between neighbouring pixels on two sides of a border of blocks of ``side`` px, against that of all
    other neighbours: 1 where nothing tells the borders. Divide it by the truth's, whose contents are not chance.

    ``video`` [T, H, W, 3]; with ``mask`` [T, H, W] in 0…1 only neighbours within it count: an even background hides the
    pattern of a figure in front of it. NaN where there are none.
    """
    frames = video.double().mean(-1)
    mask = torch.ones_like(frames) if mask is None else mask.double()
    total = torch.zeros(2, 2, dtype=torch.float64)  # elsewhere, at borders; step, weight
    for dim in (1, 2):
        count = frames.shape[dim] - 1
        weight = torch.minimum(mask.narrow(dim, 0, count), mask.narrow(dim, 1, count))
        sums = torch.stack(
            [part.transpose(dim, 0).flatten(1).sum(1) for part in (frames.diff(dim=dim).abs() * weight, weight)]
        )
        border = (torch.arange(count) + 1) % side == 0
        total += torch.stack([sums[:, ~border].sum(1), sums[:, border].sum(1)]).cpu()
    elsewhere, at_border = total[:, 0] / total[:, 1]
    return float(at_border / elsewhere.clamp_min(1e-9))


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Between Gaussians fitted to two sets of features [N, D] and [M, D]: FID of pictures, FVD of videos."""
    first, second = first.double(), second.double()
    offset = (first.mean(0) - second.mean(0)).square().sum()
    a, b = ((part - part.mean(0)) / max(1, len(part) - 1) ** 0.5 for part in (first, second))  # aᵀa: the covariance
    # Tr √(AᵀA BᵀB) is the sum of the singular values of A Bᵀ, which needs no root of a matrix.
    return float(offset + a.square().sum() + b.square().sum() - 2 * torch.linalg.svdvals(a @ b.T).sum())


# --- how the background moves -----------------------------------------------------------------------------------------


def corners(frame: Tensor, background: ndarray) -> ndarray:
    """Places [P, 2] px that can be told from their neighbours, in a frame [H, W, 3], where ``background`` [H, W] is
    nonzero: on an even surface no video can show a motion."""
    apart = APART * max(frame.shape[:2])
    clear = cv2.erode((background > 0).astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=1)
    found = cv2.goodFeaturesToTrack(_grey(frame), POINTS, 0.01, apart, mask=clear, blockSize=5)
    return np.zeros((0, 2)) if found is None else found.reshape(-1, 2).astype(float) + 0.5


def follow(video: Tensor, points: ndarray, hidden: ndarray) -> ndarray:
    """Where ``points`` [P, 2] px of the first frame go, as the video shows it: [T, P, 2] px.

    Every point has an answer in every frame, or those videos would look best that show least. Points are followed by
    Lucas-Kanade from the first frame straight to each other one, there and back; the similarity that most of them
    agree on carries those that are lost (blurred away, covered, out of the picture). Where too few agree, whole
    pictures are matched; where that fails, too, nothing has moved that anyone could see.
    hidden: [T, H, W], nonzero where no background is.
    """
    grey = [_grey(frame) for frame in video]
    side = max(video.shape[1:3])
    start = (points - 0.5).astype(np.float32)
    common = np.eye(2, 3)  # of the first frame's pixels to this one's
    path = [start.astype(float)]
    for t in range(1, len(grey)):
        # The first frame turned and zoomed as the one before this is: a window of pixels only looks for where it went.
        alike = cv2.warpAffine(grey[0], common, grey[0].shape[::-1], borderMode=cv2.BORDER_REPLICATE)
        there, good = _track(alike, grey[t], _carry(common, start), path[-1], hidden[t])
        before, common = common, _common(grey[0], grey[t], start[good], there[good], common, hidden[0], side)
        good &= np.linalg.norm(there - _carry(common, start), axis=1) < AGREES * side
        carried = path[-1] + _carry(common, start) - _carry(before, start)
        path.append(np.where(good[:, None], there, carried))
    return np.stack(path) + 0.5


def _grey(frame: Tensor) -> ndarray:
    """uint8 [H, W]"""
    grey = cv2.cvtColor(frame.float().clamp(0, 1).cpu().numpy(), cv2.COLOR_RGB2GRAY)
    return np.rint(cv2.GaussianBlur(grey, (0, 0), BLUR) * 255).astype(np.uint8)


def _track(first: ndarray, frame: ndarray, start: ndarray, guess: ndarray, hidden: ndarray) -> tuple[ndarray, ndarray]:
    """Points ``start`` [P, 2] of ``first`` in this frame, near ``guess``: [P, 2], and which were found, bool [P]."""
    if not len(start):
        return start, np.zeros(0, bool)
    start, guess = start.astype(np.float32), guess.astype(np.float32)
    options = {"winSize": (SEEN, SEEN), "maxLevel": 3, "flags": cv2.OPTFLOW_USE_INITIAL_FLOW}
    there, found, _ = cv2.calcOpticalFlowPyrLK(first, frame, start, guess.copy(), **options)
    # The way back starts as far off as the way there ended from its guess: from the right place nothing could fail.
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(frame, first, there, start + there - guess, **options)
    good = (found.ravel() > 0) & (found_back.ravel() > 0) & (np.linalg.norm(back - start, axis=1) < RETURNS)
    x, y = np.rint(np.nan_to_num(there, nan=-1)).astype(int).T
    height, width = frame.shape
    good &= (x >= 0) & (y >= 0) & (x < width) & (y < height)
    good[good] &= hidden[y[good], x[good]] == 0
    return there, good


def _common(
    first: ndarray, frame: ndarray, start: ndarray, there: ndarray, before: ndarray, hidden: ndarray, side: int
) -> ndarray:
    """The motion [2, 3] of the whole picture from the first frame to this one; ``before``: to the frame before it."""
    if len(start) >= FEWEST:
        found, agree = cv2.estimateAffinePartial2D(start, there, ransacReprojThreshold=0.02 * side)
        if found is not None and agree.sum() >= max(FEWEST, 0.3 * len(start)) and _sane(found, before, frame, side):
            return found
    found = _match(first, frame, before, hidden)
    return before if found is None or not _sane(found, before, frame, side) else found


def _match(first: ndarray, frame: ndarray, guess: ndarray, hidden: ndarray) -> ndarray | None:
    """The affine motion [2, 3] that makes the pictures most alike (Evangelidis and Psarakis, 2008), from ``guess``."""
    background = (hidden == 0).astype(np.uint8)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 1e-4)
    try:
        alike, found = cv2.findTransformECC(
            first, frame, guess.astype(np.float32), cv2.MOTION_AFFINE, stop, background, 5
        )
    except cv2.error:  # it has not converged
        return None
    return found.astype(float) if alike > SURE else None


def _sane(motion: ndarray, before: ndarray, frame: ndarray, side: int) -> bool:
    height, width = frame.shape
    edges = np.array([[0, 0], [width, 0], [0, height], [width, height]], float)
    return bool(np.linalg.norm(_carry(motion, edges) - _carry(before, edges), axis=1).max() < LEAP * side)


def _carry(motion: ndarray, points: ndarray) -> ndarray:
    """``points`` [P, 2] through an affine ``motion`` [2, 3]."""
    return points @ motion[:, :2].T + motion[:, 2]


def end_point_error(path: ndarray, truth: ndarray, visible: ndarray) -> float:
    """Mean distance in px of where points are, [T, P, 2], from where they should be, after the first frame and where
    ``visible`` [T, P]; nan where none is."""
    there = visible[1:].astype(bool)
    if not there.any():
        return float("nan")
    return float(np.linalg.norm(path - truth, axis=-1)[1:][there].mean())


def still(truth: ndarray) -> ndarray:
    """The path [T, P, 2] of points in a video that does not move: what a motion's error is to be compared with."""
    return np.broadcast_to(truth[:1], truth.shape)


def direction(path: ndarray, truth: ndarray, visible: ndarray) -> float:
    """Cosine, -1…1, between how far points have gone from their first place and how far they should have, over all
    points and frames together: 1 where the motion is right up to its amount, 0 where nothing moves."""
    there = visible[1:].astype(bool)
    gone, should = ((part - truth[0])[1:][there] for part in (path, truth))  # [N, 2]
    lengths = float(np.linalg.norm(gone) * np.linalg.norm(should))
    return float((gone * should).sum()) / lengths if lengths > 1e-9 else 0.0
