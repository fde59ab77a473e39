"""The example workflows: both forms say the same, and both fit the nodes that are really there."""

import asyncio
import json
import sys

import pytest
from animate_anywhere.nodes import sockets

import workflows

FILES = sorted(workflows.FOLDER.glob("*.json"))
NOTES = {"MarkdownNote", "Note"}
# The upload button of a file input, and what becomes of a seed after a run, have values of their own in the saved list.
BESIDE = ("image", "fixed", "increment", "decrement", "randomize")
ENDS = ("Save", "Preview", "AA_Render", "AA_SavePose")  # nodes that the host runs a prompt for
# A node without a preview is about as high as its title, slots and widgets; what touches overlaps on the page.
GAP = 10
MUTED, BYPASSED = 2, 4  # modes of a node


def saved(path):
    return json.loads(path.read_text())


def nodes_of(workflow):
    return {node["id"]: node for node in workflow["nodes"] if node["type"] not in NOTES}


def node_info(node):
    """What /object_info says of a node class, of the host's old kind or its new one."""
    if hasattr(node, "GET_NODE_INFO_V1"):
        return node.GET_NODE_INFO_V1()
    return {"input": node.INPUT_TYPES(), "output": list(node.RETURN_TYPES)}


def specs(inputs):
    """(name, type, options) of each input."""
    for kind in ("required", "optional"):
        for name, spec in inputs.get(kind, {}).items():
            yield name, spec[0], spec[1] if len(spec) > 1 else {}


@pytest.fixture(scope="module")
def known():
    """Every node class of the host and of the pack, by type."""
    import nodes

    async def all_nodes():
        await nodes.init_builtin_extra_nodes()
        extension = await sys.modules["animate_anywhere"].comfy_entrypoint()
        await extension.on_load()
        ours = {node.GET_SCHEMA().node_id: node for node in await extension.get_node_list()}
        return nodes.NODE_CLASS_MAPPINGS | ours

    return asyncio.run(all_nodes())


@pytest.fixture(scope="module")
def infos(known):
    """What /object_info says of the nodes of the workflows, by type."""
    types = {node["type"] for path in FILES for node in nodes_of(saved(path)).values()}
    return {name: node_info(known[name]) for name in types}


@pytest.fixture
def downloaded(workflow, tmp_path, monkeypatch):
    """The host sees all that the workflow says is to be downloaded, empty."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    for model in downloads(workflow):
        folder = tmp_path / model["directory"]
        # A name that ends in / is a folder of shards.
        file = folder / (model["name"] + ("diffusion_pytorch_model.safetensors" if model["name"][-1] == "/" else ""))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        paths, extensions = folder_paths.folder_names_and_paths[model["directory"]]
        monkeypatch.setitem(
            folder_paths.folder_names_and_paths, model["directory"], ([*paths, str(folder)], extensions)
        )


def source(workflow, link):
    """[node, slot] that a link brings its value from: past nodes that are bypassed, whose first input of the kind goes
    through; None where there is none."""
    links, nodes = {link[0]: link for link in workflow["links"]}, nodes_of(workflow)
    _, origin, slot, *_, kind = link
    if nodes[origin]["mode"] != BYPASSED:
        return [str(origin), slot]
    through = next((input for input in nodes[origin]["inputs"] if input["type"] == kind), None)
    return source(workflow, links[through["link"]]) if through else None


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def workflow(path):
    return saved(path)


@pytest.fixture
def prompt(path):
    return saved(workflows.FOLDER / "api" / path.name)


def test_both_forms_have_the_same_nodes_links_and_values(workflow, prompt):
    """What of the translation shows without a browser; tests/test_templates.py asks the page."""
    links = {link[0]: source(workflow, link) for link in workflow["links"]}
    nodes = {number: node for number, node in nodes_of(workflow).items() if node["mode"] not in (MUTED, BYPASSED)}
    assert set(prompt) == set(map(str, nodes))
    for number, node in nodes.items():
        entry = prompt[str(number)]
        assert (entry["class_type"], entry["_meta"]["title"]) == (node["type"], node["title"])
        joined = {slot["name"]: links[slot["link"]] for slot in node["inputs"] if slot.get("link") is not None}
        assert {name: value for name, value in entry["inputs"].items() if isinstance(value, list)} == joined
        kept = [value for value in node.get("widgets_values", []) if value not in BESIDE]
        # A widget with a link keeps its place among the values; widgets that came later follow with their defaults.
        for (name, value), before in zip(entry["inputs"].items(), kept):
            assert value == before or name in joined, f"{node['title']}: {name}"


def test_every_api_form_has_its_ui_form():
    assert [path.name for path in sorted(workflows.FOLDER.glob("api/*.json"))] == [path.name for path in FILES]


def test_the_host_finds_nothing_wrong_once_the_models_are_there(prompt, known, downloaded, monkeypatch):
    import execution

    import nodes

    monkeypatch.setattr(nodes, "NODE_CLASS_MAPPINGS", known)
    valid, error, outputs, node_errors = asyncio.run(execution.validate_prompt("check", prompt, None))
    assert valid and not node_errors, error
    assert set(outputs) == {number for number, node in prompt.items() if node["class_type"].startswith(ENDS)}


def test_every_value_is_that_of_an_input(prompt, infos):
    """The host passes over names that it does not know."""
    for node in prompt.values():
        inputs = {name for name, *_ in specs(infos[node["class_type"]]["input"])}
        given = {name.split(".")[0] for name in node["inputs"]}
        assert given <= inputs, f"{node['class_type']} has no input {given - inputs}"


def downloads(workflow):
    """Files and folders that the host offers to download where they are missing, by the folder they go into."""
    return [model for node in workflow["nodes"] for model in node["properties"].get("models", [])]


def test_what_is_to_be_downloaded_has_an_address_and_a_folder_that_the_host_knows(workflow):
    import folder_paths

    for model in downloads(workflow):
        assert model["url"].startswith("https://huggingface.co/")
        assert model["directory"] in folder_paths.folder_names_and_paths


def test_every_node_of_the_preparation_has_its_place_in_an_example(known):
    there = {node["type"] for path in FILES for node in saved(path)["nodes"]}
    prepares = {sockets.POSE, sockets.MASK, sockets.BACKGROUND}
    ours = [node.GET_SCHEMA() for name, node in known.items() if name.startswith(sockets.PREFIX)]
    assert {schema.node_id for schema in ours if schema.category in prepares} <= there


def test_titles_are_unique(prompt):
    """Scripts name a node by its title."""
    titles = [node["_meta"]["title"] for node in prompt.values()]
    assert len(titles) == len(set(titles))


def test_slots_and_links_of_the_ui_form_agree(workflow, infos):
    nodes = nodes_of(workflow)
    for identifier, origin, out, target, into, kind in workflow["links"]:
        assert identifier in nodes[origin]["outputs"][out]["links"]
        assert nodes[target]["inputs"][into]["link"] == identifier
        assert nodes[origin]["outputs"][out]["type"] == kind
    linked = sum(slot.get("link") is not None for node in nodes.values() for slot in node["inputs"])
    assert linked == len(workflow["links"])
    for node in nodes.values():
        if node["type"] not in NOTES:
            outputs = [slot["type"] for slot in node["outputs"]]
            assert outputs == list(infos[node["type"]]["output"]), f"outputs of {node['type']} have changed"


def box(thing):
    if "bounding" in thing:
        return thing["bounding"]
    return [*thing["pos"], *thing["size"]]


def test_nothing_overlaps_and_every_node_lies_in_one_group(workflow):
    boxes = [box(node) for node in workflow["nodes"]]
    for index, (x, y, width, height) in enumerate(boxes):
        for other_x, other_y, other_width, other_height in boxes[:index]:
            apart_x = other_x >= x + width + GAP or x >= other_x + other_width + GAP
            apart_y = other_y >= y + height + GAP or y >= other_y + other_height + GAP
            assert apart_x or apart_y, f"{workflow['nodes'][index]['type']} overlaps"
    groups = [box(group) for group in workflow["groups"]]
    for node, (x, y, width, height) in zip(workflow["nodes"], boxes):
        inside = [
            gx < x and gy < y and x + width < gx + gwidth and y + height < gy + gheight
            for gx, gy, gwidth, gheight in groups
        ]
        assert sum(inside) == 1 or node["type"] in NOTES, node["type"]


def test_the_graph_reads_from_left_to_right(workflow):
    nodes = {node["id"]: node for node in workflow["nodes"]}
    backwards = [
        (nodes[origin]["type"], nodes[target]["type"])
        for _, origin, _, target, _, _ in workflow["links"]
        if nodes[origin]["pos"][0] > nodes[target]["pos"][0]
    ]
    assert not backwards
