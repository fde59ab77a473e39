"""The example workflow in a running ComfyUI, driven through its API on real footage, small and short."""

import copy
import io
import json
import time

import av
import client
import comfyui
import demo
import host as hosts
import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.e2e

FRAMES, SIZE, STEPS = 13, 128, 4
WINDOWS = 6  # of a film, of 5 frames that share one
LONG_NODES = ("Extract pose", "Mask the dancer", "Take the dancer out", "Sample shot")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return demo.write_inputs(tmp_path_factory.mktemp("inputs"), FRAMES)


@pytest.fixture(scope="module")
def example(connection, inputs):
    """The example workflow, made small, and with the frames saved without loss, too."""
    prompt = json.loads(demo.WORKFLOW.read_text())
    demo.choose(connection, prompt, *inputs)
    for name, key, value in (
        ("Shot", "width", SIZE),
        ("Shot", "length", FRAMES),
        ("Sample shot", "steps", STEPS),
        ("Read the character", "width", SIZE),
        ("Read the character", "height", SIZE),
    ):
        client.put(prompt, name, key, value)
    images = [client.find(prompt, "Sample shot"), 0]
    prompt["100"] = {"class_type": "SaveImage", "inputs": {"images": images, "filename_prefix": "frames"}}
    prompt["100"]["_meta"] = {"title": "Save frames"}
    return prompt


@pytest.fixture
def prompt(example):
    return copy.deepcopy(example)


class Run:
    """A prompt that was queued and followed to its end."""

    def __init__(self, connection, prompt) -> None:
        self.connection, self.prompt = connection, prompt
        self.id = connection.queue(prompt)
        self.events = list(connection.events(self.id))
        self.history = connection.history(self.id)

    def outputs(self, name):
        return self.history["outputs"][client.find(self.prompt, name)]

    def fetch(self, name):
        return [self.connection.fetch(file) for file in client.files(self.outputs(name))]

    def frames(self):
        return [np.asarray(Image.open(io.BytesIO(picture))) for picture in self.fetch("Save frames")]

    def progress(self, name):
        node = client.find(self.prompt, name)
        return [
            (data["value"], data["max"]) for kind, data in self.events if kind == "progress" and data["node"] == node
        ]

    def ran(self, name):
        node = client.find(self.prompt, name)
        return any(kind == "executing" and data["node"] == node for kind, data in self.events)


@pytest.fixture(scope="module")
def first(connection, example):
    return Run(connection, copy.deepcopy(example))


def test_the_host_loads_the_pack_without_a_complaint(server):
    about_us = [line for line in server.log_text().splitlines() if hosts.LINK in line]
    assert about_us, "the host prints its import time"
    assert not [line for line in about_us if "WARNING" in line or "ERROR" in line or "FAILED" in line]
    print(*about_us, sep="\n")


def test_every_node_of_the_pack_is_there(connection):
    known = json.loads(connection.get("object_info"))
    used = {node["class_type"] for node in json.loads(demo.WORKFLOW.read_text()).values()}
    ours = {name for name in known if name.startswith("AA_")}
    assert {name for name in used if name.startswith("AA_")} < ours
    assert all(hosts.LINK in known[name]["python_module"] for name in ours)


def test_the_page_offers_the_example_as_a_template(connection):
    assert "animate" in json.loads(connection.get("workflow_templates"))[hosts.LINK]
    picture = connection.get(f"api/workflow_templates/{hosts.LINK}/animate.jpg")
    assert Image.open(io.BytesIO(picture)).format == "JPEG"


def test_the_example_succeeds(first):
    assert "execution_success" in [kind for kind, _ in first.events]
    assert first.history["status"]["status_str"] == "success"
    assert first.id not in first.connection.queued()


@pytest.mark.parametrize("name", LONG_NODES)
def test_long_nodes_tell_their_progress_to_the_end(first, name):
    """The host passes on a message each tenth of a second, so a quick node of 13 frames shows little but both ends."""
    values = first.progress(name)
    assert values[0][0] < values[0][1] and values[-1][0] == values[-1][1]


@pytest.mark.parametrize(
    ("name", "size"), [("Save animation", SIZE), ("Save pose", 350), ("Save mask", 350)], ids=lambda value: str(value)
)
def test_videos_have_the_promised_frames_size_and_rate(first, name, size):
    (content,) = first.fetch(name)
    with av.open(io.BytesIO(content)) as container:
        assert container.streams.video[0].average_rate == demo.DANCE_FPS
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [frame.shape for frame in frames] == [(size, size, 3)] * FRAMES


def test_the_mask_and_the_pose_show_the_dancer(first):
    """She covers a seventh of the picture, in its middle; a mask or pose of something else is far from that."""
    for name, least, most in (("Save mask", 0.08, 0.25), ("Save pose", 0.005, 0.1)):
        (content,) = first.fetch(name)
        with av.open(io.BytesIO(content)) as container:
            bright = np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)]) > 40
        assert least < bright.mean() < most, name
        columns = bright.mean(axis=(0, 1))
        centre = (columns * np.arange(len(columns))).sum() / columns.sum() / len(columns)
        assert 0.3 < centre < 0.7, name


def test_the_background_is_one_picture_in_the_size_of_the_video(first):
    (content,) = first.fetch("Save background")
    assert Image.open(io.BytesIO(content)).size == (350, 350)


@pytest.mark.parametrize("name", ["Extract pose", "Take the dancer out", "Shot", "Sample shot"])
def test_reports_are_in_the_history(first, name):
    assert str(FRAMES) in "".join(first.outputs(name)["text"])


def test_another_seed_gives_other_frames_and_repeats_only_the_sampling(connection, prompt, first):
    client.put(prompt, "Sample shot", "seed", 2)
    other = Run(connection, prompt)
    assert not other.ran("Extract pose") and not other.ran("Read the character")
    assert not any(np.array_equal(a, b) for a, b in zip(first.frames(), other.frames()))


def test_cancelling_in_mid_sampling_frees_the_queue_within_two_seconds(connection, prompt, first):
    steps = 500  # far more than are done before the cancel arrives
    client.put(prompt, "Sample shot", "steps", steps)
    identifier = connection.queue(prompt)
    events = connection.events(identifier)
    next(data for kind, data in events if kind == "progress" and data["max"] == steps and data["value"] >= 2)
    started = time.monotonic()
    connection.cancel(identifier)
    while connection.queued():
        assert time.monotonic() - started < 2
        time.sleep(0.05)
    assert "execution_interrupted" in [kind for kind, _ in events]


def test_a_waiting_prompt_can_be_cancelled(connection, prompt, first):
    client.put(prompt, "Sample shot", "steps", 500)
    running, waiting = connection.queue(prompt), connection.queue(prompt)
    connection.cancel(waiting)
    assert waiting not in connection.queued()
    connection.cancel(running)
    assert "execution_interrupted" in [kind for kind, _ in connection.events(running)]


def test_the_same_seed_gives_the_same_bytes_also_after_a_cancel(connection, prompt, first, inputs):
    """Under another name the video is another one to the host's cache, so that everything runs anew."""
    client.put(prompt, "Driving video", "file", connection.upload(inputs[0], "again.mp4"))
    again = Run(connection, prompt)
    assert again.ran("Extract pose") and again.ran("Sample shot")
    assert len(again.frames()) == FRAMES
    assert all(np.array_equal(a, b) for a, b in zip(first.frames(), again.frames()))


def test_bad_input_is_one_line_that_names_node_and_socket(connection, prompt, first):
    client.put(prompt, "Shot", "width", 130)
    with pytest.raises(client.ClientError, match=r"^Shot: .*width.*\b(128|144)\b"):
        connection.follow(connection.queue(prompt), prompt)


def test_what_the_server_refuses_is_one_line_that_names_the_node(connection, prompt, first):
    client.put(prompt, "Character", "image", "nobody.png")
    with pytest.raises(client.ClientError, match=r"^LoadImage: .*nobody\.png"):
        connection.queue(prompt)


def test_an_input_that_nobody_chose_is_said_before_anything_runs(connection):
    with pytest.raises(client.ClientError, match="^Driving video: no file is chosen"):
        connection.queue(json.loads(demo.WORKFLOW.read_text()))


def film_prompt() -> dict:
    """Render Shot and what it needs, small, of the host's own empty pictures; without loss, to compare frames."""
    frames = 5 + 4 * (WINDOWS - 1)

    def empty(count: int, colour: int) -> dict:
        return {"width": 64, "height": 64, "batch_size": count, "color": colour}

    nodes = {
        "base": ("UNETLoader", {"unet_name": "aa_tiny_base.safetensors", "weight_dtype": "default"}),
        "vae": ("VAELoader", {"vae_name": "aa_tiny_vae.safetensors"}),
        "adapter": ("AA_LoadAdapter", {"adapter": "aa_tiny_adapter.safetensors"}),
        "character": ("EmptyImage", empty(1, 0xC08040)),
        "pose": ("EmptyImage", empty(frames, 0)),
        "background": ("EmptyImage", empty(1, 0x4080C0)),
    }
    reference = {"adapter": ["adapter", 0], "vae": ["vae", 0], "character": ["character", 0], "width": 64, "height": 64}
    nodes["reference"] = "AA_EncodeReference", reference
    strengths = dict.fromkeys(("pose_strength", "reference_strength", "background_motion"), 1.0)
    nodes["model"] = "AA_ApplyAdapter", {"model": ["base", 0], "adapter": ["adapter", 0], **strengths}
    nodes["text"] = "AA_NoPrompt", {"model": ["model", 0]}
    shot = {name: [name, 0] for name in ("pose", "background", "reference")}
    nodes["shot"] = "AA_Shot", {**shot, "width": 0, "height": 0, "length": 0}
    wired = {"model": "model", "vae": "vae", "shot": "shot", "positive": "text", "negative": "text"}
    settings = {"seed": 3, "steps": 12, "cfg": 1.0, "method": "cogvideox_dpm", "window": 5, "fps": 16.0}
    file = {"filename": "film", "format": "ffv1 mkv", "crf": 18.0}
    nodes["film"] = "AA_RenderShot", {**{key: [node, 0] for key, node in wired.items()}, **settings, **file}
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}


def frames_of(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_a_film_goes_on_where_it_was_after_its_server_was_killed(connection, server, tmp_path):
    prompt, host, film = film_prompt(), hosts.get(), tmp_path / "output" / "film.mkv"
    steps = prompt["film"]["inputs"]["steps"]
    with comfyui.running(host, tmp_path, life=300) as first, client.Client(first.url) as to_first:
        events = to_first.events(to_first.queue(prompt))
        progress = (data["value"] for kind, data in events if kind == "progress" and data["node"] == "film")
        next(value for value in progress if value > 2 * steps)
        first.process.kill()
        first.process.wait()
    assert not film.exists()
    done = len(json.loads((tmp_path / "output" / "film.parts" / "state.json").read_text())["rows"])
    assert 2 <= done < WINDOWS
    with comfyui.running(host, tmp_path, life=300) as second, client.Client(second.url) as to_second:
        run = Run(to_second, prompt)
    assert f"Went on after window {done} of {WINDOWS}." in run.history["outputs"]["film"]["text"][0]
    assert run.progress("film")[0][0] >= done * steps
    Run(connection, prompt)
    assert np.array_equal(frames_of(film), frames_of(server.folder / "output" / "film.mkv"))


@pytest.mark.parametrize("by_link", [False, True])
def test_a_film_that_was_deleted_is_rendered_again(connection, server, by_link):
    """At first it is not there, and neither is it after it was deleted: to the host's cache that must be a change."""
    prompt, name = film_prompt(), f"deleted{int(by_link)}"
    prompt["film"]["inputs"] |= {"steps": 1, "filename": name}
    if by_link:
        prompt["name"] = {"class_type": "PrimitiveString", "inputs": {"value": name}}
        prompt["film"]["inputs"]["filename"] = ["name", 0]
    film = server.folder / "output" / f"{name}.mkv"
    Run(connection, prompt)
    film.unlink()
    again = Run(connection, prompt)
    assert again.history["status"]["status_str"] == "success"
    assert film.is_file()
