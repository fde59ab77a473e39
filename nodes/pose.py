"""Video -> pose and mask."""

from pathlib import Path

import comfy.model_management
import numpy as np
from comfy_api.latest import io, ui

from ..vision import detectors
from ..vision import pose as poses
from . import sockets
from .feedback import progress_of, ranges

WEIGHTS = Path(__file__).resolve().parent.parent / "weights" / "blazepose"


def _report(track: poses.PoseTrack, seen: np.ndarray, filled: np.ndarray) -> str:
    lines = [
        f"{len(seen)} frames of {track.width}×{track.height} px",
        f"A person was seen in {seen.sum()} of {len(seen)}",
    ]
    if filled.any():
        lines.append(f"Filled from the frames around, and empty in the mask: {ranges(filled)} (the first frame is 0)")
    return "\n".join(lines)


class ExtractPose(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}ExtractPose",
            display_name="Extract Pose and Mask",
            category=sockets.PREPARE,
            description="Follows one person through a video or picture: the skeleton, and a mask of the person. Frames "
            "where nobody is seen get a pose from the frames around them.",
            inputs=[
                io.Image.Input("images", tooltip="The driving video: whose movement you want. Or one picture."),
                io.Combo.Input(
                    "detector",
                    options=["blazepose"],
                    tooltip="blazepose is built in and quick. It follows the clearest person, body only, no fingers.",
                ),
                io.Float.Input(
                    "smoothing",
                    default=0.3,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Calms trembling joints; fast moves stay sharp. 0: leave the pose as it was found.",
                ),
            ],
            outputs=[
                sockets.PoseKeypoint.Output(
                    "pose", tooltip="The skeletons, one a frame; Draw Pose makes the pose video of them."
                ),
                io.Mask.Output(
                    "mask",
                    tooltip="White where the person is, with soft edges; black where nobody is. Segment Character can "
                    "feather and grow it.",
                ),
                io.String.Output("report", tooltip="Frames, size, and where the person was missing."),
            ],
            search_aliases=["openpose", "dwpose", "blazepose", "pose detection", "segment person"],
        )

    @classmethod
    def execute(cls, images, detector, smoothing) -> io.NodeOutput:
        sockets.check_frames(images)
        network = detectors.load_blazepose(WEIGHTS, comfy.model_management.get_torch_device())
        followed = network.follow(images, progress_of(len(images)))
        if not followed.seen.any():
            raise ValueError(
                f"images: no person was found in any of the {len(images)} frames. The head and the trunk must be in "
                "the picture, and the person at least about 50 px tall; crop the video around the person, or take the "
                "pose from another detector."
            )
        track, filled = poses.fill_gaps(followed.pose)
        report = _report(track, followed.seen.numpy(), filled)
        pose = poses.smooth(track, smoothing).to_openpose()
        return io.NodeOutput(pose, followed.mask, report, ui=ui.PreviewText(report))


NODES = [ExtractPose]
