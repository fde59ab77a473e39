"""Measure a family, videos, or the paper's ablations at small size.

    $P = $(python3 scripts/host.py --python)
    $P scripts/evaluate.py family                                  the weights that ship, on 200 clips never trained on
    $P scripts/evaluate.py family --run runs/tiny-cpu --clips 20   what a run has reached
    $P scripts/evaluate.py videos GENERATED TRUTH                  two folders of videos of the same names
    $P scripts/evaluate.py table II --start runs/tiny-cpu/reference --base runs/tiny-cpu/base/base.safetensors \\
        --seeds 0 1 2 --steps 1000                                 train the variants, measure them

Figures are printed and written as JSON. What was broken off goes on where it was; all of it follows from seeds.
"""

import argparse
import json
import logging
import sys
from pathlib import Path

import pack

WEIGHTS = pack.ROOT / "weights"
BASE = WEIGHTS / "diffusion_models" / "aa_tiny_base.safetensors"
ADAPTER = WEIGHTS / "animate_anywhere" / "aa_tiny_adapter.safetensors"
VAE = WEIGHTS / "vae" / "aa_tiny_vae.safetensors"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    family = kinds.add_parser("family", help="base, adapter and VAE on held-out clips of the stage")
    family.add_argument("--run", type=Path, help="folder of a run, instead of --base and --adapter")
    family.add_argument("--adapter", type=Path, default=ADAPTER, help="a file, or a folder with adapter.safetensors")
    family.add_argument("--conditions", nargs="+", help="which ones, e.g. pose environment two-stage")
    family.add_argument("--out", type=Path, default=pack.ROOT / "output" / "evaluation", help="folder of the figures")
    table = kinds.add_parser("table", help="train and measure the variants of table II, III or IV")
    table.add_argument("table", choices=("II", "III", "IV"))
    table.add_argument("--start", type=Path, required=True, help="adapter of stage reference, or its folder")
    table.add_argument("--configuration", default="tiny-cpu")
    table.add_argument("--runs", type=Path, default=pack.ROOT / "runs", help="of all runs; variants go to tables/")
    table.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    table.add_argument("--steps", type=int, default=1000, help="of training, for each variant and seed")
    table.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="for all variants")
    for kind in (family, table):
        kind.add_argument("--base", type=Path, default=BASE)
        kind.add_argument("--vae", type=Path, default=VAE)
        kind.add_argument("--head", type=Path, help="motion head, for the explicit two-stage way")
        kind.add_argument("--clips", type=int, default=200, help="an even number")
        kind.add_argument("--sample-steps", type=int, default=20)
        kind.add_argument("--method", default="ddim", help="of the sampler: ddim, or cogvideox_dpm")
        kind.add_argument("--guidance", type=float, default=2.5)
        kind.add_argument("--batch", type=int, default=8, help="clips that are sampled together")
        kind.add_argument("--bf16", action="store_true", help="compute in bf16, where the processor is quicker so")
    videos = kinds.add_parser("videos", help="a folder of generated videos against one of true ones")
    videos.add_argument("generated", type=Path)
    videos.add_argument("truth", type=Path)
    videos.add_argument("--frames", type=int, default=48)
    videos.add_argument("--stride", type=int, default=4, help="every n-th frame of the true videos")
    videos.add_argument("--generated-stride", type=int, default=1, help="the same of the generated ones")
    videos.add_argument("--networks", type=Path, help="folder with the networks of LPIPS, FID and FVD")
    videos.add_argument("--out", type=Path, help="JSON file of the figures")
    for kind in (family, table, videos):
        kind.add_argument("--cpu", action="store_true", help="leave GPUs alone")
    return parser.parse_args()


def options_of(arguments: argparse.Namespace):
    from animate_anywhere.training import evaluate

    conditions = getattr(arguments, "conditions", None)
    chosen = {"conditions": tuple(conditions)} if conditions else {}
    return evaluate.Options(
        clips=arguments.clips,
        steps=arguments.sample_steps,
        guidance=arguments.guidance,
        method=arguments.method,
        batch=arguments.batch,
        autocast=arguments.bf16,
        **chosen,
    )


def family(arguments: argparse.Namespace, device) -> int:
    from animate_anywhere.models import pose_motion
    from animate_anywhere.models.checkpoint import Base
    from animate_anywhere.training import evaluate, figures
    from animate_anywhere.training.autoencoder import Autoencoder

    base, adapter = arguments.base, arguments.adapter
    if arguments.run:
        base, adapter = arguments.run / "base" / "base.safetensors", arguments.run / "joint"
    network = evaluate.load_family(base, adapter, device)
    vae = Autoencoder(arguments.vae, Base.of(network.base), device)
    head = pose_motion.load(arguments.head) if arguments.head else None
    evaluation = evaluate.Evaluation(network, vae, options_of(arguments), head)
    file = adapter / "adapter.safetensors" if adapter.is_dir() else adapter
    about = evaluate.marks({"base": base, "adapter": file, "vae": arguments.vae, "head": arguments.head})
    clips = evaluate.run(evaluation, arguments.out, about)
    write(arguments.out / "figures.json", {**about, **figures.summary(clips)})
    print(figures.text(clips))
    return 0


def table(arguments: argparse.Namespace, device) -> int:
    from animate_anywhere.training import tables
    from animate_anywhere.training.train import Stops

    files = (f"model.base={arguments.base.resolve()}", f"model.vae={arguments.vae.resolve()}")
    changes = (*files, f"run.steps={arguments.steps}", *arguments.set)
    plan = tables.Plan(
        arguments.configuration, changes, arguments.runs, arguments.start, tuple(arguments.seeds),
        options_of(arguments), arguments.head, device.type,
    )  # fmt: skip
    stops = Stops()
    with stops.listening():
        found = tables.make(arguments.table, plan, stops)
    if found is None:
        return 3
    write(arguments.runs / tables.FOLDER / f"table-{arguments.table}.json", tables.summary(arguments.table, found))
    print(tables.text(arguments.table, found))
    return 0


def videos(arguments: argparse.Namespace, device) -> int:
    from animate_anywhere.training import compare

    pairs = compare.pairs_of(arguments.generated, arguments.truth)
    comparison = compare.Comparison(compare.Networks.load(arguments.networks, device), device)
    rows = {}
    for done, (name, row) in enumerate(
        compare.compare(pairs, comparison, arguments.frames, arguments.stride, arguments.generated_stride), 1
    ):
        rows[name] = row
        print(f"{done}/{len(pairs)} {name}: {compare.text(row)}", flush=True)
    summary = comparison.summary()
    print(f"all {len(rows)}: {compare.text(summary)}")
    if arguments.out:
        write(arguments.out, {**summary, "rows": rows})
    return 0


def write(path: Path, figures: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1, ensure_ascii=False), encoding="utf-8")


def main() -> int:
    arguments = parse()
    import torch

    cpu = arguments.cpu or not torch.cuda.is_available()
    pack.load(cpu)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    try:
        return {"family": family, "table": table, "videos": videos}[arguments.kind](
            arguments, torch.device("cpu" if cpu else "cuda")
        )
    except ValueError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
