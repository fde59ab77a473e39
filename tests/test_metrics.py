import cv2
import numpy as np
import pytest
import scipy.linalg
import torch
from animate_anywhere.vision import metrics

SIZE, FRAMES = 96, 7


@pytest.fixture(scope="module")
def scene():
    """A smooth picture [192, 192, 3] with detail everywhere, larger than the camera sees."""
    rng = np.random.default_rng(0)
    noise = [cv2.GaussianBlur(rng.normal(size=(192, 192, 3)), (0, 0), width) * width for width in (3, 8)]
    return np.clip(0.5 + 0.5 * sum(noise), 0, 1).astype(np.float32)


def film(scene, homographies):
    """What a camera sees whose pixels are ``homographies`` times those of the scene's middle."""
    corner = np.array([[1, 0, 48], [0, 1, 48], [0, 0, 1]], float)
    maps = [corner @ np.linalg.inv(move) for move in homographies]
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return torch.from_numpy(np.stack([cv2.warpPerspective(scene, to, (SIZE, SIZE), flags=flags) for to in maps]))


def motion(t, shift=(1.5, -1.0), zoom=0.01):
    scale = 1 + zoom * t
    middle = np.array([SIZE / 2, SIZE / 2])
    moved = middle - scale * middle + np.array(shift) * t
    return np.array([[scale, 0, moved[0]], [0, scale, moved[1]], [0, 0, 1]])


def carried(points, homographies):
    """[T, P, 2]: where the motion takes pixels that count from the corner."""
    ends = [np.column_stack([points - 0.5, np.ones(len(points))]) @ move.T for move in homographies]
    return np.stack([end[:, :2] / end[:, 2:] for end in ends]) + 0.5


@pytest.fixture(scope="module")
def moving(scene):
    """Video, points, their true paths and where these are inside."""
    moves = [motion(t) for t in range(FRAMES)]
    video = film(scene, moves)
    points = metrics.corners(video[0], np.ones((SIZE, SIZE), np.uint8))
    paths = carried(points, moves)
    inside = ((paths > 8) & (paths < SIZE - 8)).all(-1)
    return video, points, paths, inside


NOTHING = np.zeros((FRAMES, SIZE, SIZE), np.uint8)


def test_psnr_of_a_known_error():
    truth = torch.full((2, 8, 8, 3), 0.5)
    assert metrics.psnr(truth + 0.1, truth) == pytest.approx(20)


def test_psnr_of_equal_videos_is_a_number():
    truth = torch.rand(2, 8, 8, 3)
    assert metrics.psnr(truth, truth) == metrics.HIGHEST


def test_psnr_inside_a_mask_does_not_see_what_is_outside():
    truth, mask = torch.full((1, 8, 8, 3), 0.5), torch.zeros(1, 8, 8)
    video = truth.clone()
    mask[:, :4] = 1
    video[:, :4] += 0.1
    video[:, 4:] = 0
    assert metrics.psnr(video, truth, mask) == pytest.approx(20)


def test_psnr_inside_an_empty_mask_is_no_number():
    assert np.isnan(metrics.psnr(torch.rand(1, 8, 8, 3), torch.rand(1, 8, 8, 3), torch.zeros(1, 8, 8)))


def test_videos_of_two_lengths_are_refused():
    with pytest.raises(ValueError, match=r"video: it is \(2, 16, 16, 3\) and the truth \(3, 16, 16, 3\)"):
        metrics.psnr(torch.rand(2, 16, 16, 3), torch.rand(3, 16, 16, 3))


def test_ssim_is_that_of_wang_et_al():
    """Window by window, weighted means and deviations written out."""
    rng = np.random.default_rng(1)
    a, b = rng.random((2, 13, 12, 3))
    place = np.arange(11) - 5
    weight = np.exp(-(place[:, None] ** 2 + place**2) / (2 * 1.5**2))
    weight /= weight.sum()
    values = []
    for y, x, c in np.ndindex(3, 2, 3):
        one, other = a[y : y + 11, x : x + 11, c], b[y : y + 11, x : x + 11, c]
        mean = [(weight * part).sum() for part in (one, other)]
        spread = [(weight * (part - m) ** 2).sum() for part, m in zip((one, other), mean)]
        joint = (weight * (one - mean[0]) * (other - mean[1])).sum()
        light = (2 * mean[0] * mean[1] + 1e-4) / (mean[0] ** 2 + mean[1] ** 2 + 1e-4)
        values.append(light * (2 * joint + 9e-4) / (sum(spread) + 9e-4))
    found = metrics.ssim(torch.from_numpy(a[None]), torch.from_numpy(b[None]))
    assert found == pytest.approx(np.mean(values), abs=1e-9)


def test_colours_are_compared_whatever_their_place():
    picture = torch.rand(12, 12, 3)
    mixed = picture.flatten(0, 1)[torch.randperm(144)].unflatten(0, (12, 12))
    everywhere = torch.ones(12, 12)
    assert metrics.colour_error(mixed[None], everywhere[None], picture, everywhere) == pytest.approx(0, abs=1e-5)


def test_a_darker_person_is_as_far_as_its_lightness():
    def grey(value):
        return torch.full((1, 8, 8, 3), value)

    lightness = [116 * ((value + 0.055) / 1.055) ** (2.4 / 3) - 16 for value in (0.6, 0.4)]  # CIELAB of sRGB greys
    mask = torch.ones(1, 8, 8)
    found = metrics.colour_error(grey(0.4), mask, grey(0.6)[0], mask[0])
    assert found == pytest.approx(lightness[0] - lightness[1], abs=0.2)  # OpenCV interpolates its table


def test_blocks_show_and_a_slope_does_not():
    slope = torch.linspace(0, 1, 64).expand(2, 64, 64)[..., None].expand(-1, -1, -1, 3).clone()
    slope = (slope + slope.transpose(1, 2)) / 2
    assert metrics.block_pattern(slope, 8) == pytest.approx(1, abs=1e-3)
    tiles = (torch.arange(64) // 8 % 2 * 0.05)[None, :, None, None]
    assert metrics.block_pattern(slope + tiles, 8) > 2


def test_blocks_of_a_small_figure_show_inside_of_it():
    """Where most of the picture has no pattern, the mean over the whole hides that of the figure."""
    rng = torch.Generator().manual_seed(0)
    video = torch.rand(2, 64, 64, 1, generator=rng).expand(-1, -1, -1, 3).clone() * 0.1
    figure = torch.zeros(2, 64, 64)
    figure[:, 20:36, 20:36] = 1
    tiles = (torch.arange(64) // 8 % 2 * 0.2)[None, :, None, None] * figure[..., None]
    assert metrics.block_pattern(video + tiles, 8) < 1.5 < metrics.block_pattern(video + tiles, 8, figure)
    assert metrics.block_pattern(video, 8, figure) == pytest.approx(1, abs=0.3)
    assert np.isnan(metrics.block_pattern(video, 8, 0 * figure))


def test_frechet_distance_is_the_textbook_formula():
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(40, 5)), rng.normal(size=(50, 5)) @ rng.normal(size=(5, 5)) + 1
    means, spreads = zip(*((part.mean(0), np.cov(part.T)) for part in (first, second)))
    root = scipy.linalg.sqrtm(spreads[0] @ spreads[1]).real
    expected = ((means[0] - means[1]) ** 2).sum() + np.trace(spreads[0] + spreads[1] - 2 * root)
    found = metrics.frechet_distance(torch.from_numpy(first), torch.from_numpy(second))
    assert found == pytest.approx(expected, rel=1e-6)


def test_the_true_video_has_next_to_no_error(moving):
    video, points, paths, inside = moving
    found = metrics.follow(video, points, NOTHING)
    assert inside.sum() > 100
    assert metrics.end_point_error(found, paths, inside) < 0.2  # px; it goes up to 11 px
    assert metrics.direction(found, paths, inside) > 0.99


def test_a_video_that_stands_is_exactly_still(moving):
    video, points, paths, inside = moving
    found = metrics.follow(video[:1].expand(FRAMES, -1, -1, -1), points, NOTHING)
    still = metrics.end_point_error(metrics.still(paths), paths, inside)
    assert metrics.end_point_error(found, paths, inside) == pytest.approx(still, abs=1e-6)
    assert metrics.direction(found, paths, inside) == pytest.approx(0, abs=1e-6)


def test_a_blurred_video_is_followed(moving):
    video, points, paths, inside = moving
    late = torch.from_numpy(np.stack([cv2.GaussianBlur(frame.numpy(), (0, 0), 2.5) for frame in video[1:]]))
    found = metrics.follow(torch.cat([video[:1], late]), points, NOTHING)
    still = metrics.end_point_error(metrics.still(paths), paths, inside)
    assert metrics.end_point_error(found, paths, inside) < 0.25 * still


def test_a_video_that_dissolves_counts_as_still(moving):
    video, points, paths, inside = moving
    found = metrics.follow(torch.cat([video[:1], torch.full_like(video[1:], 0.5)]), points, NOTHING)
    still = metrics.end_point_error(metrics.still(paths), paths, inside)
    assert metrics.end_point_error(found, paths, inside) == pytest.approx(still, rel=0.05)


def test_a_person_who_walks_by_moves_nothing(moving):
    """A dark figure crosses the still background the other way; it is masked, as every person is."""
    video, points, _, _ = moving
    still = video[:1].repeat(FRAMES, 1, 1, 1)
    hidden = NOTHING.copy()
    for t in range(FRAMES):
        still[t, 20:80, 70 - 8 * t : 84 - 8 * t] = 0.1
        hidden[t, 17:83, 67 - 8 * t : 87 - 8 * t] = 1
    points = points[hidden[0][tuple(points.astype(int).T[::-1])] == 0]
    found = metrics.follow(still, points, hidden)
    seen = np.stack([hidden[t][tuple(points.astype(int).T[::-1])] == 0 for t in range(FRAMES)])
    gone = np.linalg.norm(found - points, axis=-1)[seen]
    assert np.mean(gone) < 0.2


def test_the_opposite_direction_is_minus_one(moving):
    _, _, paths, inside = moving
    assert metrics.direction(2 * paths[:1] - paths, paths, inside) == pytest.approx(-1)
