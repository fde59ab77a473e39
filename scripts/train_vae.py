"""Train the tiny family's VAE on the synthetic stage, export it, measure it through the host's own loader.

    $(python3 scripts/host.py --python) scripts/train_vae.py train [--run runs/vae] [--steps 6800] [--minutes 600]
    $(python3 scripts/host.py --python) scripts/train_vae.py export [--run runs/vae] [--out weights/vae/aa_tiny_vae.safetensors]
    $(python3 scripts/host.py --python) scripts/train_vae.py measure [--weights weights/vae/aa_tiny_vae.safetensors]

Training goes on from the run's checkpoint if there is one, else from --start, and sleeps while runs/PAUSE exists. It logs
to log.csv and draws sheets into the run's folder.
"""  # noqa: E501, commands to copy

import argparse
import logging
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import pack

WEIGHTS = pack.ROOT / "weights" / "vae" / "aa_tiny_vae.safetensors"


def train(arguments: argparse.Namespace) -> None:
    import torch
    from animate_anywhere.training import vae_samples as samples
    from animate_anywhere.training import vae_training as training
    from PIL import Image

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    given = {field.name: getattr(arguments, field.name) for field in fields(samples.Options)}
    options = samples.Options(**{name: value for name, value in given.items() if value is not None})
    if (arguments.run / training.CHECKPOINT).is_file():
        trainer = training.Trainer.resumed(arguments.run, options, arguments.device)
        _check_decoder(arguments, trainer.network.widths)
        instead = f" of the run's checkpoint, not from {arguments.start}" if arguments.start else ""
        print(f"going on from step {trainer.step}{instead}", flush=True)
    else:
        torch.manual_seed(options.seed)
        start = _start(arguments)
        trainer = training.Trainer(arguments.run, options, arguments.device, start=start)

    def show(sheet: torch.Tensor, step: int) -> None:
        Image.fromarray(sheet.numpy()).save(arguments.run / f"sheet-{step:06d}.png")

    training.train(trainer, arguments.minutes, pack.ROOT / "runs" / "PAUSE", arguments.every, show)


def _start(arguments: argparse.Namespace):
    """The network of the weights to go on from, its decoder widened where that is asked for; None without them."""
    from animate_anywhere.training import vae as networks
    from animate_anywhere.training import vae_training as training

    asked = _asked(arguments)
    if not arguments.start:
        if asked:
            raise ValueError("--decoder, --decoder-blocks: they widen the network of --start, and there is none.")
        return None
    state, widths = training.read_weights(arguments.start)
    return networks.extract(state, replace(widths, **asked))


def _asked(arguments: argparse.Namespace) -> dict[str, tuple[int, ...]]:
    """The parts of the decoder's widths that are given."""
    asked = {"decoder": arguments.decoder, "decoder_blocks": arguments.decoder_blocks}
    return {name: tuple(counts) for name, counts in asked.items() if counts}


def _check_decoder(arguments: argparse.Namespace, widths) -> None:
    """Raise ValueError when the run's network has another decoder than the one that is asked for."""
    if replace(widths, **_asked(arguments)) != widths:
        raise ValueError(
            f"--decoder, --decoder-blocks: the network in {arguments.run} has {widths.decoder} and "
            f"{widths.decoder_blocks}. Leave them out, or choose another --run."
        )


def export(arguments: argparse.Namespace) -> None:
    """The averaged network in TAEHV's widths."""
    from animate_anywhere.training import vae_samples as samples
    from animate_anywhere.training import vae_training as training

    vae, told = training.load_average(arguments.run / training.CHECKPOINT)
    factor = 1.0
    if told["options"]["encoder"]:
        clips = [samples.draw_material(samples.FIRST - 1 - number, 29) for number in range(24)]
        factor = training.calibrate(vae, clips)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    training.write_weights(arguments.out, vae, told)
    print(f"{arguments.out}: step {told['step']}, latents scaled by {factor:.4f}")


def measure(arguments: argparse.Namespace) -> None:
    """PSNR on held-out clips, as the nodes code them."""
    import comfy.sd
    import comfy.utils
    import numpy as np
    import torch
    from animate_anywhere.models import latents
    from animate_anywhere.training import stage
    from animate_anywhere.training import vae_samples as samples
    from animate_anywhere.training import vae_training as training
    from animate_anywhere.vision import metrics

    vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(arguments.weights)))
    latents.check_vae(vae)
    figures, coded, start = {"frames": [], "pose": []}, [], time.monotonic()
    for number in range(arguments.clips):
        clip = samples.draw_material(stage.HELD_OUT + number, 29)
        for name, values in figures.items():
            frames = getattr(clip, name).float() / 255
            latent = latents.encode_frames(vae, frames)
            values.append(metrics.psnr(latents.decode_latents(vae, latent), frames))
            if name == "frames":
                coded.append(latent.flatten())
    variance = float((torch.cat(coded) * training.SCALE).var())
    for name, values in figures.items():
        print(f"{name}: {np.mean(values):.2f} dB, worst clip {min(values):.2f}, {arguments.clips} clips")
    print(f"variance of latents after the host's scale: {variance:.3f}; {time.monotonic() - start:.0f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("train")
    command.add_argument("--run", type=Path, default=pack.ROOT / "runs" / "vae")
    command.add_argument("--minutes", type=float, default=1e9)
    command.add_argument("--every", type=int, default=200, help="steps between checkpoints and measurements")
    command.add_argument("--device", default="cpu")
    command.add_argument("--threads", type=int, default=0)
    for name in ("steps", "batch", "crop", "frames", "pool", "renew", "stills", "warmup", "clip_frames", "seed"):
        command.add_argument(f"--{name.replace('_', '-')}", type=int)
    for name in ("muon_rate", "rate", "cooldown", "average", "noise"):
        command.add_argument(f"--{name.replace('_', '-')}", type=float)
    command.add_argument("--start", type=Path, help="go on from these weights; take another --seed then")
    command.add_argument("--decoder", type=int, nargs=4, help="with --start: a wider decoder, its channels by scale")
    command.add_argument("--decoder-blocks", type=int, nargs=3, help="the same, its blocks by scale")
    helped = "also the encoder (default); without it, what was trained on its latents stays valid"
    command.add_argument("--encoder", action=argparse.BooleanOptionalAction, help=helped)
    command.add_argument("--autocast", action=argparse.BooleanOptionalAction, help="bf16 arithmetic (default)")
    command.set_defaults(run_command=train)
    command = commands.add_parser("export")
    command.add_argument("--run", type=Path, default=pack.ROOT / "runs" / "vae")
    command.add_argument("--out", type=Path, default=WEIGHTS)
    command.set_defaults(run_command=export)
    command = commands.add_parser("measure")
    command.add_argument("--weights", type=Path, default=WEIGHTS)
    command.add_argument("--clips", type=int, default=20)
    command.set_defaults(run_command=measure)
    arguments = parser.parse_args()
    pack.load()
    from animate_anywhere.training.checkpoint import WRITE_ERRORS
    from animate_anywhere.training.train import TrainingError

    # After the imports, which log a lot.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        arguments.run_command(arguments)
    except (ValueError, TrainingError, *WRITE_ERRORS) as error:
        print(f"train_vae: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
