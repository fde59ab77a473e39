"""The inputs and outputs that the nodes which sample a shot have in common."""

from comfy_api.latest import io

from ..models import sampler, windows
from ..models.windows import HANDOVERS, LAST_FRAME
from . import sockets
from .sampling import ONE_EACH, SAME
from .shot import image_latent_scale_input


def method_input() -> io.Combo.Input:
    return io.Combo.Input(
        "method",
        options=list(sampler.METHODS),
        tooltip="cogvideox_dpm is what CogVideoX was released with. ddim adds no noise on the way: calmer and softer.",
    )


def steps_input() -> io.Int.Input:
    return io.Int.Input(
        "steps",
        default=25,
        min=1,
        max=1000,
        tooltip="25 is a good start; 50 gives finer detail in twice the time.",
    )


def cfg_input() -> io.Float.Input:
    return io.Float.Input(
        "cfg",
        default=2.5,
        min=0.0,
        max=100.0,
        step=0.1,
        round=0.01,
        tooltip="How much prompt, pose and character are insisted on. 1 turns guidance off and skips the negative half "
        "of each step; too much burns colours. DynamiCtrl: 3.",
    )


def material_inputs() -> list[io.Input]:
    """What is sampled, and with what."""
    return [
        io.Model.Input(
            "model",
            tooltip="CogVideoX 1.5 image-to-video with Apply AnimateAnywhere Adapter, or Load DynamiCtrl.",
        ),
        sockets.vae_input(),
        sockets.Shot.Input("shot", tooltip="From Shot."),
        io.Conditioning.Input("positive", tooltip="A prompt, or No Prompt."),
        io.Conditioning.Input("negative", tooltip="A negative prompt, or No Prompt."),
    ]


def sampling_inputs(next_seed: bool | io.ControlAfterGenerate = True) -> list[io.Input]:
    """The inputs of a node that samples a shot. next_seed: what the page does to the seed after each run; True: draw
    another."""
    return [
        *material_inputs(),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=next_seed,
            tooltip="Another seed gives another take of the same shot.",
        ),
        steps_input(),
        cfg_input(),
        method_input(),
        image_latent_scale_input(),
    ]


def window_inputs() -> list[io.Input]:
    """The inputs that say how a shot is cut into windows."""
    later = {"optional": True}  # a prompt saved before they came still runs
    return [
        io.Int.Input(
            "window",
            default=0,
            min=0,
            max=windows.LONGEST,
            tooltip="Frames that are sampled together, at most: 5, 13, 21, 29, 37, 45, … More need more memory and "
            "hold together better. 0: what the model was trained with, or less where Plan Shot found that this does "
            "not fit.",
            **later,
        ),
        io.Combo.Input(
            "handover",
            options=list(HANDOVERS),
            default=LAST_FRAME,
            tooltip="How a window goes on from the one before. last frame: it begins with its last frame (as in the "
            "papers). overlap: its last frames are kept as they are in every step. none: each begins from the "
            "background.",
            **later,
        ),
        io.Int.Input(
            "overlap",
            default=5,
            min=1,
            max=1000,
            tooltip="Frames that two windows have in common with handover overlap: 5, 9, 13, … More is smoother and "
            "takes longer.",
            advanced=True,
            **later,
        ),
        io.Int.Input(
            "blend",
            default=0,
            min=0,
            max=1000,
            tooltip="Of the common frames, how many are cross-faded. 0: they come from the earlier window.",
            advanced=True,
            **later,
        ),
    ]


def long_shot_inputs() -> list[io.Input]:
    """All inputs that say how a shot is made window by window; of Sample Shot and Render Shot."""
    later = {"optional": True}
    return [
        *window_inputs(),
        io.Combo.Input(
            "seeds",
            options=[SAME, ONE_EACH],
            default=SAME,
            tooltip="The same noise in every window keeps textures alike; one a window avoids that they repeat.",
            advanced=True,
            **later,
        ),
        io.Float.Input(
            "drift_control",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.05,
            tooltip="In a shot of several windows: how far colour and contrast of each are brought back to the first "
            "picture's background, or to the background video's. 0: leave them.",
            **later,
        ),
    ]


def report_outputs() -> list[io.Output]:
    """What Sample Shot and Render Shot say of their windows."""
    return [
        io.String.Output("report_json", tooltip="The report for programs: figures of every window, as JSON."),
        io.Image.Output("plot", tooltip="How far colours drift over time, before and after control."),
    ]
