"""Reading videos as a player shows them, cutting them where they are cut, and writing them without loss to the eye."""

from fractions import Fraction

import cv2
import film
import numpy as np
import pytest
from animate_anywhere.training import takes, videos


def read(path, fps, width=48, height=32):
    """Numbers of the frames that are read, by their brightness and by the reader's own count."""
    frames = list(videos.Reader(path, fps).frames(width, height))
    shown = [round(frame.picture.mean() / 3) for frame in frames]
    assert shown == [frame.index for frame in frames]
    return shown


@pytest.mark.parametrize(("fps", "stride"), [(30, 1), (24, 1), (16, 2), (10, 3), (7.6, 4)])
def test_every_nth_frame_is_read(tmp_path, fps, stride):
    film.write(tmp_path / "a.mp4", film.numbered(40), fps=30)
    assert read(tmp_path / "a.mp4", fps) == list(range(0, 40, stride))


def test_a_slower_video_is_read_as_it_is(tmp_path):
    film.write(tmp_path / "a.mp4", film.numbered(9), fps=8)
    assert read(tmp_path / "a.mp4", 16) == list(range(9))


def test_a_changing_rate_is_read_at_even_times(tmp_path):
    """Ten frames a second, with a pause from 0.4 s to 0.7 s and from then on 20 a second."""
    times = [0, 100, 200, 300, 400, 700, *range(800, 1800, 50)]
    film.write(tmp_path / "a.mkv", film.numbered(len(times)), times=times)
    reader = videos.Reader(tmp_path / "a.mkv", 20)
    assert reader.fps == pytest.approx(20, rel=0.02)
    shown = [frame.index for frame in reader.frames(48, 32)]
    assert [times[index] for index in shown] == pytest.approx(np.arange(len(shown)) * 50, abs=151)  # half the pause
    assert shown[-16:] == list(range(10, 26))


@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_rotation_is_applied(tmp_path, rotation):
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:16, :32] = 250  # upper left
    film.write(tmp_path / "a.mp4", np.stack([picture] * 3), rotation=rotation)
    reader = videos.Reader(tmp_path / "a.mp4", 10)
    upright = np.rot90(picture, k=rotation // 90)  # counterclockwise
    assert (reader.height, reader.width) == upright.shape[:2]
    shown = next(reader.frames(reader.width, reader.height)).picture
    assert np.abs(shown.astype(int) - upright).mean() < 3


def test_pixels_that_are_not_square_are_made_square(tmp_path):
    film.write(tmp_path / "a.mp4", film.numbered(3), shape=Fraction(4, 3))
    reader = videos.Reader(tmp_path / "a.mp4", 10)
    assert (reader.width, reader.height) == (64, 32)


def test_what_is_no_video_says_so(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video at all" * 100)
    with pytest.raises(videos.BrokenVideo, match="cannot be opened: Invalid data"):
        videos.Reader(tmp_path / "a.mp4", 10)


def test_written_clips_come_back_as_they_were(tmp_path):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (5, 8, 12, 3), dtype=np.uint8)
    frames = coarse.repeat(8, 1).repeat(8, 2)
    (tmp_path / "a.mp4").write_bytes(videos.write(frames, 12.5))
    back = videos.read(tmp_path / "a.mp4")
    error = np.square(back.astype(float) - frames).mean()
    assert 10 * np.log10(255**2 / error) > 40  # dB; the VAE keeps 35
    assert np.array_equal(videos.read(tmp_path / "a.mp4", count=1), back[:1])


def test_the_size_of_the_nearest_proportions_is_covered():
    sizes = ((160, 96), (96, 160), (128, 128))
    assert videos.cover(1920, 1080, sizes) == (171, 96, (5, 0, 160, 96))
    assert videos.cover(720, 1280, sizes) == (96, 171, (0, 5, 96, 160))
    assert videos.cover(560, 480, sizes).crop[2:] == (128, 128)


def test_a_video_that_would_be_blown_up_is_refused():
    with pytest.raises(videos.BrokenVideo, match="it is 320×240 px, and would be enlarged 4.2 times to fill 1360×768"):
        videos.cover(320, 240, ((1360, 768),))


def frames_of(pictures):
    return [videos.Frame(index, picture) for index, picture in enumerate(pictures)]


def panorama(count, speed, seed=0):
    """A camera that runs along a wall of large soft spots, ``speed`` px a frame."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (3, 3 + count * speed // 64, 3), dtype=np.uint8)
    wide = cv2.resize(coarse, (64 * coarse.shape[1], 128), interpolation=cv2.INTER_CUBIC)
    return [wide[:, at * speed : at * speed + 128] for at in range(count)]


def test_cuts_are_found_and_a_fast_camera_is_no_cut():
    pictures = panorama(9, 4, seed=1) + panorama(8, 20, seed=2) + panorama(7, 0, seed=3)
    assert takes.cuts(frames_of(pictures)) == [9, 17]


def test_shots_end_at_cuts_and_are_no_longer_than_memory_allows(monkeypatch):
    monkeypatch.setattr(takes, "LONGEST", 11)
    pictures = panorama(23, 4, seed=1) + panorama(3, 0, seed=2)
    found = [[frame.index for frame in shot] for shot in takes.shots(iter(frames_of(pictures)), 5)]
    assert [(shot[0], shot[-1]) for shot in found] == [(0, 9), (10, 19), (20, 22), (23, 25)]
    assert [index for shot in found for index in shot] == list(range(26))
