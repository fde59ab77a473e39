"""Old workflows keep opening and running: ids, inputs and outputs are what they were, and more."""

import copy
import json
import sys

import contract
import pytest

PACK = sys.modules["animate_anywhere"]


@pytest.fixture(scope="module")
def found():
    return contract.described(PACK.AnimateAnywhere)


@pytest.fixture(scope="module")
def promised():
    return json.loads(contract.FILE.read_text())


def test_every_promise_is_kept(promised, found):
    assert contract.broken(promised, found) == []


def test_every_node_and_input_is_written_down(promised, found):
    """If not: scripts/contract.py."""
    names = {name: (node["inputs"], node["outputs"]) for name, node in found.items()}
    assert {name: (node["inputs"], node["outputs"]) for name, node in promised.items()} == names


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda nodes: nodes.pop("AA_Shot"), "AA_Shot is gone"),
        (lambda nodes: nodes["AA_Shot"]["inputs"].reverse(), "AA_Shot: inputs were"),
        (lambda nodes: nodes["AA_Shot"]["outputs"].insert(0, "INT"), "AA_Shot: outputs were"),
        (lambda nodes: nodes["AA_Shot"]["required"].append("late"), "AA_Shot: late came later"),
    ],
)
def test_a_broken_promise_is_told(promised, found, change, message):
    changed = copy.deepcopy(found)
    change(changed)
    assert any(line.startswith(message) for line in contract.broken(promised, changed))


def test_what_is_new_breaks_nothing(promised, found):
    changed = copy.deepcopy(found)
    changed["AA_Shot"]["inputs"].append("later")
    changed["AA_New"] = {"inputs": [], "required": [], "outputs": []}
    assert contract.broken(promised, changed) == []
