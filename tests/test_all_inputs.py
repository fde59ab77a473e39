"""Every node, with every kind of value that other packs hand over: it gives what it gives for the plain value, or one
ValueError that begins with the input's name."""

import dataclasses
import math

import actors
import numpy as np
import odd_values
import pytest
import scene
import test_pack
import torch
import toys
from animate_anywhere.models import checkpoint
from animate_anywhere.nodes import sockets
from animate_anywhere.nodes.checked_node import FileInput
from animate_anywhere.vision.camera_path import CameraPath
from animate_anywhere.vision.pose import PoseTrack
from comfy_api.latest import io

pytestmark = pytest.mark.usefixtures("no_gradients")

NODES = {node.GET_SCHEMA().node_id.removeprefix("AA_"): node for node in test_pack.node_list()}
KINDS = {
    "IMAGE": (odd_values.same_images, odd_values.bad_images),
    "MASK": (odd_values.same_masks, odd_values.bad_masks),
    "POSE_KEYPOINT": (odd_values.same_poses, odd_values.bad_poses),
    "TRACKS": (odd_values.same_tracks, odd_values.bad_tracks),
}
MANY = 2  # frames of what has a size of its own


def inputs_of(io_type):
    return [(name, each.id) for name, node in NODES.items() for each in node.define_schema().inputs
            if each.get_io_type() == io_type]  # fmt: skip


SOCKETS = [(io_type, *each) for io_type in KINDS for each in inputs_of(io_type)]
each_socket = pytest.mark.parametrize(("io_type", "name", "socket"), SOCKETS, ids=lambda part: part)


@pytest.fixture(scope="module")
def given(dance, tmp_path_factory):
    """By node: plain values for all inputs that carry pixels, poses or tracks, and for what these need."""
    base = toys.cogvideox_patcher()
    path = tmp_path_factory.mktemp("adapter") / "adapter.safetensors"
    checkpoint.save(path, checkpoint.Base.of(base.model.diffusion_model), toys.trained_groups(base))
    wall = scene.film(scene.wall(96, 128), scene.camera("pan", MANY, (48, 64)), (48, 64))
    wall = (wall * 255).round() / 255
    mask = scene.walker(MANY, (48, 64))
    dancer = (dance[:1] * 255).round() / 255
    danced, dancer_mask, _ = NODES["ExtractPose"].execute(dancer, "blazepose", 0.0).result
    video = actors.clip(actors.LANKY).resized(64, 48)
    pose = PoseTrack(video.keypoints[:MANY], 64, 48).to_openpose()
    grid = torch.tensor([[8.0, 8.0], [40.0, 8.0], [8.0, 40.0], [40.0, 40.0]])
    tracks = {
        "track_path": torch.stack([grid, grid + 2]),
        "track_visibility": torch.tensor([[True, True, True, True], [True, True, False, True]]),
        "width": 64,
        "height": 48,
    }
    steady = CameraPath(np.tile(np.eye(3), (MANY, 1, 1)), 64, 48, np.ones(MANY))
    reference = {"adapter": checkpoint.load(path), "vae": toys.taehv_vae(), "width": 16, "height": 16}
    return {
        "ExtractPose": {"images": dancer, "detector": "blazepose", "smoothing": 0.3},
        "SegmentCharacter": {"images": dancer, "pose": danced},
        "DrawPose": {"pose": pose, "images": wall},
        "DraftShot": {
            "character": dancer,
            "character_mask": (dancer_mask > 0.5).float(),
            "character_pose": danced,
            "pose": pose,
            "background": wall[:1],
            "camera_path": steady,
            "width": 64,
            "height": 48,
        },
        "RetargetPose": {"driving": pose, "reference": pose[:1]},
        "SavePose": {"pose": pose},
        "PoseToTracks": {"pose": pose},
        "ShapeAgnosticMask": {"mask": mask},
        "InpaintBackground": {"images": wall, "mask": mask},
        "TrackBackground": {"images": wall, "mask": mask},
        "DrawTracks": {"tracks": tracks, "mask": mask},
        "MoveBackground": {"background": wall[:1], "depth": wall[:1], "tracks": tracks, "camera_path": steady},
        "BlackOut": {"images": wall, "mask": mask, "blank": "background"},
        "EncodeReference": {"character": wall[:1], "mask": mask[:1], **reference},
        "Shot": {
            "pose": wall,
            "background": wall,
            "mask": mask,
            "start_pose": wall[:1],
            "start": wall[:1],
            "length": MANY,
        },
    }


def run(given, name, socket, value):
    """The result of a node with ``value`` on one socket."""
    values = given[name] | {socket: value}
    if name == "MoveBackground":
        del values["camera_path" if socket == "tracks" else "tracks"]
    return NODES[name].execute(**values).result


def equal(one, other):
    """Whether two results are the same, whatever they are made of."""
    if isinstance(one, torch.Tensor | np.ndarray):
        return one.shape == other.shape and bool((one == other).all())
    if dataclasses.is_dataclass(one):
        return equal(vars(one), vars(other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def test_no_socket_is_left_out(given):
    left = {(name, socket) for _, name, socket in SOCKETS if socket not in given.get(name, ())}
    assert not left


@each_socket
def test_another_form_of_a_value_gives_the_same(given, io_type, name, socket):
    if name == "SavePose":
        pytest.skip("it gives the name of a file; tests/test_pose_file.py reads these")
    plain = run(given, name, socket, given[name][socket])
    for kind, (value, meant) in KINDS[io_type][0](given[name][socket]).items():
        wanted = plain if meant is given[name][socket] else run(given, name, socket, meant)
        assert equal(run(given, name, socket, value), wanted), kind


@each_socket
def test_what_is_none_gets_one_error_that_names_the_socket(given, io_type, name, socket):
    optional = {each.id for each in NODES[name].define_schema().inputs if each.optional}
    for kind, value in KINDS[io_type][1](given[name][socket]).items():
        if value is None and socket in optional:
            continue
        with pytest.raises(ValueError, match=f"^{socket}: ") as caught:
            run(given, name, socket, value)
            pytest.fail(f"{kind} was taken")
        assert str(caught.value).count("\n") == 0, kind


@pytest.mark.parametrize(("name", "socket"), inputs_of("POSE_KEYPOINT"), ids=lambda part: part)
@pytest.mark.parametrize("kind", odd_values.empty_poses(1))
def test_a_pose_with_nobody_in_it_is_told(given, name, socket, kind):
    if name == "SavePose":
        pytest.skip("an empty pose is saved as it is")
    empty = odd_values.empty_poses(len(given[name][socket]))[kind]
    if name == "SegmentCharacter":
        empty = [{**frame, "canvas_width": 350, "canvas_height": 350} for frame in empty]
    with pytest.raises(ValueError, match=f"^{socket}: there is nobody in any of its"):
        run(given, name, socket, empty)


@pytest.mark.parametrize("kind", odd_values.same_images(torch.zeros(1, 8, 8, 3)))
def test_clips_of_another_form_are_stitched_alike(given, kind):
    clip = given["InpaintBackground"]["images"]
    value, meant = odd_values.same_images(clip)[kind]
    stitched = [NODES["StitchClips"].execute({"clip0": each, "clip1": clip}, 0).result for each in (value, meant)]
    assert stitched[0][0].shape[-1] == 3 and equal(*stitched)


@pytest.mark.parametrize("kind", odd_values.bad_images(torch.zeros(1, 8, 8, 3)))
def test_what_is_no_clip_is_refused(given, kind):
    clip = given["InpaintBackground"]["images"]
    with pytest.raises(ValueError, match="^clip1: "):
        NODES["StitchClips"].execute({"clip0": clip, "clip1": odd_values.bad_images(clip)[kind]}, 0)


# --- what has a widget


def plain(known):
    if isinstance(known, io.Image.Input):
        return torch.zeros(1, 8, 8, 3)
    if isinstance(known, io.Mask.Input):
        return torch.ones(1, 8, 8)
    if isinstance(known, io.Combo.Input):
        return known.options[0] if known.options else "a file"
    return known.default if isinstance(known, io.WidgetInput) and known.default is not None else object()


def wrong_values(known):
    if isinstance(known, io.Int.Input | io.Float.Input):
        outside = [known.min - 1, known.max * 2 + 1]
        halves = [known.min + 0.5] if isinstance(known, io.Int.Input) else []
        return [*outside, *halves, math.nan, math.inf, True, "1", None, torch.tensor(1)]
    if isinstance(known, io.Boolean.Input):
        return ["yes", 2, 0.5, None]
    if isinstance(known, io.Combo.Input) and not isinstance(known, FileInput):
        return ["no such option", 7, None, ["list"]]
    return [7, None, ["list"]]


WIDGETS = [(name, each.id) for name, node in NODES.items() for each in node.define_schema().inputs
           if isinstance(each, io.WidgetInput)]  # fmt: skip


@pytest.mark.parametrize(("name", "widget"), WIDGETS, ids=lambda part: part)
def test_a_value_that_no_widget_lets_through_is_refused_from_a_link_too(name, widget):
    inputs = {each.id: each for each in NODES[name].define_schema().inputs}
    values = {key: plain(each) for key, each in inputs.items() if not each.optional}
    for wrong in wrong_values(inputs[widget]):
        if wrong is None and inputs[widget].optional:
            continue
        with pytest.raises(ValueError, match=f"^{widget}: "):
            NODES[name].execute(**values | {widget: wrong})
            pytest.fail(f"{wrong!r} was taken")


def test_every_node_checks_its_inputs():
    assert all(issubclass(node, sockets.Node) for node in NODES.values())
