"""DynamiCtrl's released weights: CogVideoX1.5-5B-I2V trained as a whole, with PadaLN in every block.

The base part goes through the host's own loader, shard by shard; PadaLN becomes an adapter on it.
"""

from collections.abc import Callable, Container
from pathlib import Path

import comfy.sd
import comfy.utils
import torch
from comfy.ldm.cogvideo.model import CogVideoXTransformer3DModel
from comfy.model_patcher import ModelPatcher
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from . import attach, checked_json, checkpoint, dit, shards
from .checked_json import Fields, shown
from .checkpoint import FAMILY, Adapter, Base, Header
from .latents import CHANNELS, PATCH
from .shards import Shards

PADA_LN = ".control_norm1."  # blocks.N.control_norm1.{linear,norm}.{weight,bias}
BLANKS = ("background", "clothing")  # what the released masked models, B01 and C01, fill
KEEP = 200 / 255  # brightness of a mask above which training kept a pixel
HEAD = 64  # channels of an attention head, in every CogVideoX
# Of the released script, whose VAE config says invert_scale_latents; the fine-tuning code multiplied by 0.7.
RELEASED_IMAGE_LATENT_SCALE = 1.0
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}  # in safetensors' words

Progress = Callable[[int], None]  # called with the number of files read so far; may raise to cancel


def load(path: Path, model_options: dict | None = None, progress: Progress | None = None) -> ModelPatcher:
    """The model at ``path``: a safetensors file in diffusers' or the host's names, or a folder in diffusers' layout.

    model_options: of the host's loader, for another precision. Peak memory is the weights' size and one shard.
    Raises ValueError that says what is wrong with the files, before any weight is read.
    """
    found = shards.read(Path(path), "checkpoint")
    base = check(found)
    try:
        model = load_base(path, model_options, progress=progress)
    except (RuntimeError, KeyError, IndexError, TypeError, AttributeError, SafetensorError) as error:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        raise ValueError(
            f"checkpoint: ComfyUI cannot read {found.name} ({str(error)[:200]}). Download it again."
        ) from error
    dit.check_base(model)
    adapter = pada_ln(found, base)
    adapter.pada_ln.cached_patcher_init = (load_pada_ln, (Path(path),))
    return attach.attach(model, adapter)


def check(found: Shards) -> Base:
    """What base ``found`` is. Raises ValueError unless it is a whole CogVideoX 1.5 I2V with PadaLN in every block."""
    shapes = {key: entry.shape for key, entry in found.tensors.items()}
    norm, patch = (shapes.get(key) for key in ("blocks.0.norm1.linear.weight", "patch_embed.proj.weight"))
    if norm is None or patch is None or len(norm) != 2:
        raise ValueError(f"checkpoint: {found.name} is no CogVideoX transformer. DynamiCtrl is wanted here.")
    if len(patch) != 2:
        raise ValueError(
            f"checkpoint: {found.name} is a CogVideoX 1.0 or 2B model, which ComfyUI computes with other positions "
            "than it was trained with. Of DynamiCtrl, use the 5B model, made from CogVideoX1.5-5B-I2V."
        )
    if patch[1] != 2 * CHANNELS * PATCH**3:
        raise ValueError(
            f"checkpoint: {found.name} takes {patch[1] // PATCH**3} latent channels; DynamiCtrl is made from the "
            f"image-to-video model, which takes {2 * CHANNELS}."
        )
    blocks = len({key.split(".")[1] for key in shapes if key.startswith("blocks.")})
    if not any(PADA_LN in key for key in shapes):
        raise ValueError(
            f"checkpoint: no PadaLN found in {found.name}, so it is a plain CogVideoX. Load it with Load Diffusion "
            "Model."
        )
    _check_config(found, blocks, norm)
    text = shapes.get("patch_embed.text_proj.weight", ())
    sizes = {"width": norm[0] // 6, "time_width": norm[1], "text_width": text[1] if len(text) == 2 else 1}
    sizes |= {"heads": norm[0] // 6 // HEAD, "blocks": blocks, "family": FAMILY}
    base = checkpoint.read_base(Fields(sizes, f"checkpoint: {found.name}"))
    expected = _expected(base)
    missing = sorted(set(expected) - set(shapes))
    if missing:
        raise ValueError(f"checkpoint: {found.name} lacks {len(missing)} weights, {missing[0]} first. Get it again.")
    for key, shape in expected.items():
        entry = found.tensors[key]
        if entry.shape != shape or entry.dtype not in DTYPES:
            raise ValueError(
                f"checkpoint: {found.name} has {key} as {entry.dtype} of {shown(list(entry.shape))}; {list(shape)} in "
                f"{', '.join(DTYPES)} is expected. Get it again."
            )
    return base


def _expected(base: Base) -> dict[str, tuple[int, ...]]:
    """The names and shapes of all weights of a DynamiCtrl on ``base``."""
    place = {"device": "meta", "operations": nn}
    network = CogVideoXTransformer3DModel(num_layers=base.blocks, **base.network, **place)
    parts = checkpoint.pada_ln_for(base, blocks=1, **place).blocks[0].state_dict()
    norms = {f"blocks.{i}{PADA_LN}{part}": value for i in range(base.blocks) for part, value in parts.items()}
    return {key: tuple(value.shape) for key, value in {**network.state_dict(), **norms}.items()}


def _check_config(found: Shards, blocks: int, norm: tuple[int, int]) -> None:
    """Raise ValueError where the folder's config.json contradicts the weights."""
    if found.config is None:
        return
    width = norm[0] // 6
    weights = {
        "num_attention_heads": width // HEAD,
        "attention_head_dim": HEAD,
        "num_layers": blocks,
        "time_embed_dim": norm[1],
        "in_channels": 2 * CHANNELS,
        "out_channels": CHANNELS,
        "patch_size": PATCH,
        "patch_size_t": PATCH,
        "use_rotary_positional_embeddings": True,
    }
    config = checked_json.parse_object(found.config, f"checkpoint: {shards.CONFIG} of {found.name}")
    for key, value in weights.items():
        if key in config and (config[key] != value or type(config[key]) is not type(value)):
            raise ValueError(
                f"checkpoint: {shards.CONFIG} of {found.name} says {key} {shown(config[key])}, its weights "
                f"{value}. Files of two models are mixed; download the folder again."
            )


def load_base(
    path: Path, model_options: dict | None = None, disable_dynamic: bool = False, progress: Progress | None = None
) -> ModelPatcher:
    """The base part of the model at ``path``, without its PadaLN, by the host's loader.

    The host builds the network from the first file, with zeros that take no memory in place of the other files'
    weights; each of those then fills its part and is let go.
    """
    found = shards.read(Path(path))
    options = model_options or {}
    first, *rest = found.paths
    state, metadata = _read_base(first)
    state |= _placeholders(found, state)
    model = comfy.sd.load_diffusion_model_state_dict(
        state, model_options=options, metadata=metadata, disable_dynamic=disable_dynamic
    )
    del state
    for done, shard in enumerate(rest, start=1):
        if progress is not None:
            progress(done)
        model.model.diffusion_model.load_state_dict(_read_base(shard)[0], strict=False, assign=model.is_dynamic())
    if progress is not None:
        progress(len(found.paths))
    # For the host's MultiGPU nodes, which load a model once more for each device.
    model.cached_patcher_init = (load_base, (path, options))
    return model


def _read_base(path: Path) -> tuple[dict[str, Tensor], dict[str, str] | None]:
    """The weights of a file that are not PadaLN's, in the host's names, and the file's metadata."""
    state, metadata = comfy.utils.load_torch_file(str(path), return_metadata=True)
    state = {shards.native_key(key): value for key, value in state.items()}
    return {key: value for key, value in state.items() if PADA_LN not in key}, metadata


def _placeholders(found: Shards, there: Container[str]) -> dict[str, Tensor]:
    """Zeros for the base's weights that are not ``there``, without memory of their own."""
    return {
        key: torch.zeros((), dtype=DTYPES.get(entry.dtype, torch.bfloat16)).expand(entry.shape)
        for key, entry in found.tensors.items()
        if key not in there and PADA_LN not in key
    }


def load_pada_ln(path: Path, disable_dynamic: bool = False) -> ModelPatcher:
    """The PadaLN of the model at ``path`` alone: for the host's MultiGPU nodes."""
    found = shards.read(path)
    return pada_ln(found, check(found), disable_dynamic).pada_ln


def pada_ln(found: Shards, base: Base, disable_dynamic: bool = False) -> Adapter:
    """The PadaLN of ``found`` as an adapter for ``base``."""
    state = {}
    for path in found.paths:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118, no mapping
                native = shards.native_key(key)
                if PADA_LN in native:
                    # Copied, so that it does not keep the whole file open.
                    state[native.replace(PADA_LN, ".")] = file.get_tensor(key).clone()
    sizes = {"tensors": len(state), "parameters": sum(value.numel() for value in state.values())}
    training = {"stage": "DynamiCtrl", "file": found.name, checkpoint.IMAGE_LATENT_SCALE: RELEASED_IMAGE_LATENT_SCALE}
    header = Header(base, {"pada_ln": sizes}, training, "see the model's page")
    return Adapter(header, pada_ln=checkpoint.patcher(found.name, "pada_ln", base, state, disable_dynamic))


def black_out(picture: Tensor, mask: Tensor, what: str) -> Tensor:
    """``picture`` [T, H, W, 3] with black where the prompt is to decide, with a hard edge, as in training.

    mask: [1 or T, H, W], 1 on the person where ``what`` is "background", 1 on the clothes where it is "clothing".
    Raises ValueError, naming the socket, for another size or count, and where nothing, or nothing but black, is left.
    """
    picture, mask = picture[..., :3], mask.reshape(-1, *mask.shape[-2:])
    if mask.shape[1:] != picture.shape[1:3] or len(mask) not in (1, len(picture)):
        sizes = [f"{len(x)} of {x.shape[2]}×{x.shape[1]} px" for x in (mask, picture)]
        raise ValueError(f"mask: there are {sizes[0]}, and pictures {sizes[1]}. Make the mask from this picture.")
    keep = (mask if what == "background" else 1 - mask) > KEEP
    if keep.all() or not keep.any():
        effect = "blanks nothing" if keep.any() else "leaves nothing of the picture"
        wanted = "person, and black around" if what == "background" else "clothes alone"
        raise ValueError(f"mask: it {effect}. It must be white on the {wanted}.")
    return picture * keep[..., None].to(picture)
