"""Render Shot's own inputs: what they say of the film, and what is refused before anything is sampled."""

import errno
import os
import time
from contextlib import contextmanager

import folder_paths
import pytest
import render_toys
import torch
from animate_anywhere.models import latents, windows
from animate_anywhere.nodes import film, long_shot, render, render_state, sampling, unfinished
from animate_anywhere.nodes.long_shot import Handover, handover_bytes

FRAMES, WINDOWS = 13, 3  # in windows of 5 that share one
pytestmark = pytest.mark.usefixtures("no_gradients")


class Stopped(Exception):
    pass


@pytest.fixture(autouse=True)
def output(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path / "output"))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    return tmp_path / "output"


@pytest.fixture(scope="module")
def toy():
    with torch.inference_mode():
        return render_toys.make(FRAMES)


def run(toy, **more):
    return render_toys.render(toy, **({"steps": 1} | more))


@pytest.fixture
def no_work(monkeypatch):
    monkeypatch.setattr(long_shot.LongShot, "windows", lambda *_: pytest.fail("sampled"))


@pytest.fixture
def stop_after(monkeypatch):
    """Stop a render once ``count`` windows are done."""
    write = film.write

    def arm(count):
        calls = []

        def fail(*arguments):
            calls.append(1)
            if len(calls) > count:
                raise Stopped
            write(*arguments)

        monkeypatch.setattr(film, "write", fail)

    yield arm


# --- refused before the first window


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("fps", [0, 0.0, -1.0, float("nan"), float("inf"), 1e9, 10**400, "24", None, True, [24.0], 1e-9]),
        ("crf", [-1, 52, float("nan"), "18", None]),
        ("format", ["mp4", None, 3]),
        ("filename", ["con", "lock", "a.parts/shot", "x" * 300, "a\0b", None, ["a"]]),
        ("audio", [{"waveform": torch.zeros(1, 3, 9), "sample_rate": 8000}, "song"]),
    ],
)
def test_a_value_that_no_film_can_have_gets_one_error_that_names_its_input(toy, output, name, values):
    for value in values:
        with pytest.raises(ValueError, match=f"^{name}: "):
            run(toy, **{name: value})
    assert not output.exists() or not any(output.iterdir())


@pytest.mark.parametrize("fps", [0.01, 23.976, 1000.0, 24])
def test_all_rates_that_the_input_offers_make_a_film(toy, fps):
    video = run(toy, fps=fps).result[0]
    assert float(video.get_frame_rate()) == pytest.approx(fps, rel=1e-3)


# --- names


def at(monkeypatch, *moment):
    monkeypatch.setattr(time, "localtime", lambda *_: time.struct_time((*moment, 0, 1, 0)))


def test_tokens_are_filled_in(toy, output, monkeypatch):
    at(monkeypatch, 2026, 3, 7, 9, 5, 2)
    made = run(toy, filename="%date:yyyy-MM-dd%/shot_%width%x%height%_%hour%")
    assert (output / "2026-03-07" / "shot_32x16_09.mp4").is_file()
    assert made.ui["images"] == [{"filename": "shot_32x16_09.mp4", "subfolder": "2026-03-07", "type": "output"}]


@pytest.mark.parametrize("name", ["%date:yyyy-MM-dd%/%hour%%minute%%second%", "take_%second%.mp4", "%second%/shot"])
def test_a_film_goes_on_under_the_name_it_began_with(toy, output, monkeypatch, stop_after, name):
    at(monkeypatch, 2026, 3, 7, 9, 5, 2)
    with monkeypatch.context(), pytest.raises(Stopped):
        stop_after(2)
        run(toy, filename=name)
    stop_after(100)
    at(monkeypatch, 2026, 3, 8, 10, 6, 3)
    assert "Went on after window 2 of 3." in run(toy, filename=name).result[1]
    assert len([*output.rglob("*.mp4")]) == 1


def test_a_whole_film_is_not_given_back_under_the_name_of_another_time(toy, output, monkeypatch):
    for second in (2, 3):
        at(monkeypatch, 2026, 3, 7, 9, 5, second)
        run(toy, filename="take_%second%")
    assert sorted(path.name for path in output.glob("*.mp4")) == ["take_02.mp4", "take_03.mp4"]


def test_a_link_does_not_lead_outside_the_output_folder(toy, output, tmp_path):
    output.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (output / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="^filename: .* leads outside"):
        run(toy, filename="link/shot")


@pytest.mark.parametrize("value", [None, "size_%width%", "time_%second%", "never made"])
def test_the_host_is_never_told_twice_the_same_of_a_film_that_is_not_there(value):
    first, second = (render.RenderShot.fingerprint_inputs(filename=value, format=film.H264) for _ in range(2))
    assert first is not second and first != second


def test_a_name_by_a_link_is_checked_when_it_is_known():
    assert render.RenderShot.validate_inputs(filename=None) is True


# --- frames that are no numbers


def spoil(monkeypatch, window, where):
    """NaN in one value of a window's latents, or of its decoded frames."""
    calls = []
    owner, name = (latents, "decode_latents") if where == "frames" else (sampling.Sampling, "__call__")
    work = getattr(owner, name)

    def spoiled(*arguments):
        made = work(*arguments)
        calls.append(1)
        if len(calls) == window:
            made = made.clone()
            made[..., -1, -1] = torch.nan if where == "frames" else torch.inf
        return made

    monkeypatch.setattr(owner, name, spoiled)


@pytest.mark.parametrize(("where", "socket"), [("frames", "vae"), ("latents", "model")])
def test_a_window_that_is_not_finite_stops_the_render_and_the_others_stay(toy, output, monkeypatch, where, socket):
    with monkeypatch.context() as patch:
        spoil(patch, 3, where)
        with pytest.raises(ValueError, match=f"^{socket}: .* of window 3 of 3 are not finite .* weight_dtype"):
            run(toy, filename="shot")
    assert (output / "shot.mp4").is_file()
    assert "Went on after window 2 of 3." in run(toy, filename="shot").result[1]


def test_sample_shot_stops_at_a_window_that_is_not_finite(toy, monkeypatch):
    spoil(monkeypatch, 2, "frames")
    with pytest.raises(ValueError, match="^vae: .* of window 2 of 3 are not finite"):
        render_toys.sample(toy)


# --- a disk that is full


@pytest.mark.parametrize(
    ("module", "name"), [(unfinished, "0001.safetensors"), (render_state, "state.json"), (film, "0002.mp4")]
)
def test_a_disk_that_is_full_is_one_error_and_the_windows_done_stay(toy, output, monkeypatch, module, name):
    """The first two windows fit, and then not even what is left behind for them."""
    whole = module.whole

    @contextmanager
    def full(path):
        done = (output / "shot.parts" / "0001.mp4").exists()
        if path.name == name and done:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with whole(path) as partial:
            yield partial

    with monkeypatch.context() as patch:
        patch.setattr(module, "whole", full)
        with pytest.raises(
            RuntimeError,
            match=r"^filename: shot\.mp4 cannot be written on: No space left .* needs about [0-9.,]+ [KM]B",
        ) as caught:
            run(toy, filename="shot")
    kept = 2 if module is film else 1
    assert f" {kept} of 3 windows are kept. Make room" in str(caught.value)
    assert f"Went on after window {kept} of 3." in run(toy, filename="shot").result[1]


@pytest.mark.parametrize("handover", windows.HANDOVERS)
def test_the_size_of_a_handover_is_known_before(handover):
    plan = windows.plan(100, 29, handover, overlap=9, blend=5)
    height, width = 16, 32
    frames = [torch.zeros(count, height, width, 3) for count in (1, 1, plan.blend)]
    coded = torch.zeros(1, 16, latents.latent_frames(plan.shared), 2, 4) if handover == windows.OVERLAP else None
    made = Handover(*frames, coded)
    expected = sum(value.nbytes for value in vars(made).values() if value is not None)
    assert handover_bytes(plan, width, height) == expected


def test_a_shot_of_one_window_hands_nothing_over():
    assert handover_bytes(windows.plan(5, 29), 32, 16) == 0


def test_the_room_for_handovers_is_asked_for(output):
    place = unfinished.Unfinished(output, "shot", film.FORMATS[film.H264])
    state = render_state.State({}, {})
    needed = [place.bytes_needed(state, 13, 0, 512, 0.06, size) for size in (0, 1000)]
    assert round(needed[1] - needed[0]) == 2 * 1000  # the next is written before the last one goes


def test_an_older_film_that_cannot_be_moved_away_is_one_error(toy, output, monkeypatch):
    run(toy, filename="shot")

    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(unfinished.Path, "rename", refuse)
    with pytest.raises(ValueError, match=r"^filename: what an earlier render left of shot .* \(No space left"):
        run(toy, filename="shot", seed=6)
