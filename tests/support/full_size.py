"""The pack at the size of CogVideoX1.5-5B on a fake CUDA device: faults, and a forecast of the memory.

    $(python3 scripts/host.py --python) tests/support/full_size.py [--quick RESULTS.json]

prints a line for each case. --quick, for the tests: 4 blocks of 42 and 5 frames, for all blocks and frames are alike
in devices and dtypes; and the VAE in two cases only. Weights have the published shapes and no values; a process of
its own, because it changes torch and the host for good.
"""

import argparse
import gc
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "scripts")]

import pack  # noqa: E402, found by the line above

pack.load()

import comfy.model_management  # noqa: E402, after the pack, which sets the host up
import comfy.sample  # noqa: E402
import comfy.sd  # noqa: E402
import torch  # noqa: E402
from animate_anywhere.models import attach, background_motion, checkpoint, clips, latents, sampler, windows  # noqa: E402
from animate_anywhere.nodes import shot as shots  # noqa: E402
from comfy.cli_args import args  # noqa: E402
from comfy.ldm.cogvideo.model import CogVideoXTransformer3DModel  # noqa: E402
from comfy.ldm.cogvideo.vae import AutoencoderKLCogVideoX  # noqa: E402

from support import fake_cuda  # noqa: E402

WIDTH, HEIGHT = 1360, 768  # px, that CogVideoX 1.5 was trained with
GB = 1e9
BASE = checkpoint.Base(width=3072, heads=48, blocks=42, time_width=512, text_width=4096)
RANK = 32  # of the background motion
OURS = ("pose_control", "reference", "background_motion")


@dataclass(frozen=True)
class Size:
    frames: int
    base: checkpoint.Base


WHOLE = Size(windows.trained_length(BASE.heads), BASE)
QUICK = Size(latents.SHORTEST, replace(BASE, blocks=4))


@dataclass(frozen=True)
class Case:
    name: str
    groups: tuple[str, ...] = OURS
    stored: torch.dtype = torch.bfloat16  # of the base's file
    flags: dict[str, bool] = field(default_factory=dict)  # of the host's command line
    total: float = 80e9  # bytes of the device


FP8 = torch.float8_e4m3fn
CASES = (
    Case("bf16, 80 GB"),
    Case("bf16, 24 GB", total=24e9),
    Case("bf16, --gpu-only, 80 GB", flags={"gpu_only": True}),
    Case("bf16, --lowvram, 24 GB", flags={"lowvram": True}, total=24e9),
    Case("fp8 file, 24 GB", stored=FP8, total=24e9),
    Case("--fp8_e4m3fn-unet, 24 GB", flags={"fp8_e4m3fn_unet": True}, total=24e9),
    Case("DynamiCtrl, bf16, 80 GB", groups=("pada_ln",)),
)
CODED = (CASES[0], CASES[2])  # with --quick too: what the VAE does depends on the host's memory settings alone


def empty(shapes: dict, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return {key: torch.empty(value.shape, dtype=dtype) for key, value in shapes.items()}


def load_base(size: Size, dtype: torch.dtype) -> object:
    """CogVideoX1.5-5B-I2V as the stock loader gives it."""
    shapes = CogVideoXTransformer3DModel(
        num_layers=size.base.blocks, device="meta", operations=torch.nn, **BASE.network
    )
    return comfy.sd.load_diffusion_model_state_dict(empty(shapes.state_dict(), dtype))


def adapter(size: Size, groups: tuple[str, ...]) -> checkpoint.Adapter:
    makers = {
        "pose_control": checkpoint.pose_control_for,
        "reference": checkpoint.reference_for,
        "pada_ln": checkpoint.pada_ln_for,
    }
    parts = {}
    for group in groups:
        if group in makers:
            shapes = makers[group](size.base, device="meta", operations=torch.nn).state_dict()
            parts[group] = checkpoint.patcher("fake.safetensors", group, size.base, empty(shapes, torch.bfloat16))
        else:
            blocks, layers = range(size.base.blocks), background_motion.ATTENTION
            names = [f"diffusion_model.blocks.{i}.{layer}" for i in blocks for layer in layers]
            sides = {"lora_A": (RANK, BASE.width), "lora_B": (BASE.width, RANK)}
            parts[group] = {
                f"{name}.{side}.weight": torch.empty(shape, dtype=torch.bfloat16)
                for name in names
                for side, shape in sides.items()
            }
    return checkpoint.Adapter(checkpoint.Header(size.base, {group: {} for group in groups}), **parts)


def vae() -> comfy.sd.VAE:
    with torch.device("meta"):
        shapes = AutoencoderKLCogVideoX().state_dict()
    return comfy.sd.VAE(sd=empty(shapes, torch.float32))


class Shapes:
    """In the VAE's place: latents and frames of the right shapes. For cases that are about the model, to save time."""

    latent_channels, latent_dim, first_stage_model = latents.CHANNELS, 3, None

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        count, height, width = latents.latent_frames(len(frames)), *(side // 8 for side in frames.shape[1:3])
        return frames.new_empty(1, latents.CHANNELS, count, height, width)

    def decode(self, coded: torch.Tensor) -> torch.Tensor:
        return coded.new_empty(1, latents.frames_of(coded.shape[2]), HEIGHT, WIDTH, 3)


def run(case: Case, size: Size) -> dict:
    """part of the work -> peak bytes on the device; "faults": a list."""
    peaks = {}
    with fake_cuda.device(case.total) as watch:

        def measured(part: str, work: Callable, *inputs) -> object:
            gc.collect()
            watch.start_peak()
            result = work(*inputs)
            peaks[part] = watch.peak["cuda:0"]
            return result

        work(case, size, measured)
        comfy.model_management.unload_all_models()
    gc.collect()
    return {"peaks": peaks, "faults": [f"{text} ({count} times)" for text, count in watch.faults.items()]}


def work(case: Case, size: Size, measured: Callable) -> None:
    """From pictures to a video, through one step, each part `measured`."""
    place = comfy.model_management.intermediate_device()
    picture, video = (torch.empty(count, HEIGHT, WIDTH, 3, device=place) for count in (1, size.frames))
    own_vae = vae() if size is WHOLE or case in CODED else Shapes()
    parts, reference = adapter(size, case.groups), None
    if parts.reference is not None:
        coded = measured("encode the character", latents.encode_frames, own_vae, picture)
        reference = measured("ReferenceNet", attach.encode_reference, parts, coded)
    model = attach.attach(load_base(size, case.stored), parts)
    shot = clips.Shot(size.frames, picture, pose=video, reference=reference)
    text = shots.no_prompt(model)
    positive, negative, latent = measured(
        "encode the shot", shots.encode, shot, own_vae, text, text, lambda _: None, model
    )
    sigmas = sampler.trailing_sigmas(model.get_model_object("model_sampling"), 1)
    samples = measured("one step", sample, model, sigmas, positive, negative, latent["samples"])
    measured("decode", latents.decode_latents, own_vae, samples)


def sample(model: object, sigmas: torch.Tensor, positive: list, negative: list, latent: torch.Tensor) -> torch.Tensor:
    noise = torch.empty(latent.shape)
    return comfy.sample.sample_custom(
        model, noise, 2.5, sampler.CogVideoXSampler("cogvideox_dpm"), sigmas, positive, negative, latent,
        disable_pbar=True, seed=0,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", metavar="RESULTS.json", type=Path, help="less of it, into a file")
    target = parser.parse_args().quick
    size = QUICK if target else WHOLE
    fake_cuda.install()
    results = {}
    print(f"Forecasts for windows of {size.frames} frames of {WIDTH}×{HEIGHT} px, in GB (10⁹ bytes) at the peak:")
    for case in CASES:
        for flag, value in case.flags.items():
            setattr(args, flag, value)
        results[case.name] = run(case, size)
        for flag in case.flags:
            setattr(args, flag, False)
        peaks = ", ".join(f"{part} {peak / GB:.1f}" for part, peak in results[case.name]["peaks"].items())
        print(f"{case.name}: {peaks}", *results[case.name]["faults"], sep="\n    ", flush=True)
    if target:
        target.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
