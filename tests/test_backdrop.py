"""Move Background: a picture that moves as a clip's background did, with and without depth."""

import comfy.model_management
import numpy as np
import pytest
import torch
from animate_anywhere.models.clips import make_shot
from animate_anywhere.nodes.backdrop import MoveBackground
from animate_anywhere.vision.background_tracks import track_background
from animate_anywhere.vision.camera_path import CameraPath
from animate_anywhere.vision.track_motion import of_camera, of_tracks
from animate_anywhere.vision.tracks import Tracks
from animate_anywhere.vision.view import sources
from comfy_extras.nodes_wan import WanAnimateToVideo
from scene import camera, film, psnr, wall
from toys import taehv_vae

WIDTH, HEIGHT, FRAMES = 320, 180, 10
SIZE = (HEIGHT, WIDTH)
WALL = wall(360, 640)
PICTURE = film(WALL, camera("still", 1, SIZE), SIZE)


def path_of(*steps) -> CameraPath:
    return CameraPath.from_steps(np.array(steps, float).reshape(-1, 4), WIDTH, HEIGHT)


def pan(frames: int = FRAMES, dx: float = -4.0) -> CameraPath:
    """The background goes left by 4 px a frame: the camera turns right."""
    return path_of(*[[dx, 0, 0, 0]] * (frames - 1))


def tracks_of(path: CameraPath, points: np.ndarray) -> Tracks:
    visible = np.ones((len(path), len(points)), bool)
    return Tracks(path.carry(points).astype(np.float32), visible, path.width, path.height)


@pytest.fixture(scope="module", params=["pan", "zoom", "roll"])
def filmed(request):
    """A clip, where its camera truly moves a pixel of frame 0 [T, 3, 3], and the tracks found in it."""
    path = camera(request.param, FRAMES, SIZE)
    frames = film(WALL, path, SIZE)
    return frames, np.linalg.inv(path) @ path[0], track_background(frames).tracks


def test_tracks_of_a_clip_move_the_picture_as_its_background_moved(filmed):
    """End-point error of the motion from frame to frame, over the whole picture: below 0.3 px."""
    _, truth, tracks = filmed
    motion = of_tracks(tracks)
    errors = []
    for t in range(FRAMES):
        x, y = sources(motion, t)
        there = np.stack([x, y, np.ones_like(x)], axis=-1) @ truth[t].T
        back = there[..., :2] / there[..., 2:]
        grid = np.stack(np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)), axis=-1)
        errors.append(back - grid)  # how far a pixel of frame t comes back from where it should be
    steps = np.linalg.norm(np.diff(errors, axis=0), axis=-1)
    assert steps.mean() < 0.1 and steps.max() < 0.3
    assert np.linalg.norm(errors, axis=-1).mean() < 0.3  # nor does it drift away over the clip


def test_the_moved_picture_is_the_clip_again(filmed):
    frames, _, tracks = filmed
    images, revealed, _ = MoveBackground.execute(frames[:1], tracks.to_host()).result
    assert images.shape == frames.shape and revealed.shape == frames.shape[:3]
    # Resampled once more than the clip. Where the borders came into view it is made up, and far off.
    assert psnr(images, frames, 1 - revealed) > 30
    assert psnr(images, frames, revealed) < 27


def test_a_still_path_leaves_the_picture_as_it_is():
    images, revealed, report = MoveBackground.execute(PICTURE, camera_path=path_of([0, 0, 0, 0], [0, 0, 0, 0])).result
    assert torch.allclose(images, PICTURE.expand(3, -1, -1, -1), atol=1e-5) and not revealed.any()
    assert "moves 0.00 px a frame" in report


def test_what_comes_into_view_is_marked_and_calm():
    images, revealed, report = MoveBackground.execute(PICTURE, camera_path=pan()).result
    for t in range(FRAMES):
        assert not revealed[t, :, : WIDTH - 4 * t].any() and revealed[t, :, WIDTH - 4 * t :].all()
    seam = (images[-1, :, -37] - images[-1, :, -36]).abs().mean()
    inside = (images[-1, :, 100] - images[-1, :, 101]).abs().mean()
    assert seam < 2 * inside  # no edge where the picture ends
    assert "Beyond the picture: 5.6%; most in frame 9, 11.2%" in report


def test_zoom_leaves_a_margin_to_move_into():
    images, revealed, _ = MoveBackground.execute(PICTURE, camera_path=pan(), zoom=1.5).result
    assert images.shape[1:3] == SIZE and not revealed.any()


def test_a_wider_picture_is_cropped_and_shows_its_sides_when_the_camera_goes_there():
    wide = film(WALL, camera("still", 1, SIZE), (HEIGHT, 460))
    images, revealed, _ = MoveBackground.execute(wide, camera_path=pan()).result
    assert images.shape == (FRAMES, HEIGHT, WIDTH, 3) and not revealed.any()
    assert torch.allclose(images[0], wide[0, :, 70:390], atol=1e-5)
    assert torch.allclose(images[-1], wide[0, :, 106:426], atol=1e-5)


def test_the_size_is_the_driving_videos_or_as_asked():
    large = torch.nn.functional.interpolate(PICTURE.movedim(-1, 1), (720, 1280)).movedim(1, -1)
    assert MoveBackground.execute(large, camera_path=pan(2))[0].shape == (2, HEIGHT, WIDTH, 3)
    images, revealed, _ = MoveBackground.execute(large, camera_path=pan(3), width=640, height=360).result
    assert images.shape == (3, 360, 640, 3)
    assert revealed[2, 0].sum() == 16  # twice 4 px a frame, at twice the size


def test_tracks_of_unknown_size_are_taken_to_be_the_pictures():
    tracks = tracks_of(pan(3), np.array([[60.0, 60], [200, 60], [120, 140]])).to_host()
    given = {key: tracks[key] for key in ("track_path", "track_visibility")}
    images = MoveBackground.execute(PICTURE, given)[0]
    assert torch.allclose(images[2, :, :-8], PICTURE[0, :, 8:], atol=1e-3)


@pytest.mark.parametrize("number", [1, 2, 3, 5, 8, 30])
def test_any_number_of_points_carries_the_picture_and_none_folds_it(number):
    points = np.random.default_rng(number).uniform((20, 20), (200, 160), (number, 2))
    motion = of_tracks(tracks_of(pan(), points))
    x, y = sources(motion, FRAMES - 1)
    assert np.abs(x - np.arange(WIDTH) - 36).max() < 0.6 and np.abs(y - np.arange(HEIGHT)[:, None]).max() < 0.6


def test_points_on_a_line_do_not_fold_the_picture():
    points = np.column_stack([np.linspace(20, 300, 14), np.full(14, 90.0)])
    x, _ = sources(of_tracks(tracks_of(pan(), points)), FRAMES - 1)
    assert (np.diff(x, axis=1) > 0.5).all()


def test_what_is_near_in_the_driving_video_moves_more_here_too():
    points = np.random.default_rng(0).uniform((20, 10), (300, 170), (40, 2))
    tracks = tracks_of(pan(), points)
    near = points[:, 1] > 130
    tracks.path[:, near, 0] -= np.arange(FRAMES)[:, None] * 1.0
    x, _ = sources(of_tracks(tracks), FRAMES - 1)
    moved = x - np.arange(WIDTH)
    assert moved[40, 100:200].mean() == pytest.approx(36, abs=1.5)
    assert moved[160, 100:200].mean() > 41


def test_frames_without_points_stand_and_are_reported():
    points = np.random.default_rng(0).uniform((20, 20), (300, 160), (10, 2))
    tracks = tracks_of(pan(), points)
    tracks.visible[4:6] = False
    images, _, report = MoveBackground.execute(PICTURE, tracks.to_host()).result
    assert "No track tells how to get to frames 4-5" in report
    assert torch.equal(images[4], images[3])
    expected = MoveBackground.execute(PICTURE, camera_path=pan())[0]
    assert psnr(images[6:], expected[6:], torch.ones(4, *SIZE)) > 35


def test_points_that_come_later_carry_on():
    points = np.random.default_rng(0).uniform((20, 20), (300, 160), (20, 2))
    tracks = tracks_of(pan(), points)
    tracks.visible[:4, 10:] = False
    tracks.visible[6:, :10] = False
    x, _ = sources(of_tracks(tracks), FRAMES - 1)
    assert np.abs(x - np.arange(WIDTH) - 36).max() < 0.5


def depth_of_a_pillar() -> torch.Tensor:
    depth = torch.full((1, HEIGHT, WIDTH, 3), 0.2)
    depth[:, :, 140:180] = 1.0
    return depth


def with_pillar() -> torch.Tensor:
    picture = PICTURE.clone()
    picture[:, :, 140:180] = torch.tensor([0.9, 0.1, 0.2])
    return picture


def red(frame) -> torch.Tensor:
    return (frame - torch.tensor([0.9, 0.1, 0.2])).abs().amax(dim=-1) < 0.05


def test_near_things_move_more_and_hide_what_is_behind():
    images, _, _ = MoveBackground.execute(
        with_pillar(), camera_path=pan(), depth=depth_of_a_pillar(), parallax=1.0
    ).result
    row = red(images[-1])[90].nonzero().flatten()
    # 36 px for the wall, which is the middle depth; twice that for the pillar.
    assert row.min() == pytest.approx(140 - 72, abs=3) and row.max() == pytest.approx(179 - 72, abs=3)
    expected = MoveBackground.execute(PICTURE, camera_path=pan())[0]
    assert psnr(images[-1:, :, :60], expected[-1:, :, :60], torch.ones(1, HEIGHT, 60)) > 35


def test_what_a_near_thing_hid_is_made_up_from_behind_and_marked():
    images, revealed, _ = MoveBackground.execute(
        with_pillar(), camera_path=pan(), depth=depth_of_a_pillar(), parallax=1.0
    ).result
    uncovered = slice(110, 142)  # between the pillar, which ends at 108, and where it ended on the wall, 144
    assert revealed[-1, 20:160, uncovered].float().mean() > 0.9
    assert red(images[-1])[20:160, uncovered].float().mean() < 0.1
    assert not revealed[-1, :, :60].any()


def test_a_flat_depth_and_no_parallax_change_nothing():
    plain = MoveBackground.execute(PICTURE, camera_path=pan())[0]
    flat = MoveBackground.execute(PICTURE, camera_path=pan(), depth=torch.full((1, 90, 160, 3), 0.5))[0]
    none = MoveBackground.execute(PICTURE, camera_path=pan(), depth=torch.rand(1, 9, 16, 3), parallax=0.0)[0]
    assert torch.allclose(flat, plain, atol=0.02) and torch.allclose(none, plain, atol=0.02)


def test_depth_keeps_roll_alike_at_all_depths():
    turned = path_of([0, 0, 0, 0.2])
    plain = MoveBackground.execute(PICTURE, camera_path=turned)[0]
    deep = MoveBackground.execute(PICTURE, camera_path=turned, depth=torch.rand(1, 9, 16, 3), parallax=1.0)[0]
    assert torch.allclose(deep, plain, atol=0.02)


def test_it_serves_a_shot_as_its_environment():
    images, revealed, _ = MoveBackground.execute(PICTURE, camera_path=pan(13), width=320, height=176).result
    shot = make_shot(torch.zeros(13, 176, 320, 3), images, mask=revealed)
    assert shot.has_environment and shot.length == 13 and torch.allclose(shot.background, images, atol=1e-6)


def test_tracks_that_do_not_tell_their_size_are_told():
    tracks = tracks_of(pan(), np.random.default_rng(0).uniform((0, 0), (320, 180), (20, 2))).to_host()
    known = MoveBackground.execute(PICTURE, tracks).result
    unknown = MoveBackground.execute(PICTURE, {**tracks, "width": None, "height": 0}).result
    assert torch.equal(known[0], unknown[0])
    line = "The tracks do not say the size of their video: taken to be 320×180 px, as the background"
    assert line in unknown[2] and line not in known[2]
    given = MoveBackground.execute(PICTURE, {**tracks, "width": 0, "height": 0}, width=320, height=180).result
    assert line not in given[2]


def test_of_one_frame_comes_one_picture():
    images, _, report = MoveBackground.execute(PICTURE, camera_path=path_of()).result
    assert torch.allclose(images, PICTURE, atol=1e-5) and "nothing moves" in report


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "^tracks, camera_path: connect one of them. Neither"),
        ({"tracks": {}, "camera_path": pan(2)}, "^tracks, camera_path: connect one of them. Both"),
        ({"background": PICTURE.expand(2, -1, -1, -1), "camera_path": pan(2)}, "^background: it has 2 frames"),
        ({"background": PICTURE[0], "camera_path": pan(2)}, "^background: expected frames"),
        ({"camera_path": pan(2), "depth": torch.rand(2, 90, 160, 3)}, "^depth: it has 2 frames"),
        ({"camera_path": pan(2), "depth": torch.rand(1, 90, 90, 3)}, "^depth: it is 90×90 px and background 320×180"),
        ({"camera_path": pan(2), "width": 64}, "^height: 64×0 is no size"),
        ({"tracks": tracks_of(pan(2), np.full((6, 2), 5000.0)).to_host()}, "^tracks: no visible point ever lies"),
    ],
)
def test_what_does_not_fit_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        MoveBackground.execute(**{"background": PICTURE} | given)


def test_a_camera_path_is_stretched_to_the_size_asked_for():
    motion = of_camera(pan(2), 640, 360)
    assert motion.homographies[1][0, 2] == pytest.approx(-8)


def test_the_artist_can_cancel():
    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        MoveBackground.execute(PICTURE, camera_path=pan(2))


def test_wan_animate_takes_the_moving_background():
    """The host's own node, with a small VAE of Wan's layout."""
    images, _, _ = MoveBackground.execute(PICTURE, camera_path=pan(13), width=128, height=64).result
    room = torch.zeros(13, 64, 128)
    room[:, :, 32:64] = 1
    text = [[torch.zeros(1, 1, 8), {}]]
    output = WanAnimateToVideo.execute(
        text, text, taehv_vae(), 128, 64, 13, 1, 5, 0, background_video=images, character_mask=room
    )
    positive, trim = output[0][0][1], output[3]
    assert positive["concat_latent_image"].shape == (1, 16, 4 + trim, 8, 16)
    mask = positive["concat_mask"][0, :, trim : trim + 3]  # in fours; what the host adds after frame 12 is left open
    assert mask[..., 4:8].all() and not mask[..., :4].any() and not mask[..., 8:].any()
