"""Adapter files, putting them on a MODEL, and reading a character with one."""

from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..models import attach, checkpoint, latents, reference
from . import files, sockets
from .feedback import shown
from .socket_values import check_shows_somebody, doubt_about

FOLDER = "animate_anywhere"
WEIGHTS = Path(__file__).resolve().parent.parent / "weights"


def register_folders() -> None:
    """Let the host's own loaders see models/animate_anywhere and the embedded default in weights/.

    Pickled files are listed too: choosing one gives the error that says how to convert it.
    """
    models = Path(folder_paths.models_dir) / FOLDER
    folder_paths.add_model_folder_path(FOLDER, str(models), is_default=True)
    for folder in ("diffusion_models", "vae", FOLDER):
        folder_paths.add_model_folder_path(folder, str(WEIGHTS / folder))
    paths, _ = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (paths, set(folder_paths.supported_pt_extensions))


class LoadAdapter(sockets.Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}LoadAdapter",
            display_name="Load AnimateAnywhere Adapter",
            category=sockets.MODEL,
            description="Loads what makes CogVideoX follow a pose, keep a character and move the background. "
            "Files go into models/animate_anywhere; the small default is part of the pack.",
            inputs=[
                sockets.FileInput(
                    "adapter",
                    options=folder_paths.get_filename_list(FOLDER),
                    tooltip="A safetensors file from models/animate_anywhere. It must belong to the model it is "
                    "applied to: aa_tiny_adapter to aa_tiny_base.",
                )
            ],
            outputs=[
                sockets.Adapter.Output(
                    "adapter", tooltip="For Apply AnimateAnywhere Adapter and Encode Character Reference."
                )
            ],
            search_aliases=["controlnet", "referencenet", "animate anywhere"],
        )

    @classmethod
    def execute(cls, adapter: str) -> io.NodeOutput:
        return io.NodeOutput(checkpoint.load(files.model_path(FOLDER, adapter, "adapter")))


def _strength(name: str, what: str, tooltip: str, maximum: float) -> io.Float.Input:
    return io.Float.Input(name, default=1.0, min=0.0, max=maximum, step=0.05, tooltip=f"{what} {tooltip}")


class ApplyAdapter(sockets.Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}ApplyAdapter",
            display_name="Apply AnimateAnywhere Adapter",
            category=sockets.MODEL,
            description="Puts an adapter on a copy of a CogVideoX 1.5 image-to-video model. The model itself stays as "
            "it is; LoRA, caching and quantised weights go on working before and after this node.",
            inputs=[
                io.Model.Input("model", tooltip="CogVideoX1.5-5B-I2V, or aa_tiny_base, from Load Diffusion Model."),
                sockets.Adapter.Input("adapter", tooltip="From Load AnimateAnywhere Adapter."),
                _strength(
                    "pose_strength",
                    "How strictly the pose is followed.",
                    "1 is as trained; 0 leaves the pose network out.",
                    2.0,
                ),
                _strength(
                    "reference_strength",
                    "How much the person looks like the character.",
                    "1 is as trained, 0 leaves the character out; values between mix both and take longer.",
                    1.0,
                ),
                _strength(
                    "background_motion",
                    "How much the background moves with the pose.",
                    "1 is as trained, 0 leaves the base model's own motion; above 1 exaggerates.",
                    2.0,
                ),
            ],
            outputs=[
                io.Model.Output(
                    "model", tooltip="The model with the adapter; for Sample Shot, or the stock custom samplers."
                )
            ],
            search_aliases=[
                "apply controlnet",
                "pose control",
                "pose strength",
                "background motion",
                "animate anywhere",
            ],
        )

    @classmethod
    def execute(cls, model, adapter, pose_strength, reference_strength, background_motion) -> io.NodeOutput:
        return io.NodeOutput(attach.attach(model, adapter, pose_strength, reference_strength, background_motion))


class EncodeReference(sockets.Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        size = {"default": 0, "min": 0, "max": 8192, "step": latents.SIZE_STEP, "advanced": True}
        return io.Schema(
            node_id=f"{sockets.PREFIX}EncodeReference",
            display_name="Encode Character Reference",
            category=sockets.MODEL,
            description="Reads the character's picture once, so that the video shows this person. The result serves "
            "any number of shots and seeds.",
            inputs=[
                sockets.Adapter.Input("adapter", tooltip="From Load AnimateAnywhere Adapter, the same as for Apply."),
                sockets.vae_input(),
                io.Image.Input("character", tooltip="One picture of the person. Of several, the first is used."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="White where the person is. What lies outside is greyed out, so that only the person is "
                    "read. Without it the whole picture is read. Load Image's mask of a PNG is the other way round: "
                    "Invert Mask first.",
                ),
                io.Int.Input(
                    "width",
                    **size,
                    tooltip="Width in px that the picture is fitted into, whole, the rest grey. 0: its own, made "
                    "smaller where it has more pixels than 1360×768.",
                ),
                io.Int.Input(
                    "height",
                    **size,
                    tooltip="Height in px that the picture is fitted into. 0, together with width: its own.",
                ),
            ],
            outputs=[sockets.Reference.Output("reference", tooltip="The character as the model reads it, for Shot.")],
            search_aliases=["referencenet", "reference image", "character picture", "identity", "ip adapter"],
        )

    @classmethod
    def execute(cls, adapter, vae, character, mask=None, width=0, height=0) -> io.NodeOutput:
        latents.check_vae(vae)
        attach.check_has_reference(adapter)
        if mask is not None:
            check_shows_somebody(mask[:1])
        picture = reference.prepare_character(character, mask, width, height)
        encoded = attach.encode_reference(adapter, latents.encode_frames(vae, picture))
        return io.NodeOutput(encoded, ui=shown(doubt_about(mask)))


NODES = [LoadAdapter, ApplyAdapter, EncodeReference]
