"""Weights of others that a node can use when the artist has them: where they lie, and what to say when they do not.

scripts/models.py loads this file by itself, to look where the nodes look.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import folder_paths

# Every file that nodes and workflows can use, and where it is to be had; scripts/models.py lists and fetches them.
DOWNLOADS = Path(__file__).with_name("downloads.json")


def address(name: str) -> str:
    """Where the file or folder ``name`` is to be had."""
    return next(entry["address"] for entry in json.loads(DOWNLOADS.read_text()) if entry["name"].rstrip("/") == name)


def controlnet_aux_folders() -> list[Path]:
    """Where comfyui_controlnet_aux keeps what it downloaded, in folders named as the repositories on huggingface.co."""
    packs = [
        Path(folder) / "comfyui_controlnet_aux" / "ckpts" for folder in folder_paths.get_folder_paths("custom_nodes")
    ]
    chosen = os.environ.get("AUX_ANNOTATOR_CKPTS_PATH")  # the setting of that pack
    return [Path(chosen), *packs] if chosen else packs


@dataclass(frozen=True)
class Kind:
    """Weights in the models folder ``folder``: files that end in ``suffixes``, or folders with a config.json. ``known``
    is the one to take; ``named`` is in the names of all, where the folder holds others too."""

    folder: str
    suffixes: tuple[str, ...]
    known: str
    named: str = ""

    def found(self) -> dict[str, Path]:
        """Name -> path of all that are there, in order."""
        places = [Path(folder_paths.models_dir) / self.folder]
        if self.folder in folder_paths.folder_names_and_paths:
            places += map(Path, folder_paths.get_folder_paths(self.folder))
        found = {}
        for place in places:
            for path in sorted(place.iterdir()) if place.is_dir() else ():
                fits = path.suffix in self.suffixes or (path / "config.json").is_file()
                if fits and self.named in path.name.lower():
                    found.setdefault(path.name, path)
        return dict(sorted(found.items()))

    def path(self, name: str = "auto", required: bool = True, asked_by: str = "model") -> Path | None:
        """The file or folder ``name``, or the first one. ValueError, in the name of the input ``asked_by``, where it is
        ``required`` and not there; else None."""
        found = self.found()
        if name == "auto" and found:
            return found.get(self.known) or next(iter(found.values()))
        if name in found or not required:
            return found.get(name)
        missing = f"there is no {name}" if name != "auto" else "its weights are missing"
        raise ValueError(
            f"{asked_by}: {missing}. Put {self.known} (from {address(self.known)}) into "
            f"{Path(folder_paths.models_dir) / self.folder}. scripts/models.py get {self.known} does it."
        )
