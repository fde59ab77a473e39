"""What tests of Render Shot render: the same in every process, and so in one that is to be killed or measured.

python tests/render_toys.py kill FOLDER FRAMES WINDOW     render, and die by SIGKILL in the midst of a window
python tests/render_toys.py peak FOLDER SHORT LONG        render both; the peak memory after each, in bytes
python tests/render_toys.py each FOLDER FRAMES            die at the 1st, 2nd, … file operation, each time of a new film
python tests/render_toys.py often FOLDER FRAMES KILLS     die KILLS times at later and later operations of one film
python tests/render_toys.py aside FOLDER FRAMES           die at the 1st, 2nd, … operation of a film with other inputs

The last three fork for each film, as starting ComfyUI takes seconds, and print JSON: see tests/test_render_kills.py.
"""

import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from functools import partial
from itertools import count
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


class Killer:
    """Ends the process by SIGKILL at its ``last`` file operation in ``folder``: open, rename, remove or mkdir.

    The operation is not carried out. Of what is written by PyAV only the renaming counts.
    """

    EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.truncate")

    def __init__(self, folder: str) -> None:
        self.folder, self.left = os.path.realpath(folder), None
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple) -> None:
        if self.left is None or event not in self.EVENTS or not isinstance(arguments[0], str | os.PathLike):
            return
        if os.path.realpath(arguments[0]).startswith(self.folder):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def forked(work, killer: Killer | None = None, last: int = 0) -> bool:
    """Do ``work`` in a process of its own, which dies at its ``last`` file operation; whether it was done."""
    process = os.fork()
    if not process:
        if killer is not None:
            killer.left = last
        try:
            work()
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    status = os.waitpid(process, 0)[1]
    assert status in (0, signal.SIGKILL), f"the render failed instead of being killed: {status}"
    return status == 0


def rows_in(folder: Path) -> int:
    """Windows that the film in ``folder`` has done."""
    try:
        return len(json.loads((folder / "shot.parts" / "state.json").read_text())["rows"])
    except FileNotFoundError:
        return 0


def each(folder: str, frames: int) -> None:
    """{operation: windows done when it was killed, and the first line of the report of the render that went on}"""
    toy, killer, found = make(frames), Killer(folder), {}
    for operation in count(1):
        name = f"{operation}/shot"
        whole = forked(lambda name=name: render(toy, filename=name, steps=1), killer, operation)
        done = rows_in(Path(folder, str(operation)))
        report = render(toy, filename=name, steps=1).result[1].splitlines()[0]
        found[operation] = [done, report]
        if whole:
            print(json.dumps(found))
            return


def often(folder: str, frames: int, kills: int) -> None:
    """The windows done after each of the ``kills``."""
    toy, killer, done = make(frames), Killer(folder), []
    render(toy, filename="undisturbed/shot", steps=1)
    for kill in range(kills):
        operation = 20 + 7 * kill % 23  # at times before the first window that is made, at times after it
        whole = forked(lambda: render(toy, filename="disturbed/shot", steps=1), killer, operation)
        assert not whole, "the film was whole before all kills"
        done.append(rows_in(Path(folder, "disturbed")))
    render(toy, filename="disturbed/shot", steps=1)
    print(json.dumps(done))


def aside(folder: str, frames: int) -> None:
    """{operation at which the render that sets a film aside died: the film's name, what is wrong with its parts}"""
    toy, killer, found = make(frames), Killer(folder), {}
    begun, operation = Path(folder, "begun"), 0
    while rows_in(begun) != 1:  # a film of one of its windows, to be set aside each time
        shutil.rmtree(begun, ignore_errors=True)
        operation += 1
        forked(lambda: render(toy, filename="begun/shot", steps=1), killer, operation)
    (begun / "shot.mp4").write_bytes(b"a film of one window")
    for operation in count(1):
        here = Path(folder, str(operation))
        shutil.copytree(begun, here)
        forked(lambda name=f"{operation}/shot": render(toy, filename=name, steps=1, seed=6), killer, operation)
        was_over = (here / "shot (1).parts").exists() and not (here / "shot.parts" / "moving").exists()
        with nodes._place(f"{operation}/shot", nodes.film.H264).held():
            older = nodes._place(f"{operation}/shot{' (1)' * (here / 'shot (1).parts').exists()}", nodes.film.H264)
            found[operation] = [older.film.name * older.film.exists(), older._problem(older._read(), 2)]
        if was_over:
            print(json.dumps(found))
            return


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
        forks = {name: partial(work, folder) for name, work in (("each", each), ("often", often), ("aside", aside))}
        ({"kill": kill, "peak": peak} | forks)[task](*map(int, numbers))
