"""Run hundreds of prompts in one host, many of them canceled half way, and see whether its memory stays flat.

    $(scripts/host.py --python) scripts/soak.py                 500 prompts; status 1 where memory grows by over 3 %

The growth is that of the resident memory from prompt 50 on, by when everything is loaded and cached.
"""

import argparse
import ctypes
import gc
import random
import sys
import tempfile
from pathlib import Path

import in_process
import psutil
import torch
from in_process import Host

PROMPTS, WARM_UP, LOOK_EVERY = 500, 50, 25
MAX_GROWTH = 0.03
CANCEL_EVERY = 3
NODES = (
    "AA_DrawPose",
    "AA_ShapeAgnosticMask",
    "AA_MoveBackground",
    "AA_Shot",
    "AA_EncodeReference",
    "AA_InpaintBackground",
    "AA_ApplyAdapter",
    "AA_EncodeShot",
    "AA_SampleShot",
    "AA_PoseToTracks",
    "AA_RetargetPose",
    "AA_SegmentCharacter",
)


class Soak:
    """Prompts in one host, one after the other."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        import comfy.model_management
        import comfy.utils
        import folder_paths

        for name, use in (("output", folder_paths.set_output_directory), ("user", folder_paths.set_user_directory)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            use(str(folder / name))
        schemas = {name: node.GET_SCHEMA() for name, node in in_process.register().items()}
        from fuzz_values import Materials

        materials = Materials()
        self.inputs = {name: materials.of(name, schemas[name].inputs) for name in NODES}
        self.outputs = {name: len(schemas[name].outputs) for name in NODES}
        self.host, self.draw = Host(), random.Random(seed)
        self.calls_left = None  # of the progress bar, until it cancels
        self.canceled = self.done = 0
        self.interrupt = comfy.model_management.interrupt_current_processing
        comfy.utils.set_progress_bar_global_hook(self._progress)

    def _progress(self, *_, **__) -> None:
        if self.calls_left is not None:
            self.calls_left -= 1
            if self.calls_left <= 0:
                self.interrupt(True)

    def prompt(self, number: int) -> None:
        """Run prompt ``number``; every CANCEL_EVERY-th is canceled early, if it reports progress at all."""
        node = NODES[number % len(NODES)]
        cancel = number // len(NODES) % CANCEL_EVERY == CANCEL_EVERY - 1
        self.calls_left = self.draw.randint(1, 2) if cancel else None
        outcome = self.host.run(node, self.inputs[node], self.outputs[node])
        if outcome.kind not in ("", "interrupted"):
            raise AssertionError(f"{node}: {outcome.kind}: {outcome.error}")
        self.canceled += outcome.kind == "interrupted"
        self.done += 1


def resident_bytes() -> int:
    """Resident memory of this process, without what was freed and is only kept for later."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    return psutil.Process().memory_info().rss


def run(folder: Path, prompts: int, warm_up: int, look_every: int, tick=None) -> tuple[list[tuple[int, int]], Soak]:
    """Return [(prompt, resident bytes)], from ``warm_up`` on, and the soak."""
    soak, curve = Soak(folder), []
    for number in range(1, prompts + 1):
        soak.prompt(number)
        if number >= warm_up and (number - warm_up) % look_every == 0:
            curve.append((number, resident_bytes()))
            if tick:
                tick(*curve[-1])
    return curve, soak


def growth(curve: list[tuple[int, int]]) -> float:
    """How much more there is at the end of ``curve`` than at its start, as a share."""
    return curve[-1][1] / curve[0][1] - 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    parser.add_argument("--warm-up", type=int, default=WARM_UP, help="prompts before the first look at the memory")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        curve, soak = run(Path(folder), options.prompts, options.warm_up, LOOK_EVERY, _print)
    grown = f"memory grew by {growth(curve):.1%} from prompt {options.warm_up} on"
    print(f"{soak.done} prompts, {soak.canceled} of them canceled: {grown}")
    return 1 if growth(curve) > MAX_GROWTH else 0


def _print(number: int, size: int) -> None:
    print(f"prompt {number:4}: {size / 1e6:8.1f} MB", flush=True)


if __name__ == "__main__":
    sys.exit(main())
