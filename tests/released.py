"""DynamiCtrl restated: the forward of the released model, straight from its formulas, on plain tensors.

Nothing here comes from the pack or the host. Weights are a dictionary in diffusers' names, as the released files are.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

HEAD = 64
WIDTH, TIME, TEXT = 128, 32, 24  # of the toy


@dataclass(frozen=True)
class Reading:
    """The released way, and the ways in which its description could be misread."""

    gate: bool = True  # c_{i+1} = y_i (1 + gate)
    chained: bool = True  # block i+1 goes on from block i's tokens
    twice: bool = True  # the pose stands in both halves of the channels
    pose: bool = True  # of zeros where not


RIGHT = Reading()
WRONG = {
    "no gate": Reading(gate=False),
    "not chained": Reading(chained=False),
    "[p, 0] for [p, p]": Reading(twice=False),
    "zero pose": Reading(pose=False),
}


def weights(blocks: int, seed: int = 0, width: int = WIDTH, pada: bool = True) -> dict[str, Tensor]:
    """Random weights of a toy. Modulations and gates are large, so that a wrong reading shows."""
    generator = torch.Generator().manual_seed(seed)
    state = {}

    def linear(name: str, out: int, into: int, scale: float = 1.0) -> None:
        state[f"{name}.weight"] = scale * torch.randn(out, into, generator=generator) / math.sqrt(into)
        state[f"{name}.bias"] = 0.1 * scale * torch.randn(out, generator=generator)

    def norm(name: str, size: int, mean: float = 1.0) -> None:
        state[f"{name}.weight"] = mean + 0.1 * torch.randn(size, generator=generator)
        state[f"{name}.bias"] = 0.1 * torch.randn(size, generator=generator)

    linear("patch_embed.proj", width, 256)
    linear("patch_embed.text_proj", width, TEXT)
    linear("time_embedding.linear_1", TIME, width, 2)
    linear("ofs_embedding.linear_1", TIME, TIME, 2)
    for name in ("time_embedding.linear_2", "ofs_embedding.linear_2"):
        linear(name, TIME, TIME, 2)
    for i in range(blocks):
        block = f"transformer_blocks.{i}"
        for name in ("norm1", "norm2"):
            linear(f"{block}.{name}.linear", 6 * width, TIME)
            norm(f"{block}.{name}.norm", width)
        if pada:
            linear(f"{block}.control_norm1.linear", 3 * width, TIME, 2)
            norm(f"{block}.control_norm1.norm", width, 2)
        for name in ("to_q", "to_k", "to_v", "to_out.0"):
            linear(f"{block}.attn1.{name}", width, width)
        for name in ("norm_q", "norm_k"):
            norm(f"{block}.attn1.{name}", HEAD)
        linear(f"{block}.ff.net.0.proj", 4 * width, width)
        linear(f"{block}.ff.net.2", width, 4 * width)
    norm("norm_final", width)
    linear("norm_out.linear", 2 * width, TIME)
    norm("norm_out.norm", width)
    linear("proj_out", 128, width)
    return state


def forward(state: dict[str, Tensor], x, pose, timestep, text, reading: Reading = RIGHT) -> Tensor:
    """x [B, t, 32, h, w], pose [B, t, 16, h, w], timestep [B], text [B, S, TEXT] -> velocity [B, t, 16, h, w]."""

    def linear(name: str, value: Tensor) -> Tensor:
        return F.linear(value, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(name: str, value: Tensor, eps: float = 1e-5) -> Tensor:
        weight = state[f"{name}.weight"]
        return F.layer_norm(value, weight.shape, weight, state[f"{name}.bias"], eps)

    def embedding(name: str, value: Tensor) -> Tensor:
        size = state[f"{name}.linear_1.weight"].shape[1]
        return linear(f"{name}.linear_2", F.silu(linear(f"{name}.linear_1", wave(value, size))))

    temb = embedding("time_embedding", timestep) + embedding("ofs_embedding", torch.full_like(timestep, 2.0))
    signal = F.silu(temb)
    pose = pose if reading.pose else torch.zeros_like(pose)
    both = torch.cat([pose, pose if reading.twice else torch.zeros_like(pose)], dim=2)
    hidden, words = linear("patch_embed.proj", patches(x)), linear("patch_embed.text_proj", text)
    first = chain = linear("patch_embed.proj", patches(both))
    rotation = rope(x.shape[1] // 2, x.shape[3] // 2, x.shape[4] // 2)

    def modulated(name: str) -> tuple[Tensor, ...]:
        parts = linear(f"{name}.linear", signal)[:, None].chunk(6, dim=-1)
        shift, scale, gate, text_shift, text_scale, text_gate = parts
        return (
            norm(f"{name}.norm", hidden) * (1 + scale) + shift,
            norm(f"{name}.norm", words) * (1 + text_scale) + text_shift,
            gate,
            text_gate,
        )

    for i in range(len({key.split(".")[1] for key in state if key.startswith("transformer_blocks.")})):
        block = f"transformer_blocks.{i}"
        seen, told, gate, text_gate = modulated(f"{block}.norm1")
        shift, scale, pose_gate = linear(f"{block}.control_norm1.linear", signal)[:, None].chunk(3, dim=-1)
        y = norm(f"{block}.control_norm1.norm", chain if reading.chained else first) * (1 + scale) + shift
        chain = y + pose_gate * y if reading.gate else y
        seen = seen + y
        joint = attention(
            state, f"{block}.attn1", torch.cat([told, seen], dim=1), words.shape[1], rotation, norm, linear
        )
        words = words + text_gate * joint[:, : words.shape[1]]
        hidden = hidden + gate * joint[:, words.shape[1] :]
        seen, told, gate, text_gate = modulated(f"{block}.norm2")
        inner = F.gelu(linear(f"{block}.ff.net.0.proj", torch.cat([told, seen], dim=1)), approximate="tanh")
        joint = linear(f"{block}.ff.net.2", inner)
        words = words + text_gate * joint[:, : words.shape[1]]
        hidden = hidden + gate * joint[:, words.shape[1] :]
    shift, scale = linear("norm_out.linear", signal)[:, None].chunk(2, dim=-1)
    hidden = norm("norm_out.norm", norm("norm_final", hidden)) * (1 + scale) + shift
    batch, t, _, h, w = x.shape
    out = linear("proj_out", hidden).reshape(batch, t // 2, h // 2, w // 2, 16, 2, 2, 2)
    # [B, t/2, h/2, w/2, 16, 2, 2, 2] -> [B, t/2, 2, 16, h/2, 2, w/2, 2]
    return out.permute(0, 1, 5, 4, 2, 6, 3, 7).reshape(batch, t, 16, h, w)


def attention(state, name, tokens, text, rotation, norm, linear) -> Tensor:
    """Full attention over text and picture; only the picture's queries and keys are rotated."""

    def heads(value: Tensor) -> Tensor:
        return value.unflatten(-1, (-1, HEAD)).transpose(1, 2)  # [B, heads, S, HEAD]

    q, k = (norm(f"{name}.norm_{part}", heads(linear(f"{name}.to_{part}", tokens)), 1e-6) for part in "qk")
    q, k = (torch.cat([value[:, :, :text], rotated(value[:, :, text:], rotation)], dim=2) for value in (q, k))
    weight = (q @ k.transpose(-1, -2) / math.sqrt(HEAD)).softmax(dim=-1)
    return linear(f"{name}.to_out.0", (weight @ heads(linear(f"{name}.to_v", tokens))).transpose(1, 2).flatten(2))


def patches(x: Tensor) -> Tensor:
    """[B, t, C, h, w] -> [B, N, C·8]: channel, time, row, column."""
    batch, t, channels, h, w = x.shape
    x = x.reshape(batch, t // 2, 2, channels, h // 2, 2, w // 2, 2)
    return x.permute(0, 1, 4, 6, 3, 2, 5, 7).reshape(batch, t * h * w // 8, channels * 8)


def wave(value: Tensor, size: int) -> Tensor:
    angles = value.float()[:, None] * torch.exp(-math.log(10000) * torch.arange(size // 2) / (size // 2))
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def rope(t: int, h: int, w: int) -> Tensor:
    """Angles [N, HEAD]: a quarter of the channels turns with time, three eighths with each side."""
    grid = torch.stack(torch.meshgrid(*(torch.arange(n).float() for n in (t, h, w)), indexing="ij"), dim=-1).flatten(
        0, 2
    )
    parts = []
    for axis, size in enumerate((HEAD // 4, HEAD // 8 * 3, HEAD // 8 * 3)):
        speed = 1 / 10000 ** (torch.arange(0, size, 2) / size)
        parts.append((grid[:, axis, None] * speed).repeat_interleave(2, dim=-1))
    return torch.cat(parts, dim=-1)


def rotated(x: Tensor, angles: Tensor) -> Tensor:
    real, imaginary = x.unflatten(-1, (-1, 2)).unbind(-1)
    return x * angles.cos() + torch.stack([-imaginary, real], dim=-1).flatten(-2) * angles.sin()


def config(state: dict[str, Tensor]) -> dict:
    """config.json of such weights."""
    width = state["proj_out.weight"].shape[1]
    return {
        "_class_name": "DynamiCtrlTransformerModel",
        "num_attention_heads": width // HEAD,
        "attention_head_dim": HEAD,
        "num_layers": len({key.split(".")[1] for key in state if key.startswith("transformer_blocks.")}),
        "in_channels": 32,
        "out_channels": 16,
        "time_embed_dim": TIME,
        "ofs_embed_dim": TIME,
        "text_embed_dim": TEXT,
        "patch_size": 2,
        "patch_size_t": 2,
        "use_rotary_positional_embeddings": True,
    }


def save(folder: Path, state: dict[str, Tensor], shards: int = 2) -> Path:
    """``state`` in diffusers' layout, its tensors dealt out to ``shards`` files."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config(state), indent=2) + "\n")
    if shards == 1:
        safetensors.torch.save_file(state, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
        return folder
    names = [f"diffusion_pytorch_model-{i + 1:05d}-of-{shards:05d}.safetensors" for i in range(shards)]
    keys = list(state)
    size = -(-len(keys) // shards)
    weight_map = {key: names[i // size] for i, key in enumerate(keys)}
    for name in names:
        part = {key: state[key] for key in keys if weight_map[key] == name}
        safetensors.torch.save_file(part, folder / name, metadata={"format": "pt"})
    total = sum(value.numel() * value.element_size() for value in state.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    return folder
