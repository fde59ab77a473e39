"""Tracks: points through time, as the host's Wan-Move nodes pass them on, and their drawing.

Pixels count from the picture's upper left corner (the first pixel's centre is at 0.5, 0.5), y down, as in
camera_path.py.
"""

import colorsys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
import torch
from torch import Tensor

from .frames import same_shape
from .mask import three_dimensions

RADIUS = 1 / 64  # of the picture's shorter side: 7.5 px at 480, clear after the VAE's eightfold reduction
GOLDEN = 0.618034  # of the colour circle from one point to the next: neighbours in the list never look alike
SUBPIXEL = 4  # bits of a pixel that OpenCV draws to

Progress = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class Tracks:
    """N points through T frames of ``width``×``height`` px (0: not known): ``path`` [T, N, 2] float32 px and
    ``visible`` [T, N] bool. Where a point is not visible, its path is where it is thought to be."""

    path: np.ndarray
    visible: np.ndarray
    width: int = 0
    height: int = 0

    def __len__(self) -> int:
        return len(self.path)

    @classmethod
    def from_host(cls, tracks: dict) -> "Tracks":
        """TRACKS as the host's nodes pass them: track_path [T, N, 2] and track_visibility [T, N] (or [T, N, 1], or
        [T, 1], one for all points; visible everywhere where it is missing). A point that is not finite is not visible.
        The size of the picture is known for tracks of ours; the host's nodes drop it.

        Raises ValueError for what is no TRACKS, where the shapes do not belong together, or no point is ever visible.
        """
        if not isinstance(tracks, dict) or "track_path" not in tracks:
            found = f"the keys {', '.join(map(str, tracks))}" if isinstance(tracks, dict) else type(tracks).__name__
            raise ValueError(f"tracks: expected TRACKS with a track_path, found {found or 'nothing'}. Wire TRACKS.")
        path = _array(tracks["track_path"], "track_path")
        if path.ndim != 3 or path.shape[-1] != 2 or not len(path):
            raise ValueError(
                f"tracks: track_path must be [frames, points, 2], with at least one frame; got {list(path.shape)}."
            )
        visible = np.ones(path.shape[:2])
        if tracks.get("track_visibility") is not None:
            visible = _array(tracks["track_visibility"], "track_visibility")
        if visible.ndim == 3 and visible.shape[-1] == 1:
            visible = visible[..., 0]
        visible = np.nan_to_num(visible) > 0
        if visible.shape not in (path.shape[:2], (len(path), 1)):
            raise ValueError(
                f"tracks: track_visibility is {list(visible.shape)}, but track_path has {path.shape[0]} frames and "
                f"{path.shape[1]} points."
            )
        visible = visible & np.isfinite(path).all(axis=-1)
        if not visible.any():
            raise ValueError(
                f"tracks: none of the {path.shape[1]} points is visible in any frame. Look at the report of the node "
                "that made them: a background without texture has no trackable points."
            )
        path = np.where(np.isfinite(path), path, 0)
        return cls(path, visible, *_size(tracks))

    def to_host(self) -> dict:
        """TRACKS for the host's nodes, which leave the size of the picture unread."""
        return {
            "track_path": torch.from_numpy(self.path),
            "track_visibility": torch.from_numpy(self.visible),
            "width": self.width,
            "height": self.height,
        }

    def on_canvas(self, width: int, height: int) -> "Tracks":
        """The same points on a picture of another size, stretched to it; points of unknown size are taken to be there
        already. Raises ValueError where no visible point lies within it."""
        path = self.path
        if self.width and self.height:
            path = path * np.float32([width / self.width, height / self.height])
        inside = (path >= 0).all(axis=-1) & (path < (width, height)).all(axis=-1)
        if not (inside & self.visible).any():
            raise ValueError(
                f"tracks: no visible point ever lies within {width}×{height} px. The tracks were made for a picture of "
                "another size: give that size."
            )
        return Tracks(path, self.visible, width, height)


def _array(values: object, key: str) -> np.ndarray:
    """``values`` of TRACKS as float32."""
    try:
        return torch.as_tensor(values).detach().float().cpu().numpy()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"tracks: {key} is not an array of numbers: {type(values).__name__}. Wire TRACKS.") from error


def _size(tracks: dict) -> tuple[int, int]:
    """Width and height in px that ``tracks`` say; 0, 0 where they say none that can be."""
    try:
        width, height = (int(tracks.get(side) or 0) for side in ("width", "height"))
    except (TypeError, ValueError, OverflowError):
        return 0, 0
    return (width, height) if min(width, height) > 0 else (0, 0)


def draw(
    tracks: Tracks, mask: Tensor | None = None, radius: float = 0, trail: int = 0, progress: Progress | None = None
) -> Tensor:
    """The background's motion as pictures, M = (1 - α) · T (Liu et al., eq. 2): [T, H, W, 3] in 0…1.

    T are the visible points as discs of ``radius`` px (0: in proportion to the picture) on black, each in a colour that
    it keeps, with the last ``trail`` steps of its way. ``mask`` [T, H, W] (or one for all) is the character's α; it is
    stretched to the tracks' size. ``progress`` is called with the number of frames drawn.

    Raises ValueError where the mask has another number of frames, or another shape.
    """
    alpha = None if mask is None else _alpha(mask, tracks)
    radius = radius or max(1.0, RADIUS * min(tracks.width, tracks.height))
    colours = [_colour(n) for n in range(tracks.path.shape[1])]
    out = torch.empty(len(tracks), tracks.height, tracks.width, 3)
    for t in range(len(tracks)):
        picture = np.zeros((tracks.height, tracks.width, 3), np.uint8)
        for n in np.flatnonzero(tracks.visible[t]):
            _draw_point(picture, tracks, t, n, radius, trail, colours[n])
        out[t] = torch.from_numpy(picture) / 255
        if alpha is not None:
            hidden = alpha[min(t, len(alpha) - 1)].float().cpu().numpy()
            hidden = cv2.resize(hidden, (tracks.width, tracks.height), interpolation=cv2.INTER_LINEAR)
            out[t] *= torch.from_numpy(1 - hidden.clip(0, 1))[..., None]
        if progress is not None:
            progress(t + 1)
    return out


def _alpha(mask: Tensor, tracks: Tracks) -> Tensor:
    """``mask`` as [T or 1, h, w], in the shape of the picture of ``tracks``."""
    mask = three_dimensions(mask)
    if len(mask) not in (1, len(tracks)):
        raise ValueError(
            f"mask: it has {len(mask)} frames, but tracks have {len(tracks)}. Make both from the same video; a single "
            "mask serves for every frame."
        )
    height, width = mask.shape[1:]
    if not same_shape((width, height), (tracks.width, tracks.height)):
        raise ValueError(
            f"mask: it is {width}×{height} px, which is another shape than the tracks' {tracks.width}×{tracks.height}. "
            "Make both from the same video."
        )
    return mask


def _colour(n: int) -> tuple[float, float, float]:
    return tuple(255 * part for part in colorsys.hsv_to_rgb(n * GOLDEN % 1, 1, 1))


def _draw_point(
    picture: np.ndarray, tracks: Tracks, t: int, n: int, radius: float, trail: int, colour: tuple[float, float, float]
) -> None:
    """The disc of point ``n`` in frame ``t``, and its way there, which is thinner and darker the older it is."""
    first = t
    while first > max(t - trail, 0) and tracks.visible[first - 1, n]:
        first -= 1
    way = np.clip(tracks.path[first : t + 1, n] - 0.5, -1e5, 1e5)  # OpenCV's pixels count from their centres
    way = np.rint(way * 2**SUBPIXEL).astype(int).tolist()
    for age, (start, end) in enumerate(pairwise(way), start=trail - (t - first) + 1):
        fresh = age / (trail + 1)
        dim = tuple(fresh * part for part in colour)
        cv2.line(picture, start, end, dim, max(1, round(radius * fresh)), cv2.LINE_AA, SUBPIXEL)
    reach = max(round((radius - 0.5) * 2**SUBPIXEL), 0)  # OpenCV's discs are half a pixel larger than told
    cv2.circle(picture, way[-1], reach, colour, cv2.FILLED, cv2.LINE_AA, SUBPIXEL)
