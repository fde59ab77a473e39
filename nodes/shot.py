"""The shot: who, where and how it moves; and its encoding for the model."""

from dataclasses import replace

import node_helpers
from comfy_api.latest import io, ui
from torch import Tensor

import nodes

from ..models import attach, clips, dit, latents
from ..models.text import check_conditioning
from ..vision import drawing, drawn_pose
from ..vision import mask as masks
from ..vision.tracking import Identities
from . import detection, sockets
from .feedback import progress_of
from .socket_values import doubt_about, is_black

START = {
    True: "Start: the picture, which shows the character as the first pose does",
    False: "Start: the background alone. In the start picture, nobody stands as in the first pose ({:.0%} in common, "
    "{:.0%} wanted)",
}


def _report(shot: clips.Shot, background, mask, agreement: float | None) -> str:
    """What became of the inputs, in a few lines. ``agreement``: of a start picture with the first pose."""
    height, width = background.shape[1:3]
    resized = "" if (width, height) == (shot.width, shot.height) else f", fitted from {width}×{height}"
    kind = "video" if shot.has_environment else "one picture"
    lines = [
        f"Shot: {shot.width}×{shot.height} px, {shot.length} frames",
        f"Background: {kind}{resized}",
        f"Character: {'from the reference' if shot.reference is not None else 'none connected'}",
    ]
    if mask is not None:
        if shot.mask is None:
            use = "not used, the background is one picture"
        elif is_black(shot.mask):
            use = "black in every frame, so nothing is blanked"
        else:
            use = f"{float(shot.mask.mean()):.0%} of the video is blanked in gray"
        lines.append(f"Mask: {use}")
    if agreement is not None:
        lines.append(START[shot.start is not None].format(agreement, drawn_pose.ALIKE))
    return "\n".join(lines)


def _agreement(shot: clips.Shot) -> float:
    """How well the person in the start picture stands as in the shot's first pose: 0…1."""
    found = detection.detect("blazepose", shot.start, Identities(1), progress_of(detection.steps_of("blazepose", 1)))
    if not found.followed.seen.any():
        return 0.0
    drawn = drawing.draw(found.followed.pose, shot.width, shot.height)
    return drawn_pose.overlap(drawn[0], shot.pose[0])


def _in_blocks(mask: Tensor, block: int) -> Tensor:
    """``mask`` [T, H, W] of a shot, whose outline scaling has softened and shown again, as blocks of ``block`` px."""
    sides = (block, block) if block else masks.typical_block(mask)
    progress = progress_of(len(mask))
    return masks.shape_agnostic(mask, *sides, progress, steady=True)


class Shot(sockets.Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        size = {"default": 0, "min": 0, "max": nodes.MAX_RESOLUTION, "step": latents.SIZE_STEP}
        return io.Schema(
            node_id=f"{sockets.PREFIX}Shot",
            display_name="Shot",
            category=sockets.SHOT,
            description="Puts together what is to be animated: how the person moves, where, and who it is. "
            "Frames are resized to the shot's size. A shot may have any length: Sample Shot makes it window by window.",
            inputs=[
                io.Image.Input("pose", tooltip="The pose video from Draw Pose. It sets the pace."),
                io.Image.Input(
                    "background",
                    tooltip="The place without the person: one picture, which becomes the start of the video, or a "
                    "video as long as the pose. Another aspect ratio is cropped at the centre.",
                ),
                sockets.Reference.Input(
                    "reference", optional=True, tooltip="The character, from Encode Character Reference."
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Only with a background video: white where the character goes, from Shape-Agnostic Mask. "
                    "The video is blanked there. As many frames as the background, or one for all.",
                ),
                io.Int.Input("width", **size, tooltip="Width in px, a multiple of 16. 0: follows from the pose video."),
                io.Int.Input(
                    "height", **size, tooltip="Height in px, a multiple of 16. 0: follows from the pose video."
                ),
                io.Int.Input(
                    "length",
                    default=0,
                    min=0,
                    max=1_000_000,
                    tooltip="Frames to use, from the first one on. 0: all. Any number will do: Sample Shot and Render "
                    "Shot make long shots window by window.",
                ),
                io.Image.Input(
                    "start_pose",
                    optional=True,
                    tooltip="Only for DynamiCtrl: the drawn pose of the person in the background picture. It becomes "
                    "the first frame, and the pose video follows. Cropped as the background is.",
                ),
                io.Image.Input(
                    "start",
                    optional=True,
                    tooltip="The first frame, if you have it: the character already in the place, or the last frame of "
                    "a clip to go on from. It is used when somebody stands there as in the first pose; otherwise the "
                    "video starts from the background alone. Cropped as the background is.",
                ),
                io.Int.Input(
                    "mask_block",
                    default=0,
                    min=0,
                    max=4096,
                    optional=True,  # a prompt saved before it came still runs
                    advanced=True,
                    tooltip="Size in px, in the shot, of the blocks that hide the outline of the mask. 0: as large as "
                    "the model was trained with on average. Larger ones leave a new character more room. 1: keep the "
                    "outline as it is.",
                ),
            ],
            outputs=[
                sockets.Shot.Output("shot", tooltip="The shot, for Sample Shot or Encode Shot."),
                io.String.Output("report", tooltip="Size, length, and what was changed to get there."),
            ],
            search_aliases=["animate", "scene", "pose and background"],
        )

    @classmethod
    def execute(
        cls, pose, background, reference=None, mask=None, width=0, height=0, length=0, start_pose=None, start=None,
        mask_block=0,
    ) -> io.NodeOutput:  # fmt: skip
        single = sum(picture is not None for picture in (start_pose, start))
        progress = progress_of(single + len(pose) + len(background) + (0 if mask is None else len(mask)))
        shot = clips.make_shot(pose, background, reference, mask, width, height, length, progress, start_pose, start)
        if shot.mask is not None:
            shot = replace(shot, mask=_in_blocks(shot.mask, mask_block))
        agreement = None
        if shot.start is not None:
            agreement = _agreement(shot)
            if agreement < drawn_pose.ALIKE:
                shot = replace(shot, start=None)
        report = "\n".join(filter(None, [_report(shot, background, mask, agreement), doubt_about(shot.mask)]))
        timeline = {"total": shot.length, "windows": [], "conditions": shot.conditions()}
        return io.NodeOutput(shot, report, ui=ui.PreviewText(report).as_dict() | {"aa_timeline": [timeline]})


# Values of image_latent_scale. On aa_tiny, "0.7" stands for the scale of its own latents.
AUTO, LATENT_SCALE, UNSCALED = attach.AUTO_SCALE, "0.7", "1.0"


def image_latent_scale_input() -> io.Combo.Input:
    return io.Combo.Input(
        "image_latent_scale",
        options=[AUTO, LATENT_SCALE, UNSCALED],
        default=AUTO,
        optional=True,  # a prompt saved before it came still runs
        advanced=True,
        tooltip="What the latents of the background are multiplied with. auto: as the model and its adapters were "
        "trained. 0.7: as all other latents (aa_tiny has a scale of its own). 1.0: not at all. A wrong scale makes "
        "colors pale or harsh after the first frame.",
    )


def check_adapters(model, shot: clips.Shot) -> None:
    """Raise ValueError when ``shot`` has what no adapter on ``model`` understands, or lacks what the model needs."""
    control = attach.control_of(model)
    width = model.get_model_object("diffusion_model").dim
    attach.check_conditions(control, width, {"aa_pose": shot.pose, "aa_reference": shot.reference})
    attach.check_pose_is_there(control, shot.pose)


def encode(
    shot: clips.Shot, vae, positive: list, negative: list, progress: clips.Progress, model=None,
    image_latent_scale: str = AUTO,
) -> tuple[list, list, dict]:  # fmt: skip
    """positive and negative CONDITIONING with the shot in them, and the empty LATENT to sample.

    progress: see clips.encode(). model: says whether the negative, too, gets pose and character, and how the
    background's latents are scaled; where it is not known, a model with an adapter scales them itself.
    """
    encoded = clips.encode(shot, vae, progress)
    control = None if model is None else attach.control_of(model)
    joint_text = control is not None and control.joint_text
    shared = {}
    if model is not None and image_latent_scale != LATENT_SCALE:
        scale = 1.0 if image_latent_scale == UNSCALED else attach.image_latent_scale(model)
        scaled = attach.scale_image_latents(encoded.background, model.get_model_object("latent_format"), scale)
        encoded = replace(encoded, background=scaled)
    elif image_latent_scale == AUTO:
        shared[attach.SCALE_KEY] = AUTO
    positive = node_helpers.conditioning_set_values(positive, shared | encoded.conditions(controlled=True))
    negative = node_helpers.conditioning_set_values(negative, shared | encoded.conditions(controlled=joint_text))
    return positive, negative, {"samples": encoded.empty_latent()}


class EncodeShot(sockets.Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}EncodeShot",
            display_name="Encode Shot",
            category=sockets.SHOT,
            description="Puts a shot, or a part of it, into the conditioning, for the stock samplers. "
            "Sample Shot does this by itself; use this node to sample in your own way.",
            inputs=[
                sockets.Shot.Input("shot", tooltip="From Shot."),
                sockets.vae_input(),
                io.Conditioning.Input("positive", tooltip="A prompt, or No Prompt."),
                io.Conditioning.Input(
                    "negative",
                    tooltip="A negative prompt, or No Prompt. It gets the background, and neither pose nor character: "
                    "so guidance strengthens these two.",
                ),
                io.Int.Input(
                    "start",
                    default=0,
                    min=0,
                    max=1_000_000,
                    tooltip="First frame of the part, counted from 0.",
                    advanced=True,
                ),
                io.Int.Input(
                    "length",
                    default=0,
                    min=0,
                    max=1_000_000,
                    tooltip="Frames of the part. 0: to the end of the shot. Rounded down to 5, 13, 21, 29, 37, 45, …",
                    advanced=True,
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="The model that is to be sampled. DynamiCtrl needs it: its negative gets the pose, too.",
                ),
                image_latent_scale_input(),
            ],
            outputs=[
                io.Conditioning.Output("positive", tooltip="With background, pose and character."),
                io.Conditioning.Output("negative", tooltip="With the background; for DynamiCtrl, with the pose, too."),
                io.Latent.Output("latent", tooltip="Empty, in the size of the part; for the stock samplers."),
            ],
            search_aliases=[
                "image to video conditioning",
                "shot to conditioning",
                "samplercustom",
                "pose conditioning",
            ],
        )

    @classmethod
    def execute(
        cls, shot, vae, positive, negative, start=0, length=0, model=None, image_latent_scale=AUTO
    ) -> io.NodeOutput:
        latents.check_vae(vae)
        clips.Shot.check(shot)
        check_conditioning(positive, "positive")
        check_conditioning(negative, "negative")
        if model is not None:
            check_adapters(model, shot)
        elif image_latent_scale == UNSCALED:
            raise ValueError("model: image_latent_scale 1.0 needs the model. Connect it, or choose auto.")
        asked = shot.window(start, length)
        part = asked.window(0, latents.valid_length(asked.length))
        report = f"Frames {start} to {start + part.length - 1}: asked {asked.length}, using {part.length} (8k+5)"
        positive, negative, latent = encode(part, vae, positive, negative, progress_of(2), model, image_latent_scale)
        marked = attach.mark_as_shot(positive), attach.mark_as_shot(negative)
        return io.NodeOutput(*marked, latent, ui=ui.PreviewText(report))


class NoPrompt(sockets.Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}NoPrompt",
            display_name="No Prompt",
            category=sockets.SHOT,
            description="An empty text for the model, so that no text encoder is needed. The character, the background "
            "and the pose say what is to be seen.",
            inputs=[io.Model.Input("model", tooltip="The CogVideoX 1.5 model that is to be sampled.")],
            outputs=[io.Conditioning.Output("conditioning", tooltip="For both positive and negative.")],
            search_aliases=["empty prompt", "zero conditioning", "conditioning zero out", "no text"],
        )

    @classmethod
    def execute(cls, model) -> io.NodeOutput:
        return io.NodeOutput(no_prompt(model))


def no_prompt(model) -> list:
    """CONDITIONING without text for ``model``. Raises ValueError when it is not CogVideoX 1.5 I2V."""
    dit.check_base(model)
    width = model.get_model_object("diffusion_model").patch_embed.text_proj.in_features
    return [[dit.no_text(width), {}]]


NODES = [Shot, EncodeShot, NoPrompt]
