"""Save Pose and Load Pose: what comes back, what other tools write, and what is no pose."""

import errno
import json
import math
import os
import time

import folder_paths
import numpy as np
import pytest
from animate_anywhere.nodes import pose_file as nodes
from animate_anywhere.vision import pose_file
from animate_anywhere.vision.pose import PoseTrack
from comfy_extras import nodes_sdpose


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Empty input and output folders of the host."""
    for name in ("input", "output"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(tmp_path / name))
    return tmp_path


def sdpose_frames():
    random = np.random.default_rng(0)
    return nodes_sdpose._to_openpose_frames(
        [[random.uniform(0, 400, (133, 2))], []], [[random.random(133)], []], 480, 640
    )


def put(folders, content):
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    path = folders / "input" / "pose.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return "pose.json"


@pytest.mark.parametrize("fps", [24.0, 30000 / 1001, 12.5])
def test_a_pose_comes_back_to_the_last_digit(folders, fps):
    frames = sdpose_frames()
    (name,) = nodes.SavePose.execute(frames, "poses/take", fps).result
    assert name == "poses/take_00001_.json [output]"
    assert nodes.LoadPose.execute(name).result == (frames, fps)


def test_every_file_gets_a_number_of_its_own(folders):
    names = [nodes.SavePose.execute(sdpose_frames()).result[0] for _ in range(2)]
    assert names == [f"AnimateAnywhere/pose_0000{n}_.json [output]" for n in (1, 2)]
    put(folders, sdpose_frames())
    assert nodes.LoadPose.define_schema().inputs[0].options == ["pose.json", *names]


def test_a_bare_list_of_controlnet_aux_is_read(folders):
    frames = sdpose_frames()
    frames[0]["people"][0]["face_keypoints_2d"] = None
    assert nodes.LoadPose.execute(put(folders, frames)).result == (frames, pose_file.DEFAULT_FPS)


def test_a_single_frame_made_by_hand_is_read(folders):
    frame = {"people": [{"pose_keypoints_2d": [0.5, 0.5, 1.0] * 18}], "canvas_width": 64, "canvas_height": 48}
    assert nodes.LoadPose.execute(put(folders, frame)).result[0] == [frame]


def test_openposes_own_25_joints_become_18_and_feet(folders):
    numbers = np.arange(75, dtype=float)  # joint n at (3n, 3n + 1)
    numbers[2::3] = 1
    frame = {"version": 1.3, "people": [{"pose_keypoints_2d": numbers.tolist()}]}
    pose, _ = nodes.LoadPose.execute(put(folders, frame), 640, 480).result
    track = PoseTrack.from_openpose(pose)
    assert (track.width, track.height) == (640, 480)
    joints = track.keypoints[0, 0, :, 0] / 3
    # https://cmu-perceptual-computing-lab.github.io/openpose: 8 is mid-hip, 9-14 the legs, 15-18 eyes and ears
    assert joints.tolist() == [*range(8), *range(9, 19)]
    assert (track.feet[0, 0, :, 0] / 3).tolist() == [
        19,
        20,
        21,
        22,
        23,
        24,
    ]  # left big toe, small toe, heel, then right


def test_a_file_without_a_canvas_asks_for_one(folders):
    name = put(folders, [{"people": []}])
    with pytest.raises(ValueError, match=r"^file: pose\.json .*canvas.* Give the width and height"):
        nodes.LoadPose.execute(name, 640, 0)


def openpose(position, joints=25):
    """A frame as OpenPose writes it: one person, all joints in one place, no canvas."""
    person = {"pose_keypoints_2d": [position, 7.0, 1.0] * joints, "face_keypoints_2d": [], "pose_keypoints_3d": []}
    return {"version": 1.3, "people": [{"person_id": [-1], **person}]}


def put_series(folders, frames, name="take_{:012}_keypoints.json"):
    """Files of ``frames``, by number; gives back the last one's name."""
    (folders / "input" / "shot").mkdir(exist_ok=True)
    for number, frame in frames.items():
        text = frame if isinstance(frame, str) else json.dumps(frame)
        (folders / "input" / "shot" / name.format(number)).write_text(text)
    return f"shot/{name.format(number)}"


@pytest.mark.parametrize("name", ["take_{:012}_keypoints.json", "a [1]_2_{}_keypoints.json"])
@pytest.mark.parametrize("joints", [18, 25])
def test_openposes_file_brings_its_whole_series_in_the_order_of_the_numbers(folders, joints, name):
    file = put_series(folders, {n: openpose(n, joints) for n in (8, 11, 10, 9)}, name)
    for other in ("retake_{:012}_keypoints.json", "take_{:012}_rendered.json", "{}_keypoints.json", "take_x{}.json"):
        put_series(folders, {12: openpose(99.0)}, other)
    pose, fps = nodes.LoadPose.execute(file, 640, 480).result
    track = PoseTrack.from_openpose(pose)
    assert track.keypoints[:, 0, :, 0].tolist() == [[n] * 18 for n in (8, 9, 10, 11)]
    assert (track.width, track.height, fps) == (640, 480, pose_file.DEFAULT_FPS)


def test_a_frame_of_a_series_may_have_nobody(folders):
    file = put_series(folders, {0: openpose(9.0), 1: {"people": []}, 2: openpose(9.0)})
    pose, _ = nodes.LoadPose.execute(file, 640, 480).result
    assert [len(frame["people"]) for frame in pose] == [1, 0, 1]


@pytest.mark.parametrize("name", ["take_{:012}.json", "{:012}_keypoints.json", "take_{:012}_keypoints_.json"])
def test_a_file_of_another_name_is_read_alone(folders, name):
    file = put_series(folders, {n: openpose(n) for n in (1, 2)}, name)
    assert len(nodes.LoadPose.execute(file, 640, 480).result[0]) == 1


def test_a_series_of_one_is_one_frame(folders):
    assert len(nodes.LoadPose.execute(put_series(folders, {12: openpose(9.0)}), 640, 480).result[0]) == 1


def test_a_list_of_frames_is_read_alone_whatever_its_name(folders):
    frames = sdpose_frames()
    file = put_series(folders, {1: openpose(9.0), 3: frames})
    assert nodes.LoadPose.execute(file).result[0] == frames


@pytest.mark.parametrize(("name", "missing"), [("take_{:012}", "take_000000000010"), ("take_{}", "take_10")])
def test_a_gap_in_a_series_names_the_missing_file(folders, name, missing):
    file = put_series(folders, {n: openpose(9.0) for n in (9, 11, 13)}, name + "_keypoints.json")
    with pytest.raises(ValueError, match=rf"^file: {missing}_keypoints\.json is missing from the series of take_"):
        nodes.LoadPose.execute(file, 640, 480)


def test_two_files_of_one_number_are_refused(folders):
    put_series(folders, {7: openpose(9.0)}, "take_{}_keypoints.json")
    with pytest.raises(ValueError, match=r"^file: take_0+7_keypoints\.json and take_7_.* are both frame 7"):
        nodes.LoadPose.execute(put_series(folders, {7: openpose(9.0)}), 640, 480)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ('{"people": [', "is no valid JSON"),
        ({"nodes": []}, "is not one frame with people in it"),
        ([openpose(9.0)], "is not one frame with people in it"),
        (openpose(9.0, 10), "18 times x, y, confidence"),
        ({**openpose(9.0), "canvas_width": 64, "canvas_height": 48}, "canvas of 64×48 px, take_0+_.* 640×480"),
    ],
)
def test_a_broken_file_of_a_series_is_named(folders, frame, message):
    file = put_series(folders, {0: openpose(9.0), 1: frame, 2: openpose(9.0)})
    with pytest.raises(ValueError, match=rf"^file: take_0+1_keypoints\.json .*{message}"):
        nodes.LoadPose.execute(file, 640, 480)


def test_a_series_without_a_canvas_asks_for_one(folders):
    file = put_series(folders, {n: openpose(9.0) for n in (0, 1)})
    with pytest.raises(ValueError, match=r"^file: take_0+_keypoints\.json .*canvas.* Give the width and height"):
        nodes.LoadPose.execute(file)


FRAME = {"people": [], "canvas_width": 64, "canvas_height": 48}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"people": [', "no valid JSON .line 1"),
        ("", "no valid JSON"),
        (b"\xff\xfe\x00\x01 picture", "no text"),
        ({"nodes": [], "links": []}, "no pose.*found an object without frames"),
        ([], "no pose.*found an empty list"),
        ("7", "no pose.*found a number"),
        ("null", "no pose.*found nothing"),
        ([1, 2], "frame 0 is a number"),
        ([FRAME, {**FRAME, "canvas_width": 65}], "one canvas size"),
        ([{**FRAME, "people": [{"pose_keypoints_2d": [1.0] * 10}]}], "18 times x, y, confidence"),
        ([{**FRAME, "people": [{"pose_keypoints_2d": ["left"] * 54}]}], "no number"),
        ("[" * 100000, "no valid JSON|nested too deep"),
        ({"frames": [FRAME], "fps": 0}, "says 0 frames a second"),
        ({"frames": [FRAME], "fps": "24"}, "says '24' frames a second"),
        ({"frames": [FRAME], "fps": 10**400}, "says 1000.* frames a second"),
        ({"frames": [FRAME], "fps": True}, "says True frames a second"),
        ('{"frames": [], "fps": ' + "9" * 5000 + "}", "a number that is too long"),
        ({"frames": [FRAME], "format": pose_file.FORMAT, "version": {}}, "version {} "),
        ({"frames": {}}, "found an object"),
        ({"people": "nobody", **dict.fromkeys(pose_file.CANVAS, 9)}, "must be a list of keypoint lists"),
        *[
            ([{**FRAME, "canvas_width": size}], "canvas_width of frame 0 is .* 1 to")
            for size in (0, -5, 0.5, True, "64", [], 10**400, math.inf, math.nan)
        ],
        *[
            ([{**FRAME, "people": people}], "frame 0")
            for people in ([7], [None], ["he"], [[]], "he", 7, {"a": 1}, [{"pose_keypoints_2d": 7}])
        ],
        *[
            ([{**FRAME, "people": [{name: [value] * 54}]}], "no number|not finite|x, y, confidence")
            for name in pose_file.PARTS
            for value in (None, True, "1", [1], {}, 10**400, 1e300, math.inf)
        ],
        ([{**FRAME, "people": [{"pose_keypoints_2d": {"x": 1}}]}], "no list of x, y, confidence"),
        ('{"people": [], "canvas_width": 9, "canvas_height": 9, "more": ' + "[" * 100000, "nested too deep|no valid"),
        ({"frames": [FRAME], "format": pose_file.FORMAT, "version": 9}, "version 9 .* reads 1"),
        (
            '[{"people":[{"pose_keypoints_2d":[' + "NaN," * 53 + 'NaN]}],"canvas_width":9,"canvas_height":9}]',
            "not finite",
        ),
    ],
)
def test_what_is_no_pose_gets_one_clear_error(folders, content, message):
    with pytest.raises(ValueError, match=rf"(?s)^file: pose\.json .*({message})"):
        nodes.LoadPose.execute(put(folders, content))


@pytest.mark.parametrize("fps", [0.0, -1.0, math.nan, math.inf])
def test_an_impossible_frame_rate_is_not_saved(folders, fps):
    with pytest.raises(ValueError, match=r"^fps: "):
        nodes.SavePose.execute(sdpose_frames(), fps=fps)
    assert not list((folders / "output").rglob("*.json"))


def test_what_is_no_pose_is_not_saved(folders):
    with pytest.raises(ValueError, match=r"^pose: .*empty list"):
        nodes.SavePose.execute([])


@pytest.mark.parametrize(
    ("name", "folder"),
    [("gone.json", "input"), ("gone.json [input]", "input"), ("gone.json [output]", "output"), ("a [temp]", "temp")],
)
def test_a_missing_file_is_told_with_the_folder_to_put_it_in(folders, name, folder):
    missing = f"file: there is no {name.split(' ')[0]} in the {folder} folder."
    assert nodes.LoadPose.validate_inputs(name) == missing
    with pytest.raises(ValueError) as caught:
        nodes.LoadPose.execute(name)
    assert str(caught.value) == missing


@pytest.mark.parametrize("name", ["../secret.json", "gone.json"])
def test_only_files_of_the_folders_are_read(folders, name):
    (folders / "secret.json").write_text(json.dumps(sdpose_frames()))
    assert nodes.LoadPose.validate_inputs(name) == f"file: there is no {name} in the input folder."
    with pytest.raises(ValueError, match=r"Invalid file path|there is no gone\.json"):
        nodes.LoadPose.execute(name)


def test_a_changed_file_is_read_again(folders):
    name = put(folders, sdpose_frames())
    before = nodes.LoadPose.fingerprint_inputs(name)
    os.utime(folders / "input" / name, (1, 1))
    assert nodes.LoadPose.fingerprint_inputs(name) != before


def test_a_changed_or_new_file_of_the_series_is_read_too(folders):
    name = put_series(folders, {n: openpose(9.0) for n in (0, 1)})
    seen = [nodes.LoadPose.fingerprint_inputs(name)]
    assert nodes.LoadPose.fingerprint_inputs(name) == seen[0]
    os.utime(folders / "input" / "shot" / "take_000000000000_keypoints.json", (1, 1))
    seen.append(nodes.LoadPose.fingerprint_inputs(name))
    put_series(folders, {2: openpose(9.0)})
    seen.append(nodes.LoadPose.fingerprint_inputs(name))
    assert len(set(seen)) == 3


@pytest.mark.parametrize("pose", [[{**FRAME, "more": object()}], [{**FRAME, "more": math.nan}]])
def test_what_json_cannot_hold_is_not_saved(folders, pose):
    with pytest.raises(ValueError, match="^pose: it cannot be saved as JSON"):
        nodes.SavePose.execute(pose)
    assert not list((folders / "output").rglob("*.json*"))


def test_a_pose_is_saved_whole_or_not_at_all(folders, monkeypatch):
    def fill(path, *_, **__):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(nodes.Path, "write_text", fill)
    with pytest.raises(RuntimeError, match=r"^filename_prefix: .* No space left .* needs about [0-9]+ KB .* queue it"):
        nodes.SavePose.execute(sdpose_frames())
    assert not [path for path in (folders / "output").rglob("*") if path.is_file()]


def test_tokens_in_the_prefix_are_filled_in(folders):
    (name,) = nodes.SavePose.execute(sdpose_frames(), "%width%x%height%/%date:yyyy%_%year%").result
    year = time.localtime().tm_year
    assert name == f"640x480/{year}_{year}_00001_.json [output]"


@pytest.mark.parametrize("prefix", ["../pose", "/tmp/pose", "con", "", None])
def test_a_prefix_outside_the_output_folder_is_refused(folders, prefix):
    with pytest.raises(ValueError, match="^filename_prefix: "):
        nodes.SavePose.execute(sdpose_frames(), prefix)
    assert not list((folders / "output").rglob("*.json"))


# --- the list, and what is read


@pytest.mark.parametrize("place", ["", "AnimateAnywhere", "films"])
def test_fifty_thousand_files_in_the_output_folder_do_not_slow_the_list_down(folders, place):
    folder = folders / "output" / place
    folder.mkdir(exist_ok=True)
    for number in range(50_000):
        os.close(os.open(folder / f"{number}.json", os.O_CREAT))
    times = []
    for _ in range(10):
        start = time.perf_counter()
        nodes.LoadPose.define_schema()
        times.append(time.perf_counter() - start)
    assert min(times) < 0.02


def test_the_list_has_the_input_folder_its_folders_and_what_save_pose_wrote(folders):
    for name in ("input/b.json", "input/shot/a.json", "input/shot/deep/c.json", "input/d.png", "output/other/e.json"):
        (folders / name).parent.mkdir(parents=True, exist_ok=True)
        (folders / name).write_text("[]")
    (saved,) = nodes.SavePose.execute(sdpose_frames()).result
    assert nodes.LoadPose.define_schema().inputs[0].options == ["b.json", "shot/a.json", saved]


@pytest.mark.parametrize("name", ["input/shot/deep/c.json", "output/other/e.json"])
def test_a_file_that_is_not_in_the_list_is_read(folders, name):
    (folders / name).parent.mkdir(parents=True)
    (folders / name).write_text(json.dumps(sdpose_frames()))
    folder, file = name.split("/", 1)
    asked = f"{file} [{folder}]"
    assert nodes.LoadPose.validate_inputs(asked) is True
    assert nodes.LoadPose.execute(asked).result[0] == sdpose_frames()


@pytest.mark.parametrize(
    "name", ["link.json", "linked/secret.json", "../secret.json", "/etc/hostname", "a\0b", 7, None]
)
def test_no_file_outside_the_folders_is_read(folders, name):
    (folders / "secret.json").write_text(json.dumps(sdpose_frames()))
    (folders / "input" / "link.json").symlink_to(folders / "secret.json")
    (folders / "input" / "linked").symlink_to(folders)
    with pytest.raises(ValueError, match="^file: "):
        nodes.LoadPose.execute(name)


def test_a_series_does_not_follow_a_link_out_of_its_folder(folders):
    name = put_series(folders, {n: openpose(n) for n in (1, 3)})
    (folders / "secret.json").write_text(json.dumps(openpose(2)))
    (folders / "input" / name).with_name("take_000000000002_keypoints.json").symlink_to(folders / "secret.json")
    with pytest.raises(ValueError, match=r"^file: take_0+2_keypoints\.json is a link out of the folder"):
        nodes.LoadPose.execute(name, 640, 480)


def test_a_name_by_a_link_is_checked_when_it_is_known():
    assert nodes.LoadPose.validate_inputs(None) is True
    first, second = (nodes.LoadPose.fingerprint_inputs(None) for _ in range(2))
    assert first is not second and first != second
