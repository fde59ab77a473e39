"""DWPose against rtmlib on toy networks with the same interface, and what becomes of its 133 points."""

import builtins

import comfy.model_management
import dwpose_toys as toys
import folder_paths
import numpy as np
import pytest
import torch
from animate_anywhere.nodes import detection
from animate_anywhere.nodes.pose import ExtractPose
from animate_anywhere.vision import detectors, dwpose, network_file
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
    people, points = (
        load_network(files[f"{name}.{request.param}"], "cpu", torch.jit.load) for name in ("people", "points")
    )
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
    network = load_network(files["points.pt"], "cpu", torch.jit.load)
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


@pytest.fixture
def onlooker():
    return toys.Onlooker()


def follow(onlooker, video, people, lead="clearest"):
    """Where the people in ``video`` are, from the left: [T, P, 2] px, the middles of their joints; NaN where unseen."""
    finder = DWPose(onlooker, toys.Figure(), onlooker.SIZE, toys.CROP)
    keypoints = finder.follow(video, identities=Identities(people, lead)).keypoints
    middles = np.where(keypoints[..., 2:].any(axis=2), keypoints[..., :2].mean(axis=2), np.nan)
    return middles[:, np.nanmean(middles[..., 0], axis=0).argsort()]


def black(count):
    """A video of 960×640 px, of which an onlooker gets a tenth, and a fifth of its six tiles of 480 px."""
    return torch.zeros(count, 640, 960, 3)


LARGE = np.s_[:, 40:600, 40:240]
TILES = 6


def small(frame, x, y, bright=1.0):
    """Paint a person around (x, y) into ``frame`` [H, W, 3] who is less than a twelfth as tall as the frame is wide."""
    frame[y - 35 : y + 35, x - 20 : x + 20] = bright


# The toy's joints are not spread evenly around the middle of a box, and its pixels are 10 of the frame's.
ABOUT = 12  # px


def test_small_people_beside_a_large_one_are_found(onlooker):
    video = black(8)
    video[LARGE] = 1
    for frame in video:
        small(frame, 400, 605)  # feet at the lower edge of the picture
        small(frame, 700, 300)
    places = follow(onlooker, video, people=3)
    assert places.shape == (8, 3, 2)
    assert (abs(places[:, 1:] - [(400, 605), (700, 300)]) < ABOUT).all()
    assert (abs(places[:, 0] - (140, 320)) < 3 * ABOUT).all()  # more of a larger box


def test_who_was_found_in_a_tile_is_followed_through_a_lapse(onlooker):
    """At the cost of another look a frame. Without it he was seen once in a second."""
    video = black(30)
    for index, frame in enumerate(video):
        if index != 12:
            small(frame, 400 + 9 * index, 300)
    places = follow(onlooker, video, people=1)[:, 0]
    assert np.flatnonzero(np.isnan(places[:, 0])).tolist() == [12]
    expected = np.column_stack([400 + 9 * np.arange(30), np.full(30, 300)])
    assert np.nanmax(abs(places - expected)) < ABOUT
    assert onlooker.looks == 30 + TILES + 29


def test_people_who_are_not_there_cost_a_round_of_tiles_a_second(onlooker):
    video = black(60)
    video[LARGE] = 1
    assert follow(onlooker, video, people=3).shape[1] == 1  # and no part of her that a tile shows is somebody
    assert onlooker.looks == 60 + 3 * TILES


def test_who_is_gone_is_looked_for_a_second_in_four_places(onlooker):
    """A runner leaves after frame 9. As no two of his boxes overlap, each could be somebody else's."""
    video = black(40)
    for index in range(10):
        video[index, 300:390, 100 + 60 * index : 140 + 60 * index] = 1
    follow(onlooker, video, people=1)
    around = 4 * 21 + 3 + 2 + 1  # frames 10 to 30, and then as the last four places are forgotten
    assert onlooker.looks == 40 + 2 * TILES + around


def test_repeats_of_one_person_push_nobody_out(onlooker):
    """The surest person is in four tiles, and four boxes are looked at where one person is wanted."""
    video = black(3)
    for frame in video:
        small(frame, 360, 320)
        small(frame, 800, 320, bright=0.8)
    assert (abs(follow(onlooker, video, people=1, lead="rightmost") - (800, 320)) < ABOUT).all()


@pytest.mark.parametrize("name", ["broken.torchscript.pt", "broken.onnx"])
def test_a_broken_file_is_named(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"half a download")
    with pytest.raises(ValueError, match=f"^detector: .*{name} cannot be read as .* get it again"):
        load_network(path, "cpu", torch.jit.load)


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
    assert isinstance(load_network(files["people.pt"], "cpu", torch.jit.load), network_file.TorchScriptNetwork)
    with pytest.raises(ImportError):
        load_network(files["people.onnx"], "cpu", torch.jit.load)


@pytest.fixture
def onnx_files(tmp_path, monkeypatch):
    """Only ONNX files in models/detection."""
    monkeypatch.setitem(folder_paths.folder_names_and_paths, detection.FOLDER, ([str(tmp_path)], set()))
    monkeypatch.setattr(detection.files, "controlnet_aux_folders", list)
    paths = [tmp_path / sources[1].name for sources in (detection.PEOPLE, detection.POINTS)]
    toys.save_standing_onnx(paths, x=175, y=190, size=300)


@pytest.mark.parametrize(
    ("device", "provider", "told"),
    [
        ("cuda", "CPUExecutionProvider", True),
        ("cuda", "CUDAExecutionProvider", False),
        ("cpu", "CPUExecutionProvider", False),
    ],
)
def test_the_report_tells_where_onnxruntime_leaves_the_gpu_idle(onnx_files, dance, monkeypatch, device, provider, told):
    """The host says which device it has, onnxruntime's session what it runs on; both run on the processor here."""
    monkeypatch.setattr(comfy.model_management, "get_torch_device", lambda: torch.device(device))
    monkeypatch.setattr(detection, "load_blazepose", lambda _: detectors.load_blazepose(detection.WEIGHTS))
    monkeypatch.setattr("onnxruntime.InferenceSession.get_providers", lambda _: [provider])
    report = ExtractPose.execute(dance[:1], detection.DWPOSE, 0).result[2]
    assert ("onnxruntime here has no GPU, so DWPose ran on the processor. yolox_l.torchscript.pt" in report) == told
