"""The host, told that it has CUDA devices: the answers of comfy.model_management that it would get from a driver."""

import contextlib
from collections.abc import Callable

import comfy.float
import comfy.model_management as management
import torch
from comfy.cli_args import args

SYSTEM_RAM = 64e9  # bytes, of the machine around the devices


def install(count: int, total: float, used: Callable[[torch.device], float], half: bool) -> None:
    """Give the host `count` CUDA devices of `total` bytes, of which `used` are taken.

    half: whether the devices compute in bf16 and fp16. For good: only for processes of their own.
    """
    first = torch.device("cuda", 0)

    def is_cpu(device: object) -> bool:
        return device is not None and torch.device(device).type == "cpu"

    def free(device=None, torch_free_too: bool = False) -> float | tuple[float, float]:
        device = first if device is None else torch.device(device)
        left = SYSTEM_RAM if is_cpu(device) else total - used(device)
        return (left, left) if torch_free_too else left

    def whole(device=None, torch_total_too: bool = False) -> float | tuple[float, float]:
        size = SYSTEM_RAM if is_cpu(device) else total
        return (size, size) if torch_total_too else size

    def computes_half(device=None, *_, **__) -> bool:
        return half and not is_cpu(device)

    changes = {
        "cpu_state": management.CPUState.GPU,
        "vram_state": _vram_state(),
        "get_torch_device": lambda: first,
        "get_free_memory": free,
        "get_total_memory": whole,
        "should_use_bf16": computes_half,
        "should_use_fp16": computes_half,
        "supports_fp8_compute": lambda device=None: half,
        "supports_nvfp4_compute": lambda device=None: False,
        "supports_mxfp8_compute": lambda device=None: False,
        "lora_compute_dtype": lambda device: torch.bfloat16 if half else torch.float32,
        "is_nvidia": lambda: True,
        "is_amd": lambda: False,
        "is_device_cuda": lambda device: torch.device(device).type == "cuda",
        "soft_empty_cache": lambda force=False: None,
        "synchronize": lambda: None,
        "pin_memory": lambda tensor: False,
        "unpin_memory": lambda tensor: False,
        "set_torch_device": lambda device: None,
        "cuda_device_context": lambda device: contextlib.nullcontext(),
        "MIN_WEIGHT_MEMORY_RATIO": 0.0,
    }
    for name, value in changes.items():
        setattr(management, name, value)
    comfy.float.stochastic_rounding = lambda value, dtype, seed=0: value.to(dtype)  # a kernel of its own
    _answer_in_torch(count, total, used)


def _vram_state() -> management.VRAMState:
    """What the host makes of its command line."""
    states = management.VRAMState
    if args.highvram or args.gpu_only:
        return states.HIGH_VRAM
    if args.novram:
        return states.NO_VRAM
    return states.LOW_VRAM if args.lowvram else states.NORMAL_VRAM


def _answer_in_torch(count: int, total: float, used: Callable[[torch.device], float]) -> None:
    torch.cuda.device_count = lambda: count
    torch.cuda.synchronize = lambda *_: None
    torch.cuda.empty_cache = lambda: None
    torch.cuda.memory_allocated = lambda device=None: int(used(torch.device("cuda", 0)))
    torch.cuda.mem_get_info = lambda device=None: (int(total - used(torch.device("cuda", 0))), int(total))
    torch.cuda.reset_peak_memory_stats = lambda device=None: None
    torch.cuda.max_memory_allocated = torch.cuda.memory_allocated
    torch.cuda.get_device_name = lambda device=None: "make-believe"
