"""The moving background: one picture of a place, carried along by a motion, as a video."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .frames import same_shape
from .relief import Relief
from .track_motion import Motion
from .view import View, look, make_view, reach_of, sources

Progress = Callable[[int], None]


def move_background(
    picture: Tensor,
    motion: Motion,
    depth: Tensor | None = None,
    parallax: float = 1.0,
    zoom: float = 1.0,
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor]:
    """The frames [T, H, W, 3] of ``picture`` [1, h, w, 3 or 4] moving as ``motion`` says, in the motion's size, and
    ``revealed`` [T, H, W], 1 where the picture has nothing to show.

    The picture covers the first frame (another aspect ratio is cropped at the centre, and what was cropped comes into
    view when the camera goes there); ``zoom`` above 1 starts closer and leaves a margin to move in. ``depth`` [1, h, w,
    C], brighter is nearer, gives it parallax of that strength, see relief.py; the motion's own remainder, which is that
    of another place, is then left out.

    Raises ValueError where there is more than one picture, or the depth is of another shape.
    """
    moving = MovingPicture(picture, motion, depth, parallax, zoom)
    frames = torch.empty(len(motion), motion.height, motion.width, 3)
    revealed = torch.empty(len(motion), motion.height, motion.width)
    for t in range(len(motion)):
        frame, new = moving.frame(t)
        frames[t], revealed[t] = torch.from_numpy(frame), torch.from_numpy(new)
        if progress is not None:
            progress(t + 1)
    return frames, revealed


class MovingPicture:
    """A picture that moves, made frame by frame; its arguments are those of `move_background`."""

    def __init__(
        self, picture: Tensor, motion: Motion, depth: Tensor | None = None, parallax: float = 1.0, zoom: float = 1.0
    ) -> None:
        _check(picture, depth)
        size, reach = (motion.width, motion.height), reach_of(motion)
        self.motion = motion
        self.view = make_view(picture[0, ..., :3].float().cpu().numpy(), size, zoom, reach)
        self.relief = None
        if depth is not None:
            near = make_view(depth[0].float().cpu().numpy().mean(axis=-1), size, zoom, reach, match=self.view)
            self.relief = Relief(self.view, near.picture, motion, parallax)

    def frame(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        """Frame ``t`` [H, W, 3] in 0…1, and what is revealed [H, W]."""
        frame, new = _flat(self.view, self.motion, t) if self.relief is None else self.relief.frame(t)
        return frame.clip(0, 1), new


def _check(picture: Tensor, depth: Tensor | None) -> None:
    if len(picture) != 1:
        raise ValueError(
            f"background: it has {len(picture)} frames, and one picture is wanted. Put Get Image from Batch in front "
            "to choose one."
        )
    if depth is None:
        return
    if len(depth) != 1:
        raise ValueError(f"depth: it has {len(depth)} frames, and the depth of the one background picture is wanted.")
    height, width = picture.shape[1:3]
    if not same_shape((depth.shape[2], depth.shape[1]), (width, height)):
        raise ValueError(
            f"depth: it is {depth.shape[2]}×{depth.shape[1]} px and background {width}×{height} px, which are "
            "different shapes. Make the depth from this very picture."
        )


def _flat(view: View, motion: Motion, t: int) -> tuple[np.ndarray, np.ndarray]:
    """Frame ``t`` [H, W, 3] of a picture without depth, and what is revealed [H, W]."""
    x, y = sources(motion, t)
    return look(view.picture, view, x, y), view.revealed(x, y).astype(np.float32)
