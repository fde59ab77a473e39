"""Pose -> background motion: tracks and a camera path, without any picture of the background."""

from collections.abc import Callable
from pathlib import Path

import torch
from comfy_api.latest import io, ui

from ..models import pose_motion
from ..vision import footing, path_tracks
from ..vision.camera_path import CameraPath
from ..vision.pose import PoseTrack
from . import sockets
from .feedback import progress_of, ranges
from .socket_values import check_somebody, read_pose
from .tracks import motion_in_words

WEIGHTS = Path(__file__).resolve().parent.parent / "weights" / "pose_motion" / "pose_motion.safetensors"
TRUSTED, DOUBTED = 0.6, 0.35  # confidence from which a pose tells the motion, and below which it does not
ANKLES = [10, 13]

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


METHODS = {"learned": _learned, "geometry": _geometry}


def _track_of(pose: list[dict]) -> tuple[PoseTrack, str]:
    track, remark = read_pose(pose)
    if len(pose) < 2:
        raise ValueError("pose: it has one frame. Motion is what changes from a frame to the next: give two at least.")
    check_somebody(track, "pose", "Nothing tells how the background moves: is it the pose of the right video?")
    return track, remark


def _report(track: PoseTrack, path: CameraPath, method: str, remark: str) -> str:
    sure = float(path.confidence[1:].mean())
    if sure >= TRUSTED:
        verdict = "the pose tells the motion"
    elif sure >= DOUBTED:
        verdict = "the pose tells a part of the motion; look at the result before you use it"
    else:
        verdict = "the pose does NOT tell the motion. Take the tracks for a guess, or draw the camera by hand"
    lines = [
        f"{len(path)} frames of {path.width}×{path.height} px, read by {method}",
        f"The background moves {motion_in_words(path)}",
        f"Confidence {sure:.2f} of 1: {verdict}",
    ]
    doubtful = path.confidence < DOUBTED
    if doubtful.any() and sure >= DOUBTED:
        lines.append(f"In doubt on the way to frames {ranges(doubtful)} (the first frame is 0)")
    if not track.measured.seen[..., ANKLES].any():
        lines.append("No foot is seen in any frame, and feet tell most: use a pose that shows the whole person")
    if remark:
        lines.append(remark)
    empty, filled = ~track.present, track.present & ~track.measured.present
    if empty.any():
        lines.append(f"Nobody is there in frames {ranges(empty)}")
    if filled.any():
        lines.append(f"Filled frames, which tell nothing: {ranges(filled)}")
    return "\n".join(lines)


class PoseToTracks(sockets.Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}PoseToTracks",
            display_name="Pose to Tracks",
            category=sockets.BACKGROUND,
            description="Reads from the pose alone how the background must move behind the person: a planted foot "
            "stands still in the world, and a body that grows in the frame comes nearer.",
            inputs=[
                sockets.PoseKeypoint.Input(
                    "pose", tooltip="From Extract Pose and Mask or any OpenPose-style detector; best with both feet."
                ),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    tooltip="learned: a small network trained on synthetic people, the better one nearly always. "
                    "geometry: only the rule that one foot stands, nothing learned.",
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
    def execute(cls, pose, method="learned", points=path_tracks.DEFAULT, reseed=True) -> io.NodeOutput:
        track, remark = _track_of(pose)
        frames = len(pose)
        progress = progress_of(2 * frames)
        path = METHODS[method](track.measured, progress)
        tracks = path_tracks.carry_points(path, track, points, reseed, lambda done: progress(frames + done))
        report = _report(track, path, method, remark)
        return io.NodeOutput(tracks.to_host(), path, report, ui=ui.PreviewText(report))


NODES = [PoseToTracks]
