"""Help pages and README tell what the nodes are: nobody looks for a mistake there until an artist has lost time."""

import ast
import asyncio
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "js" / "docs"  # the host asks for docs/<node id>/<language>.md
README = ROOT / "README.md"
MARKDOWN = [README, *sorted(ROOT.glob("docs/*.md"))]


def schemas():
    async def nodes():
        extension = await sys.modules["animate_anywhere"].comfy_entrypoint()
        await extension.on_load()
        return await extension.get_node_list()

    return [node.GET_SCHEMA() for node in asyncio.run(nodes())]


SCHEMAS = schemas()
each_node = pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.node_id)


CHINESE = {  # heading of a page in English -> in Chinese
    "Inputs": "输入",
    "Outputs": "输出",
    "When something else is better": "何时用别的节点",
    "Files": "文件",
    "Errors": "错误",
    "Why not KSampler": "为什么不用 K采样器",
    "What it cannot tell": "它判断不了什么",
}


def page(schema, language="en"):
    return (PAGES / schema.node_id / f"{language}.md").read_text()


def section(text, heading):
    """What stands under a heading of the second level."""
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def messages():
    """What the pack may say in errors, with … where a value is put in."""
    texts = []
    for path in [path for floor in ("nodes", "models", "vision") for path in (ROOT / floor).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return texts


MESSAGES = messages()


def links(text):
    """Targets of links and pictures that are no web address; code blocks hold none."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", prose) if not re.match(r"[a-z]+:", link)]


def anchors(text):
    """The names that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_node_has_a_page_in_both_languages_and_every_page_a_node():
    pages = {path.relative_to(PAGES).as_posix() for path in PAGES.rglob("*.*")}
    assert pages == {f"{schema.node_id}/{language}.md" for schema in SCHEMAS for language in ("en", "zh")}


@each_node
def test_page_carries_the_name_and_a_graph(schema):
    text = page(schema)
    assert text.startswith(f"# {schema.display_name}\n")
    assert re.search(rf"^```\n[^`]*{re.escape(schema.display_name)}[^`]*^```", text, re.MULTILINE)
    sockets = len(schema.inputs) + len(schema.outputs)
    # A screen, or two lines a socket where it has many.
    assert 20 <= len(text.splitlines()) <= max(50, 30 + 2 * sockets)


@each_node
@pytest.mark.parametrize("kind", ["inputs", "outputs"])
def test_page_tells_of_every_socket_and_of_no_other(schema, kind):
    told = re.findall(r"^- `(\w+)`", section(page(schema), kind.capitalize()), re.MULTILINE)
    assert told == [socket.id for socket in getattr(schema, kind)]


@each_node
def test_page_says_when_to_take_something_else(schema):
    assert len(section(page(schema), "When something else is better").split()) >= 12


@each_node
def test_page_gives_the_defaults(schema):
    told = dict(re.findall(r"^- `(\w+)`, default ([^:]+):", section(page(schema), "Inputs"), re.MULTILINE))
    defaults = {socket.id: getattr(socket, "default", None) for socket in schema.inputs}
    assert told == {name: str(value) for name, value in defaults.items() if value not in (None, "")}


@each_node
def test_errors_on_the_page_are_those_of_the_code(schema):
    quoted = re.findall(r'^- "([^"]+)"', section(page(schema), "Errors"), re.MULTILINE)
    assert quoted
    assert not [error for error in quoted if not any(error in message for message in MESSAGES)]


@each_node
def test_page_has_no_relative_links(schema):
    # The host opens them as addresses of its own, where nothing is.
    assert not links(page(schema))


@each_node
def test_page_in_chinese_is_built_as_the_english_one(schema):
    """The same headings in the same order, and below each the same sockets, defaults and error messages."""
    english, chinese = (page(schema, language) for language in ("en", "zh"))
    headings = re.findall("^## (.+)$", english, re.MULTILINE)
    assert re.findall("^## (.+)$", chinese, re.MULTILINE) == [CHINESE[heading] for heading in headings]
    assert chinese.count("```") == english.count("```") == 2 and not links(chinese)
    for heading in headings:
        told, meant = section(chinese, CHINESE[heading]), section(english, heading)
        for item in (r"^- `(\w+)`", '"([^"]+)"'):
            assert re.findall(item, told, re.MULTILINE) == re.findall(item, meant, re.MULTILINE)
        defaults = re.findall(r"^- `(\w+)`, default ([^:]+):", meant, re.MULTILINE)
        assert re.findall("^- `(\\w+)`，默认 ([^：]+)：", told, re.MULTILINE) == defaults


@each_node
def test_page_in_chinese_has_the_names_that_nodes_have_there(schema):
    names = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text())
    chinese = page(schema, "zh")
    assert chinese.startswith(f"# {names[schema.node_id]['display_name']}\n")
    for other in SCHEMAS:
        if other.node_id in names and names[other.node_id]["display_name"] != other.display_name:
            assert f"**{other.display_name}**" not in chinese


@each_node
def test_readme_has_a_line_with_a_link_to_the_page_and_every_output(schema):
    link = re.escape(f"[{schema.display_name}](js/docs/{schema.node_id}/en.md)")
    found = re.search(rf"^\| {link} \| [^|]+ \| ([^|]+) \|$", README.read_text(), re.MULTILINE)
    assert found and re.findall(r"`(\w+)`", found[1]) == [output.id for output in schema.outputs]


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: path.name)
def test_relative_links_lead_somewhere(path):
    text = path.read_text()
    broken = []
    for link in links(text):
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            broken.append(link)
    assert not broken
