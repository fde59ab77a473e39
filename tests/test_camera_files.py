"""Camera files of real videos become the cameras that the epipolar loss wants."""

import numpy as np
import pytest
import torch
from animate_anywhere.training import camera_files, videos
from animate_anywhere.vision import geometry

WIDTH, HEIGHT, COUNT = 1280, 720, 6
FIT = videos.cover(WIDTH, HEIGHT, ((96, 96),))


def poses(seed=0):
    """R [N, 3, 3] and t [N, 3], world to camera, of a camera that turns and travels; unit quaternions of R⁻¹."""
    rng = np.random.default_rng(seed)
    quaternions = np.array([0, 0, 0, 1.0]) + 0.1 * rng.normal(size=(COUNT, 4))
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    x, y, z, w = quaternions.T
    rotation = np.array(  # Rodrigues' formula in another form than the code's
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    ).transpose(2, 1, 0)
    return rotation, 0.3 * rng.normal(size=(COUNT, 3)), quaternions


def real_estate(path, rotation, translation, lens=(0.6, 0.6 * WIDTH / HEIGHT, 0.5, 0.48)):
    lines = ["https://www.youtube.com/watch?v=x"]
    for at, (turn, place) in enumerate(zip(rotation, translation)):
        numbers = [at * 33366, *lens, 0, 0, *np.column_stack([turn, place]).ravel()]
        lines.append(" ".join(f"{number:.12g}" for number in numbers))
    path.write_text("\n".join(lines) + "\n")
    return path


def seen(points, rotation, translation):
    """Where the source video of the lens above shows world ``points`` [P, 3], in shares of it: [N, P, 2]."""
    there = np.einsum("nij,pj->npi", rotation, points) + translation[:, None]
    return there[..., :2] / there[..., 2:] * [0.6, 0.6 * WIDTH / HEIGHT] + [0.5, 0.48]


def test_points_are_projected_to_where_the_clip_shows_them(tmp_path):
    rotation, translation, _ = poses()
    cameras = camera_files.read(real_estate(tmp_path / "a.txt", rotation, translation), WIDTH, HEIGHT)
    points = np.random.default_rng(1).normal([0, 0, 6], 1, (20, 3))
    found, depth = camera_files.fitted(cameras, FIT, WIDTH, HEIGHT)[:, None].project(torch.from_numpy(points))
    # Scaled to 171×96 px, of which the middle is left.
    expected = seen(points, rotation, translation) * [171, 96] - [37, 0]
    assert FIT == (171, 96, (37, 0, 96, 96))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    assert (depth > 0).all()


def test_matches_lie_on_their_epipolar_lines(tmp_path):
    rotation, translation, _ = poses(2)
    cameras = camera_files.read(real_estate(tmp_path / "a.txt", rotation, translation), WIDTH, HEIGHT)
    cameras = camera_files.fitted(cameras, FIT, WIDTH, HEIGHT)
    points = np.random.default_rng(3).normal([0, 0, 6], 1, (30, 3))
    pixels = torch.from_numpy(seen(points, rotation, translation) * [171, 96] - [37, 0])  # [N, P, 2]
    lines = geometry.epipolar_lines(cameras[:1, None], cameras[1:, None], pixels[:1])  # [N - 1, P, 3]
    distance = (lines[..., :2] * pixels[1:]).sum(-1) + lines[..., 2]
    assert distance.abs().max() < 1e-5  # px; twelve digits in the file


def test_humanvid_s_own_format_gives_the_same_cameras(tmp_path):
    rotation, translation, quaternions = poses(4)
    first = camera_files.read(real_estate(tmp_path / "a.txt", rotation, translation), WIDTH, HEIGHT)
    centres = -np.einsum("nji,nj->ni", rotation, translation)
    rows = [[at, *centres[at], *quaternions[at], 0.6, 0.9, 1] for at in range(COUNT)]
    (tmp_path / "b.txt").write_text("\n".join(" ".join(map(repr, map(float, row))) for row in rows))
    second = camera_files.read(tmp_path / "b.txt", WIDTH, HEIGHT)
    torch.testing.assert_close(second.rotation, first.rotation, rtol=0, atol=1e-9)
    torch.testing.assert_close(second.translation, first.translation, rtol=0, atol=1e-9)
    assert second.intrinsics[0].tolist() == [[0.6 * WIDTH, 0, 640], [0, 0.6 * WIDTH, 360], [0, 0, 1]]  # square pixels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("https://x\n", "there are no cameras in it"),
        ("https://x\n1 2 3\n", "line 2 has 3 numbers; a camera has 19"),
        ("1 0 0 0 0 0 0 1\n2 0 0 nothing 0 0 0 1\n", "line 2 holds something that is no number"),
        ("1 0 0 0 0 0 0 1\n2 0 0 nan 0 0 0 1\n", "camera 2 is not finite"),
        ("1 0 0 0 0 0 0 1\n2 0 0 0 0 0 0 0\n", "camera 2 has no valid rotation"),
        ("0 0.6 0 0.5 0.5 0 0 1 0 0 0 0 1 0 0 0 0 1 0\n", "camera 1 has no valid focal length"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path, text, message):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(camera_files.WrongCameras, match=rf"a\.txt: {message}"):
        camera_files.read(tmp_path / "a.txt", WIDTH, HEIGHT)
