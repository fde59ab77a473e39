"""What the artist sees of a node at work: its progress; and frames as they are named in reports and inputs."""

from collections.abc import Callable

import comfy.model_management
import comfy.utils
import numpy as np
from comfy_api.latest import ui


def progress_of(steps: int) -> Callable[[int], None]:
    """The host's progress bar, and its cancel button, for a function that counts up to ``steps``."""
    bar = comfy.utils.ProgressBar(steps)

    def done(count: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(count)

    return done


def shown(text: str) -> ui.PreviewText | None:
    """``text`` under a node that has no report; nothing where there is none."""
    return ui.PreviewText(text) if text else None


def ranges(frames: np.ndarray) -> str:
    """Frames [T] bool as text: "0-3, 17"."""
    edges = np.flatnonzero(np.diff(frames.astype(int), prepend=0, append=0)).reshape(-1, 2)
    return ", ".join(f"{start}" if end == start + 1 else f"{start}-{end - 1}" for start, end in edges)


def frames_of(text: str, count: int, socket: str) -> np.ndarray:
    """The other way round: "0-3, 17" as frames [count] bool. ValueError, naming the ``socket``, for what is none."""
    frames = np.zeros(count, bool)
    for part in filter(None, (part.strip() for part in text.split(","))):
        first, _, last = (word.strip() for word in part.partition("-"))
        if not (first.isdecimal() and (last or first).isdecimal()):
            raise ValueError(
                f'{socket}: {part!r} names no frames. Write them like this: "3, 7-9"; the first frame is 0.'
            )
        first, last = int(first), int(last or first)
        if not first <= last < count:
            raise ValueError(f"{socket}: {part} is not among the frames 0 to {count - 1}.")
        frames[first : last + 1] = True
    return frames
