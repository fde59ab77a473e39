"""Samples of real videos on disk, as training/prepare.py leaves them and training/samples.py takes them.

    dataset.json                     what all clips have in common
    videos/NAME-HASH/video.json      its takes with their clips and characters, the caption, and what was dropped
    videos/NAME-HASH/0.100.mp4       the clip of take 0 that begins at its frame 100
    videos/NAME-HASH/0.100.clean.mp4 the same without the person; its first frame is the clean start picture
    videos/NAME-HASH/0.100.npz       its pose, person and hands, and its cameras where they are known
    videos/NAME-HASH/0.37.png        the person in frame 37 of take 0, cut out

A folder of videos/ without video.json is one that is not finished.
"""

import hashlib
import io
import json
import logging
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from ..vision.geometry import Cameras
from ..vision.pose import PoseTrack
from . import videos
from .configuration import ROOT, Data

FORMAT = 1
SETTINGS, VIDEOS, ENTRY = "dataset.json", "videos", "video.json"
HELD_OUT_SHARE = 0.05  # of the videos of a size

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Clip:
    """T frames of H×W px out of a video."""

    frames: np.ndarray  # uint8 [T, H, W, 3]
    clean: np.ndarray  # uint8 [T, H, W, 3] without the person
    pose: PoseTrack
    person: np.ndarray  # bool [T, H, W]
    hands: np.ndarray  # bool [T, H, W]
    cameras: Cameras | None  # [T]


class Character(NamedTuple):
    """A person cut out of a frame, as large as it is there."""

    picture: np.ndarray  # uint8 [h, w, 3]
    opacity: np.ndarray  # uint8 [h, w]


# --- files ------------------------------------------------------------------------------------------------------------


def clip_files(name: str, clip: Clip, fps: float) -> dict[str, bytes]:
    """What is written of a clip: file names and contents."""
    arrays = {"keypoints": clip.pose.keypoints.astype(np.float32), "shape": np.array(clip.person.shape)}
    arrays |= {part: np.packbits(getattr(clip, part)) for part in ("person", "hands")}
    if clip.cameras is not None:
        parts = {"K": clip.cameras.intrinsics, "R": clip.cameras.rotation, "t": clip.cameras.translation}
        arrays |= {part: value.numpy() for part, value in parts.items()}
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    return {
        f"{name}.mp4": videos.write(clip.frames, fps),
        f"{name}.clean.mp4": videos.write(clip.clean, fps),
        f"{name}.npz": packed.getvalue(),
    }


def read_clip(folder: Path, name: str) -> Clip:
    with np.load(folder / f"{name}.npz") as arrays:
        shape = tuple(arrays["shape"])
        person, hands = (
            np.unpackbits(arrays[part], count=int(np.prod(shape))).reshape(shape).astype(bool)
            for part in ("person", "hands")
        )
        pose = PoseTrack(arrays["keypoints"].astype(np.float64), width=int(shape[2]), height=int(shape[1]))
        cameras = Cameras(*(torch.from_numpy(arrays[part]) for part in "KRt")) if "K" in arrays else None
    frames, clean = (videos.read(folder / f"{name}{ending}") for ending in (".mp4", ".clean.mp4"))
    return Clip(frames, clean, pose, person, hands, cameras)


def character_file(character: Character) -> bytes:
    """A PNG with transparency."""
    picture = np.dstack([character.picture[..., ::-1], character.opacity])
    return cv2.imencode(".png", picture)[1].tobytes()


def read_character(path: Path) -> Character:
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise OSError(f"{path} cannot be read.")
    return Character(np.ascontiguousarray(picture[..., 2::-1]), picture[..., 3])


def settings_of(data: Data) -> dict:
    """What all clips of a dataset have in common, as plain values for JSON."""
    return {"format": FORMAT, "frames": data.frames, "sizes": [list(size) for size in data.sizes], "fps": data.fps}


def _read_object(path: Path, *keys: str) -> dict:
    """The JSON object in ``path``. Raises ValueError, with the file's name, where it is damaged or lacks a key."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}). Remove its folder to prepare it again.") from None
    missing = sorted(set(keys) - set(found)) if isinstance(found, dict) else ["an object"]
    if missing:
        raise ValueError(f"{path} is damaged (it lacks {', '.join(missing)}). Remove its folder to prepare it again.")
    return found


def read_settings(folder: Path) -> dict | None:
    """The settings of the dataset in ``folder``; None where there is none. Raises ValueError for another format."""
    path = folder / SETTINGS
    if not path.is_file():
        return None
    settings = _read_object(path)
    if settings.get("format") != FORMAT:
        raise ValueError(f"{path} has format {settings.get('format')}; this version reads format {FORMAT}.")
    return settings


def read_entries(folder: Path) -> list[dict]:
    """What video.json says of every finished video, by name of the video."""
    entries = [
        {**_read_object(path, "source", "takes", "skipped", "stamp"), "folder": path.parent}
        for path in (folder / VIDEOS).glob(f"*/{ENTRY}")
        if path.parent.suffix != ".part"
    ]
    return sorted(entries, key=lambda entry: entry["source"])


# --- what there is ----------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """A clip in a dataset."""

    entry: dict  # of its video
    take: int
    frame: int  # of the take, where it begins

    @property
    def name(self) -> str:
        return f"{self.take}.{self.frame}"


class Dataset:
    """A prepared folder. Which clip is which, and what is held out, depends on what is in it and on nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = read_settings(folder)
        if self.settings is None:
            raise ValueError(
                f"data.folder: {folder} holds no dataset. Make one of your videos with scripts/prepare.py."
            )
        entries = read_entries(folder)
        facts = [self.settings, [[entry["source"], entry["digest"]] for entry in entries if entry["takes"]]]
        self.identity = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
        by_size = defaultdict(list)
        for entry in entries:
            if entry["takes"]:
                by_size[tuple(entry["size"])].append(entry)
        self.trained: dict[tuple[int, int], list[Place]] = {}
        self.held_out: dict[tuple[int, int], list[Place]] = {}
        for size, there in by_size.items():
            kept_back = held_out(entry["source"] for entry in there)
            self.trained[size] = _places(entry for entry in there if entry["source"] not in kept_back)
            self.held_out[size] = _places(entry for entry in there if entry["source"] in kept_back)
            if not kept_back:
                log.warning("There is one video of %d×%d alone in %s: nothing is held out.", *size, folder)
                self.held_out[size] = self.trained[size]

    def check(self, data: Data) -> "Dataset":
        """Raise ValueError unless the dataset has what ``data`` of a configuration asks for."""
        frames = self.settings["frames"]
        if frames != data.frames:
            raise ValueError(
                f"data.folder: clips in {self.folder} have {frames} frames, and data.frames is {data.frames}. Set it "
                f"to {frames}, or prepare the videos with this configuration."
            )
        for width, height in data.sizes:
            if (width, height) not in self.trained:
                there = ", ".join(f"[{size[0]}, {size[1]}]" for size in self.trained) or "nothing"
                raise ValueError(
                    f"data.folder: there are no clips of {width}×{height} px in {self.folder}. Train what is there: "
                    f"data.sizes=[{there}]."
                )
        return self

    def place(self, data: Data, size: int, turn: int, kept_back: bool) -> Place:
        """Clip ``turn`` of those of the ``size``-th of ``data.sizes``: each comes once before one comes again, every
        time in another order. ``kept_back``: of those that are held out, in their own order."""
        if kept_back:
            places = self.held_out[data.sizes[size]]
            return places[turn % len(places)]
        places = self.trained[data.sizes[size]]
        order = np.random.default_rng([data.first, size, turn // len(places), 3]).permutation(len(places))
        return places[order[turn % len(places)]]

    def clip(self, place: Place) -> Clip:
        return read_clip(place.entry["folder"], place.name)

    def character(self, place: Place, rng: np.random.Generator) -> Character:
        """The person of a clip in another frame of the take: one before or after the clip, where there is one."""
        characters = place.entry["takes"][place.take]["characters"]
        apart = [max(place.frame - at, at - (place.frame + self.settings["frames"] - 1)) for at in characters]
        outside = [at for at, far in zip(characters, apart) if far > 0]
        chosen = int(rng.choice(outside)) if outside else characters[int(np.argmax(apart))]
        return read_character(place.entry["folder"] / f"{place.take}.{chosen}.png")

    def backdrop(self, place: Place, rng: np.random.Generator) -> np.ndarray | None:
        """The clean first frame [H, W, 3] of a clip of another video of the same size; None where there is none."""
        source = place.entry["source"]
        others = [other for other in self.trained[tuple(place.entry["size"])] if other.entry["source"] != source]
        if not others:
            return None
        other = others[int(rng.integers(len(others)))]
        return videos.read(other.entry["folder"] / f"{other.name}.clean.mp4", count=1)[0]


def held_out(sources: Iterable[str]) -> set[str]:
    """Which of these videos are never trained on: a share of HELD_OUT_SHARE, by a hash of their names, but of two or
    more at least one."""
    marks = {hashlib.sha256(source.encode()).hexdigest(): source for source in sources}
    kept_back = {source for mark, source in marks.items() if int(mark[:8], 16) < HELD_OUT_SHARE * 16**8}
    if len(marks) > 1 and len(kept_back) in (0, len(marks)):
        return {marks[min(marks)]}
    return kept_back if len(marks) > 1 else set()


def _places(entries: Iterable[dict]) -> list[Place]:
    return [
        Place(entry, number, frame)
        for entry in entries
        for number, take in enumerate(entry["takes"])
        for frame in take["clips"]
    ]


@lru_cache(maxsize=4)
def load(folder: str) -> Dataset:
    """The dataset in ``folder``, as it is when it is first asked for. Relative paths are those of configurations."""
    return Dataset(ROOT / folder)


def mark(data: Data) -> str:
    """What tells one dataset from another; empty for the stage."""
    return load(data.folder).identity if data.folder else ""
