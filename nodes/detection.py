"""Pose detectors and their files: which there are, where they lie, and what to say where they are missing."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import comfy.model_management
import folder_paths
from torch import Tensor

from ..vision import detectors
from ..vision.detectors import BlazePose, Followed
from ..vision.dwpose import DWPose
from ..vision.network_file import Network, OnnxNetwork, load_network
from ..vision.tracking import Identities
from . import files

WEIGHTS = Path(__file__).resolve().parent.parent / "weights" / "blazepose"
FOLDER = "detection"  # the host's own: models/detection
HEAVY = "blazepose_heavy.safetensors"

BLAZEPOSE, BLAZEPOSE_HEAVY, DWPOSE = DETECTORS = ("blazepose", "blazepose heavy", "dwpose")
LAPSE = 2  # frames: BlazePose loses a sleeve or a hand before the body for so long, and finds it again


class Source(NamedTuple):
    """A file of a network, and the repository on huggingface.co that has it. comfyui_controlnet_aux keeps what it
    downloads in folders of the same names."""

    name: str
    repository: str

    @property
    def address(self) -> str:
        return files.address(self.name)


# TorchScript first: it runs on whatever device torch has, without another package.
PEOPLE = [Source("yolox_l.torchscript.pt", "hr16/yolox-onnx"), Source("yolox_l.onnx", "yzd-v/DWPose")]
POINTS = [
    Source("dw-ll_ucoco_384_bs5.torchscript.pt", "hr16/DWPose-TorchScript-BatchSize5"),
    Source("dw-ll_ucoco_384.onnx", "yzd-v/DWPose"),
]


class Detected(NamedTuple):
    """What a detector found, and what it has to say about how it ran."""

    followed: Followed
    remark: str = ""


def find_file(source: Source) -> Path | None:
    """The file in models/detection, or where comfyui_controlnet_aux put it."""
    if path := folder_paths.get_full_path(FOLDER, source.name):
        return Path(path)
    for folder in files.controlnet_aux_folders():
        path = folder / source.repository / source.name
        if path.is_file():
            return path
    return None


def load_blazepose(detector: str) -> BlazePose:
    """BlazePose, the built-in landmarks or the heavy ones."""
    device = comfy.model_management.get_torch_device()
    if detector != BLAZEPOSE_HEAVY:
        return detectors.load_blazepose(WEIGHTS, device)
    heavy = folder_paths.get_full_path(FOLDER, HEAVY)
    if heavy is None:
        raise ValueError(
            f"detector: blazepose heavy needs {HEAVY} in {_models_folder()}. Make it of Google's model with "
            "scripts/convert_blazepose.py heavy (a download of 29 MB), or choose blazepose, which is built in."
        )
    return detectors.load_blazepose(WEIGHTS, device, heavy=Path(heavy))


def load_dwpose() -> tuple[DWPose, str]:
    """DWPose from its files, and a remark where they do not run as well as they could."""
    people, points = (_load(sources) for sources in (PEOPLE, POINTS))
    slow = [network for network in (people, points) if isinstance(network, OnnxNetwork) and network.on_processor]
    if not slow or comfy.model_management.get_torch_device().type == "cpu":
        return DWPose(people, points), ""
    better = " and ".join(source.name for source in (PEOPLE[0], POINTS[0]))
    return DWPose(people, points), (
        f"onnxruntime here has no GPU, so DWPose ran on the processor. {better} in {_models_folder()} run on the GPU "
        "through torch."
    )


def _load(sources: list[Source]) -> Network:
    there = [path for source in sources if (path := find_file(source))]
    if not there:
        raise ValueError(
            f"detector: dwpose needs {_wanted(sources)} in {_models_folder()}, or downloaded by "
            f"comfyui_controlnet_aux; scripts/models.py get {sources[0].name} does it. blazepose needs no download."
        )
    device = comfy.model_management.get_torch_device()
    try:
        return load_network(there[0], device, lambda path: files.open_torchscript(path, device, "detector"))
    except ImportError as error:
        raise ValueError(
            f"detector: {there[0].name} is ONNX, and onnxruntime is not installed. Put {sources[0].name} from "
            f"{sources[0].address} into {_models_folder()}, which needs torch alone; or pip install onnxruntime."
        ) from error


def _wanted(sources: list[Source]) -> str:
    return " or ".join(f"{source.name} ({source.address})" for source in sources)


def _models_folder() -> str:
    return folder_paths.get_folder_paths(FOLDER)[0]


def detect(detector: str, images: Tensor, identities: Identities, progress: Callable[[int], None]) -> Detected:
    """Follow people through ``images`` [T, H, W, C] with one of `DETECTORS`; ``progress`` counts up to `steps_of`.

    Raises ValueError, naming the input ``detector``, where a file is missing or broken.
    """
    if detector != DWPOSE:
        return Detected(load_blazepose(detector).follow(images, progress, identities))
    dwpose, remark = load_dwpose()
    pose = dwpose.follow(images, progress, identities)
    mask = load_blazepose(BLAZEPOSE).segment(images, pose, lambda done: progress(len(images) + done))
    return Detected(Followed.of(pose, mask), remark)


def nobody(images: Tensor, otherwise: str = "") -> ValueError:
    """What to raise where nobody was found in ``images`` [T, H, W, C]. otherwise: what else an artist may do."""
    return ValueError(
        f"images: no person was found in any of the {len(images)} frames. The head and the trunk must be in the "
        f"picture, and the person at least about 50 px tall; crop the video around the person{otherwise}."
    )


def steps_of(detector: str, frames: int) -> int:
    """How far `detect` counts: DWPose knows no mask, which takes another round."""
    return 2 * frames if detector == DWPOSE else frames
