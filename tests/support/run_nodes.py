"""Run every node on the CPU and on make-believe CUDA devices, and compare what they give.

    $(python3 scripts/host.py --python) tests/support/run_nodes.py RESULTS.json [PART OF A RUN'S NAME]

A process of its own, because it changes torch and the host for good. RESULTS.json: {"called": ids of all nodes
called, "runs": run -> kind of device -> differences from the CPU's numbers, or the error}.
"""

import json
import sys
import tempfile
import time
import traceback
from dataclasses import fields, is_dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "scripts")]

import pack  # noqa: E402, found by the line above

pack.load()

import comfy.model_management  # noqa: E402, after the pack, which sets the host up
import torch  # noqa: E402
from comfy.cli_args import args  # noqa: E402
from comfy_api.latest import Input  # noqa: E402

from support import cuda_host, cuda_tensors, multigpu_runs, node_runs  # noqa: E402

TOTAL = 24e9  # bytes of each device


def tensors_in(value: object) -> list[torch.Tensor]:
    """All numbers in `value`, as CPU tensors, in order: of tensors, containers, dataclasses and videos."""
    if isinstance(value, torch.Tensor):
        return [value.cpu().double()]
    if isinstance(value, Input.Video):
        return tensors_in(value.get_components().images)
    if isinstance(value, dict):
        return [part for each in value.values() for part in tensors_in(each)]
    if isinstance(value, list | tuple) and all(isinstance(part, int | float) for part in value):
        return [torch.tensor(value).double()]
    if isinstance(value, list | tuple):
        return [part for each in value for part in tensors_in(each)]
    if is_dataclass(value):
        return [part for field in fields(value) for part in tensors_in(getattr(value, field.name))]
    if hasattr(value, "__array__") or isinstance(value, int | float):
        return [torch.as_tensor(value).double()]
    return []


def differences(one: list[torch.Tensor], other: list[torch.Tensor]) -> dict[str, float]:
    """The largest and the mean difference, relative to the largest number of each tensor (at least 1)."""
    if [each.shape for each in one] != [each.shape for each in other]:
        return {"largest": float("inf"), "mean": float("inf")}
    found = [(a - b).abs() / a.abs().max().clamp(min=1) for a, b in zip(one, other) if a.numel()]
    return {
        "largest": max((float(each.max()) for each in found), default=0.0),
        "mean": max((float(each.mean()) for each in found), default=0.0),
    }


def run_all(world: node_runs.World, runs: dict, results: dict, expected: dict) -> None:
    """Fill in `results` for the kind of `world`; `expected`: the CPU's numbers, filled in by the first world."""
    for name, run in runs.items():
        if world.kind == "mixed" and results[name]["gpu_only"].get("placed", 2) < 2:
            continue  # there is nothing to mix
        torch.manual_seed(0)
        world.turn = 0
        begun = time.perf_counter()
        try:
            found = tensors_in(run(world))
        except Exception as error:  # noqa: BLE001, whatever it is, it is the result
            frames = traceback.extract_tb(error.__traceback__)
            inside = [each for each in frames if "support" not in each.filename][-6:]
            places = " > ".join(f"{Path(each.filename).name}:{each.lineno}" for each in inside)
            results[name][world.kind] = {"error": f"{type(error).__name__}: {str(error)[:300]} ({places})"}
            continue
        results[name][world.kind] = differences(expected.setdefault(name, found), found) | {
            "placed": world.turn, "numbers": sum(each.numel() for each in found), "seconds": time.perf_counter() - begun
        }  # fmt: skip


def main(target: str, part: str = "") -> None:
    one, two = (
        {name: run for name, run in runs.items() if part in name} for runs in (node_runs.RUNS, multigpu_runs.RUNS)
    )
    results, expected, nodes = {name: {} for name in one | two}, {}, node_runs.load_nodes()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        node_runs.set_up_files(Path(folder))
        first = node_runs.World("cpu", Path(folder), nodes)
        run_all(first, one | two, results, expected)
        comfy.model_management.unload_all_models()
        cuda_tensors.install()
        for kind, runs in {"normal": one, "gpu_only": one, "mixed": one, "two": two}.items():
            args.gpu_only = kind in ("gpu_only", "mixed")
            cuda_host.install(2 if runs is two else 1, TOTAL, lambda _: 1e9, half=False)
            with cuda_tensors.CudaMode():
                run_all(node_runs.World(kind, Path(folder), nodes, first), runs, results, expected)
    Path(target).write_text(json.dumps({"called": sorted(first.called), "runs": results}, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
