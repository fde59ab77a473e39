"""Walks of the stage before cameras that move and are known: what readers of poses are held against."""

import numpy as np
from animate_anywhere.training import pose_figures, rehearsal, stage

ROUTES = ("walk", "start", "stop", "sidestep")
FIRST = 2 * 10**9  # seeds never trained on
LEAST = 0.7  # px a frame of motion, of frames 96 to 160 px high


def moving_walks(count: int, cameras: tuple[str, ...]) -> list[rehearsal.Rehearsal]:
    """The first walks with a planted foot in the frame nearly always and a background that moves."""
    found, seed = [], FIRST
    while len(found) < count:
        seed += 1
        plan = stage.draw_plan(seed, route=ROUTES[seed % len(ROUTES)], camera=cameras[seed % len(cameras)], whole=True)
        clip = rehearsal.rehearse(plan)
        truth = pose_figures.fields(clip, clip.steps)[1]
        if clip.told and np.linalg.norm(truth, axis=-1).mean() > LEAST:
            found.append(clip)
    return found


def cosines(clips: list[rehearsal.Rehearsal], read) -> np.ndarray:
    """How far the background goes the right way in each clip: 1 is right, 0 across, -1 the other way. ``read`` gives
    the steps [T-1, 4] px of a PoseTrack."""
    return np.array([pose_figures.alike(*pose_figures.fields(clip, read(clip.pose)), (0, 1, 2)) for clip in clips])
