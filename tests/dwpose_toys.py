"""Toy networks with the interface of YOLOX and DWPose, as TorchScript and as ONNX files that compute the same."""

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

SIZE = (64, 96)  # height, width of the toy YOLOX
CROP = (64, 48)  # of the toy DWPose
CELLS = sum((SIZE[0] // stride) * (SIZE[1] // stride) for stride in (8, 16, 32))
CLASSES = 80
POOL = 8  # px


class Toy(nn.Module):
    """Mean colours of blocks of 8×8 pixels, through one random matrix for each output, reshaped."""

    def __init__(self, size: tuple[int, int], shapes: list[tuple[int, ...]], scale: float, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        inside = 3 * (size[0] // POOL) * (size[1] // POOL)
        self.pool = nn.AvgPool2d(POOL)
        self.shapes = shapes
        self.layers = nn.ModuleList(nn.Linear(inside, int(np.prod(shape))) for shape in shapes)
        for layer in self.layers:
            layer.weight.data = torch.randn(layer.weight.shape, generator=generator) * scale / inside**0.5
            layer.bias.data = torch.randn(layer.bias.shape, generator=generator)

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        features = self.pool(pictures).flatten(1)
        return tuple(layer(features).unflatten(1, shape) for layer, shape in zip(self.layers, self.shapes))


class Single(nn.Module):
    """A network whose one output comes alone, squashed to what YOLOX gives: scores in 0…1."""

    def __init__(self, toy: nn.Module) -> None:
        super().__init__()
        self.toy = toy

    def forward(self, pictures: Tensor) -> Tensor:
        return self.toy(pictures)[0].sigmoid()


def people_network() -> nn.Module:
    return Single(Toy(SIZE, [(CELLS, 5 + CLASSES)], 0.01, seed=1)).eval()


def points_network() -> nn.Module:
    return Toy(CROP, [(133, 2 * CROP[1]), (133, 2 * CROP[0])], 1.0, seed=2).eval()


def save_torchscript(network: nn.Module, path: Path, size: tuple[int, int], batch: int = 1) -> Path:
    torch.jit.trace(network, torch.zeros(batch, 3, *size)).save(path)
    return path


def save_onnx(network: nn.Module, path: Path, size: tuple[int, int]) -> Path:
    """The same numbers as an ONNX file with a batch of any size."""
    toy, squashed = (network.toy, True) if isinstance(network, Single) else (network, False)
    pool = helper.make_node("AveragePool", ["input"], ["pooled"], kernel_shape=[POOL] * 2, strides=[POOL] * 2)
    nodes, constants, outputs = [pool, helper.make_node("Flatten", ["pooled"], ["features"])], [], []
    for number, (layer, shape) in enumerate(zip(toy.layers, toy.shapes)):
        values = {"weight": layer.weight.data, "bias": layer.bias.data, "shape": torch.tensor([-1, *shape])}
        constants += [numpy_helper.from_array(value.numpy(), f"{name}{number}") for name, value in values.items()]
        gemm = helper.make_node("Gemm", ["features", f"weight{number}", f"bias{number}"], [f"flat{number}"], transB=1)
        last = f"output{number}"
        nodes += [gemm, helper.make_node("Reshape", [f"flat{number}", f"shape{number}"], [f"raw{number}"])]
        nodes += [helper.make_node("Sigmoid" if squashed else "Identity", [f"raw{number}"], [last])]
        outputs.append(helper.make_tensor_value_info(last, TensorProto.FLOAT, [None, *shape]))
    picture = helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, 3, *size])
    graph = helper.make_graph(nodes, "toy", [picture], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


class Constant(nn.Module):
    """The same outputs for whatever picture."""

    def __init__(self, *outputs: Tensor) -> None:
        super().__init__()
        self.outputs = nn.ParameterList(outputs)

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        return tuple(output.expand(pictures.shape[0], -1, -1) for output in self.outputs)


def standing(x: float, y: float, size: float) -> list[torch.jit.ScriptModule]:
    """Networks in the sizes of the real ones that see one person in a picture of 350×350 px: a box of ``size`` px
    around (x, y), and points spread over it."""
    scale, stride = 640 / 350, 32
    cell = int(y * scale / stride) * (640 // stride) + int(x * scale / stride)
    people = torch.zeros(1, 8400, 5 + CLASSES)
    side = np.log(size * scale / stride)
    people[0, 6400 + 1600 + cell, :6] = torch.tensor([0.5, 0.5, side, side, 1.0, 1.0])
    places = torch.rand(2, 133, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.2
    points = [
        nn.functional.one_hot((place * bins).long(), bins)[None].float() for place, bins in zip(places, (576, 768))
    ]
    sizes = ((1, 640, 640), (5, 384, 288))
    return [
        torch.jit.trace(Constant(*outputs), torch.zeros(size[0], 3, *size[1:]))
        for outputs, size in zip(([people], points), sizes)
    ]
