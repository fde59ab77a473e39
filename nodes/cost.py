"""What a window of a shot costs on this machine, in seconds and bytes: measured once for a model and a size, and kept.

Two short windows are sampled for real. Steps take a·n + b·n² seconds for n latent frames (attention grows with the
square), what surrounds them and memory grow with n.
"""

import json
import os
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import comfy.model_management
import folder_paths
import torch

from ..models import attach, latents
from ..models.checkpoint import Base
from ..models.clips import Shot
from ..models.whole_file import whole
from ..models.windows import LONGEST, Window
from . import memory, save_names

MEASURED = (5, 5, 21)  # frames of the windows that are measured; with the first one, the model is loaded
STEPS = 2  # in each of them
NOTICED = 1e6  # bytes: less is lost in what the process holds anyway
SPARE = 0.9  # of the memory there is: what is free one moment is not the next
MAX_AMOUNT = 1e18  # seconds or bytes: more is no measurement
FILE = "animate_anywhere_cost.json"  # in the user's folder


@dataclass(frozen=True)
class Cost:
    """Of windows of one size with one model."""

    step: tuple[float, float]  # seconds a step: a, b
    around: tuple[float, float]  # seconds of coding and decoding: fixed, and a latent frame
    memory: tuple[float, float]  # bytes at the peak, beyond what was in use before: fixed, and a latent frame; the
    # latter is 0 where more frames were not seen to take more: without a GPU, they may fit into what the process holds

    def seconds(self, frames: int, steps: int) -> float:
        count = latents.latent_frames(frames)
        return steps * (self.step[0] * count + self.step[1] * count**2) + self.around[0] + self.around[1] * count

    def bytes(self, frames: int) -> float:
        return self.memory[0] + self.memory[1] * latents.latent_frames(frames)

    def largest(self, room: float) -> int | None:
        """Frames of the largest window that needs at most ``room`` bytes; 0 if not even the smallest does, None where
        nothing is known of it."""
        if self.memory[1] <= 0:
            return None
        if self.bytes(latents.SHORTEST) > room:
            return 0
        return latents.valid_length(min(LONGEST, latents.frames_of(int((room - self.memory[0]) / self.memory[1]))))


def free_bytes() -> float:
    """What a window may take."""
    return SPARE * memory.free()


def find(model, shot: Shot, cfg: float) -> Cost | None:
    """What was measured for this machine, kind of model and size; None if nothing was."""
    found = _read().get(_key(model, shot, cfg))
    return None if found is None else Cost(**{name: tuple(values) for name, values in found.items()})


def measure(model, shot: Shot, cfg: float, sampling) -> Cost:
    """Sample two short windows of ``shot`` with ``sampling`` (see sampling.py), and keep what they cost."""
    points, sampling.windows = [], len(MEASURED)
    for run, frames in enumerate(MEASURED):
        part = shot.window(0, frames, hold=True)
        before = sampling.encoding, sampling.sampling
        with memory.Peak() as peak:
            samples = sampling(part, Window(run, 0, frames, 0))
            begun = time.perf_counter()
            latents.decode_latents(sampling.vae, samples)
            decoding = time.perf_counter() - begun
        encoding, steps = sampling.encoding - before[0], sampling.sampling - before[1]
        points.append((latents.latent_frames(frames), steps / sampling.steps, encoding + decoding, peak))
    (n, step, around, peak), (m, longer_step, longer_around, longer_peak) = points[1:]
    square = max(0.0, (longer_step / m - step / n) / (m - n))
    a_frame = max(0.0, (longer_around - around) / (m - n))
    needed, more = (each.most - each.before for each in (peak, longer_peak))
    bytes_a_frame = (more - needed) / (m - n) if more - needed >= NOTICED else 0.0
    cost = Cost(
        step=(longer_step / m - square * m, square),
        around=(max(0.0, around - a_frame * n), a_frame),
        memory=(max(0.0, needed - bytes_a_frame * n), bytes_a_frame),
    )
    _write(_read() | {_key(model, shot, cfg): asdict(cost)})
    return cost


def _key(model, shot: Shot, cfg: float) -> str:
    device = comfy.model_management.get_torch_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, {os.cpu_count()} cores"
    control = attach.control_of(model)
    parts = [] if control is None else [control.pose_group or "", "reference" if control.has_reference else ""]
    kinds = [
        name, str(Base.of(model.get_model_object("diffusion_model"))), str(model.model_dtype()), *filter(None, parts),
        f"{shot.width}×{shot.height}", "guided" if cfg != 1 else "unguided",
    ]  # fmt: skip
    return ", ".join(kinds)


def _file() -> Path:
    return Path(folder_paths.get_user_directory()) / FILE


def _read() -> dict[str, dict]:
    """What is kept, by _key(); nothing where the file is none or damaged, so that it is measured again."""
    try:
        found = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return {key: cost for key, cost in found.items() if _is_cost(cost)} if isinstance(found, dict) else {}


def _is_cost(found: object) -> bool:
    """Whether it is a Cost as _write() kept it."""
    names = {each.name for each in fields(Cost)}
    return isinstance(found, dict) and found.keys() == names and all(map(_is_pair, found.values()))


def _is_pair(found: object) -> bool:
    return isinstance(found, list) and len(found) == 2 and all(map(_is_amount, found))


def _is_amount(found: object) -> bool:
    return isinstance(found, int | float) and not isinstance(found, bool) and abs(found) <= MAX_AMOUNT


def _write(costs: dict) -> None:
    text = json.dumps(costs, indent=1)
    try:
        with whole(_file()) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        after = "Make room, and queue it again."
        raise save_names.cannot_write(FILE, str(_file().parent), error, len(text), after) from error
