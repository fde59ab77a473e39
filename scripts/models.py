"""The files that the nodes and workflows can use: which there are, where they go, whether they are there; and get them.

    $(scripts/host.py --python) scripts/models.py                       the table
    $(scripts/host.py --python) scripts/models.py get NAME …            download these, or go on with them
    $(scripts/host.py --python) scripts/models.py check                 compare what is there with the known hashes

Nothing else in this pack downloads a model, and this only what it is told to. The table is nodes/downloads.json.
"""

import argparse
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import download as downloads
import pack
from tqdm import tqdm

NODES = pack.ROOT / "nodes"
TABLE = NODES / "downloads.json"
HUB = "https://huggingface.co"
FOLDER = re.compile(r"(?P<repository>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)/?(?P<path>.*)")
SHA256 = re.compile("[0-9a-f]{64}")
# Of a folder on the hub: what no loader reads, and what would be a program.
LEFT = (".md", ".gitattributes", ".gitignore", ".bin", ".pt", ".pth", ".ckpt", ".png", ".jpg", ".gif", ".mp4")
DETECTION = "detection"  # its files may also lie where comfyui_controlnet_aux put them
RESERVE = 1 << 30  # bytes that a download leaves free
MISSING, INCOMPLETE, THERE = "missing", "incomplete", "there"


class ModelsError(Exception):
    """What is wrong and what to do about it, in one line."""


@dataclass(frozen=True)
class Part:
    """One file to be downloaded, ``name`` relative to where its model goes. 0 and "": not known."""

    name: str
    address: str
    size: int = 0
    sha256: str = ""


@dataclass(frozen=True)
class Model:
    """A line of the table: a file, or a folder, whose name ends in /. ``places``: where ComfyUI looks for it, the one
    for downloads first. ``make`` is the command that makes it, ``then`` what is left to do with it, ``unverified`` why
    no sha256 is known."""

    name: str
    folder: str
    places: list[Path]
    address: str = ""
    size: int = 0
    sha256: str = ""
    licence: str = ""
    purpose: str = ""
    make: str = ""
    then: str = ""
    unverified: str = ""

    @property
    def is_folder(self) -> bool:
        return self.name.endswith("/")

    def path(self) -> Path | None:
        """Where it is."""
        there = (place / self.name for place in self.places)
        return next((path for path in there if (any(path.glob("*")) if self.is_folder else path.is_file())), None)

    def state(self) -> str:
        path = self.path()
        target = self.places[0] / self.name
        if path is None:
            return INCOMPLETE if downloads.part_of(target).exists() else MISSING
        if self.is_folder:
            return INCOMPLETE if any(path.rglob("*.part")) or not any(path.rglob("*.safetensors")) else THERE
        return INCOMPLETE if self.size and path.stat().st_size != self.size else THERE


def comfyui_folder() -> Path:
    """The ComfyUI whose custom node this pack is, or else the one of scripts/host.py."""
    above = pack.ROOT.parent.parent
    return (
        above if pack.ROOT.parent.name == "custom_nodes" and (above / "main.py").is_file() else Path(pack.host_root())
    )


# Run in a process of its own: ComfyUI's modules keep to themselves what they have read.
FOLDERS = """
import json, sys
root, nodes, *configs = sys.argv[1:]
sys.argv = sys.argv[:1]
sys.path.insert(0, root)
import folder_paths
from utils.extra_config import load_extra_path_config
for config in configs:
    load_extra_path_config(config)
sys.path.append(nodes)
import files  # of the pack
known = {name: folder_paths.get_folder_paths(name) for name in folder_paths.folder_names_and_paths}
aux = [str(folder) for folder in files.controlnet_aux_folders()]
print(json.dumps({"": folder_paths.models_dir, "controlnet aux": aux, **known}))
"""


def load(root: Path, configs: tuple[Path, ...] = ()) -> list[Model]:
    """The table, against the folders that the ComfyUI in ``root`` knows, those of its extra_model_paths.yaml and of the
    files ``configs`` in that form among them."""
    own = root / "extra_model_paths.yaml"
    words = [str(path) for path in (root, NODES, *([own] if own.is_file() else []), *configs)]
    done = subprocess.run(
        [sys.executable, "-c", FOLDERS, *words], capture_output=True, encoding="utf-8", errors="replace", check=False,
        env={**os.environ, "PYTHONUTF8": "1"},
    )  # fmt: skip
    try:
        known = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise ModelsError(f"{root} does not tell its model folders: {last}") from None
    models = []
    for entry in json.loads(TABLE.read_text(encoding="utf-8")):
        folder = entry["folder"]
        places = dict.fromkeys([*known.get(folder, ()), os.path.join(known[""], folder)])
        if folder == DETECTION and "address" in entry:  # as in nodes/detection.py
            places |= dict.fromkeys(os.path.join(aux, repository(entry)) for aux in known["controlnet aux"])
        purpose = entry.pop("for")
        models.append(Model(**entry, purpose=purpose, places=list(map(Path, places))))
    return models


def repository(entry: dict) -> str:
    """The repository on the hub that has the file of this entry of the table."""
    return entry["address"].removeprefix(f"{HUB}/").split("/resolve/")[0]


def shipped() -> list[Model]:
    """What is part of the pack."""
    return [
        Model(path.name, str(path.parent.relative_to(pack.ROOT)), [path.parent], size=path.stat().st_size)
        for path in sorted((pack.ROOT / "weights").rglob("*.safetensors"))
    ]


def described(model: Model) -> str:
    """Two lines of the table."""
    size = _size(model.size) if model.size else "not known"
    state = model.state() if model.address or model.make else "in the pack"
    lines = [f"{state:<12}{size:>10}  {model.licence or 'not known':<18}{model.folder}/{model.name}"]
    if model.address or model.make:
        parts = [model.purpose, _proof(model), model.address or f"made by {model.make}"]
        lines.append(" " * 24 + "; ".join(filter(None, parts)))
    return "\n".join(lines)


def _proof(model: Model) -> str:
    """How a download is verified."""
    if model.sha256:
        return f"sha256 {model.sha256}"
    return f"cannot be verified: {model.unverified}" if model.unverified else ""


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def chosen(models: list[Model], names: list[str]) -> list[Model]:
    """The models of these names, all to be downloaded."""
    by_name = {model.name.rstrip("/"): model for model in models}
    problems = [f"there is no {name}" for name in names if name.rstrip("/") not in by_name]
    if problems:
        raise ModelsError(f"{'; '.join(problems)}. There are: {', '.join(by_name)}")
    found = [by_name[name.rstrip("/")] for name in names]
    for model in found:
        if model.make:
            raise ModelsError(f"{model.name} is not downloaded but made: {model.make} --to {model.places[0]}")
    return found


def parts(model: Model) -> list[Part]:
    """The files of ``model`` with all that the table or their server says of them. ModelsError where both differ."""
    if model.is_folder:
        return _folder(model)
    size, sha256 = _published(model.address)
    for what, ours, theirs in (("size", model.size, size), ("sha256", model.sha256, sha256)):
        if ours and theirs and ours != theirs:
            raise ModelsError(f"{model.address} is another file than before: its {what} is {theirs}, it was {ours}")
    return [Part(model.name, model.address, model.size or size, model.sha256 or sha256)]


def _published(address: str) -> tuple[int, str]:
    """Size and sha256 that the server tells; 0 and "" for what it does not."""
    if not address.startswith(f"{HUB}/"):
        return 0, ""
    from huggingface_hub import get_hf_file_metadata  # takes a second to import

    try:
        told = get_hf_file_metadata(address)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelsError(f"{address} does not answer: {_first_line(error)}") from None
    return told.size or 0, told.etag if SHA256.fullmatch(told.etag or "") else ""


def _folder(model: Model) -> list[Part]:
    from huggingface_hub import HfApi

    place = FOLDER.fullmatch(model.address.removeprefix(f"{HUB}/"))
    repository, revision, path = place.groups()
    try:
        tree = HfApi(endpoint=HUB).list_repo_tree(repository, path or None, recursive=True, revision=revision)
        found = [file for file in tree if hasattr(file, "size") and not file.path.endswith(LEFT)]
        parts = [_part(model, file, repository, revision, path) for file in found]
    except (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError) as error:
        raise ModelsError(f"{model.address} does not answer as a hub does: {_first_line(error)}") from None
    if not parts:
        raise ModelsError(f"{model.address}: there is no file to download")
    names = Counter(part.name.casefold() for part in parts)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise ModelsError(f"{model.address} lists {twice[0]} twice")
    return parts


def _part(model: Model, file, repository: str, revision: str, path: str) -> Part:
    """The ``file`` that the hub lists as a part of the folder ``model``. Raises ValueError for a name outside of it."""
    if path and not file.path.startswith(f"{path}/"):
        raise ValueError(f"{file.path!r} is not in {path}/")
    place = model.places[0] / model.name
    name = file.path.removeprefix(path).removeprefix("/")
    inside = pack.load_file("models/safe_path.py").path_inside(place, name, model.address, follow_links=True)
    sha256 = file.lfs.sha256 if file.lfs else ""
    if not isinstance(file.size, int) or file.size < 0 or (sha256 and not SHA256.fullmatch(sha256)):
        raise ValueError(f"{file.path!r} has the size {file.size!r} and the sha256 {sha256!r}")
    address = f"{HUB}/{repository}/resolve/{revision}/{quote(file.path)}"
    return Part(inside.relative_to(model.places[0]).as_posix(), address, file.size, sha256)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def get(model: Model) -> None:
    """Download ``model``, or what is missing of it. ModelsError and DownloadError say what is in the way."""
    wanted = parts(model)
    left = [part for part in wanted if not _is_there(part, model.places)]
    if not left:
        print(f"{model.name} is there: {model.path()}")
        return
    place = model.places[0]
    _check_space(place, left)
    for part in left:
        target = place / part.name
        target.parent.mkdir(parents=True, exist_ok=True)
        have = downloads.part_of(target).stat().st_size if downloads.part_of(target).exists() else 0
        with tqdm(desc=part.name[-40:], total=part.size or None, initial=have, unit="B", unit_scale=True) as bar:
            downloads.download(
                part.address, target, part.sha256, part.size, lambda done, bar=bar: bar.update(done - bar.n), bar.write
            )
        print(target if part.sha256 else f"{target}: cannot be verified, its sha256 is not published")
    if model.then:
        print(f"{model.name}: {model.then}")


def _is_there(part: Part, places: list[Path]) -> bool:
    found = [place / part.name for place in places if (place / part.name).is_file()]
    if found and part.size and found[0].stat().st_size != part.size:
        raise ModelsError(
            f"{found[0]} is not the file that is meant: {downloads.difference(found[0], size=part.size)}. "
            "Move it away to download that one."
        )
    return bool(found)


def _check_space(place: Path, left: list[Part]) -> None:
    there = next(folder for folder in (place, *place.parents) if folder.is_dir())
    begun = sum(
        downloads.part_of(place / part.name).stat().st_size
        for part in left
        if downloads.part_of(place / part.name).exists()
    )
    needed, free = sum(part.size for part in left) - begun + RESERVE, shutil.disk_usage(there).free
    if needed > free:
        raise ModelsError(
            f"{place} has {_size(free)} free, {_size(needed)} are needed (a reserve of {_size(RESERVE)} among them). "
            "Make room, or name another folder in extra_model_paths.yaml."
        )


def check(models: list[Model]) -> int:
    """Compare what is there with what is known of it."""
    wrong = 0
    for model in models:
        path = model.path()
        if path is None:
            continue
        if not model.sha256:
            print(f"{path}: cannot be verified{f', {model.unverified}' if model.unverified else ''}")
            continue
        difference = downloads.difference(path, model.sha256, model.size)
        print(f"{path}: {f'{difference}: not the published file' if difference else 'as published'}")
        wrong += bool(difference)
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", nargs="?", choices=("list", "get", "check"), default="list")
    parser.add_argument("names", nargs="*", help="of files or folders in the table")
    parser.add_argument("--comfyui", type=Path, help="its folder (default: the one that this pack lies in)")
    parser.add_argument("--extra-model-paths-config", type=Path, action="append", default=[], metavar="FILE")
    options = parser.parse_args()
    if (options.do == "get") != bool(options.names):
        parser.error("get needs the names of what to download" if options.do == "get" else "names go with get")
    try:
        models = load(options.comfyui or comfyui_folder(), tuple(options.extra_model_paths_config))
        if options.do == "check":
            return 1 if check(models) else 0
        if options.do == "list":
            print("\n".join(map(described, models + shipped())))
        for model in chosen(models, options.names):
            get(model)
    except (ModelsError, downloads.DownloadError) as error:
        print(error, file=sys.stderr)
    except OSError as error:
        full = error.errno == errno.ENOSPC
        print(f"{error}{'. Make room and run it again to go on from there' if full else ''}", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped; run it again to go on from there", file=sys.stderr)
        return 130
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
