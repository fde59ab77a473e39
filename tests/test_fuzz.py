"""Odd values on every input of the nodes, through the host's own validation and execution: never a raw error, never an
output that is wrong without a word."""

import subprocess
import sys
from pathlib import Path

import fuzz
import pytest
import torch
from animate_anywhere.vision.camera_path import CameraPath
from in_process import Outcome

SCRIPT = Path(fuzz.__file__)


def test_three_hundred_odd_values_are_refused_in_words_or_give_a_correct_output():
    """In a process of its own: memory is limited there, and the host's folders are others."""
    words = [sys.executable, str(SCRIPT), "--inputs", "300"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "300 tried" in done.stdout


@pytest.mark.parametrize(
    ("io_type", "value"),
    [
        ("IMAGE", torch.full((1, 4, 4, 3), float("nan"))),
        ("IMAGE", torch.full((1, 4, 4, 3), 2.0)),
        ("IMAGE", torch.zeros(1, 4, 4, 1)),
        ("IMAGE", torch.zeros(0, 4, 4, 3)),
        ("IMAGE", torch.zeros(1, 4, 4, 3, dtype=torch.uint8)),
        ("IMAGE", None),
        ("MASK", torch.zeros(4, 4)),
        ("MASK", torch.full((1, 4, 4), float("-inf"))),
        ("STRING", ""),
        ("FLOAT", float("nan")),
        ("LATENT", {"samples": torch.full((1, 2), float("inf"))}),
        ("POSE_KEYPOINT", []),
        ("POSE_KEYPOINT", [{"people": [{"pose_keypoints_2d": [float("nan")] * 54}]}]),
        ("AA_CAMERA_PATH", CameraPath.from_steps(torch.full((2, 4), float("nan")).numpy(), 8, 8)),
        ("MODEL", None),
    ],
)
def test_the_fuzz_sees_an_output_that_is_wrong_without_a_word(io_type, value):
    assert fuzz.problem_of(io_type, value)


def test_the_fuzz_passes_outputs_that_are_right():
    assert not fuzz.problem_of("IMAGE", torch.rand(2, 4, 4, 3))
    assert not fuzz.problem_of("MASK", torch.ones(1, 4, 4))
    assert not fuzz.problem_of("LATENT", {"samples": torch.zeros(1, 2)})


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (Outcome(kind="ValueError", error="mask: it is empty."), fuzz.REFUSED),
        (Outcome(kind="ValueError", error="tracks, mask: connect one."), fuzz.REFUSED),
        (Outcome(kind="validation", error="Value -1 smaller than min"), fuzz.REFUSED),
        (Outcome(kind="ValueError", error="the mask is empty"), fuzz.RAW),
        (Outcome(kind="TypeError", error="mask: it is empty."), fuzz.RAW),
        (Outcome(kind="interrupted"), fuzz.RAW),
    ],
)
def test_only_a_value_error_that_begins_with_an_input_counts_as_refused(outcome, verdict):
    assert fuzz.judge(outcome, ["mask", "tracks"], [])[0] == verdict
