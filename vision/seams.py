"""How well the windows of a long video join: figures, and a plot of them.

    seam_error(first, handed) -> float                  a window's first frame against the frame it was handed
    flow(before, after, hidden, hidden_after) -> float | None       px that the background moves between two frames
    plot(rows) -> [1, H, W, 3]                          drift and seam errors over the frames of a video

How far the background's colours have drifted says ``levels``.
"""

from collections.abc import Iterable
from math import floor, log10

import cv2
import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from . import alignment
from .alignment import displacement
from .registration import register

WIDTH, HEIGHT = 1280, 720  # px of the plot
LEFT, RIGHT = 90, 1250  # px: the plot's sides
DRIFT_PANEL = 80, 430  # px: top and bottom
SEAM_PANEL = 500, 650
MOST_NUMBERS = 24  # seams whose errors are all written out; of more only the worst is
INK, GREY, FAINT = (40, 40, 40), (130, 130, 130), (222, 222, 222)
BEFORE, AFTER, SEAM = (230, 126, 34), (31, 105, 180), (150, 60, 120)  # told apart by the colour-blind, too
FONT = cv2.FONT_HERSHEY_SIMPLEX


# --- figures ----------------------------------------------------------------------------------------------------------


def seam_error(first: Tensor, handed: Tensor) -> float:
    """Mean absolute difference of two pictures [H, W, 3] in 0…1, in steps of 8 bits: the first frame of a window
    against the same frame as the window before left it. Raises ValueError where the sizes differ."""
    if first.shape != handed.shape:
        raise ValueError(f"first: it is {tuple(first.shape)} and the frame handed over {tuple(handed.shape)}.")
    return float((first.float() - handed.float()).abs().mean()) * 255


def flow(
    before: Tensor, after: Tensor, hidden: ndarray | None = None, hidden_after: ndarray | None = None
) -> float | None:
    """How far the background moves from one frame [H, W, 3] to the next, in px on average over the picture, as its
    points outside the ``hidden`` masks [H, W] (nonzero: not background) agree on. None where they do not."""
    none = np.zeros(before.shape[:2], bool)
    masks = [none if mask is None else np.asarray(mask) != 0 for mask in (hidden, hidden_after)]
    moved = alignment.match(before, after, *masks, np.eye(3))
    if moved is None:  # farther than from frame to frame of a camera
        moved = register(before, after, *masks)
    return None if moved is None else float(displacement(moved, tuple(before.shape[:2])).mean())


# --- the plot ---------------------------------------------------------------------------------------------------------


def plot(rows: list[dict]) -> Tensor:
    """[1, 720, 1280, 3] in 0…1: the background's drift (ΔE) before and after control, a point a window, over the frames
    of the video, and the error of each seam (8-bit steps).

    rows: one a window, with start and length (frames), and drift, drift_before and seam, each None where it is not
    known.
    """
    canvas = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    last = max((row["start"] + row["length"] for row in rows), default=1)
    known = [value for row in rows for value in (row["drift"], row["drift_before"]) if value is not None]
    errors = [row for row in rows[1:] if row["seam"] is not None]

    def across(frame: float) -> int:
        return round(LEFT + (RIGHT - LEFT) * frame / last)

    for row in rows[1:]:
        for top, bottom in (DRIFT_PANEL, SEAM_PANEL):
            _dashed(canvas, across(row["start"]), top, bottom)
    up = _panel(canvas, DRIFT_PANEL, "Drift of the background's colours (delta E; 2 is just seen)", known, 2.0)
    for name, key, colour, at in (("before control", "drift_before", BEFORE, 840), ("after", "drift", AFTER, 1090)):
        points = [(across(row["start"] + (row["length"] - 1) / 2), row[key]) for row in rows]
        _line(canvas, [None if value is None else (x, up(value)) for x, value in points], colour)
        cv2.line(canvas, (at, 45), (at + 40, 45), colour, 3, cv2.LINE_AA)
        _write(canvas, name, (at + 50, 51), colour)
    up = _panel(canvas, SEAM_PANEL, "Seam error (steps of 8 bits)", [row["seam"] for row in errors], 1.0)
    worst = max((row["seam"] for row in errors), default=0)
    wide = min(4, (RIGHT - LEFT) // (3 * len(rows) + 1))
    for row in errors:
        x, y = across(row["start"]), up(row["seam"])
        cv2.rectangle(canvas, (x - wide, y), (x + wide, SEAM_PANEL[1]), SEAM, -1)
        if len(errors) <= MOST_NUMBERS or row["seam"] == worst:
            _write(canvas, f"{row['seam']:.1f}", (x, y - 6), SEAM, 0.45, centred=True)
    for frame in _ticks(last, 10):
        x = across(frame)
        cv2.line(canvas, (x, SEAM_PANEL[1]), (x, SEAM_PANEL[1] + 6), INK, 1)
        _write(canvas, f"{frame:g}", (x, SEAM_PANEL[1] + 26), INK, centred=True)
    _write(canvas, "frame", ((LEFT + RIGHT) // 2, SEAM_PANEL[1] + 54), INK, centred=True)
    return torch.from_numpy(canvas).float()[None] / 255


def _panel(canvas: ndarray, panel: tuple[int, int], title: str, values: list[float], least: float):
    """Draw a panel's frame, title and scale, from 0 to the largest of ``values`` or ``least``; the function from a
    value to its y."""
    top, bottom = panel
    most = max([least, *values]) * 1.15

    def up(value: float) -> int:
        return round(bottom - (bottom - top) * value / most)

    for value in _ticks(most, 5):
        cv2.line(canvas, (LEFT, up(value)), (RIGHT, up(value)), FAINT, 1)
        text = f"{value:g}"
        _write(canvas, text, (LEFT - 12 - _width(text, 0.5), up(value) + 6), INK)
    cv2.line(canvas, (LEFT, top), (LEFT, bottom), INK, 1)
    cv2.line(canvas, (LEFT, bottom), (RIGHT, bottom), INK, 1)
    _write(canvas, title, (LEFT, top - 29), INK, 0.6)
    if not values:
        _write(canvas, "not measured", ((LEFT + RIGHT) // 2, (top + bottom) // 2), GREY, 0.6, centred=True)
    return up


def _ticks(most: float, about: int) -> Iterable[float]:
    """Round numbers from 0 to ``most``, ``about`` so many."""
    rough = max(most, 1e-6) / about
    size = 10.0 ** floor(log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough * 0.999)
    return (round(step * i, 9) for i in range(floor(most / step) + 1))


def _line(canvas: ndarray, points: list[tuple[int, int] | None], colour: tuple[int, int, int]) -> None:
    """Through the points that are known; between two with a gap goes no line."""
    for point, following in zip(points, [*points[1:], None]):
        if point is not None:
            cv2.circle(canvas, point, 5, colour, -1, cv2.LINE_AA)
            if following is not None:
                cv2.line(canvas, point, following, colour, 2, cv2.LINE_AA)


def _dashed(canvas: ndarray, x: int, top: int, bottom: int) -> None:
    for y in range(top, bottom, 12):
        cv2.line(canvas, (x, y), (x, min(y + 5, bottom)), (190, 190, 190), 1)


def _width(text: str, size: float) -> int:
    return cv2.getTextSize(text, FONT, size, 1)[0][0]


def _write(
    canvas: ndarray, text: str, place: tuple[int, int], colour: tuple[int, int, int], size: float = 0.5, centred=False
) -> None:
    x = place[0] - (_width(text, size) // 2 if centred else 0)
    cv2.putText(canvas, text, (x, place[1]), FONT, size, colour, 1, cv2.LINE_AA)
