"""Every node on make-believe CUDA devices, with weights and with pictures on them: the CPU's numbers, and no fault.

tests/support/run_nodes.py runs them, in a process of its own. docs/devices.md says what this shows and what not.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import contract
import pack
import pytest
from support import multigpu_runs, node_runs

# The make-believe device computes with the CPU's kernels, in other groups of operations: the order of sums differs.
SAME = 1e-5  # of the largest number
# BlazePose and DWPose follow a person by where they were: a last digit moves the crop, and an edge of the mask with it.
FOLLOWS = ("AA_ExtractPose", "AA_SegmentCharacter", "AA_DraftShot")
SAME_ON_AVERAGE = 1e-4
DOCUMENT = pack.ROOT / "docs" / "devices.md"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    target = tmp_path_factory.mktemp("devices") / "results.json"
    command = [sys.executable, str(Path(__file__).parent / "support" / "run_nodes.py"), str(target)]
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(target.read_text())


@pytest.fixture(scope="module")
def nodes():
    return set(contract.described(sys.modules["animate_anywhere"].AnimateAnywhere))


def test_every_node_has_a_run(nodes):
    assert nodes == {node for name in node_runs.RUNS for node in re.findall(r"AA_\w+", name)}


def test_every_node_is_executed(results, nodes):
    assert set(results["called"]) == nodes


def check(name, results, *kinds):
    found = results["runs"][name]
    assert "error" not in found["cpu"], found["cpu"]
    for kind in kinds:
        assert "error" not in found[kind], f"{kind}: {found[kind]['error']}"
        assert found[kind]["numbers"] > 0
        if name.startswith(FOLLOWS):
            assert found[kind]["mean"] < SAME_ON_AVERAGE
        else:
            assert found[kind]["largest"] < SAME


@pytest.mark.parametrize("name", node_runs.RUNS)
def test_a_node_gives_on_a_device_what_it_gives_on_the_cpu(results, name):
    check(name, results, "normal", "gpu_only", *({"mixed"} & set(results["runs"][name])))


@pytest.mark.parametrize("name", multigpu_runs.RUNS)
def test_two_devices_give_what_the_cpu_gives(results, name):
    check(name, results, "two")


def test_the_table_has_every_node_and_its_runs(nodes):
    rows = re.findall(r"^\| `(AA_\w+)` \| \w+ \| ([^|]+) \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(node for node, _ in rows) == sorted(nodes)
    for node, told in rows:
        runs = [name.partition("/")[2] or "plain" for name in node_runs.RUNS if node in re.findall(r"AA_\w+", name)]
        assert told == ", ".join(runs), node
