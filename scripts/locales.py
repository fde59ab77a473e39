"""What the page shows in other languages: locales/LANGUAGE/nodeDefs.json, by the keys that the page looks up.

    $(python3 scripts/host.py --python) scripts/locales.py      write English anew, say what other languages lack

English comes from the nodes, for translators to go by; every other language is written by hand. What a language lacks
is shown in English. Menu entries (nodeCategories) stand in main.json.
"""

import asyncio
import json
from collections.abc import Iterator

import pack

FOLDER = pack.ROOT / "locales"
SOURCE = "en"
# The page reads these as patterns: plural forms, places for values, links to other messages.
SPECIAL = "|{}@"


def english(extension_class) -> dict[str, dict]:
    """The two files of ``SOURCE`` by name, from the nodes' schemas."""

    async def nodes() -> list:
        extension = extension_class()
        await extension.on_load()
        return await extension.get_node_list()

    infos = [(node.GET_SCHEMA(), node.GET_NODE_INFO_V1()) for node in asyncio.run(nodes())]
    categories = [part for _, info in infos for part in info["category"].split("/")[1:]]
    return {
        "main.json": {"nodeCategories": {part: part for part in categories}},
        "nodeDefs.json": {schema.node_id: _node(info) for schema, info in infos},
    }


def _node(info: dict) -> dict:
    outputs = zip(info["output_name"], info["output_tooltips"])
    return {
        "display_name": info["display_name"],
        "description": info["description"],
        "inputs": dict(_inputs(info["input"])),
        "outputs": {str(index): {"name": name, "tooltip": tooltip} for index, (name, tooltip) in enumerate(outputs)},
    }


def _inputs(inputs: dict, prefix: str = "") -> Iterator[tuple[str, dict[str, str]]]:
    """(key, texts) of each input; the page writes the dots in names of a dynamic combo's inputs as underscores."""
    for kind in ("required", "optional"):
        for name, (_, options) in inputs.get(kind, {}).items():
            yield prefix + name, {"name": options.get("display_name") or name, "tooltip": options["tooltip"]}
            for choice in options.get("options") or ():
                if isinstance(choice, dict):
                    yield from _inputs(choice["inputs"], f"{prefix}{name}_")


def texts(table: dict, prefix: str = "") -> dict[str, str]:
    """{"AA_Shot.inputs.pose.name": text} of a nested table."""
    found = {}
    for key, value in table.items():
        found |= texts(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def problems(source: dict, translated: dict) -> list[str]:
    """What ``translated`` lacks, has too much, or has in a form that the page cannot show, a line each."""
    wanted, given = texts(source), texts(translated)
    lines = [f"lacks {key}: {wanted[key]}" for key in wanted if not given.get(key)]
    lines += [f"has {key}, which no node has" for key in given if key not in wanted]
    shown = {key: text for key, text in given.items() if not key.endswith(".tooltip")}  # these are shown as they are
    lines += [f"{key}: one of {SPECIAL} in it" for key, text in shown.items() if set(SPECIAL) & set(text)]
    return lines


def read(language: str, name: str) -> dict:
    return json.loads((FOLDER / language / name).read_text(encoding="utf-8"))


def main() -> int:
    source, bad = english(pack.load().AnimateAnywhere), 0
    languages = sorted(folder.name for folder in FOLDER.iterdir() if folder.name != SOURCE)
    for name, table in source.items():
        path = FOLDER / SOURCE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(table, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        for language in languages:
            for line in problems(table, read(language, name)):
                bad += 1
                print(f"locales/{language}/{name} {line}")
    return min(bad, 1)


if __name__ == "__main__":
    raise SystemExit(main())
