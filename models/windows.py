"""The windows of a shot: which frames are sampled together, which of them repeat the window before, and what is left
when all are joined. Arithmetic only.

A window has 8k+5 frames (latents.py). The last one may reach beyond the shot: it is filled with held frames, which are
cut off again.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from . import latents

LAST_FRAME, OVERLAP, NONE = "last frame", "overlap", "none"
HANDOVERS = (LAST_FRAME, OVERLAP, NONE)
TRAINED = {48: 45}  # heads -> frames: CogVideoX1.5-5B in AnimateAnywhere's training (section IV)
TINY = 29  # frames of the embedded default's clips
LONGEST = 10_000  # frames of a window that anybody may ask for


class Window(NamedTuple):
    """Frames ``start`` to ``start + length - 1`` of the shot, sampled at once."""

    index: int
    start: int
    length: int  # 8k+5
    shared: int  # frames at its start that the window before it has, too


@dataclass(frozen=True)
class Plan:
    """How ``total`` frames are made."""

    total: int
    handover: str
    shared: int  # frames that neighbours have in common
    blend: int  # of those, the last ones are cross-faded; the others come from the earlier window
    windows: tuple[Window, ...]

    def finished(self, window: Window) -> range:
        """The frames of the shot that are done once ``window`` is; together they are all frames, each once."""
        first = window.start + window.shared - self.blend if window.index else 0
        is_last = window.index == len(self.windows) - 1
        return range(first, self.total if is_last else window.start + window.length - self.blend)

    def __str__(self) -> str:
        count, length, shortest = len(self.windows), self.windows[0].length, self.windows[-1].length
        if count == 1:
            held = length - self.total
            return f"{self.total} frames in one window" + (f" of {length}, {held} held and cut off" if held else "")
        common = {LAST_FRAME: "each begins with the last frame of the one before", NONE: "nothing is handed over"}
        how = common.get(self.handover, f"{self.shared} frames in common, {self.blend} of them blended")
        lengths = f"{length}" if shortest == length else f"{length} and {shortest}"
        return f"{self.total} frames in {count} windows of {lengths} frames; {how}"


def trained_length(heads: int) -> int:
    """Frames that a model of so many heads was trained to make at once."""
    return TRAINED.get(heads, TINY)


def plan(total: int, length: int, handover: str = LAST_FRAME, overlap: int = 5, blend: int = 0) -> Plan:
    """Windows of at most ``length`` frames that make exactly ``total`` frames.

    As many windows as ``length`` needs, and these as alike as they can be: a tail of two new frames would be sampled
    with less context than any other. ``overlap`` is rounded down to 4n+1 frames, whole latent frames;
    ``blend`` is at most that. Raises ValueError, naming the input.
    """
    if total < 1:
        raise ValueError(f"length: a shot has at least one frame; this one has {total}.")
    if handover not in HANDOVERS:
        raise ValueError(f"handover: {handover!r} is not known. Choose one of {', '.join(HANDOVERS)}.")
    if length < latents.SHORTEST:
        raise ValueError(f"window: {length} frames are too few; a window has at least {latents.SHORTEST}.")
    if overlap < 1 or blend < 0:
        raise ValueError(f"overlap and blend: {overlap} and {blend} frames are not possible; at least 1 and 0 are.")
    longest = latents.valid_length(length)
    shared = {LAST_FRAME: 1, NONE: 0}.get(handover, latents.frames_of(latents.latent_frames(overlap)))
    if total > longest <= shared:
        raise ValueError(
            f"overlap: windows of {longest} frames that share {shared} bring nothing new. Choose an overlap below "
            f"{longest}, or longer windows."
        )
    count = 1 if total <= longest else -(-(total - shared) // (longest - shared))
    lengths = _lengths(total, count, shared)
    starts = [0, *accumulate(length - shared for length in lengths)]
    windows = tuple(Window(i, starts[i], length, shared if i else 0) for i, length in enumerate(lengths))
    return Plan(total, handover, shared if count > 1 else 0, min(blend, shared) if count > 1 else 0, windows)


def _lengths(total: int, count: int, shared: int) -> list[int]:
    """Of ``count`` windows that reach frame ``total``: the last ones are a step shorter where that is enough."""
    longer = latents.fitting_length(-(-(total - shared) // count) + shared)
    shorter = longer - latents.LENGTH_STEP
    if count == 1 or shorter <= shared:
        return [longer] * count
    spare = count * (longer - shared) + shared - total
    short = min(count - 1, spare // latents.LENGTH_STEP)
    return [longer] * (count - short) + [shorter] * short
