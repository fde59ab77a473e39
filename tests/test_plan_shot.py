"""What a shot costs: measured on the machine that runs the tests, with the toy model."""

import errno
import json
import math
import os
import time
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import folder_paths
import pytest
import torch
import toys
from animate_anywhere.models import clips, dit, latents, windows
from animate_anywhere.nodes import cost as costs
from animate_anywhere.nodes import memory, sample
from animate_anywhere.nodes.cost import Cost
from animate_anywhere.nodes.plan import PlanShot

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "get_user_directory", lambda: str(tmp_path))


@pytest.fixture(scope="module")
def made():
    return toys.cogvideox_patcher(), toys.taehv_vae()


@pytest.fixture
def device(monkeypatch):
    """A device that says it has ``free`` bytes, and ``taken`` ones in the windows that are measured."""

    def answers(free, *taken):
        peaks = iter(taken)
        monkeypatch.setattr(memory, "Peak", lambda: nullcontext(SimpleNamespace(before=1e9, most=1e9 + next(peaks))))
        monkeypatch.setattr(memory, "free", lambda: free)

    return answers


SHOT = clips.Shot(length=60, background=torch.rand(1, 16, 32, 3))
TEXT = [[dit.no_text(24), {}]]
COST = Cost(step=(0.1, 0.01), around=(1.0, 0.5), memory=(1e9, 1e8))


def test_cost_grows_with_frames_and_steps():
    """8 latent frames: 10 · (0.1·8 + 0.01·64) + 1 + 0.5·8 seconds, and 1 GB + 8 · 100 MB."""
    assert COST.seconds(29, 10) == pytest.approx(19.4)
    assert COST.bytes(29) == pytest.approx(1.8e9)


def test_the_largest_window_is_the_last_that_fits():
    assert COST.largest(1e13) == latents.valid_length(windows.LONGEST)
    for room in (1.2e9, 1.3e9, 1.79e9, 1.8e9, 5e9):
        most = COST.largest(room)
        assert COST.bytes(most) <= room < COST.bytes(most + 8)
    assert COST.largest(1.19e9) == 0


def test_a_plan_is_measured_once_and_kept(made, monkeypatch):
    window, report, figures = PlanShot.execute(*made, SHOT, TEXT, TEXT, 4, 1.0).result
    figures = json.loads(figures)
    assert window == figures["windows"][0] == 21 and sum(figures["windows"]) - len(figures["windows"]) + 1 >= 60
    assert figures["measured"] == "now" and figures["seconds"] > 0
    assert report.startswith("60 frames in 3 windows of 21 frames; each begins with the last frame of the one before\n")
    monkeypatch.setattr(costs, "measure", lambda *_: pytest.fail("measured again"))
    again = json.loads(PlanShot.execute(*made, SHOT, TEXT, TEXT, 8, 1.0).result[2])
    assert again["measured"] == "before" and again["seconds"] > figures["seconds"]


def test_another_size_or_guidance_is_another_measurement(made):
    costs._write({costs._key(made[0], SHOT, 1.0): {"step": [1, 0], "around": [0, 0], "memory": [0, 0]}})
    assert costs.find(made[0], SHOT, 1.0) is not None
    wider = replace(SHOT, background=torch.rand(1, 16, 48, 3))
    assert costs.find(made[0], wider, 1.0) is None and costs.find(made[0], SHOT, 2.5) is None


@pytest.mark.parametrize(("free", "window", "needed", "largest"), [(2.05e9, 21, 1600, 29), (1.5e9, 5, 1200, 5)])
def test_memory_is_told_and_windows_are_chosen_to_fit(made, device, free, window, needed, largest):
    """100 MB for each of the 2 and 6 latent frames, and 1 GB; 9 GB when the model is loaded are no window's. Of 2.05
    GB, 1845 MB may be taken: 8 latent frames, 29 frames, and 60 are three windows of 21."""
    device(free, 9e9, 1.2e9, 1.6e9)
    found, report, figures = PlanShot.execute(*made, SHOT, TEXT, TEXT, 4, 1.0).result
    figures = json.loads(figures)
    assert found == window and figures["largest"] == largest
    assert (figures["memory"], figures["free"]) == pytest.approx((needed, 0.9 * free / 1e6))
    assert f"About {needed} MB at the peak beside the model; {0.9 * free / 1e6:.0f} MB can be had\n" in report
    assert f"The largest window that fits: {largest} frames\n" in report


@pytest.mark.parametrize("taken", [0, 50e6])
def test_where_longer_windows_are_not_seen_to_take_more_nothing_is_said_to_fit(made, device, taken):
    """Without a GPU, the process may hold already what they need."""
    device(2e9, 0, taken, taken + 0.9e6)
    window, report, figures = PlanShot.execute(*made, SHOT, TEXT, TEXT, 4, 1.0).result
    figures = json.loads(figures)
    assert window == 21 and figures["memory"] is None and figures["largest"] is None
    assert "what fits is not known" in report and "MB" not in report


def test_the_forecast_is_near_what_a_window_takes(made, monkeypatch):
    """Within a factor of 3; wrong units would be off by far more. In the processor's time, not the clock's."""
    monkeypatch.setattr(time, "perf_counter", time.process_time)
    PlanShot.execute(*made, SHOT, TEXT, TEXT, 4, 1.0)
    cost = costs.find(made[0], SHOT, 1.0)
    shot = replace(SHOT, length=53)
    figures = json.loads(sample.SampleShot.execute(*made, shot, TEXT, TEXT, 0, 6, 1.0, window=53).result[2])
    taken = figures["windows"][0]["seconds"]
    assert taken / 3 < cost.seconds(53, 6) < taken * 3


def test_sample_shot_takes_the_largest_window_that_fits(made, monkeypatch):
    costs._write({costs._key(made[0], SHOT, 1.0): {"step": [1, 0], "around": [0, 0], "memory": [0, 1e6]}})
    monkeypatch.setattr(memory, "free", lambda: 5e6)  # 4.5 MB of it: 4 latent frames
    figures = json.loads(sample.SampleShot.execute(*made, replace(SHOT, length=20), TEXT, TEXT, 0, 1, 1.0).result[2])
    assert [each["length"] for each in figures["windows"]] == [13, 13]


def test_a_window_that_cannot_fit_is_refused_before_any_work(made, monkeypatch):
    costs._write({costs._key(made[0], SHOT, 1.0): {"step": [1, 0], "around": [0, 0], "memory": [0, 1e9]}})
    monkeypatch.setattr(memory, "free", lambda: 5e9)
    monkeypatch.setattr(clips, "encode", lambda *_: pytest.fail("encoded"))
    message = "window: 37 frames of 32×16 px need about 10.0 GB at the peak, and 4.5 GB can be had. At most 13 frames"
    for node in (sample.SampleShot, PlanShot):
        more = {"seed": 0} if node is sample.SampleShot else {}
        with pytest.raises(ValueError, match=message):
            node.execute(*made, SHOT, TEXT, TEXT, steps=1, cfg=1.0, window=37, **more)


def test_a_spoilt_file_is_measured_anew(made, tmp_path):
    (tmp_path / costs.FILE).write_text('{"cut of')
    assert costs.find(made[0], SHOT, 1.0) is None


GOOD = {"step": [1, 0.5], "around": [0, 0], "memory": [0, 1e6]}
DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    "damaged",
    [
        *[GOOD | {"step": step} for step in ([1], [1, 2, 3], 7, "12", None, {"a": 1}, [1, None], [True, 1], ["1", 2])],
        *[GOOD | {"memory": [0, value]} for value in (math.nan, math.inf, -math.inf, 10**400, 1e300)],
        {"step": [1, 0], "around": [0, 0]},
        GOOD | {"more": [1, 2]},
        [],
        "cost",
        None,
        7,
    ],
)
def test_a_damaged_entry_is_measured_anew_and_the_others_stay(made, tmp_path, damaged):
    keys = [costs._key(made[0], SHOT, cfg) for cfg in (1.0, 2.5)]
    (tmp_path / costs.FILE).write_text(json.dumps({keys[0]: damaged, keys[1]: GOOD}))
    assert costs.find(made[0], SHOT, 1.0) is None
    assert costs.find(made[0], SHOT, 2.5).step == (1, 0.5)


@pytest.mark.parametrize("content", ["[]", "null", "7", '"text"', DEEP, '{"a": ' + DEEP + "}", "9" * 5000, b"\xff\xfe"])
def test_what_is_no_table_of_costs_is_measured_anew(made, tmp_path, content):
    (tmp_path / costs.FILE).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert costs.find(made[0], SHOT, 1.0) is None
    costs._write({costs._key(made[0], SHOT, 1.0): GOOD})
    assert costs.find(made[0], SHOT, 1.0) is not None


def test_a_full_disk_leaves_the_older_costs(made, tmp_path, monkeypatch):
    costs._write({costs._key(made[0], SHOT, 1.0): GOOD})

    def fill(path, *_, **__):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(costs.Path, "write_text", fill)
        with pytest.raises(RuntimeError, match=r"^animate_anywhere_cost\.json: .* No space left .* about [0-9]+ KB"):
            costs._write({"other": GOOD})
    assert costs.find(made[0], SHOT, 1.0) is not None
    assert [path.name for path in tmp_path.iterdir()] == [costs.FILE]


def test_the_peak_of_memory_is_seen_though_it_is_over():
    with memory.Peak() as peak:
        block = torch.ones(60_000_000)  # 240 MB
        time.sleep(10 * memory.PAUSE)  # so that somebody looks, however busy the machine is
        del block
    assert 235e6 < peak.most - peak.before < 260e6
