"""Clips of the stage without their pictures: the pose, and how the background moves. Hundreds a second."""

from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from ..vision import camera_path
from ..vision.pose import PoseTrack
from .cameras import Camera
from .sight import Sight
from .stage import Plan, joints_of, pose_of, set_up, told

GRID = 7  # points of the background along either side of the frame


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """T frames. ``before``, ``after`` [T-1, N, 2] px: points of the background, spread evenly over each frame, whatever
    their depth, and where the next frame has them (NaN where they fall behind the camera)."""

    plan: Plan
    pose: PoseTrack
    camera: Camera
    before: ndarray
    after: ndarray
    planted: ndarray  # [T, 2] bool: the right and the left foot stand

    @property
    def told(self) -> bool:
        return told(self.pose, self.planted)

    @property
    def steps(self) -> ndarray:
        """[T-1, 4]: the motion of the background, as CameraPath.from_steps() takes it.

        It is the similarity nearest to the points, all of which count alike: that of the surfaces which fill the frame,
        mostly farther away than the person.
        """
        return camera_path.fit_steps(self.before, self.after, self.plan.width, self.plan.height)


def rehearse(plan: Plan) -> Rehearsal:
    """What stage.render_clip() would show, by geometry alone (see training.sight for the difference)."""
    setting = set_up(plan)
    actor, camera = setting.actor, setting.camera
    sight = Sight(setting.scene, camera, actor.pose["pelvis"] * [1, 1, 0])
    joints = joints_of(actor)
    pose = pose_of(joints, actor, camera, sight.hidden(camera.project(joints)[0]))
    before = np.broadcast_to(grid(plan), (plan.frames, GRID * GRID, 2))
    pixels = np.concatenate([before, np.ones((*before.shape[:2], 1))], axis=-1)
    rays = pixels @ camera.rays.transpose(0, 2, 1)
    points = camera.centre[:, None] + rays / sight.inverse_depth(before)[..., None]
    following = Camera(camera.K[1:], camera.R[1:], camera.t[1:], camera.width, camera.height)
    after, depth = following.project(points[:-1])
    after = np.where((depth > 0.05)[..., None], after, np.nan)
    return Rehearsal(plan, pose, camera, before[:-1], after, actor.planted)


def grid(plan: Plan) -> ndarray:
    """[N, 2] px: the middles of GRID × GRID parts of the frame."""
    share = (np.arange(GRID) + 0.5) / GRID
    return np.stack(np.meshgrid(share * plan.width, share * plan.height), axis=-1).reshape(-1, 2)
