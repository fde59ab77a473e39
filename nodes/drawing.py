"""Pose -> pose video, on black or over the video."""

from comfy_api.latest import io
from torch import Tensor

import nodes

from ..vision import drawing
from ..vision.frames import same_shape
from ..vision.pose import PoseTrack
from . import memory, sockets
from .feedback import progress_of
from .socket_values import check_somebody, read_pose


def _check_size(width: int, height: int, images: Tensor | None) -> None:
    sockets.check_both_or_neither(width, height, "the pose's own")
    if images is not None and width and (height, width) != tuple(images.shape[1:3]):
        raise ValueError(
            f"width: {width}×{height} was asked for, but with images connected the pictures are as large as these, "
            f"{images.shape[2]}×{images.shape[1]}. Set width and height to 0, or resize the images before this node."
        )


def _check_images(images: Tensor, track: PoseTrack) -> None:
    """Raise ValueError unless the skeletons of ``track`` lie on ``images`` [T or 1, H, W, C]."""
    count, (height, width) = len(track.keypoints), images.shape[1:3]
    if len(images) not in (1, count):
        raise ValueError(
            f"images: there are {len(images)}, but the pose has {count} frames. Connect the video that the pose was "
            "taken from, or one picture to lie under all frames."
        )
    if not same_shape((width, height), (track.width, track.height)):
        raise ValueError(
            f"images: they are {width}×{height}, but the pose was made for {track.width}×{track.height}, which has "
            "other proportions: the skeleton would lie beside the person. Connect the images that the pose belongs to."
        )


class DrawPose(sockets.Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        size = {"default": 0, "min": 0, "max": nodes.MAX_RESOLUTION}
        return io.Schema(
            node_id=f"{sockets.PREFIX}DrawPose",
            display_name="Draw Pose",
            category=sockets.POSE,
            description="Draws skeletons on black, in the colours that pose models know; or plain ones for your own "
            "eyes, also over the video. Faces and hands are drawn too where the pose has them.",
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
                io.Combo.Input(
                    "style",
                    options=list(drawing.STYLES),
                    default="dwpose",
                    optional=True,  # as opacity: a prompt saved before they came still runs
                    tooltip="dwpose: what pose models were trained on; take this one for a shot. plain: to look at. "
                    "The right side is orange, the left blue, unsure limbs are dark, and feet are drawn.",
                ),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="Draws over these pictures instead of black: the video that the pose was taken from, or "
                    "one picture for all frames. To look at, not for a shot.",
                ),
                io.Float.Input(
                    "opacity",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    optional=True,
                    advanced=True,
                    tooltip="How much the skeleton covers of the images; 0: not at all. Only with images.",
                ),
            ],
            outputs=[io.Image.Output("images", tooltip="One picture of the skeleton a frame: the pose video.")],
            search_aliases=["render pose", "skeleton", "openpose", "dwpose", "pose overlay", "preview pose"],
        )

    @classmethod
    def execute(cls, pose, width=0, height=0, style="dwpose", images=None, opacity=1.0) -> io.NodeOutput:
        track, _ = read_pose(pose)
        check_somebody(track, "pose", "Nothing would be drawn: is it the pose of the right video?")
        if images is not None:
            _check_images(images, track)
        _check_size(width, height, images)
        progress = progress_of(len(pose))
        if images is not None:
            return io.NodeOutput(drawing.draw_over(track, images, opacity, progress, style))
        size = (width, height) if width else (track.width, track.height)
        memory.check_room("width" if width else "pose", len(pose), size[1], size[0], memory.DRAW)
        return io.NodeOutput(drawing.draw(track, *size, progress, style))


NODES = [DrawPose]
