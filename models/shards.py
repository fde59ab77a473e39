"""Transformers as diffusers saves them, a folder of shards, and the one file in the host's names that it loads.

Files are copied tensor by tensor, as bytes: nothing is rounded, and no more than CHUNK bytes are in memory at once.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from .safe_path import path_inside

# What diffusers calls it -> what the host calls it, in this order. Everything else has the same name in both.
FROM_DIFFUSERS = (
    ("transformer_blocks.", "blocks."),
    (".attn1.to_out.0.", ".attn_out."),
    (".attn1.to_q.", ".q."),
    (".attn1.to_k.", ".k."),
    (".attn1.to_v.", ".v."),
    (".attn1.norm_q.", ".norm_q."),
    (".attn1.norm_k.", ".norm_k."),
    (".ff.net.0.proj.", ".ff_proj."),
    (".ff.net.2.", ".ff_out."),
    ("time_embedding.linear_", "time_embedding_linear_"),
    ("ofs_embedding.linear_", "ofs_embedding_linear_"),
)

STEM = "diffusion_pytorch_model"
INDEX = f"{STEM}.safetensors.index.json"
CONFIG = "config.json"
METADATA_KEY = "diffusers"  # of a native file: what else was in the folder, so that the way back is exact
CHUNK = 1 << 24
LARGEST_HEADER = 100_000_000  # bytes, the safetensors library's own limit


class Entry(NamedTuple):
    """A tensor in a safetensors file."""

    path: Path
    dtype: str  # in safetensors' words: BF16, F32, …
    shape: tuple[int, ...]
    start: int  # byte in the file
    size: int  # bytes


@dataclass(frozen=True)
class Shards:
    """A transformer on disk."""

    name: str  # of the folder or file, for errors
    paths: tuple[Path, ...]
    tensors: Mapping[str, Entry]  # in the host's names
    config: str | None = None  # the folder's config.json
    index: str | None = None  # and the index of its shards


def native_key(key: str) -> str:
    """The host's name for a weight of diffusers' CogVideoXTransformer3DModel."""
    for theirs, ours in FROM_DIFFUSERS:
        key = key.replace(theirs, ours)
    return key


def diffusers_key(key: str) -> str:
    """The other way round."""
    for theirs, ours in reversed(FROM_DIFFUSERS):
        key = key.replace(ours, theirs)
    return key


def read(source: Path) -> Shards:
    """What is in ``source``, a safetensors file or a folder in diffusers' layout; no weight is read yet.

    Raises ValueError for a folder without shards or with one missing, and for a file that is cut off.
    """
    if not source.is_dir():
        return Shards(source.name, (source,), _entries([source]))
    paths = sorted(source.glob(f"{STEM}*.safetensors"))
    texts = (file.read_text(encoding="utf-8") if file.exists() else None for file in (source / INDEX, source / CONFIG))
    index, config = texts
    if index is not None:
        try:
            expected = set(_weight_map(index).values())
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{source.name}/{INDEX} is damaged ({error}). Download it again.") from None
        missing = sorted(expected - {path.name for path in paths})
        if missing:
            raise ValueError(f"{source.name} lacks {', '.join(missing)}, which its index names. Download again.")
        paths = [path for path in paths if path.name in expected]
    if not paths:
        raise ValueError(f"{source} has no {STEM}*.safetensors. Give the model's transformer folder.")
    return Shards(source.name, tuple(paths), _entries(paths), config, index)


def _entries(paths: Iterable[Path]) -> dict[str, Entry]:
    return {native_key(key): entry for path in paths for key, entry in read_header(path)[0].items()}


def read_header(path: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    """Tensors and metadata of a safetensors file. Raises ValueError when it is cut off or none."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if length < min(size, LARGEST_HEADER) else b""
    try:
        header = json.loads(text)
        metadata = header.pop("__metadata__", {})
        entries = {
            key: Entry(path, each["dtype"], tuple(each["shape"]), 8 + length + each["data_offsets"][0],
                       each["data_offsets"][1] - each["data_offsets"][0])
            for key, each in header.items()
        }  # fmt: skip
    except (ValueError, AttributeError, TypeError, KeyError, IndexError) as error:
        raise ValueError(f"{path.name} ({size:,} bytes) is no safetensors file. Download it again.") from error
    if any(entry.start + entry.size > size for entry in entries.values()):
        raise ValueError(f"{path.name} ({size:,} bytes) is cut off. Download it again.")
    return entries, metadata


def to_native(shards: Shards, target: Path) -> None:
    """Write ``shards`` as one file in the host's names, which also remembers the folder that it came from."""
    origin = {"config": shards.config, "index": shards.index}
    metadata = {"format": "pt", METADATA_KEY: json.dumps(origin)}
    write(target, shards.tensors, metadata)


def to_folder(source: Path, target: Path) -> int:
    """Write the file ``source`` of to_native() as the folder that it came from; the number of its shards.

    Raises ValueError when the file does not say what the folder looked like.
    """
    tensors, metadata = read_header(source)
    if METADATA_KEY not in metadata:
        raise ValueError(f"{source.name} was not made from a diffusers folder: it does not know the folder's config.")
    config, index, weight_map = _origin(source, metadata[METADATA_KEY])
    tensors = {diffusers_key(key): entry for key, entry in tensors.items()}
    names = sorted(set(weight_map.values())) or [f"{STEM}.safetensors"]
    paths = {name: path_inside(target, name, source.name) for name in names}  # before anything is written
    target.mkdir(parents=True)
    for file, text in ((CONFIG, config), (INDEX, index)):
        if text is not None:
            (target / file).write_text(text, encoding="utf-8")
    for name, path in paths.items():
        part = {key: entry for key, entry in tensors.items() if weight_map.get(key, name) == name}
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, part, {"format": "pt"})
    return len(names)


def _origin(source: Path, text: str) -> tuple[str | None, str | None, dict[str, object]]:
    """(config, index, weight map) of the folder that ``source`` was made from. ValueError if they are damaged."""
    try:
        origin = json.loads(text)
        config, index = origin["config"], origin["index"]
        weight_map = _weight_map(index) if index is not None else {}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{source.name}: its record of the diffusers folder is damaged ({error}).") from None
    if not isinstance(config, str | None):
        raise ValueError(f"{source.name}: its record of the diffusers folder is damaged (the config is no text).")
    reserved = {CONFIG, INDEX}
    if wrong := [name for name in weight_map.values() if str(name).casefold() in reserved]:
        raise ValueError(f"{source.name}: its index puts weights into {wrong[0]}.")
    return config, index, weight_map


def _weight_map(index: str) -> dict[str, str]:
    """Tensor -> file, of the text of an index. Raises ValueError, KeyError or TypeError."""
    weight_map = json.loads(index)["weight_map"]
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise ValueError("its weight_map does not name files")
    return weight_map


def write(target: Path, tensors: Mapping[str, Entry], metadata: dict[str, str]) -> None:
    """Write a safetensors file of tensors that lie in other files. It has its name only when it is whole.

    Wide types come first, then names in their order, as the safetensors library does it.
    """
    ordered = sorted(tensors.items(), key=lambda item: (-_width(item[1]), item[0]))
    header, end = {"__metadata__": metadata}, 0
    for key, entry in ordered:
        header[key] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [end, end + entry.size],
        }
        end += entry.size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    partial = target.with_name(f"{target.name}.part")
    with partial.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, entry in ordered:
            with entry.path.open("rb") as source:
                _copy(source, file, entry)
    os.replace(partial, target)


def _width(entry: Entry) -> int:
    """Bytes of one number."""
    count = 1
    for side in entry.shape:
        count *= side
    return entry.size // count if count else 0


def _copy(source: BinaryIO, target: BinaryIO, entry: Entry) -> None:
    source.seek(entry.start)
    for offset in range(0, entry.size, CHUNK):
        target.write(source.read(min(CHUNK, entry.size - offset)))
