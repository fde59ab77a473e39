"""The person in the character's picture, and its way to a Character of the draft's size."""

from typing import NamedTuple

import cv2
from numpy import ndarray

from ..mask import INSIDE
from ..pose import PoseTrack
from .character import Character, read_character
from .matte import refine_matte


class Subject(NamedTuple):
    """The person in a picture: ``picture`` [h, w, 3] and ``mask`` [h, w], float32 in 0…1, the mask
    ``coarse`` where a network made it; and the ``pose`` [1 frame, 1 person] on its canvas."""

    picture: ndarray
    mask: ndarray
    coarse: bool
    pose: PoseTrack


def cut_out(subject: Subject, scale: float) -> Character:
    """The character out of its picture, made ``scale`` times as large before.

    Raises ValueError, naming the socket, where nothing is left of it.
    """
    pixels, mask, track = subject.picture, subject.mask, subject.pose
    if scale != 1:
        size = max(8, round(track.width * scale)), max(8, round(track.height * scale))
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        pixels, mask = (cv2.resize(part, size, interpolation=method) for part in (pixels, mask))
        track = track.resized(*size)
    alpha = refine_matte(pixels, mask) if subject.coarse else mask
    if not (alpha > INSIDE).any():
        raise ValueError(
            "character: the person could not be cut out of it. Wire character_mask, white where "
            "the person is."
        )
    return read_character(pixels, alpha, track)
