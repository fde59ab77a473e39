"""Render Shot: a film that is interrupted, in any way, and goes on, is the film that it would have been."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import av
import comfy.model_management
import comfy.utils
import folder_paths
import numpy as np
import pytest
import render_toys
import torch
from animate_anywhere.models import attach, windows
from animate_anywhere.nodes import film, long_shot, render, unfinished

NAME = "animate_anywhere/shot"
FRAMES, WINDOWS = 17, 4  # in windows of 5 that share one
HERE = Path(__file__).parent
pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.fixture(autouse=True)
def output(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def toy():
    """Model, VAE and shot; the same in each process."""
    with torch.inference_mode():
        return render_toys.make(FRAMES)


def run(toy, **more):
    return render_toys.render(toy, **more)


def frames_of(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def packets_of(path):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.dts is not None]


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def parts(folder):
    """What is left to go on with, but the lock."""
    return [name.split("/")[-1] for name in names(folder) if ".parts/" in name and not name.endswith("lock")]


@pytest.fixture(scope="module")
def uninterrupted(toy, tmp_path_factory):
    """The films of a run without a stop, by format."""
    films = {}
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        for kind in film.FORMATS:
            folder = tmp_path_factory.mktemp("uninterrupted")
            patch.setattr(folder_paths, "get_output_directory", lambda folder=folder: str(folder))
            run(toy, format=kind)
            films[kind] = folder / f"{NAME}{film.FORMATS[kind].ending}"
    return films


class Stop:
    """Ends the work in the midst of window ``index``, in the host's own way or with ``error``."""

    def __init__(self, monkeypatch, index, error=None):
        self.at, self.error, self.calls, self.time = (index, 1), error, 0, None
        monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", self)
        monkeypatch.setattr(comfy.utils, "PROGRESS_THROTTLE_MIN_INTERVAL", 0)

    def __call__(self, done, total, *_, **__):
        self.total = total
        if done == self.at[0] * render_toys.STEPS + self.at[1] and self.time is None:
            self.time = time.perf_counter()
            if self.error is not None:
                raise self.error
            comfy.model_management.interrupt_current_processing()


@pytest.fixture
def stop(monkeypatch):
    return lambda index, error=None: Stop(monkeypatch, index, error)


def interrupted(toy, stop, index, error=None, **more):
    stopped = stop(index, error)
    with pytest.raises(type(error) if error else comfy.model_management.InterruptProcessingException):
        run(toy, **more)
    return stopped


# --- a film


@pytest.mark.parametrize("kind", film.FORMATS)
def test_a_film_has_exactly_the_frames_of_the_shot(uninterrupted, kind):
    assert len(frames_of(uninterrupted[kind])) == FRAMES


def test_its_frames_are_those_of_sample_shot(toy, uninterrupted):
    images = render_toys.sample(toy)
    assert np.array_equal(frames_of(uninterrupted[film.FFV1]), (images * 255).round().byte().numpy())


def test_outputs_and_what_the_page_shows(toy, output):
    made = run(toy, fps=8.5, filename="one/two.mp4")
    video, report, report_json, plot = made.result
    assert video.get_frame_count() == FRAMES and float(video.get_frame_rate()) == 8.5
    assert report.startswith("two.mp4, x264, crf 18, 8.5 frames a second.\n17 frames of 32×16 px, seed 5, ")
    assert len(json.loads(report_json)["windows"]) == WINDOWS and plot.shape[0] == 1 and plot.shape[3] == 3
    assert made.ui["images"] == [{"filename": "two.mp4", "subfolder": "one", "type": "output"}]
    assert made.ui["animated"] == (True,) and made.ui["text"] == (report,)
    assert [window["done"] for window in made.ui["aa_timeline"][0]["windows"]] == [True] * WINDOWS
    assert names(output) == ["one/two.mp4", "one/two.parts/lock", "one/two.parts/state.json"]


def test_the_progress_bar_goes_over_all_windows(toy, stop):
    stopped = interrupted(toy, stop, 2)
    assert stopped.total == WINDOWS * render_toys.STEPS


def test_sound_is_muxed(toy):
    audio = {"waveform": torch.rand(1, 2, 5 * 8000), "sample_rate": 8000}
    heard = run(toy, audio=audio).result[0].get_components().audio
    assert heard["waveform"].shape[-1] / 8000 == pytest.approx(FRAMES / 16, abs=2 * 1024 / 8000)


# --- interrupted, and queued again


@pytest.mark.parametrize("kind", film.FORMATS)
def test_a_cancelled_film_is_playable_goes_on_and_is_the_same(toy, output, stop, uninterrupted, kind):
    path = output / f"{NAME}{film.FORMATS[kind].ending}"
    stopped = interrupted(toy, stop, 2, format=kind)
    assert time.perf_counter() - stopped.time < 2
    assert np.array_equal(frames_of(path), frames_of(uninterrupted[kind])[: 5 + 4])
    report = run(toy, format=kind).result[1]
    assert f"Went on after window 2 of {WINDOWS}." in report
    assert np.array_equal(frames_of(path), frames_of(uninterrupted[kind]))
    assert packets_of(path) == packets_of(uninterrupted[kind])
    assert parts(output) == ["state.json"]


@pytest.mark.parametrize("handover", ["overlap", "none"])
def test_every_hand_over_is_kept(toy, output, stop, handover):
    more = {"handover": handover, "window": 13, "overlap": 5, "blend": 2, "format": film.FFV1}
    long = render_toys.make(29)
    run(long, filename="whole", **more)
    interrupted(long, stop, 1, filename="stopped", **more)
    run(long, filename="stopped", **more)
    assert packets_of(output / "stopped.mkv") == packets_of(output / "whole.mkv")


def test_a_film_that_fails_twice_goes_on_twice(toy, output, stop, uninterrupted):
    interrupted(toy, stop, 1, MemoryError("no memory"))
    interrupted(toy, stop, 3, MemoryError("no memory"))
    assert parts(output) == ["0000.mp4", "0001.mp4", "0002.mp4", "0002.safetensors", "state.json"]
    assert len(frames_of(output / f"{NAME}.mp4")) == 5 + 4 + 4
    run(toy)
    assert packets_of(output / f"{NAME}.mp4") == packets_of(uninterrupted[film.H264])


def test_a_film_that_is_there_is_given_back_at_once(toy, output, stop):
    run(toy)
    written = (output / f"{NAME}.mp4").stat().st_mtime_ns
    stop(0, AssertionError("sampled"))
    made = run(toy)
    assert "The film was there already" in made.result[1]
    assert made.result[0].get_frame_count() == FRAMES
    assert len(json.loads(made.result[2])["windows"]) == WINDOWS
    assert (output / f"{NAME}.mp4").stat().st_mtime_ns == written


def test_a_killed_process_loses_only_the_window_at_work(toy, output, uninterrupted):
    """A process of its own, so that nothing of it is left but its files; its lock is none any more."""
    command = [sys.executable, str(HERE / "render_toys.py"), "kill", str(output), str(FRAMES), "2"]
    with subprocess.Popen(command, cwd=HERE) as process:
        process.wait(500)
    assert process.returncode == -signal.SIGKILL
    assert not (output / f"{NAME}.mp4").exists()
    report = run(toy).result[1]
    assert f"Went on after window 2 of {WINDOWS}." in report
    assert packets_of(output / f"{NAME}.mp4") == packets_of(uninterrupted[film.H264])
    assert names(output) == [f"{NAME}.mp4", f"{NAME}.parts/lock", f"{NAME}.parts/state.json"]


# --- other inputs


def other_pose(toy):
    pose = toy.shot.pose.clone()
    pose[-1, -1, -1, -1] += 1 / 255
    return toy._replace(shot=replace(toy.shot, pose=pose))


def weaker(toy):
    return toy._replace(model=attach.attach(toy.base, toy.adapter, pose_strength=0.5))


@pytest.mark.parametrize(
    ("change", "more", "told"),
    [
        (None, {"seed": 6}, "seed"),
        (None, {"crf": 20.0, "fps": 8.0}, "crf, fps"),
        (None, {"window": 13}, "window"),
        (other_pose, {}, "shot's pose"),
        (weaker, {}, "model"),
    ],
)
def test_other_inputs_start_afresh_and_the_report_says_which(toy, output, stop, change, more, told):
    interrupted(toy, stop, 1)
    left = frames_of(output / f"{NAME}.mp4")
    report = run(change(toy) if change else toy, **more).result[1]
    assert f"Started afresh, because of other inputs than before: {told}." in report
    assert "The older film is now shot (1).mp4." in report
    assert len(frames_of(output / f"{NAME}.mp4")) == FRAMES
    assert np.array_equal(frames_of(output / f"{NAME} (1).mp4"), left)


def test_windows_that_free_memory_chose_stay(toy, output, stop, monkeypatch, uninterrupted):
    """With window 0, what fits changes from day to day."""
    monkeypatch.setattr(windows, "trained_length", lambda _: 5)
    interrupted(toy, stop, 2, window=0)
    monkeypatch.setattr(windows, "trained_length", lambda _: 13)
    assert "Went on after window 2 of 4." in run(toy, window=0).result[1]
    assert packets_of(output / f"{NAME}.mp4") == packets_of(uninterrupted[film.H264])
    assert "was there already" in run(toy, window=0).result[1]


def test_what_was_set_aside_can_still_go_on(toy, output, stop, uninterrupted):
    interrupted(toy, stop, 2)
    run(toy, seed=6)
    assert "Went on after window 2" in run(toy, filename=f"{NAME} (1)").result[1]
    assert packets_of(output / f"{NAME} (1).mp4") == packets_of(uninterrupted[film.H264])


def test_whole_films_are_kept_and_counted(toy, output):
    for seed in (1, 2, 3):
        run(toy, seed=seed)
    assert {path.name for path in (output / "animate_anywhere").glob("*.mp4")} == {
        "shot.mp4", "shot (1).mp4", "shot (2).mp4"
    }  # fmt: skip
    assert "was there already" in run(toy, seed=2, filename=f"{NAME} (2)").result[1]


def test_a_file_of_somebody_else_is_kept(toy, output):
    path = output / f"{NAME}.mp4"
    path.parent.mkdir()
    path.write_bytes(b"holiday")
    run(toy)
    assert (output / f"{NAME} (1).mp4").read_bytes() == b"holiday"


@pytest.mark.parametrize("lost", ["0000.mp4", "0001.safetensors"])
def test_lost_parts_start_afresh(toy, output, stop, uninterrupted, lost):
    interrupted(toy, stop, 2)
    (output / f"{NAME}.parts" / lost).unlink()
    assert "Started afresh: windows of the render before are missing." in run(toy).result[1]
    assert packets_of(output / f"{NAME}.mp4") == packets_of(uninterrupted[film.H264])


# --- refusals


@pytest.fixture
def no_work(monkeypatch):
    monkeypatch.setattr(long_shot.LongShot, "windows", lambda *_: pytest.fail("sampled"))


@pytest.mark.usefixtures("no_work")
class TestRefusals:
    @pytest.mark.parametrize("name", ["", "../shot", "/tmp/shot", "C:\\shot", "a/../../shot", ".mp4", "folder/.."])
    def test_a_name_outside_the_output_folder(self, toy, name):
        with pytest.raises(ValueError, match="filename: .* is no name inside the output folder"):
            run(toy, filename=name)
        assert "is no name inside" in render.RenderShot.validate_inputs(filename=name)

    def test_a_folder_that_cannot_be_written(self, toy, output):
        (output / "file").write_bytes(b"")
        with pytest.raises(ValueError, match=r"filename: nothing can be written to .*file \(Not a directory\)"):
            run(toy, filename="file/shot")

    def test_a_full_disk(self, toy, monkeypatch):
        usage = namedtuple("usage", "total used free")(10**9, 10**9, 10_000)
        monkeypatch.setattr(unfinished.shutil, "disk_usage", lambda _: usage)
        with pytest.raises(ValueError, match=r"filename: .* has 0 MB left, and the rest of the film needs about 0 MB"):
            run(toy, format=film.FFV1)

    def test_two_renders_to_one_file(self, toy):
        with (
            render._place(NAME, film.H264).held(),
            pytest.raises(ValueError, match=r"filename: another render is writing shot\.mp4 just now"),
        ):
            run(toy)

    def test_sound_of_three_channels(self, toy):
        with pytest.raises(ValueError, match="audio: it has 3 channels"):
            run(toy, audio={"waveform": torch.zeros(1, 3, 10), "sample_rate": 8000})


def test_the_lock_is_open_after_a_failure(toy, stop):
    interrupted(toy, stop, 0, MemoryError("no memory"))
    assert "17 frames" in run(toy).result[1]


def test_a_disk_that_fills_up_keeps_the_windows_done(toy, output, monkeypatch, uninterrupted):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    write, calls = film.write, []

    def fill(*arguments):
        calls.append(1)
        if len(calls) == 3:  # from here on, the system lets no file grow
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
        write(*arguments)

    monkeypatch.setattr(film, "write", fill)
    try:
        with pytest.raises(
            RuntimeError, match=r"shot\.mp4 cannot be written on: .* 2 of 4 windows are kept\. Make room"
        ):
            run(toy)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert "Went on after window 2 of 4." in run(toy).result[1]
    assert packets_of(output / f"{NAME}.mp4") == packets_of(uninterrupted[film.H264])


def test_the_error_of_a_full_disk_is_told_in_its_words(toy, monkeypatch):
    monkeypatch.setattr(
        film, "write", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    )
    with pytest.raises(RuntimeError, match="filename: .* cannot be written on: No space left on device"):
        run(toy)


# --- the host's cache


def test_the_host_runs_it_again_when_the_film_is_gone_or_not_whole(toy, output, stop):
    def key():
        return render.RenderShot.fingerprint_inputs(filename=NAME, format=film.H264)

    assert key() != key()
    interrupted(toy, stop, 1)
    assert key() != key()
    run(toy)
    assert key() == key()
    (output / f"{NAME}.mp4").unlink()
    assert key() != key()
    assert "no longer as it had been finished" in run(toy).result[1]


# --- memory


def test_memory_does_not_grow_with_the_length(tmp_path):
    """Measured in a process of its own: the peak of a short film, then that of one six times as long."""
    command = [sys.executable, str(HERE / "render_toys.py"), "peak", str(tmp_path), "20", "120"]
    peaks = subprocess.run(command, cwd=HERE, stdout=subprocess.PIPE, text=True, timeout=500, check=True).stdout.split()
    short, long = map(int, peaks[-2:])
    assert long < 1.1 * short
    assert long - short < 0.5 * 100 * render_toys.MEASURED**2 * 3 * 4  # half of the frames, if they piled up
