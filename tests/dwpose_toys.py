"""Toy networks with the interface of YOLOX and DWPose, as TorchScript and as ONNX files that compute the same."""

from pathlib import Path

import cv2
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
    return _save(graph, path)


def _save(graph: onnx.GraphProto, path: Path) -> Path:
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


def figure(width: int, height: int) -> list[Tensor]:
    """DWPose's two histograms [1, 133, bins] of a crop of ``width``×``height`` px: points spread over its middle."""
    places = torch.rand(2, 133, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.2
    return [
        nn.functional.one_hot((place * bins).long(), bins)[None].float()
        for place, bins in zip(places, (2 * width, 2 * height))
    ]


def standing_outputs(x: float, y: float, size: float) -> tuple[list[Tensor], list[Tensor]]:
    """What the real networks give for one person in a picture of 350×350 px: a box of ``size`` px around (x, y), and
    points spread over it."""
    scale, stride = 640 / 350, 32
    cell = int(y * scale / stride) * (640 // stride) + int(x * scale / stride)
    people = torch.zeros(1, 8400, 5 + CLASSES)
    side = np.log(size * scale / stride)
    people[0, 6400 + 1600 + cell, :6] = torch.tensor([0.5, 0.5, side, side, 1.0, 1.0])
    return [people], figure(288, 384)


def standing(x: float, y: float, size: float) -> list[torch.jit.ScriptModule]:
    """Networks in the sizes of the real ones that see one person, as `standing_outputs`."""
    sizes = ((1, 640, 640), (5, 384, 288))
    return [
        torch.jit.trace(Constant(*outputs), torch.zeros(size[0], 3, *size[1:]))
        for outputs, size in zip(standing_outputs(x, y, size), sizes)
    ]


def save_standing_onnx(paths: list[Path], x: float, y: float, size: float) -> None:
    """`standing` as ONNX files, for one picture at a time."""
    for path, outputs, picture in zip(paths, standing_outputs(x, y, size), ((640, 640), (384, 288))):
        constants = [numpy_helper.from_array(output.numpy(), f"constant{n}") for n, output in enumerate(outputs)]
        nodes = [helper.make_node("Identity", [f"constant{n}"], [f"output{n}"]) for n in range(len(outputs))]
        taken = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, *picture])]
        given = [
            helper.make_tensor_value_info(f"output{n}", TensorProto.FLOAT, output.shape)
            for n, output in enumerate(outputs)
        ]
        _save(helper.make_graph(nodes, "standing", taken, given, constants), path)


class Onlooker:
    """In YOLOX's place: sees every bright patch as a person, the brighter the surer, if it is at least a twelfth as
    tall as the picture. ``looks`` counts the pictures."""

    SIZE = (96, 96)
    STRIDE = 8
    CELLS = sum((96 // stride) ** 2 for stride in (8, 16, 32))
    BRIGHT = 150  # what is not grey

    def __init__(self) -> None:
        self.looks = 0

    def __call__(self, pictures: np.ndarray) -> list[np.ndarray]:
        (picture,) = pictures[:, 0]
        self.looks += 1
        output = np.zeros((1, self.CELLS, 5 + CLASSES), np.float32)
        _, patches, stats, _ = cv2.connectedComponentsWithStats(np.uint8(picture > self.BRIGHT))
        for patch, (*corner, width, height, _) in list(enumerate(stats))[1:]:
            if height * 12 < len(picture):
                continue
            size = np.array([width, height]) / self.STRIDE
            center = np.array(corner) / self.STRIDE + size / 2
            column, row = center.astype(int)
            score = picture[patches == patch].max() / 255
            cell = output[0, row * (self.SIZE[1] // self.STRIDE) + column]
            cell[:6] = [*(center - (column, row)), *np.log(size), 1, score]
        return [output]


class Figure:
    """In DWPose's place: the same figure in every crop."""

    def __call__(self, crops: np.ndarray) -> list[np.ndarray]:
        return [output.expand(len(crops), -1, -1).numpy() for output in figure(*CROP[::-1])]
