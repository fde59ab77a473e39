"""Frames side by side on few pictures, small: what a page shows of a video while somebody scrubs through it."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from torch import Tensor

TILE = 256  # px, the longer side of a frame on a sheet
COLUMNS = ROWS = 8
QUALITY = 80  # of JPEG


@dataclass(frozen=True)
class Layout:
    """Where frame i lies: on sheet ``i // (columns * rows)``, row by row, in a tile of ``width``×``height`` px."""

    width: int
    height: int
    columns: int = COLUMNS
    rows: int = ROWS


def layout(width: int, height: int) -> Layout:
    """For frames of ``width``×``height`` px; small ones keep their size."""
    scale = min(1.0, TILE / max(width, height))
    return Layout(max(1, round(width * scale)), max(1, round(height * scale)))


def sheets(frames: Tensor) -> Iterator[bytes]:
    """``frames`` [T, H, W, 3 or 4] in 0…1 as JPEG files, one sheet after the other; the last one is cut to its rows."""
    tiles = layout(frames.shape[2], frames.shape[1])
    each = tiles.columns * tiles.rows
    for start in range(0, len(frames), each):
        part = frames[start : start + each]
        rows = -(-len(part) // tiles.columns)
        sheet = np.zeros((rows, tiles.height, tiles.columns, tiles.width, 3), np.uint8)
        for place, frame in enumerate(part):
            sheet[place // tiles.columns, :, place % tiles.columns] = small(frame, tiles.width, tiles.height)
        yield jpeg(sheet.reshape(rows * tiles.height, tiles.columns * tiles.width, 3))


def small(frame: Tensor, width: int, height: int) -> np.ndarray:
    """A frame [H, W, 3 or 4] in 0…1 as [height, width, 3] uint8."""
    # Every pixel of a large frame need not be looked at for a small one: two in each direction are enough.
    step = max(1, min(frame.shape[1] // (2 * width), frame.shape[0] // (2 * height)))
    pixels = np.ascontiguousarray(frame[::step, ::step, :3].float().cpu().numpy())
    return np.uint8(np.clip(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), 0, 1) * 255 + 0.5)


def jpeg(picture: np.ndarray) -> bytes:
    """A picture [H, W, 3] uint8 as a JPEG file."""
    _, file = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return file.tobytes()
