"""Make a dataset of a folder of videos, for the clips that a configuration wants; or draw a sheet of one.

    $(python3 scripts/host.py --python) scripts/prepare.py cogvideox1.5-5b VIDEOS DATASET --workers 8
    $(python3 scripts/host.py --python) scripts/prepare.py cogvideox1.5-5b VIDEOS DATASET --shard 1/4
    $(python3 scripts/host.py --python) scripts/prepare.py cogvideox1.5-5b VIDEOS DATASET --sheet sheet.png

Then train on it: scripts/train.py cogvideox1.5-5b --set data.folder=DATASET. The same command goes on after a stop, and
prepares what is new in VIDEOS. DATASET/skipped.txt lists the videos that are of no use, and why.
"""

import argparse
import logging
import sys
from pathlib import Path

import pack


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configuration", help="a name in training/configurations, or a .toml file")
    parser.add_argument("videos", type=Path, help="a folder; folders in it count, too")
    parser.add_argument("dataset", type=Path, help="where it goes")
    parser.add_argument(
        "--cameras", type=Path, help="folder with NAME.txt for NAME.mp4; otherwise NAME.camera.txt beside"
    )
    parser.add_argument("--shard", default="1/1", metavar="I/N", help="the I-th of N parts, for N machines")
    parser.add_argument("--workers", type=int, default=1, help="processes; each needs a core and some memory")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change the configuration"
    )
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="only draw samples of what is there already")
    parser.add_argument("--samples", type=int, default=8, help="on the sheet")
    options = parser.parse_args()
    if options.samples < 1:
        parser.error(f"--samples is {options.samples}; it must be 1 or more")
    return options


def main() -> int:
    arguments = parse()
    pack.load()
    from animate_anywhere.training import configuration, prepare

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    try:
        stage = configuration.stages_of(arguments.configuration)[-1]
        data = configuration.load(arguments.configuration, stage, arguments.set).data
        if arguments.sheet:
            draw_sheet(arguments, data)
            return 0
        there = prepare.prepare_all(
            arguments.videos,
            arguments.dataset,
            data,
            cameras=arguments.cameras,
            shard=arguments.shard,
            workers=arguments.workers,
        )
        print(f"{arguments.dataset}: {there['clips']} clips of {there['videos'] - there['skipped']} videos", end="")
        print(f"; {there['skipped']} skipped, see {prepare.REPORT}" if there["skipped"] else "")
        return 0
    except (ValueError, OSError, prepare.PreparationError) as error:
        print(f"prepare: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("prepare: stopped; the same command goes on.", file=sys.stderr)
        return 130


def draw_sheet(arguments: argparse.Namespace, data) -> None:
    """One row a sample: the character, frames, clean start, environment, pose, and person with hands."""
    from dataclasses import replace

    import torch
    from animate_anywhere.training import samples
    from PIL import Image

    data = replace(data, folder=str(arguments.dataset.resolve()))
    rows = []
    for number in range(arguments.samples):
        clip = samples.draw_sample(data, number * len(data.sizes))  # of the first size
        middle = len(clip.frames) // 2
        mask = torch.stack([clip.person[middle], clip.hands[middle], clip.person[middle]], -1)
        shown = [clip.frames[0], clip.frames[middle], clip.frames[-1]]
        rows.append(
            torch.cat(
                [clip.character[0], *shown, clip.background[0], clip.environment[middle], clip.pose[middle], mask], 1
            )
        )
    arguments.sheet.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(torch.cat(rows).numpy()).save(arguments.sheet)
    print(arguments.sheet)


if __name__ == "__main__":
    sys.exit(main())
