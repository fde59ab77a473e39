"""A workflow in the API form: read, searched by the nodes' titles, and changed."""

from collections.abc import Iterator
from pathlib import Path

import strict_json
from strict_json import shown

# Inputs that the examples leave to the user. The host takes an empty name for its input folder and
# fails late.
CHOSEN = {"LoadVideo": "file", "LoadImage": "image"}


class ClientError(Exception):
    """What a server, or a prompt for it, refused or could not do, in one line."""


def read(path: Path) -> dict:
    """Return the workflow in the file ``path``. Raises ClientError, which for the form that the
    page saves says where the other one is."""
    try:
        prompt = strict_json.read(path)
    except (OSError, ValueError) as error:
        raise ClientError(f"{path}: no workflow ({error})") from None
    if isinstance(prompt, dict) and isinstance(prompt.get("nodes"), list):
        other = path.parent / "api" / path.name
        menu = "In ComfyUI's menu: Workflow, Export (API)"
        where = f"It is there: {other}" if other.is_file() else menu
        raise ClientError(f"{path} is a workflow in the form that the page shows; the API form is needed. {where}")
    if not isinstance(prompt, dict) or not prompt or not all(map(_is_node, prompt.values())):
        raise ClientError(f"{path}: expected nodes with class_type and inputs; this is no workflow in the API form")
    return prompt


def _is_node(node: object) -> bool:
    return isinstance(node, dict) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)


def title(prompt: dict, node: object) -> str:
    """How the artist calls the node."""
    entry = prompt.get(node, {}) if isinstance(node, str) else {}
    meta = entry.get("_meta")
    given = meta.get("title") if isinstance(meta, dict) else None
    chosen = given if isinstance(given, str) else ""
    return chosen or entry.get("class_type") or f"node {shown(node)}"


def find(prompt: dict, name: str) -> str:
    """The id of the node with this title or id."""
    found = [node for node in prompt if name in (node, title(prompt, node))]
    if len(found) != 1:
        titles = ", ".join(sorted(title(prompt, node) for node in prompt))
        raise ClientError(f"{len(found)} nodes are called {shown(name)}; there are: {titles}")
    return found[0]


def put(prompt: dict, name: str, key: str, value: object) -> None:
    """Set the widget ``key`` of the node called ``name``."""
    inputs = prompt[find(prompt, name)]["inputs"]
    if key not in inputs:
        raise ClientError(f"{name!r} has no input {key!r}; it has: {', '.join(inputs)}")
    inputs[key] = value


def rename(prompt: dict, names: dict[str, str]) -> None:
    """Put the names that uploaded files got on the server in place of their own."""
    for entry in prompt.values():
        for key, value in entry["inputs"].items():
            if isinstance(value, str):
                entry["inputs"][key] = names.get(value, value)


def unchosen(prompt: dict) -> Iterator[tuple[str, str]]:
    """(node, input) of files that the workflow leaves to the user and nobody has chosen."""
    for node, entry in prompt.items():
        key = CHOSEN.get(entry["class_type"])
        if key and entry["inputs"].get(key) == "":
            yield node, key
