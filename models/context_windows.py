"""The host's context windows (its node Context Windows (Manual)) on shots: each step looks at short pieces of a long
latent, one after the other, and fuses what comes out.

The host cuts what is as long as the latent along time; what it must know of a shot's conditions stands here.
"""

from collections.abc import Sequence

from comfy.context_windows import ContextHandlerABC, ContextWindowABC, IndexListContextHandler, slice_cond
from torch import Tensor

from .latents import PATCH

TIME = 2  # the dimension of latents [B, 16, t, h, w] that is time
SETTINGS = f"In Context Windows (Manual), set dim to {TIME}, causal_window_fix off"


def resize(cond_key: str, cond_value, window: ContextWindowABC, x_in: Tensor, device=None, **_) -> object | None:
    """A condition as ``window`` is to see it; None leaves it to the host. BaseModel.resize_cond_for_context_window.

    Latents that the host is told to retain in every window are those of the start picture; a pose is always its
    window's own. Text is never cut, though as wide as the latent may be long.
    """
    if cond_key == "aa_pose":
        return slice_cond(cond_value, window, x_in, device, temporal_dim=TIME)
    return cond_value if cond_key == "c_crossattn" else None


def check(handler: ContextHandlerABC | None, shape: Sequence[int]) -> None:
    """Raise ValueError where ``handler`` would cut latents of ``shape`` [B, 16, t, h, w] so that CogVideoX 1.5, which
    pairs latent frames, has to invent one: the host pads circularly, which spoils the end of each window."""
    if not isinstance(handler, IndexListContextHandler):
        return
    if handler.dim != TIME:
        raise ValueError(f"model: its context windows cut dimension {handler.dim}, and time is {TIME}. {SETTINGS}.")
    length, overlap = handler.context_length, handler.context_overlap
    if shape[TIME] <= length:
        return
    if length % PATCH or overlap >= length:
        raise ValueError(
            f"model: its context windows have {length} latent frames, {overlap} of them in common. CogVideoX 1.5 "
            f"pairs latent frames. {SETTINGS}, context_length to an even number, and context_overlap to less."
        )
    if handler.causal_window_fix:
        raise ValueError(
            f"model: causal_window_fix puts one latent frame in front of context windows of {length}, and CogVideoX "
            f"1.5 pairs latent frames. {SETTINGS}."
        )
