"""What covers the background of a video, pixel by pixel: hidden by the person, still unfilled, how far to be trusted.

Four bytes a pixel hold all of it, and they are the memory of the mask [T, H, W] of floats that comes out at the end. So
a plate needs no more memory for a long video than for a short one, beyond what goes in and out.
"""

import numpy as np
from torch import Tensor

from .mask import INSIDE, close_lapses, grow_frame

CLEAR, BESIDE, HIDDEN = 0, 128, 255  # trust in a pixel as background; in this order, so that blends are cautious
GLIMPSE = 3  # frames: background seen for so short between two hidden moments is a lapse of the mask, mostly


class Coverage:
    """``hidden`` (by the person, ``grow`` px around ``mask`` [T, H, W] included) and ``unfilled`` (what of it is not
    filled yet) are bool, ``trust`` is of CLEAR, BESIDE, HIDDEN; all [T, H, W]."""

    def __init__(self, mask: Tensor, grow: int) -> None:
        self._planes = np.zeros((4, *mask.shape), np.uint8)  # the fourth for what is invented
        self.hidden, self.unfilled = self._planes[0].view(bool), self._planes[1].view(bool)
        self.trust = self._planes[2]
        for frame, out in zip(mask, self.hidden):
            out[:] = grow_frame((frame > INSIDE).cpu().numpy(), grow)
        self.unfilled[:] = self.hidden

    def judge(self, shy: int) -> None:
        """Work out ``trust``: pixels up to ``shy`` px around what is hidden are BESIDE."""
        self.trust[:] = self.hidden
        close_lapses(self.trust, GLIMPSE)
        for frame in self.trust:
            inside = frame > 0
            frame[:] = np.where(inside, HIDDEN, np.where(grow_frame(inside, shy), BESIDE, CLEAR))

    def note_invented(self) -> np.ndarray:
        """Keep what is unfilled now for ``invented``; how many pixels [T] of each frame that is."""
        self._planes[3] = self.unfilled
        return counts(self.unfilled)

    def invented(self) -> np.ndarray:
        """[T, H, W] float32, 1 where that was noted. To be asked for last: it overwrites all the rest."""
        floats = self._planes.reshape(-1).view(np.float32).reshape(self._planes.shape[1:])
        for out, noted in zip(floats, self._planes[3]):  # read behind what is written, until both meet at the end
            out[:] = noted.astype(np.float32)
        return floats


def counts(planes: np.ndarray) -> np.ndarray:
    """How many pixels [T] of each frame are set in ``planes`` [T, H, W]; frame by frame, since numpy copies."""
    return np.array([np.count_nonzero(plane) for plane in planes])
