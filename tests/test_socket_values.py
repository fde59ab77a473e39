"""Frames and masks of other packs become float32 in 0…1, or one error says what is wrong with which frame."""

import math

import numpy as np
import odd_values
import pytest
import torch
import toys
from animate_anywhere.models.checkpoint import Adapter
from animate_anywhere.models.reference import prepare_character
from animate_anywhere.nodes import checked_node, socket_values, sockets
from animate_anywhere.nodes.adapter import EncodeReference
from animate_anywhere.nodes.dynamictrl import BlackOut
from animate_anywhere.nodes.mask import ShapeAgnosticMask
from animate_anywhere.nodes.shot import Shot
from comfy_api.latest import io

IMAGES = torch.randint(0, 256, (3, 4, 6, 3), generator=torch.Generator().manual_seed(0)) / 255


def left_half(frames=2, height=8, width=8):
    mask = torch.zeros(frames, height, width)
    mask[:, :, : width // 2] = 1
    return mask


@pytest.mark.parametrize("kind", odd_values.same_images(IMAGES))
def test_frames_become_float32_in_0_to_1(kind):
    value, meant = odd_values.same_images(IMAGES)[kind]
    frames = socket_values.read_frames(value)
    assert frames.dtype == torch.float32
    assert torch.equal(frames[..., :3], meant)


@pytest.mark.parametrize("kind", odd_values.bad_images(IMAGES))
def test_what_is_no_frames_is_refused(kind):
    with pytest.raises(ValueError, match="^start: "):
        socket_values.read_frames(odd_values.bad_images(IMAGES)[kind], "start")


def test_frames_that_are_right_are_not_copied():
    assert socket_values.read_frames(IMAGES).data_ptr() == IMAGES.data_ptr()
    gray = IMAGES[..., :1].contiguous()
    assert socket_values.read_frames(gray).data_ptr() == gray.data_ptr()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_first_frame_that_is_not_finite_is_named(value):
    images = IMAGES.clone()
    images[1, 2, 3, 0] = images[2, 0, 0, 0] = value
    with pytest.raises(ValueError, match="^images: frame 1 .* NaN or infinite"):
        socket_values.read_frames(images)


def test_the_first_frame_of_another_unit_is_named():
    images = IMAGES.clone()
    images[2, 0, 0, 0] = 7
    with pytest.raises(ValueError, match="^images: frame 2 .* to 7"):
        socket_values.read_frames(images)


def test_overshoot_is_cut_off():
    assert torch.equal(socket_values.read_frames(IMAGES * 1.2 - 0.1), (IMAGES * 1.2 - 0.1).clamp(0, 1))


def test_a_dark_video_of_bytes_stays_dark():
    assert float(socket_values.read_frames(torch.ones(1, 2, 2, 3, dtype=torch.uint8)).max()) == pytest.approx(1 / 255)


@pytest.mark.parametrize("kind", odd_values.same_masks(left_half()))
def test_masks_become_float32_in_0_to_1(kind):
    value, meant = odd_values.same_masks(left_half())[kind]
    mask = socket_values.read_mask(value)
    assert mask.dtype == torch.float32
    assert torch.equal(mask, meant)


@pytest.mark.parametrize("kind", odd_values.bad_masks(left_half()))
def test_what_is_no_mask_is_refused(kind):
    with pytest.raises(ValueError, match="^mask: "):
        socket_values.read_mask(odd_values.bad_masks(left_half())[kind])


def test_a_black_mask_is_told_with_where_it_comes_from():
    with pytest.raises(ValueError, match="^mask: it is black .64×64 px.* Load Image gives a black 64×64 mask"):
        socket_values.check_shows_somebody(torch.zeros(1, 64, 64))
    socket_values.check_shows_somebody(left_half())


def black_mask_calls():
    """By node: a call with the black mask that Load Image gives for a picture without alpha."""
    black, video = torch.zeros(1, 64, 64), torch.rand(5, 64, 64, 3)
    return {
        "Shape-Agnostic Mask": lambda: ShapeAgnosticMask.execute(black),
        "Encode Character Reference": lambda: EncodeReference.execute(
            Adapter(header=None, reference=object()), toys.taehv_vae(), video[:1], mask=black
        ),
    }


@pytest.mark.parametrize("node", black_mask_calls())
def test_a_node_that_needs_the_person_refuses_a_black_mask(node):
    with pytest.raises(ValueError, match=r"^mask: it is black \(64×64 px\)"):
        black_mask_calls()[node]()


def test_a_mask_that_covers_nearly_all_is_asked_about():
    around = torch.ones(3, 20, 20)
    around[:, 8:10, 8:10] = 0
    assert socket_values.doubt_about(around) == (
        "mask: it covers 99% of the picture; is it inverted? Then use Invert Mask"
    )
    assert socket_values.doubt_about(1 - around) == ""
    assert socket_values.doubt_about(left_half()) == ""
    assert socket_values.doubt_about(None) == ""


def test_a_close_up_is_not_asked_about():
    bust = torch.zeros(1, 20, 20)
    bust[:, 3:, 2:18] = 1  # 68 % of the picture, the lower edge and none of the others
    assert socket_values.doubt_about(bust) == ""


def test_a_node_without_a_report_shows_the_question():
    around = torch.ones(1, 20, 20)
    around[:, 8:12, 8:12] = 0
    picture = torch.rand(1, 20, 20, 3)
    assert "is it inverted?" in str(BlackOut.execute(picture, around, "background").ui.as_dict())
    assert BlackOut.execute(picture, 1 - around, "background").ui is None


def test_a_shot_says_that_a_black_mask_blanks_nothing():
    video = torch.rand(5, 16, 16, 3)
    report = Shot.execute(video, video, mask=torch.zeros(1, 16, 16)).result[1]
    assert "Mask: black in every frame, so nothing is blanked" in report


# --- the character's alpha


def cut_out():
    """A picture [1, 16, 16, 3], and alpha [1, 16, 16, 1] that shows its left half."""
    return torch.rand(1, 16, 16, 3), left_half(1, 16, 16)[..., None]


def test_what_is_transparent_is_no_part_of_the_character():
    picture, alpha = cut_out()
    rubbish = torch.where(alpha > 0, picture, torch.ones(3))
    assert torch.equal(
        prepare_character(torch.cat([rubbish, alpha], -1), None), prepare_character(picture, alpha[..., 0])
    )


def test_alpha_and_mask_count_together():
    picture, alpha = cut_out()
    top = left_half(1, 16, 16).transpose(1, 2)
    both = prepare_character(torch.cat([picture, alpha], -1), top)
    assert torch.equal(both, prepare_character(picture, top * alpha[..., 0]))


@pytest.mark.parametrize(("mask", "socket"), [(None, "character"), (1 - left_half(1, 16, 16), "mask")])
def test_a_character_of_which_nothing_is_left_is_refused(mask, socket):
    picture, alpha = cut_out()
    shown = torch.zeros_like(alpha) if mask is None else alpha
    with pytest.raises(ValueError, match=f"^{socket}: "):
        prepare_character(torch.cat([picture, shown], -1), mask)


# --- numbers, switches, options


class Widgets(sockets.Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="AA_Widgets",
            inputs=[
                io.Int.Input("count", min=1, max=8),
                io.Float.Input("share", min=0.0, max=1.0, optional=True),
                io.Boolean.Input("switch", optional=True),
                io.Combo.Input("way", options=["here", "there"], optional=True),
                checked_node.FileInput("file", options=["old"], optional=True),
                io.Image.Input("images", optional=True),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, count, share=0.5, switch=True, way="here", file="old", images=None):
        return io.NodeOutput((count, share, switch, way, file), getattr(cls.hidden, "unique_id", None))


def taken(**values):
    return Widgets.execute(**{"count": 1} | values).result[0]


@pytest.mark.parametrize(("value", "wanted"), [(3.0, 3), (np.int64(8), 8), (np.float32(2), 2)])
def test_a_whole_number_of_another_type_is_taken(value, wanted):
    count = taken(count=value)[0]
    assert count == wanted and type(count) is int


def test_a_whole_number_is_taken_for_a_share():
    share = taken(share=1)[1]
    assert share == 1 and type(share) is float


def test_what_an_optional_link_leaves_out_is_the_default():
    assert taken(share=None, way=None) == (1, 0.5, True, "here", "old")


def test_a_file_that_came_after_the_page_is_left_to_its_loader():
    assert taken(file="new")[4] == "new"
    with pytest.raises(ValueError, match="^way: 'new' is not one of its options. Use one of: here, there"):
        taken(way="new")


def test_an_error_says_what_may_be_given():
    with pytest.raises(ValueError, match=r"^count: 9 lies outside its range\. Use a whole number from 1 to 8\.$"):
        taken(count=9)


def test_numbers_are_checked_before_pixels():
    with pytest.raises(ValueError, match="^share: nan is not a finite number"):
        taken(images=torch.full((1, 2, 2, 3), math.nan), share=math.nan)


def test_the_host_runs_such_a_node_with_its_hidden_inputs():
    Widgets.GET_SCHEMA()
    prepared = Widgets.PREPARE_CLASS_CLONE({"hidden_inputs": {io.Hidden.unique_id: "7"}})
    assert prepared.EXECUTE_NORMALIZED(count=2.0).result == ((2, 0.5, True, "here", "old"), "7")
    with pytest.raises(ValueError, match="^count: 0 "):
        prepared.EXECUTE_NORMALIZED(count=0)


def test_a_vae_that_is_not_there_is_told():
    with pytest.raises(ValueError, match="^vae: there is no VAE in it"):
        EncodeReference.execute(object(), None, torch.rand(1, 16, 16, 3))
