"""What a point of a picture looks like, kept to find it again: small squares, followed by Lucas-Kanade.

Points count from the first pixel's centre, as in OpenCV.
"""

from typing import NamedTuple

import cv2
import numpy as np

WINDOW = 25  # px of the Lucas-Kanade window
SIDE = 53  # px of a patch: the window, and room for what the camera does not explain
MIDDLE = (slice(SIDE // 2 - WINDOW // 2, SIDE // 2 + WINDOW // 2 + 1),) * 2  # of a patch: its window
REACH = 12  # px from where the camera says: farther away is another thing
CONTRAST = 40.0  # grey levels: every patch is brought to this spread, so that one bound fits bright and dim places
UNLIKE = 22.0  # grey levels, mean difference at that spread: two unrelated patches differ by 45
RETURN = 0.3  # px: forward and back again must end this near the start


class Patch(NamedTuple):
    """The surroundings of a point: ``pixels`` [SIDE, SIDE] uint8, and the ``gain`` that brought them to CONTRAST."""

    pixels: np.ndarray
    gain: float


def cut(grey: np.ndarray, place: np.ndarray) -> Patch:
    """The patch around ``place`` [2] px of ``grey`` [H, W] float32."""
    pixels = cv2.getRectSubPix(grey, (SIDE, SIDE), tuple(map(float, place)))
    gain = CONTRAST / max(float(pixels[MIDDLE].std()), 1e-3)
    return Patch(_levels(pixels[None], np.array([gain]))[0], gain)


def match(
    patches: list[Patch], grey: np.ndarray, places: np.ndarray, shapes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How far [N, 2] ``patches`` lie from where they are expected in ``grey`` [H, W] float32 (``places`` [N, 2] px,
    turned and scaled by ``shapes`` [N, 2, 2]), in their own pixels, and which [N] were found there at all."""
    now = np.empty((len(patches), SIDE, SIDE), np.float32)
    corners = places - shapes.sum(axis=2) * (SIDE // 2)
    warp = {"flags": cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, "borderMode": cv2.BORDER_REPLICATE}
    for picture, there in zip(now, np.concatenate([shapes, corners[..., None]], axis=2)):
        cv2.warpAffine(grey, there, (SIDE, SIDE), picture, **warp)
    now = _levels(now, np.array([patch.gain for patch in patches]))
    # All patches side by side are one small picture: Lucas-Kanade costs the same at any size of the video.
    once, now = _mosaic(np.stack([patch.pixels for patch in patches])), _mosaic(now)
    start = _middles(len(patches))
    options = {"winSize": (WINDOW, WINDOW), "maxLevel": 1}
    there, found, unlike = cv2.calcOpticalFlowPyrLK(once, now, start, None, **options)
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(now, once, there, None, **options)
    shifts = (there - start).astype(np.float64)
    good = (found.ravel() > 0) & (found_back.ravel() > 0) & (unlike.ravel() < UNLIKE)
    good &= (np.linalg.norm(back - start, axis=1) < RETURN) & (np.abs(shifts).max(axis=1) < REACH)
    return shifts, good


def _levels(patches: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """``patches`` [N, P, P] float32 as uint8, which is what OpenCV follows points in: each around middle grey and, by
    ``gains`` [N], at CONTRAST."""
    middle = patches[(slice(None), *MIDDLE)].mean(axis=(1, 2), keepdims=True)
    levels = (patches - middle) * np.float32(gains)[:, None, None] + 128
    return np.clip(np.rint(levels, out=levels), 0, 255, out=levels).astype(np.uint8)


def _columns(count: int) -> int:
    return int(np.ceil(np.sqrt(count)))


def _mosaic(patches: np.ndarray) -> np.ndarray:
    """``patches`` [N, P, P] row by row in one square picture."""
    count, side, _ = patches.shape
    columns = _columns(count)
    sheet = np.zeros((columns * columns, side, side), patches.dtype)
    sheet[:count] = patches
    return sheet.reshape(columns, columns, side, side).swapaxes(1, 2).reshape(columns * side, columns * side)


def _middles(count: int) -> np.ndarray:
    """Where the middles [N, 2] of N patches lie in their mosaic."""
    rows, columns = np.divmod(np.arange(count), _columns(count))
    return (np.stack([columns, rows], axis=1) * SIDE + SIDE // 2).astype(np.float32)
