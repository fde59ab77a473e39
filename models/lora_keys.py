"""LoRA files as people publish them for CogVideoX, in the names that the host's own LoRA loaders read.

The host knows its own names of the transformer's layers alone. diffusers, finetrainers and peft use diffusers' names,
CogVideoX-Fun those with underscores; a file with either loads without a word but one line a key in the log.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from .shards import diffusers_key, native_key

# What stands before the name of a layer, in any order and number.
PREFIXES = re.compile(r"(?:base_model\.model\.|diffusion_model\.|transformer\.|module\.|model\.|unet\.)*")
UNDERSCORED = re.compile(r"(?:lora_unet_+|lora_transformer_|lycoris_)(?:transformer_(?!blocks))?")
TEXT_ENCODERS = ("text_encoder", "lora_te", "te_")
# Ends of the keys of one layer: the matrix that reads (A, down), the one that writes (B, up), and the scale.
MATRIX = r"[._](?:lora_{0}(?:\.\w+)?\.weight|lora_{0}|lora[._]{1}\.weight|lora_linear_layer\.{1}\.weight)$"
ENDS = {
    "lora_A.weight": re.compile(MATRIX.format("A", "down")),
    "lora_B.weight": re.compile(MATRIX.format("B", "up")),
    "alpha": re.compile(r"\.(?:lora_)?alpha$"),
}
IN_BLOCK = ("q", "k", "v", "attn_out", "ff_proj", "ff_out", "norm1.linear", "norm2.linear")
AROUND = (
    "patch_embed.proj", "patch_embed.text_proj", "time_embedding_linear_1", "time_embedding_linear_2",
    "ofs_embedding_linear_1", "ofs_embedding_linear_2", "norm_out.linear", "proj_out",
)  # fmt: skip
LAYER = re.compile(rf"blocks\.(\d+)\.(?:{'|'.join(map(re.escape, IN_BLOCK))})|(?:{'|'.join(map(re.escape, AROUND))})")
METADATA = "lora_adapter_metadata"  # of diffusers, in the header of the file
SHOWN_KEYS = 3
HOST_METADATA = "lora_metadata"  # attachment of the host's, of the LoRA loaded last
SEEN = "animate_anywhere patches"  # attachment of ours


@dataclass(frozen=True)
class Converted:
    """A LoRA in the host's names."""

    tensors: dict[str, Tensor]
    layers: int
    ranks: tuple[int, ...]  # that occur
    text_keys: int  # of text encoders, which are left out

    def __str__(self) -> str:
        ranks = ", ".join(map(str, self.ranks))
        left = f"; {self.text_keys} keys of text encoders were left out" if self.text_keys else ""
        return f"{self.layers} layers of rank {ranks}{left}"


def layer_of(name: str) -> str | None:
    """The host's name of the layer that a LoRA file calls ``name``; None where CogVideoX has no such layer."""
    name = name.replace(".processor.", ".")
    underscored = UNDERSCORED.match(name)
    if underscored:
        name = _dotted(name[underscored.end() :])
    name = PREFIXES.sub("", name, count=1)
    name = re.sub(r"\.to_out$", ".to_out.0", name)
    native = native_key(f"{name}.").removesuffix(".")
    return native if LAYER.fullmatch(native) else None


def convert(state: Mapping[str, Tensor], config: Mapping[str, object] | None = None) -> Converted:
    """Rename the keys of the LoRA ``state``.

    config: r, lora_alpha, alpha_pattern and use_rslora as peft has them, for files whose keys do not say their scale.
    Raises ValueError where a key has no place in CogVideoX, and where a layer lacks a part: what is used in part only
    would be another LoRA.
    """
    layers, unknown, text_keys = {}, [], 0
    for key, value in state.items():
        if key.startswith(TEXT_ENCODERS):
            text_keys += 1
            continue
        end, name = _split(key)
        layer = None if end is None else layer_of(name)
        if layer is None:
            unknown.append(key)
        else:
            layers.setdefault(layer, {})[end] = value
    if unknown or not layers:
        shown = ", ".join(map(repr, (unknown or list(state))[:SHOWN_KEYS]))
        raise ValueError(
            f"{len(unknown) or len(state)} of {len(state)} keys have no place in CogVideoX, among them "
            f"{shown or 'none'}. Is it a LoRA (of plain A and B matrices) for CogVideoX 1.5?"
        )
    tensors, ranks = {}, set()
    for layer, parts in layers.items():
        rank = _check_parts(layer, parts)
        ranks.add(rank)
        alpha = parts.get("alpha", None if config is None else _alpha(layer, rank, config))
        for end in ("lora_A.weight", "lora_B.weight"):
            tensors[f"diffusion_model.{layer}.{end}"] = parts[end].contiguous()
        if alpha is not None:
            tensors[f"diffusion_model.{layer}.alpha"] = torch.as_tensor(alpha).reshape(()).clone()
    return Converted(tensors, len(layers), tuple(sorted(ranks)), text_keys)


def config_in(metadata: Mapping[str, str]) -> dict | None:
    """What diffusers keeps of peft's configuration in the ``metadata`` of a file; None without it."""
    try:
        found = json.loads(metadata.get(METADATA, ""))
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    return {key.removeprefix("transformer."): value for key, value in found.items()}


def read_config(path: Path) -> dict | None:
    """peft's adapter_config.json at ``path``; None without one, or with a damaged one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def check_effect(model: ModelPatcher) -> None:
    """Raise ValueError where the LoRA that was loaded last changed nothing in ``model``.

    The host's loaders only log that. It shows where the file has metadata, as those of diffusers have, and where no
    other LoRA is loaded beside it.
    """
    metadata = model.get_attachment(HOST_METADATA)
    seen, patches = model.get_attachment(SEEN) or (None, 0)
    if metadata is not None and metadata is not seen and _count_patches(model) <= patches:
        raise ValueError(
            "model: the LoRA loaded into it changes nothing, because its keys are not those that ComfyUI knows of "
            "CogVideoX. Convert the file with scripts/convert.py lora, or take Load LoRA away."
        )


def remember_patches(model: ModelPatcher) -> None:
    """Note what ``model`` is patched with so far: check_effect() asks for more once another LoRA is loaded."""
    model.set_attachments(SEEN, (model.get_attachment(HOST_METADATA), _count_patches(model)))


def _count_patches(model: ModelPatcher) -> int:
    return sum(map(len, model.patches.values()))


def _split(key: str) -> tuple[str | None, str]:
    """The end of ``key``, as the host calls it, and the name before it."""
    for end, pattern in ENDS.items():
        found = pattern.search(key)
        if found:
            return end, key[: found.start()]
    return None, key


def _published(layer: str) -> str:
    """diffusers' name of a ``layer`` of the host's."""
    return diffusers_key(f"{layer}.").removesuffix(".")


def _dotted(name: str) -> str:
    """The host's name of a layer whose ``name`` has underscores for dots; ``name`` itself where there is none."""
    name = re.sub(r"to_out$", "to_out_0", name)
    block = re.match(r"(?:transformer_)?blocks_(\d+)_", name)
    layers = [f"blocks.{block[1]}.{layer}" for layer in IN_BLOCK] if block else AROUND
    named = {form.replace(".", "_"): layer for layer in layers for form in (layer, _published(layer))}
    return named.get(name, name)


def _check_parts(layer: str, parts: Mapping[str, Tensor]) -> int:
    """The rank of a layer's LoRA. Raises ValueError where its matrices do not belong together."""
    down, up = parts.get("lora_A.weight"), parts.get("lora_B.weight")
    if down is None or up is None:
        raise ValueError(f"{layer} has only one of its two matrices. Was the file cut off? Download it again.")
    if down.ndim < 2 or up.ndim < 2 or down.shape[0] != up.shape[1]:
        shapes = " and ".join("×".join(map(str, part.shape)) for part in (down, up))
        raise ValueError(f"{layer} has matrices of {shapes}, which do not belong together.")
    if not all(torch.isfinite(part.float()).all() for part in parts.values()):
        raise ValueError(f"{layer} holds values that are not finite. Download the file again.")
    return down.shape[0]


def _alpha(layer: str, rank: int, config: Mapping[str, object]) -> float | None:
    """What peft's ``config`` says of the scale of a ``layer``, alpha / rank, as the host reads it."""
    alpha = config.get("lora_alpha")
    patterns = config.get("alpha_pattern")
    for name, value in (patterns if isinstance(patterns, dict) else {}).items():
        if f".{_published(layer)}".endswith(f".{PREFIXES.sub('', name, count=1)}"):
            alpha = value
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        return None
    return alpha * math.sqrt(rank) if config.get("use_rslora") is True else float(alpha)
