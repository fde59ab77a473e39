"""The example workflows: both forms say the same, and both fit the nodes that are really there."""

import json

import pytest

import workflows

FILES = sorted(workflows.FOLDER.glob("*.json"))
# A node without a preview is about as high as its title, slots and widgets; what touches overlaps on the page.
GAP = 10


def saved(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def infos():
    return workflows.node_infos(set().union(*(workflows.types(saved(path)) for path in FILES)))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def workflow(path):
    return saved(path)


@pytest.fixture
def prompt(path):
    return saved(workflows.FOLDER / "api" / path.name)


def test_both_forms_say_the_same(workflow, prompt, infos):
    assert workflows.to_api(workflow, infos) == prompt, "run scripts/workflows.py"


def test_every_api_form_has_its_ui_form():
    assert [path.name for path in sorted(workflows.FOLDER.glob("api/*.json"))] == [path.name for path in FILES]


def test_every_input_exists_and_none_that_is_needed_is_missing(prompt, infos):
    for node in prompt.values():
        inputs = infos[node["class_type"]]["input"]
        known = {name for name, *_ in workflows.specs(inputs)}
        given = {name.split(".")[0] for name in node["inputs"]}
        assert given <= known, f"{node['class_type']} has no input {given - known}"
        assert set(inputs.get("required", {})) <= given, f"{node['class_type']} lacks an input"


def test_links_join_sockets_of_one_type(prompt, infos):
    for node in prompt.values():
        kinds = {name: kind for name, kind, _ in workflows.specs(infos[node["class_type"]]["input"])}
        for name, value in node["inputs"].items():
            if isinstance(value, list):
                origin, slot = value
                given = infos[prompt[origin]["class_type"]]["output"][slot]
                assert given in kinds[name].split(","), f"{node['class_type']}.{name} takes {kinds[name]}, not {given}"


def downloads(workflow):
    """Files and folders that the host offers to download where they are missing, by the folder they go into."""
    return [model for node in workflow["nodes"] for model in node["properties"].get("models", [])]


def test_widget_values_are_within_what_the_widget_allows(workflow, prompt, infos):
    offered = {model["name"] for model in downloads(workflow)}
    for node in prompt.values():
        for name, kind, options in workflows.specs(infos[node["class_type"]]["input"]):
            value = node["inputs"].get(name)
            if kind in ("INT", "FLOAT") and not isinstance(value, list):
                assert options.get("min", value) <= value <= options.get("max", value), f"{node['class_type']}.{name}"
            elif kind == "COMBO" and not any(options.get(upload) for upload in workflows.UPLOADS):
                assert value in offered or value in options["options"], f"{node['class_type']}.{name}"


def test_what_is_to_be_downloaded_has_an_address_and_a_folder_that_the_host_knows(workflow):
    import folder_paths

    for model in downloads(workflow):
        assert model["url"].startswith("https://huggingface.co/")
        assert model["directory"] in folder_paths.folder_names_and_paths


def test_titles_are_unique(prompt):
    """Scripts name a node by its title."""
    titles = [node["_meta"]["title"] for node in prompt.values()]
    assert len(titles) == len(set(titles))


def test_slots_and_links_of_the_ui_form_agree(workflow, infos):
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for identifier, origin, out, target, into, kind in workflow["links"]:
        assert identifier in nodes[origin]["outputs"][out]["links"]
        assert nodes[target]["inputs"][into]["link"] == identifier
        assert nodes[origin]["outputs"][out]["type"] == kind
    linked = sum(slot.get("link") is not None for node in nodes.values() for slot in node["inputs"])
    assert linked == len(workflow["links"])
    for node in nodes.values():
        if node["type"] not in workflows.NOTES:
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
        assert sum(inside) == 1 or node["type"] in workflows.NOTES, node["type"]


def test_the_graph_reads_from_left_to_right(workflow):
    nodes = {node["id"]: node for node in workflow["nodes"]}
    backwards = [
        (nodes[origin]["type"], nodes[target]["type"])
        for _, origin, _, target, _, _ in workflow["links"]
        if nodes[origin]["pos"][0] > nodes[target]["pos"][0]
    ]
    assert not backwards
