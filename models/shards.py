"""Transformers as diffusers saves them, a folder of shards, and the one file in the host's names that it loads.

Files are copied tensor by tensor, as bytes: nothing is rounded, and no more than CHUNK bytes are in memory at once.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import safetensors
from safetensors import SafetensorError

from . import checked_json
from .checked_json import Fields, shown
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
MAX_NAMES_SHOWN = 300  # characters in an error
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


def read(source: Path, asked_by: str = "") -> Shards:
    """What is in ``source``, a safetensors file or a folder in diffusers' layout; no weight is read yet.

    asked_by: the input that the error names.
    Raises ValueError for a folder without shards or with one missing, and for a file that is cut off.
    """
    prefix = f"{asked_by}: " if asked_by else ""
    if not source.is_dir():
        return Shards(source.name, (source,), _entries([source], prefix))
    paths = sorted(path for path in source.glob(f"{STEM}*.safetensors") if path.is_file())
    index, config = (
        checked_json.read_text(source / name, f"{prefix}{source.name}") if (source / name).exists() else None
        for name in (INDEX, CONFIG)
    )
    if index is not None:
        expected = set(_weight_map(index, source, f"{prefix}{source.name}").values())
        missing = sorted(expected - {path.name for path in paths})
        if missing:
            names = ", ".join(missing)[:MAX_NAMES_SHOWN]
            raise ValueError(f"{prefix}{source.name} lacks {names}, which its index names. Download again.")
        paths = [path for path in paths if path.name in expected]
    if not paths:
        raise ValueError(f"{prefix}{source} has no {STEM}*.safetensors. Give the model's transformer folder.")
    return Shards(source.name, tuple(paths), _entries(paths, prefix), config, index)


def _weight_map(index: str, folder: Path, source: str) -> dict[str, str]:
    """Weight -> name of its shard, which lies in ``folder``. Raises ValueError where one would lie elsewhere."""
    table = Fields(checked_json.parse_object(index, f"{source}: {INDEX}"), f"{source}: {INDEX}").table("weight_map")
    for name in set(map(str, table.values.values())):
        path = path_inside(folder, name, f"{source}: {INDEX}", follow_links=True)
        if path.parent != folder or name.casefold() in (CONFIG, INDEX):
            raise ValueError(
                f"{source}: {INDEX} names {shown(name)}, which is no file of weights in its folder. Download again."
            )
    return {key: table.text(key) for key in table.values}


def _entries(paths: Iterable[Path], prefix: str) -> dict[str, Entry]:
    return {native_key(key): entry for path in paths for key, entry in read_header(path, prefix)[0].items()}


def read_header(path: Path, prefix: str = "") -> tuple[dict[str, Entry], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises ValueError, beginning with ``prefix``, where it is cut off or none. The library checks types, sizes and
    offsets; it takes only headers that cover the file to the last byte.
    """
    try:
        size = path.stat().st_size
        with safetensors.safe_open(path, framework="pt"):
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = checked_json.parse_object(file.read(length), f"{prefix}{path.name}: its header")
    except OSError as error:
        raise ValueError(f"{prefix}{path.name} cannot be read ({error}). Download it again.") from error
    except SafetensorError as error:
        problem = "is cut off" if _is_cut_off(path, size) else f"is no safetensors file ({str(error)[:200]})"
        raise ValueError(f"{prefix}{path.name} ({size:,} bytes) {problem}. Download it again.") from error
    metadata = header.pop("__metadata__", None) or {}
    entries = {
        key: Entry(path, each["dtype"], tuple(each["shape"]), 8 + length + each["data_offsets"][0],
                   each["data_offsets"][1] - each["data_offsets"][0])
        for key, each in header.items()
    }  # fmt: skip
    return entries, metadata


def _is_cut_off(path: Path, size: int) -> bool:
    """Whether the file of ``size`` bytes ends before what its header promises."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if length <= LARGEST_HEADER else b""
    try:
        ends = [each["data_offsets"][1] for key, each in json.loads(text).items() if key != "__metadata__"]
        return bool(ends) and size < 8 + length + max(ends)
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError, IndexError):
        return size >= 8 and size < 8 + length <= LARGEST_HEADER


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
    origin = checked_json.parse_object(metadata[METADATA_KEY], f"{source.name}: its metadata")
    tensors = {diffusers_key(key): entry for key, entry in tensors.items()}
    if not all(part in origin and isinstance(origin[part], str | None) for part in ("config", "index")):
        raise ValueError(f"{source.name}: its metadata does not hold the texts config and index. Get the file again.")
    weight_map = _weight_map(origin["index"], target, source.name) if origin.get("index") else {}
    target.mkdir(parents=True)
    for file, text in ((CONFIG, origin.get("config")), (INDEX, origin.get("index"))):
        if text is not None:
            (target / file).write_text(text, encoding="utf-8")
    names = sorted(set(weight_map.values())) or [f"{STEM}.safetensors"]
    for name in names:
        part = {key: entry for key, entry in tensors.items() if weight_map.get(key, name) == name}
        write(target / name, part, {"format": "pt"})
    return len(names)


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
