"""People of the stage as poses: whoever acts, filmed by a far camera or shown in one picture."""

from types import SimpleNamespace

import numpy as np
from animate_anywhere.training import motion, stage
from animate_anywhere.training.bodies import Body
from animate_anywhere.vision.pose import PoseTrack

FRAMES, FPS = 30, 15
TALL = 300  # px: how large a body appears
LANKY = Body(torso=0.26, thigh=0.27, shin=0.26, shoulder=0.095, upper_arm=0.18, forearm=0.16, head=0.95)
STOCKY = Body(torso=0.33, thigh=0.19, shin=0.18, shoulder=0.12, upper_arm=0.14, forearm=0.12, head=1.5)


def acted(body, route="walk", arms="swing", seed=4, frames=FRAMES):
    """Joints [T, 18, 3] and toes [T, 2, 3] (right, left) of a ``body`` in body heights, and which feet are planted."""
    rng = np.random.default_rng(seed)
    way = motion.draw_route(rng, route, (frames - 1) / FPS, body)
    pose = motion.perform(rng, body, way, {"r": arms, "l": arms}, FPS, frames)
    joints = stage.joints_of(SimpleNamespace(pose=pose, body=body))
    toes = np.stack([pose["ball_r"], pose["ball_l"]], axis=1)
    planted = np.stack([pose["planted_r"], pose["planted_l"]], axis=1)
    return joints / body.height, toes / body.height, planted


def filmed(points, azimuth=0.0, tall=TALL, at=(480.0, 420.0)):
    """Points [T, N, 3] as keypoints [T, N, 3] of a far camera, turned by ``azimuth`` rad from the front."""
    across = points @ [-np.sin(azimuth), np.cos(azimuth), 0]
    return np.stack([at[0] + tall * across, at[1] - tall * points[..., 2], np.ones_like(across)], axis=-1)


def track_of(keypoints, width=960, height=540, **parts):
    return PoseTrack(keypoints[:, None], width, height, **{name: part[:, None] for name, part in parts.items()})


def clip(body=LANKY, route="walk", azimuth=0.6, **film):
    return track_of(filmed(acted(body, route)[0], azimuth, **film))


def picture(body, azimuth=0.1, route="stand", **film):
    """One frame; seed 2 is somebody who stays on the seat."""
    return track_of(filmed(acted(body, route, seed=2, frames=1)[0], azimuth, **film))
