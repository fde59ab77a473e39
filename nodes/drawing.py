"""Pose -> pose video."""

from comfy_api.latest import io

from ..vision import drawing
from ..vision.pose import PoseTrack
from . import sockets
from .feedback import progress_of

LARGEST = 16384  # px, as in the host's own nodes


class DrawPose(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        size = {"default": 0, "min": 0, "max": LARGEST}
        return io.Schema(
            node_id=f"{sockets.PREFIX}DrawPose",
            display_name="Draw Pose",
            category=sockets.PREPARE,
            description="Draws skeletons on black, in the colours that pose models know. Faces and hands are drawn too "
            "where the pose has them.",
            inputs=[
                sockets.PoseKeypoint.Input(
                    "pose", tooltip="From Extract Pose and Mask, or any OpenPose-style detector."
                ),
                io.Int.Input(
                    "width",
                    **size,
                    tooltip="Width of the pictures in px. The skeleton is stretched to it: keep the video's "
                    "proportions. 0, together with height: as large as the video it came from.",
                ),
                io.Int.Input(
                    "height",
                    **size,
                    tooltip="Height of the pictures in px. 0, together with width: as large as the video.",
                ),
            ],
            outputs=[io.Image.Output("images", tooltip="One picture of the skeleton a frame: the pose video.")],
            search_aliases=["render pose", "skeleton", "openpose", "dwpose"],
        )

    @classmethod
    def execute(cls, pose, width=0, height=0) -> io.NodeOutput:
        for name, value, other in (("width", width, height), ("height", height, width)):
            if value < 0 or (value == 0 and other != 0):
                raise ValueError(
                    f"{name}: {width}×{height} is no size. Give both in pixels, or 0 for both: the pose's own."
                )
        track = PoseTrack.from_openpose(pose)
        size = (width, height) if width else (track.width, track.height)
        return io.NodeOutput(drawing.draw(track, *size, progress_of(len(pose))))


NODES = [DrawPose]
