"""Tiny video files for tests, written through PyAV."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write(path: Path, frames: np.ndarray, fps: int = 10, times=None, rotation: int = 0, shape: Fraction | None = None):
    """``frames`` [T, H, W, 3] uint8 as a video. times: of the frames, in 1/1000 s; rotation: degrees counterclockwise
    that a player is to turn it; shape: of its pixels, width / height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "4", "preset": "veryfast"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv444p"
        if shape:
            stream.codec_context.sample_aspect_ratio = shape
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def numbered(count: int, height: int = 32, width: int = 48) -> np.ndarray:
    """Grey frames whose brightness is three times their number."""
    return np.repeat(np.arange(count, dtype=np.uint8) * 3, height * width * 3).reshape(count, height, width, 3)
