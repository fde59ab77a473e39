"""What tests of Render Shot render: the same in every process, and so in one that is to be killed or measured.

python tests/render_toys.py kill FOLDER FRAMES WINDOW     render, and die by SIGKILL in the midst of a window
python tests/render_toys.py peak FOLDER SHORT LONG        render both; the peak memory after each, in bytes
"""

import os
import resource
import signal
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
    import pack

    pack.load()

import comfy.utils
import folder_paths
import torch
import toys
from animate_anywhere.models import attach, checkpoint, clips
from animate_anywhere.nodes import render as nodes
from animate_anywhere.nodes import sample as sampling
from animate_anywhere.nodes import shot as shots

WIDTH, HEIGHT, STEPS = 32, 16, 2
MEASURED = 64  # px, so that frames would be seen if they piled up


class Toy(NamedTuple):
    base: object
    adapter: checkpoint.Adapter
    model: object
    vae: object
    shot: clips.Shot


def make(frames: int, width: int = WIDTH, height: int = HEIGHT) -> Toy:
    """Every part of the adapter has an effect."""
    generator = torch.Generator().manual_seed(1)
    base = toys.cogvideox_patcher()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "adapter.safetensors"
        checkpoint.save(path, checkpoint.Base.of(base.model.diffusion_model), toys.trained_groups(base))
        adapter = checkpoint.load(path)
    character = torch.randn(1, 16, 1, height // 8, width // 8, generator=generator)
    pose, background = (torch.rand(count, height, width, 3, generator=generator) for count in (frames, 1))
    shot = clips.make_shot(pose, background, attach.encode_reference(adapter, character))
    return Toy(base, adapter, attach.attach(base, adapter), toys.taehv_vae(), shot)


def render(toy: Toy, **more):
    text = shots.no_prompt(toy.model)
    given = {"seed": 5, "steps": STEPS, "window": 5, "filename": "animate_anywhere/shot"} | more
    return nodes.RenderShot.execute(toy.model, toy.vae, toy.shot, text, text, **given)


def sample(toy: Toy) -> torch.Tensor:
    text = shots.no_prompt(toy.model)
    return sampling.SampleShot.execute(toy.model, toy.vae, toy.shot, text, text, 5, STEPS, window=5).result[0]


def kill(frames: int, window: int) -> None:
    def die(done: int, *_, **__) -> None:
        if done == window * STEPS + 1:
            os.kill(os.getpid(), signal.SIGKILL)

    comfy.utils.PROGRESS_BAR_HOOK, comfy.utils.PROGRESS_THROTTLE_MIN_INTERVAL = die, 0
    render(make(frames))


def peak(*lengths: int) -> None:
    """The pose is one frame, held: how many an artist gives is no matter of the node."""
    toy = make(1, MEASURED, MEASURED)
    for length in lengths:
        pose = toy.shot.pose.expand(length, -1, -1, -1)
        shot = clips.make_shot(pose, toy.shot.background, toy.shot.reference)
        render(toy._replace(shot=shot), steps=1, cfg=1, window=21, filename=str(length))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


if __name__ == "__main__":
    task, folder, *numbers = sys.argv[1:]
    folder_paths.set_output_directory(folder)
    torch.set_num_threads(1)
    with torch.inference_mode():
        {"kill": kill, "peak": peak}[task](*map(int, numbers))
