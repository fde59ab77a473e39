"""The example workflows in a running ComfyUI: the page translates, offers and shows them, and they run to their end."""

import io
import json

import client
import demo
import host as hosts
import pytest
from PIL import Image

import workflows

pytestmark = pytest.mark.e2e

FILES = sorted(workflows.FOLDER.glob("*.json"))
FRAMES, SIZE, STEPS = 13, 128, 3
SHORT = {
    "AA_Shot": {"width": SIZE, "height": SIZE, "length": FRAMES},
    "AA_SampleShot": {"steps": STEPS},
    "AA_EncodeReference": {"width": SIZE, "height": SIZE},
}


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def workflow(request):
    return request.param


def with_foreign_weights(path):
    """Nodes that wait for files that are not part of the pack: those that load them, and all behind."""
    saved = json.loads(path.read_text())
    waiting = {node["id"] for node in saved["nodes"] if node["properties"].get("models")}
    while more := {target for _, origin, _, target, *_ in saved["links"] if origin in waiting} - waiting:
        waiting |= more
    return {str(number) for number in waiting}


@pytest.fixture(scope="module")
def inputs(connection, tmp_path_factory):
    video, picture = demo.write_inputs(tmp_path_factory.mktemp("inputs"), FRAMES)
    return {
        ("LoadVideo", "file"): connection.upload(video, "template.mp4"),
        ("LoadImage", "image"): connection.upload(picture, "template.png"),
    }


@pytest.mark.skipif(not workflows.chromium(), reason="there is no Chromium here (Debian: apt-get install chromium)")
def test_the_api_forms_are_what_the_page_exports(server):
    with workflows.translator(server.url) as translate:
        for path in FILES:
            written = json.loads((workflows.FOLDER / "api" / path.name).read_text())
            assert translate(json.loads(path.read_text())) == written, "run scripts/workflows.py"


def test_the_page_offers_it_with_a_picture(connection, workflow):
    assert workflow.stem in json.loads(connection.get("workflow_templates"))[hosts.LINK]
    served = connection.get(f"api/workflow_templates/{hosts.LINK}/{workflow.name}")
    assert json.loads(served) == json.loads(workflow.read_text())
    picture = connection.get(f"api/workflow_templates/{hosts.LINK}/{workflow.stem}.jpg")
    assert Image.open(io.BytesIO(picture)).format == "JPEG"
    assert len(picture) < 100_000


def test_it_runs_to_its_end_with_what_the_pack_brings(connection, inputs, workflow):
    """Small and short. What needs weights from elsewhere is left out; tests/test_workflows.py has it checked."""
    prompt = json.loads((workflows.FOLDER / "api" / workflow.name).read_text())
    prompt = {number: node for number, node in prompt.items() if number not in with_foreign_weights(workflow)}
    for node in prompt.values():
        node["inputs"] |= SHORT.get(node["class_type"], {})
        node["inputs"] |= {key: name for (kind, key), name in inputs.items() if kind == node["class_type"]}
    history = connection.follow(connection.queue(prompt), prompt)
    assert history["status"]["status_str"] == "success"
    saving = {number for number, node in prompt.items() if node["class_type"].startswith("Save")}
    assert saving
    for number in saving:
        (file,) = client.files(history["outputs"][number])
        assert connection.fetch(file)
