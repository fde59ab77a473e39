"""A driving pose and a character -> the pose on the character's body."""

import numpy as np
from comfy_api.latest import io, ui

from ..vision import retarget as bodies
from ..vision.pose import PoseTrack, drop
from . import preview, sockets
from .feedback import frames_of, ranges
from .pose import check_something_is_kept, dropped_frames_input, lead_of
from .socket_values import read_pose

UNSURE = 0.55  # a confidence below is told as a warning
MANY = 0.1  # so is a part of the frames in which something leaves the picture


def _told(done: bodies.Retargeted, size: str) -> list[str]:
    """What an artist should know of a result, warnings first."""
    warnings, lines = [], [f"Read from frame {done.frame} of the reference (the first is 0)"] if done.frame else []
    for one in done.cast:
        name = f"person {one.person}: " if len(done.cast) > 1 else ""
        found = one.proportions
        warnings += [f"{name}{warning}" for warning in found.warnings]
        if one.left > MANY:
            advice = "; set size to driving" if size == "reference" and one.scale > 1 else ""
            warnings.append(f"{name}joints leave the picture in {one.left:.0%} of the frames{advice}")
        limbs = ", ".join(f"{limb} {ratio:.2f}" for limb, ratio in one.ratios.items())
        lines.append(f"{name}{one.scale:.2f} times as large as in driving ({limbs})")
        lines.append(
            f"{name}confidence {found.confidence:.2f} of 1: limbs about {found.error:.0%} too long or too short"
        )
        if found.confidence < UNSURE:
            warnings.append(f"{name}the reference tells little about this body in this movement; look at the result")
    if done.along:
        warnings.append(f"several people: one got the body of the reference, {done.along} more move along as they are")
    if done.pictured > len(done.cast):
        warnings.append(f"several people in the reference: the most prominent of {done.pictured} was taken")
    return [f"DOES NOT MATCH: {warning}" for warning in warnings] + lines


def _limb(name: str, what: str) -> io.Float.Input:
    return io.Float.Input(
        name,
        default=1.0,
        min=0.1,
        max=10.0,
        step=0.05,
        advanced=True,
        tooltip=f"Makes {what} longer or shorter than the mode would. 1: leave it to the mode.",
    )


class RetargetPose(sockets.Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}RetargetPose",
            display_name="Retarget Pose",
            category=sockets.POSE,
            description="Puts a movement on another body: the driving person's angles, the character's limbs. Feet "
            "that stand stay where they stand, and zooms stay as they are.",
            inputs=[
                sockets.PoseKeypoint.Input("driving", tooltip="The movement, from Extract Pose and Mask."),
                sockets.PoseKeypoint.Input(
                    "reference",
                    tooltip="The pose in the character's picture, from a second Extract Pose and Mask; of a video, the "
                    "first frame that shows it well. Best is a picture from head to feet, standing, from the front.",
                ),
                io.Combo.Input(
                    "mode",
                    options=list(bodies.MODES),
                    default=bodies.MODES[0],
                    tooltip="proportions: limb by limb. fit: the whole body larger or smaller, by the torso. off: the "
                    "driving pose as it is.",
                ),
                io.Combo.Input(
                    "size",
                    options=list(bodies.WHOSE),
                    default=bodies.WHOSE[0],
                    tooltip="How large the body is in the frame. reference: as in the character's picture. driving: as "
                    "in the driving video, which suits its background.",
                ),
                io.Combo.Input(
                    "place",
                    options=list(bodies.WHOSE),
                    default=bodies.WHOSE[1],
                    advanced=True,
                    tooltip="Where the body stands at the start. driving: where the driving person stands, on the "
                    "canvas of that video. reference: where the character stands, on the canvas of its picture; for a "
                    "video that begins with this picture.",
                ),
                _limb("torso", "the torso, shoulders and hips"),
                _limb("head", "neck and head"),
                _limb("arms", "the arms"),
                _limb("legs", "the legs"),
                _limb("hands", "the hands"),
                dropped_frames_input(),
            ],
            outputs=[
                sockets.PoseKeypoint.Output("pose", tooltip="The movement on the character's body, for Draw Pose."),
                io.String.Output("report", tooltip="How the bodies compare, how sure that is, what does not match."),
            ],
            search_aliases=["align pose", "pose transfer", "proportion changer", "rescale pose", "unianimate"],
        )

    @classmethod
    def execute(
        cls, driving, reference, mode="proportions", size="reference", place="driving", torso=1.0, head=1.0, arms=1.0,
        legs=1.0, hands=1.0, dropped_frames="",
    ) -> io.NodeOutput:  # fmt: skip
        (found, remark), (picture, _) = read_pose(driving, "driving"), read_pose(reference, "reference")
        dropped = frames_of(dropped_frames, len(found.keypoints), "dropped_frames")
        track = found
        if dropped.any():
            check_something_is_kept(found, dropped)
            track = drop(found, dropped)
        if mode == "off":
            pose = track.to_openpose() if dropped.any() or remark else driving
            return _result(pose, track, found, dropped, "The driving pose as it is: mode is off.", remark)
        adjust = {"torso": torso, "head": head, "arms": arms, "legs": legs, "hands": hands}
        done = bodies.retarget(track, picture, mode, adjust, size, place)
        return _result(done.pose.to_openpose(), done.pose, found, dropped, "\n".join(_told(done, size)), remark)


def _result(
    pose: list[dict], track: PoseTrack, found: PoseTrack, dropped: np.ndarray, report: str, remark: str
) -> io.NodeOutput:
    """The outputs, and the player: the new ``pose`` (as ``track``) over the driving one as it was ``found``.
    ``remark``: on how that was read."""
    if remark:
        report += f"\n{remark}"
    if dropped.any():
        report += f"\nDropped: {ranges(dropped)}"
    confidence, missed = lead_of(found)
    same = (track.width, track.height) == (found.width, found.height)
    shown = preview.pose_player(track, confidence, missed | dropped, ghost=found if same else None)
    return io.NodeOutput(pose, report, ui=ui.PreviewText(report).as_dict() | {"aa_pose": [shown]})


NODES = [RetargetPose]
