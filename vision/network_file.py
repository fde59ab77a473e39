"""Pose networks from files: TorchScript through torch alone, ONNX where onnxruntime is installed.

A TorchScript file is a program, so nothing here opens one: the caller says how, and does so only with those it trusts.
"""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

TORCHSCRIPT, ONNX = ".torchscript.pt", ".onnx"
GPU_PROVIDERS = ("CUDAExecutionProvider", "ROCMExecutionProvider", "MIGraphXExecutionProvider", "DmlExecutionProvider")
PROCESSOR = "CPUExecutionProvider"


class TorchScriptNetwork:
    """Pictures [B, 3, H, W] float32 -> the network's outputs, each [B, …] float32.

    A file that was traced for one batch size says so in its name (``…_bs5.torchscript.pt``); batches are filled up.
    """

    def __init__(self, network: torch.nn.Module, name: str, device: torch.device | str) -> None:
        self.network = network.eval()
        self.device = torch.device(device)
        traced = re.search(r"_bs(\d+)", name)
        self.batch = int(traced[1]) if traced else None
        weight = next(self.network.parameters(), None)
        self.dtype = torch.float32 if weight is None else weight.dtype

    @torch.inference_mode()
    def __call__(self, pictures: np.ndarray) -> list[np.ndarray]:
        outputs = [
            self._run(pictures[start : start + step])
            for step in [self.batch or len(pictures)]
            for start in range(0, len(pictures), step)
        ]
        return [np.concatenate(parts) for parts in zip(*outputs)]

    def _run(self, pictures: np.ndarray) -> list[np.ndarray]:
        filled = np.zeros((self.batch or len(pictures), *pictures.shape[1:]), np.float32)
        filled[: len(pictures)] = pictures
        outputs = self.network(torch.from_numpy(filled).to(self.device, self.dtype))
        outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
        return [output[: len(pictures)].float().cpu().numpy() for output in outputs]


class OnnxNetwork:
    """The same for an ONNX file. Raises ImportError where onnxruntime is not installed."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        there = onnxruntime.get_available_providers()
        providers = [provider for provider in GPU_PROVIDERS if provider in there]
        try:
            self.session = onnxruntime.InferenceSession(path, providers=[*providers, PROCESSOR])
        except Exception as error:  # onnxruntime has a dozen kinds, with no other parent in common
            raise ValueError(_broken(path, "ONNX")) from error
        self.input = self.session.get_inputs()[0]
        fixed = self.input.shape[0]
        self.batch = fixed if isinstance(fixed, int) else None

    @property
    def on_processor(self) -> bool:
        """Whether onnxruntime found no GPU that it can use."""
        return self.session.get_providers() == [PROCESSOR]

    def __call__(self, pictures: np.ndarray) -> list[np.ndarray]:
        step = self.batch or len(pictures)
        outputs = [
            self.session.run(None, {self.input.name: pictures[start : start + step]})
            for start in range(0, len(pictures), step)
        ]
        return [np.concatenate(parts) for parts in zip(*outputs)]


Network = TorchScriptNetwork | OnnxNetwork


def load_network(
    path: Path, device: torch.device | str, open_torchscript: Callable[[Path], torch.nn.Module]
) -> Network:
    """The network in the file at ``path``.

    open_torchscript: opens such a file onto ``device``, or raises ValueError where it is not to be trusted.
    Raises ValueError for a file that is broken or of no known kind, ImportError for ONNX without onnxruntime.
    """
    if path.name.endswith(TORCHSCRIPT):
        try:
            network = open_torchscript(path)
        except RuntimeError as error:
            raise ValueError(_broken(path, "TorchScript")) from error
        return TorchScriptNetwork(network, path.name, device)
    if path.suffix == ONNX:
        return OnnxNetwork(path)
    raise ValueError(f"detector: {path.name} is neither TorchScript ({TORCHSCRIPT}) nor ONNX ({ONNX}).")


def _broken(path: Path, kind: str) -> str:
    return f"detector: {path} cannot be read as {kind}. Is the download complete? Delete the file and get it again."
