"""A folder of videos -> a dataset on disk (training/dataset.py). Run it through scripts/prepare.py.

Every video becomes a folder of its own, which has its name only when it is whole; so a run that was stopped goes on
where it was, and any number of processes and machines can share the videos.
"""

import hashlib
import json
import logging
import multiprocessing
import os
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import torch

from ..vision.detectors import BlazePose, load_blazepose
from . import camera_files, dataset, takes, videos
from .configuration import ROOT, Data
from .journal import span
from .videos import BrokenVideo

WEIGHTS = ROOT / "weights" / "blazepose"
REPORT = "skipped.txt"
CAMERAS = ".camera.txt"  # in place of the video's ending

log = logging.getLogger(__name__)


class PreparationError(RuntimeError):
    """Preparation cannot go on; what happened, and what to do, in one line."""


@dataclass(frozen=True)
class Job:
    """One video, and what lies beside it."""

    source: Path
    name: str  # its path in the folder of videos
    target: Path  # where it goes
    cameras: Path | None
    data: Data

    @property
    def caption(self) -> Path:
        return self.source.with_suffix(".txt")

    def stamp(self) -> dict:
        """What would have to change for the video to be prepared anew."""
        there = {"video": self.source, "caption": self.caption, "cameras": self.cameras}
        stamps = {what: path.stat() for what, path in there.items() if path and path.is_file()}
        return {what: [stat.st_size, stat.st_mtime_ns] for what, stat in stamps.items()}

    def done(self) -> bool:
        entry = self.target / dataset.ENTRY
        try:
            return json.loads(entry.read_text(encoding="utf-8"))["stamp"] == self.stamp()
        except (FileNotFoundError, ValueError, LookupError, TypeError, RecursionError):  # a damaged one is made anew
            return False


# --- the folder -------------------------------------------------------------------------------------------------------


def jobs(folder: Path, out: Path, data: Data, cameras: Path | None = None) -> list[Job]:
    """All videos in ``folder``, by name. ``cameras``: a folder of camera files, NAME.txt for NAME.mp4; None: they lie
    beside the videos, as NAME.camera.txt. Raises ValueError where there are no videos."""
    for name, path in (("videos", folder), ("--cameras", cameras)):
        if path is not None and not path.is_dir():
            raise ValueError(f"{name}: there is no folder {path}.")
    out = out.resolve()
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in videos.ENDINGS and path.is_file() and out not in path.resolve().parents
    )
    if not found:
        raise ValueError(f"videos: there are none in {folder}. Known are {', '.join(videos.ENDINGS)}.")
    return [_job(path, folder, out, data, cameras) for path in found]


def _job(path: Path, folder: Path, out: Path, data: Data, cameras: Path | None) -> Job:
    name = path.relative_to(folder).as_posix()
    readable = re.sub(r"[^\w-]+", "_", path.stem)[:48]
    target = out / dataset.VIDEOS / f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"
    beside = path.with_suffix(CAMERAS) if cameras is None else (cameras / name).with_suffix(".txt")
    return Job(path, name, target, beside if beside.is_file() else None, data)


def share(jobs: list[Job], shard: str) -> list[Job]:
    """The jobs of ``shard``, "i/n" with i from 1 to n. Raises ValueError for anything else."""
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    number, count = (int(part) for part in match.groups()) if match else (0, 0)
    if not 1 <= number <= count:
        raise ValueError(f"--shard {shard}: expected i/n with i from 1 to n, as in 1/4, 2/4, 3/4 and 4/4.")
    return jobs[number - 1 :: count]


def begin(out: Path, data: Data) -> None:
    """Write down what all clips of ``out`` have in common. Raises ValueError where another dataset is there already."""
    settings, there = dataset.settings_of(data), dataset.read_settings(out)
    if there is None:
        (out / dataset.VIDEOS).mkdir(parents=True, exist_ok=True)
        _replace(out / dataset.SETTINGS, json.dumps(settings, indent=1).encode())
    elif there != settings:
        different = [
            f"{key} was {there.get(key)}, is {value}" for key, value in settings.items() if there.get(key) != value
        ]
        raise ValueError(f"{out} holds a dataset of other settings: {'; '.join(different)}. Choose another folder.")


def _replace(path: Path, content: bytes) -> None:
    """Write a file so that it is never seen half written, however many do so at a time."""
    partial = path.with_suffix(f".{os.getpid()}.part")
    partial.write_bytes(content)
    os.replace(partial, path)


# --- a video ----------------------------------------------------------------------------------------------------------


def prepare(job: Job) -> dict:
    """Prepare one video; what was written about it. A video of no use is written down with the reason."""
    partial = job.target.with_suffix(".part")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        entry = _entry(job)
        try:
            entry |= _write_takes(job, partial)
        except (BrokenVideo, camera_files.WrongCameras) as reason:
            for path in partial.iterdir():
                path.unlink()
            entry["skipped"] = str(reason)
        entry["digest"] = _digest(partial)
        (partial / dataset.ENTRY).write_bytes(json.dumps(entry, indent=1).encode())
        shutil.rmtree(job.target, ignore_errors=True)
        partial.rename(job.target)
        return entry
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise PreparationError(
            f"{job.name} could not be prepared: {error}. Make room, or mend it; the same command goes on from there."
        ) from error


def _entry(job: Job) -> dict:
    caption = job.caption.read_text(encoding="utf-8-sig", errors="replace").strip() if job.caption.is_file() else ""
    return {"source": job.name, "stamp": job.stamp(), "caption": caption, "takes": [], "skipped": "", "dropped": {}}


def _write_takes(job: Job, folder: Path) -> dict:
    """Write the clips and characters of a video. Raises BrokenVideo or WrongCameras where there are none."""
    reader = videos.Reader(job.source, job.data.fps)
    fit = videos.cover(reader.width, reader.height, job.data.sizes)
    cameras = None
    if job.cameras is not None:
        cameras = camera_files.read(job.cameras, reader.width, reader.height)
        camera_files.check_count(cameras, job.cameras, reader.count())
    length, dropped, there = job.data.frames, Counter(), []
    for take in takes.takes(reader, fit, length, _network(), dropped):
        clips = []
        for first, clip in takes.clips(take, fit, length, cameras, reader, dropped):
            _write_all(folder, dataset.clip_files(f"{len(there)}.{first}", clip, reader.fps))
            clips.append(first)
        if clips:
            pictures = {at: dataset.character_file(picture) for at, picture in takes.characters(take, fit)}
            _write_all(folder, {f"{len(there)}.{at}.png": content for at, content in pictures.items()})
            there.append({"clips": clips, "characters": list(pictures)})
    if reader.given < length:
        raise BrokenVideo(
            f"it is too short: {reader.given} frames at {reader.fps:.3g} a second, and a clip has {length}"
        )
    if not there:
        raise BrokenVideo(
            "; ".join(f"{reason}{f' ({count} times)' * (count > 1)}" for reason, count in dropped.items())
        )
    return {"size": fit.crop[2:], "fps": reader.fps, "takes": there, "dropped": dict(dropped)}


def _write_all(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _digest(folder: Path) -> str:
    """Of all files in ``folder``."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def _network() -> BlazePose:
    return load_blazepose(WEIGHTS)


# --- all of them ------------------------------------------------------------------------------------------------------


def prepare_all(
    folder: Path, out: Path, data: Data, *, cameras: Path | None = None, shard: str = "1/1", workers: int = 1
) -> dict[str, int]:
    """Prepare the videos in ``folder`` that ``out`` lacks; how many videos, clips and skipped videos it has then.

    Raises ValueError before heavy work for what is wrong with the arguments, and after it where no video was of any
    use; PreparationError where it cannot go on.
    """
    if workers < 1:
        raise ValueError(f"--workers is {workers}; it must be 1 or more.")
    everything = jobs(folder, out, data, cameras)
    chosen = share(everything, shard)
    begin(out, data)
    missing = [job for job in chosen if not job.done()]
    if len(missing) < len(chosen):
        log.info("%d of %d videos are there already.", len(chosen) - len(missing), len(chosen))
    try:
        _report_progress(missing, _entries(missing, workers))
    finally:
        _write_report(out)
    entries = dataset.read_entries(out)
    skipped = [entry for entry in entries if entry["skipped"]]
    if len(skipped) == len(entries) and all(job.done() for job in everything):
        raise ValueError(
            f"None of the {len(everything)} videos in {folder} is of use; {out / REPORT} lists why. The first: "
            f"{skipped[0]['source']}: {skipped[0]['skipped']}."
        )
    return {"videos": len(entries), "clips": sum(map(_clips, entries)), "skipped": len(skipped)}


def _entries(missing: list[Job], workers: int) -> Iterator[tuple[Job, dict]]:
    """Prepare ``missing``, in any order."""
    if workers == 1 or len(missing) < 2:
        for job in missing:
            yield job, prepare(job)
        return
    # Forked, so that each worker has the host already, which takes seconds to import.
    context = multiprocessing.get_context("fork")
    # OpenCV's threads do not exist in a forked process, which would wait for them for ever: none may be left here.
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    pool = ProcessPoolExecutor(min(workers, len(missing)), context, initializer=_begin_worker)
    try:
        running = {pool.submit(prepare, job): job for job in missing}
        for future in as_completed(running):
            yield running[future], future.result()
    except BrokenProcessPool as error:
        raise PreparationError(
            "A worker died: out of memory, or a file that crashes the decoder. Use fewer --workers; with one, the last "
            f"{dataset.VIDEOS}/*.part in the dataset names the video."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
        cv2.setNumThreads(threads)


def _begin_worker() -> None:
    """Processes share the cores, threads of theirs would only get into each other's way. On Ctrl-C they finish the
    video they have, and get no other."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _report_progress(missing: list[Job], entries: Iterable[tuple[Job, dict]]) -> None:
    begun, work = time.monotonic(), sum(job.source.stat().st_size for job in missing)
    finished, count = 0, Counter()
    for job, entry in entries:
        finished += job.source.stat().st_size
        count.update(videos=1, clips=_clips(entry), skipped=bool(entry["skipped"]))
        seconds = time.monotonic() - begun
        if entry["skipped"]:
            log.warning("Skipped %s: %s", job.name, entry["skipped"])
        log.info(
            "%d of %d videos, %d clips, %d skipped, %s left", count["videos"], len(missing), count["clips"],
            count["skipped"], span(seconds / max(1, finished) * (work - finished)),
        )  # fmt: skip


def _clips(entry: dict) -> int:
    return sum(len(take["clips"]) for take in entry["takes"])


def _write_report(out: Path) -> None:
    """A line for each video of ``out`` that was skipped, and why."""
    lines = [f"{entry['source']}: {entry['skipped']}\n" for entry in dataset.read_entries(out) if entry["skipped"]]
    _replace(out / REPORT, "".join(lines).encode())
