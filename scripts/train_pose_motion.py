"""Train the motion head, which reads a background's motion from a pose, on rehearsed clips of the stage; measure it.

    $(python3 scripts/host.py --python) scripts/train_pose_motion.py train [--clips 30000] [--steps 32000]
    $(python3 scripts/host.py --python) scripts/train_pose_motion.py measure [--method learned] [--clips 200]

One thread; the same options give the same weights, to the bit, on one machine. Training leaves a checkpoint whenever it
measures, and when Ctrl-C stops it; --resume goes on from there. It sleeps while runs/PAUSE exists.
"""

import argparse
import csv
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, fields
from pathlib import Path

import pack

WEIGHTS = pack.ROOT / "weights" / "pose_motion" / "pose_motion.safetensors"
CURVE = ("step", "keypoints", "dx", "dy", "scale", "roll", "error of a still background's")


def train(arguments: argparse.Namespace) -> int:
    from animate_anywhere.models import pose_motion
    from animate_anywhere.training import checkpoint
    from animate_anywhere.training import pose_motion as training
    from animate_anywhere.training.train import PAUSE, Stops
    from tqdm import tqdm

    logging.basicConfig(level=logging.INFO, format="%(message)s")  # after the imports, which log a lot
    trainer, start = _trainer(arguments), time.process_time()
    options, first, every, stops = trainer.options, trainer.step, arguments.measure_every, Stops()
    with tqdm(total=options.clips, desc="rehearsing", unit="clip") as bar:
        clips = training.rehearse_clips(options.clips, progress=lambda done: bar.update(done - bar.n))
    known, rehearsed = held_out(arguments.measured), time.process_time()
    with ExitStack() as opened:
        losses = opened.enter_context(_table(arguments.run / "log.csv", ("step", "loss"), first - 1))
        curve = opened.enter_context(_table(arguments.run / "curve.csv", CURVE, first))
        bar = opened.enter_context(tqdm(total=options.steps, initial=first, unit="step"))
        opened.enter_context(stops.listening())

        def log(step: int, loss: float, network) -> None:
            losses.writerow((step, f"{loss:.5f}"))
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update()
            if (step + 1) % every == 0 or step + 1 == options.steps:
                curve.writerows(measured_rows(network, known, step + 1))

        done = training.train(trainer, clips, log, pack.ROOT / "runs" / PAUSE, every, stops)
    if not done:
        logging.info("Stopped after step %d of %d; go on with --resume.", trainer.step, options.steps)
        return 3
    seconds = round(rehearsed - start), round(time.process_time() - rehearsed)
    facts = asdict(options) | {"data": "synthetic stage, rehearsed", "licence": "GPL-3.0"}
    with checkpoint.whole(arguments.out) as partial:
        pose_motion.save(partial, trainer.network, facts)
    steps = options.steps - first
    print(f"{arguments.out}: {seconds[0]} s of one core for the clips, {seconds[1]} s for {steps} steps")
    return 0


def _trainer(arguments: argparse.Namespace):
    """The run that begins, or goes on. Raises ValueError before any work when it cannot."""
    from animate_anywhere.training import pose_motion as training

    given = {field.name: getattr(arguments, field.name) for field in fields(training.Options)}
    options = training.Options(**{name: value for name, value in given.items() if value is not None})
    if min(arguments.measure_every, arguments.measured) < 1:
        raise ValueError("--measure-every, --measured: 1 is the least.")
    if arguments.resume:
        return training.Trainer.resumed(arguments.run, options)
    if (arguments.run / training.CHECKPOINT).is_file():
        raise ValueError(f"{arguments.run} has a checkpoint already. Go on with --resume, or choose another --run.")
    return training.Trainer(arguments.run, options, _load("--start", arguments.start) if arguments.start else None)


def _load(option: str, path: Path):
    """The motion head at the ``path`` of an option. Raises ValueError when there is none."""
    import safetensors
    from animate_anywhere.models import pose_motion

    if not path.is_file():
        raise ValueError(f"{option}: there is no file {path}.")
    try:
        return pose_motion.load(path)
    except (ValueError, safetensors.SafetensorError) as error:
        raise ValueError(f"{option}: {path} is no motion head that this version reads.") from error


@contextmanager
def _table(path: Path, columns: tuple[str, ...], last: int) -> Iterator:
    """A CSV file that goes on after the step ``last``: what an earlier run wrote beyond it comes again."""
    rows = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in list(csv.reader(file))[1:] if int(row[0]) <= last]
    path.parent.mkdir(parents=True, exist_ok=True)
    # By lines: each is there before the checkpoint that knows it.
    with path.open("w", newline="", buffering=1, encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerows([columns, *rows])
        yield table


def held_out(count: int) -> list:
    """Rehearsed clips that no training sees."""
    from animate_anywhere.training import rehearsal, stage

    return [rehearsal.rehearse(stage.draw_plan(seed)) for seed in range(stage.HELD_OUT, stage.HELD_OUT + count)]


def measured_rows(network, known: list, step: int) -> list[tuple]:
    """Two lines of the curve: clean keypoints, and noisy ones."""
    from animate_anywhere.training import pose_figures

    rows = []
    for kind in ("clean", "noisy"):
        figures = pose_figures.measure(pose_figures.learned(network), known, kind == "noisy")
        rows.append((step, kind, *(f"{r:.3f}" for r in figures.correlation), f"{figures.error / figures.still:.3f}"))
    return rows


def measure(arguments: argparse.Namespace) -> int:
    from animate_anywhere.training import pose_figures

    read = pose_figures.geometry
    if arguments.method == "learned":
        read = pose_figures.learned(_load("--weights", arguments.weights))
    known = held_out(arguments.clips)
    told = [clip for clip in known if clip.told]
    for noisy in (False, True):
        for clips, which in ((known, "never trained on"), (told, "of them, whose planted foot is in the frame")):
            if not clips:
                continue
            print(f"{'noisy' if noisy else 'clean'} keypoints, {len(clips)} clips {which}:")
            for line in pose_figures.measure(read, clips, noisy).lines:
                print(f"  {line}")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("train")
    command.add_argument("--run", type=Path, default=pack.ROOT / "runs" / "pose_motion")
    command.add_argument("--out", type=Path, default=WEIGHTS)
    begin = command.add_mutually_exclusive_group()
    begin.add_argument("--start", type=Path, help="go on from these weights; take another --seed then")
    begin.add_argument("--resume", action="store_true", help="go on from the checkpoint in --run, to the bit")
    helped = "steps between two measurements in curve.csv, each with a checkpoint"
    command.add_argument("--measure-every", type=int, default=1000, help=helped)
    command.add_argument("--measured", type=int, default=200, help="clips of such a measurement")
    for name in ("clips", "steps", "warmup", "seed"):
        command.add_argument(f"--{name}", type=int)
    for name in ("muon-rate", "rate"):
        command.add_argument(f"--{name}", type=float)
    command.add_argument("--autocast", action=argparse.BooleanOptionalAction, help="bf16 arithmetic (default)")
    command.set_defaults(run_command=train)
    command = commands.add_parser("measure")
    command.add_argument("--weights", type=Path, default=WEIGHTS)
    command.add_argument("--method", choices=("learned", "geometry"), default="learned")
    command.add_argument("--clips", type=int, default=200)
    command.set_defaults(run_command=measure)
    arguments = parser.parse_args()
    pack.load()
    import torch
    from animate_anywhere.training.checkpoint import WRITE_ERRORS
    from animate_anywhere.training.train import TrainingError

    torch.set_num_threads(1)  # layers this small are not worth sharing, and one thread always adds in one order
    try:
        return arguments.run_command(arguments)
    except (ValueError, TrainingError, *WRITE_ERRORS) as error:
        print(f"train_pose_motion: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
