"""Measure masks and clean plates against scenes whose truth is known: the figures of docs/preparation.md.

    $(python3 scripts/host.py --python) scripts/bench_plate.py [masks] [plates] [speed]

Seconds are of the processor, over all threads: they say the same on a busy machine.
"""

import argparse
import sys
import threading
import time
from pathlib import Path

import pack

sys.path.append(str(pack.ROOT / "tests"))  # scene.py: virtual cameras over painted walls

SIZE, LARGE, UHD = (160, 240), (540, 960), (2160, 3840)
FRAMES, LONG = 24, 100
CLIPS = (2, 8, 13)  # of the stage: cameras that follow somebody, twice, and one that pans
SMALL = (160, 160)
GROW = 4


def scenes():
    """(name, frames, the same without the person, mask), of painted walls and of the stage."""
    from animate_anywhere.training import stage
    from scene import camera, film, past_posts, step_in, walker, wall

    mask = walker(FRAMES, SIZE)
    for kind in ("still", "pan", "zoom"):
        background = film(wall(2 * SIZE[0], 2 * SIZE[1]), camera(kind, FRAMES, SIZE), SIZE)
        yield f"a painted wall, {kind}", step_in(background, mask), background, mask
    for near in (1.3, 1.6, 2.2):
        background = past_posts(FRAMES, SIZE, near)
        yield f"posts before it, {near} times as fast", step_in(background, mask), background, mask
    for seed in CLIPS:
        clip = stage.render_clip(stage.draw_plan(seed, 29, SMALL))
        person = (clip.mask + clip.thing > 0.02).float()
        yield f"stage, clip {seed}, camera {clip.plan.camera}", clip.frames, clip.background, person


def plates() -> None:
    """PSNR behind the person: by depth, by one plane, and Telea on each frame alone."""
    from animate_anywhere.vision import mask as masks
    from animate_anywhere.vision import parallax, plate
    from scene import psnr

    print(f"{'behind the person, dB':<40} {'plate':>7} {'plane':>7} {'Telea':>7}  never seen")
    asked = parallax.LEFT_OVER
    for name, frames, background, mask in scenes():
        hidden = masks.grow(mask, GROW)
        deep = plate.clean_background(frames, mask, grow=GROW)
        parallax.LEFT_OVER = 2  # no share is as large: one plane for all
        flat = deep if deep.alignment.parallax is None else plate.clean_background(frames, mask, grow=GROW)
        parallax.LEFT_OVER = asked
        telea = plate.clean_background(frames, mask, grow=GROW, method="telea")
        values = (psnr(result.frames, background, hidden) for result in (deep, flat, telea))
        row = " ".join(f"{min(value, 99):7.1f}" for value in values)
        print(f"{name:<40} {row}  {deep.unfilled.sum() / hidden.sum():8.1%}", flush=True)


def masks_() -> None:
    """The built-in mask on the stage, as BlazePose gives it, steadied, and drawn to edges."""
    import numpy as np
    from animate_anywhere.nodes.detection import WEIGHTS
    from animate_anywhere.training import stage
    from animate_anywhere.vision import detectors, outline

    network = detectors.load_blazepose(WEIGHTS)
    print(f"{'built-in mask on the stage':<40} {'IoU':>7} {'trembling':>10}")
    rows = {name: [] for name in ("as it is found", "steadied", "steadied and refined")}
    for seed in CLIPS:
        clip = stage.render_clip(stage.draw_plan(seed, 29, (256, 256)))
        truth = clip.mask.numpy() > 0.5
        mask = network.segment(clip.frames, clip.pose).numpy()
        calm = mask.copy()
        outline.steady(clip.frames, calm, 0.5)
        drawn = np.stack([outline.refine(frame.numpy(), one) for frame, one in zip(clip.frames, calm)])
        for name, found in zip(rows, (mask, calm, drawn)):
            inside = found > 0.5
            overlap = (inside & truth).sum() / (inside | truth).sum()
            turned = np.diff(inside.astype(int) - truth, axis=0)
            rows[name].append((overlap, np.abs(turned).sum() / truth[1:].sum()))
    for name, values in rows.items():
        overlap, trembling = np.mean(values, axis=0)
        print(f"{name:<40} {overlap:7.3f} {trembling:10.2%}", flush=True)


def speed() -> None:
    """Plates of large frames, and what they take of memory beyond what goes in and out. Walks and 4K are short: to draw
    long ones takes more memory than most machines have."""
    from animate_anywhere.vision import plate
    from scene import past_posts, step_in, walker

    for name, count, size, draw in (
        ("pan", LONG, LARGE, panned),
        ("walk past posts", FRAMES, LARGE, past_posts),
        ("pan", FRAMES // 2, UHD, panned),
    ):
        mask = walker(count, size)
        frames = step_in(draw(count, size), mask)
        with _Memory() as memory:
            start = time.process_time()
            result = plate.clean_background(frames, mask)
            taken = time.process_time() - start
        out = (result.frames.nbytes + result.unfilled.nbytes) / 2**20
        what = f"{count} frames of {size[1]}×{size[0]}, {name}"
        print(f"{what:<40} {taken:6.1f} s of one core, {memory.most - out:5.0f} MB", flush=True)


def panned(count: int, size: tuple[int, int]):
    """What a camera that pans sees of a painted wall, [T, H, W, 3]: of a frame of 4K as much as of one of 540p."""
    from scene import film, wall

    scale = size[0] // LARGE[0]
    return film(wall(scale * 700, scale * 1300), panning(count, scale), size)


def panning(count: int, scale: float = 1):
    """The path [T, 3, 3] of a camera that pans by 1.7 px a frame, times ``scale``, and sways."""
    import numpy as np

    path = np.tile(np.eye(3), (count, 1, 1))
    path[:, 0, 2] = scale * (20 + 1.7 * np.arange(count))
    path[:, 1, 2] = scale * (60 + 3 * np.sin(np.arange(count) / 4))
    return path


class _Memory:
    """How far the process's memory rises, in MB (Linux)."""

    def __enter__(self) -> "_Memory":
        self.start, self.most, self.ended = self._now(), 0.0, threading.Event()
        self.watcher = threading.Thread(target=self._watch)
        self.watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.watcher.join()

    def _watch(self) -> None:
        while not self.ended.wait(0.02):
            self.most = max(self.most, self._now() - self.start)

    @staticmethod
    def _now() -> float:
        return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * 4096 / 2**20


PARTS = {"masks": masks_, "plates": plates, "speed": speed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all of them without a name")
    arguments = parser.parse_args()
    pack.load()
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)  # the plate has its own threads, one a frame
    with torch.inference_mode():
        for part in arguments.parts or PARTS:
            PARTS[part]()


if __name__ == "__main__":
    main()
