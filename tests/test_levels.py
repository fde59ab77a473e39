"""Drift control: known changes of light are read, whatever else is different, and taken back."""

import cv2
import numpy as np
import pytest
import scene
import torch
from animate_anywhere.vision import levels
from animate_anywhere.vision.levels import IDENTITY, Anchor, Level, apply, compare

SIZE = (180, 320)
GAIN, OFFSET = np.array([0.85, 1.1, 1.2]), np.array([0.02, -0.01, 0.03])
DRIFTED = Level(GAIN, OFFSET)  # 9.7 ΔE on the wall
SEEN = 0.5  # ΔE: a quarter of what is just seen


@pytest.fixture(scope="module")
def wall():
    return 0.8 * scene.wall(2 * SIZE[0], 2 * SIZE[1]) + 0.1  # room at both ends, so that drift clips next to nothing


@pytest.fixture(scope="module")
def truth(wall):
    return scene.film(wall, scene.camera("still", 1, SIZE), SIZE)[0]


def drifted(frame, level=DRIFTED):
    return apply(frame[None], level, level)[0]


def delta_e(one, other):
    lab = [cv2.cvtColor(np.float32(picture.numpy()), cv2.COLOR_RGB2LAB) for picture in (one, other)]
    return float(np.linalg.norm(lab[0] - lab[1], axis=-1).mean())


def left(reading, frame, truth):
    """ΔE of ``frame`` from the ``truth`` after the correction that was read."""
    return delta_e(drifted(frame, reading.level), truth)


def column(start, end):
    mask = torch.zeros(SIZE)
    mask[:, round(start * SIZE[1]) : round(end * SIZE[1])] = 1
    return mask


def with_person(frame, mask):
    return scene.step_in(frame[None], mask[None])[0]


# --- the same view


def test_a_known_change_of_light_is_read(truth):
    reading = compare(drifted(truth), truth)
    assert np.allclose(reading.level.gain, 1 / GAIN, atol=0.01)
    assert np.allclose(reading.level.offset, -OFFSET / GAIN, atol=0.005)
    assert reading.drift == pytest.approx(delta_e(drifted(truth), truth), rel=0.05) and reading.drift > 5
    assert reading.share == 1


def test_no_change_reads_as_none(truth):
    reading = compare(truth, truth)
    assert reading.drift == 0
    assert np.allclose(reading.level.gain, 1, atol=1e-6) and np.allclose(reading.level.offset, 0, atol=1e-6)


@pytest.mark.parametrize(
    ("spoil", "bound"),
    [
        (lambda frame: (frame + 0.05 * torch.randn(frame.shape, generator=torch.manual_seed(0))).clamp(0, 1), SEEN),
        (lambda frame: torch.from_numpy(cv2.GaussianBlur(frame.numpy(), (0, 0), 2)), SEEN),
        (lambda frame: frame.roll(1, dims=1), SEEN),
        (lambda frame: (frame * 255).round() / 255, SEEN),
    ],
    ids=["noise", "blur", "one px beside", "8 bits"],
)
def test_noise_softness_and_register_do_not_count(truth, spoil, bound):
    for clean in (truth, drifted(truth)):
        assert left(compare(spoil(clean), truth), clean, truth) < bound


@pytest.mark.parametrize("in_truth", [False, True])
def test_a_person_in_red_does_not_shift_the_reading(truth, in_truth):
    """A quarter of the frame that no mask tells of, in another place of the truth, too."""
    should = with_person(truth, column(0.6, 0.85)) if in_truth else truth
    for clean in (truth, drifted(truth)):
        seen = with_person(clean, column(0.3, 0.55))
        alone, crossed = compare(clean, truth), compare(seen, should)
        assert delta_e(drifted(clean, crossed.level), drifted(clean, alone.level)) < SEEN
        assert crossed.drift == pytest.approx(alone.drift, abs=SEEN)


def test_what_is_hidden_is_not_looked_at(truth):
    mask = column(0.2, 0.75)
    reading = compare(with_person(drifted(truth), mask), truth, mask)
    assert left(reading, drifted(truth), truth) < SEEN and reading.share == pytest.approx(0.45, abs=0.02)


def test_a_plain_picture_tells_where_it_lies_and_no_contrast():
    plain = torch.full((*SIZE, 3), 0.5)
    reading = compare(drifted(plain), plain)
    assert np.allclose(reading.level.gain, 1, atol=1e-3) and left(reading, drifted(plain), plain) < 0.01


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_black_and_white_are_what_they_are(value):
    plain = torch.full((*SIZE, 3), value)
    assert compare(plain, plain).drift == 0


def test_clipped_lights_do_not_count(truth):
    """A frame that is too bright has lost its lights; the rest says by how much."""
    truth = (1.2 * truth + 0.1).clamp(0, 1)
    bright = drifted(truth, Level(np.full(3, 1.6), np.zeros(3)))
    assert 0.1 < float((bright == 1).float().mean()) < 0.5
    assert np.allclose(compare(bright, truth).level.gain, 1 / 1.6, atol=0.02)


def test_gains_stay_within_reason(truth):
    faint = Level(np.full(3, 0.3), np.zeros(3))
    assert (compare(drifted(truth, faint), truth).level.gain <= levels.GAINS[1]).all()


def test_pictures_with_nothing_in_common_are_told(truth):
    other = torch.from_numpy(0.8 * scene.wall(*SIZE, seed=5) + 0.1)
    assert compare(other, truth) is None
    assert compare(truth, truth, torch.ones(SIZE)) is None


def test_pictures_of_two_sizes_are_refused(truth):
    with pytest.raises(ValueError, match="must be one view"):
        compare(truth[:-2], truth)


# --- the first picture, from elsewhere


@pytest.mark.parametrize("kind", ["pan", "zoom", "roll"])
def test_the_first_picture_is_found_again(wall, kind):
    video = scene.film(wall, scene.camera(kind, 40, SIZE), SIZE)
    anchor = Anchor(video[0])
    for t in (0, 39):
        seen = with_person(drifted(video[t]), column(0.3, 0.55))
        reading = anchor.read(seen)
        assert left(reading, drifted(video[t]), video[t]) < SEEN
        assert reading.drift == pytest.approx(delta_e(drifted(video[t]), video[t]), abs=SEEN)


def test_a_person_in_the_first_picture_is_kept_out(wall):
    video = scene.film(wall, scene.camera("pan", 40, SIZE), SIZE)
    first, later = column(0.3, 0.6), column(0.5, 0.8)
    anchor = Anchor(with_person(video[0], first), first)
    reading = anchor.read(with_person(drifted(video[39]), later), later)
    assert left(reading, drifted(video[39]), video[39]) < SEEN


def test_a_place_out_of_view_is_no_reading(wall, truth):
    anchor = Anchor(torch.from_numpy(wall[: SIZE[0], : SIZE[1]]))
    assert anchor.read(torch.from_numpy(wall[SIZE[0] :, SIZE[1] :])) is None
    assert anchor.read(torch.full((*SIZE, 3), 0.5)) is None


def test_a_plain_backdrop_is_compared_as_it_lies(truth):
    light = torch.linspace(0.5, 0.6, SIZE[1])[None, :, None].expand(*SIZE, 3)
    plain = light + 0.02 * torch.randn(*SIZE, 3, generator=torch.manual_seed(0))
    anchor = Anchor(plain)
    assert left(anchor.read(with_person(drifted(plain), column(0.3, 0.55))), drifted(light), light) < SEEN
    assert anchor.read(truth) is None


# --- the way back


def test_identities_change_no_bit(truth):
    video = truth[None].repeat(3, 1, 1, 1)
    assert apply(video, IDENTITY, IDENTITY) is video
    assert torch.equal(apply(video, IDENTITY, DRIFTED)[0], truth)


def test_corrections_fade(truth):
    video = truth[None].repeat(5, 1, 1, 1)
    faded = apply(video, IDENTITY, DRIFTED)
    for t in range(5):
        assert torch.allclose(faded[t], drifted(truth, DRIFTED.towards(t / 4)), atol=1e-6)
    assert faded.min() >= 0 and faded.max() <= 1


def test_the_result_stays_in_range():
    bright = apply(torch.rand(2, 4, 4, 3), Level(np.full(3, 2.0), np.zeros(3)), Level(np.ones(3), np.full(3, -0.5)))
    assert bright[0].max() == 1 and bright[1].min() == 0


def test_light_is_that_of_the_standard():
    values = torch.tensor([0.0, 0.04045, 0.5, 1.0], dtype=torch.float64)
    expected = torch.tensor([0.0, 0.04045 / 12.92, (0.555 / 1.055) ** 2.4, 1.0], dtype=torch.float64)
    assert torch.allclose(levels.to_linear(values), expected, rtol=1e-12)
    ramp = torch.linspace(0, 1, 1001, dtype=torch.float64)
    assert torch.allclose(levels.to_srgb(levels.to_linear(ramp)), ramp, atol=1e-7)


def test_a_level_is_kept_as_json_and_taken_in_part():
    again = Level.from_json(DRIFTED.to_json())
    assert (again.gain == GAIN).all() and (again.offset == OFFSET).all()
    assert DRIFTED.towards(0).is_identity and DRIFTED.towards(1) is DRIFTED
    assert np.allclose(DRIFTED.towards(0.5).gain, (1 + GAIN) / 2)
