"""The character cut into layers: what each holds, what is filled in, and which arm stands in for which."""

import draft_figures as figures
import numpy as np
import pytest
from animate_anywhere.vision.draft.clothing import fill_hidden, find_skirt
from animate_anywhere.vision.draft.deformation import Target
from animate_anywhere.vision.draft.layers import arm_trust, cut_layers
from animate_anywhere.vision.draft.parts import find_parts
from animate_anywhere.vision.draft.puppet import Puppet

ALL = {"core", "right_arm", "left_arm", "right_leg", "left_leg"}
# The right forearm across the belly.
ACROSS = figures.STANDING | {3: (88, 142), 4: (124, 150)}


@pytest.fixture(scope="module")
def layers():
    return cut_layers(figures.character())


def colors_of(layer):
    return layer.texture[..., :3] / np.maximum(layer.texture[..., 3:], 1e-3)


def shows(layer, name, tolerance=0.05):
    """How many pixels of a layer have the color of a drawn part."""
    near = (np.abs(colors_of(layer) - np.float32(figures.COLORS[name])) < tolerance).all(axis=-1)
    return int((near & (layer.texture[..., 3] > 0.5)).sum())


def at_rest(character, scale=1.0):
    return Target(dict(character.points), scale)


def test_a_whole_figure_has_five_layers(layers):
    assert set(layers.by_name) == ALL
    assert layers.stand_ins == {} and not layers.skirt


def test_each_limb_is_in_its_layer(layers):
    for name in figures.COLORS:
        side, _, part = name.partition("_")
        own = "core" if not part else f"{side}_{'arm' if 'arm' in part else 'leg'}"
        counts = {layer: shows(layers.by_name[layer], name) for layer in ALL}
        assert counts[own] == max(counts.values()) > 100, (name, counts)


def test_in_its_own_pose_the_figure_is_whole():
    """At rest the layers over each other are the picture: no seam, no gap."""
    character = figures.character()
    puppet = Puppet(character)
    order = ["right_leg", "left_leg", "core", "right_arm", "left_arm"]
    drawn = puppet.draw(at_rest(character), order, (figures.WIDTH, figures.HEIGHT))
    inside = character.alpha > 0.99
    assert drawn[..., 3][inside].min() > 0.99
    error = ((drawn[..., :3] - character.picture)[inside] ** 2).mean()
    assert -10 * np.log10(error) > 35


def test_the_trunk_goes_on_behind_an_arm():
    """Where the forearm lay there is cloth of the trunk, not the arm's color and not nothing."""
    character = figures.character(ACROSS)
    core = cut_layers(character).by_name["core"]
    x, y = 112, 147
    np.testing.assert_allclose(colors_of(core)[y, x], figures.COLORS["trunk"], atol=0.1)
    assert core.texture[y, x, 3] > 0.95


def test_hidden_pixels_mirror_the_nearest_border():
    colors = np.tile(np.linspace(0, 1, 40, dtype=np.float32)[None, :, None], (20, 1, 3))
    source = np.zeros((20, 40), bool)
    source[:, :20] = True
    hidden = np.zeros_like(source)
    hidden[:, 20:24] = True
    filled = fill_hidden(colors, source, hidden, height=1000)  # tall: nothing is softened so near
    for depth in range(4):
        assert filled[10, 20 + depth, 0] == pytest.approx(colors[10, 18 - depth, 0], abs=0.01)
    np.testing.assert_array_equal(filled[:, :20], colors[:, :20])


def test_trousers_are_no_skirt():
    character = figures.character()
    assert find_skirt(character, find_parts(character)) is None


def test_a_skirt_reaches_to_its_hem():
    character = figures.character(hem=260)
    above = find_skirt(character, find_parts(character))
    assert above[250, 120] and not above[276, 120]
    assert cut_layers(character).skirt


def test_an_arm_that_the_picture_folds_up_is_the_other_one_mirrored():
    character = figures.character(figures.STANDING | {4: (100, 104)})
    puppet = Puppet(character)
    assert arm_trust(character, "right") < 0.5 < arm_trust(character, "left")
    stretched = at_rest(figures.character())
    assert puppet.suit([stretched]) == ("right_arm",)
    assert shows(puppet.layers.by_name["right_arm"], "left_forearm") > 100


def test_an_arm_that_is_held_as_in_the_picture_stays_its_own():
    character = figures.character(figures.STANDING | {4: (100, 104)})
    puppet = Puppet(character)
    assert puppet.suit([at_rest(character), None]) == ()
    assert shows(puppet.layers.by_name["right_arm"], "right_forearm") > 30


def test_without_ankles_there_are_no_legs():
    joints = {joint: place for joint, place in figures.STANDING.items() if joint not in (10, 13)}
    assert set(cut_layers(figures.character(joints)).by_name) == ALL - {"right_leg", "left_leg"}


def test_a_picture_without_a_trunk_is_refused():
    joints = {joint: place for joint, place in figures.STANDING.items() if joint not in (8, 11)}
    with pytest.raises(ValueError, match="character: its trunk is not seen"):
        figures.character(joints)
