"""Write workflows/api/ from workflows/: the form that the API takes, from the form that an artist edits and saves.

    $(scripts/host.py --python) scripts/workflows.py

The page does the same in its menu (Export (API)); this needs no browser, and a test holds both forms equal.
"""

import asyncio
import json
import sys
from collections.abc import Iterator

import pack

FOLDER = pack.ROOT / "workflows"
NOTES = {"MarkdownNote", "Note"}
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
DYNAMIC = "COMFY_DYNAMICCOMBO_V3"
# The upload button of a file input has a value of its own in the saved list.
UPLOADS = ("image_upload", "video_upload", "audio_upload")


def node_infos(types: set[str]) -> dict[str, dict]:
    """What /object_info says of these node types, without a server. KeyError for a type that nobody has."""
    package = pack.load()
    import nodes

    async def all_nodes() -> dict:
        await nodes.init_builtin_extra_nodes()
        extension = await package.comfy_entrypoint()
        await extension.on_load()
        ours = {node.GET_SCHEMA().node_id: node for node in await extension.get_node_list()}
        return nodes.NODE_CLASS_MAPPINGS | ours

    found = asyncio.run(all_nodes())
    return {name: node_info(name, found[name]) for name in sorted(types)}


def node_info(name: str, node: type) -> dict:
    import nodes

    if hasattr(node, "GET_NODE_INFO_V1"):
        return node.GET_NODE_INFO_V1()
    inputs = node.INPUT_TYPES()
    return {
        "input": inputs,
        "output": list(node.RETURN_TYPES),
        "display_name": nodes.NODE_DISPLAY_NAME_MAPPINGS.get(name, name),
    }


def specs(inputs: dict) -> Iterator[tuple[str, str | list, dict]]:
    """(name, type, options) of each input in the page's order."""
    for kind in ("required", "optional"):
        for name, spec in inputs.get(kind, {}).items():
            yield name, spec[0], spec[1] if len(spec) > 1 else {}


def _default(kind: str | list, options: dict) -> object:
    """What the page shows in a new node's widget: of a list without a default, the first."""
    choices = kind if isinstance(kind, list) else options.get("options")
    return options["default"] if "default" in options else next(iter(choices or ()), None)


def widget_values(inputs: dict, saved: list, prefix: str = "") -> dict[str, object]:
    """The saved list of a node's widget values by input name; takes from ``saved`` what it has used."""
    values = {}
    for name, kind, options in specs(inputs):
        if kind == DYNAMIC:
            key = values[prefix + name] = saved.pop(0) if saved else options["options"][0]["key"]
            chosen = next(option for option in options["options"] if option["key"] == key)
            values |= widget_values(chosen["inputs"], saved, f"{prefix}{name}.")
        elif (isinstance(kind, list) or kind in WIDGETS) and not options.get("forceInput"):
            values[prefix + name] = saved.pop(0) if saved else _default(kind, options)
            controlled = kind == "INT" and options.get("control_after_generate", name in ("seed", "noise_seed"))
            if saved and (controlled or any(options.get(upload) for upload in UPLOADS)):
                saved.pop(0)
    return values


def to_api(workflow: dict, infos: dict[str, dict]) -> dict[str, dict]:
    """The API form of a saved ``workflow``. ValueError where a node's saved values do not fit its schema."""
    links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    prompt = {}
    for node in sorted(workflow["nodes"], key=lambda node: node["id"]):
        if node["type"] in NOTES:
            continue
        info, saved = infos[node["type"]], list(node.get("widgets_values", []))
        inputs = widget_values(info["input"], saved)
        if saved:
            raise ValueError(f"node {node['id']} ({node['type']}) has values for no widget: {saved}")
        inputs |= {slot["name"]: links[slot["link"]] for slot in node["inputs"] if slot.get("link") is not None}
        title = node.get("title") or info["display_name"]
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs, "_meta": {"title": title}}
    return prompt


def types(workflow: dict) -> set[str]:
    return {node["type"] for node in workflow["nodes"]} - NOTES


def main() -> int:
    saved = {path: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
    infos = node_infos(set().union(*map(types, saved.values())))
    for path, workflow in saved.items():
        target = FOLDER / "api" / path.name
        target.write_text(json.dumps(to_api(workflow, infos), indent=2, ensure_ascii=False) + "\n")
        print(target.relative_to(pack.ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
