"""ComfyUI-AnimateAnywhere: a person, a background and a pose become a video."""

from comfy_api.latest import ComfyExtension

from .nodes import (
    adapter,
    backdrop,
    background,
    decode,
    drawing,
    dynamictrl,
    mask,
    motion,
    plan,
    pose,
    pose_file,
    render,
    retarget,
    sample,
    shot,
    stitch,
    tracks,
)
from .nodes.draft import draft_shot

WEB_DIRECTORY = "js"


class AnimateAnywhere(ComfyExtension):
    async def on_load(self) -> None:
        adapter.register_folders()

    async def get_node_list(self) -> list:
        prepare = [*pose.NODES, *pose_file.NODES, *retarget.NODES, *drawing.NODES, *mask.NODES]
        places = [*background.NODES, *tracks.NODES, *motion.NODES, *backdrop.NODES]
        return [
            *prepare,
            *places,
            *draft_shot.NODES,
            *adapter.NODES,
            *dynamictrl.NODES,
            *shot.NODES,
            *decode.NODES,
            *plan.NODES,
            *sample.NODES,
            *render.NODES,
            *stitch.NODES,
        ]


async def comfy_entrypoint() -> AnimateAnywhere:
    return AnimateAnywhere()
