"""Points that a camera path carries: where they lie, when they are seen, where new ones come from."""

import numpy as np
import pytest
from animate_anywhere.vision.camera_path import CameraPath
from animate_anywhere.vision.path_tracks import carry_points
from animate_anywhere.vision.pose import PoseTrack

SIZE = (160, 90)


def pan(frames, dx):
    steps = np.zeros((frames - 1, 4))
    steps[:, 0] = dx
    return CameraPath.from_steps(steps, *SIZE)


def nobody(frames):
    return PoseTrack(np.zeros((frames, 1, 18, 3)), *SIZE)


def test_points_are_spread_over_the_frame_and_move_with_it():
    tracks = carry_points(pan(5, 3.0), nobody(5), 40, reseed=False)
    assert 30 <= tracks.path.shape[1] <= 50 and tracks.visible[0].all()
    np.testing.assert_allclose(np.diff(tracks.path, axis=0), np.broadcast_to([3.0, 0.0], (4, *tracks.path.shape[1:])))
    quarters = (tracks.path[0] > np.array(SIZE) / 2) @ [1, 2]
    assert set(quarters) == {0, 1, 2, 3}
    assert (tracks.width, tracks.height) == SIZE


def test_points_that_leave_are_not_visible():
    tracks = carry_points(pan(11, 8.0), nobody(11), 40, reseed=False)
    inside = (tracks.path[..., 0] >= 0) & (tracks.path[..., 0] < SIZE[0])
    assert np.array_equal(tracks.visible, inside) and not tracks.visible[-1].all()


def test_new_points_fill_what_the_camera_uncovers():
    kept = carry_points(pan(21, 8.0), nobody(21), 40, reseed=False)
    filled = carry_points(pan(21, 8.0), nobody(21), 40, reseed=True)
    assert kept.visible[-1].sum() == 0
    assert abs(int(filled.visible[-1].sum()) - 40) < 20
    gaps = np.linalg.norm(filled.path[-1][:, None] - filled.path[-1], axis=-1) + 1e9 * np.eye(filled.path.shape[1])
    assert gaps.min() > 8  # 0.6 of the 19 px between neighbours, less rounding of the grid


def test_points_behind_a_person_are_not_visible():
    keypoints = np.zeros((4, 1, 18, 3))
    keypoints[:, 0, [0, 2, 5, 10, 13]] = [(80, 10, 1), (65, 30, 1), (95, 30, 1), (70, 80, 1), (90, 80, 1)]
    tracks = carry_points(pan(4, 6.0), PoseTrack(keypoints, *SIZE), 200, reseed=False)
    at = tracks.path[tracks.visible]
    assert not ((np.abs(at[:, 0] - 80) < 8) & (at[:, 1] > 30) & (at[:, 1] < 80)).any()
    assert (~tracks.visible).any()


def test_it_can_be_stopped():
    def stop(frames):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        carry_points(pan(3, 1.0), nobody(3), 10, reseed=True, progress=stop)
