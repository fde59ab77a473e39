"""Where the batches of a run come from: clips drawn as they are needed, or kept ones that were encoded once."""

import logging
import pickle
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

from . import dataset
from .autoencoder import Autoencoder
from .configuration import Configuration, Data
from .encoded import Encoded, Kept, encode
from .journal import span
from .samples import Draw, Sample, draw_sample, draw_step, held_out_numbers
from .stage import HELD_OUT

AHEAD = 2  # steps, or files, that each worker draws in advance

log = logging.getLogger(__name__)

Piece = tuple[Draw, Encoded]


class Clips(Dataset):
    """Item i: the samples of i-th of ``groups`` of clip numbers."""

    def __init__(self, data: Data, groups) -> None:
        self.data = data
        self.groups = groups

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> bytes:
        """Pickled, so that it goes through a pipe: tensors would go through shared memory, of which containers have
        little, and a file of clips is 200 MB."""
        return pickle.dumps([draw_sample(self.data, number) for number in self.groups[index]])


def _draw(clips: Clips, order: range) -> Iterator[list[Sample]]:
    """Items ``order`` of ``clips``, drawn ahead by their workers."""
    workers = min(clips.data.workers, len(order))
    ahead = {"prefetch_factor": AHEAD} if workers else {}
    # A generator of its own: otherwise every loader takes a number from the global one, and a resumed run one more.
    generator = torch.Generator()
    loader = DataLoader(
        clips, batch_size=None, sampler=order, num_workers=workers, collate_fn=_as_it_is, generator=generator, **ahead
    )
    return map(pickle.loads, loader)


def _as_it_is(item: bytes) -> bytes:
    return item


class _Numbers:
    """Clip numbers of every step, for one process."""

    def __init__(self, supply: "Supply") -> None:
        self.supply = supply

    def __len__(self) -> int:
        return self.supply.configuration.run.steps

    def __getitem__(self, step: int) -> list[int]:
        return [number for piece in self.supply.pieces(step) for number in piece.numbers]


class Supply:
    """Batches for process ``rank`` of ``world``."""

    def __init__(
        self, configuration: Configuration, vae: Autoencoder, device: torch.device, rank: int = 0, world: int = 1
    ) -> None:
        batch = configuration.run.batch
        if batch % world:
            raise ValueError(f"run.batch is {batch}; {world} processes cannot share it evenly.")
        share = batch // world
        self.size = min(configuration.run.micro_batch, share)
        if share % self.size:
            raise ValueError(
                f"run.micro_batch is {self.size}; the {share} samples of a process cannot be split into such pieces."
            )
        if configuration.data.folder:
            dataset.load(configuration.data.folder).check(configuration.data)
        self.configuration = configuration
        self.vae = vae
        self.device = device
        self.rank = rank
        self.world = world
        self.kept: Kept | None = None

    def draw(self, step: int) -> Draw:
        run = self.configuration.run
        settings = self.configuration
        shift = settings.loss.timestep_shift
        return draw_step(run.seed, step, run.batch, settings.stage, settings.data, settings.conditions, shift)

    def pieces(self, step: int) -> list[Draw]:
        return list(self.draw(step).part(self.rank, self.world, self.size))

    def steps(self, start: int, stop: int) -> Iterator[list[Piece]]:
        """The batches of steps ``start`` to ``stop`` - 1, on the training device."""
        if self.kept is not None:
            for step in range(start, stop):
                yield [(piece, self.kept.batch(piece.numbers).to(self.device)) for piece in self.pieces(step)]
            return
        with_frames = self.configuration.loss.perceptual > 0
        clips = Clips(self.configuration.data, _Numbers(self))
        for step, samples in zip(range(start, stop), _draw(clips, range(start, stop))):
            pieces = self.pieces(step)
            yield [
                (piece, encode(samples[i * self.size : (i + 1) * self.size], self.vae, with_frames).to(self.device))
                for i, piece in enumerate(pieces)
            ]

    def keep(self, runs: Path, vae: Path, wait) -> None:
        """Encode what is not there yet of all clips, shared out over the processes, and take them into memory.

        wait: called when this process is done, returns when all are.
        """
        kept = Kept(runs, self.configuration, vae)
        missing = kept.missing()[self.rank :: self.world]
        clips = Clips(self.configuration.data, [kept.numbers(*shard) for shard in missing])
        begun = time.monotonic()
        for done, (shard, samples) in enumerate(zip(missing, _draw(clips, range(len(missing)))), 1):
            kept.write(shard, encode(samples, self.vae))
            seconds = time.monotonic() - begun
            rate = done * len(samples) / seconds
            left = span((len(missing) - done) / done * seconds)
            log.info("Clips: %d of %d files, %.1f clips/s, %s left", done, len(missing), rate, left)
        wait()
        kept.read(self.device)
        self.kept = kept

    def held_out(self, count: int) -> tuple[Draw, Encoded]:
        """``count`` clips that are never trained on, at noise spread evenly, with all conditions."""
        data = self.configuration.data
        numbers = held_out_numbers(data, count)
        batch = encode([draw_sample(data, number) for number in numbers], self.vae).to(self.device)
        everything = replace(self.configuration.conditions, drop_all=0.0, drop_pose=0.0, drop_reference=0.0)
        draw = draw_step(HELD_OUT, 0, count, self.configuration.stage, data, everything)
        return replace(draw, numbers=numbers), batch
