"""The whole draft, frame by frame: the puppet in its performance before its place."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from .compositing import draw_over, foot_shadow, light_gain
from .performance import Performance
from .place import Place
from .puppet import Puppet


class DraftFrame(NamedTuple):
    """``image`` and ``background`` [H, W, 3], ``mask`` [H, W]: float32 in 0…1."""

    image: ndarray
    mask: ndarray
    background: ndarray


def render(
    puppet: Puppet,
    performance: Performance,
    place: Place,
    size: tuple[int, int],
    shadow: float,
    relight: float,
) -> Iterator[DraftFrame]:
    """Each frame of the draft, ``size`` (width, height). ``shadow`` 0 to 1: how dark the ground
    gets under the feet. ``relight`` 0 to 1: how far the character takes the place's light on."""
    gain = light_gain(puppet.colors, place.frame(0), relight)
    for t, target in enumerate(performance.targets):
        background = place.frame(t)
        if target is None:
            nobody = np.zeros(background.shape[:2], np.float32)
            yield DraftFrame(background, nobody, background)
            continue
        person = puppet.draw(target, performance.orders[t], size)
        ground = background
        if shadow > 0 and puppet.character.legs:
            dark = foot_shadow(target, puppet.character.trunk * target.scale, size)
            if dark is not None:
                ground = background * (1 - shadow * dark[..., None])
        image = draw_over(ground, person, gain)
        yield DraftFrame(image, person[..., 3].clip(0, 1), background)
