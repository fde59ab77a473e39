"""DWPose against rtmlib on toy networks with the same interface, and what becomes of its 133 points."""

import builtins

import dwpose_toys as toys
import numpy as np
import pytest
import torch
from animate_anywhere.vision import dwpose, network_file
from animate_anywhere.vision.dwpose import DWPose
from animate_anywhere.vision.network_file import load_network
from animate_anywhere.vision.tracking import Identities
from comfy_extras import nodes_sdpose
from rtmlib import YOLOX, RTMPose
from rtmlib.tools.object_detection.post_processings import multiclass_nms


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The toy networks as files: TorchScript and ONNX."""
    folder = tmp_path_factory.mktemp("networks")
    people, points = toys.people_network(), toys.points_network()
    return {
        "people.pt": toys.save_torchscript(people, folder / "yolox_l.torchscript.pt", toys.SIZE),
        "points.pt": toys.save_torchscript(points, folder / "dw_bs5.torchscript.pt", toys.CROP, batch=5),
        "people.onnx": toys.save_onnx(people, folder / "yolox_l.onnx", toys.SIZE),
        "points.onnx": toys.save_onnx(points, folder / "dw.onnx", toys.CROP),
    }


@pytest.fixture(scope="module", params=["pt", "onnx"])
def ours(request, files):
    people, points = (load_network(files[f"{name}.{request.param}"], "cpu") for name in ("people", "points"))
    return DWPose(people, points, toys.SIZE, toys.CROP)


@pytest.fixture(scope="module")
def theirs(files):
    yolox = YOLOX(str(files["people.onnx"]), toys.SIZE, "multiclass", dwpose.OVERLAP, dwpose.SCORE)
    return yolox, RTMPose(str(files["points.onnx"]), toys.CROP[::-1])


def picture(height, width, seed=0):
    """Bytes [height, width, 3], smooth enough that resampling matters little, and blue first."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.ascontiguousarray(small.repeat(-(-height // 6), 0)[:height].repeat(-(-width // 8), 1)[:, :width])


SHAPES = [(64, 96), (90, 60), (48, 200), (131, 97)]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_letterbox_equals_rtmlibs(theirs, shape):
    frame = picture(*shape)
    padded, ratio = theirs[0].preprocess(frame)
    letter = dwpose.letterbox(frame, toys.SIZE)
    assert np.array_equal(letter.picture, padded) and letter.ratio == ratio


@pytest.mark.parametrize("shape", SHAPES)
def test_people_are_found_where_rtmlib_finds_them(ours, theirs, shape):
    frame = picture(*shape)
    boxes, classes = theirs[0](frame)
    expected = boxes[classes == dwpose.PERSON]
    found = ours.find(frame)
    assert len(found) == len(expected) > 3
    # Pixels of the frame; the two runtimes add up in other orders.
    assert np.allclose([box for box, _ in found], expected, atol=1e-3)


def test_suppression_equals_rtmlibs():
    random = np.random.default_rng(0)
    corners = random.uniform(0, 80, (300, 2))
    boxes, scores = np.hstack([corners, corners + random.uniform(5, 60, (300, 2))]), random.random(300)
    _, kept = multiclass_nms(boxes, scores[:, None], dwpose.OVERLAP, dwpose.SCORE)
    assert dwpose.suppress(boxes, scores) == kept.tolist()


@pytest.mark.parametrize("box", [(20, 10, 60, 90), (-15, -8, 30, 25), (5, 40, 120, 70), (50.3, 20.7, 58.1, 96.2)])
def test_crops_and_points_equal_rtmlibs(ours, theirs, box):
    frame, box = picture(100, 140), np.array(box, np.float32)
    cut, center, scale = theirs[1].preprocess(frame, box)
    our_cut, our_center, our_scale = dwpose.crop(frame, box, toys.CROP)
    assert np.array_equal(our_cut, np.float32(cut).transpose(2, 0, 1))
    assert np.allclose([*our_center, *our_scale], [*center, *scale])
    points, scores = theirs[1](frame, [box])
    pixels = np.float32(frame[..., ::-1] / 255)  # as the frames of a video come
    (found,) = ours._points([(pixels, box)])
    assert np.allclose(found[:, :2], points[0], atol=1e-3) and np.allclose(found[:, 2], scores[0], atol=1e-4)


def test_a_batch_is_filled_up_to_what_the_file_was_traced_for(files):
    network = load_network(files["points.pt"], "cpu")
    assert network.batch == 5
    crops = np.random.default_rng(0).random((7, 3, *toys.CROP), np.float32)
    together = network(crops)
    alone = [network(crop[None]) for crop in crops]
    for index, output in enumerate(together):
        assert output.shape[0] == 7
        assert np.allclose(output, np.concatenate([outputs[index] for outputs in alone]), atol=1e-5)


def whole_body(seed=0):
    """133 points, each with a place of its own, all clearly seen."""
    return np.column_stack([np.random.default_rng(seed).uniform(1, 400, (133, 2)), np.full(133, 0.9)])


def test_133_points_lie_where_the_hosts_sdpose_puts_them():
    """But for the hands: COCO-WholeBody's left one comes first (its points 92 to 112), and is the left one here."""
    points = whole_body()
    joints, whole = dwpose.to_openpose(points)
    (frame,) = nodes_sdpose._to_openpose_frames([[points[:, :2]]], [[points[:, 2]]], 400, 400)
    (person,) = frame["people"]
    theirs = {name: np.array(numbers).reshape(-1, 3)[:, :2] for name, numbers in person.items()}
    assert np.allclose(joints[:, :2], theirs["pose_keypoints_2d"])
    assert np.allclose(whole.feet[:, :2], theirs["foot_keypoints_2d"])
    assert np.allclose(whole.face[:, :2], theirs["face_keypoints_2d"])
    assert np.array_equal(whole.hands[0, :, :2], points[91:112, :2])
    assert np.array_equal(whole.hands[1, :, :2], points[112:133, :2])
    assert (joints[:, 2] == 1).all()


def test_points_that_are_not_seen_are_zero_and_so_is_a_neck_without_both_shoulders():
    points = whole_body()
    points[[6, 9, 30, 100], 2] = 0.29  # right shoulder, left wrist, a point of the face and one of the left hand
    joints, whole = dwpose.to_openpose(points)
    assert np.flatnonzero(joints[:, 2] == 0).tolist() == [1, 2, 7]
    assert not joints[joints[:, 2] == 0].any()
    assert not whole.face[7].any() and not whole.hands[0, 9].any()


def test_a_video_goes_through_with_hands_face_and_feet(ours):
    counted = []
    frames = torch.from_numpy(np.stack([picture(60, 90, seed) for seed in (0, 0, 0)])).float() / 255
    pose = ours.follow(frames, counted.append, Identities(2))
    assert counted == [1, 2, 3]
    assert pose.keypoints.shape == (3, 2, 18, 3) and pose.seen[:, 0].any(axis=1).all()
    assert pose.hands.shape == (3, 2, 2, 21, 3) and pose.face.shape == (3, 2, 70, 3) and pose.feet.any()
    # The same picture three times is the same people in the same order.
    assert np.array_equal(pose.keypoints[0], pose.keypoints[2])


def test_nobody_in_view_is_an_empty_pose(files):
    class Nobody:
        def __call__(self, pictures):
            return [np.zeros((len(pictures), toys.CELLS, 5 + toys.CLASSES), np.float32)]

    pose = DWPose(Nobody(), None, toys.SIZE, toys.CROP).follow(torch.zeros(2, 60, 90, 3))
    assert not pose.present.any() and pose.keypoints.shape == (2, 1, 18, 3)


@pytest.mark.parametrize("name", ["broken.torchscript.pt", "broken.onnx"])
def test_a_broken_file_is_named(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"half a download")
    with pytest.raises(ValueError, match=f"^detector: .*{name} cannot be read as .* get it again"):
        load_network(path, "cpu")


def test_another_networks_output_is_refused():
    with pytest.raises(ValueError, match=r"^detector: .*shape \[10, 4\]; YOLOX gives N×85"):
        dwpose.decode_boxes(np.zeros((10, 4), np.float32), 1.0, toys.SIZE)


def test_without_onnxruntime_only_onnx_files_are_missed(files, monkeypatch):
    load = builtins.__import__

    def without(name, *rest):
        if name == "onnxruntime":
            raise ImportError(name)
        return load(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert isinstance(load_network(files["people.pt"], "cpu"), network_file.TorchScriptNetwork)
    with pytest.raises(ImportError):
        load_network(files["people.onnx"], "cpu")
