"""Weights of others that a node can use when the artist has them: where they lie, and what to say when they do not.

scripts/models.py loads this file by itself, to look where the nodes look.
"""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import folder_paths

if TYPE_CHECKING:
    import torch

# Every file that nodes and workflows can use, and where it is to be had; scripts/models.py lists and fetches them.
DOWNLOADS = Path(__file__).with_name("downloads.json")


def address(name: str) -> str:
    """Where the file or folder ``name`` is to be had."""
    return next(entry["address"] for entry in json.loads(DOWNLOADS.read_text()) if entry["name"].rstrip("/") == name)


# Written by the artist: more TorchScript files that may be opened, a line each, as sha256sum prints them. At the top of
# the user folder, because the host's server lets pages write into the folders below it.
ALLOW_LIST = "animate_anywhere_trusted.sha256"
MAX_ALLOW_LIST_BYTES = 1 << 20
ALLOWED_LINE = re.compile(r"(?P<sha256>[0-9a-fA-F]{64}) [ *](?P<name>[^/\\]+)")


def allow_list() -> Path:
    return Path(folder_paths.get_user_directory()) / ALLOW_LIST


def trusted_programs() -> set[tuple[str, str]]:
    """Return (file name, sha256) of the TorchScript files that may be opened: the pack's own list, and the artist's."""
    entries = json.loads(DOWNLOADS.read_text(encoding="utf-8"))
    published = {(entry["name"], entry["sha256"]) for entry in entries if entry["name"].endswith(".pt")}
    if not allow_list().is_file() or allow_list().stat().st_size > MAX_ALLOW_LIST_BYTES:
        return published
    lines = allow_list().read_text(encoding="utf-8", errors="replace").splitlines()
    matches = filter(None, (ALLOWED_LINE.fullmatch(line.strip()) for line in lines))
    return published | {(match["name"], match["sha256"].lower()) for match in matches}


def open_torchscript(path: Path, device: "torch.device | str", socket: str) -> "torch.jit.ScriptModule":
    """Return the network in the TorchScript file at ``path``, if it is a trusted one.

    Raises ValueError, in the name of ``socket``, for every other file, which is not opened.
    """
    from ..models import torchscript  # not at the top: scripts/models.py loads this file without the pack

    return torchscript.load(path, device, trusted_programs(), socket, allow_list())


def model_path(folder: str, name: object, socket: str) -> Path:
    """Return the path of the file or folder ``name`` in the host's model folders of the kind ``folder``.

    A linked text comes here unchecked, so the name may be anything. Raises ValueError where it is not there.
    """
    from ..models.safe_path import path_inside  # not at the top, as above

    inside = path_inside(Path(), name, socket, follow_links=True)
    if name.endswith("/"):
        for place in folder_paths.get_folder_paths(folder):
            if (place / inside).is_dir():
                return place / inside
        raise ValueError(f"{socket}: there is no folder {name} in models/{folder}. Choose another.")
    try:
        return Path(folder_paths.get_full_path_or_raise(folder, name))
    except FileNotFoundError as error:
        raise ValueError(f"{socket}: there is no file {name} in models/{folder}. Choose another.") from error


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
                # A link that leads nowhere has a name, and nothing else.
                fits = (path.suffix in self.suffixes and path.is_file()) or (path / "config.json").is_file()
                if fits and self.named in path.name.lower():
                    found.setdefault(path.name, path)
        return dict(sorted(found.items()))

    def path(self, name: str = "auto", required: bool = True, asked_by: str = "model") -> Path | None:
        """The file or folder ``name``, or the first one. ValueError, in the name of the input ``asked_by``, where it is
        ``required`` and not there; else None."""
        found = self.found()
        if name == "auto" and found:
            return found.get(self.known) or next(iter(found.values()))
        if isinstance(name, str) and (name in found or not required):
            return found.get(name)
        missing = f"there is no {name}"[:120] if name != "auto" else "its weights are missing"
        raise ValueError(
            f"{asked_by}: {missing}. Put {self.known} (from {address(self.known)}) into "
            f"{Path(folder_paths.models_dir) / self.folder}. scripts/models.py get {self.known} does it."
        )
