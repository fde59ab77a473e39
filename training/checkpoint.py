"""Checkpoints of training: folders from which a run goes on to the bit, each there as a whole or not at all.

runs/NAME/STAGE/checkpoint-00000500/
    adapter.safetensors      in models/checkpoint.py's format, for ComfyUI as it is (stage base: base.safetensors)
    optimiser-0.safetensors  what the first process remembers, and its random numbers; -1 the second's, …
    state.json               step, configuration

VAE and motion head, which one process trains, have one file: write_file().
"""

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ..models import checkpoint as adapters
from ..models import whole_file
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

    On a machine with a disk of its own the memory of its processes stays in a folder ``.part``. Raises OSError when it
    could not be written on any of the processes; those that were there stay as they were.
    """
    target = run / folder_of(step)
    partial = target.with_suffix(".part")
    failure = _attempt(team, lambda: _begin(partial), only=0)
    failure = failure or _attempt(team, lambda: _write_memory(partial, team.rank, optimiser))
    failure = failure or _attempt(team, lambda: _finish(partial, target, step, family, configuration, team), only=0)
    if failure is None:
        there = complete(run) if team.rank == 0 else sorted(run.glob("checkpoint-*.part"))
        for old in there[: -configuration.run.keep]:
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
    partial.mkdir(parents=True, exist_ok=True)  # on another machine than the first process's it is not there
    state = {name: value.contiguous() for name, value in (optimiser.state() | random_state()).items()}
    safetensors.torch.save_file(state, partial / _memory(rank))


def _memory(rank: int) -> str:
    return f"optimiser-{rank}.safetensors"


def _finish(partial: Path, target: Path, step: int, family: Family, configuration: Configuration, team: Team) -> None:
    write_networks(partial, family, {"configuration": configuration.name, "step": step})
    state = {"format": FORMAT, "step": step, "name": configuration.name, "base": family.base_mark()}
    state["dataset"] = dataset.mark(configuration.data)
    state["configuration"] = configuration.fixed()
    state["processes"] = team.world
    (partial / STATE).write_text(json.dumps(state, indent=1))
    for path in partial.iterdir():
        whole_file.sync(path)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write what is to be at ``path`` as a whole or not at all.

    Raises OSError when it could not be written; what was there stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with whole_file.whole(path) as partial:
            yield partial
    except WRITE_ERRORS as error:
        raise OSError(f"{path} could not be written: {error}") from error


def write_file(path: Path, kind: str, told: dict, state: Mapping[str, Tensor]) -> None:
    """A checkpoint of one file: tensors, and what is ``told`` of them. Raises OSError as whole() does."""
    state = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    with whole(path) as partial:
        safetensors.torch.save_file(state, partial, metadata={kind: json.dumps(told)})


def read_file(path: Path, kind: str) -> tuple[dict, dict[str, Tensor]]:
    """What write_file() was told, and the tensors. Raises ValueError for a file of another kind."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            notes, state = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    if kind not in notes:
        raise ValueError(f"{path} is no checkpoint of {kind}.")
    return json.loads(notes[kind]), state


def under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def check_options(path: Path, done: int, was: dict, now: dict, cooldown: float) -> None:
    """Whether a run with the options ``now`` can go on from a checkpoint after ``done`` steps with the options ``was``.

    Their ``steps`` may differ until the rates fall, in the share ``cooldown`` of the steps: it changes no step that was
    made. Raises ValueError that names what differs.
    """
    if done <= (1 - cooldown) * min(was["steps"], now["steps"]):
        was = {**was, "steps": now["steps"]}
    different = _differences(was, now)
    if different:
        raise ValueError(
            f"{path} was made with other options: {'; '.join(different)}. Set them back, or choose another --run. "
            "Only --steps may change, as long as the learning rates have not begun to fall."
        )


def not_a_number(path: Path, step: int, loss: float, norm: float) -> str:
    """What to say when ``loss``, or the length ``norm`` of its gradient, is no number; ``path``: the checkpoint."""
    kept = f"The last good checkpoint is {path}" if path.is_file() else "There is no checkpoint yet"
    return (
        f"Step {step}: the loss is {loss} and its gradient {norm}. Nothing was updated. {kept}; take a smaller --rate "
        "and another --run."
    )


def write_networks(folder: Path, family: Family, provenance: dict, dtype: torch.dtype | None = None) -> Path:
    """The adapter of ``family`` (in stage base: the base) in ``folder``, as ComfyUI loads it; its path.

    dtype: of the file; None: as it is trained.
    """
    provenance = {"stage": family.stage, **provenance}
    if family.stage == BASE_STAGE:
        path = folder / BASE
        write_file(path, "training", provenance, _cast(family.base.state_dict(), dtype))
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

    Raises ValueError when the checkpoint belongs to another configuration, naming what differs, or lacks the memory of
    a process.
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
    for name in map(_memory, range(state.get("processes", 1))):
        if not (path / name).is_file():
            raise ValueError(
                f"{path} lacks {name}. It lies in {path.name}.part on the other machine that wrote it: copy it here."
            )
    load_networks(path, family)
    memory = {}
    for part in path.glob("optimiser-*.safetensors"):
        memory |= safetensors.torch.load_file(part)
    optimiser.load(memory)
    _restore_random(path / _memory(team.rank))
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
