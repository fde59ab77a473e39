"""SAM 2 (Ravi et al. 2024) by transformers: things pointed at in some frames of a video are followed through all of it.

Files: a folder in the Hugging Face layout, or one safetensors file in the names of the original repository, which is
what lies in models/sam2 of most installations.
"""

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .placement import Placed, from_folder

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what the image encoder was trained on

# The original's names -> transformers' names, one after the other. A file in transformers' names passes unchanged.
NAMES = [
    (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
    (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"vision_encoder.neck.convs.\1."),
    (r"^sam_prompt_encoder\.", "prompt_encoder."),
    (r"^sam_mask_decoder\.", "mask_decoder."),
    (r"\.patch_embed\.proj\.", ".patch_embed.projection."),
    (r"\.pe_layer\.positional_encoding_gaussian_matrix$", ".shared_embedding.positional_embedding"),
    (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
    (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
    (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
    (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
    (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
    (r"\.output_upscaling\.0\.", ".upscale_conv1."),
    (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
    (r"\.output_upscaling\.3\.", ".upscale_conv2."),
    (r"^obj_ptr_tpos_proj\.", "temporal_positional_encoding_projection_layer."),
    (r"^obj_ptr_proj\.", "object_pointer_proj."),
    (r"^no_obj_ptr$", "no_object_pointer"),
    (r"^no_obj_embed_spatial$", "occlusion_spatial_embedding_parameter"),
    (r"^no_mem_embed$", "no_memory_embedding"),
    (r"^no_mem_pos_enc$", "no_memory_positional_encoding"),
    (r"^maskmem_tpos_enc$", "memory_temporal_positional_encoding"),
    (r"^memory_encoder\.pix_feat_proj\.", "memory_encoder.feature_projection."),
    (r"^memory_encoder\.out_proj\.", "memory_encoder.projection."),
    (r"^memory_encoder\.fuser\.", "memory_encoder.memory_fuser."),
    (r"\.dwconv\.", ".depthwise_conv."),
    (r"\.pwconv(\d)\.", r".pointwise_conv\1."),
    (r"\.gamma$", ".scale"),
    (r"\.out_proj\.", ".o_proj."),
    (r"\.norm(\d|_final_attn|)\.", r".layer_norm\1."),
]
# Perceptrons: the original numbers the layers, transformers names the first and the last.
_TWO = r"^(vision_encoder\.backbone\.blocks\.\d+\.mlp|mask_decoder\.transformer\.layers\.\d+\.mlp)\.layers"
_THREE = (
    r"^(mask_decoder\.output_hypernetworks_mlps\.\d+|mask_decoder\.iou_prediction_head"
    r"|mask_decoder\.pred_obj_score_head|object_pointer_proj)\.layers"
)
NAMES += [
    (rf"{_TWO}\.0\.", r"\1.proj_in."),
    (rf"{_TWO}\.1\.", r"\1.proj_out."),
    (rf"{_THREE}\.0\.", r"\1.proj_in."),
    (rf"{_THREE}\.1\.", r"\1.layers.0."),
    (rf"{_THREE}\.2\.", r"\1.proj_out."),
]
# The mask's downsampler: a convolution, a norm and an activation in turns, and a last convolution.
NAMES += [(rf"\.mask_downsampler\.encoder\.{3 * i}\.", f".mask_downsampler.layers.{i}.conv.") for i in range(4)]
NAMES += [
    (rf"\.mask_downsampler\.encoder\.{3 * i + 1}\.", f".mask_downsampler.layers.{i}.layer_norm.") for i in range(4)
]
NAMES += [(r"\.mask_downsampler\.encoder\.12\.", ".mask_downsampler.final_conv.")]

# What shapes do not tell of the four sizes: heads and windows by width, the step between blocks that look at the whole
# picture by the number of blocks in the third stage.
HEADS = {96: 1, 112: 2, 144: 2}
WINDOWS = {144: (8, 4, 16, 8)}
WHOLE_PICTURE_EVERY = {7: 2, 11: 3, 16: 4, 36: 10}
HUGGING_FACE = "facebook/sam2.1-hiera-base-plus"

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Prompt:
    """What is pointed at in one ``frame``: ``points`` [N, 2] px, and ``inside`` [N] bool: on it, or beside."""

    frame: int
    points: Tensor
    inside: Tensor


class Sam2:
    """Follows things through a video."""

    def __init__(self, network: nn.Module) -> None:
        self.placed = Placed(network)

    @torch.inference_mode()
    def follow(
        self, frames: Tensor, things: list[list[Prompt]], progress: Progress | None = None
    ) -> Iterator[tuple[int, int, Tensor]]:
        """(number of the thing, frame, its mask [H, W] in 0…1) of ``things``, each pointed at in one frame or more, in
        ``frames`` [T, H, W, 3] in 0…1: every frame of each, one mask at a time, since all of them together would be
        several times the video.

        Forwards from the first prompt, then backwards from it; frames with prompts are remembered in both.
        ``progress`` is called with the number of frames done, of T, and may raise to stop.
        """
        device = self.placed.load()
        count, height, width = frames.shape[:3]
        memories = [_Memory(self.placed.network, frames, prompts, device) for prompts in things]
        for memory in memories[1:]:
            memory.session.cache = memories[0].session.cache  # the picture's features serve all
        order = _order(count, [memory.first for memory in memories])
        for done, (frame, reverse) in enumerate(order):
            for number, memory in enumerate(memories):
                if reverse != (frame < memory.first):
                    continue
                logits = F.interpolate(memory.step(frame, reverse), (height, width), mode="bilinear")
                yield number, frame, logits[0, 0].sigmoid().float().cpu()
            if progress is not None:
                progress(count * (done + 1) // len(order))


def _order(count: int, starts: list[int]) -> list[tuple[int, bool]]:
    """Frames to go through, and whether backwards: on from the first of ``starts``, and back from the last."""
    onwards = [(frame, False) for frame in range(min(starts), count)]
    return onwards + [(frame, True) for frame in range(max(starts) - 1, -1, -1)]


class _Frames:
    """The frames of a video as the network wants them, made when they are asked for: [3, S, S] each."""

    def __init__(self, frames: Tensor, size: int) -> None:
        self.frames, self.size = frames, size

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Tensor:
        picture = self.frames[index, ..., :3].float().movedim(-1, 0)[None]
        picture = F.interpolate(picture, (self.size, self.size), mode="bilinear", antialias=True)[0]
        mean, std = (torch.tensor(values, device=picture.device)[:, None, None] for values in (MEAN, STD))
        return (picture - mean) / std


class _Memory:
    """One thing, and what the network remembers of it."""

    def __init__(self, network: nn.Module, frames: Tensor, prompts: list[Prompt], device: torch.device) -> None:
        from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

        self.network = network
        self.kept = max(network.num_maskmem, network.config.max_object_pointers_in_encoder)
        height, width = frames.shape[1:3]
        self.session = Sam2VideoInferenceSession(
            video_height=height, video_width=width, inference_device=device, inference_state_device=device,
            dtype=torch.float32,
        )  # fmt: skip
        self.session.processed_frames = _Frames(frames, network.image_size)
        self.thing = self.session.obj_id_to_idx(1)
        to_network = network.image_size / torch.tensor([width, height])
        for prompt in sorted(prompts, key=lambda prompt: prompt.frame):
            inputs = {
                "point_coords": (prompt.points * to_network).float()[None, None],
                "point_labels": prompt.inside.int()[None, None],
            }
            self.session.add_point_inputs(self.thing, prompt.frame, inputs)
            self.session.obj_with_new_inputs = [1]
            self.step(prompt.frame, False)
        self.first = min(prompt.frame for prompt in prompts)

    def step(self, frame: int, reverse: bool) -> Tensor:
        """Logits [1, 1, h, w] of ``frame``."""
        logits = self.network(self.session, frame_idx=frame, reverse=reverse).pred_masks
        # The session would keep a picture's size for every frame, whatever the video's length.
        outputs = self.session.output_dict_per_obj[self.thing]
        for kind in outputs.values():
            for output in kind.values():
                output.pop("high_res_masks", None)
        remembered = outputs["non_cond_frame_outputs"]
        for other in [other for other in remembered if abs(other - frame) > self.kept]:
            del remembered[other]
        return logits


def load(path: Path) -> Sam2:
    """SAM 2 from a folder in the Hugging Face layout or from a safetensors file.

    Raises ValueError, with what to do, where it is neither, pickled, damaged, or of a size that is not known; and
    where the installed transformers is too old for SAM 2.
    """
    try:
        from transformers import Sam2VideoConfig, Sam2VideoModel
    except ImportError as error:
        raise ValueError(
            "model: sam2 needs transformers 4.57 or newer. Update ComfyUI's packages (pip install -U transformers)."
        ) from error
    if path.is_dir():
        return Sam2(from_folder(Sam2VideoModel, Sam2VideoConfig(), path, "weights", "SAM 2", HUGGING_FACE))
    if path.suffix != ".safetensors":
        raise ValueError(
            f"weights: {path.name} is not opened, because pickled files can run code. Convert it: "
            f"python scripts/convert.py unpickle {path.name} {path.stem}.safetensors"
        )
    try:
        state = renamed(safetensors.torch.load_file(path))
        with torch.device("meta"):
            network = Sam2VideoModel(configuration(state))
        missing, extra = network.load_state_dict(state, strict=False, assign=True)
    except Exception as error:  # as in from_folder
        raise ValueError(
            f"weights: {path.name} is damaged, or no SAM 2 ({str(error)[:500]}). Download it again."
        ) from error
    if missing or extra:
        raise ValueError(
            f"weights: {path.name} is no SAM 2 that tracks videos: {len(missing)} weights are missing (first: "
            f"{(list(missing) or ['none'])[0]}), {len(extra)} are of something else."
        )
    return Sam2(network.float())


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """``state`` in the original's names in transformers' names; one in transformers' names comes back as it is."""
    if not any(key.startswith("image_encoder.") for key in state):
        return state
    out = {}
    for key, value in state.items():
        for pattern, replacement in NAMES:
            key = re.sub(pattern, replacement, key)
        out[key] = value
    points = [out.pop(f"prompt_encoder.point_embeddings.{i}.weight") for i in range(4)]
    out["prompt_encoder.point_embed.weight"] = torch.cat(points)
    out["shared_image_embedding.positional_embedding"] = out["prompt_encoder.shared_embedding.positional_embedding"]
    return out


def configuration(state: dict[str, Tensor]):
    """The Sam2VideoConfig of the network whose weights, in transformers' names, are ``state``.

    Raises KeyError where they are not SAM 2's, and ValueError where they are of none of the released sizes.
    """
    from transformers import Sam2VideoConfig

    trunk = "vision_encoder.backbone"
    width = state[f"{trunk}.patch_embed.projection.weight"].shape[0]
    count = 1 + max(int(key.split(".")[3]) for key in state if key.startswith(f"{trunk}.blocks."))
    starts = [0, *(i for i in range(count) if f"{trunk}.blocks.{i}.proj.weight" in state), count]
    stages = [end - start for start, end in itertools.pairwise(starts)]
    if len(stages) != 4 or stages[2] not in WHOLE_PICTURE_EVERY:
        raise ValueError(
            f"weights: SAM 2 with {stages} blocks a stage is not known; take tiny, small, base plus or large."
        )
    every, last = WHOLE_PICTURE_EVERY[stages[2]], starts[3] - 1
    widths = [width * 2**i for i in range(4)]
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": width,
        "blocks_per_stage": stages,
        "embed_dim_per_stage": widths,
        "num_attention_heads_per_stage": [HEADS.get(width, 1) * 2**i for i in range(4)],
        "window_size_per_stage": list(WINDOWS.get(width, (8, 4, 14, 7))),
        "global_attention_blocks": [last - 2 * every, last - every, last],
        "window_positional_embedding_background_size": list(state[f"{trunk}.pos_embed"].shape[2:]),
    }
    return Sam2VideoConfig(
        vision_config={
            "model_type": "sam2_vision_model",
            "backbone_config": backbone,
            "backbone_channel_list": widths[::-1],
        },
        enable_temporal_pos_encoding_for_object_pointers="temporal_positional_encoding_projection_layer.weight"
        in state,
        enable_occlusion_spatial_embedding="occlusion_spatial_embedding_parameter" in state,
    )
