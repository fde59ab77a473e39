"""Video files: read at an even rate as a player shows them, and written so that nothing is seen to be lost."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

import av
import cv2
import numpy as np
from av.stream import Disposition

ENDINGS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".gif")
QUALITY = 10  # x264's rate factor; from about 17 on nobody sees a difference, and a VAE sees more than people
LARGEST_SCALE = 1.5  # beyond it a video is mostly blur to a model that learns detail


class BrokenVideo(ValueError):
    """A video of no use; why, in one line."""


class Fit(NamedTuple):
    """A picture scaled to ``width``×``height`` px, of which ``crop`` (left, top, width, height) is what counts."""

    width: int
    height: int
    crop: tuple[int, int, int, int]


def cover(width: int, height: int, sizes: tuple[tuple[int, int], ...]) -> Fit:
    """How a picture of ``width``×``height`` px covers the one of ``sizes`` (width, height) of the nearest proportions,
    cropped at its centre. Raises BrokenVideo where it would have to be blown up."""
    aspect = np.log(width / height)
    target = min(sizes, key=lambda size: abs(np.log(size[0] / size[1]) - aspect))
    scale = max(target[0] / width, target[1] / height)
    if scale > LARGEST_SCALE:
        raise BrokenVideo(
            f"it is {width}×{height} px, and would be enlarged {scale:.1f} times to fill {target[0]}×{target[1]}"
        )
    fitted = [max(side, round(own * scale)) for side, own in zip(target, (width, height))]
    left, top = ((own - side) // 2 for side, own in zip(target, fitted))
    return Fit(*fitted, (left, top, *target))


class Frame(NamedTuple):
    """``picture`` [H, W, 3] uint8, upright and with square pixels; ``index`` counts all frames of the file."""

    index: int
    picture: np.ndarray


class Reader:
    """A video of which every n-th frame is read, so that about ``fps`` frames are a second's.

    A whole n keeps motion even, where 24 frames a second would shake at 16. A video of changing rate is read at even
    times, each time the frame nearest to it. Rotation and pixel shape that the file asks for are applied. Raises
    BrokenVideo where there is no video in it, or it cannot be decoded.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.path = path
        self.decoded = 0  # frames of the file so far, and
        self.given = 0  # how many of them were read
        with _film(self.path) as stream:
            self.rate = _rate(stream) or fps
        with _film(self.path) as stream:
            first = next(self._decode(stream), None)
        if first is None:
            raise BrokenVideo("it has no frames")
        self.stride = max(1, round(self.rate / fps))
        turned = round(first.rotation / 90) % 2
        width = round(first.width * float(stream.sample_aspect_ratio or 1))
        self.width, self.height = (first.height, width) if turned else (width, first.height)

    @property
    def fps(self) -> float:
        """Frames a second of what is read."""
        return self.rate / self.stride

    def count(self) -> int:
        """How many frames the file has, by decoding them: what containers say of themselves is often wrong."""
        with _film(self.path) as stream:
            return sum(1 for _ in self._decode(stream))

    def frames(self, width: int, height: int) -> Iterator[Frame]:
        """What is read, scaled to ``width``×``height`` px."""
        with _film(self.path) as stream:
            for index, frame in self._evenly(self._decode(stream)):
                picture = np.rot90(frame.to_ndarray(format="rgb24"), k=round(frame.rotation / 90))
                self.given += 1
                smaller = picture.shape[0] * picture.shape[1] > width * height
                method = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
                yield Frame(index, cv2.resize(np.ascontiguousarray(picture), (width, height), interpolation=method))

    def _evenly(self, frames: Iterator[av.VideoFrame]) -> Iterator[tuple[int, av.VideoFrame]]:
        """(index, frame) nearest to the times 0, 1 / fps, 2 / fps, …"""
        wanted, begun, before = 0, None, None
        for index, frame in enumerate(frames):
            at = index / self.rate if frame.time is None else frame.time
            begun = at if begun is None else begun
            here = (at - begun, index, frame)
            while here[0] >= wanted / self.fps:
                nearest = min((before or here, here), key=lambda place: abs(place[0] - wanted / self.fps))
                yield nearest[1:]
                wanted += 1
            before = here
        if before and wanted / self.fps - before[0] < 0.5 / self.rate:  # rounding has put the last one a little early
            yield before[1:]

    def _decode(self, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
        self.decoded = 0
        try:
            for frame in stream.container.decode(stream):
                self.decoded += 1
                yield frame
        except av.FFmpegError as error:
            raise BrokenVideo(f"it cannot be decoded after {self.decoded} frames: {error.strerror}") from error


@contextmanager
def _film(path: Path) -> Iterator[av.VideoStream]:
    """The video stream of the file ``path``, open within a with-block."""
    try:
        container = av.open(str(path), metadata_errors="ignore")
    except av.FFmpegError as error:
        raise BrokenVideo(f"it cannot be opened: {error.strerror}") from error
    with container:
        # A cover picture is a stream of video, too.
        films = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
        if not films or films[0].codec_context is None:
            raise BrokenVideo("there is no video in it that can be decoded")
        yield films[0]


def _rate(stream: av.VideoStream) -> float:
    """Frames a second, most of the time: from the middle one of all steps in time, because what files say of themselves
    is an average, also over pauses. 0 where the frames have no times."""
    try:
        times = sorted(packet.pts for packet in stream.container.demux(stream) if packet.pts is not None)
    except av.FFmpegError as error:
        raise BrokenVideo(f"it cannot be read: {error.strerror}") from error
    steps = [after - before for before, after in pairwise(times) if after > before]
    return float(1 / (median(steps) * stream.time_base)) if steps else float(stream.average_rate or 0)


def write(frames: np.ndarray, fps: float) -> bytes:
    """An MP4 file of ``frames`` [T, H, W, 3] uint8: H.264 with colours at full resolution."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        # One thread: the other processes have theirs.
        options = {"crf": str(QUALITY), "preset": "medium", "threads": "1"}
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv444p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def read(path: Path, count: int = 0) -> np.ndarray:
    """The frames [T, H, W, 3] uint8 of what write() has written; ``count``: only so many."""
    frames = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            frames.append(frame.to_ndarray(format="rgb24"))
            if len(frames) == count:
                break
    return np.stack(frames)
