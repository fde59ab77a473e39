"""Films on disk: colours, counts, times and sound, read back by the host's own Load Video."""

from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from animate_anywhere.nodes import film
from comfy_api.latest import InputImpl

COLOURS = torch.tensor(
    [[255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 128, 128], [255, 255, 255], [0, 0, 0], [200, 100, 50], [30, 180, 220]]
)
both = pytest.mark.parametrize("kind", [film.H264, film.FFV1])


def encoding(kind, fps=16.0, crf=1):
    return film.Encoding(film.FORMATS[kind], film.rate(fps), crf)


def bars(height=64, width=128):
    """A frame of eight colours side by side, [1, H, W, 3]."""
    return (COLOURS / 255).repeat_interleave(width // 8, 0).expand(1, height, -1, -1)


def numbered(start, count, height=32, width=48):
    """Grey frames whose brightness is three times their number, of 255."""
    return (torch.arange(start, start + count) * 3 / 255).view(-1, 1, 1, 1).expand(-1, height, width, 3)


def joined(folder, lengths, how, audio=None, **more):
    """A film of numbered frames in parts of these lengths."""
    path = folder / f"film{how.format.ending}"
    start = 0
    with film.Film(path, how, audio, **more) as whole:
        for index, length in enumerate(lengths):
            part = folder / f"{index}{how.format.ending}"
            film.write(part, numbered(start, length), how)
            assert whole.append(part) == length
            start += length
        assert whole.close() == path.stat().st_size
    return path


def loaded(path):
    return InputImpl.VideoFromFile(str(path)).get_components()


def numbers(images):
    return [round(float(frame.mean()) * 255 / 3) for frame in images]


# --- colours


@both
@pytest.mark.parametrize("size", [(64, 128), (720, 1280)])  # players take untagged ones for BT.601 and BT.709
def test_colours_come_back(tmp_path, kind, size):
    path = tmp_path / "film"
    film.write(path, bars(*size), encoding(kind))
    seen = loaded(path).images[0][size[0] // 2, size[1] // 16 :: size[1] // 8] * 255
    assert (seen - COLOURS).abs().max() < 2  # of 255; Load Video itself rounds those of any file by up to 1


def test_ffv1_gives_every_value_back(tmp_path):
    frames = torch.rand(3, 48, 80, 3)
    film.write(tmp_path / "film", frames, encoding(film.FFV1))
    with av.open(str(tmp_path / "film")) as container:
        seen = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert np.array_equal(seen, (frames * 255).round().byte().numpy())


def test_h264_says_how_its_colours_are_meant(tmp_path):
    """In the stream itself, so that no player has to guess."""
    film.write(tmp_path / "film", bars(), encoding(film.H264))
    with av.open(str(tmp_path / "film")) as container:
        context = container.streams.video[0].codec_context
        tags = context.colorspace, context.color_range, context.color_primaries, context.color_trc
        assert (context.codec.name, context.pix_fmt, tags) == ("h264", "yuv420p", (1, 1, 1, 1))


def test_a_lower_crf_is_nearer(tmp_path):
    frames = torch.rand(3, 64, 64, 1).expand(-1, -1, -1, 3)
    errors = []
    for crf in (0, 18, 40):
        film.write(tmp_path / "film", frames, encoding(film.H264, crf=crf))
        errors.append(float((loaded(tmp_path / "film").images - frames).abs().mean()))
    assert errors == sorted(errors) and errors[0] < 0.7 * errors[2]


# --- joining


@both
@pytest.mark.parametrize("fps", [16.0, 23.976, 8.5])
def test_parts_become_one_film_of_all_their_frames(tmp_path, kind, fps):
    path = joined(tmp_path, [5, 13, 1, 7], encoding(kind, fps))
    video = loaded(path)
    assert numbers(video.images) == list(range(26))
    assert float(video.frame_rate) == pytest.approx(fps, abs=1e-3)
    with av.open(str(path)) as container:
        times = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
        assert times == pytest.approx([number / fps for number in range(26)], abs=6e-4)  # mkv counts milliseconds
        assert container.duration / av.time_base == pytest.approx(26 / fps, abs=2e-3)


@both
def test_packets_of_the_parts_are_copied(tmp_path, kind):
    def packets(path):
        with av.open(str(path)) as container:
            return [bytes(packet) for packet in container.demux(video=0) if packet.dts is not None]

    path = joined(tmp_path, [5, 4], encoding(kind))
    parts = [packet for index in (0, 1) for packet in packets(tmp_path / f"{index}{path.suffix}")]
    assert packets(path) == parts


def test_the_index_of_an_mp4_comes_first(tmp_path):
    """So that a page can play it while it loads."""
    first, last = (joined(tmp_path, [5], encoding(film.H264), index_first=way).read_bytes() for way in (True, False))
    assert first.index(b"moov") < first.index(b"mdat") and last.index(b"mdat") < last.index(b"moov")


@both
def test_metadata_is_what_load_video_and_the_page_read(tmp_path, kind):
    path = joined(tmp_path, [2], encoding(kind), metadata={"prompt": {"1": "ä"}})
    assert {key.lower(): value for key, value in loaded(path).metadata.items()}["prompt"] == '{"1": "\\u00e4"}'


# --- sound


def tone(seconds, rate=44_100, channels=2):
    wave = 0.5 * torch.sin(torch.arange(round(seconds * rate)) * 2 * torch.pi * 440 / rate)
    return {"waveform": wave.expand(1, channels, -1), "sample_rate": rate}


@both
@pytest.mark.parametrize(("rate", "channels"), [(44_100, 2), (48_000, 1), (12_345, 2)])
def test_sound_is_cut_to_the_length_of_the_film(tmp_path, kind, rate, channels):
    heard = loaded(joined(tmp_path, [5, 13, 6], encoding(kind), tone(9, rate, channels))).audio
    samples = heard["waveform"][0]
    assert samples.shape[0] == channels
    seconds = samples.shape[1] / heard["sample_rate"]
    assert seconds == pytest.approx(24 / 16, abs=2 * 1024 / 44_100)  # AAC comes in frames of 1024
    middle = samples[0, len(samples[0]) // 4 : len(samples[0]) // 2].numpy()
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert spectrum.argmax() * heard["sample_rate"] / len(middle) == pytest.approx(440, abs=5)


def test_flac_gives_the_sound_back(tmp_path):
    """But for 16 bits; and across the seams of the parts."""
    audio = tone(2)
    samples = loaded(joined(tmp_path, [5, 13, 6], encoding(film.FFV1), audio)).audio["waveform"][0]
    assert (samples - audio["waveform"][0, :, : samples.shape[1]]).abs().max() < 2**-14


def test_a_short_sound_ends_early(tmp_path):
    video = loaded(joined(tmp_path, [5, 5, 5], encoding(film.H264), tone(0.3)))
    assert len(video.images) == 15
    assert video.audio["waveform"].shape[-1] / 44_100 == pytest.approx(0.3, abs=2 * 1024 / 44_100)


def test_no_sound_at_all_is_none(tmp_path):
    silence = {"waveform": torch.zeros(1, 2, 0), "sample_rate": 44_100}
    assert len(loaded(joined(tmp_path, [5], encoding(film.H264), silence)).images) == 5


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (
            {"waveform": torch.zeros(0, 2, 10), "sample_rate": 44_100},
            "audio: there is no sound in it; leave the socket",
        ),
        ({"waveform": torch.zeros(1, 3, 10), "sample_rate": 44_100}, "audio: it has 3 channels"),
        ({"waveform": torch.zeros(1, 2, 10), "sample_rate": 0}, "audio: 0 is no sample rate"),
    ],
)
def test_sound_that_no_film_can_have_is_refused(audio, message):
    with pytest.raises(ValueError, match=message):
        film.waveform(audio)


# --- nothing by halves


def test_what_is_written_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "film.mp4"
    path.write_bytes(b"older")
    asked = []

    def stop():
        asked.append(1)
        if len(asked) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        film.write(path, numbered(0, 9), encoding(film.H264), stop)
    assert path.read_bytes() == b"older" and list(tmp_path.iterdir()) == [path]


def test_a_film_that_is_given_up_leaves_nothing(tmp_path):
    film.write(tmp_path / "part", numbered(0, 5), encoding(film.H264))
    with film.Film(tmp_path / "film.mp4", encoding(film.H264)) as whole:
        whole.append(tmp_path / "part")
    assert [path.name for path in tmp_path.iterdir()] == ["part"]


def test_rates_are_those_of_save_video():
    assert [film.rate(fps) for fps in (16, 23.976, 29.97)] == [16, Fraction(2997, 125), Fraction(2997, 100)]
