"""How much memory a piece of work takes."""

import threading

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


def free() -> int:
    """Bytes that work may take: of a GPU all, for the host moves weights out of the way; else what is free now."""
    device = comfy.model_management.get_torch_device()
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return psutil.virtual_memory().available
