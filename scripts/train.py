"""Train the tiny family, or adapters for CogVideoX1.5-5B-I2V: AnimateAnywhere's, or DynamiCtrl's PadaLN.

    $(python3 scripts/host.py --python) scripts/train.py tiny-cpu                      every stage, one after the other
    $(python3 scripts/host.py --python) scripts/train.py tiny-cpu --stage joint --resume
    $(python3 scripts/host.py --python) scripts/train.py cogvideox1.5-5b --plan        parameters, memory, time
    $(python3 scripts/host.py --python) scripts/train.py dynamictrl-tiny --stage pada_ln
    accelerate launch --multi_gpu --num_processes 2 scripts/train.py cogvideox1.5-5b --set model.base=… …
    torchrun --nproc_per_node 2 scripts/train.py tiny-cpu --cpu                        two processes without a GPU

Everything goes to runs/NAME: checkpoints, adapters, metrics.csv, sample sheets. A file runs/PAUSE pauses training;
Ctrl-C stops it with a checkpoint.
"""

import argparse
import logging
import shutil
import sys
from pathlib import Path

import pack

ALL = "all"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configuration", help="a name in training/configurations, or a .toml file")
    parser.add_argument("--stage", default=ALL, help="one of the configuration's, or all (default)")
    parser.add_argument("--name", default="", help="of the run; the configuration's by default")
    parser.add_argument("--runs", type=Path, default=pack.ROOT / "runs", help="folder of all runs")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument(
        "--start", type=Path, help="begin with this adapter (or checkpoint) instead of the stage before"
    )
    parser.add_argument("--minutes", type=float, default=0, help="stop after that long, with a checkpoint")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change the configuration"
    )
    parser.add_argument("--cpu", action="store_true", help="leave GPUs alone")
    parser.add_argument("--plan", action="store_true", help="print parameters, memory and time, and do nothing")
    parser.add_argument("--smoke", action="store_true", help="three tiny steps of every part, to see that it runs")
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    import torch

    cpu = arguments.cpu or not torch.cuda.is_available()
    pack.load(cpu)
    from animate_anywhere.training import configuration, plan, train

    try:
        stages = [arguments.stage] if arguments.stage != ALL else configuration.stages_of(arguments.configuration)
        changes = [*(train.SMOKE if arguments.smoke else ()), *arguments.set]
        chosen = [configuration.load(arguments.configuration, stage, changes) for stage in stages]
        if arguments.plan:
            print("\n\n".join(plan.text_of(plan.make(stage)) for stage in chosen))
            return 0
        return 0 if run(train, arguments, chosen, cpu) else 3
    except (ValueError, train.TrainingError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 1


def run(train, arguments: argparse.Namespace, stages: list, cpu: bool) -> bool:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=cpu)
    level = logging.INFO if accelerator.is_main_process else logging.ERROR
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr, force=True)
    name = arguments.name or stages[0].name
    if arguments.smoke:
        name = f"smoke-{name}"
        for stage in stages if accelerator.is_main_process and not arguments.resume else ():
            shutil.rmtree(arguments.runs / name / stage.stage, ignore_errors=True)
        accelerator.wait_for_everyone()
    stops = train.Stops(arguments.minutes)
    with stops.listening():
        return train.train_all(stages, arguments.runs, name, arguments.resume, stops, arguments.start, accelerator)


if __name__ == "__main__":
    sys.exit(main())
