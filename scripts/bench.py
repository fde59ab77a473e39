"""Measure what the pack promises about speed, and print it with the promise beside it.

    make bench          or: $(python3 scripts/host.py --python) scripts/bench.py [sampling] [prepare] [start] [demo]

Timings say something on an idle machine only, so they are no tests.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from datetime import date

import pack

SIZE, FRAMES, STEPS = 256, 45, 6
PREPARE_FRAMES = 100


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

    def run(patched, conditioned) -> None:
        with torch.inference_mode():
            comfy.sample.sample_custom(
                patched,
                torch.randn(shape),
                2.5,
                sampler.CogVideoXSampler("cogvideox_dpm"),
                sigmas,
                conditioned,
                negative,
                torch.zeros(shape),
                disable_pbar=True,
                seed=0,
            )

    attached = attach.attach(model, adapter)
    plain, controlled = best(3, lambda: run(model, negative), lambda: run(attached, positive))
    size = f"{FRAMES}×{SIZE}×{SIZE}"
    report(f"sampling {size}, plain image-to-video", f"{plain / STEPS:.2f} s/step", "")
    report(f"sampling {size}, pose, reference and motion", f"{controlled / STEPS:.2f} s/step", "")
    report("sampling with everything against plain", f"{controlled / plain:.2f} x", "at most 1.30")


def bench_prepare() -> None:
    """Pose and mask of a 720p video."""
    pack.load()
    import torch
    from animate_anywhere.nodes import pose as nodes
    from animate_anywhere.vision import detectors
    from demo import dance_frames

    clip = torch.nn.functional.interpolate(dance_frames().movedim(-1, 1), (720, 1280), mode="bilinear").movedim(1, -1)
    frames = clip[torch.arange(PREPARE_FRAMES) % len(clip)].contiguous()
    with torch.inference_mode():
        network = detectors.load_blazepose(nodes.WEIGHTS)
        network.follow(frames[:5])
        (taken,) = best(3, lambda: network.follow(frames))
    report("pose and mask at 1280×720", f"{PREPARE_FRAMES / taken:.1f} fps", "at least 25")


def bench_start() -> None:
    """What the pack adds to the host's start."""
    from comfyui import import_seconds

    report("the pack's part of the host's start", f"{import_seconds():.2f} s", "at most 0.5")


def bench_demo() -> None:
    """make demo with the host cached."""
    (taken,) = best(1, lambda: subprocess.run([sys.executable, pack.ROOT / "scripts" / "demo.py"], check=True))
    report("make demo", f"{taken:.0f} s", "at most 120")


PARTS = {"sampling": bench_sampling, "prepare": bench_prepare, "start": bench_start, "demo": bench_demo}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all of them without a name")
    arguments = parser.parse_args()
    print(f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    for part in arguments.parts or PARTS:
        PARTS[part]()


if __name__ == "__main__":
    main()
