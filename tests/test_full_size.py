"""CogVideoX1.5-5B with adapters on a fake CUDA device: no device or dtype fault, and fp8 weights save memory.

tests/support/full_size.py runs it, in a process of its own. docs/devices.md says what this shows and what not.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES = (
    "bf16, 80 GB",
    "bf16, 24 GB",
    "bf16, --gpu-only, 80 GB",
    "bf16, --lowvram, 24 GB",
    "fp8 file, 24 GB",
    "--fp8_e4m3fn-unet, 24 GB",
    "DynamiCtrl, bf16, 80 GB",
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    target = tmp_path_factory.mktemp("full_size") / "results.json"
    command = [sys.executable, str(Path(__file__).parent / "support" / "full_size.py"), "--quick", str(target)]
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(target.read_text())


@pytest.mark.parametrize("case", CASES)
def test_no_tensor_is_on_a_wrong_device_or_of_a_wrong_dtype(results, case):
    assert results[case]["faults"] == []


def test_every_case_is_looked_at(results):
    assert set(results) == set(CASES)


@pytest.mark.parametrize("case", ["fp8 file, 24 GB", "--fp8_e4m3fn-unet, 24 GB"])
def test_fp8_weights_take_less_memory_than_bf16_weights(results, case):
    """By 0.45 GB at least, half of what the four bf16 blocks of the base take (113 million weights each)."""
    assert results["bf16, 24 GB"]["peaks"]["one step"] - results[case]["peaks"]["one step"] > 0.45e9
