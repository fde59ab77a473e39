"""Loads the real host and the pack once for all tests, on the CPU."""

import importlib.util
from pathlib import Path

import client
import comfyui
import host as hosts
import numpy as np
import pack
import pytest

pack.load()

import torch  # noqa: E402, after the pack, which sets the host up
from PIL import Image, ImageSequence  # noqa: E402

# Toy layers are too small to share: threads that wait for each other make the tests several times slower.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def no_gradients():
    """As the host runs nodes."""
    with torch.inference_mode():
        yield


@pytest.fixture(scope="session")
def server():
    """ComfyUI with the pack, started once for all tests that need one running."""
    with comfyui.running(hosts.get(), life=2 * 3600) as running:
        yield running


@pytest.fixture(scope="module")
def connection(server):
    with client.Client(server.url) as connection:
        yield connection


@pytest.fixture(scope="session")
def dance():
    """A woman dances while the camera backs off: [45, 350, 350, 3] in 0…1, from the host's own template package."""
    package = importlib.util.find_spec("comfyui_workflow_templates_media_api").submodule_search_locations[0]
    with Image.open(next(Path(package).rglob("api_kling_omni_v2v-2.webp"))) as clip:
        frames = [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(clip)]
    return torch.from_numpy(np.stack(frames)).float() / 255
