"""The example workflow from end to end: a real video drives the picture of another person, into output/demo/.

Runs in the host's environment (`make demo`). The inputs are real footage out of ComfyUI's own template packages.
"""

import importlib.util
import json
import sys
import tempfile
import time
from pathlib import Path

import av
import client
import comfyui
import host as hosts
import numpy as np
import pack
from PIL import Image, ImageSequence

WORKFLOW = hosts.CLONE / "workflows" / "api" / "animate.json"
OUT = hosts.CLONE / "output" / "demo"
# A woman dances before a building while the camera slowly moves away: 45 frames, 350×350.
DANCE = ("comfyui_workflow_templates_media_api", "api_kling_omni_v2v-2.webp")
# A woman in full length before a plain wall; the first picture of an animation.
CHARACTER = ("comfyui_workflow_templates_media_image", "templates-character_sheet-1.webp")
DANCE_FPS = 15


def template(package: str, name: str) -> Path:
    """A file of one of ComfyUI's template packages; they are data, so they are found and not imported."""
    found = importlib.util.find_spec(package)
    if found is None:
        raise FileNotFoundError(f"the package {package} of the host is not installed; run this with `make demo`")
    return Path(next(iter(found.submodule_search_locations))) / "templates" / name


def write_video(frames: list[np.ndarray], path: Path, fps: int) -> None:
    """``frames`` [H, W, 3] uint8 as an mp4; H and W are cut to even numbers, which H.264 wants."""
    height, width = (size // 2 * 2 for size in frames[0].shape[:2])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=fps, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def dance_pictures() -> list[np.ndarray]:
    """The frames of the dance, each [350, 350, 3] uint8."""
    with Image.open(template(*DANCE)) as clip:
        return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(clip)]


def dance_frames():
    """The dance as the host's nodes see it: IMAGE [45, 350, 350, 3] in 0…1."""
    import torch

    return torch.from_numpy(np.stack(dance_pictures())).float() / 255


def write_inputs(folder: Path, frames: int | None = None) -> tuple[Path, Path]:
    """The driving video, or its first ``frames``, and the character's picture."""
    video, picture = folder / "dance.mp4", folder / "character.png"
    write_video(dance_pictures()[:frames], video, DANCE_FPS)
    with Image.open(template(*CHARACTER)) as sheet:
        sheet.convert("RGB").save(picture)
    return video, picture


def choose(connection: client.Client, prompt: dict, video: Path, picture: Path) -> None:
    """Do in ``prompt`` what an artist does first: upload and choose the two inputs."""
    client.put(prompt, "Driving video", "file", connection.upload(video))
    client.put(prompt, "Character", "image", connection.upload(picture))


def save(connection: client.Client, history: dict, prompt: dict) -> list[Path]:
    """The videos and pictures under their own names, and what the nodes reported, all in OUT."""
    OUT.mkdir(parents=True, exist_ok=True)
    written, reports = [], []
    for node in sorted(history["outputs"], key=int):
        outputs = history["outputs"][node]
        for file in client.files(outputs):
            name = file["filename"].rsplit("_", 2)[0] + Path(file["filename"]).suffix  # animation_00001_.mp4
            path = pack.load_file("models/safe_path.py").path_inside(OUT, name, "the server's answer")
            path.write_bytes(connection.fetch(file))
            written.append(path)
        if outputs.get("text"):
            reports.append(f"{client.title(prompt, node)}\n{''.join(outputs['text']).strip()}\n")
    (OUT / "report.txt").write_text("\n".join(reports), encoding="utf-8")
    return [*written, OUT / "report.txt"]


def animate() -> None:
    prompt = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    host, started = hosts.get(), time.monotonic()
    with comfyui.running(host) as server, client.Client(server.url) as connection:
        print(f"ComfyUI answers after {server.start_s:.0f} s")
        with tempfile.TemporaryDirectory() as folder:
            choose(connection, prompt, *write_inputs(Path(folder)))
        history = connection.follow(connection.queue(prompt), prompt)
        for path in save(connection, history, prompt):
            print(path.relative_to(hosts.CLONE))
    print(f"done in {time.monotonic() - started:.0f} s")


def main() -> int:
    try:
        animate()
    except (hosts.HostError, comfyui.ServerError, client.ClientError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
