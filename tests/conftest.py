"""Loads the real host and the pack once for all tests, on the CPU."""

import pack
import pytest

pack.load()

import torch  # noqa: E402, after the pack, which sets the host up

# Toy layers are too small to share: threads that wait for each other make the tests several times slower.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
