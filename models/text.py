"""Prompts as CogVideoX was trained with them: 226 tokens of T5, padded and cut off.

The host pads, but does not cut off. What T5 says of a token depends on all others, so a long text has to be cut before
T5 reads it, not after.
"""

from .dit import TEXT_TOKENS

Tokens = dict[str, list[list[tuple]]]  # encoder -> texts -> (token, weight, …), as the host's CLIP gives and takes them


def cut(tokens: Tokens, limit: int = TEXT_TOKENS) -> tuple[Tokens, int]:
    """``tokens`` of at most ``limit`` each, the last one, which ends the text, kept; and how many are left out."""
    left_out = max((len(text) - limit for texts in tokens.values() for text in texts), default=0)
    shorter = {
        name: [text if len(text) <= limit else [*text[: limit - 1], text[-1]] for text in texts]
        for name, texts in tokens.items()
    }
    return shorter, max(left_out, 0)
