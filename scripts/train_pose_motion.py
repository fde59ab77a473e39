"""Train the motion head, which reads a background's motion from a pose, on rehearsed clips of the stage; measure it.

    $(python3 scripts/host.py --python) scripts/train_pose_motion.py train [--clips 30000] [--steps 32000]
    $(python3 scripts/host.py --python) scripts/train_pose_motion.py measure [--method learned] [--clips 200]

One thread; the same options give the same weights, to the bit, on one machine.
"""

import argparse
import csv
import time
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
    rehearsed = time.process_time()
    arguments.run.mkdir(parents=True, exist_ok=True)
    with (arguments.run / "log.csv").open("w", newline="") as file, tqdm(total=options.steps, unit="step") as bar:
        rows = csv.writer(file)
        rows.writerow(("step", "loss"))

        def log(step: int, loss: float) -> None:
            rows.writerow((step, f"{loss:.5f}"))
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update()

        network = training.train(clips, options, log, pose_motion.load(arguments.start) if arguments.start else None)
    seconds = round(rehearsed - start), round(time.process_time() - rehearsed)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    facts = asdict(options) | {"data": "synthetic stage, rehearsed", "licence": "GPL-3.0"}
    pose_motion.save(arguments.out, network, facts)
    print(f"{arguments.out}: {seconds[0]} s of one core for the clips, {seconds[1]} s for {options.steps} steps")


def measure(arguments: argparse.Namespace) -> None:
    from animate_anywhere.models import pose_motion
    from animate_anywhere.training import pose_figures, rehearsal, stage

    read = pose_figures.geometry
    if arguments.method == "learned":
        read = pose_figures.learned(pose_motion.load(arguments.weights))
    first = stage.HELD_OUT
    known = [rehearsal.rehearse(stage.draw_plan(seed)) for seed in range(first, first + arguments.clips)]
    for noisy in (False, True):
        print(f"{'noisy' if noisy else 'clean'} keypoints, {arguments.clips} clips never trained on:")
        for line in pose_figures.measure(read, known, noisy).lines:
            print(f"  {line}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("train")
    command.add_argument("--run", type=Path, default=pack.ROOT / "runs" / "pose_motion")
    command.add_argument("--out", type=Path, default=WEIGHTS)
    command.add_argument("--start", type=Path, help="go on from these weights; take another --seed then")
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
