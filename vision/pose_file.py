"""Poses in JSON files: ours, those that other tools write, and those made by hand.

Ours holds the POSE_KEYPOINT list as it is, so that it comes back to the last digit:
``{"format": "animate_anywhere pose", "version": 1, "fps": 24.0, "frames": [...]}``. Read are also a bare list of frames
(comfyui_controlnet_aux), a single frame, and OpenPose's own series of files, one a frame, with 25 joints and without a
canvas.
"""

import json
import os
import re
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from .pose import PARTS, PoseTrack

FORMAT, VERSION = "animate_anywhere pose", 1
DEFAULT_FPS = 24.0
MAX_FPS = 100_000.0
MAX_CANVAS_PX = 1_000_000
MAX_COORDINATE_PX = 1e9
CANVAS = ("canvas_width", "canvas_height")
BODY, FEET = "pose_keypoints_2d", "foot_keypoints_2d"
# OpenPose's BODY_25: the joint between the hips (8) is none of the 18, and the feet, left before right, come last.
BODY_25 = 25
JOINTS_OF_25 = [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]
FEET_OF_25 = [19, 20, 21, 22, 23, 24]
OF_SERIES = re.compile(r"(.+_)([0-9]+)(_keypoints\.json)")  # OpenPose's names: of the video, number of the frame


class PoseFile(NamedTuple):
    """A POSE_KEYPOINT list, and its frames a second (None where the file does not say)."""

    frames: list[dict]
    fps: float | None


def save_pose(path: Path, frames: list[dict], fps: float) -> None:
    """Write ``frames``, a POSE_KEYPOINT list. Raises ValueError, naming ``pose`` or ``fps``, for what is none."""
    path.write_text(to_json(frames, fps), encoding="utf-8")


def to_json(frames: list[dict], fps: float) -> str:
    """What save_pose() writes. Raises the same."""
    if not _is_number(fps) or not 0 < fps <= MAX_FPS:
        raise ValueError(f"fps: {_shown(fps)} is no frame rate; it must be above 0.")
    PoseTrack.from_openpose(frames)
    content = {"format": FORMAT, "version": VERSION, "fps": float(fps), "frames": frames}
    try:
        return json.dumps(content, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"pose: it cannot be saved as JSON ({error}). Use lists of plain numbers.") from error


def load_pose(path: Path, canvas: tuple[int, int] | None = None) -> PoseFile:
    """The pose in the file at ``path``, or, where that is a frame of OpenPose's, in its whole series beside it.

    ``canvas`` (width, height) is for files that do not say theirs. Raises ValueError, naming the socket ``file``, for
    anything that is no pose, and for a series with a gap.
    """
    content = _read(path)
    if _is_frame(content):
        return PoseFile(_series_frames(series(path), canvas), None)
    fps = None
    if isinstance(content, dict) and "frames" in content:
        fps, content = _fps(content, path), content["frames"]
    return PoseFile(_frames(content, path, canvas), fps)


def series(path: Path) -> list[Path]:
    """The files of the series that ``path`` is of, by the numbers in their names; itself where its name has none."""
    named = OF_SERIES.fullmatch(path.name)
    if not named:
        return [path]
    found = []
    with os.scandir(path.parent) as entries:
        for entry in entries:
            match = OF_SERIES.fullmatch(entry.name)
            if match and match[1] == named[1] and entry.is_file():
                found.append(path.parent / entry.name)
                if entry.is_symlink():
                    _check_link(found[-1])
    return sorted(found, key=lambda file: (_number(file), file.name))


def _check_link(file: Path) -> None:
    if file.resolve().parent != file.parent.resolve():
        raise ValueError(
            f"file: {file.name} is a link out of the folder of its series. Put the file itself there instead."
        )


def _number(file: Path) -> int:
    return int(OF_SERIES.fullmatch(file.name)[2])


def _series_frames(files: list[Path], canvas: tuple[int, int] | None) -> list[dict]:
    """One frame from each of ``files``. Raises ValueError, naming the file that is missing or unlike the others."""
    for before, after in pairwise(files):
        _check_next(before, after)
    frames = []
    for file in files:
        content = _read(file)
        if not _is_frame(content):
            raise ValueError(f"file: {file.name} is not one frame with people in it, as others of its series are.")
        frames += _frames([content], file, canvas)
        size, first = ([frame[side] for side in CANVAS] for frame in (frames[-1], frames[0]))
        if size != first:
            raise ValueError(
                f"file: {file.name} has a canvas of {size[0]}×{size[1]} px, {files[0].name} {first[0]}×{first[1]} px. "
                "All frames need one."
            )
    return frames


def _check_next(before: Path, after: Path) -> None:
    if _number(after) == _number(before):
        raise ValueError(
            f"file: {before.name} and {after.name} are both frame {_number(after)} of a series. Remove one of them."
        )
    if _number(after) > _number(before) + 1:
        start, digits, end = OF_SERIES.fullmatch(before.name).groups()
        missing = f"{start}{int(digits) + 1:0{len(digits)}}{end}"
        raise ValueError(
            f"file: {missing} is missing from the series of {before.name} and {after.name}. Put it there, or, to read "
            "one frame alone, give its file another name."
        )


def _is_frame(content: object) -> bool:
    return isinstance(content, dict) and "people" in content and "frames" not in content


def _frames(content: object, path: Path, canvas: tuple[int, int] | None) -> list[dict]:
    if not isinstance(content, list) or not content:
        raise ValueError(
            f"file: {path.name} is JSON, but no pose: expected a list of frames with people in them, found "
            f"{_kind(content)}."
        )
    try:
        frames = [_frame(frame, index, canvas) for index, frame in enumerate(content)]
        PoseTrack.from_openpose(frames)
    except ValueError as error:
        raise ValueError(f"file: {path.name} holds no pose that can be read: {error}") from error
    return frames


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"file: {path.name} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"file: {path.name} is no text, so no JSON either. Choose a pose saved as JSON.") from error
    except RecursionError as error:
        raise ValueError(f"file: {path.name} is nested too deep for a pose.") from error
    except json.JSONDecodeError as error:
        raise ValueError(
            f"file: {path.name} is no valid JSON (line {error.lineno}: {error.msg}). Was it cut off, or edited by hand?"
        ) from error
    except ValueError as error:  # an integer of thousands of digits
        raise ValueError(f"file: {path.name} holds a number that is too long for a pose.") from error


def _fps(content: dict, path: Path) -> float | None:
    version, fps = content.get("version", VERSION), content.get("fps")
    if content.get("format") == FORMAT and version != VERSION:
        raise ValueError(
            f"file: {path.name} has version {_shown(version)} of the pose format; this pack reads {VERSION}. "
            "Update the pack."
        )
    if fps is None:
        return None
    if not _is_number(fps) or not 0 < fps <= MAX_FPS:
        raise ValueError(f"file: {path.name} says {_shown(fps)} frames a second; it must be a number above 0.")
    return float(fps)


def _frame(frame: object, index: int, canvas: tuple[int, int] | None) -> dict:
    """``frame`` as it is, but that a missing canvas is added, and 25 joints become 18 and feet."""
    if not isinstance(frame, dict):
        raise ValueError(f"frame {index} is {_kind(frame)}, no frame with people in it.")
    if any(frame.get(side) is None for side in CANVAS):
        if canvas is None:
            raise ValueError(
                f"frame {index} does not say how large its canvas is (canvas_width and canvas_height). Give the width "
                "and height of the video that the pose was taken from."
            )
        frame = {**frame, **dict(zip(CANVAS, canvas))}
    for side in CANVAS:
        if not _is_number(frame[side]) or not 1 <= frame[side] <= MAX_CANVAS_PX:
            raise ValueError(f"{side} of frame {index} is {_shown(frame[side])}; it must be 1 to {MAX_CANVAS_PX} px.")
    people = frame.get("people")
    if isinstance(people, list):
        for number, person in enumerate(people):
            _check_person(person, f"person {number} in frame {index}")
        if any(_has_25_joints(person) for person in people):
            frame = {**frame, "people": [_from_25(person) if _has_25_joints(person) else person for person in people]}
    return frame


def _check_person(person: object, who: str) -> None:
    """Raise ValueError, naming ``who``, unless all lists of points are lists of numbers, or there is none."""
    if not isinstance(person, dict):
        raise ValueError(f"{who} is {_kind(person)}, no object with {BODY}.")
    for name in PARTS:
        points = person.get(name)
        if points is None:
            continue
        if not isinstance(points, list):
            raise ValueError(f"{name} of {who} is {_kind(points)}, no list of x, y, confidence.")
        for value in points:
            if not _is_number(value):
                raise ValueError(f"{name} of {who} holds {_shown(value)}, which is no number.")
            if abs(value) > MAX_COORDINATE_PX:
                raise ValueError(f"{name} of {who} holds {_shown(value)}, which is not finite or too large.")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _has_25_joints(person: object) -> bool:
    body = person.get(BODY) if isinstance(person, dict) else None
    return isinstance(body, list) and len(body) == 3 * BODY_25


def _from_25(person: dict) -> dict:
    joints = [person[BODY][3 * joint : 3 * joint + 3] for joint in range(BODY_25)]
    parts = {BODY: JOINTS_OF_25, FEET: FEET_OF_25}
    return {**person, **{name: [n for joint in order for n in joints[joint]] for name, order in parts.items()}}


def _kind(content: object) -> str:
    if isinstance(content, list):
        return "a list" if content else "an empty list"
    names = {dict: "an object without frames", str: "a text", type(None): "nothing"}
    return names.get(type(content), "a number")
