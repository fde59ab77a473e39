"""How much memory a piece of work takes."""

import threading
from typing import NamedTuple

import comfy.model_management
import psutil
import torch

PAUSE = 0.005  # seconds between two looks at the process


class Peak:
    """Notes, within ``with Peak() as peak:``, the most memory in use, ``peak.most``, and that at its start,
    ``peak.before``, in bytes: of the GPU where there is one, else of the whole process."""

    def __enter__(self) -> "Peak":
        self.device = comfy.model_management.get_torch_device()
        self.before = self.most = self._now()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return self
        self.over = threading.Event()
        self.watcher = threading.Thread(target=self._watch, daemon=True)
        self.watcher.start()
        return self

    def __exit__(self, *_) -> None:
        if self.device.type == "cuda":
            self.most = torch.cuda.max_memory_allocated(self.device)
            return
        self.over.set()
        self.watcher.join()
        self.most = max(self.most, self._now())

    def _watch(self) -> None:
        while not self.over.wait(PAUSE):
            self.most = max(self.most, self._now())

    def _now(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.memory_allocated(self.device)
        return psutil.Process().memory_info().rss


class Work(NamedTuple):
    """What a piece of work takes beside its inputs, in bytes per pixel: of ``every_frame``, and of ``one_frame`` at a
    time."""

    every_frame: int
    one_frame: int


# Measured as the rise of the process while the node works on pictures of 9 and 17 megapixels, rounded up.
EXTRACT_POSE = Work(8, 16)
SEGMENT = Work(12, 28)
INPAINT = Work(20, 24)
# Counted from the arrays that the code holds; not measured.
DRAW = Work(12, 8)
TRACK = Work(4, 24)
MOVE = Work(16, 32)


def check_room(socket: str, frames: int, height: int, width: int, work: Work) -> None:
    """Raise ValueError, naming ``socket``, unless ``work`` on so many frames of this size fits into what is free."""
    needed = height * width * (frames * work.every_frame + work.one_frame)
    available = psutil.virtual_memory().available
    if needed > available:
        raise ValueError(
            f"{socket}: {frames} frames of {width}×{height} px need about {needed / 1e9:,.1f} GB of memory, and "
            f"{available / 1e9:,.1f} GB are free. Use smaller pictures, or fewer of them at a time."
        )


def free() -> int:
    """Bytes that work may take: of a GPU all, for the host moves weights out of the way; else what is free now."""
    device = comfy.model_management.get_torch_device()
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return psutil.virtual_memory().available
