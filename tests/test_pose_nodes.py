"""Extract Pose, as the graph calls it, on a real dancer."""

import hashlib
import sys

import comfy.model_management
import dwpose_toys
import folder_paths
import numpy as np
import pytest
import torch
from animate_anywhere.nodes import detection, feedback
from animate_anywhere.nodes import pose as nodes
from animate_anywhere.vision import pose as poses
from animate_anywhere.vision.blazepose_heavy import HeavyLandmarkNetwork
from animate_anywhere.vision.detectors import load_blazepose
from safetensors.torch import save_file


@pytest.fixture
def clip(dance):
    return dance[:6].clone()


@pytest.fixture
def models(tmp_path, monkeypatch):
    """An empty models/detection, and nothing in comfyui_controlnet_aux."""
    monkeypatch.setitem(folder_paths.folder_names_and_paths, detection.FOLDER, ([str(tmp_path / "detection")], set()))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "custom_nodes", ([str(tmp_path / "custom_nodes")], set()))
    monkeypatch.delenv("AUX_ANNOTATOR_CKPTS_PATH", raising=False)
    (tmp_path / "detection").mkdir()
    return tmp_path


def extract(images, smoothing=0.3, detector="blazepose", **rest):
    return nodes.ExtractPose.execute(images, detector, smoothing, **rest)


def test_pose_mask_and_report_of_a_video(clip):
    output = extract(clip)
    pose, mask, report = output.result
    assert len(pose) == 6 and {(frame["canvas_width"], frame["canvas_height"]) for frame in pose} == {(350, 350)}
    assert mask.shape == (6, 350, 350) and (mask.amax(dim=(1, 2)) > 0.9).all()
    assert report == "6 frames of 350×350 px\nA person was seen in 6 of 6"
    assert output.ui["text"] == (report,)


def test_gaps_are_filled_and_reported(clip):
    clip[[0, 1, 4]] = 0
    pose, mask, report = extract(clip).result
    assert all(frame["people"] for frame in pose)
    assert not mask[:2].any()
    assert "seen in 3 of 6" in report and "0-1, 4 (the first frame is 0)" in report


def test_dropped_frames_get_a_pose_from_the_frames_around(clip):
    def places(**rest):
        pose, _, report = extract(clip, smoothing=0, **rest).result
        return np.array([frame["people"][0]["pose_keypoints_2d"] for frame in pose]).reshape(6, 18, 3), report

    found, _ = places()
    kept, report = places(dropped_frames="2-3, 5")
    seen = (found[..., 2] == 1).all(axis=0)
    np.testing.assert_array_equal(kept[[0, 1, 4]], found[[0, 1, 4]])
    np.testing.assert_allclose(kept[2, seen, :2], (2 * found[1] + found[4])[seen, :2] / 3)
    np.testing.assert_allclose(kept[5, seen, :2], found[4, seen, :2])
    assert (kept[[2, 3, 5]][:, seen, 2] == poses.FILLED).all()
    assert "seen in 6 of 6" in report and report.endswith("Dropped: 2-3, 5")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2-9", "^dropped_frames: 2-9 is not among the frames 0 to 5"),
        ("4-2", "^dropped_frames: 4-2 is not among"),
        ("all", "^dropped_frames: 'all' names no frames"),
        ("0-5", "^dropped_frames: no frame that shows a person is left"),
    ],
)
def test_frames_that_cannot_be_dropped_are_refused(clip, text, message):
    with pytest.raises(ValueError, match=message):
        extract(clip, dropped_frames=text)


def test_frames_are_read_as_they_are_written():
    frames = np.isin(np.arange(20), [0, 1, 2, 5, 19])
    np.testing.assert_array_equal(feedback.frames_of(feedback.ranges(frames), 20, "x"), frames)
    assert not feedback.frames_of(" ", 3, "x").any()


def test_a_lapse_in_the_mask_is_closed_by_what_the_frames_around_agree_on(clip):
    clip[4] = 0
    mask = extract(clip).result[1]
    assert torch.equal(mask[4], torch.minimum(mask[3], mask[5])) and mask[4].amax() > 0.9


def test_a_long_gap_is_told_loudly_and_a_short_one_is_not():
    """What stands over more than ten frames is no gap that is bridged, it is made up."""
    keypoints = np.ones((30, 1, 18, 3))
    keypoints[4:14] = keypoints[16:27] = 0
    found = poses.PoseTrack(keypoints, 10, 10)
    report = nodes._report(found, poses.fill_gaps(found)[0], np.zeros(30, bool), "")
    assert "at most: 4-13, 16-26 (the first frame is 0)" in report
    assert "MADE UP over more than 10 frames, look at it: 16-26" in report


def test_two_people_have_a_skeleton_each_in_the_order_asked_for(clip):
    pair = torch.cat([clip[:2], clip[:2].flip(2)], dim=2)
    pose, mask, report = extract(pair, people=2, lead="rightmost").result
    middles = [np.array(person["pose_keypoints_2d"])[3::3].reshape(-1)[0] for person in pose[0]["people"]]
    assert middles[0] > 350 > middles[1]
    assert mask[0, :, :350].amax() > 0.9 and mask[0, :, 350:].amax() > 0.9
    assert "The lead was seen in 2 of 2\nPerson 1 (the lead is 0) was seen in 2 of 2" in report


def test_prompts_from_before_several_people_still_run():
    added = {"people", "lead", "lead_x", "lead_y", "dropped_frames"}
    assert {input.id for input in nodes.ExtractPose.define_schema().inputs if input.optional} == added


def test_the_lead_is_the_one_nearest_to_the_point(clip):
    pair = torch.cat([clip[:1], clip[:1].flip(2)], dim=2)
    for x, side in ((0.2, 0), (0.8, 1)):
        ((frame,), *_) = extract(pair, lead="point", lead_x=x, lead_y=0.5).result
        (person,) = frame["people"]
        assert (person["pose_keypoints_2d"][3] > 350) == side  # the neck's x


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"people": 0}, "people: 0 "),
        ({"lead": "tallest"}, "lead: 'tallest'"),
        ({"lead_x": 1.5}, "lead_x: 1.5 lies outside"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(clip, wrong, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        extract(clip, **wrong)


@pytest.mark.parametrize(
    ("detector", "message"),
    [
        ("blazepose heavy", r"blazepose_heavy\.safetensors in .*detection\. Make it .*convert_blazepose\.py heavy"),
        ("dwpose", r"yolox_l\.torchscript\.pt \(https://huggingface\.co/hr16/yolox-onnx/.*\) .* in .*detection, or "),
    ],
)
def test_a_missing_file_is_named_with_its_address_and_folder(clip, models, detector, message):
    with pytest.raises(ValueError, match=f"^detector: .*needs {message}"):
        extract(clip, detector=detector)


def test_a_heavy_file_that_is_something_else_is_refused(clip, models):
    (models / "detection" / detection.HEAVY).write_bytes((detection.WEIGHTS / "landmarks.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"^detector: blazepose_heavy\.safetensors does not hold BlazePose's heavy"):
        extract(clip, detector="blazepose heavy")


def test_a_heavy_file_is_used(clip, models):
    """With random weights: nobody is found, but by these very layers."""
    network = HeavyLandmarkNetwork()
    tensors = {key: value.half().contiguous() for key, value in network.state_dict().items()}
    save_file(tensors, models / "detection" / detection.HEAVY)
    loaded = detection.load_blazepose(detection.BLAZEPOSE_HEAVY).landmarks
    assert torch.equal(loaded.heatmap.bias, tensors["heatmap.bias"].float())
    points, presence, heatmaps, mask = loaded(torch.rand(1, 3, 256, 256))
    assert points.shape == (1, 39, 5) and presence.shape == (1,)
    assert heatmaps.shape == (1, 39, 64, 64) and mask.shape == (1, 1, 256, 256)


@pytest.mark.parametrize("folder", ["detection", "custom_nodes/comfyui_controlnet_aux/ckpts"])
def test_dwpose_finds_its_files_and_gives_hands_and_face(clip, models, folder, monkeypatch):
    own, trusted = folder == "detection", models / "trusted.sha256"
    monkeypatch.setattr(detection.files, "allow_list", lambda: trusted)
    for source, network in zip(
        (detection.PEOPLE[0], detection.POINTS[0]), dwpose_toys.standing(x=175, y=190, size=300)
    ):
        place = models / folder / ("" if own else source.repository)
        place.mkdir(parents=True, exist_ok=True)
        network.save(place / source.name)
        digest = hashlib.sha256((place / source.name).read_bytes()).hexdigest()
        with trusted.open("a") as lines:  # toys are on no published list
            lines.write(f"{digest}  {source.name}\n")
    pose, mask, report = extract(clip[:2], detector="dwpose").result
    (person,) = pose[0]["people"]
    assert all(np.any(person[part]) for part in ("pose_keypoints_2d", "face_keypoints_2d", "hand_left_keypoints_2d"))
    assert mask.shape == (2, 350, 350) and "seen in 2 of 2" in report


def test_onnx_without_onnxruntime_says_what_to_do(models, monkeypatch):
    for source in (detection.PEOPLE[1], detection.POINTS[1]):
        (models / "detection" / source.name).write_bytes(b"")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        ValueError, match=r"^detector: yolox_l\.onnx is ONNX, and onnxruntime is not installed\. .*torch alone"
    ):
        detection.load_dwpose()


def test_smoothing_of_0_is_the_pose_as_found(clip):
    found = load_blazepose(detection.WEIGHTS).follow(clip).pose.to_openpose()
    assert extract(clip, smoothing=0).result[0] == found
    assert extract(clip, smoothing=0.5).result[0] != found


def test_one_picture_and_transparency_are_fine(clip):
    transparent = torch.cat([clip[:1], torch.zeros(1, 350, 350, 1)], dim=-1)
    assert extract(transparent).result[0] == extract(clip[:1]).result[0]


@pytest.mark.parametrize(
    ("shape", "message"),
    [((0, 64, 64, 3), "no picture"), ((64, 64, 3), "found 64×64×3"), ((2, 3, 64, 64), "found 2×3×64×64")],
)
def test_images_that_are_no_video_are_refused(shape, message):
    with pytest.raises(ValueError, match=f"^images: .*{message}"):
        extract(torch.zeros(shape))


def test_a_video_without_people_is_refused():
    with pytest.raises(ValueError, match="^images: no person was found in any of the 3 frames"):
        extract(torch.rand(3, 90, 160, 3))


def test_cancelling_stops_it(clip):
    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        extract(clip)


@pytest.mark.parametrize(
    ("frames", "text"), [([1, 1, 0, 1], "0-1, 3"), ([0, 0], ""), ([1], "0"), ([0, 1, 1, 1], "1-3")]
)
def test_frames_are_told_as_ranges(frames, text):
    assert feedback.ranges(np.array(frames, bool)) == text
