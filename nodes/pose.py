"""Video -> pose and mask."""

import numpy as np
from comfy_api.latest import io, ui

from ..vision import mask as masks
from ..vision import pose as poses
from ..vision.tracking import LEADS, Identities
from . import detection, memory, preview, sockets
from .feedback import frames_of, progress_of, ranges

MOST_PEOPLE = 8


def _report(found: poses.PoseTrack, filled: poses.PoseTrack, dropped: np.ndarray, remark: str) -> str:
    """What was found, and what was filled in: one line a person where there are several."""
    seen, there = found.seen.any(axis=2), filled.seen.any(axis=2)  # [T, P]
    count, people = seen.shape
    lines = [f"{count} frames of {found.width}×{found.height} px"]
    for person in range(people):
        who = "A person" if people == 1 else "The lead" if person == 0 else f"Person {person} (the lead is 0)"
        lines.append(f"{who} was seen in {seen[:, person].sum()} of {count}")
        invented = there[:, person] & ~seen[:, person]
        if invented.any():
            around = f"Filled from the frames around, in the mask over {detection.LAPSE} at most"
            lines.append(f"{around}: {ranges(invented)} (the first frame is 0)")
        long = _in_long_runs(invented)
        if long.any():
            lines.append(f"MADE UP over more than {poses.LONGEST_GAP} frames, look at it: {ranges(long)}")
    if dropped.any():
        lines.append(f"Dropped: {ranges(dropped)}")
    return "\n".join([*lines, remark] if remark else lines)


def _in_long_runs(there: np.ndarray) -> np.ndarray:
    """Those [T] of ``there`` [T] bool that have more than LONGEST_GAP in a row with them."""
    out, length = np.zeros_like(there), poses.LONGEST_GAP + 1
    for first in range(len(there) - length + 1):
        if there[first : first + length].all():
            out[first : first + length] = True
    return out


def dropped_frames_input() -> io.String.Input:
    return io.String.Input(
        "dropped_frames",
        default="",
        optional=True,  # a prompt saved before it came still runs
        advanced=True,
        tooltip='Frames whose pose is wrong, like "3, 7-9"; the first is 0. They get one from the frames around them. '
        "Or click them in the player that the node shows after a run.",
    )


def check_something_is_kept(found: poses.PoseTrack, dropped: np.ndarray) -> None:
    """Raise ValueError where no frame with somebody in it is left."""
    if not (found.present & ~dropped).any():
        raise ValueError("dropped_frames: no frame that shows a person is left. Keep one of them, at least.")


def lead_of(found: poses.PoseTrack) -> tuple[np.ndarray, np.ndarray]:
    """How sure the joints of the first person are, 0…1 [T], and the frames [T] bool in which none is seen."""
    if not found.keypoints.shape[1]:
        return np.zeros(len(found.keypoints)), np.ones(len(found.keypoints), bool)
    return np.minimum(found.keypoints[:, 0, :, 2], 1).mean(axis=1), ~found.seen[:, 0].any(axis=1)


class ExtractPose(sockets.Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        share = {"default": 0.5, "min": 0.0, "max": 1.0, "step": 0.01, "optional": True, "advanced": True}
        return io.Schema(
            node_id=f"{sockets.PREFIX}ExtractPose",
            display_name="Extract Pose and Mask",
            category=sockets.POSE,
            description="Follows people through a video or picture: their skeletons, and a mask of them. Frames where "
            "the lead is not seen get a pose from the frames around them.",
            inputs=[
                io.Image.Input("images", tooltip="The driving video: whose movement you want. Or one picture."),
                io.Combo.Input(
                    "detector",
                    options=list(detection.DETECTORS),
                    tooltip="blazepose is built in and quick: body only, no fingers. blazepose heavy is more exact and "
                    "half as quick. dwpose has hands and face. The last two need files in models/detection.",
                ),
                io.Float.Input(
                    "smoothing",
                    default=0.3,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Calms trembling joints; fast moves stay sharp. 0: leave the pose as it was found.",
                ),
                io.Int.Input(
                    "people",
                    default=1,
                    min=1,
                    max=MOST_PEOPLE,
                    optional=True,  # as all that follows: a prompt saved before they came still runs
                    tooltip="How many people to follow. Each keeps its place in the pose, also when two cross. Where "
                    "somebody walks past in front of the lead, 2 holds on to the lead more surely than 1.",
                ),
                io.Combo.Input(
                    "lead",
                    options=list(LEADS),
                    default=LEADS[0],
                    optional=True,
                    tooltip="Who comes first, and who is taken where more people are in view. leftmost and rightmost: "
                    "where they are first seen. point: nearest to lead_x and lead_y.",
                ),
                io.Float.Input(
                    "lead_x", **share, tooltip="For lead point: 0 is the left edge of the picture, 1 the right."
                ),
                io.Float.Input("lead_y", **share, tooltip="For lead point: 0 is the upper edge, 1 the lower."),
                dropped_frames_input(),
            ],
            outputs=[
                sockets.PoseKeypoint.Output(
                    "pose", tooltip="The skeletons, the lead's first; Draw Pose makes the pose video of them."
                ),
                io.Mask.Output(
                    "mask",
                    tooltip="White where the people are, with soft edges; black where nobody is. Segment Character can "
                    "feather and grow it.",
                ),
                io.String.Output("report", tooltip="Frames, size, and where somebody was missing."),
            ],
            search_aliases=["openpose", "dwpose", "blazepose", "pose detection", "segment person"],
        )

    @classmethod
    def execute(
        cls, images, detector, smoothing, people=1, lead=LEADS[0], lead_x=0.5, lead_y=0.5, dropped_frames=""
    ) -> io.NodeOutput:
        memory.check_room("images", *images.shape[:3], memory.EXTRACT_POSE)
        dropped = frames_of(dropped_frames, len(images), "dropped_frames")
        point = np.array([lead_x * images.shape[2], lead_y * images.shape[1]])
        progress = progress_of(detection.steps_of(detector, len(images)))
        followed, remark = detection.detect(detector, images, Identities(people, lead, point), progress)
        if not followed.seen.any():
            raise detection.nobody(images, ", or take the pose from another detector")
        check_something_is_kept(followed.pose, dropped)
        filled, _ = poses.fill_gaps(poses.drop(followed.pose, dropped))
        pose = poses.smooth(filled, smoothing)
        masks.close_lapses(followed.mask.numpy(), detection.LAPSE)
        report = _report(followed.pose, filled, dropped, remark)
        confidence, missed = lead_of(followed.pose)
        shown = {"aa_pose": [preview.pose_player(pose, confidence, missed | dropped, images)]}
        return io.NodeOutput(pose.to_openpose(), followed.mask, report, ui=ui.PreviewText(report).as_dict() | shown)


NODES = [ExtractPose]
