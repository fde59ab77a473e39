"""AUDIO of the host and of other packs: what becomes a film's sound, and what gets one error that names the socket."""

from collections.abc import Mapping

import av
import numpy as np
import pytest
import torch
from animate_anywhere.nodes import film
from animate_anywhere.nodes.audio import read_audio

RATE = 44_100


def sound(waveform, rate=RATE):
    return {"waveform": waveform, "sample_rate": rate}


class Lazy(Mapping):
    """As VideoHelperSuite gives it: filled when it is read, and for a film without sound then it raises."""

    def __init__(self, found):
        self.found = found

    def __getitem__(self, key):
        if isinstance(self.found, Exception):
            raise self.found
        return self.found[key]

    def __iter__(self):
        return iter(self.found)

    def __len__(self):
        return len(self.found)


SOFT = 0.5 * torch.sin(torch.arange(2 * RATE) / 20).expand(1, 2, -1)


@pytest.mark.parametrize(
    ("dtype", "scale", "offset"),
    [
        (torch.float16, 1, 0),
        (torch.bfloat16, 1, 0),
        (torch.float64, 1, 0),
        (torch.int16, 2**15, 0),
        (torch.int32, 2**31, 0),
        (torch.uint8, 2**7, 2**7),
    ],
)
def test_every_type_of_number_is_the_same_sound(dtype, scale, offset):
    heard = read_audio(sound((SOFT.double() * scale + offset).to(dtype)))["waveform"]
    assert heard.dtype == torch.float32
    assert (heard - SOFT).abs().max() < 0.01


def test_a_lazy_mapping_is_read():
    assert torch.equal(read_audio(Lazy(sound(SOFT)))["waveform"], SOFT)


@pytest.mark.parametrize("rate", [44_100.0, np.int64(44_100), torch.tensor(44_100)])
def test_a_rate_of_any_type_of_number_is_taken(rate):
    assert read_audio(sound(SOFT, rate))["sample_rate"] == RATE


def test_peaks_above_full_scale_are_clipped():
    assert float(read_audio(sound(3 * SOFT))["waveform"].abs().max()) == 1


def test_only_the_first_sound_of_a_batch_is_taken():
    assert read_audio(sound(torch.cat([SOFT, -SOFT])))["waveform"].shape == SOFT.shape


def with_one(value):
    waveform = SOFT.clone()
    waveform[0, 1, 7] = value
    return sound(waveform)


@pytest.mark.parametrize(
    ("audio", "told"),
    [
        (Lazy(Exception("VHS failed to extract audio from dance.mp4:\nno stream")), "VHS failed to extract audio"),
        (Lazy(OSError()), "cannot be read"),
        (Lazy({"waveform": SOFT}), "no sample_rate"),
        ({}, "no waveform"),
        ([SOFT, RATE], "found list"),
        ("song.mp3", "found str"),
        (SOFT, "found Tensor"),
        (sound(None), "found NoneType"),
        (sound(SOFT.numpy()), "found ndarray"),
        (sound(SOFT[0]), "found float32 2×88200"),
        (sound(SOFT[None]), "found float32 1×1×2×88200"),
        (sound(SOFT > 0), "found bool"),
        (sound(SOFT.to(torch.complex64)), "found complex64"),
        (sound(torch.zeros(1, 0, 5)), "0 channels"),
        *[(sound(torch.zeros(1, count, 5)), f"{count} channels") for count in (3, 4, 5, 7, 9)],
        (with_one(torch.nan), "not finite"),
        (with_one(torch.inf), "not finite"),
        (with_one(-torch.inf), "not finite"),
        (with_one(32_767.0), "reach 3.28e+04"),
        *[(sound(SOFT, rate), "no sample rate") for rate in (0, -1, torch.nan, torch.inf, 10**400)],
        *[(sound(SOFT, rate), "no sample rate") for rate in ("44100", None, True, [44_100])],
    ],
)
def test_what_is_no_sound_gets_one_error_that_says_what_to_do(audio, told):
    with pytest.raises(ValueError, match=r"(?s)^audio: .*(unconnected|leave the socket)") as caught:
        read_audio(audio)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", film.FORMATS)
@pytest.mark.parametrize("channels", [1, 2, 6, 8])
def test_all_channels_are_in_the_film(tmp_path, kind, channels):
    how = film.encoding(kind, 8.0, 18.0)
    film.write(tmp_path / "part", torch.zeros(8, 32, 32, 3), how)
    with film.Film(tmp_path / "film", how, sound(SOFT[:, :1].expand(1, channels, -1))) as whole:
        whole.append(tmp_path / "part")
        whole.close()
    with av.open(str(tmp_path / "film")) as container:
        assert container.streams.audio[0].codec_context.channels == channels


def test_encoding_a_long_sound_stops_within_a_second_of_it(tmp_path):
    """At one frame in 100 s, five frames have 500 s of sound."""
    how = film.encoding(film.H264, 0.01, 18.0)
    film.write(tmp_path / "part", torch.zeros(5, 32, 32, 3), how)
    asked = []

    def stop():
        asked.append(1)
        if len(asked) == 3:
            raise KeyboardInterrupt

    long = torch.zeros(1, 2, 8_000 * 500)
    whole = film.Film(tmp_path / "film", how, sound(long, 8_000), check=stop)
    with whole, pytest.raises(KeyboardInterrupt):
        whole.append(tmp_path / "part")
    assert whole._sound.written <= 2 * 8_000
