"""Background picture + tracks or camera path -> moving background video."""

import numpy as np
from comfy_api.latest import io, ui

import nodes

from ..vision import backdrop, track_motion
from ..vision.camera_path import CameraPath
from ..vision.tracks import Tracks
from . import memory, sockets
from .feedback import progress_of, ranges
from .tracks import motion_in_words


def _motion(background, tracks, camera_path, width: int, height: int) -> tuple[track_motion.Motion, str]:
    """The motion that was wired in, for ``width``×``height`` px (0: its own size, else that of the background), and a
    remark for the report on a size that nothing tells."""
    if (tracks is None) == (camera_path is None):
        raise ValueError(
            "tracks, camera_path: connect one of them. "
            + ("Neither is connected, and nothing says how to move." if tracks is None else "Both are connected.")
        )
    sockets.check_both_or_neither(width, height, "the driving video's")
    given = camera_path or Tracks.from_host(tracks)
    is_guessed = not (width or given.width)
    width, height = width or given.width or background.shape[2], height or given.height or background.shape[1]
    if camera_path is not None:
        return track_motion.of_camera(camera_path, width, height), ""
    remark = (
        f"The tracks do not say the size of their video: taken to be {width}×{height} px, as the background. Where it "
        "was another, the motion is too fast or too slow: set width and height to the driving video's size"
    )
    return track_motion.of_tracks(given.on_canvas(width, height)), remark if is_guessed else ""


def _report(motion: track_motion.Motion, revealed: np.ndarray, remark: str) -> str:
    lines = [f"{len(motion)} frames of {motion.width}×{motion.height} px", *([remark] if remark else [])]
    camera = CameraPath(motion.homographies, motion.width, motion.height, np.ones(len(motion)))
    if len(motion) == 1:
        lines.append("There is only one frame: nothing moves")
    else:
        lines.append(f"The background moves {motion_in_words(camera)}")
    worst = int(revealed.argmax())
    lines.append(f"Beyond the picture: {revealed.mean():.1%}; most in frame {worst}, {revealed[worst]:.1%}")
    if motion.held.any():
        lines.append(f"No track tells how to get to frames {ranges(motion.held)} (the first frame is 0): they stand")
    return "\n".join(lines)


class MoveBackground(sockets.Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        size = {"default": 0, "min": 0, "max": nodes.MAX_RESOLUTION}
        return io.Schema(
            node_id=f"{sockets.PREFIX}MoveBackground",
            display_name="Move Background",
            category=sockets.BACKGROUND,
            description="Makes a still background picture move like the background of another video, or as a pose "
            "implies: a background video for a shot, or for WanAnimateToVideo.",
            inputs=[
                io.Image.Input(
                    "background",
                    tooltip="One picture of the place, without the person. Another aspect ratio than the video's is "
                    "cropped at the centre; what was cropped comes into view when the camera goes there.",
                ),
                io.Tracks.Input(
                    "tracks",
                    optional=True,
                    tooltip="How the background moves, point by point, from Track Background. Follows what is near and "
                    "far in the driving video, too: for the same place, or one like it.",
                ),
                sockets.CameraPath.Input(
                    "camera_path",
                    optional=True,
                    tooltip="How the background moves as a whole, from Track Background or Pose to Tracks: for any "
                    "place. Connect this or tracks.",
                ),
                io.Image.Input(
                    "depth",
                    optional=True,
                    tooltip="The picture's depth, brighter is nearer, from any depth estimator: near things then move "
                    "more than far ones.",
                ),
                io.Float.Input(
                    "zoom",
                    default=1.0,
                    min=1.0,
                    max=8.0,
                    step=0.05,
                    tooltip="Starts closer, so that the picture has a margin for the camera to move into. 1: the whole "
                    "picture; 1.3 suits most hand-held shots.",
                ),
                io.Float.Input(
                    "parallax",
                    default=0.6,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="Only with depth: how much faster the nearest places move than the farthest, as a share of "
                    "the background's motion. 0: all alike.",
                ),
                io.Int.Input(
                    "width",
                    **size,
                    advanced=True,
                    tooltip="Width of the video in px; the motion is stretched to it. 0, together with height: as the "
                    "driving video.",
                ),
                io.Int.Input(
                    "height",
                    **size,
                    advanced=True,
                    tooltip="Height of the video in px. 0, together with width: as the driving video.",
                ),
            ],
            outputs=[
                io.Image.Output("images", tooltip="The moving background: as many frames as tracks or camera_path."),
                io.Mask.Output("revealed", tooltip="White where the picture has nothing to show, and it was made up."),
                io.String.Output("report", tooltip="Size, motion, and how much was made up."),
            ],
            search_aliases=["camera move", "pan and zoom", "ken burns", "2.5d parallax", "background video"],
        )

    @classmethod
    def execute(
        cls, background, tracks=None, camera_path=None, depth=None, zoom=1.0, parallax=0.6, width=0, height=0
    ) -> io.NodeOutput:
        motion, remark = _motion(background, tracks, camera_path, width, height)
        memory.check_room("width", len(motion), motion.height, motion.width, memory.MOVE)
        progress = progress_of(len(motion))
        images, revealed = backdrop.move_background(background, motion, depth, parallax, zoom, progress)
        report = _report(motion, revealed.mean(dim=(1, 2)).cpu().numpy(), remark)
        return io.NodeOutput(images, revealed, report, ui=ui.PreviewText(report))


NODES = [MoveBackground]
