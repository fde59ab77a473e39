"""Video + mask -> clean background."""

import numpy as np
import torch
from comfy_api.latest import io, ui

from ..models import inpainter
from ..vision import plate, retouch
from . import files, memory, sockets
from .feedback import progress_of, ranges
from .socket_values import doubt_about

INVENT = ("auto", "lama", "telea")
LAMA = files.Kind("inpaint", (".pt", ".safetensors"), "big-lama.pt")


def _report(result: plate.Plate, doubt: str) -> str:
    frames, height, width = result.unfilled.shape
    hidden, invented = int(result.hidden.sum()), int(result.invented.sum())
    lines = [f"{frames} frames of {width}×{height} px", *([doubt] if doubt else [])]
    if not hidden:
        return "\n".join([*lines, "The mask is empty: nothing was hidden, the video is unchanged"])
    lines.append(f"Behind the mask: {hidden / result.unfilled.numel():.1%} of the picture")
    if result.alignment is None or frames == 1:
        return "\n".join([*lines, "All of it is invented, each frame alone"])
    lines.append(f"Seen in other frames: {1 - invented / hidden:.1%} of that; invented: {invented / hidden:.1%}")
    motion = result.alignment.motion()
    lines.append("The camera stands" if result.alignment.still else f"The camera moves {motion:.2f} px a frame")
    if result.alignment.parallax is not None:
        lines.append("It walks: near and far things are aligned apart")
    lines += [f"Cut before frame {frame}: nothing was taken across it" for frame in result.alignment.cuts]
    if result.alignment.blind:
        blind = np.isin(np.arange(frames), result.alignment.blind)
        lines.append(
            f"Too little background texture to follow the camera in frames {ranges(blind)} (the first frame is 0); it "
            "was taken to stand there"
        )
    return "\n".join(lines)


def _fill_of(invent: str) -> plate.Fill:
    """What ``invent`` fills holes with. The network is loaded when the first hole asks for it."""
    path = LAMA.path(required=invent == "lama", asked_by="invent") if invent != "telea" else None
    if path is None:
        return retouch.telea
    lama = None

    def fill(picture: np.ndarray, hole: np.ndarray) -> np.ndarray:
        nonlocal lama
        lama = lama or inpainter.load(path, lambda file: files.open_torchscript(file, "cpu", "invent"))
        return lama.fill(torch.from_numpy(picture), torch.from_numpy(hole)).numpy()

    return fill


class InpaintBackground(sockets.Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}InpaintBackground",
            display_name="Inpaint Background",
            category=sockets.BACKGROUND,
            description="Takes the person out of a video: what is behind comes from other frames, where it was seen, "
            "and only the rest is invented. The camera may stand or move.",
            inputs=[
                io.Image.Input("images", tooltip="The video. With one picture alone, all that is hidden is invented."),
                io.Mask.Input(
                    "mask", tooltip="White where the person is, one mask a frame; a single one serves for all frames."
                ),
                io.Combo.Input(
                    "method",
                    options=list(plate.METHODS),
                    tooltip="temporal: from the other frames first, what none of them shows is invented once for all. "
                    "telea: invent each frame alone; quicker, blurred, and it flickers.",
                ),
                io.Int.Input(
                    "grow",
                    default=plate.GROW,
                    min=0,
                    max=512,
                    tooltip="Widens the mask by so many px, the margin for halos, hair and motion blur. More, where "
                    "traces of the person remain.",
                ),
                io.Int.Input(
                    "shadow",
                    optional=True,  # as all that follows: a prompt saved before they came still runs
                    default=0,
                    min=0,
                    max=2048,
                    tooltip="Takes the person's shadow away, up to so many px beside the mask: where a place is darker "
                    "than in other frames. 0: shadows stay. Needs temporal, and somebody who moves.",
                ),
                io.Combo.Input(
                    "invent",
                    optional=True,
                    options=list(INVENT),
                    advanced=True,
                    tooltip="How large holes are invented that no frame fills. lama: a network, from models/inpaint. "
                    "telea: smeared over from the edges. auto: lama where its file is there, else telea.",
                ),
            ],
            outputs=[
                io.Image.Output("images", tooltip="The video without the person."),
                io.Image.Output("background", tooltip="Its first frame: the background picture for a shot."),
                io.Mask.Output("unfilled", tooltip="White where no frame showed the background and it is invented."),
                io.String.Output("report", tooltip="How much was seen, how much invented, and how the camera moves."),
            ],
            search_aliases=["clean plate", "remove person", "video inpainting", "object removal"],
        )

    @classmethod
    def execute(cls, images, mask, method="temporal", grow=plate.GROW, shadow=0, invent="auto") -> io.NodeOutput:
        memory.check_room("images", *images.shape[:3], memory.INPAINT)
        progress = progress_of(plate.steps(len(images), method, shadow))
        fill = _fill_of(invent)
        result = plate.clean_background(images, mask, progress, method=method, grow=grow, shadow=shadow, fill=fill)
        report = _report(result, doubt_about(mask))
        return io.NodeOutput(result.frames, result.frames[:1], result.unfilled, report, ui=ui.PreviewText(report))


NODES = [InpaintBackground]
