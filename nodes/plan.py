"""What a shot is going to cost, before it is made."""

import json

from comfy_api.latest import io, ui

from ..models import windows
from ..models.windows import LAST_FRAME
from . import cost as costs
from . import sockets
from .sampling import Sampling, plan_windows
from .sampling_inputs import cfg_input, material_inputs, steps_input, window_inputs


class PlanShot(sockets.Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}PlanShot",
            display_name="Plan Shot",
            category=sockets.SAMPLING,
            description="Says before a shot is sampled in which windows it is going to be made, how long that takes "
            "and how much memory it needs on this machine. Two short windows are sampled for it, once for each model "
            "and size.",
            inputs=[
                *material_inputs(),
                steps_input(),
                cfg_input(),
                *window_inputs(),
                io.Boolean.Input(
                    "measure_again",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Measure anew, for one after a change of drivers or settings.",
                ),
            ],
            outputs=[
                io.Int.Output("window", tooltip="Frames of the longest window, for Sample Shot and Render Shot."),
                io.String.Output("report", tooltip="Windows, time, memory, and the largest window that fits."),
                io.String.Output("report_json", tooltip="The same for programs."),
            ],
            search_aliases=["estimate", "how long", "out of memory", "vram", "predict time"],
        )

    @classmethod
    def execute(
        cls, model, vae, shot, positive, negative, steps=25, cfg=2.5, window=0, handover=LAST_FRAME, overlap=5, blend=0,
        measure_again=False,
    ) -> io.NodeOutput:  # fmt: skip
        sampling = Sampling(model, vae, shot, positive, negative, seed=0, steps=costs.STEPS, cfg=cfg, method="ddim")
        windows.plan(shot.length, window or windows.LONGEST, handover, overlap, blend)  # before anything is measured
        cost = None if measure_again else costs.find(model, shot, cfg)
        measured = cost is None
        if cost is None:
            cost = costs.measure(model, shot, cfg, sampling)
        plan = plan_windows(model, shot, cfg, window, handover, overlap, blend)
        free = costs.free_bytes()
        largest = cost.largest(free)
        figures = {
            "frames": plan.total,
            "windows": [each.length for each in plan.windows],
            "seconds": sum(cost.seconds(each.length, steps) for each in plan.windows),
            "memory": None if largest is None else cost.bytes(plan.windows[0].length) / 1e6,
            "free": free / 1e6,
            "largest": largest,
            "measured": "now" if measured else "before",
        }
        report = _report(plan, figures)
        return io.NodeOutput(plan.windows[0].length, report, json.dumps(figures), ui=ui.PreviewText(report))


def _report(plan: windows.Plan, figures: dict) -> str:
    seconds = figures["seconds"]
    memory = "Memory: the windows measured took no more than ComfyUI held already; what fits is not known"
    if figures["largest"] is not None:
        memory = (
            f"About {figures['memory']:.0f} MB at the peak beside the model; {figures['free']:.0f} MB can be had\n"
            f"The largest window that fits: {figures['largest']} frames"
        )
    time = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    return "\n".join(
        [
            str(plan),
            f"About {time} ({figures['seconds'] / plan.total:.2f} s a frame)",
            memory,
            f"Measured {'just now' if figures['measured'] == 'now' else 'before on this machine'}",
        ]
    )


NODES = [PlanShot]
