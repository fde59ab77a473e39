"""Prompts as CogVideoX was trained with them: 226 tokens of T5, padded and cut off.

The host pads, but does not cut off. What T5 says of a token depends on all others, so a long text has to be cut before
T5 reads it, not after.
"""

from torch import Tensor

from .dit import TEXT_TOKENS
from .socket_type import wrong_type

Tokens = dict[str, list[list[tuple]]]  # encoder -> texts -> (token, weight, …), as the host's CLIP gives and takes them


def cut(tokens: Tokens, limit: int = TEXT_TOKENS) -> tuple[Tokens, int]:
    """``tokens`` of at most ``limit`` each, the last one, which ends the text, kept; and how many are left out."""
    left_out = max((len(text) - limit for texts in tokens.values() for text in texts), default=0)
    shorter = {
        name: [text if len(text) <= limit else [*text[: limit - 1], text[-1]] for text in texts]
        for name, texts in tokens.items()
    }
    return shorter, max(left_out, 0)


def check_conditioning(conditioning: object, socket: str, width: int | None = None) -> None:
    """Raise ValueError unless ``conditioning`` is CONDITIONING: at least one [text [B, S, D], options].

    width: D of the model that is to read it, where it is known.
    """
    remedy = "Connect a prompt (CLIP Text Encode), or No Prompt"
    if not isinstance(conditioning, list) or not conditioning:
        raise wrong_type(socket, conditioning, "a conditioning", remedy)
    for entry in conditioning:
        whole = isinstance(entry, list | tuple) and len(entry) == 2 and isinstance(entry[1], dict)
        if not whole or not isinstance(entry[0], Tensor) or entry[0].dim() != 3:
            raise wrong_type(socket, entry, "a conditioning of texts", remedy)
        if width is not None and entry[0].shape[-1] != width:
            raise ValueError(
                f"{socket}: it was made by a text encoder of width {entry[0].shape[-1]}, and the model reads {width}. "
                "Load the text encoder of this model (T5-XXL, type cogvideox), or use No Prompt."
            )
