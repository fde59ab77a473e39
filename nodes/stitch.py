"""Clips that were rendered apart become one video."""

from comfy_api.latest import io, ui

from ..vision.stitch import join
from . import sockets


class StitchClips(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        template = io.Autogrow.TemplatePrefix(
            io.Image.Input("clip", tooltip="Frames of one clip."), prefix="clip", min=2, max=50
        )
        return io.Schema(
            node_id=f"{sockets.PREFIX}StitchClips",
            display_name="Stitch Clips",
            category=sockets.SAMPLING,
            description="Joins clips of the same size into one video, in their order. "
            "A new socket appears whenever the last one is connected.",
            inputs=[
                io.Autogrow.Input("clips", template=template, tooltip="The clips in their order, at least two."),
                io.Int.Input(
                    "overlap",
                    default=0,
                    min=0,
                    max=10_000,
                    tooltip="Frames at the start of each following clip that repeat the end of the one before; they "
                    "are left out. 1 where a clip starts from the last frame of the one before.",
                ),
            ],
            outputs=[
                io.Image.Output("images", tooltip="One video."),
                io.String.Output("report", tooltip="Lengths of the clips and of the video."),
            ],
            search_aliases=["concatenate video", "join clips", "long video"],
        )

    @classmethod
    def execute(cls, clips: io.Autogrow.Type, overlap=0) -> io.NodeOutput:
        parts = list(clips.values())
        images = join(parts, overlap)
        lengths = " + ".join(str(len(part)) for part in parts)
        left_out = f", without {overlap} at the start of each following clip" if overlap else ""
        report = f"{len(images)} frames of {len(parts)} clips: {lengths}{left_out}"
        return io.NodeOutput(images, report, ui=ui.PreviewText(report))


NODES = [StitchClips]
