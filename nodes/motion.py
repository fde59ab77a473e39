"""Pose -> background motion: tracks and a camera path, without any picture of the background."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from comfy_api.latest import io, ui

from ..models import pose_motion
from ..vision import footing, path_tracks
from ..vision.camera_path import CameraPath
from ..vision.planted_feet.chosen_camera import follow_person, turn_with_person
from ..vision.planted_feet.estimate import Estimate, estimate_scene
from ..vision.pose import PoseTrack
from . import sockets
from .feedback import progress_of
from .motion_report import DOUBTED, report_motion
from .socket_values import check_somebody, read_pose

WEIGHTS = Path(__file__).resolve().parent.parent / "weights" / "pose_motion" / "pose_motion.safetensors"

Progress = Callable[[int], None]


def _learned(track: PoseTrack, progress: Progress) -> CameraPath:
    """By the motion head; ``progress`` counts frames."""
    if not WEIGHTS.is_file():
        raise ValueError(
            f"method: learned needs {WEIGHTS.name} in the pack's folder weights/pose_motion, and it is not there. Get "
            "the pack again with all its files, or choose geometry."
        )
    network = pose_motion.load(WEIGHTS)
    motion = network.read(torch.from_numpy(track.keypoints), track.width, track.height, progress)
    steps, confidence = (part.double().numpy() for part in (motion.steps, motion.confidence))
    return CameraPath.from_steps(steps, track.width, track.height, confidence)


def _geometry(track: PoseTrack, progress: Progress) -> CameraPath:
    """By the feet alone; ``progress`` counts frames."""
    frames, crowd = track.keypoints.shape[:2]
    return footing.camera_path(track, lambda people: progress(people * frames // crowd))


AUTO = "auto"
METHODS = {AUTO: None, "learned": _learned, "geometry": _geometry}  # auto is planted_feet's estimate
FROM_POSE, STANDS, FOLLOWS, TURNS = "from the pose", "stands", "follows the person", "turns with the person"
CAMERAS = (FROM_POSE, STANDS, FOLLOWS, TURNS)
GROWTHS = {"comes nearer": 0.0, "half": 0.5, "zoom": 1.0}  # of the body's growth, taken for a zoom
FACING = "as the person faces"
DIRECTIONS = {FACING: None, "to the left": "left", "to the right": "right", "nearer": "nearer", "away": "away"}


def _chosen_path(
    track: PoseTrack, found: Estimate, camera: str, depth: float | None, growth: float, direction: str | None
) -> tuple[CameraPath, str]:
    """The path of a ``camera`` that the artist chose, and what its speed is read from."""
    steps, source = np.zeros_like(found.steps), ""
    if camera == FOLLOWS:
        steps, source = follow_person(found, track, direction, depth)
    elif camera == TURNS:
        steps, source = turn_with_person(found, track, direction)
    steps[:, 2] += growth * found.growth
    sure = np.full(len(steps), 1.0 if camera == STANDS or source else DOUBTED / 2)
    return CameraPath.from_steps(steps, track.width, track.height, sure), source


def _estimated_path(track: PoseTrack, found: Estimate, growth: float) -> CameraPath:
    """The path that the planted feet tell; ``growth``: the share of the body's that is a zoom."""
    steps = found.steps.copy()
    steps[:, 2] = np.where(steps[:, 2] != 0, steps[:, 2], growth * found.growth)
    return CameraPath.from_steps(steps, track.width, track.height, found.confidence)


def read_by_feet(track: PoseTrack, progress: Progress) -> CameraPath:
    """The path that the planted feet of ``track`` tell, standing where they tell none; ``progress``
    counts frames."""
    frames, crowd = track.keypoints.shape[:2]
    found = estimate_scene(track, None, lambda people: progress(people * frames // crowd))
    return _estimated_path(track, found, GROWTHS["comes nearer"])


def _track_of(pose: list[dict]) -> tuple[PoseTrack, str]:
    track, remark = read_pose(pose)
    if len(pose) < 2:
        raise ValueError("pose: it has one frame. Motion is what changes from a frame to the next: give two at least.")
    check_somebody(track, "pose", "Nothing tells how the background moves: is it the pose of the right video?")
    return track, remark


class PoseToTracks(sockets.Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}PoseToTracks",
            display_name="Pose to Tracks",
            category=sockets.BACKGROUND,
            description="Reads from the pose alone how the background must move behind the person: a planted foot "
            "stands still in the world. Where the pose does not show that the camera moves, the background stands.",
            inputs=[
                sockets.PoseKeypoint.Input(
                    "pose", tooltip="From Extract Pose and Mask or any OpenPose-style detector; best with both feet."
                ),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    tooltip="auto: the background moves only where planted feet show it, and stands otherwise; right "
                    "for real footage. learned: a small network trained on synthetic people. geometry: only the rule "
                    "that one foot stands. The last two invent motion on real footage.",
                ),
                io.Int.Input(
                    "points",
                    default=path_tracks.DEFAULT,
                    min=path_tracks.FEWEST,
                    max=path_tracks.MOST,
                    tooltip="About how many points are spread over the frame.",
                ),
                io.Boolean.Input(
                    "reseed",
                    default=True,
                    tooltip="New points appear where the camera uncovers more of the place. Turn it off for "
                    "WanMoveTrackToVideo, which only knows points that the first frame shows.",
                ),
                io.Combo.Input(
                    "camera",
                    options=list(CAMERAS),
                    default=FROM_POSE,
                    optional=True,  # as all that follows: a prompt saved before they came still runs
                    tooltip="What the camera does where you know it better than the pose. stands: no motion. follows "
                    "the person: it goes along, also with somebody who walks on the spot or whose feet are not in "
                    "view. turns with the person: it pans from one place, and nothing comes nearer.",
                ),
                io.Float.Input(
                    "depth",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    optional=True,
                    advanced=True,
                    tooltip="How much of the ground's motion the background has: 1 is a pan or a wall right behind the "
                    "person, 0.35 a usual background of a camera that goes along; higher moves more. 0: from the pose.",
                ),
                io.Combo.Input(
                    "growth",
                    options=list(GROWTHS),
                    default="comes nearer",
                    optional=True,
                    advanced=True,
                    tooltip="What a body that grows in the frame is: somebody who comes nearer (the background keeps "
                    "its size), half of it a zoom, or all of it.",
                ),
                io.Combo.Input(
                    "direction",
                    options=list(DIRECTIONS),
                    default=FACING,
                    optional=True,
                    advanced=True,
                    tooltip="Where somebody walks to who walks on the spot or without feet in view; for a camera that "
                    "follows or turns.",
                ),
            ],
            outputs=[
                io.Tracks.Output(
                    "tracks", tooltip="Points of the background, for Draw Tracks, Move Background and Wan-Move's nodes."
                ),
                sockets.CameraPath.Output(
                    "camera_path", tooltip="How the camera moves the whole background, for Move Background."
                ),
                io.String.Output("report", tooltip="How the background moves, and how far the pose tells it."),
            ],
            search_aliases=["camera motion", "background motion", "wan move tracks", "camera from pose"],
        )

    @classmethod
    def execute(
        cls,
        pose,
        method=AUTO,
        points=path_tracks.DEFAULT,
        reseed=True,
        camera=FROM_POSE,
        depth=0.0,
        growth="comes nearer",
        direction=FACING,
    ) -> io.NodeOutput:
        track, remark = _track_of(pose)
        share = depth or None
        frames, crowd = track.keypoints.shape[:2]
        progress = progress_of(3 * frames)
        found = estimate_scene(track, share, lambda people: progress(people * frames // crowd))
        source = ""
        if camera != FROM_POSE:
            path, source = _chosen_path(track, found, camera, share, GROWTHS[growth], DIRECTIONS[direction])
        elif method == AUTO:
            path = _estimated_path(track, found, GROWTHS[growth])
        else:
            path = METHODS[method](track.measured, lambda done: progress(frames + done))
        tracks = path_tracks.carry_points(path, track, points, reseed, lambda done: progress(2 * frames + done))
        chosen = None if camera == FROM_POSE else camera
        lines = [report_motion(track, path, found, method, chosen, source), remark]
        report = "\n".join(filter(None, lines))
        return io.NodeOutput(tracks.to_host(), path, report, ui=ui.PreviewText(report))


NODES = [PoseToTracks]
