"""What an artist meets before any picture is made: menu, search, tooltips, and how much the page has to load."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WEB = ROOT / "js"
LARGEST_WEB = 200_000  # bytes that a page may load from a pack, thumbnails aside
MENU = ("1 pose", "2 mask", "3 background", "4 draft", "5 model", "6 shot", "7 sampling")


def node_infos():
    """What /object_info answers, by node id, in the order of registration."""

    async def nodes():
        extension = await sys.modules["animate_anywhere"].comfy_entrypoint()
        await extension.on_load()
        return await extension.get_node_list()

    return {node.GET_SCHEMA().node_id: node.GET_NODE_INFO_V1() for node in asyncio.run(nodes())}


INFOS = node_infos()
each_node = pytest.mark.parametrize("info", INFOS.values(), ids=INFOS)


def without_tooltip(inputs, prefix=""):
    """Names of inputs that say nothing when the pointer rests on them, those of a dynamic combo's choices included."""
    for kind in ("required", "optional"):
        for name, (_, options) in inputs.get(kind, {}).items():
            if not options.get("tooltip"):
                yield prefix + name
            for choice in options.get("options") or ():
                if isinstance(choice, dict):
                    yield from without_tooltip(choice["inputs"], f"{prefix}{name}.")


@each_node
def test_says_what_it_is_for_and_what_each_socket_is(info):
    assert info["description"]
    assert not list(without_tooltip(info["input"]))
    assert len(info["output_tooltips"]) == len(info["output"]) and all(info["output_tooltips"])


@each_node
def test_is_found_under_other_names(info):
    aliases = info["search_aliases"]
    assert len(aliases) >= 3 and len(set(aliases)) == len(aliases)
    assert all(alias == alias.lower() != info["display_name"].lower() for alias in aliases)


@each_node
def test_is_neither_experimental_nor_deprecated(info):
    assert not (info["experimental"] or info["deprecated"] or info.get("dev_only"))


@each_node
def test_lies_in_a_known_part_of_the_menu(info):
    assert info["category"] in {f"AnimateAnywhere/{part}" for part in MENU}


def test_the_menu_has_its_parts_in_the_order_of_work():
    """In the order of registration, too: the page can sort by either."""
    assert list(dict.fromkeys(info["category"].split("/")[1] for info in INFOS.values())) == list(MENU)
    assert sorted(MENU) == list(MENU)


def test_what_the_page_loads_is_small():
    sizes = {path.relative_to(WEB): path.stat().st_size for path in WEB.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < LARGEST_WEB, sorted(sizes.items(), key=lambda item: -item[1])[:5]


def test_nothing_of_the_page_comes_from_elsewhere():
    """A link that a reader may follow is fine; a picture, script, style or request is not."""
    loads = re.compile(r"!\[[^]]*\]\(\s*\w+:|<(?:img|video|script|link|iframe)\b[^>]*\w+://", re.IGNORECASE)
    addresses = re.compile(r"\b(?:https?|wss?)://(?!www\.w3\.org/)", re.IGNORECASE)  # w3.org: names of XML spaces
    for path in WEB.rglob("*.*"):
        found = (loads if path.suffix == ".md" else addresses).findall(path.read_text())
        assert not found, f"{path.relative_to(ROOT)}: {found}"
