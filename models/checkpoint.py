"""Adapter files: check, build, save.

One safetensors file an adapter: tensors named ``group.key`` and, under the metadata key ``animate_anywhere``, a JSON
header that says for which base they were trained, which groups there are, and where they come from.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import comfy.latent_formats
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from . import background_motion, checked_json, shards
from .checked_json import Fields, shown
from .cross_attention import PoseAttention
from .latents import CHANNELS, PATCH
from .pada_ln import PadaLN
from .pose_control import PoseControl
from .reference import ReferenceNet
from .unified_tokens import UnifiedTokens

METADATA_KEY = "animate_anywhere"
FORMAT = 1
FAMILY = "cogvideox1.5-i2v"
HEADS_OF_5B = 48  # by which the host, too, knows the latents of the 5B models
IMAGE_LATENT_SCALE = "image_latent_scale"  # in the header, under ``training``
PICKLED = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
PRECISIONS = [torch.bfloat16, torch.float16, torch.float32]  # that networks compute in, the preferred one first
DTYPES = ("F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")  # of weights, in safetensors' words
# What a header may say at most, several times what there is: larger ones would only be built to fail.
MAX_SIZES = {"width": 1 << 16, "heads": 1 << 10, "blocks": 1 << 10, "time_width": 1 << 16, "text_width": 1 << 16}
MAX_COUNT = 1 << 50
CONTROLLED = 3 / 7  # of the base's blocks have a counterpart in ControlNet and ReferenceNet: 18 of 42 (section III-B)


@dataclass(frozen=True)
class Base:
    """The base model that an adapter fits."""

    width: int
    heads: int
    blocks: int
    time_width: int
    text_width: int
    family: str = FAMILY

    @classmethod
    def of(cls, network: nn.Module) -> "Base":
        """What ``network`` (the host's CogVideoXTransformer3DModel) is."""
        return cls(
            width=network.dim,
            heads=network.num_attention_heads,
            blocks=len(network.blocks),
            time_width=network.time_embedding_linear_2.out_features,
            text_width=network.patch_embed.text_proj.in_features,
        )

    @property
    def controlled_blocks(self) -> int:
        return max(1, round(CONTROLLED * self.blocks))

    @property
    def network(self) -> dict:
        """The host's arguments for CogVideoXTransformer3DModel, but for the number of layers."""
        return {
            "num_attention_heads": self.heads,
            "attention_head_dim": self.width // self.heads,
            "in_channels": 2 * CHANNELS,
            "time_embed_dim": self.time_width,
            "ofs_embed_dim": self.time_width,
            "text_embed_dim": self.text_width,
            "patch_size": PATCH,
            "patch_size_t": PATCH,
            "use_rotary_positional_embeddings": True,
        }

    @property
    def latent_format(self) -> comfy.latent_formats.LatentFormat:
        """The scale of latents, by the host's own rule (comfy/supported_models.py)."""
        is_5b = self.heads >= HEADS_OF_5B
        return comfy.latent_formats.CogVideoX1_5() if is_5b else comfy.latent_formats.CogVideoX()

    @property
    def image_latent_scale(self) -> float:
        """What the latents of the start picture are multiplied with, by the base's own released code.

        CogVideoX1.5-5B-I2V was trained with a VAE whose config.json says ``invert_scale_latents``: its code divides
        noise and video by 1/0.7, and leaves the picture as the VAE gives it. Smaller ones are trained here, with one
        scale for all.
        """
        return 1.0 if self.heads >= HEADS_OF_5B else self.latent_format.scale_factor

    def __str__(self) -> str:
        return f"{self.family}, {self.blocks} blocks of width {self.width}"


@dataclass(frozen=True)
class Header:
    base: Base
    groups: dict  # name -> {"tensors": int, "parameters": int}
    training: dict = field(default_factory=lambda: {"stage": "untrained"})
    licence: str = "GPL-3.0"
    format: int = FORMAT

    @property
    def image_latent_scale(self) -> float:
        """What the latents of the start picture were multiplied with in training; files from before it was written
        down were trained as their base was."""
        return self.training.get(IMAGE_LATENT_SCALE, self.base.image_latent_scale)


@dataclass(frozen=True, eq=False)
class Adapter:
    """What AA_ADAPTER carries. A group that the file does not have is None."""

    header: Header
    pose_control: comfy.model_patcher.ModelPatcher | None = None
    reference: comfy.model_patcher.ModelPatcher | None = None
    background_motion: dict[str, Tensor] | None = None
    pada_ln: comfy.model_patcher.ModelPatcher | None = None
    unified_tokens: comfy.model_patcher.ModelPatcher | None = None
    cross_attention: comfy.model_patcher.ModelPatcher | None = None


def pose_control_for(base: Base, blocks: int | None = None, **place) -> PoseControl:
    return PoseControl(base.width, base.heads, base.time_width, blocks or base.controlled_blocks, **place)


def pada_ln_for(base: Base, blocks: int | None = None, **place) -> PadaLN:
    return PadaLN(base.width, base.time_width, blocks or base.blocks, **place)


def cross_attention_for(base: Base, blocks: int | None = None, **place) -> PoseAttention:
    return PoseAttention(base.width, base.heads, blocks or base.blocks, **place)


def unified_tokens_for(base: Base, **place) -> UnifiedTokens:
    return UnifiedTokens(base.width, **place)


def reference_for(base: Base, states: int | None = None, **place) -> ReferenceNet:
    return ReferenceNet(states=states or base.controlled_blocks, **base.network, **place)


def _blocks_in(state: Mapping[str, Tensor]) -> int:
    return len({key.split(".")[1] for key in state if key.startswith("blocks.")})


# group -> the network that its tensors fill. Their depth is the file's own, so that shallower adapters load too.
NETWORKS = {
    "pose_control": lambda base, state, **place: pose_control_for(base, _blocks_in(state), **place),
    "reference": lambda base, state, **place: reference_for(base, _blocks_in(state) + 1, **place),
    "pada_ln": lambda base, state, **place: pada_ln_for(base, _blocks_in(state), **place),
    "unified_tokens": lambda base, _state, **place: unified_tokens_for(base, **place),
    "cross_attention": lambda base, state, **place: cross_attention_for(base, _blocks_in(state), **place),
}
# DynamiCtrl's, trained with the pose always there, so that guidance takes away the text alone.
JOINT_TEXT = ("pada_ln", "unified_tokens", "cross_attention")
POSE_GROUPS = ("pose_control", *JOINT_TEXT)  # those that follow a pose
GROUPS = (*NETWORKS, "background_motion")


def save(path: str | Path, base: Base, groups: Mapping[str, Mapping[str, Tensor]], **provenance) -> Header:
    """Write an adapter. ``provenance``: ``training`` (stage, data, steps, …) and ``licence`` of the header.

    The file appears under its name only when it is whole.
    """
    unknown = set(groups) - set(GROUPS)
    if unknown:
        raise ValueError(f"An adapter has the groups {', '.join(GROUPS)}; got {', '.join(sorted(unknown))}.")
    sizes = {
        name: {"tensors": len(state), "parameters": sum(value.numel() for value in state.values())}
        for name, state in groups.items()
    }
    training = {"stage": "untrained", IMAGE_LATENT_SCALE: base.image_latent_scale, **provenance.pop("training", {})}
    header = Header(base, sizes, training, **provenance)
    tensors = {f"{name}.{key}": value.contiguous() for name, state in groups.items() for key, value in state.items()}
    partial = Path(f"{path}.part")
    safetensors.torch.save_file(tensors, partial, metadata={METADATA_KEY: json.dumps(asdict(header))})
    os.replace(partial, path)
    return header


def read(path: str | Path) -> tuple[Header, dict[str, dict[str, Tensor]]]:
    """Header and groups of the adapter at ``path``; tensors stay mapped to the file.

    Raises ValueError that says which file, what was expected and what was found.
    """
    path = Path(path)
    if path.suffix.lower() in PICKLED:
        raise ValueError(
            f"adapter: {path.name} is a pickled checkpoint, which can run code when it is opened. Convert it once, in "
            f"the pack's folder: python scripts/convert.py unpickle {path.name} {path.stem}.safetensors"
        )
    entries, metadata = shards.read_header(path, "adapter: ")
    header = _parse_header(path, metadata.get(METADATA_KEY))
    _check_groups(path, header, entries)
    with safetensors.safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in entries}
    return header, {name: _strip(tensors, name) for name in header.groups}


def _parse_header(path: Path, text: str | None) -> Header:
    if text is None:
        raise ValueError(
            f"adapter: {path.name} has no AnimateAnywhere header, so it is no adapter of this pack. A LoRA is loaded "
            "with Load LoRA, a base model with Load Diffusion Model."
        )
    source = f"adapter: {path.name}: its header"
    header = Fields(checked_json.parse_object(text, source), source)
    if header.values.get("format") != FORMAT:
        raise ValueError(
            f"adapter: {path.name} has format {shown(header.values.get('format'))}; this version of the pack reads "
            f"format {FORMAT}. Update ComfyUI-AnimateAnywhere."
        )
    header.integer("format", FORMAT)  # neither true nor 1.0
    base, groups = header.table("base"), header.table("groups")
    unknown = set(groups.values) - set(GROUPS)
    if base.text("family") != FAMILY or unknown:
        family = f"a base of the family {base.values['family'][:80]}"
        found = f"groups {', '.join(sorted(unknown))[:200]}" if unknown else family
        raise ValueError(f"adapter: {path.name} has {found}, which this version of the pack does not know. Update it.")
    header.only([each.name for each in fields(Header)])
    if not groups.values:
        raise ValueError(f"adapter: {path.name} has no groups of weights in it. Get the file again.")
    counts = {name: _read_counts(groups.table(name)) for name in groups.values}
    return Header(read_base(base), counts, header.table("training").values, header.text("licence"), FORMAT)


def read_base(found: Fields) -> Base:
    """The base that ``found`` describes. Raises ValueError where a size is missing or not possible."""
    found.only([each.name for each in fields(Base)])
    sizes = {name: found.integer(name, highest) for name, highest in MAX_SIZES.items()}
    base = Base(**sizes, family=found.text("family"))
    if base.width % base.heads:
        raise ValueError(
            f"{found.source}: a width of {base.width} cannot be shared by {base.heads} heads. Get the file again."
        )
    return base


def _read_counts(found: Fields) -> dict:
    found.only(("tensors", "parameters"))
    return {name: found.integer(name, MAX_COUNT) for name in ("tensors", "parameters")}


def _check_groups(path: Path, header: Header, entries: Mapping[str, shards.Entry]) -> None:
    """Raise ValueError where the file's ``entries`` are not those that its header promises."""
    others = sorted(key for key in entries if key.split(".")[0] not in header.groups)
    if others:
        raise ValueError(
            f"adapter: {path.name} has {len(others)} tensors that belong to no group of its header ({others[0][:80]} "
            "first). Get the file again."
        )
    for name, expected in header.groups.items():
        found = _strip(entries, name)
        if len(found) != expected["tensors"]:
            raise ValueError(
                f"adapter: {path.name} should have {expected['tensors']} tensors in its group {name} and has "
                f"{len(found)}. The file is incomplete; get it again."
            )
        numbers = sum(math.prod(entry.shape) for entry in found.values())
        if numbers != expected["parameters"]:
            raise ValueError(
                f"adapter: {path.name} should have {expected['parameters']} numbers in its group {name} and has "
                f"{numbers}. The file is damaged; get it again."
            )
        other = sorted(key for key, entry in found.items() if entry.dtype not in DTYPES)
        if other:
            raise ValueError(
                f"adapter: {path.name} has {other[0][:80]} in {found[other[0]].dtype}; {', '.join(DTYPES)} are "
                "expected. Get the file again."
            )


def _strip(tensors: Mapping, group: str) -> dict:
    """The entries of ``tensors`` whose names begin with ``group``, without it."""
    return {key[len(group) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{group}.")}


def load(path: str | Path) -> Adapter:
    """The adapter at ``path``, its networks under the host's memory management, in the file's own precision."""
    header, groups = read(path)
    parts = {}
    for name, state in groups.items():
        parts[name] = state
        if name in NETWORKS:
            parts[name] = patcher(Path(path).name, name, header.base, state)
            parts[name].cached_patcher_init = (load_group, (path, name))
    return Adapter(header, **parts)


def load_group(path: str | Path, group: str, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The network of ``group`` alone: for the host's MultiGPU nodes, which load a model once more for each device."""
    header, groups = read(path)
    return patcher(Path(path).name, group, header.base, groups[group], disable_dynamic)


def compute_dtype(weight_dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """What a network whose weights are stored in ``weight_dtype`` (fp8, for one) computes in on ``device``."""
    return comfy.model_management.unet_manual_cast(weight_dtype, device, PRECISIONS) or weight_dtype


def patcher(
    file: str, group: str, base: Base, state: dict[str, Tensor], disable_dynamic: bool = False
) -> comfy.model_patcher.ModelPatcher:
    """The network of ``group`` with the weights ``state`` from ``file``, under the host's memory management.

    disable_dynamic: without the host's dynamic VRAM, as its own loaders have it.
    """
    stored = next(iter(state.values())).dtype
    device = comfy.model_management.get_torch_device()
    # The host's own choice for a diffusion model, so that base and adapter compute alike.
    dtype = comfy.model_management.unet_dtype(
        model_params=sum(value.numel() for value in state.values()), supported_dtypes=PRECISIONS, weight_dtype=stored
    )
    network = NETWORKS[group](base, state, device="meta", dtype=dtype, operations=comfy.ops.manual_cast)
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ValueError(f"adapter: group {group} of {file} does not fit its header ({base}): {error}") from error
    network.to(dtype).eval().requires_grad_(False)
    if isinstance(network, ReferenceNet):
        # The host casts the input of a patch embedding to the dtype of its weights, and fp8 only stores.
        network.patch_embed.to(compute_dtype(dtype, device))
    kind = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    return kind(
        network,
        load_device=device,
        offload_device=comfy.model_management.unet_offload_device(),
    )


def fresh(
    network: nn.Module, rank: int = 32, seed: int = 0, dtype: torch.dtype = torch.bfloat16
) -> dict[str, dict[str, Tensor]]:
    """Groups of an untrained adapter for the base ``network``: copies of its blocks, joined by zeros (section IV-A)."""
    base = Base.of(network)
    return {
        "pose_control": pose_control_for(base, dtype=dtype).start_from(network).state_dict(),
        "reference": reference_for(base, dtype=dtype, operations=nn).start_from(network).state_dict(),
        "background_motion": background_motion.build(network, rank, seed=seed, dtype=dtype),
    }
