"""Adapter files, and putting them on a MODEL."""

from pathlib import Path

import folder_paths

FOLDER = "animate_anywhere"
WEIGHTS = Path(__file__).resolve().parent.parent / "weights"


def register_folders() -> None:
    """Let the host's own loaders see models/animate_anywhere and the embedded default in weights/."""
    models = Path(folder_paths.models_dir) / FOLDER
    folder_paths.add_model_folder_path(FOLDER, str(models), is_default=True)
    for folder in ("diffusion_models", "vae", FOLDER):
        folder_paths.add_model_folder_path(folder, str(WEIGHTS / folder))


NODES = []
