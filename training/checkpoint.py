"""Checkpoints of training: folders from which a run goes on to the bit, each there as a whole or not at all.

runs/NAME/STAGE/checkpoint-00000500/
    adapter.safetensors      in models/checkpoint.py's format, for ComfyUI as it is (stage base: base.safetensors)
    optimiser-0.safetensors  what the first process remembers, and its random numbers; -1 the second's, …
    state.json               step, configuration
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ..models import checkpoint as adapters
from . import dataset
from .configuration import Configuration
from .networks import BASE_STAGE, Family
from .optimiser import Optimiser

FORMAT = 1
ADAPTER, BASE, STATE = "adapter.safetensors", "base.safetensors", "state.json"
RANDOM = "random."  # prefix of random number states beside the optimiser's
# What safetensors raises for a full disk is an error of its own.
WRITE_ERRORS = (OSError, safetensors.SafetensorError)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Team:
    """The processes that train together. ``agree``: whether all say yes; it is also where they wait for each other."""

    rank: int = 0
    world: int = 1
    agree: Callable[[bool], bool] = lambda yes: yes


def folder_of(step: int) -> str:
    return f"checkpoint-{step:08d}"


def complete(run: Path) -> list[Path]:
    """The checkpoints in ``run``, oldest first."""
    return sorted(state.parent for state in run.glob(f"{folder_of(0)[:-8]}*/{STATE}") if state.parent.suffix != ".part")


def is_finished(run: Path, configuration: Configuration) -> bool:
    """Whether there is a checkpoint of the last step of ``configuration``."""
    there = complete(run)
    return bool(there) and there[-1].name == folder_of(configuration.run.steps)


def save(run: Path, step: int, family: Family, optimiser: Optimiser, configuration: Configuration, team: Team) -> Path:
    """Write the checkpoint of ``step``, and then let go of all but the newest ``run.keep``.

    Raises OSError when it could not be written on any of the processes; those that were there stay as they were.
    """
    target = run / folder_of(step)
    partial = target.with_suffix(".part")
    failure = _attempt(team, lambda: _begin(partial), only=0)
    failure = failure or _attempt(team, lambda: _write_memory(partial, team.rank, optimiser))
    failure = failure or _attempt(team, lambda: _finish(partial, target, step, family, configuration), only=0)
    if failure is None:
        if team.rank == 0:
            for old in complete(run)[: -configuration.run.keep]:
                shutil.rmtree(old, ignore_errors=True)
        return target
    if team.rank == 0:
        shutil.rmtree(partial, ignore_errors=True)
    raise OSError(f"The checkpoint of step {step} could not be written to {run}: {failure}") from failure


def _attempt(team: Team, write: Callable[[], None], only: int | None = None) -> Exception | None:
    """Run ``write`` (on process ``only``, or on all): what went wrong on this one or another, None if nothing did."""
    failure = None
    try:
        if only in (None, team.rank):
            write()
    except WRITE_ERRORS as error:
        failure = error
    if team.agree(failure is None):
        return None
    return failure or OSError("another process failed")


def _begin(partial: Path) -> None:
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)


def _write_memory(partial: Path, rank: int, optimiser: Optimiser) -> None:
    state = {name: value.contiguous() for name, value in (optimiser.state() | random_state()).items()}
    safetensors.torch.save_file(state, partial / f"optimiser-{rank}.safetensors")


def _finish(partial: Path, target: Path, step: int, family: Family, configuration: Configuration) -> None:
    write_networks(partial, family, {"configuration": configuration.name, "step": step})
    state = {"format": FORMAT, "step": step, "name": configuration.name, "base": family.base_mark()}
    state["dataset"] = dataset.mark(configuration.data)
    state["configuration"] = configuration.fixed()
    (partial / STATE).write_text(json.dumps(state, indent=1))
    # On the disk before it has its name: a crash of the machine must not leave half of it.
    for path in partial.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def write_networks(folder: Path, family: Family, provenance: dict, dtype: torch.dtype | None = None) -> Path:
    """The adapter of ``family`` (in stage base: the base) in ``folder``, as ComfyUI loads it; its path.

    dtype: of the file; None: as it is trained.
    """
    provenance = {"stage": family.stage, **provenance}
    if family.stage == BASE_STAGE:
        path = folder / BASE
        written = path.with_suffix(".part")
        metadata = {"training": json.dumps(provenance)}
        safetensors.torch.save_file(_cast(family.base.state_dict(), dtype), written, metadata=metadata)
        os.replace(written, path)
        return path
    path = folder / ADAPTER
    groups = {name: _cast(state, dtype) for name, state in family.file_groups().items()}
    adapters.save(path, adapters.Base.of(family.base), groups, training=provenance)
    return path


def _cast(state: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    return {name: value.to(dtype or value.dtype).contiguous() for name, value in state.items()}


def random_state() -> dict[str, Tensor]:
    """Nothing in training draws from these, but what is not ours might."""
    state = {f"{RANDOM}torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        state[f"{RANDOM}cuda"] = torch.cuda.get_rng_state()
    return state


def newest(run: Path) -> Path:
    """The checkpoint to go on from. Raises ValueError when there is none."""
    there = complete(run)
    if not there:
        raise ValueError(f"--resume: there is no checkpoint in {run}. Start without --resume.")
    return there[-1]


def load(path: Path, family: Family, optimiser: Optimiser, configuration: Configuration, team: Team) -> int:
    """Put family and optimiser where they were; the step that comes next.

    Raises ValueError when the checkpoint belongs to another configuration, naming what differs.
    """
    state = json.loads((path / STATE).read_text())
    if state.get("format") != FORMAT:
        raise ValueError(f"{path} has format {state.get('format')}; this version reads format {FORMAT}.")
    different = _differences(state["configuration"], json.loads(json.dumps(configuration.fixed())))
    if different:
        raise ValueError(
            f"{path.name} was made with another configuration: {'; '.join(different)}. Set them back, or start a run "
            "of another --name."
        )
    if state["base"] != family.base_mark():
        raise ValueError(
            f"{path.name} was trained on another base than the one that model.base names or stage base left."
        )
    if state.get("dataset", "") != dataset.mark(configuration.data):
        raise ValueError(
            f"{path.name} was trained on other clips than those in data.folder "
            f"({configuration.data.folder or 'not set'}). Set it back, or start a run of another --name."
        )
    load_networks(path, family)
    memory = {}
    for part in path.glob("optimiser-*.safetensors"):
        memory |= safetensors.torch.load_file(part)
    optimiser.load(memory)
    _restore_random(path / f"optimiser-{team.rank}.safetensors")
    return state["step"]


def load_networks(path: Path, family: Family) -> None:
    """Take over what is trained in the folder ``path`` of a checkpoint, or of a finished stage."""
    if family.stage == BASE_STAGE:
        family.base.load_state_dict(safetensors.torch.load_file(path / BASE))
    else:
        family.load_groups(adapters.read(path / ADAPTER)[1])


def _restore_random(path: Path) -> None:
    if not path.is_file():  # more processes than there were
        return
    with safetensors.safe_open(path, framework="pt") as file:
        names = set(file.keys())
        if f"{RANDOM}torch" in names:
            torch.set_rng_state(file.get_tensor(f"{RANDOM}torch"))
        if f"{RANDOM}cuda" in names and torch.cuda.is_available():
            torch.cuda.set_rng_state(file.get_tensor(f"{RANDOM}cuda"))


def _differences(there: dict, here: dict, prefix: str = "") -> list[str]:
    """Lines "key: was X, is Y" of two nested dictionaries."""
    lines = []
    for key in sorted({*there, *here}):
        was, now = there.get(key), here.get(key)
        if isinstance(was, dict) and isinstance(now, dict):
            lines += _differences(was, now, f"{prefix}{key}.")
        elif was != now:
            lines.append(f"{prefix}{key} was {was}, is {now}")
    return lines
