"""Train the motion head, which reads a background's motion from a pose, on rehearsed clips of the stage; measure it.

    $(python3 scripts/host.py --python) scripts/train_pose_motion.py train [--clips 30000] [--steps 32000]
    $(python3 scripts/host.py --python) scripts/train_pose_motion.py measure [--method learned] [--clips 200]

One thread; the same options give the same weights, to the bit, on one machine.
"""

import argparse
import csv
import time
from contextlib import ExitStack
from dataclasses import asdict, fields
from pathlib import Path

import pack

WEIGHTS = pack.ROOT / "weights" / "pose_motion" / "pose_motion.safetensors"


def train(arguments: argparse.Namespace) -> None:
    from animate_anywhere.models import pose_motion
    from animate_anywhere.training import pose_motion as training
    from tqdm import tqdm

    given = {field.name: getattr(arguments, field.name) for field in fields(training.Options)}
    options = training.Options(**{name: value for name, value in given.items() if value is not None})
    start = time.process_time()
    with tqdm(total=options.clips, desc="rehearsing", unit="clip") as bar:
        clips = training.rehearse_clips(options.clips, progress=lambda done: bar.update(done - bar.n))
    known, rehearsed = held_out(arguments.measured), time.process_time()
    arguments.run.mkdir(parents=True, exist_ok=True)
    with ExitStack() as files:
        losses, curve = (
            csv.writer(files.enter_context((arguments.run / name).open("w", newline="")))
            for name in ("log.csv", "curve.csv")
        )
        bar = files.enter_context(tqdm(total=options.steps, unit="step"))
        losses.writerow(("step", "loss"))
        curve.writerow(("step", "keypoints", "dx", "dy", "scale", "roll", "error of a still background's"))

        def log(step: int, loss: float, network) -> None:
            losses.writerow((step, f"{loss:.5f}"))
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update()
            if (step + 1) % arguments.measure_every == 0 or step + 1 == options.steps:
                curve.writerows(measured_rows(network, known, step + 1))

        network = training.train(clips, options, log, pose_motion.load(arguments.start) if arguments.start else None)
    seconds = round(rehearsed - start), round(time.process_time() - rehearsed)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    facts = asdict(options) | {"data": "synthetic stage, rehearsed", "licence": "GPL-3.0"}
    pose_motion.save(arguments.out, network, facts)
    print(f"{arguments.out}: {seconds[0]} s of one core for the clips, {seconds[1]} s for {options.steps} steps")


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


def measure(arguments: argparse.Namespace) -> None:
    from animate_anywhere.models import pose_motion
    from animate_anywhere.training import pose_figures

    read = pose_figures.geometry
    if arguments.method == "learned":
        read = pose_figures.learned(pose_motion.load(arguments.weights))
    known = held_out(arguments.clips)
    told = [clip for clip in known if clip.told]
    for noisy in (False, True):
        for clips, which in ((known, "never trained on"), (told, "of them, whose planted foot is in the frame")):
            print(f"{'noisy' if noisy else 'clean'} keypoints, {len(clips)} clips {which}:")
            for line in pose_figures.measure(read, clips, noisy).lines:
                print(f"  {line}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("train")
    command.add_argument("--run", type=Path, default=pack.ROOT / "runs" / "pose_motion")
    command.add_argument("--out", type=Path, default=WEIGHTS)
    command.add_argument("--start", type=Path, help="go on from these weights; take another --seed then")
    command.add_argument("--measure-every", type=int, default=1000, help="steps between two measurements in curve.csv")
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

    torch.set_num_threads(1)  # layers this small are not worth sharing, and one thread always adds in one order
    arguments.run_command(arguments)


if __name__ == "__main__":
    main()
