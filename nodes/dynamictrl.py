"""DynamiCtrl: its released models, prompts as it was trained with, and pictures of which the prompt fills a part."""

import re
from pathlib import Path

import folder_paths
import torch
from comfy_api.latest import io, ui

from ..models import dynamictrl
from ..models.dit import TEXT_TOKENS
from ..models.text import cut
from . import files, sockets
from .feedback import progress_of, shown
from .socket_values import doubt_about

FOLDER = "diffusion_models"
SHARD = re.compile(r"^(?P<folder>.+)/diffusion_pytorch_model[^/]*\.safetensors$")
# The choices of the host's Load Diffusion Model, and what they mean to its loader.
PRECISIONS = {
    "default": {},
    "fp8_e4m3fn": {"dtype": torch.float8_e4m3fn},
    "fp8_e4m3fn_fast": {"dtype": torch.float8_e4m3fn, "fp8_optimizations": True},
    "fp8_e5m2": {"dtype": torch.float8_e5m2},
}


def checkpoints() -> list[str]:
    """What lies in models/diffusion_models: files, and folders of shards as NAME/."""
    names = [name.replace("\\", "/") for name in folder_paths.get_filename_list(FOLDER)]
    shards = {name: match["folder"] + "/" for name in names if (match := SHARD.match(name))}
    return sorted({shards.get(name, name) for name in names})


def path_of(checkpoint: str) -> Path:
    """Where a name of checkpoints() lies."""
    return files.model_path(FOLDER, checkpoint, "checkpoint")


class LoadDynamiCtrl(sockets.Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}LoadDynamiCtrl",
            display_name="Load DynamiCtrl",
            category=sockets.MODEL,
            description="Loads a DynamiCtrl model as it was released: CogVideoX 1.5 with its own pose control. It "
            "animates a whole picture of a person by a pose video and a prompt.",
            inputs=[
                sockets.FileInput(
                    "checkpoint",
                    options=checkpoints(),
                    tooltip="A safetensors file, or the downloaded transformer folder (its name ends in /), in "
                    "models/diffusion_models. Other models in the list are refused.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(PRECISIONS),
                    advanced=True,
                    tooltip="default is the precision of the files. fp8 takes half of bf16's memory and costs some "
                    "quality. The pose control stays as it is.",
                ),
            ],
            outputs=[
                io.Model.Output("model", tooltip="For Sample Shot. LoRA and caching nodes work after it, as usual.")
            ],
            search_aliases=["dynamictrl", "padaln", "human animation", "diffusers loader"],
        )

    @classmethod
    def execute(cls, checkpoint, weight_dtype="default") -> io.NodeOutput:
        path = path_of(checkpoint)
        count = len(list(path.glob("*.safetensors"))) if path.is_dir() else 1
        return io.NodeOutput(dynamictrl.load(path, PRECISIONS[weight_dtype], progress_of(count)))


class EncodePrompt(sockets.Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}EncodePrompt",
            display_name="Encode Prompt",
            category=sockets.SHOT,
            description="Reads a prompt as CogVideoX was trained to be told: 226 tokens, padded and cut off. For "
            "shorter prompts it gives what CLIP Text Encode gives.",
            inputs=[
                io.Clip.Input("clip", tooltip="T5-XXL from Load CLIP, type cogvideox."),
                io.String.Input(
                    "text",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="What is to be seen: the person, the clothes, the background. (word:1.2) stresses a word. "
                    "Leave it empty for a negative prompt.",
                ),
            ],
            outputs=[
                io.Conditioning.Output("conditioning", tooltip="For positive or negative of Sample Shot."),
                io.String.Output("report", tooltip="How much of the text was read."),
            ],
            search_aliases=["clip text encode", "t5", "dynamictrl prompt"],
        )

    @classmethod
    def execute(cls, clip, text) -> io.NodeOutput:
        if not hasattr(clip, "tokenize"):
            raise ValueError("clip: there is no text encoder in it. Load T5-XXL with Load CLIP, type cogvideox.")
        tokens, left_out = cut(clip.tokenize(text))
        report = f"The last {left_out} tokens were cut off: {TEXT_TOKENS} are read." if left_out else "Read as a whole."
        return io.NodeOutput(clip.encode_from_tokens_scheduled(tokens), report, ui=ui.PreviewText(report))


class BlackOut(sockets.Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}BlackOut",
            display_name="Black Out for DynamiCtrl",
            category=sockets.MASK,
            description="Blacks out the background or the clothes of a picture, so that DynamiCtrl's masked models "
            "fill them as the prompt says: Mask_B01 the background, Mask_C01 the clothes.",
            inputs=[
                io.Image.Input("images", tooltip="The whole picture of the person."),
                io.Mask.Input(
                    "mask",
                    tooltip="For background: white on the person, from Segment Character. For clothing: white on the "
                    "clothes, from SAM or painted.",
                ),
                io.Combo.Input(
                    "blank",
                    options=list(dynamictrl.BLANKS),
                    tooltip="What becomes black, and is filled by the prompt.",
                ),
            ],
            outputs=[io.Image.Output("images", tooltip="The picture with black in it; for background of Shot.")],
            search_aliases=["mask background", "mask clothing", "masked image", "dynamictrl mask"],
        )

    @classmethod
    def execute(cls, images, mask, blank) -> io.NodeOutput:
        blanked = dynamictrl.black_out(images, mask, blank)
        return io.NodeOutput(blanked, ui=shown(doubt_about(mask)))


NODES = [LoadDynamiCtrl, EncodePrompt, BlackOut]
