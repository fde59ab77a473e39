"""Open TorchScript files. Nothing else in the pack does.

A TorchScript file is a program: code in it runs as soon as it is opened. So a file is opened only where its name and
its sha256 are trusted together, and it is hashed before torch sees it.
"""

import hashlib
import os
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

import torch

ENDING = ".pt"
HASH_CHUNK_BYTES = 1 << 20

# (path, device, inode, size, times of change) -> sha256. Hashing 200 MB takes a second on a slow disk.
_known_hashes: dict[tuple, str] = {}


def load(
    path: Path, device: torch.device | str, trusted: Collection[tuple[str, str]], socket: str, allow_list: Path
) -> torch.jit.ScriptModule:
    """Return the network in the TorchScript file at ``path``.

    trusted: pairs of file name and sha256. allow_list: where an artist adds more of them, for the error.
    Raises ValueError, in the name of ``socket``, for every other file, without opening it, and for a damaged one.
    """
    try:
        with path.open("rb") as file:
            digest = sha256_of(path, file)
            if (path.name, digest) not in trusted:
                raise ValueError(_refusal(path, digest, trusted, socket, allow_list))
            return torch.jit.load(file, map_location=device).eval()
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{socket}: {path.name} cannot be read as TorchScript. Download it again.") from error


def sha256_of(path: Path, file: BinaryIO) -> str:
    """Return the sha256 of ``file``, which is ``path`` opened; the file stays at its start.

    It is remembered until the file changes. The time of the last change of status is part of what is compared,
    because a program can set the time of modification as it likes.
    """
    status = os.fstat(file.fileno())
    key = (str(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if key not in _known_hashes:
        digest = hashlib.sha256()
        while chunk := file.read(HASH_CHUNK_BYTES):
            digest.update(chunk)
        file.seek(0)
        _known_hashes[key] = digest.hexdigest()
    return _known_hashes[key]


def _refusal(path: Path, digest: str, trusted: Collection[tuple[str, str]], socket: str, allow_list: Path) -> str:
    if any(name == path.name for name, _ in trusted):
        problem = "is not the published file: it is damaged, or somebody changed it"
        remedy = f"Download it again (scripts/models.py get {path.name})"
    else:
        problem = "is not on the pack's list of files that may be opened"
        remedy = "Use a safetensors or ONNX file instead"
    return (
        f"{socket}: {path.name} {problem}. It was not opened, because a {ENDING} file can run code. {remedy}; or, if "
        f'you trust where it came from, add the line "{digest}  {path.name}" to {allow_list}.'
    )
