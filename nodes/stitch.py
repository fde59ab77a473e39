"""Clips that were rendered apart become one video."""

import json
from fractions import Fraction

import av
from comfy_api.latest import Input, InputImpl, io, ui
from torch import Tensor

from ..vision import stitch
from . import sockets
from .feedback import progress_of
from .socket_values import read_frames

RATES_DIFFER = 0.005  # relative: files round their rate, and nobody sees so little


class StitchClips(sockets.Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        clip = io.MultiType.Input("clip", [io.Image, io.Video], tooltip="One clip: its frames, or a video.")
        template = io.Autogrow.TemplatePrefix(clip, prefix="clip", min=2, max=50)
        return io.Schema(
            node_id=f"{sockets.PREFIX}StitchClips",
            display_name="Stitch Clips",
            category=sockets.SAMPLING,
            description="Joins clips of one shot into one video, in their order: finds where they overlap, checks that "
            "they belong together, levels their colours and blends. A new socket appears whenever the last one is "
            "connected.",
            inputs=[
                io.Autogrow.Input("clips", template=template, tooltip="The clips in their order, at least two."),
                io.Int.Input(
                    "overlap",
                    default=stitch.FIND,
                    min=stitch.FIND,
                    max=10_000,
                    tooltip="Frames at the start of each following clip that repeat the end of the one before; they "
                    "are shown once. -1: found for each clip by what it shows. 0: one after the other as they are, "
                    "whatever they show.",
                ),
                io.Boolean.Input(
                    "blend",
                    optional=True,  # as all that follows: a prompt saved before they came still runs
                    default=True,
                    tooltip="Fades from one clip to the next over the frames that both have. Off: the earlier clip's "
                    "are shown.",
                ),
                io.Float.Input(
                    "level_colours",
                    optional=True,
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How far each clip is brought to the colours and contrast of the first. 0 leaves them.",
                ),
            ],
            outputs=[
                io.Image.Output("images", tooltip="One video."),
                io.String.Output("report", tooltip="How each clip joins the one before it."),
                io.String.Output("report_json", tooltip="The same for programs, as JSON."),
            ],
            search_aliases=["concatenate video", "join clips", "long video", "merge videos", "crossfade"],
        )

    @classmethod
    def execute(cls, clips: io.Autogrow.Type, overlap=stitch.FIND, blend=True, level_colours=1.0) -> io.NodeOutput:
        rate = _frame_rate(clips)
        parts = [_frames(name, clip) for name, clip in clips.items()]
        lengths = [len(part) for part in parts]
        progress = progress_of(stitch.steps(lengths))
        made = stitch.stitch(parts, overlap, blend, level_colours, progress)
        report = _report(made, lengths, rate)
        return io.NodeOutput(made.frames, report, _json(made, lengths, rate), ui=ui.PreviewText(report))


def _frame_rate(clips: dict) -> Fraction | None:
    """The rate of those clips that are videos. Raises ValueError, before one is decoded, where rates or sizes of videos
    differ."""
    first, rate, size = None, None, None
    for name, clip in clips.items():
        if not isinstance(clip, Input.Video):
            continue
        own_rate, own_size = clip.get_frame_rate(), _shown_size(clip)
        if first is None:
            first, rate, size = name, own_rate, own_size
        if abs(own_rate / rate - 1) > RATES_DIFFER:
            raise ValueError(
                f"clips: {name} has {float(own_rate):g} frames a second and {first} {float(rate):g}. Render them at "
                "one rate, or wire them as images (Get Video Components), which are joined frame by frame."
            )
        if own_size != size:
            sizes = " and ".join(f"{width}×{height} px" for width, height in (own_size, size))
            raise ValueError(f"clips: {name} and {first} differ in size: {sizes}. Make them equal first.")
    return rate


def _shown_size(video: Input.Video) -> tuple[int, int]:
    """Width and height as the video is shown: phones film lying, with a mark that says how to turn the picture."""
    width, height = video.get_dimensions()
    if isinstance(video, InputImpl.VideoFromFile) and _rotation(video) % 180:
        return height, width
    return width, height


def _rotation(video: InputImpl.VideoFromFile) -> int:
    """The mark of a video's first frame, in degrees; 0 without one."""
    with av.open(video.get_stream_source()) as container:
        return next((frame.rotation for frame in container.decode(video=0)), 0)


def _frames(name: str, clip: Tensor | Input.Video) -> Tensor:
    if isinstance(clip, Input.Video):
        clip = clip.get_components().images
    return read_frames(clip, name)


def _report(made: stitch.Stitched, lengths: list[int], rate: Fraction | None) -> str:
    parts = " + ".join(map(str, lengths))
    lines = [f"{len(made.frames)} frames of {len(lengths)} clips: {parts}"]
    if rate is not None:
        lines[0] += f", {float(rate):g} a second"
    for seam in made.seams:
        line = f"clip{seam.clip} from frame {seam.start} on, "
        line += f"{seam.overlap} of its frames shared" if seam.overlap else "none of its frames shared"
        if seam.difference is not None:
            line += f", {seam.difference:.1f} steps of 255 off there"
        if seam.drift is not None:
            line += f", colours off by {seam.drift:.1f} ΔE" + ("" if seam.level.is_identity else ", levelled")
        lines.append(line)
    return "\n".join(lines)


def _json(made: stitch.Stitched, lengths: list[int], rate: Fraction | None) -> str:
    _, height, width, _ = made.frames.shape
    seams = [{**vars(seam), "level": seam.level.to_json()} for seam in made.seams]
    size = {"frames": len(made.frames), "width": width, "height": height, "fps": rate and float(rate)}
    return json.dumps({**size, "lengths": lengths, "seams": seams})


NODES = [StitchClips]
