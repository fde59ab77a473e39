"""A cancel is obeyed within a second, also in the midst of one large frame."""

import time

import comfy.model_management
import numpy as np
import pytest
import torch
from animate_anywhere.nodes import detection
from animate_anywhere.vision import dwpose
from animate_anywhere.vision.following import Following
from animate_anywhere.vision.tracking import Identities

NOBODY = torch.zeros(1, 1, 1, 3).expand(1, 2048, 2048, 3)  # every tile of it is searched


class Impatient:
    """Cancels at the first word after ``patience`` s, and notes the longest silence, in seconds of computing."""

    def __init__(self, patience: float) -> None:
        self.started = self.last = time.process_time()
        self.patience, self.silence = patience, 0.0

    def __call__(self, done: int) -> None:
        now = time.process_time()
        self.silence, self.last = max(self.silence, now - self.last), now
        if now - self.started > self.patience:
            raise comfy.model_management.InterruptProcessingException


def test_blazepose_stops_between_tiles():
    impatient = Impatient(1.0)
    network = detection.load_blazepose(detection.BLAZEPOSE)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        list(Following(network, NOBODY, Identities(1)).run(impatient))
    assert impatient.silence < 1.0


def test_dwpose_stops_between_tiles():
    calls = []

    def find(frame: np.ndarray) -> list:
        calls.append(frame.shape)
        return []

    def cancel(done: int) -> None:
        if len(calls) > 20:
            raise comfy.model_management.InterruptProcessingException

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        dwpose.Lookout(find, 1, cancel).people(0, np.zeros((2048, 2048, 3), np.uint8))
    assert len(calls) == 21
