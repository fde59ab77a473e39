"""A film on disk that is made part by part: each window a file of its own, and one file of them all.

The parts are encoded once. Their packets are copied into the film, which so has the same frames whether or not the work
was interrupted between two of them.
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import torch
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from torch import Tensor

from ..models.whole_file import sync, whole
from .audio import waveform

RESAMPLED = 48_000  # Hz, for sound at a rate that the codec does not know
FPS_RANGE = (0.01, 1000.0)
CRF_RANGE = (0.0, 51.0)


@dataclass(frozen=True)
class Format:
    """A codec in its container."""

    ending: str
    container: str  # FFmpeg's name of it
    codec: str
    pixels: str  # FFmpeg's name of the pixel format
    sound: str  # codec
    bytes_a_pixel: float  # of a lively film, at ``crf`` 18 where it has one


H264, FFV1 = "h264 mp4", "ffv1 mkv"
FORMATS = {
    H264: Format(".mp4", "mp4", "libx264", "yuv420p", "aac", 0.06),
    FFV1: Format(".mkv", "matroska", "ffv1", "bgr0", "flac", 2.0),
}


@dataclass(frozen=True)
class Encoding:
    """How frames become a film."""

    format: Format
    rate: Fraction  # frames a second
    crf: float  # of h264: 0 is without loss but for the coarser colours of yuv420p, 51 the worst

    def __str__(self) -> str:
        crf = f", crf {self.crf:g}" if self.format.codec == "libx264" else ""
        return f"{self.format.codec.removeprefix('lib')}{crf}, {float(self.rate):g} frames a second"

    @property
    def bytes_a_pixel(self) -> float:
        """Of a lively film, roughly; those of h264 double every 6 steps of crf."""
        return self.format.bytes_a_pixel * (2 ** ((18 - self.crf) / 6) if self.format.codec == "libx264" else 1)


def rate(fps: float) -> Fraction:
    """Frames a second as ComfyUI's own Save Video rounds them. Raises ValueError, naming ``fps``, for other values."""
    return Fraction(round(_checked("fps", fps, FPS_RANGE) * 1000), 1000)


def encoding(format: str, fps: float, crf: float) -> Encoding:
    """How the inputs of a node say it. Raises ValueError, naming the input that is wrong."""
    return Encoding(format_of(format), rate(fps), _checked("crf", crf, CRF_RANGE))


def format_of(name: object) -> Format:
    """The format of this ``name``. Raises ValueError, naming the input ``format``, where there is none."""
    if not isinstance(name, str) or name not in FORMATS:
        raise ValueError(f"format: {name!r} is not known. Choose one of {', '.join(FORMATS)}.")
    return FORMATS[name]


def _checked(name: str, value: object, limits: tuple[float, float]) -> float:
    """``value`` itself: a link passes by the widget's range. Raises ValueError, naming ``name``."""
    low, high = limits
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{name}: {value!r} is not a number from {low:g} to {high:g}. Choose one in that range.")
    return value


def write(path: Path, frames: Tensor, how: Encoding, check: Callable[[], object] | None = None) -> None:
    """``frames`` [n, H, W, 3] in 0…1 as a film at ``path``. check: called before each frame; may raise to stop."""
    codec = how.format.codec
    # Packets in the order of frames are joined without a gap. Slices are independent of the number of cores.
    options = {"crf": f"{how.crf:g}"} if codec == "libx264" else {"level": "3", "slices": "4", "g": "1"}
    with whole(path) as partial, av.open(str(partial), "w", format=how.format.container) as container:
        stream = container.add_stream(codec, rate=how.rate, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = how.format.pixels
        context = stream.codec_context
        context.max_b_frames = 0
        if how.format.pixels == "yuv420p":
            context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
            context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        for frame in frames:
            if check is not None:
                check()
            container.mux(stream.encode(_picture(frame, how.format.pixels)))
        container.mux(stream.encode())


def _picture(frame: Tensor, pixels: str) -> av.VideoFrame:
    rgb = (frame.clamp(0, 1) * 255).round().to(torch.uint8).cpu().contiguous()
    picture = av.VideoFrame.from_ndarray(rgb.numpy(), format="rgb24")
    if pixels == "yuv420p":  # players take untagged video of this size for one or the other; so it is said
        return picture.reformat(format=pixels, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
    return picture.reformat(format=pixels)


class Film:
    """A film at ``path`` that grows by parts. It appears there with close(), and never where a ``with`` ends before.

    audio: the host's AUDIO, cut to the film's length. metadata: what the container is to carry, as JSON. index_first:
    a page can play the file while it loads; close() then takes a second pass over it (mp4; mkv needs none).
    check: called once a part and once a second of sound; may raise to stop.
    """

    def __init__(
        self, path: Path, how: Encoding, audio: dict | None = None, metadata: dict | None = None, index_first=True,
        check: Callable[[], object] = lambda: None,
    ) -> None:  # fmt: skip
        self.path, self.how, self.audio, self.check = path, how, audio, check
        self.frames = 0
        self._partial = path.with_name(f"{path.name}.part")
        flags = "faststart+use_metadata_tags" if index_first else "use_metadata_tags"
        options = {"movflags": flags} if how.format.container == "mp4" else {}
        self._container = av.open(str(self._partial), "w", format=how.format.container, options=options)
        self._container.metadata.update({key: json.dumps(value) for key, value in (metadata or {}).items()})
        self._video = self._sound = None

    def __enter__(self) -> "Film":
        return self

    def __exit__(self, *_) -> None:
        with suppress(OSError):  # its end cannot be written, and need not be
            self._container.close()
        self._partial.unlink(missing_ok=True)

    def append(self, part: Path) -> int:
        """Copy the frames of the film at ``part`` and the sound that belongs to them; the number of frames."""
        self.check()
        before = self.frames
        with av.open(str(part)) as container:
            source = container.streams.video[0]
            if self._video is None:
                self._video = self._container.add_stream_from_template(source, opaque=True)
                self._sound = Sound(self._container, self.how.format.sound, self.audio) if self.audio else None
            for packet in container.demux(source):
                if packet.dts is None:  # the end of the stream
                    continue
                packet.stream = self._video
                packet.pts = packet.dts = self.frames
                packet.time_base, packet.duration = 1 / self.how.rate, 1
                self._container.mux(packet)
                self.frames += 1
        if self._sound is not None:
            self._sound.write(self.frames / self.how.rate, self.check)
        return self.frames - before

    def close(self, announce: Callable[[int], object] = lambda _: None) -> int:
        """Its size in bytes. announce: is given the size before the film has its name."""
        if self._sound is not None:
            self._sound.end()
        self._container.close()
        size = self._partial.stat().st_size
        sync(self._partial)
        announce(size)
        os.replace(self._partial, self.path)
        return size


class Sound:
    """The sound of a film, encoded as far as there are frames."""

    def __init__(self, container: av.container.OutputContainer, codec: str, audio: dict) -> None:
        self.container = container
        self.waveform, self.rate, layout = waveform(audio)
        known = av.Codec(codec, "w").audio_rates
        rate = self.rate if not known or self.rate in known else RESAMPLED
        self.layout = layout
        self.stream = container.add_stream(codec, rate=rate, layout=layout)
        self.written = 0

    def write(self, seconds: Fraction, check: Callable[[], object]) -> None:
        """Everything before ``seconds``. check: called before each second; may raise to stop."""
        end = min(int(seconds * self.rate), self.waveform.shape[1])
        while self.written < end:
            check()
            samples = self.waveform[:, self.written : min(end, self.written + self.rate)]
            packed = samples.T.reshape(1, -1).numpy()  # [1, samples × channels]: PyAV fails on 8 planes
            frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=self.layout)
            frame.sample_rate, frame.pts, frame.time_base = self.rate, self.written, Fraction(1, self.rate)
            self.container.mux(self.stream.encode(frame))
            self.written += samples.shape[1]

    def end(self) -> None:
        if self.written:
            self.container.mux(self.stream.encode())
