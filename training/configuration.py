"""Configurations of training: TOML files, one section a part, with changes for each stage.

[run]                     holds for every stage
[stages.joint.run]        changes it for stage joint
"""

import difflib
import types
import typing
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(__file__).resolve().with_name("configurations")


@dataclass(frozen=True)
class Model:
    """The base, its VAE, and the adapter on it. Heads have 64 channels. Paths are relative to the pack's folder."""

    heads: int
    blocks: int
    time_width: int
    text_width: int
    vae: str
    base: str = ""  # the frozen base's file; empty: what stage base of this run leaves
    rank: int = 32  # of the background motion learner; 0: none, as in table III
    dtype: str = "float32"  # of weights: float32, or bfloat16 with float32 copies in the optimiser


@dataclass(frozen=True)
class Data:
    """Where clips come from."""

    folder: str = ""  # of real videos, see scripts/prepare.py; empty: clips are drawn on the stage
    frames: int = 29
    sizes: tuple[tuple[int, int], ...] = ((128, 128), (160, 96), (96, 160))  # width, height; they take turns
    clips: int = 0  # different ones; 0: never the same twice (a video's comes again in another setting)
    first: int = 0  # seed of the first clip, or of the order of those in folder
    keep: bool = False  # encode all clips once, keep them in runs/latents, and hold them in memory
    workers: int = 2  # processes that draw clips
    fps: float = 16.0  # of clips prepared from videos: the whole fraction of a video's own rate that is nearest


@dataclass(frozen=True)
class Conditions:
    """What a sample tells the model; shares of all samples or steps."""

    clean_start: float = 0.5  # start picture without the character
    own_start: float = 0.25  # start picture with the character: how a clip goes on after another
    environment: float = 0.25  # the whole video, the character's region blanked
    drop_all: float = 0.1  # neither pose nor reference: the branch that guidance leads away from
    drop_pose: float = 0.05  # the reference alone
    drop_reference: float = 0.05  # the pose alone


@dataclass(frozen=True)
class Loss:
    """Eq. 7 of the paper. A weight of 0 leaves its part out altogether."""

    person: float = 0.0  # how much more the latent loss counts where the character is; 0: as in the paper
    timestep_shift: float = 1.0  # above 1, noisy timesteps come more often (samples.shifted); 1: as in the paper
    perceptual: float = 0.0
    vgg: str = ""  # file of VGG's weights; empty: edges and colours instead
    decoded: int = 0  # clips of a micro batch that are decoded at most, the others' share falling to them; 0: all
    window_latents: int = 0  # latent frames of a clip that are decoded, the first of them for memory; 0: the whole clip
    window_side: int = 0  # px of the square that is decoded then
    epipolar: float = 0.0
    percentile: float = 30.0  # δ; 100: 1 - M alone, as in the second row of table II
    queries: int = 64  # sampled in a clip
    probed_blocks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Optimiser:
    kind: str = "adamw"  # or muon: matrices of blocks by Muon, everything else by AdamW
    learning_rate: float = 1e-4
    muon_rate: float = 1e-3
    schedule: str = "constant"  # or cosine: down to nothing at the last step
    warmup: int = 0  # steps
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 1.0  # longest gradient
    offload: bool = False  # its state in the machine's memory: saves 12 bytes a trained weight on the GPUs


@dataclass(frozen=True)
class Run:
    """How long, how often, with what precision. ``batch`` counts all processes together."""

    steps: int = 1000
    batch: int = 8
    micro_batch: int = 8  # of one process at once; the rest is accumulated
    seed: int = 0
    autocast: bool = False  # bf16 arithmetic with float32 weights
    checkpointing: bool = False  # gradient checkpointing of blocks
    checkpoint_every: int = 500
    keep: int = 2  # checkpoints
    log_every: int = 10
    sample_every: int = 500  # steps between sample sheets; 0: none
    sample_steps: int = 10
    guidance: float = 2.5  # of sample sheets; section IV


@dataclass(frozen=True)
class Hardware:
    """What ``--plan`` reckons with."""

    devices: int = 1
    memory: float = 80.0  # GB a device
    teraflops: float = 100.0  # that a device really reaches


SECTIONS = {
    "model": Model,
    "data": Data,
    "conditions": Conditions,
    "loss": Loss,
    "optimiser": Optimiser,
    "run": Run,
    "hardware": Hardware,
}
# What may differ between a checkpoint and the run that goes on from it: it changes no step that was made.
FREE = {
    "data": {"workers", "keep", "folder", "fps"},  # a checkpoint knows what was in the folder, see checkpoint.py
    "model": {"base", "vae"},  # paths; the files may have moved
    "loss": {"vgg"},
    "optimiser": {"offload"},
    "run": {
        "steps",
        "micro_batch",
        "checkpoint_every",
        "keep",
        "log_every",
        "sample_every",
        "sample_steps",
        "guidance",
    },
}


@dataclass(frozen=True)
class Configuration:
    """One stage of one file."""

    name: str
    stage: str
    model: Model
    data: Data = field(default_factory=Data)
    conditions: Conditions = field(default_factory=Conditions)
    loss: Loss = field(default_factory=Loss)
    optimiser: Optimiser = field(default_factory=Optimiser)
    run: Run = field(default_factory=Run)
    hardware: Hardware = field(default_factory=Hardware)

    def fixed(self) -> dict:
        """What a checkpoint and the run that goes on from it must have in common, as plain values for JSON."""
        sections = {name: asdict(getattr(self, name)) for name in SECTIONS if name != "hardware"}
        kept = {
            name: {key: value for key, value in section.items() if key not in FREE.get(name, ())}
            for name, section in sections.items()
        }
        if self.optimiser.schedule == "cosine":  # it ends where the run ends
            kept["run"]["steps"] = self.run.steps
        return {"stage": self.stage, **kept}


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def _read(name: str) -> tuple[Path, dict]:
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        raise ValueError(f"There is no configuration {name}. Give a .toml file or one of: {', '.join(names())}.")
    try:
        return path, tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path.name}: {error}.") from error


def stages_of(name: str) -> list[str]:
    """The stages of the configuration ``name``, in their order."""
    return list(_read(name)[1].get("stages", {}))


def load(name: str, stage: str, changes: Iterable[str] = ()) -> Configuration:
    """Stage ``stage`` of the configuration ``name``: one of names(), or a TOML file.

    changes: ``section.key=value`` with TOML values, on top of the file. Raises ValueError that names the file, the key
    and what was expected.
    """
    path, tables = _read(name)
    stages = tables.pop("stages", {})
    _check_keys(path.name, "", tables, SECTIONS)
    if stage not in stages:
        raise ValueError(f"{path.name} has no stage {stage!r}. Its stages: {', '.join(stages)}.")
    for stage_name, own in stages.items():  # all of them, so that a typing error shows before the first stage ends
        _check_keys(path.name, f"stages.{stage_name}.", own, SECTIONS)
        _sections(path.name, _merged(tables, own))
    merged = _merged(_merged(tables, stages[stage]), _parse_changes(changes))
    configuration = Configuration(path.stem, stage, **_sections(path.name, merged))
    _check_values(path.name, configuration)
    return configuration


def _check_keys(file: str, where: str, found: dict, known: Iterable[str]) -> None:
    for key in found:
        if key not in known:
            near = difflib.get_close_matches(key, list(known), n=1)
            hint = f" Did you mean {where}{near[0]}?" if near else ""
            raise ValueError(f"{file}: unknown key {where}{key}.{hint} Known here: {', '.join(known)}.")


def _merged(tables: dict, changes: dict) -> dict:
    return {name: {**tables.get(name, {}), **changes.get(name, {})} for name in {**tables, **changes}}


def _parse_changes(changes: Iterable[str]) -> dict:
    tables = {}
    for change in changes:
        key, equals, value = change.partition("=")
        section, dot, name = key.strip().partition(".")
        if not (equals and dot) or section not in SECTIONS:
            raise ValueError(f"--set {change}: expected section.key=value with one of {', '.join(SECTIONS)}.")
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed = value  # a text without quotation marks, as a shell leaves it
        tables.setdefault(section, {})[name] = parsed
    return tables


def _sections(file: str, tables: dict) -> dict:
    return {name: _build(file, name, kind, tables.get(name, {})) for name, kind in SECTIONS.items()}


def _build(file: str, section: str, kind: type, values: dict):
    """The dataclass ``kind`` from a table, its types checked."""
    hints = typing.get_type_hints(kind)
    _check_keys(file, f"{section}.", values, [item.name for item in fields(kind)])
    try:
        return kind(**{key: _fit(hints[key], value) for key, value in values.items()})
    except TypeError as error:
        raise ValueError(f"{file}: [{section}] {str(error).removeprefix(f'{kind.__name__}.__init__() ')}.") from error
    except ValueError as error:
        raise ValueError(f"{file}: [{section}] {error}") from error


def _fit(expected, value):
    """``value`` of TOML as ``expected``: a plain type, or a tuple of them. Raises ValueError."""
    if isinstance(expected, types.GenericAlias):
        inner = typing.get_args(expected)
        if not isinstance(value, list) or (inner[-1] is not ... and len(value) != len(inner)):
            raise ValueError(f"expected a list like {expected}, found {value!r}.")
        return tuple(_fit(inner[0], item) for item in value)
    if expected is float and type(value) is int:
        return float(value)
    if type(value) is not expected:
        raise ValueError(f"expected {expected.__name__}, found {value!r}.")
    return value


def _check_values(file: str, configuration: Configuration) -> None:
    """Raise ValueError for values that would fail late."""
    from ..models import latents

    model, data, run, conditions = (getattr(configuration, name) for name in ("model", "data", "run", "conditions"))
    choices = {
        "model.dtype": (model.dtype, ("float32", "bfloat16")),
        "optimiser.kind": (configuration.optimiser.kind, ("adamw", "muon")),
        "optimiser.schedule": (configuration.optimiser.schedule, ("constant", "cosine")),
    }
    for key, (value, known) in choices.items():
        if value not in known:
            raise ValueError(f"{file}: {key} is {value!r}; choose one of {', '.join(known)}.")
    if not data.fps > 0:
        raise ValueError(f"{file}: data.fps is {data.fps:g}; it must be more than 0.")
    for key, value in {"run.steps": run.steps, "run.batch": run.batch, "run.micro_batch": run.micro_batch}.items():
        if value < 1:
            raise ValueError(f"{file}: {key} is {value}; it must be 1 or more.")
    latents.check_length(data.frames, f"{file}: data.frames")
    for width, height in data.sizes:
        latents.check_size(width, height)
    starts = conditions.clean_start + conditions.own_start + conditions.environment
    if abs(starts - 1) > 1e-6:
        raise ValueError(f"{file}: clean_start, own_start and environment share all samples; their sum is {starts:g}.")
    if configuration.loss.person < 0:
        raise ValueError(f"{file}: loss.person {configuration.loss.person}: it is an extra weight, from 0 on.")
    if not configuration.loss.timestep_shift > 0:
        shift = configuration.loss.timestep_shift
        raise ValueError(f"{file}: loss.timestep_shift is {shift:g}; it must be more than 0, and 1 changes nothing.")
    if not all(0 <= block < model.blocks for block in configuration.loss.probed_blocks):
        raise ValueError(f"{file}: loss.probed_blocks {configuration.loss.probed_blocks}: there are {model.blocks}.")
    if data.keep and not data.clips:
        raise ValueError(f"{file}: data.keep needs a number of data.clips; endless ones cannot be kept.")
