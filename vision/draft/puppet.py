"""The character as a puppet: its layers, made once, and drawn in any pose."""

from dataclasses import replace

import numpy as np
from numpy import ndarray

from .back_view import hide_face
from .character import Character
from .compositing import TORN, draw_layer
from .deformation import Target, deform
from .layers import CORE, cut_layers
from .mesh import cell_size
from .vectors import length

AS_SHOWN = 0.15  # trunks: an elbow and a wrist nearer to where the picture has them are held alike


class Puppet:
    def __init__(self, character: Character) -> None:
        self.character = character
        self.layers = cut_layers(character)
        self._back: ndarray | None = None

    def suit(self, targets: list[Target | None]) -> tuple[str, ...]:
        """Put the other arm, mirrored, in place of one that the picture hides, unless all
        ``targets`` hold it as the picture does. The names of the layers that were replaced."""
        replaced = {
            name: layer
            for name, layer in self.layers.stand_ins.items()
            if not _held_as_shown(self.character, name, targets)
        }
        self.layers = replace(self.layers, by_name=self.layers.by_name | replaced)
        return tuple(replaced)

    @property
    def colors(self) -> ndarray:
        """The colors [N, 3] of the character, without its edge."""
        return self.character.picture[self.character.alpha > 0.8]

    def draw(self, target: Target, order: list[str], size: tuple[int, int]) -> ndarray:
        """The character in a pose, [H, W, 4], colors times alpha, float32; ``order`` names the
        layers, the farthest first; ``size`` (width, height)."""
        canvas = np.zeros((size[1], size[0], 4), np.float32)
        positions = deform(self.character, self.layers, target)
        torn_px = TORN * cell_size(self.character.height) * target.scale
        for name in order:
            if layer := self.layers.by_name.get(name):
                draw_layer(canvas, layer, self._texture(name, target), positions[name], torn_px)
        return canvas

    def _texture(self, name: str, target: Target) -> ndarray:
        if name == CORE and target.mirrored and self.character.faces_us:
            if self._back is None:
                self._back = hide_face(self.character, self.layers)
            return self._back
        return self.layers.by_name[name].texture


def _held_as_shown(character: Character, name: str, targets: list[Target | None]) -> bool:
    """Whether all ``targets`` hold an arm as the picture does."""
    side = name.partition("_")[0]
    if side not in character.arms:
        return False
    rest = character.points
    for target in filter(None, targets):
        if target.mirrored:
            return False
        for joint in ("elbow", "wrist"):
            own = rest[f"{side}_{joint}"] - rest[f"{side}_shoulder"]
            now = target.points[f"{side}_{joint}"] - target.points[f"{side}_shoulder"]
            if length(now / target.scale - own) > AS_SHOWN * character.trunk:
                return False
    return True
