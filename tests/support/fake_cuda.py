"""Fake CUDA devices: tensors of any size without values (torch's FakeTensorMode), and a count of their bytes.

Small tensors keep their values beside them, because programs ask for these (noise levels, masks, lengths). What
PyTorch's fake kernels leave out is checked here: mixed dtypes, arithmetic in fp8, generators of another device. The
bytes are those of all live tensors, without the workspaces and the fragmentation of a real device.
"""

import contextlib
import traceback
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import comfy.ldm.cogvideo.model
import comfy.ldm.modules.attention
import comfy.ops
import torch
from animate_anywhere.models import cross_attention
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map

from . import cuda_host, cuda_tensors

KNOWN = 4096  # values of a tensor, at most, that are kept
ONE_DTYPE = {*cuda_tensors.ONE_DTYPE, "aten::linear", "aten::matmul", "aten::lerp"}
FROM_NOTHING = {"aten::arange", "aten::zeros", "aten::ones", "aten::full", "aten::scalar_tensor", "aten::linspace"}


class Watch(TorchDispatchMode):
    """Counts bytes a device and collects faults while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.peak = Counter(), Counter()  # bytes, by device
        self.faults = Counter()  # "kind: what @ where"
        self.storages: dict[int, weakref.ref] = {}

    def start_peak(self) -> None:
        """Measure the peak anew."""
        self.peak = Counter(self.now)

    def used(self, device: torch.device) -> int:
        return self.now[str(device)]

    def fault(self, kind: str, what: str) -> None:
        frames = [frame for frame in traceback.extract_stack() if _is_of_interest(frame.filename)]
        where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[::-1][:4])
        self.faults[f"{kind}: {what} @ {where}"] += 1

    def __torch_dispatch__(self, function, types, args=(), kwargs=None) -> object:
        kwargs = kwargs or {}
        name = function._schema.name
        tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
        if name == "aten::_local_scalar_dense" and isinstance(tensors[0], FakeTensor):
            return self._item(tensors[0])
        self._check(name, tensors, kwargs)
        made = function(*args, **kwargs)
        fakes = [each for each in tree_flatten(made)[0] if isinstance(each, FakeTensor)]
        for each in fakes:
            self._count(each)
        if fakes and all(each.numel() <= KNOWN for each in fakes):
            _keep_values(function, args, kwargs, tensors, fakes)
        return made

    def _item(self, tensor: FakeTensor) -> bool | float | int:
        value = getattr(tensor, "known", None)
        if value is not None:
            with _disable_current_modes():
                return value.item()
        # Of a large tensor: whether the host's latent image is empty, for one.
        return {torch.bool: True}.get(tensor.dtype, 1.0 if tensor.dtype.is_floating_point else 1)

    def _check(self, name: str, tensors: list[Tensor], kwargs: dict) -> None:
        dtypes = {each.dtype for each in tensors if each.dtype.is_floating_point}
        on_cuda = any(each.device.type == "cuda" for each in tensors)
        if name in ONE_DTYPE and on_cuda and len(dtypes) > 1:
            self.fault("dtype mix", f"{name} of {sorted(map(str, dtypes))}")
        if name in ONE_DTYPE | cuda_tensors.ARITHMETIC and dtypes & set(cuda_tensors.FLOAT8):
            self.fault("fp8 arithmetic", name)
        generator, device = kwargs.get("generator"), kwargs.get("device") or (tensors[0].device if tensors else None)
        if generator is not None and device is not None and torch.device(device).type != generator.device.type:
            self.fault("generator", f"{name} on {device} with a generator of {generator.device}")

    def _count(self, tensor: FakeTensor) -> None:
        storage = tensor.untyped_storage()
        key, device, size = storage._cdata, str(tensor.device), storage.nbytes()
        if key in self.storages:
            return

        def gone(_: weakref.ref) -> None:
            if self.storages.pop(key, None) is not None:
                self.now[device] -= size

        self.storages[key] = weakref.ref(storage, gone)
        self.now[device] += size
        self.peak[device] = max(self.peak[device], self.now[device])


def _is_of_interest(file: str) -> bool:
    return "/comfy/" in file or any(f"/{floor}/" in file for floor in ("nodes", "models", "vision"))


def _keep_values(function, args: tuple, kwargs: dict, tensors: list[Tensor], fakes: list[FakeTensor]) -> None:
    """Compute small results for real, where all operands are known."""
    name = function._schema.name
    if name in ("aten::zeros_like", "aten::ones_like", "aten::new_zeros", "aten::new_ones"):
        with _disable_current_modes():
            for each in fakes:
                each.known = torch.full(each.shape, float("one" in name), dtype=each.dtype)
        return
    known = [_known(each) for each in tensors]
    if any(each is None for each in known) or (not tensors and name not in FROM_NOTHING):
        return
    if torch.Tag.nondeterministic_seeded in function.tags:
        return

    def real(value: object) -> object:
        return _known(value) if isinstance(value, Tensor) else "cpu" if isinstance(value, torch.device) else value

    with _disable_current_modes(), contextlib.suppress(RuntimeError, NotImplementedError):
        # Some operations take only arguments that fake kernels do not check; their values stay unknown.
        made = function(*tree_map(real, args), **{key: tree_map(real, value) for key, value in kwargs.items()})
        for fake, each in zip(fakes, [each for each in tree_flatten(made)[0] if isinstance(each, Tensor)]):
            fake.known = each


def _known(tensor: Tensor) -> Tensor | None:
    if isinstance(tensor, FakeTensor):
        return getattr(tensor, "known", None)
    return tensor if tensor.numel() <= KNOWN else None


def install() -> None:
    """Teach this process's torch what FakeTensorMode leaves out, for good: only for processes of their own."""
    torch.nn.Module._apply = cuda_tensors.apply_to_module
    FakeTensor.tolist = lambda tensor: tensor.known.tolist()
    FakeTensor.__float__ = lambda tensor: float(tensor.item())
    FakeTensor.__bool__ = lambda tensor: bool(tensor.item())
    FakeTensor.__int__ = lambda tensor: int(tensor.item())


@contextlib.contextmanager
def device(total: float) -> Iterator[Watch]:
    """Within the block the host has one device of `total` bytes, and nothing is computed."""
    watch = Watch()
    cuda_host.install(1, total, watch.used, half=True)
    _use_flash_attention(watch)
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), watch:
        yield watch


def _use_flash_attention(watch: Watch) -> None:
    """The attention that the host takes on CUDA, by its shapes and its memory."""

    def attention(q: Tensor, k: Tensor, v: Tensor, *_, **__) -> Tensor:
        for what, found in (("dtype mix", {x.dtype for x in (q, k, v)}), ("device mix", {x.device for x in (q, k, v)})):
            if len(found) > 1:
                watch.fault(what, f"attention of {sorted(map(str, found))}")
        sums = torch.empty(q.shape[:-1], dtype=torch.float32, device=q.device)  # flash attention's own, per query
        made = torch.empty(q.shape[0], q.shape[2], q.shape[1], v.shape[-1], dtype=q.dtype, device=q.device)
        del sums
        return made.transpose(1, 2)

    comfy.ops.scaled_dot_product_attention = attention
    kind = comfy.ldm.modules.attention
    for module in (kind, comfy.ldm.cogvideo.model, cross_attention):
        module.optimized_attention = kind.attention_pytorch
