"""What a shot costs: measured on the machine that runs the tests, with the toy model."""

import json
from dataclasses import replace

import folder_paths
import pytest
import torch
import toys
from animate_anywhere.models import clips, dit
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


SHOT = clips.Shot(length=60, background=torch.rand(1, 16, 32, 3))
TEXT = [[dit.no_text(24), {}]]
COST = Cost(step=(0.1, 0.01), around=(1.0, 0.5), memory=(1e9, 1e8))


def test_cost_grows_with_frames_and_steps():
    """8 latent frames: 10 · (0.1·8 + 0.01·64) + 1 + 0.5·8 seconds, and 1 GB + 8 · 100 MB."""
    assert COST.seconds(29, 10) == pytest.approx(19.4)
    assert COST.bytes(29) == pytest.approx(1.8e9)


def test_the_largest_window_is_the_last_that_fits():
    for room in (1.2e9, 1.3e9, 1.79e9, 1.8e9, 5e9):
        most = COST.largest(room)
        assert COST.bytes(most) <= room < COST.bytes(most + 8)
    assert COST.largest(1.19e9) == 0


def test_a_plan_is_measured_once_and_kept(made, monkeypatch):
    window, report, figures = PlanShot.execute(*made, SHOT, TEXT, TEXT, 4, 1.0).result
    figures = json.loads(figures)
    assert window == figures["windows"][0] == 21 and sum(figures["windows"]) - len(figures["windows"]) + 1 >= 60
    assert figures["measured"] == "now" and figures["seconds"] > 0
    assert figures["largest"] is None or figures["largest"] >= 29
    assert report.startswith("60 frames in 3 windows of 21 frames; each begins with the last frame of the one before\n")
    monkeypatch.setattr(costs, "measure", lambda *_: pytest.fail("measured again"))
    again = json.loads(PlanShot.execute(*made, SHOT, TEXT, TEXT, 8, 1.0).result[2])
    assert again["measured"] == "before" and again["seconds"] > figures["seconds"]


def test_another_size_or_guidance_is_another_measurement(made):
    costs._write({costs._key(made[0], SHOT, 1.0): {"step": [1, 0], "around": [0, 0], "memory": [0, 0]}})
    assert costs.find(made[0], SHOT, 1.0) is not None
    wider = replace(SHOT, background=torch.rand(1, 16, 48, 3))
    assert costs.find(made[0], wider, 1.0) is None and costs.find(made[0], SHOT, 2.5) is None


def test_memory_that_nothing_was_seen_of_is_not_called_zero(made):
    """On the processor, a window may fit into what the process has freed and kept."""
    costs._write({costs._key(made[0], SHOT, 1.0): {"step": [1, 0], "around": [0, 0], "memory": [0, 0]}})
    report = PlanShot.execute(*made, SHOT, TEXT, TEXT, 4, 1.0).result[1]
    assert "what fits is not known" in report and "0 MB" not in report


def test_the_forecast_is_near_what_a_window_takes(made):
    """Within a factor of 3 on a machine that does other things, too; wrong units would be off by far more."""
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


def test_the_peak_of_memory_is_seen_though_it_is_over():
    with memory.Peak() as peak:
        block = torch.ones(60_000_000)  # 240 MB
        del block
    assert 200e6 < peak.most - peak.before < 300e6
