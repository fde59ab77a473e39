"""What is said of a shot while it is made and after."""

import json

import pytest
import torch
from animate_anywhere.models import clips, windows
from animate_anywhere.nodes import shot_report
from animate_anywhere.nodes.long_shot import Made
from animate_anywhere.nodes.shot_report import ShotReport

SHOT = clips.Shot(length=30, background=torch.zeros(1, 16, 32, 3), pose=torch.zeros(30, 16, 32, 3))
PLAN = windows.plan(30, 21)
FIGURES = {"drift": 0.51, "drift_before": 2.34, "flow": 0.8, "flow_inside": 0.75, "seconds": 3.21, "memory": 812.4}


def made(index):
    seam = {"seam": 1.5} if index else {"seam": None}
    return Made(PLAN.windows[index], torch.zeros(1), None, FIGURES | seam)


@pytest.fixture
def sent(monkeypatch):
    events = []

    class Server:
        client_id = "me"

        def send_sync(self, event, data, client):
            events.append((event, data, client))

    monkeypatch.setattr(shot_report.PromptServer, "instance", Server(), raising=False)
    return events


def test_each_window_has_its_line():
    report = ShotReport(SHOT, PLAN, "seed 5")
    report.add(made(0))
    report.add(made(1))
    assert report.text("In no time").splitlines() == [
        "30 frames of 32×16 px, seed 5",
        "In no time",
        "30 frames in 2 windows of 21 and 13 frames; each begins with the last frame of the one before",
        "Window 1: frames 0-20, motion inside 0.75 px, drift ΔE 0.51 (2.3 before control), 3.2 s, 812 MB",
        "Window 2: frames 20-32, seam 1.5 /255, motion across it 0.8 px, motion inside 0.75 px, "
        "drift ΔE 0.51 (2.3 before control), 3.2 s, 812 MB",
    ]


def test_what_is_not_known_is_said_to_be_unknown():
    report = ShotReport(SHOT, PLAN, "seed 5")
    report.add(Made(PLAN.windows[0], torch.zeros(1), None, dict.fromkeys(FIGURES) | {"seconds": 1.0, "memory": 1.0}))
    assert "motion inside not known, drift ΔE not known (not known before control)" in report.text()
    assert json.loads(report.json())["windows"][0]["drift"] is None


def test_programs_get_the_same_as_json():
    report = ShotReport(SHOT, PLAN, "seed 5")
    report.add(made(0))
    figures = json.loads(report.json())
    assert {key: figures[key] for key in ("width", "height", "total", "handover", "shared", "blend")} == {
        "width": 32, "height": 16, "total": 30, "handover": "last frame", "shared": 1, "blend": 0,
    }  # fmt: skip
    assert figures["windows"] == [{"index": 0, "start": 0, "length": 21, "seam": None, **FIGURES}]


def test_the_timeline_is_sent_at_the_start_and_after_each_window(sent):
    report = ShotReport(SHOT, PLAN, "seed 5", "7")
    report.add(made(0))
    assert [(event, client) for event, _, client in sent] == [("animate_anywhere.timeline", "me")] * 2
    before, after = (data["windows"] for _, data, _ in sent)
    assert [window["done"] for window in before] == [False, False] and [w["done"] for w in after] == [True, False]
    assert after[0]["drift"] == 0.51 and after[1]["first_new"] == 21 and after[1]["length"] == 10
    assert sent[0][1]["conditions"] == {"pose": [0, 30], "environment": None, "reference": False}
    assert sent[0][1]["node"] == "7" and sent[0][1]["total"] == 30


def test_without_a_node_nothing_is_sent(sent):
    ShotReport(SHOT, PLAN, "seed 5")
    assert not sent
