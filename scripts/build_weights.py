"""Build the tiny family (base, VAE, adapter) from a seed, in the very formats of the real ones.

    $(python3 scripts/host.py --python) scripts/build_weights.py [--seed 0] [--out weights]

They are untrained: networks of the right shape that move data through every node on any machine, and that make noise.
"""

import argparse
from pathlib import Path

import pack

NAMES = {
    "base": "diffusion_models/aa_tiny_base.safetensors",
    "vae": "vae/aa_tiny_vae.safetensors",
    "adapter": "animate_anywhere/aa_tiny_adapter.safetensors",
}
# Heads of 64, because the host's detection takes that for granted. 7 blocks, so that 3/7 of them are whole.
BASE = {
    "num_attention_heads": 3,
    "attention_head_dim": 64,
    "in_channels": 32,
    "out_channels": 16,
    "time_embed_dim": 96,
    "ofs_embed_dim": 96,
    "text_embed_dim": 64,
    "num_layers": 7,
    "patch_size": 2,
    "patch_size_t": 2,
    "use_rotary_positional_embeddings": True,
}
RANK = 16
# TAEHV's widths are fixed by the host's loader. A narrow network embedded in them with zeros packs well and is what
# training will fill: channels beyond these are zero.
VAE_WIDTH = 0.25


def build_base(seed: int):
    """The transformer with torch's own initialisation."""
    import torch
    from comfy.ldm.cogvideo.model import CogVideoXTransformer3DModel

    torch.manual_seed(seed)
    return CogVideoXTransformer3DModel(**BASE, operations=torch.nn, dtype=torch.float32)


def build_vae(seed: int):
    """TAEHV for 16 channels; only the first quarter of the inner channels is alive."""
    import torch
    from comfy.taesd.taehv import TAEHV, TGrow, TPool

    torch.manual_seed(seed)
    network = TAEHV(latent_channels=16)
    with torch.no_grad():
        for name, layer in network.named_modules():
            if not isinstance(layer, torch.nn.Conv2d):
                continue
            parent = network.get_submodule(name.rpartition(".")[0])
            frames_in = parent.stride if isinstance(parent, TPool) else 1
            frames_in *= 2 if name.endswith("conv.0") else 1  # a memory block joins the present and the past frame
            frames_out = parent.stride if isinstance(parent, TGrow) else 1
            out, into = _alive(layer.out_channels, frames_out), _alive(layer.in_channels, frames_in)
            spread = (2 / (into.sum() * layer.kernel_size[0] ** 2)) ** 0.5
            if name.endswith("conv.4"):
                spread *= 0.3  # the branch that a memory block adds to its input: keeps the sum from growing
            layer.weight.normal_(0, float(spread)).mul_(out[:, None, None, None]).mul_(into[None, :, None, None])
            if layer.bias is not None:
                layer.bias.zero_()
        network.decoder[-1].weight.mul_(0.3)
        network.decoder[-1].bias.fill_(0.5)  # around grey
    return network


def _alive(channels: int, frames: int):
    """1 for the first VAE_WIDTH of each of ``frames`` frames' channels, 0 for the rest. Latents and colours live."""
    import torch

    part = channels // frames
    alive = torch.ones(frames, part)
    if part > 16:
        alive[:, int(part * VAE_WIDTH) :] = 0
    return alive.flatten()


def build(seed: int, out: Path) -> None:
    import safetensors.torch
    import torch
    from animate_anywhere.models import checkpoint

    base, vae = build_base(seed), build_vae(seed + 1)
    for name in NAMES.values():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
    # bf16: an fp16 decoder would make the host take it for HunyuanVideo's and scale its latents.
    for network, name in ((base, "base"), (vae, "vae")):
        state = {key: value.to(torch.bfloat16).contiguous() for key, value in network.state_dict().items()}
        safetensors.torch.save_file(state, out / NAMES[name], metadata={"training": "untrained", "seed": str(seed)})
    checkpoint.save(
        out / NAMES["adapter"],
        checkpoint.Base.of(base),
        checkpoint.fresh(base, rank=RANK, seed=seed),
        training={"stage": "untrained", "seed": seed},
    )
    for name in NAMES.values():
        print(f"{(out / name).stat().st_size / 2**20:6.1f} MiB  {out / name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=pack.ROOT / "weights")
    arguments = parser.parse_args()
    pack.load()
    build(arguments.seed, arguments.out)


if __name__ == "__main__":
    main()
