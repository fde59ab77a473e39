"""Networks of others at toy size, with seeded random weights: T5, SAM 2, ViTMatte; and LaMa, which has one size."""

from functools import partial
from pathlib import Path

import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import comfy.text_encoders.cogvideo
import comfy.text_encoders.t5
import torch
import toys
from safetensors.torch import save_file
from spandrel.architectures.LaMa import LaMa
from transformers import Sam2VideoConfig, Sam2VideoModel, VitDetConfig, VitMatteConfig, VitMatteForImageMatting

T5 = {
    "d_ff": 48, "d_kv": 8, "d_model": 24, "dense_act_fn": "gelu_pytorch_tanh", "is_gated_act": True, "num_heads": 3,
    "model_type": "t5", "num_layers": 2, "vocab_size": 32128, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
SAM2 = {
    "image_size": 64,
    "vision_config": {
        "model_type": "sam2_vision_model",
        "backbone_config": {
            "model_type": "sam2_hiera_det_model",
            "image_size": [64, 64],
            "hidden_size": 8,
            "blocks_per_stage": [1, 1, 2, 1],
            "embed_dim_per_stage": [8, 16, 32, 64],
            "num_attention_heads_per_stage": [1, 2, 4, 8],
            "window_size_per_stage": [4, 4, 4, 2],
            "global_attention_blocks": [3],
        },
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": 128,
    },
    "prompt_encoder_config": {"hidden_size": 128, "image_size": 64},
    "mask_decoder_config": {"hidden_size": 128, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 32},
    "memory_attention_hidden_size": 128,
    "memory_attention_num_layers": 1,
    "memory_attention_feed_forward_hidden_size": 32,
    "memory_attention_rope_feat_sizes": [4, 4],
    "memory_encoder_hidden_size": 128,
    "memory_encoder_output_channels": 64,  # transformers takes no other, and less than the width
    "mask_downsampler_embed_dim": 128,
    "memory_fuser_embed_dim": 128,
    "memory_fuser_intermediate_dim": 32,
    "num_maskmem": 3,
    "max_object_pointers_in_encoder": 4,
}


class ToyT5(comfy.sd1_clip.SDClipModel):
    """comfy.text_encoders.sd3_clip.T5XXLModel, but for its size."""

    def __init__(self, device="cpu", dtype=None, model_options={}) -> None:  # noqa: B006, as the host's
        super().__init__(
            device=device, dtype=torch.float32, textmodel_json_config=T5, model_options=model_options,
            special_tokens={"end": 1, "pad": 0}, model_class=comfy.text_encoders.t5.T5, layer="last",
        )  # fmt: skip


def clip() -> comfy.sd.CLIP:
    """A CLIP of the type cogvideox, as the stock CLIPLoader gives it."""
    target = comfy.supported_models_base.ClipTarget(
        comfy.text_encoders.cogvideo.CogVideoXTokenizer,
        partial(comfy.sd1_clip.SD1ClipModel, name="t5xxl", clip_model=ToyT5),
    )
    made = comfy.sd.CLIP(target)
    toys.randomised(made.cond_stage_model, scale=2.0)
    return made


def sam2() -> Sam2VideoModel:
    network = toys.randomised(Sam2VideoModel(Sam2VideoConfig(**SAM2)), scale=1.0).eval()
    with torch.no_grad():
        network.mask_decoder.pred_obj_score_head.proj_out.bias += 5  # it sees the thing in every frame
    return network


def vitmatte() -> VitMatteForImageMatting:
    backbone = VitDetConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=64, pretrain_image_size=32,
        num_channels=4, window_size=2, window_block_indices=[0], residual_block_indices=[1], out_features=["stage2"],
    )  # fmt: skip
    config = VitMatteConfig(
        backbone_config=backbone, hidden_size=16, convstream_hidden_sizes=[8, 8, 8], fusion_hidden_sizes=[16, 8, 8, 8]
    )
    return toys.randomised(VitMatteForImageMatting(config), scale=1.0).eval()


def save_lama(path: Path) -> Path:
    """The architecture has one size; its weights are random here."""
    with torch.device("meta"):
        shapes = LaMa(in_nc=4, out_nc=3).state_dict()
    generator = torch.Generator().manual_seed(0)
    state = {
        key: torch.zeros(value.shape, dtype=value.dtype)
        if not value.is_floating_point()
        else torch.ones(value.shape)
        if key.endswith(("running_var", "weight")) and value.ndim == 1
        else 0.02 * torch.randn(value.shape, generator=generator)
        for key, value in shapes.items()
    }
    save_file(state, path)
    return path
