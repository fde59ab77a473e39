"""Translations name what the nodes have, no more and no less: what is missing would be English in the midst."""

import sys

import pytest

import locales

ENGLISH = locales.english(sys.modules["animate_anywhere"].AnimateAnywhere)
LANGUAGES = sorted(folder.name for folder in locales.FOLDER.iterdir())


def test_there_is_english_and_chinese():
    assert {"en", "zh"} <= set(LANGUAGES)


@pytest.mark.parametrize("name", ENGLISH)
def test_english_is_what_the_nodes_say(name):
    if locales.read("en", name) != ENGLISH[name]:
        pytest.fail("run scripts/locales.py", pytrace=False)


@pytest.mark.parametrize("name", ENGLISH)
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_is_there_and_none_too_many(language, name):
    found = locales.problems(ENGLISH[name], locales.read(language, name))
    if found:
        pytest.fail("\n".join(found), pytrace=False)


def test_problems_name_node_and_input():
    source = {"AA_Shot": {"display_name": "Shot", "inputs": {"pose": {"name": "pose", "tooltip": "a {b}"}}}}
    given = {"AA_Shot": {"display_name": "a|b", "inputs": {"depth": {"name": "x"}}}}
    assert locales.problems(source, source) == []
    assert locales.problems(source, given) == [
        "lacks AA_Shot.inputs.pose.name: pose",
        "lacks AA_Shot.inputs.pose.tooltip: a {b}",
        "has AA_Shot.inputs.depth.name, which no node has",
        "AA_Shot.display_name: one of |{}@ in it",
    ]


def test_inputs_of_a_choice_are_named_as_the_page_looks_them_up():
    width = {"required": {"width": ("INT", {"tooltip": "in px"})}}
    choices = {"tooltip": "how", "options": [{"key": "size", "inputs": width}]}
    found = dict(locales._inputs({"required": {"resize": ("COMFY_DYNAMICCOMBO_V3", choices)}}))
    assert found["resize_width"] == {"name": "width", "tooltip": "in px"}


@pytest.mark.parametrize("name", ENGLISH)
def test_chinese_is_chinese(name):
    """Names that are the same in both are those of products and formats."""
    same = set(locales.texts(locales.read("zh", name)).values()) & set(locales.texts(ENGLISH[name]).values())
    assert {text.lower() for text in same} <= {"vae", "clip", "cfg", "latent", "sigmas"}


def test_the_host_serves_them(tmp_path, monkeypatch):
    import folder_paths
    from app.custom_node_manager import CustomNodeManager

    (tmp_path / "pack").symlink_to(locales.pack.ROOT, target_is_directory=True)
    monkeypatch.setattr(folder_paths, "get_folder_paths", lambda name: [str(tmp_path)])
    served = CustomNodeManager().build_translations()
    for language in LANGUAGES:
        assert served[language]["nodeDefs"] == locales.read(language, "nodeDefs.json")
        assert served[language]["nodeCategories"] == locales.read(language, "main.json")["nodeCategories"]
