"""Character picture + pose + place -> a draft of the video, without any model."""

from typing import NamedTuple

import nodes
import numpy as np
import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ...vision.camera_path import CameraPath
from ...vision.draft.character import Character
from ...vision.draft.lead_in import add_lead_in
from ...vision.draft.performance import Performance, perform
from ...vision.draft.place import MovedPicture, Place, Video
from ...vision.draft.placement import FittedPose, fit_pose, place_path, place_pose
from ...vision.draft.puppet import Puppet
from ...vision.draft.shot import render
from ...vision.draft.subject import cut_out
from ...vision.frames import Progress
from ...vision.pose import PoseTrack
from .. import motion, sockets
from ..feedback import progress_of, ranges
from ..tracks import motion_in_words
from .draft_inputs import draft_size, read_driver, read_subject

# Px of the draft per px of the picture: a smaller draft is made of a smaller picture.
REDUCE_BELOW = 0.85
SMALLEST_SCALE = 0.1
MOST_LEAD_IN = 1000  # frames


class Moving(NamedTuple):
    """The place, and a line for the report on how it moves."""

    place: Place
    remark: str


def _path_of_pose(track: PoseTrack, progress: Progress) -> tuple[CameraPath | None, str]:
    """The camera path that a placed pose implies, or None, and what to say of it."""
    if len(track.keypoints) < 2:
        return None, "The background stands still: the pose has one frame"
    path = motion.read_by_feet(track, progress)
    sure = float(path.confidence[1:].mean())
    if sure < motion.DOUBTED:
        return None, (
            f"The background stands still: the pose does not tell its motion (confidence "
            f"{sure:.2f} of 1). Wire a camera_path to move it"
        )
    return path, f"The background moves as the pose implies (confidence {sure:.2f} of 1)"


def _moving_place(
    background: Tensor,
    camera_path: CameraPath | None,
    track: PoseTrack,
    strength: float,
    lead_in: int,
    progress: Progress,
) -> Moving:
    """The place behind the placed ``track`` (without its lead-in)."""
    size, count = (track.width, track.height), len(track.keypoints)
    if len(background) > 1:
        remark = f"The background is a video of {len(background)} frames, used as it is"
        if len(background) < count:
            remark += "; its last frame is held"
        if camera_path is not None:
            remark += "; camera_path is not used"
        return Moving(Video(background, size, lead_in), remark)
    if strength == 0:
        path, remark = None, "The background stands still: background_motion is 0"
    elif camera_path is not None:
        path, remark = place_path(camera_path, size), "The background moves by camera_path"
        if len(path) < count:
            remark += f", which has {len(path)} frames; then it stands"
    else:
        path, remark = _path_of_pose(track, progress)
    if path is not None:
        if strength != 1:
            path = CameraPath.from_steps(path.steps * strength, *size, path.confidence[1:])
        if len(path) > 1:
            remark += f": {motion_in_words(path)}"
    return Moving(MovedPicture(background, path, size, lead_in), remark)


def _report(
    size: tuple[int, int],
    character: Character,
    fitted: FittedPose | None,
    mirrored: tuple[str, ...],
    skirt: bool,
    performance: Performance,
    remark: str,
) -> str:
    """What an artist should know of a draft, warnings first."""
    present, back = performance.present, performance.mirrored
    warnings, lines = [], [f"{len(present)} frames of {size[0]}×{size[1]} px"]
    if not character.legs:
        warnings.append(
            "LEGS CUT OFF in the character's picture: drawn from the hips up. A "
            "picture from head to feet gives legs"
        )
    if fitted is not None:
        warnings += [f"DOES NOT MATCH: {warning}" for warning in fitted.proportions.warnings]
    if not character.arms:
        warnings.append("NO ARMS are seen in the character's picture: drawn without them")
    for side in (name.partition("_")[0] for name in mirrored):
        other = {"left": "right", "right": "left"}[side]
        lines.append(f"The {side} arm is hidden in the picture: it is the {other} one, mirrored")
    if skirt:
        lines.append("The legs are joined by a skirt, which bends as one piece")
    if not present.all():
        lines.append(f"Nobody is there in frames {ranges(~present)} (the first is 0)")
    if back.any():
        lines.append(f"Seen from behind, which the picture does not show: frames {ranges(back)}")
    if not performance.depth_known[present].any():
        lines.append(
            "The pose tells no depth: arms are drawn before the trunk. Extract Pose "
            "with blazepose gives depth"
        )
    return "\n".join([*warnings, *lines, remark])


def _reduction(scale: np.ndarray) -> float:
    """How much smaller the picture is made before it is cut up, where the draft's ``scale`` [T] is
    that of a much smaller figure."""
    usual = float(np.median(scale))
    return max(usual, SMALLEST_SCALE) if usual < REDUCE_BELOW else 1.0


class DraftShot(sockets.Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        size = {
            "default": 0,
            "min": 0,
            "max": nodes.MAX_RESOLUTION,
            "optional": True,
            "advanced": True,
        }
        strength = {"min": 0.0, "max": 1.0, "step": 0.01, "optional": True}
        return io.Schema(
            node_id=f"{sockets.PREFIX}DraftShot",
            display_name="Draft Shot",
            category=sockets.DRAFT,
            description="A draft of the shot in seconds, without any model: the character's own "
            "picture is cut into layers that the pose bends, before a background that moves as the "
            "pose implies. To see timing and framing at once, and as a start for sampling.",
            inputs=[
                io.Image.Input(
                    "character",
                    tooltip="One picture of the person, best from head to feet, from the front, "
                    "arms off the body and hands empty.",
                ),
                sockets.PoseKeypoint.Input(
                    "pose",
                    tooltip="The movement, from Extract Pose. blazepose also tells which limb is "
                    "nearer.",
                ),
                io.Image.Input(
                    "background",
                    tooltip="A picture of the place, which moves by camera_path or, without one, "
                    "as the pose implies; or a video, used as it is. For several people: the draft "
                    "of the one behind.",
                ),
                io.Mask.Input(
                    "character_mask",
                    optional=True,
                    tooltip="White where the character is, of the picture's size, used as it is. "
                    "Without it the person is cut out here.",
                ),
                sockets.PoseKeypoint.Input(
                    "character_pose",
                    optional=True,
                    tooltip="The pose in the character's picture. Without it the clearest person "
                    "is found here.",
                ),
                sockets.CameraPath.Input(
                    "camera_path",
                    optional=True,
                    tooltip="How a background picture moves, from Track Background or Pose to "
                    "Tracks.",
                ),
                io.Int.Input(
                    "width",
                    **size,
                    tooltip="Width of the draft in px. 0, together with height: the background's, "
                    "at least 640 px on the longer side.",
                ),
                io.Int.Input(
                    "height",
                    **size,
                    tooltip="Height of the draft in px. 0, together with width: the background's.",
                ),
                io.Int.Input(
                    "person",
                    default=0,
                    min=0,
                    max=99,
                    optional=True,
                    tooltip="Whom of several people in the pose the character follows; 0 is the "
                    "lead.",
                ),
                io.Boolean.Input(
                    "retarget",
                    default=True,
                    optional=True,
                    tooltip="Puts the movement on the character's own proportions. Off: the "
                    "character is stretched onto the pose as it is, for a pose of Retarget Pose.",
                ),
                io.Float.Input(
                    "shadow",
                    default=0.38,
                    **strength,
                    tooltip="How dark the ground gets under the feet. 0: no shadow, 1: black.",
                ),
                io.Float.Input(
                    "relight",
                    default=0.25,
                    **strength,
                    tooltip="How far the character takes on the color and brightness of the "
                    "background's light. 0: its own light.",
                ),
                io.Float.Input(
                    "background_motion",
                    default=1.0,
                    min=0.0,
                    max=4.0,
                    step=0.05,
                    optional=True,
                    tooltip="How strongly a background picture moves. 0 keeps it still, 1 is "
                    "natural, above 1 exaggerates.",
                ),
                io.Int.Input(
                    "lead_in",
                    default=0,
                    min=0,
                    max=MOST_LEAD_IN,
                    optional=True,
                    advanced=True,
                    tooltip="Frames added before the pose's first one, in which the character goes "
                    "there from its own pose in the picture. 0: none.",
                ),
            ],
            outputs=[
                io.Image.Output("images", tooltip="The draft: as many frames as pose and lead_in."),
                io.Mask.Output("mask", tooltip="White where the character is, with soft edges."),
                io.Image.Output("background", tooltip="The same frames without the character."),
                sockets.PoseKeypoint.Output(
                    "pose", tooltip="The pose as drawn, on the draft's canvas, for Draw Pose."
                ),
                io.String.Output("report", tooltip="Size, and what to know of the result."),
            ],
            search_aliases=["puppet", "animatic", "previz", "cutout animation", "pose preview"],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, character, pose, background, character_mask=None, character_pose=None,
        camera_path=None, width=0, height=0, person=0, retarget=True, shadow=0.38, relight=0.25,
        background_motion=1.0, lead_in=0,
    ) -> io.NodeOutput:  # fmt: skip
        if len(character) != 1:
            raise ValueError(
                f"character: it has {len(character)} frames, and one picture is wanted. Put Get "
                "Image from Batch in front to choose one."
            )
        size = draft_size(width, height, background)
        driver = read_driver(pose, person)
        count = len(driver.keypoints)
        progress = progress_of(2 * count + lead_in)
        progress(0)
        subject = read_subject(character, character_mask, character_pose)
        fitted = fit_pose(driver, subject.pose, retarget)
        track = place_pose(fitted.track, size)
        moving = _moving_place(background, camera_path, track, background_motion, lead_in, progress)
        scale = fitted.scale * size[1] / driver.height
        with_lead_in = add_lead_in(track, subject.pose, float(scale[0]), lead_in)
        added = len(with_lead_in.keypoints) - count
        scale = np.concatenate([np.full(added, scale[0]), scale])
        reduction = _reduction(scale)
        puppet = Puppet(cut_out(subject, reduction))
        marks = None if subject.pose.landmarks is None else subject.pose.landmarks[0, 0]
        performance = perform(puppet.character, with_lead_in, scale / reduction, marks)
        mirrored = puppet.suit(performance.targets)
        frames = render(puppet, performance, moving.place, size, shadow, relight)
        images, mask, places = _collect(
            frames, len(scale), size, lambda done: progress(count + done)
        )
        given = fitted if retarget else None
        skirt = puppet.layers.skirt
        report = _report(size, puppet.character, given, mirrored, skirt, performance, moving.remark)
        drawn = with_lead_in.where(performance.present)
        return io.NodeOutput(
            images, mask, places, drawn.to_openpose(), report, ui=ui.PreviewText(report)
        )


def _collect(frames, count: int, size: tuple[int, int], progress: Progress) -> tuple:
    """The rendered frames as images [T, H, W, 3], mask [T, H, W] and backgrounds [T, H, W, 3]."""
    width, height = size
    images, places = (torch.empty(count, height, width, 3) for _ in range(2))
    mask = torch.empty(count, height, width)
    for t, frame in enumerate(frames):
        images[t], mask[t], places[t] = (
            torch.from_numpy(part) for part in (frame.image, frame.mask, frame.background)
        )
        progress(t + 1)
    return images, mask, places


NODES = [DraftShot]
