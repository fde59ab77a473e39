"""Walks of the stage before cameras that move and are known: what readers of poses are held against."""

import numpy as np
from animate_anywhere.training import pose_figures, rehearsal, stage

ROUTES = ("walk", "start", "stop", "sidestep")
FIRST = 2 * 10**9  # seeds never trained on
LEAST, RESTS = 0.7, 0.05  # px a frame of motion, of frames 96 to 160 px high: it moves from here, rests below
TRUNK, GROWS = [1, 8, 11], 0.25


def moving_walks(count: int, cameras: tuple[str, ...] = (), first: int = FIRST) -> list[rehearsal.Rehearsal]:
    """The first walks after seed ``first`` with a planted foot in the frame nearly always and a background that
    moves; ``cameras`` take turns, and without them are as often as the stage has them."""
    found, seed = [], first
    while len(found) < count:
        seed += 1
        fixed = {"camera": cameras[seed % len(cameras)]} if cameras else {}
        clip = rehearsal.rehearse(stage.draw_plan(seed, route=ROUTES[seed % len(ROUTES)], whole=True, **fixed))
        truth = pose_figures.fields(clip, clip.steps)[1]
        if clip.told and np.linalg.norm(truth, axis=-1).mean() > LEAST:
            found.append(clip)
    return found


def comers(count: int) -> list[tuple[rehearsal.Rehearsal, float]]:
    """The first walks before cameras that stand in which the body grows or shrinks much, and by how much: the logarithm
    of the trunk's growth."""
    found, seed = [], FIRST
    while len(found) < count:
        seed += 1
        clip = rehearsal.rehearse(stage.draw_plan(seed, route="walk", camera="stand", whole=True))
        rests = np.linalg.norm(pose_figures.fields(clip, clip.steps)[1], axis=-1).mean() < RESTS
        ends = clip.pose.keypoints[[0, -1], 0]
        if rests and clip.told and (ends[:, TRUNK, 2] > 0).all():
            trunk = np.linalg.norm(ends[:, 1, :2] - ends[:, [8, 11], :2].mean(1), axis=-1)
            if abs(np.log(trunk[1] / trunk[0])) > GROWS:
                found.append((clip, float(np.log(trunk[1] / trunk[0]))))
    return found


def cosines(clips: list[rehearsal.Rehearsal], read) -> np.ndarray:
    """How far the background goes the right way in each clip: 1 is right, 0 across, -1 the other way. ``read`` gives
    the steps [T-1, 4] px of a PoseTrack."""
    return np.array([pose_figures.alike(*pose_figures.fields(clip, read(clip.pose)), (0, 1, 2)) for clip in clips])
