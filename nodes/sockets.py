"""What travels between the nodes: socket types, the menu's categories, and the prefix of every node id."""

from comfy_api.latest import io

PREFIX = "AA_"

CATEGORY = "AnimateAnywhere"
PREPARE = f"{CATEGORY}/prepare"
MODEL = f"{CATEGORY}/model"
SHOT = f"{CATEGORY}/shot"
SAMPLING = f"{CATEGORY}/sampling"

# The OpenPose frame list of the host's SDPose nodes and of comfyui_controlnet_aux, so that poses mix freely.
PoseKeypoint = io.Custom("POSE_KEYPOINT")
Adapter = io.Custom("AA_ADAPTER")
Reference = io.Custom("AA_REFERENCE")
Shot = io.Custom("AA_SHOT")
