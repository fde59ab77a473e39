"""Loads the real host and the pack once for all tests, on the CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pack
import pytest

ROOT = Path(__file__).resolve().parent.parent

HOST_ROOT = (
    os.environ.get("ANIMATE_ANYWHERE_COMFYUI")
    or subprocess.run(
        [sys.executable, ROOT / "scripts" / "host.py", "--root"], check=True, capture_output=True, text=True
    ).stdout.strip()
)
# The host reads its arguments from sys.argv at import; pytest's own are not for it.
ARGV, sys.argv = sys.argv, sys.argv[:1]
pack.use_host(HOST_ROOT)
pack.load()
sys.argv = ARGV

import torch  # noqa: E402


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def host_root() -> Path:
    return Path(HOST_ROOT)
