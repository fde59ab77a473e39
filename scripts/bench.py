"""Measure what the pack promises about speed, and print it with the promise beside it.

    make bench          or: $(python3 scripts/host.py --python) scripts/bench.py PART …

Timings say something on an idle machine only, so they are no tests.
"""

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from itertools import pairwise
from pathlib import Path

import pack

SIZE, FRAMES, STEPS = 256, 45, 6
PREPARE_FRAMES = 100
TRACK_FRAMES = 120
MASK_FRAMES = 20
SHORT_FILM, LONG_FILM, RENDER_SIZE = 100, 1000, 64


def best(repeats: int, *runs) -> list[float]:
    """The shortest time in seconds of each run, taken in turns, so that what else happens strikes all alike."""
    times = [[] for _ in runs]
    for _ in range(repeats):
        for run, taken in zip(runs, times):
            start = time.perf_counter()
            run()
            taken.append(time.perf_counter() - start)
    return [min(taken) for taken in times]


def report(what: str, value: str, promise: str) -> None:
    print(f"{what:<58} {value:>12}   {promise}", flush=True)


def bench_sampling() -> None:
    """Guided sampling with pose, reference and background motion against plain guided image-to-video."""
    pack.load()
    import comfy.sample
    import comfy.sd
    import folder_paths
    import torch
    from animate_anywhere.models import attach, checkpoint, dit, latents, sampler
    from animate_anywhere.nodes import adapter as nodes

    nodes.register_folders()
    model = comfy.sd.load_diffusion_model(folder_paths.get_full_path("diffusion_models", "aa_tiny_base.safetensors"))
    adapter = checkpoint.load(folder_paths.get_full_path(nodes.FOLDER, "aa_tiny_adapter.safetensors"))
    shape = (1, latents.CHANNELS, latents.latent_frames(FRAMES), SIZE // 8, SIZE // 8)
    text = dit.no_text(adapter.header.base.text_width)
    start = {"concat_latent_image": torch.randn(shape)}
    character = attach.encode_reference(adapter, torch.randn(1, latents.CHANNELS, 1, *shape[-2:]))
    negative, positive = [[text, start]], [[text, {**start, "aa_pose": torch.randn(shape), "aa_reference": character}]]
    sigmas = sampler.trailing_sigmas(model.get_model_object("model_sampling"), STEPS)

    def run(patched, conditioned, cfg: float = 2.5) -> None:
        with torch.inference_mode():
            comfy.sample.sample_custom(
                patched,
                torch.randn(shape),
                cfg,
                sampler.CogVideoXSampler("cogvideox_dpm"),
                sigmas,
                conditioned,
                negative,
                torch.zeros(shape),
                disable_pbar=True,
                seed=0,
            )

    attached = attach.attach(model, adapter)
    plain, controlled = best(5, lambda: run(model, negative), lambda: run(attached, positive))
    size = f"{FRAMES}×{SIZE}×{SIZE}"
    report(f"sampling {size}, plain image-to-video", f"{plain / STEPS:.2f} s/step", "")
    report(f"sampling {size}, pose, reference and motion", f"{controlled / STEPS:.2f} s/step", "")
    report("sampling with everything against plain", f"{controlled / plain:.2f} x", "at most 1.30")


def bench_operations() -> None:
    """The same in multiplications, which do not depend on the machine, for the tiny and for the 5B model (on meta)."""
    pack.load()
    from animate_anywhere.models.checkpoint import Base

    tiny, large = Base(192, 3, 7, 96, 64), Base(3072, 48, 42, 512, 4096)
    for name, base, size in (
        ("tiny", tiny, (45, 256, 256)),
        ("5B", large, (45, 768, 1360)),
        ("5B", large, (85, 768, 1360)),
    ):
        plain, controlled = operations(base, *size)
        what = f"operations of the {name} model, {'×'.join(map(str, size))}"
        report(what, f"{(plain + controlled) / (2 * plain):.2f} x", "at most 1.30")


def operations(base, frames: int, height: int, width: int) -> tuple[int, int]:
    """Multiply-adds of one plain forward and of one with pose and reference; nothing is computed."""
    import torch
    from animate_anywhere.models import checkpoint, dit, latents
    from animate_anywhere.models.reference import Reference
    from comfy.ldm.cogvideo.model import CogVideoXTransformer3DModel
    from comfy.ldm.modules.attention import attention_pytorch
    from torch.utils.flop_counter import FlopCounterMode

    def attend(_, *arguments, **options):  # the host's other attentions ask how much memory "meta" has
        return attention_pytorch(*arguments, **options)

    def count(forward) -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            forward()
        return counter.get_total_flops()

    with torch.device("meta"):
        network = CogVideoXTransformer3DModel(
            base.heads, 64, in_channels=32, time_embed_dim=base.time_width, ofs_embed_dim=base.time_width,
            text_embed_dim=base.text_width, num_layers=base.blocks, patch_size_t=2,
            use_rotary_positional_embeddings=True, dtype=torch.bfloat16, operations=torch.nn,
        )  # fmt: skip
        control = checkpoint.pose_control_for(base, dtype=torch.bfloat16)
        latent = (latents.latent_frames(frames), height // 8, width // 8)
        grid = (height // 16, width // 16)
        state = torch.empty(1, grid[0] * grid[1], base.width, dtype=torch.bfloat16)
        character = Reference((state,) * base.controlled_blocks, grid)
        pose = torch.empty(1, 16, *latent, dtype=torch.bfloat16)
        options = {"optimized_attention_override": attend}
        given = {
            "x": torch.empty(1, 32, *latent, dtype=torch.bfloat16),
            "timestep": torch.empty(1),
            "context": dit.no_text(base.text_width, dtype=torch.bfloat16),
            "ofs": torch.empty(1),
            "transformer_options": options,
        }
        keys = character.keys_for(network, 1.0)
        plain = count(lambda: network(**given))
        return plain, count(
            lambda: dit.forward(
                network,
                **given,
                controls=lambda tokens: control.controls(base, tokens, pose, 1.0, options),
                extra_keys=keys,
            )
        )


def bench_prepare() -> None:
    """Pose and mask of a 720p video."""
    pack.load()
    import torch
    from animate_anywhere.nodes.detection import WEIGHTS
    from animate_anywhere.vision import detectors
    from demo import dance_frames

    clip = torch.nn.functional.interpolate(dance_frames().movedim(-1, 1), (720, 1280), mode="bilinear").movedim(1, -1)
    frames = clip[torch.arange(PREPARE_FRAMES) % len(clip)].contiguous()
    with torch.inference_mode():
        network = detectors.load_blazepose(WEIGHTS)
        network.follow(frames[:5])
        (taken,) = best(3, lambda: network.follow(frames))
    report("pose and mask at 1280×720", f"{PREPARE_FRAMES / taken:.1f} fps", "at least 30")


def bench_mask() -> None:
    """The mask of a 720p video as Segment Character makes it by default, and the pose of it, in time of the process."""
    pack.load()
    import torch
    from animate_anywhere.nodes.detection import WEIGHTS
    from animate_anywhere.vision import detectors, outline
    from demo import dance_frames

    clip = dance_frames()[:MASK_FRAMES].movedim(-1, 1)
    frames = torch.nn.functional.interpolate(clip, (720, 1280), mode="bilinear").movedim(1, -1).contiguous()
    network = detectors.load_blazepose(WEIGHTS)
    with one_thread(), torch.inference_mode():
        marks = [time.process_time()]
        pose = network.follow(frames).pose
        marks.append(time.process_time())
        mask = network.segment(frames, pose).numpy()
        marks.append(time.process_time())
        outline.steady(frames, mask, 0.5)
        marks.append(time.process_time())
        for index, frame in enumerate(frames):
            mask[index] = outline.refine(frame.numpy(), mask[index])
        marks.append(time.process_time())
    parts = ("pose and mask", "mask of a pose", "steadying it", "drawing it to edges")
    for name, (start, end) in zip(parts, pairwise(marks)):
        report(f"{name} at 1280×720", f"{(end - start) / MASK_FRAMES * 1e3:.0f} ms", "of one core, a frame")
    report("all of it", f"{MASK_FRAMES / (marks[-1] - marks[0]):.1f} fps", "15 on one core make 30 on two")


def bench_pose_memory() -> None:
    """What following people takes beyond the frames that go in and the pose and mask that come out, by length."""
    pack.load()
    import torch
    from animate_anywhere.nodes.detection import WEIGHTS
    from animate_anywhere.vision import detectors
    from demo import dance_frames

    clip = torch.nn.functional.interpolate(dance_frames().movedim(-1, 1), (128, 128), mode="area").movedim(1, -1)
    network = detectors.load_blazepose(WEIGHTS)
    with torch.inference_mode():
        network.follow(clip[:5])
        for count in (SHORT_FILM, LONG_FILM):
            frames = clip[torch.arange(count) % len(clip)].contiguous()
            before = most = resident()

            def watch(_: int) -> None:
                nonlocal most
                most = max(most, resident())

            found = network.follow(frames, watch)
            own = (most - before - found.mask.nbytes - found.pose.keypoints.nbytes) / 1e6
            report(f"memory for the pose of {count} frames", f"{own:.0f} MB", "below 500")


def bench_tracks() -> None:
    """Background tracks of a 540p video seen by a camera that pans and zooms, and the memory that they take."""
    pack.load()
    import cv2
    import numpy as np
    import torch
    from animate_anywhere.vision.background_tracks import track_background
    from demo import dance_frames

    height, width = 540, 960
    wall = cv2.resize(dance_frames()[0].numpy(), (1600, 1600), interpolation=cv2.INTER_CUBIC)
    frames = torch.empty(TRACK_FRAMES, height, width, 3)
    for t, frame in enumerate(frames):
        zoom = 1 + 0.001 * t
        view = np.array([[zoom, 0, 100 + 1.7 * t], [0, zoom, 200 + 20 * np.sin(t / 9)]])
        frame[:] = torch.from_numpy(cv2.warpAffine(wall, view, (width, height), flags=cv2.WARP_INVERSE_MAP))
    mask = torch.zeros(TRACK_FRAMES, height, width)
    mask[:, 150:500, 400:560] = 1
    with torch.inference_mode():
        track_background(frames[:5], mask[:5])
        before = resident()
        most = before

        def watch(_: int) -> None:
            nonlocal most
            most = max(most, resident())

        track_background(frames, mask, progress=watch)
        (taken,) = best(2, lambda: track_background(frames, mask))
    report("background tracks at 960×540", f"{TRACK_FRAMES / taken:.1f} fps", "at least 60")
    report("memory beyond inputs and outputs", f"{(most - before) / 1e6:.0f} MB", "below 500")


def bench_plate() -> None:
    """The clean plate of the first film whose time of the processor scripts/bench_plate.py prints, by the clock."""
    pack.load()
    import torch
    from animate_anywhere.vision import plate
    from bench_plate import LARGE, LONG, panned
    from scene import step_in, walker

    mask = walker(LONG, LARGE)
    frames = step_in(panned(LONG, LARGE), mask)
    with torch.inference_mode():
        plate.clean_background(frames[:5], mask[:5])
        (taken,) = best(2, lambda: plate.clean_background(frames, mask))
    report(f"clean plate of {LONG} frames at {LARGE[1]}×{LARGE[0]}", f"{taken:.1f} s", "at most 15")


def bench_render() -> None:
    """Peak memory and time of Render Shot for a short film and for one ten times as long. The pose is one frame, held:
    the pictures that an artist gives lie in memory before the node runs, and are no matter of it. Time is that of the
    process, so that other work on the machine counts less."""
    pack.load()
    import comfy.sd
    import comfy.utils
    import folder_paths
    import torch
    from animate_anywhere.models import attach, checkpoint, clips
    from animate_anywhere.nodes import adapter as nodes
    from animate_anywhere.nodes import render
    from animate_anywhere.nodes import shot as shots

    nodes.register_folders()
    model = comfy.sd.load_diffusion_model(folder_paths.get_full_path("diffusion_models", "aa_tiny_base.safetensors"))
    adapter = checkpoint.load(folder_paths.get_full_path(nodes.FOLDER, "aa_tiny_adapter.safetensors"))
    vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(folder_paths.get_full_path("vae", "aa_tiny_vae.safetensors")))
    model = attach.attach(model, adapter)
    text, picture = shots.no_prompt(model), torch.rand(1, RENDER_SIZE, RENDER_SIZE, 3)
    peaks, times = [], []
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        folder_paths.set_output_directory(folder)
        for frames in (SHORT_FILM // 2, SHORT_FILM, LONG_FILM):  # the first one warms up
            shot = clips.make_shot(picture.expand(frames, -1, -1, -1), picture)
            start = time.process_time()
            render.RenderShot.execute(model, vae, shot, text, text, 0, 1, 1, window=29, filename=str(frames))
            times.append(time.process_time() - start)
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
            report(f"rendering {frames} frames", f"{times[-1]:.1f} s", f"peak {peaks[-1] / 1e3:.0f} MB")
    longer = LONG_FILM / SHORT_FILM
    report(f"peak memory, {LONG_FILM} frames against {SHORT_FILM}", f"{peaks[2] / peaks[1]:.3f} x", "at most 1.1")
    report("time a frame, likewise", f"{times[2] / times[1] / longer:.2f} x", "0.9 to 1.1")


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch and OpenCV within a with-block, and as many as before after it."""
    import cv2
    import torch

    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    yield
    torch.set_num_threads(threads[0])
    cv2.setNumThreads(threads[1])


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def bench_start() -> None:
    """What the pack adds to the host's start."""
    from comfyui import import_seconds

    report("the pack's part of the host's start", f"{import_seconds():.2f} s", "at most 0.5")


def bench_demo() -> None:
    """make demo with the host cached."""
    (taken,) = best(1, lambda: subprocess.run([sys.executable, pack.ROOT / "scripts" / "demo.py"], check=True))
    report("make demo", f"{taken:.0f} s", "at most 120")


PARTS = {
    "sampling": bench_sampling,
    "operations": bench_operations,
    "prepare": bench_prepare,
    "mask": bench_mask,
    "pose_memory": bench_pose_memory,
    "tracks": bench_tracks,
    "plate": bench_plate,
    "render": bench_render,
    "start": bench_start,
    "demo": bench_demo,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all of them without a name")
    arguments = parser.parse_args()
    print(f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    for part in arguments.parts or PARTS:
        PARTS[part]()


if __name__ == "__main__":
    main()
