"""What the artist sees of a node at work: its progress, and frames named in its report."""

from collections.abc import Callable

import comfy.model_management
import comfy.utils
import numpy as np


def progress_of(steps: int) -> Callable[[int], None]:
    """The host's progress bar, and its cancel button, for a function that counts up to ``steps``."""
    bar = comfy.utils.ProgressBar(steps)

    def done(count: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(count)

    return done


def ranges(frames: np.ndarray) -> str:
    """Frames [T] bool as text: "0-3, 17"."""
    edges = np.flatnonzero(np.diff(frames.astype(int), prepend=0, append=0)).reshape(-1, 2)
    return ", ".join(f"{start}" if end == start + 1 else f"{start}-{end - 1}" for start, end in edges)
