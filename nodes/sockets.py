"""What travels between the nodes: socket types and their checks, the menu's categories, the prefix of every node id."""

from comfy_api.latest import io

from .checked_node import FileInput as FileInput
from .checked_node import Node as Node

PREFIX = "AA_"

CATEGORY = "AnimateAnywhere"
# Numbered, because the menu sorts by name, and an artist works in this order.
POSE = f"{CATEGORY}/1 pose"
MASK = f"{CATEGORY}/2 mask"
BACKGROUND = f"{CATEGORY}/3 background"
DRAFT = f"{CATEGORY}/4 draft"
MODEL = f"{CATEGORY}/5 model"
SHOT = f"{CATEGORY}/6 shot"
SAMPLING = f"{CATEGORY}/7 sampling"

# The OpenPose frame list of the host's SDPose nodes and of comfyui_controlnet_aux, so that poses mix freely.
PoseKeypoint = io.Custom("POSE_KEYPOINT")
Adapter = io.Custom("AA_ADAPTER")
Reference = io.Custom("AA_REFERENCE")
Shot = io.Custom("AA_SHOT")
CameraPath = io.Custom("AA_CAMERA_PATH")  # vision.camera_path.CameraPath


def vae_input() -> io.Vae.Input:
    return io.Vae.Input("vae", tooltip="The model's own VAE: CogVideoX's, or aa_tiny_vae with aa_tiny_base.")


def check_both_or_neither(width: int, height: int, instead: str) -> None:
    """Raise ValueError unless both are a size in px, or both 0, which stands for ``instead``."""
    for name, value, other in (("width", width, height), ("height", height, width)):
        if value == 0 and other != 0:
            raise ValueError(f"{name}: {width}×{height} is no size. Give both in pixels, or 0 for both: {instead}.")
