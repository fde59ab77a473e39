"""Sampler, schedule, and a shot of any length at once."""

import torch
from comfy_api.latest import io, ui

from ..models import dit, sampler
from ..models.windows import LAST_FRAME
from . import shot as shots
from . import sockets
from .long_shot import LongShot
from .sampling import SAME, Sampling, plan_windows
from .sampling_inputs import long_shot_inputs, method_input, report_outputs, sampling_inputs, steps_input
from .shot_report import ShotReport


class Sampler(sockets.Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}Sampler",
            display_name="CogVideoX Sampler",
            category=sockets.SAMPLING,
            description="A sampler for CogVideoX, for SamplerCustom and SamplerCustomAdvanced. KSampler and the "
            "samplers of KSamplerSelect start CogVideoX from far too much noise.",
            inputs=[method_input()],
            outputs=[io.Sampler.Output("sampler", tooltip="For SamplerCustom or SamplerCustomAdvanced.")],
            search_aliases=["ksampler select", "cogvideox dpm", "ddim", "sampler"],
        )

    @classmethod
    def execute(cls, method) -> io.NodeOutput:
        return io.NodeOutput(sampler.CogVideoXSampler(method))


class Schedule(sockets.Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}Schedule",
            display_name="CogVideoX Schedule",
            category=sockets.SAMPLING,
            description="The noise levels that CogVideoX is sampled at, evenly spaced at any number of steps.",
            inputs=[
                io.Model.Input("model", tooltip="The CogVideoX 1.5 model that is to be sampled."),
                steps_input(),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="1: from pure noise. Less: change an existing latent only that much, in the same number "
                    "of steps.",
                    advanced=True,
                ),
            ],
            outputs=[io.Sigmas.Output("sigmas", tooltip="For SamplerCustom or SamplerCustomAdvanced.")],
            search_aliases=["basic scheduler", "sigmas", "noise schedule", "trailing", "steps"],
        )

    @classmethod
    def execute(cls, model, steps, denoise=1.0) -> io.NodeOutput:
        dit.check_base(model)
        return io.NodeOutput(sampler.trailing_sigmas(model.get_model_object("model_sampling"), steps, denoise))


class SampleShot(sockets.Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}SampleShot",
            display_name="Sample Shot",
            category=sockets.SAMPLING,
            description="Animates a shot of any length, window by window: encodes, samples and decodes it. The same "
            "seed gives the same video.",
            inputs=[*sampling_inputs(), *long_shot_inputs()],
            outputs=[
                io.Image.Output("images", tooltip="The video, as many frames as the shot has."),
                io.String.Output("report", tooltip="What was made, with which settings, in what time."),
                *report_outputs(),
            ],
            hidden=[io.Hidden.unique_id],
            search_aliases=["animate", "ksampler", "generate video"],
        )

    @classmethod
    def execute(
        cls, model, vae, shot, positive, negative, seed, steps=25, cfg=2.5, method="cogvideox_dpm",
        image_latent_scale=shots.AUTO, window=0, handover=LAST_FRAME, overlap=5, blend=0, seeds=SAME,
        drift_control=1.0,
    ) -> io.NodeOutput:  # fmt: skip
        sampling = Sampling(
            model, vae, shot, positive, negative, seed=seed, steps=steps, cfg=cfg, method=method,
            image_latent_scale=image_latent_scale, seeds=seeds,
        )  # fmt: skip
        plan = plan_windows(model, shot, cfg, window, handover, overlap, blend)
        sampling.windows = len(plan.windows)
        report = ShotReport(shot, plan, str(sampling), getattr(cls.hidden, "unique_id", None))
        images = torch.empty(plan.total, shot.height, shot.width, 3)
        for made in LongShot(shot, plan, vae, sampling, drift_control).windows():
            frames = plan.finished(made.window)
            images[frames.start : frames.stop] = made.frames
            report.add(made)
        text = report.text(sampling.times())
        shown = ui.PreviewText(text).as_dict() | {"aa_timeline": [report.timeline()]}
        return io.NodeOutput(images, text, report.json(), report.plot(), ui=shown)


NODES = [Sampler, Schedule, SampleShot]
