"""Training of the stages: base (the tiny family's own), then the paper's three (AnimateAnywhere IV-A); and DynamiCtrl's
three ways to follow a pose, each alone.

Run it through scripts/train.py, plainly or under ``accelerate launch``.
"""

import logging
import math
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor

from ..models import checkpoint as adapters
from . import checkpoint, dataset, sheet
from .autoencoder import Autoencoder
from .checkpoint import Team
from .configuration import ROOT, Configuration
from .journal import Journal
from .networks import BASE_STAGE, STAGES, Family, base_of, build_base, groups_of, load_base
from .objective import Objective
from .optimiser import Optimiser, learning_rate
from .supply import Piece, Supply

PAUSE = "PAUSE"  # a file of this name in the runs folder stops all runs until it is taken away
HELD_OUT_CLIPS = 6  # of the curve "held_out" and of sample sheets
SHEET_CLIPS = 3
# What --smoke makes of any configuration: every part once, in seconds.
SMOKE = (
    "run.steps=3", "run.batch=2", "run.micro_batch=1", "run.checkpoint_every=2", "run.log_every=1",
    "run.sample_every=3", "run.sample_steps=2", "data.frames=13", "data.sizes=[[64, 64]]", "data.clips=4",
    "data.workers=0", "loss.decoded=0",
)  # fmt: skip

log = logging.getLogger(__name__)


class TrainingError(RuntimeError):
    """Training cannot go on; what happened, and what to do, in one line."""


def team_of(accelerator: Accelerator) -> Team:
    def agree(yes: bool) -> bool:
        votes = torch.tensor(float(yes), device=accelerator.device)
        if accelerator.num_processes > 1:
            dist.all_reduce(votes, dist.ReduceOp.MIN)
        return bool(votes > 0)

    return Team(accelerator.process_index, accelerator.num_processes, agree)


@dataclass
class Stops:
    """What can end a run early: a limit of minutes, or a signal."""

    minutes: float = 0.0
    asked: bool = False

    def __post_init__(self) -> None:
        self.begun = time.monotonic()

    @property
    def due(self) -> bool:
        return self.asked or (self.minutes > 0 and time.monotonic() - self.begun > 60 * self.minutes)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take Ctrl-C and a polite kill as the wish to stop after the step at hand, with a checkpoint."""

        def ask(*_) -> None:
            self.asked = True
            log.info("Stopping after this step.")

        before = {kind: signal.signal(kind, ask) for kind in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)


class Trainer:
    """One stage of one run, in ``runs``/``name``/stage.

    Raises ValueError, before heavy work where it can, when files are missing or do not belong together.
    """

    def __init__(
        self, configuration: Configuration, runs: Path, name: str = "", resume: bool = False, start: Path | None = None,
        accelerator: Accelerator | None = None,
    ) -> None:  # fmt: skip
        self.configuration = configuration
        self.runs = runs
        self.run_folder = runs / (name or configuration.name)
        self.folder = self.run_folder / configuration.stage
        self.resume = resume
        there = checkpoint.complete(self.folder)
        if there and not resume:
            raise ValueError(f"{self.folder} has checkpoints already. Go on with --resume, or choose another --name.")
        self.accelerator = accelerator or Accelerator(cpu=not torch.cuda.is_available())
        self.team = team_of(self.accelerator)
        self.device = self.accelerator.device
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
        self.family = self._build_family(start)
        encoding = torch.bfloat16 if configuration.run.autocast else torch.float32
        self.vae = Autoencoder(ROOT / configuration.model.vae, base_of(configuration.model), self.device, encoding)
        self.objective = Objective(configuration, self.vae, self.device, ROOT)
        self.supply = Supply(configuration, self.vae, self.device, self.team.rank, self.team.world)
        trained = {name: value for name, value in self.family.named_parameters() if value.requires_grad}
        self.optimiser = Optimiser(trained, configuration.optimiser, self.team.rank, self.team.world)
        self.first = self._resume() if resume else 0
        self.held_out: Piece | None = None

    # --- before the first step ---

    def _build_family(self, start: Path | None) -> Family:
        model, stage, seed = self.configuration.model, self.configuration.stage, self.configuration.run.seed
        dtype = getattr(torch, model.dtype)
        torch.manual_seed(seed)
        if stage == BASE_STAGE:
            base = build_base(base_of(model), dtype=dtype)
        else:
            base = load_base(self._base_file(), base_of(model), dtype)
        family = Family(base.to(self.device), stage, model.rank, seed)
        if start is not None or not self.resume:
            self._begin_with(family, start or self._previous(stage))
        return family.checkpoint_blocks() if self.configuration.run.checkpointing else family

    def _base_file(self) -> Path:
        named = self.configuration.model.base
        return ROOT / named if named else self.run_folder / BASE_STAGE / checkpoint.BASE

    def _previous(self, stage: str) -> Path | None:
        """Where the stage before left what this one goes on with; None for a stage that begins anew."""
        order = list(STAGES)
        before = order[order.index(stage) - 1]
        if not set(groups_of(before)).intersection(groups_of(stage)):
            return None
        there = checkpoint.complete(self.run_folder / before)
        if not there:
            raise ValueError(
                f"Stage {stage} goes on where stage {before} ended, and there is no checkpoint in "
                f"{self.run_folder / before}. Train {before} first, or name an adapter with --start."
            )
        return there[-1]

    def _begin_with(self, family: Family, start: Path | None) -> None:
        """Take over the networks in ``start``: a file of the base or the adapter, or a folder with one."""
        if start is None:
            return
        path = (
            start / (checkpoint.BASE if family.stage == BASE_STAGE else checkpoint.ADAPTER) if start.is_dir() else start
        )
        if not path.is_file():
            raise ValueError(f"--start: there is no file {path}.")
        if family.stage == BASE_STAGE:
            family.base.load_state_dict(load_base(path, adapters.Base.of(family.base), family.dtype).state_dict())
            return
        header, groups = adapters.read(path)
        if header.base != adapters.Base.of(family.base):
            raise ValueError(
                f"--start: {path} was made for {header.base}; this is {base_of(self.configuration.model)}."
            )
        taken = family.load_groups(groups)
        if not taken:
            raise ValueError(f"--start: {path} has {', '.join(groups)}; stage {family.stage} has nothing of it.")
        log.info("Stage %s begins with %s of %s.", family.stage, ", ".join(taken), path)

    def _resume(self) -> int:
        path = checkpoint.newest(self.folder)
        step = checkpoint.load(path, self.family, self.optimiser, self.configuration, self.team)
        log.info("Going on after step %d, from %s.", step, path)
        return step

    # --- steps ---

    def run(self, stops: Stops | None = None) -> bool:
        """Train until the last step; whether it was reached. Raises TrainingError when the loss is no number."""
        stops, run = stops or Stops(), self.configuration.run
        if self.first >= run.steps:
            return True
        if self.configuration.data.keep:
            self.supply.keep(self.runs, ROOT / self.configuration.model.vae, self.accelerator.wait_for_everyone)
        journal = None
        if self.team.rank == 0:
            shutil.rmtree(self.folder / checkpoint.folder_of(0), ignore_errors=True)
            journal = Journal(self.folder, self.configuration.stage, self.first, run.steps)
        try:
            return self._loop(stops, journal)
        finally:
            if journal is not None:
                journal.close()

    def _loop(self, stops: Stops, journal: Journal | None) -> bool:
        run = self.configuration.run
        for step, pieces in zip(range(self.first, run.steps), self.supply.steps(self.first, run.steps)):
            figures, done = self.step(step, pieces), step + 1
            if journal is not None:
                journal.add(figures)
                self._report(journal, done)
            stopping = not self.team.agree(not stops.due)
            if done % run.checkpoint_every == 0 or done == run.steps or stopping:
                self._save(done, last=done == run.steps or stopping)
            if stopping and done < run.steps:
                log.info("Stopped after step %d of %d; go on with --resume.", done, run.steps)
                return False
            self._wait_while_paused(done, stops, journal)
        return True

    def step(self, step: int, pieces: list[Piece]) -> dict[str, float]:
        """One update; its figures, averaged over the processes."""
        found = self.gradients(pieces)
        norm = self.optimiser.reduce()
        loss = float(found[0])
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingError(self._not_a_number(step, loss, norm))
        settings = self.configuration.optimiser
        factor = learning_rate(settings, step, self.configuration.run.steps)
        self.optimiser.step(factor, norm)
        parts = dict(zip(("loss", "latent", "perceptual", "epipolar"), found.tolist()))
        return {**parts, "gradient": norm, "rate": factor * settings.learning_rate}

    def gradients(self, pieces: list[Piece]) -> Tensor:
        """Add the gradients of this process's pieces of a step; the mean losses [4] of all processes."""
        found = torch.zeros(4, device=self.device)
        for draw, batch in pieces:
            losses = self.objective.backward(self.family, batch, draw, 1 / len(pieces))
            found += torch.stack([part.float() for part in losses]) / len(pieces)
        if self.team.world > 1:
            dist.all_reduce(found)
            found /= self.team.world
        return found.cpu()

    def _not_a_number(self, step: int, loss: float, norm: float) -> str:
        there = checkpoint.complete(self.folder)
        kept = f"The last good checkpoint is {there[-1]}" if there else "There is no checkpoint yet"
        return (
            f"Step {step}: the loss is {loss} and its gradient {norm}. Nothing was updated. {kept}; begin a run with a "
            "lower learning rate from it: --start CHECKPOINT --name OTHER --set optimiser.learning_rate=…"
        )

    # --- between steps ---

    def _report(self, journal: Journal, done: int) -> None:
        run = self.configuration.run
        last = done == run.steps
        extra = {}
        if run.sample_every and (done % run.sample_every == 0 or last):
            begun = time.monotonic()
            extra["held_out"] = self._look(done)
            journal.skip_time(time.monotonic() - begun)
        if done % run.log_every == 0 or last or extra:
            journal.line(done, extra)

    def _look(self, done: int) -> float:
        """Draw a sample sheet; the latent loss on held-out clips."""
        if self.held_out is None:
            self.held_out = self.supply.held_out(HELD_OUT_CLIPS)
        draw, batch = self.held_out
        run, clips = self.configuration.run, batch.pick(slice(SHEET_CLIPS))
        starts = draw.starts[:SHEET_CLIPS]
        guider = sheet.Guider(self.family, clips, starts, run.guidance, run.autocast)
        sampled = sheet.sample(guider, run.sample_steps)
        sheet.draw(self.vae, clips, starts, sampled, self.folder / "sheets" / f"{done:08d}.png")
        return self.objective.measure(self.family, batch, draw)

    def _save(self, done: int, last: bool) -> None:
        """A checkpoint, and the networks as ComfyUI wants them. On a full disk training goes on: room may be made
        before the next one. Only the last one has no next."""
        try:
            checkpoint.save(self.folder, done, self.family, self.optimiser, self.configuration, self.team)
            if self.team.rank == 0:
                facts = {"configuration": self.configuration.name, "step": done, "seed": self.configuration.run.seed}
                facts["data"] = dataset.mark(self.configuration.data) or "stage"
                checkpoint.write_networks(self.folder, self.family, facts, torch.bfloat16)
        except checkpoint.WRITE_ERRORS as error:
            there = checkpoint.complete(self.folder)
            kept = f" The last good one is {there[-1].name}." if there else ""
            if last:
                raise TrainingError(f"{error}.{kept} Make room and go on with --resume.") from error
            log.error("%s.%s Training goes on; make room before the next one.", error, kept)

    def _wait_while_paused(self, done: int, stops: Stops, journal: Journal | None) -> None:
        pause = self.runs / PAUSE
        begun = time.monotonic()
        # All processes must see the same: a file may appear between two looks.
        paused = not self.team.agree(not pause.exists())
        if not paused:
            return
        log.info("Paused after step %d; take %s away to go on.", done, pause)
        self._save(done, last=False)
        while not self.team.agree(not pause.exists() or stops.asked):
            time.sleep(1)
        waited = time.monotonic() - begun
        stops.begun += waited
        if journal is not None:
            journal.skip_time(waited)


def train_all(
    stages: list[Configuration], runs: Path, name: str, resume: bool, stops: Stops, start: Path | None = None,
    accelerator: Accelerator | None = None,
) -> bool:  # fmt: skip
    """The stages one after the other; whether all reached their end. With ``resume``, finished ones are passed over and
    the one that was left off goes on."""
    for configuration in stages:
        folder = runs / name / configuration.stage
        if resume and len(stages) > 1 and checkpoint.is_finished(folder, configuration):
            log.info("Stage %s is finished.", configuration.stage)
            continue
        again = resume and (bool(checkpoint.complete(folder)) or len(stages) == 1)
        trainer = Trainer(configuration, runs, name, again, start, accelerator)
        start = None
        if not trainer.run(stops):
            return False
    return True
