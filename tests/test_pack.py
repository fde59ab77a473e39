"""The pack as the host sees it: an exception in here would be one warning line there, and every node gone."""

import asyncio
import sys

import pytest

PACK = sys.modules["animate_anywhere"]


def node_list():
    async def nodes():
        extension = await PACK.comfy_entrypoint()
        await extension.on_load()
        return await extension.get_node_list()

    return asyncio.run(nodes())


@pytest.mark.parametrize("node", node_list(), ids=lambda node: node.__name__)
def test_schema_builds_and_tells_the_artist_what_everything_is(node):
    schema = node.GET_SCHEMA()
    assert schema.node_id.startswith("AA_")
    assert schema.display_name and schema.description and schema.category.startswith("AnimateAnywhere")
    assert not schema.is_experimental
    without = [socket.id for socket in [*schema.inputs, *schema.outputs] if not socket.tooltip]
    assert not without, f"no tooltip: {without}"


def test_ids_are_unique():
    ids = [node.GET_SCHEMA().node_id for node in node_list()]
    assert len(ids) == len(set(ids))
