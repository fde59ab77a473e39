"""AdamW and Muon, shared out over the processes.

Every process computes all gradients and updates the parameters that are its own; then they are handed round. So the
state of the optimiser, several times the size of the networks, exists once and not on every GPU (ZeRO, stage 1).
"""

import math
from collections.abc import Iterable, Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .configuration import Optimiser as Settings

BUCKET = 2**26  # numbers that go over the wire at once
ORTHOGONAL = ("q", "k", "v", "attn_out", "ff_proj", "ff_out")  # the matrices of a block that Muon updates
# Five steps of Newton-Schulz with these bring singular values near 1 (Jordan et al., Muon, 2024).
QUINTIC = (3.4445, -4.7750, 2.0315)
MOMENTUM = 0.95
LIKE_ADAMW = 0.2  # size of an update beside AdamW's (Liu et al., Muon is scalable, section 2.2)


def learning_rate(settings: Settings, step: int, steps: int) -> float:
    """The factor 0…1 on learning rates at ``step`` of ``steps``: from the step alone, so that runs can resume."""
    warm = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    if settings.schedule == "constant":
        return warm
    return warm * 0.5 * (1 + math.cos(math.pi * step / steps))


class Muon:
    """Momentum whose matrices are made orthogonal, all of one shape at once: a hundred small products one by one would
    cost more than the networks themselves."""

    def __init__(self, parameters: Mapping[str, Tensor], rate: float, weight_decay: float) -> None:
        self.parameters = dict(parameters)
        self.rate = rate
        self.weight_decay = weight_decay
        self.momentum = {name: torch.zeros_like(parameter) for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def step(self, factor: float) -> None:
        rate = self.rate * factor
        for names in self._by_shape():
            directions = []
            for name in names:
                gradient, momentum = self.parameters[name].grad, self.momentum[name]
                momentum.lerp_(gradient, 1 - MOMENTUM)
                directions.append(gradient.lerp(momentum, MOMENTUM))  # Nesterov
            updates = orthogonal(torch.stack(directions))
            rows, columns = updates.shape[1:]
            size = LIKE_ADAMW * math.sqrt(max(rows, columns))
            for name, update in zip(names, updates):
                parameter = self.parameters[name]
                parameter.mul_(1 - rate * self.weight_decay).add_(update, alpha=-rate * size)

    def _by_shape(self) -> list[list[str]]:
        groups = {}
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                groups.setdefault(tuple(parameter.shape), []).append(name)
        return list(groups.values())

    def state(self) -> dict[str, Tensor]:
        return {f"{name}.momentum": value for name, value in self.momentum.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        for name, value in self.momentum.items():
            value.copy_(state[f"{name}.momentum"])


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices [N, rows, columns] with their singular values near 1."""
    # bfloat16 is enough; on a processor that has to emulate it, it is many times slower than float32.
    native = matrices.is_cuda or torch.cpu._is_avx512_bf16_supported()
    x = matrices.bfloat16() if native else matrices.float()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.flatten(1).norm(dim=1)[:, None, None].clamp_min(1e-7)
    a, b, c = QUINTIC
    for _ in range(5):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return (x.mT if tall else x).to(matrices.dtype)


class AdamW:
    """torch's own, with its state by name."""

    def __init__(self, parameters: Mapping[str, Tensor], settings: Settings) -> None:
        self.parameters = dict(parameters)
        self.rate = settings.learning_rate
        fused = all(parameter.is_cuda for parameter in self.parameters.values())
        self.inner = torch.optim.AdamW(
            self.parameters.values(), self.rate, settings.betas, weight_decay=settings.weight_decay, fused=fused
        )

    def step(self, factor: float) -> None:
        self.inner.param_groups[0]["lr"] = self.rate * factor
        self.inner.step()

    def state(self) -> dict[str, Tensor]:
        state = self.inner.state
        return {
            f"{name}.{key}": value
            for name, parameter in self.parameters.items()
            for key, value in state.get(parameter, {}).items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            own = {key: state.get(f"{name}.{key}") for key in ("step", "exp_avg", "exp_avg_sq")}
            if own["step"] is not None:  # a parameter that never had a gradient has no state
                moments = {key: own[key].to(parameter.device, copy=True) for key in ("exp_avg", "exp_avg_sq")}
                # fused=True wants the step where the parameter is, the plain one on the CPU
                step = own["step"].to(parameter.device if self.inner.defaults["fused"] else "cpu", copy=True)
                self.inner.state[parameter] = {"step": step, **moments}


class Optimiser:
    """Updates ``parameters`` (by name; those of bfloat16 through float32 copies) from their gradients.

    Gradients are averaged over the processes first. ``rank`` of ``world`` processes owns a part of the parameters.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], settings: Settings, rank: int = 0, world: int = 1
    ) -> None:
        self.parameters = dict(parameters)
        self.settings = settings
        self.world = world
        self.owner = share_out(self.parameters, world)
        mine = {name: self.parameters[name] for name, owner in self.owner.items() if owner == rank}
        self.masters = {name: self._master(parameter) for name, parameter in mine.items()}
        matrices = {name for name in mine if settings.kind == "muon" and is_matrix_of_block(name, mine[name])}
        muon = {name: master for name, master in self.masters.items() if name in matrices}
        rest = {name: master for name, master in self.masters.items() if name not in matrices}
        self.parts = [Muon(muon, settings.muon_rate, settings.weight_decay)] if muon else []
        self.parts += [AdamW(rest, settings)] if rest else []

    def _master(self, parameter: nn.Parameter) -> nn.Parameter:
        """What is updated: ``parameter`` itself, or a copy in float32, because at a rate of 1e-5 most updates are below
        what bfloat16 can add to a weight."""
        if parameter.dtype == torch.float32 and not self.settings.offload:
            return parameter
        place = "cpu" if self.settings.offload else parameter.device
        return nn.Parameter(parameter.detach().to(place, torch.float32, copy=True))

    def reduce(self) -> float:
        """Average gradients over the processes; their norm over all parameters."""
        gradients = [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]
        if self.world > 1:
            for bucket in _buckets(gradients):
                flat = torch.cat([gradient.flatten() for gradient in bucket])
                dist.all_reduce(flat)
                flat.div_(self.world)
                for gradient, part in zip(bucket, flat.split([gradient.numel() for gradient in bucket])):
                    gradient.copy_(part.view_as(gradient))
        norms = [gradient.float().norm() for gradient in gradients]
        return float(torch.stack(norms).norm()) if norms else 0.0

    @torch.no_grad()
    def step(self, factor: float, norm: float) -> None:
        """One update with ``factor`` on the learning rates; ``norm``: what reduce() gave."""
        shrink = min(1.0, self.settings.clip / (norm + 1e-6)) if self.settings.clip else 1.0
        for name, master in self.masters.items():
            gradient = self.parameters[name].grad
            if gradient is None:
                master.grad = None
            elif master is self.parameters[name]:
                gradient.mul_(shrink)
            else:
                master.grad = gradient.to(master.device, torch.float32, copy=True).mul_(shrink)
        for part in self.parts:
            part.step(factor)
        for name, master in self.masters.items():
            if master is not self.parameters[name]:
                self.parameters[name].copy_(master)
                master.grad = None
        self._hand_round()
        for parameter in self.parameters.values():
            parameter.grad = None

    def _hand_round(self) -> None:
        if self.world == 1:
            return
        for rank in range(self.world):
            owned = [p for name, p in self.parameters.items() if self.owner[name] == rank and p.grad is not None]
            for bucket in _buckets(owned):
                flat = torch.cat([parameter.detach().flatten() for parameter in bucket])
                dist.broadcast(flat, rank)
                for parameter, part in zip(bucket, flat.split([parameter.numel() for parameter in bucket])):
                    parameter.copy_(part.view_as(parameter))

    def state(self) -> dict[str, Tensor]:
        """What this process has to remember, by parameter; shapes as they are, so that it can be written as it is."""
        state = {}
        for part in self.parts:
            state |= part.state()
        copies = {f"{name}.master": value for name, value in self.masters.items() if value is not self.parameters[name]}
        return {name: value.detach() for name, value in (state | copies).items()}

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over ``state`` of any number of processes, merged."""
        for part in self.parts:
            part.load(state)
        for name, master in self.masters.items():
            if master is not self.parameters[name]:
                master.copy_(state[f"{name}.master"])


def is_matrix_of_block(name: str, parameter: Tensor) -> bool:
    return parameter.ndim == 2 and ".blocks." in name and name.split(".")[-2] in ORTHOGONAL


def share_out(parameters: Mapping[str, Tensor], world: int) -> dict[str, int]:
    """parameter -> the process that updates it: the largest first, each to whoever has least."""
    load = [0] * world
    owner = {}
    for name in sorted(parameters, key=lambda name: (-parameters[name].numel(), name)):
        owner[name] = load.index(min(load))
        load[owner[name]] += parameters[name].numel()
    return owner


def _buckets(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """Tensors of one dtype, in their order, in groups of at most BUCKET numbers (or one tensor)."""
    buckets, size = [], 0
    for tensor in tensors:
        if not buckets or size + tensor.numel() > BUCKET or tensor.dtype != buckets[-1][0].dtype:
            buckets.append([])
            size = 0
        buckets[-1].append(tensor)
        size += tensor.numel()
    return buckets
