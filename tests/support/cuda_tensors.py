"""Make-believe CUDA tensors: real values, computed by the CPU's kernels, under the rules of real CUDA devices.

A CudaTensor says that it is on cuda:0 (or cuda:1, ...) and refuses what PyTorch refuses there: operations that mix
devices, `.numpy()`, and CPU generators. What it computes is therefore what the CPU computes, and a program that runs
here moves every tensor where it belongs. It knows nothing of speed, kernels or precision of a real device.
"""

import threading

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
# Their CUDA kernels take one floating-point dtype; the CPU's do not always mind.
ONE_DTYPE = {
    "aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::convolution", "aten::native_layer_norm",
    "aten::native_group_norm",
}  # fmt: skip
ARITHMETIC = {"aten::add", "aten::mul", "aten::sub", "aten::div", "aten::cat", "aten::silu", "aten::gelu", *ONE_DTYPE}
FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
CPU = torch.device("cpu")


class CudaTensor(Tensor):
    """`values`, a CPU tensor, as one on the CUDA device `place`."""

    @staticmethod
    def __new__(cls, values: Tensor, place: torch.device) -> "CudaTensor":
        with _disable_current_modes(), torch.inference_mode(False):
            shape = torch.empty_strided(values.size(), values.stride(), dtype=values.dtype, device="meta")
        made = torch.Tensor._make_subclass(cls, shape, False, dispatch_device=True, device_for_backend_keys=place)
        made.values_on_cpu = values.detach() if values.requires_grad else values
        made.place = place
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None) -> object:
        return _run(function, args, kwargs or {})

    def numpy(self, *_, **__) -> None:
        raise TypeError(f"can't convert {self.place} device type tensor to numpy. Use Tensor.cpu() first.")

    def __array__(self, *_, **__) -> None:
        self.numpy()

    def __repr__(self) -> str:
        return f"CudaTensor({self.values_on_cpu!r}, {self.place})"

    def __deepcopy__(self, _) -> "CudaTensor":
        return CudaTensor(self.values_on_cpu.clone(), self.place)

    def tolist(self) -> list:
        return self.values_on_cpu.tolist()

    def data_ptr(self) -> int:
        return self.values_on_cpu.data_ptr()


class CudaMode(TorchDispatchMode):
    """Lets factories make tensors on CUDA devices, and CPU tensors meet CudaTensors only where PyTorch allows it."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None) -> object:
        kwargs = kwargs or {}
        if _names_cuda(args, kwargs) or any(isinstance(each, CudaTensor) for each in _tensors(args, kwargs)):
            return _run(function, args, kwargs)
        return function(*args, **kwargs)


def _run(function, args: tuple, kwargs: dict) -> object:
    """Run one operation on the values, or raise what PyTorch raises on CUDA devices."""
    if function is torch.ops.prim.device.default:
        return args[0].place if isinstance(args[0], CudaTensor) else args[0].device
    name = function._schema.name
    if _is_composite(function, name):
        with CudaMode():
            done = function.decompose(*args, **kwargs)
        if done is not NotImplemented:
            return done
    tensors = _tensors(args, kwargs)
    on_cuda = [each for each in tensors if isinstance(each, CudaTensor)]
    if name == "aten::copy_":
        function(*_values(args), **kwargs)
        return args[0]
    if name == "aten::pin_memory":
        return args[0]
    place = _place_of_result(name, args, kwargs, on_cuda)
    _check(name, args, kwargs, tensors, place)
    plain = {key: _values(value) if key != "device" else CPU for key, value in kwargs.items()}
    if kwargs.get("device", CPU) is None:
        plain["device"] = None
    made = function(*_values(args), **plain)
    before = {id(each.values_on_cpu): each for each in on_cuda}  # what is changed in place stays the same tensor
    if isinstance(made, list | tuple):
        return type(made)(before.get(id(each), _wrap(each, place)) for each in made)
    return before.get(id(made), _wrap(made, place))


def _is_composite(function, name: str) -> bool:
    """Whether inference mode has brought here what autograd would have taken apart into simple operations."""
    if not torch.is_inference_mode_enabled() or not isinstance(function, torch._ops.OpOverload):
        return False
    return name not in ("aten::matmul", "aten::linear") and function._can_decompose()


def _place_of_result(name: str, args: tuple, kwargs: dict, on_cuda: list) -> torch.device:
    asked = kwargs.get("device")
    if asked is not None:
        return _indexed(asked)
    if name == "aten::_to_copy" or name.endswith("_like") or name.startswith("aten::new_"):
        return args[0].place if isinstance(args[0], CudaTensor) else CPU
    return on_cuda[0].place if on_cuda else CPU


def _check(name: str, args: tuple, kwargs: dict, tensors: list, place: torch.device) -> None:
    """Raise what PyTorch raises on CUDA devices for these operands."""
    generator = kwargs.get("generator")
    if generator is not None and place.type == "cuda" and not getattr(generator, "on_cuda", False):
        raise RuntimeError(f"Expected a 'cuda' device type for generator but found 'cpu' ({name})")
    moves = name == "aten::_to_copy" or name.endswith("_like") or name.startswith("aten::new_")
    places = {_place(each) for each in tensors if each.dim()}
    if name in INDEXING and isinstance(args[0], CudaTensor):  # its indices may lie on the CPU
        places = {_place(each) for each in tensors if each.dim() and each.dtype.is_floating_point}
    if len(places) > 1 and not moves:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"{' and '.join(sorted(map(str, places)))}! ({name})"
        )
    if any(isinstance(each, CudaTensor) for each in tensors):
        dtypes = {each.dtype for each in tensors if each.dtype.is_floating_point}
        if name in ONE_DTYPE and len(dtypes) > 1:
            raise RuntimeError(f"expected operands of one dtype, found {sorted(map(str, dtypes))} ({name})")
        if name in ARITHMETIC and dtypes & set(FLOAT8):
            raise RuntimeError(f"{name} is not implemented for {dtypes & set(FLOAT8)}")


def _place(tensor: Tensor) -> torch.device:
    return tensor.place if isinstance(tensor, CudaTensor) else CPU


def _indexed(device: object) -> torch.device:
    device = torch.device(device)
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def _names_cuda(args: tuple, kwargs: dict) -> bool:
    devices = [each for each in (*args, kwargs.get("device")) if isinstance(each, torch.device)]
    return any(each.type == "cuda" for each in devices)


def _tensors(args: tuple, kwargs: dict) -> list[Tensor]:
    """All tensors among the operands of an operation, which nest at most once."""
    found = []
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += [each for each in value if isinstance(each, Tensor)]
    return found


def _values(value: object) -> object:
    if isinstance(value, CudaTensor):
        return value.values_on_cpu
    return type(value)(map(_values, value)) if type(value) in (list, tuple) else value


def _wrap(value: object, place: torch.device) -> object:
    if isinstance(value, Tensor) and not isinstance(value, CudaTensor) and place.type == "cuda":
        return CudaTensor(value, place)
    return value


def install() -> None:
    """Teach this process's torch to take CUDA devices, for good: only for processes of their own."""
    torch.cuda._lazy_init = lambda: None
    torch._C._ensureCUDADeviceGuardSet()
    torch.backends.cudnn.enabled = False
    torch.nn.Module._apply = apply_to_module
    _enter_mode_in_threads()
    _take_devices_in_constructors()


def apply_to_module(self: torch.nn.Module, change, recurse: bool = True) -> torch.nn.Module:
    """torch.nn.Module._apply with new parameters, as a subclass of Tensor cannot become the data of a plain one."""
    if recurse:
        for child in self.children():
            child._apply(change)
    for name, parameter in self._parameters.items():
        if parameter is not None:
            self._parameters[name] = torch.nn.Parameter(change(parameter), requires_grad=False)
    for name, buffer in self._buffers.items():
        if buffer is not None:
            self._buffers[name] = change(buffer)
    return self


def _enter_mode_in_threads() -> None:
    run = threading.Thread.run

    def run_in_mode(self: threading.Thread) -> None:
        with CudaMode():
            run(self)

    threading.Thread.run = run_in_mode


def _take_devices_in_constructors() -> None:
    """`torch.tensor` and its like look for the device's runtime before they reach the dispatcher."""

    def moved(make):
        def make_moved(data: object, *args, device=None, **kwargs) -> Tensor:
            made = data if isinstance(data, CudaTensor) and make is as_tensor else make(data, *args, **kwargs)
            return made if device is None else made.to(device)

        return make_moved

    as_tensor, real, load = torch.as_tensor, torch.Generator, torch.jit.load
    torch.tensor, torch.as_tensor = moved(torch.tensor), moved(as_tensor)

    class Generator(real):
        def __new__(cls, device="cpu") -> "Generator":
            made = super().__new__(cls)
            made.on_cuda = torch.device(device).type == "cuda"
            return made

        def __init__(self, device="cpu") -> None:
            pass

    torch.Generator = Generator
    torch.jit.load = lambda path, map_location=CPU: _Script(load(path), torch.device(map_location))


class _Script(torch.nn.Module):
    """A TorchScript network on a device: its interpreter only knows plain tensors."""

    def __init__(self, network: torch.jit.ScriptModule, place: torch.device) -> None:
        super().__init__()
        self.network, self.place = network, place

    def forward(self, pictures: Tensor) -> object:
        if _place(pictures) != _indexed(self.place):
            raise RuntimeError(f"a network on {self.place} was given a tensor on {_place(pictures)}")
        with _disable_current_modes():
            made = self.network(_values(pictures))
        return tuple(_wrap(each, _indexed(self.place)) for each in (made if isinstance(made, tuple) else (made,)))
