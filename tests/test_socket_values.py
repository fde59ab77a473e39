"""What other packs hand over becomes what the pack computes with, or one error that names the socket."""

import asyncio
import math
import sys

import numpy as np
import pytest
import torch
from animate_anywhere.nodes import checked_node, socket_values
from animate_anywhere.nodes.checked_node import CheckedNode
from comfy_api.latest import io

# --- images


@pytest.fixture
def picture():
    """Multiples of 1/255, so that bytes hold it exactly."""
    return torch.randint(0, 256, (3, 6, 8, 3)).float() / 255


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 0), (torch.float64, 1e-7), (torch.float16, 1e-3), (torch.bfloat16, 4e-3), (torch.uint8, 1e-7)],
)
def test_images_of_any_precision_become_the_same_floats(picture, dtype, tolerance):
    given = (picture * 255).round().to(dtype) if dtype == torch.uint8 else picture.to(dtype)
    value = socket_values.image_value(given, "images")
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, picture, rtol=0, atol=tolerance)


def test_good_frames_are_not_copied(picture):
    assert socket_values.image_value(picture, "images") is picture
    mask = picture[..., 0].contiguous()
    assert socket_values.mask_value(mask, "mask") is mask


def test_one_channel_becomes_gray(picture):
    value = socket_values.image_value(picture[..., :1], "images")
    assert value.shape == (3, 6, 8, 3) and torch.equal(value[..., 2], picture[..., 0])


def test_alpha_stays(picture):
    with_alpha = torch.cat([picture, picture[..., :1]], dim=-1)
    assert torch.equal(socket_values.image_value(with_alpha, "images"), with_alpha)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda images: images[..., :2], "expected frames × height × width × 3"),
        (lambda images: images[0], "expected frames × height × width × 3"),
        (lambda images: images[:0], "there is no picture in it"),
        (lambda images: images * math.nan, "frame 0 has pixels that are not numbers"),
        (lambda images: torch.where(torch.arange(3).view(3, 1, 1, 1) == 2, math.inf, images), "frame 2 has pixels"),
        (lambda images: images * 255 + 3, "frame 0 has pixels from .* An IMAGE has 0 to 1"),
        (lambda images: images.to(torch.complex64), ".*complex"),
        (lambda images: images.numpy(), "expected an IMAGE, found a ndarray"),
        (lambda _: None, "expected an IMAGE, found nothing"),
    ],
)
def test_images_that_are_none_are_refused_by_name(picture, spoil, message):
    with pytest.raises(ValueError, match=f"^character: {message}"):
        socket_values.image_value(spoil(picture), "character")


def test_an_overshoot_of_an_upscaler_is_no_error(picture):
    socket_values.image_value(picture * 1.2 - 0.1, "images")


# --- masks


@pytest.fixture
def mask():
    mask = torch.zeros(3, 6, 8)
    mask[:, 2:4, 3:7] = 1
    return mask


@pytest.mark.parametrize(
    "kind",
    [
        lambda mask: mask.bool(),
        lambda mask: mask.to(torch.uint8),
        lambda mask: (mask * 255).to(torch.uint8),
        lambda mask: mask * 255,
        lambda mask: mask.half(),
        lambda mask: mask.double(),
        lambda mask: mask[:, None],
        lambda mask: mask.long(),
    ],
    ids=["bool", "bytes 0 and 1", "bytes", "0…255", "half", "double", "[T, 1, H, W]", "long"],
)
def test_masks_of_any_kind_become_the_same_floats(mask, kind):
    value = socket_values.mask_value(kind(mask), "mask")
    assert value.dtype == torch.float32 and torch.equal(value, mask)


def test_a_mask_of_one_frame_gets_its_dimension(mask):
    assert torch.equal(socket_values.mask_value(mask[0], "mask"), mask[:1])


def test_a_mask_that_overshoots_is_clamped(mask):
    value = socket_values.mask_value(mask * 1.5 - 0.25, "mask")
    assert float(value.min()) == 0 and float(value.max()) == 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda mask: mask[..., None].expand(-1, -1, -1, 3), r"expected \[frames, height, width\]"),
        (lambda mask: mask[:0], "it is empty"),
        (lambda mask: mask * math.nan, "frame 0 has values from nan"),
        (lambda mask: (mask + 1) * math.inf, "frame 0 has values"),
        (lambda mask: mask * 1000, "frame 0 has values from 0 to 1000"),
        (lambda mask: mask - 10, "frame 0 has values from -10"),
        (lambda _: "mask.png", "expected a MASK, found a str"),
    ],
)
def test_masks_that_are_none_are_refused_by_name(mask, spoil, message):
    with pytest.raises(ValueError, match=f"^mask: {message}"):
        socket_values.mask_value(spoil(mask), "mask")


# --- widgets, whose limits a link goes past


@pytest.mark.parametrize("value", [0, -1, 300, math.nan, math.inf, True, "7", None, 24.5, [5], 2**80])
def test_whole_numbers_outside_their_range_are_refused(value):
    with pytest.raises(ValueError, match=r"^steps: .* Give one from 1 to 200\.$"):
        socket_values.number_value(value, "steps", whole=True, low=1, high=200)


def test_numbers_of_other_types_are_taken_where_nothing_is_lost():
    taken = socket_values.number_value(24.0, "steps", whole=True, low=1, high=200)
    assert taken == 24 and isinstance(taken, int)
    assert socket_values.number_value(np.float32(0.5), "fps", whole=False, low=0.01, high=1000) == 0.5
    assert socket_values.number_value(24, "fps", whole=False, low=0.01, high=1000) == 24.0


@pytest.mark.parametrize("value", [0, 0.0, math.nan, math.inf, -math.inf, 1e9, True, "24", None])
def test_numbers_outside_their_range_are_refused(value):
    with pytest.raises(ValueError, match=r"^fps: .* Give one from 0\.01 to 1000\.$"):
        socket_values.number_value(value, "fps", whole=False, low=0.01, high=1000)


def test_an_error_does_not_repeat_a_huge_value():
    with pytest.raises(ValueError, match="^method: ") as error:
        socket_values.choice_value("x" * 100_000, "method", ["ddim"])
    assert len(str(error.value)) < 200


# --- every node of the pack


def pack_nodes():
    async def found():
        extension = sys.modules["animate_anywhere"].AnimateAnywhere()
        await extension.on_load()
        return await extension.get_node_list()

    return asyncio.run(found())


NODES = pack_nodes()
INPUTS = [(node, item) for node in NODES for item in node.GET_SCHEMA().inputs]
# Read by the few nodes that have them.
OTHERS = {io.Audio.io_type, io.Clip.io_type, io.Tracks.io_type, io.Autogrow.io_type}


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.GET_SCHEMA().node_id)
def test_every_node_checks_its_inputs(node):
    assert issubclass(node, CheckedNode) and hasattr(node.execute.__func__, "__wrapped__")


@pytest.mark.parametrize(("node", "item"), INPUTS, ids=[f"{n.GET_SCHEMA().node_id}-{i.id}" for n, i in INPUTS])
def test_every_input_refuses_what_is_none_of_its_kind(node, item):
    is_file = item.id in node.FILE_INPUTS
    if item.get_io_type() in OTHERS:
        assert item.get_io_type() not in socket_values.SOCKET_VALUES
        return
    with pytest.raises(ValueError, match=rf"^{item.id}: "):
        checked_node._check(item, object(), is_file)
    if isinstance(item, io.Int.Input | io.Float.Input):
        assert item.min is not None and item.max is not None  # a link knows no other limits
        with pytest.raises(ValueError, match=rf"^{item.id}: nan "):
            checked_node._check(item, math.nan, is_file)


def test_a_node_is_not_called_with_what_is_refused():
    called = []

    class Counting(CheckedNode):
        @classmethod
        def define_schema(cls):
            inputs = [io.Image.Input("images"), io.Int.Input("count", default=1, min=1, max=4)]
            return io.Schema(node_id="Counting", inputs=inputs, outputs=[io.Image.Output()])

        @classmethod
        def execute(cls, images, count=1):
            called.append((images.dtype, count))
            return io.NodeOutput(images)

    with pytest.raises(ValueError, match="^count: 9 "):
        Counting.execute(torch.rand(1, 2, 2, 3), 9)
    assert not called
    Counting.execute(torch.rand(1, 2, 2, 3).half(), count=2)
    assert called == [(torch.float32, 2)]
