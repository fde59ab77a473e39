"""What an artist meets in the first minutes: templates, help, a run, in ComfyUI's page."""

import json

import browser
import demo
import host as hosts
import pytest

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not browser.CHROMIUM, reason="there is no Chromium here (Debian: apt-get install chromium)"),
]

TEMPLATES = sorted(path.stem for path in (hosts.CLONE / "workflows").glob("*.json"))
FRAMES, SIZE, STEPS = 13, 128, 3
CLIP = 9  # frames


@pytest.fixture(scope="module")
def new_page(connection):
    with browser.started(connection) as new_page:
        yield new_page


@pytest.fixture
def page(new_page):
    page = new_page()
    yield page
    page.tab.close()
    assert not page.errors
    assert not page.strangers


@pytest.fixture(scope="module")
def watched(new_page, connection, tmp_path_factory):
    """A graph with the nodes whose views one works in, run once."""
    page = new_page()
    page.open_empty()
    video = demo.write_inputs(tmp_path_factory.mktemp("clip"), CLIP)[0]
    page.add("LoadVideo", "Video", [-700, 0], {"file": connection.upload(video, "clip.mp4")})
    page.add("GetVideoComponents", "Frames", [-350, 0])
    page.add("AA_ExtractPose", "Extract", [0, 0])
    page.add("AA_TrackBackground", "Track", [0, 900], {"points": 8})
    page.add("AA_RetargetPose", "Retarget", [450, 0])
    page.link("Video", "VIDEO", "Frames", "video")
    for name in ("Extract", "Track"):
        page.link("Frames", "images", name, "images")
    page.link("Extract", "mask", "Track", "mask")
    page.link("Extract", "pose", "Retarget", "driving")
    page.link("Extract", "pose", "Retarget", "reference")
    for place, name in enumerate(("Extract", "Track", "Retarget")):
        page.add("PreviewAny", f"{name} report", [900, 300 * place])
        page.link(name, "report", f"{name} report", "source")
    page.run_to_end()
    yield page
    page.tab.close()
    assert not page.errors
    assert not page.strangers


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_opens_whole(page, name):
    page.open(name)
    page.picture(name)
    saved = json.loads((hosts.CLONE / "workflows" / f"{name}.json").read_text())
    shown = page.js("() => app.rootGraph.nodes.map(node => [node.type, node.type in LiteGraph.registered_node_types])")
    assert sorted(shown) == sorted([node["type"], True] for node in saved["nodes"])


def test_help_opens_beside_the_node(page):
    page.open("animate")
    page.show("Sample shot")
    page.node("Sample shot", "app.canvas.selectNode(node)")
    page.tab.get_by_test_id("info-button").click()
    page.tab.get_by_role("heading", name="Errors").wait_for()  # its last section
    page.picture("help")


def test_a_run_shows_its_progress_and_ends_with_a_video_that_plays(page, connection, tmp_path):
    video, picture = demo.write_inputs(tmp_path, FRAMES)
    page.open("animate")
    page.put("Driving video", "file", connection.upload(video, "watched.mp4"))
    page.put("Character", "image", connection.upload(picture, "watched.png"))
    for title, widget, value in (
        ("Shot", "width", SIZE),
        ("Shot", "length", FRAMES),
        ("Sample shot", "steps", STEPS),
        ("Read the character", "width", SIZE),
        ("Read the character", "height", SIZE),
    ):
        page.put(title, widget, value)
    page.run()
    page.tab.wait_for_function("/^\\[\\d+%\\]\\[\\d+%\\] AA_ExtractPose/.test(document.title)", polling=50)
    page.tab.wait_for_function("/^\\[\\d+%\\]\\[\\d+%\\] AA_SampleShot/.test(document.title)", polling=50)
    shown = page.tab.wait_for_selector("video[src*='animation_']")
    seconds = shown.evaluate("async video => { await video.play(); return video.duration }")
    assert seconds == pytest.approx(FRAMES / demo.DANCE_FPS, abs=0.01)
    page.tab.wait_for_function("document.querySelector(\"video[src*='animation_']\").currentTime > 0.3")
    page.picture("run")


def test_the_reports_stand_on_the_nodes(watched):
    assert watched.view("Extract", ".aa-report").inner_text() == "\n".join(watched.output("Extract")["text"])


def test_the_player_scrubs_through_the_frames(watched):
    picture, frame = (watched.view("Extract", name) for name in (".aa-picture", ".aa-frame"))
    watched.show("Extract")
    seen = {}
    for place, number in ((0.02, 0), (0.5, CLIP // 2), (0.98, CLIP - 1)):
        watched.drag(picture, (place, 0.5), (place, 0.5))
        assert frame.inner_text() == f"Frame {number} of 0-{CLIP - 1}: 100 % seen"
        seen[number] = picture.evaluate("canvas => canvas.toDataURL()")
    assert len(set(seen.values())) == 3
    watched.drag(picture, (0.98, 0.5), (0.3, 0.5))
    assert frame.inner_text().startswith(f"Frame {int(0.3 * CLIP)} of")
    watched.picture("player")


def test_frames_dropped_in_the_player_are_filled_by_the_next_run(watched, connection):
    strip = watched.view("Extract", ".aa-strip")

    def middle(frame):
        return ((frame + 0.5) / CLIP, 0.85)

    watched.show("Extract")
    watched.drag(strip, middle(2), middle(2))
    assert watched.value("Extract", "dropped_frames") == "2"
    watched.drag(strip, middle(4), middle(6))
    assert watched.value("Extract", "dropped_frames") == "2, 4-6"
    watched.drag(strip, middle(2), middle(2))
    assert watched.value("Extract", "dropped_frames") == "4-6"
    watched.drag(strip, ((5.5 / CLIP), 0.2), ((5.5 / CLIP), 0.2))  # the upper part only looks
    assert watched.value("Extract", "dropped_frames") == "4-6"
    assert watched.view("Extract", ".aa-frame").inner_text() == f"Frame 5 of 0-{CLIP - 1}: dropped"
    watched.view("Extract", ".aa-drop").click()
    assert watched.value("Extract", "dropped_frames") == "4, 6"
    watched.run_to_end()
    assert "Dropped: 4, 6" in watched.view("Extract", ".aa-report").inner_text()
    saved = watched.js(
        "async () => (await app.graphToPrompt()).workflow.nodes.flatMap(node => node.widgets_values ?? [])"
    )
    assert "4, 6" in saved
    watched.picture("dropped")


def test_points_can_be_dragged_added_and_taken_away(watched):
    picture = watched.view("Track", ".aa-points")
    watched.show("Track")
    points = watched.output("Track")["aa_points"][0]["points"]
    box = picture.bounding_box()
    side = min(box["width"], box["height"])  # the clip is square

    def at(x, y):
        return 0.5 + (x - 0.5) * side / box["width"], 0.5 + (y - 0.5) * side / box["height"]

    (x, y, _), *rest = points
    watched.drag(picture, at(x, y), at(0.3, 0.2))
    placed = [[float(part) for part in pair.split(",")] for pair in watched.value("Track", "placed_points").split(";")]
    assert placed[0] == pytest.approx([0.3, 0.2], abs=0.01)
    assert placed[1:] == [pytest.approx(point[:2], abs=1e-3) for point in rest]
    watched.tab.mouse.dblclick(box["x"] + at(0.7, 0.1)[0] * box["width"], box["y"] + at(0.7, 0.1)[1] * box["height"])
    assert len(watched.value("Track", "placed_points").split(";")) == len(points) + 1
    place = at(0.3, 0.2)
    picture.click(button="right", position={"x": place[0] * box["width"], "y": place[1] * box["height"]})
    assert watched.value("Track", "placed_points").startswith(f"{placed[1][0]:g}, {placed[1][1]:g}")
    watched.run_to_end()
    after = watched.output("Track")["aa_points"][0]
    assert len(after["points"]) + len(after["lost"]) == len(points)
    followed = [point[:2] for point in after["points"]] + after["lost"]
    assert any(point == pytest.approx([0.7, 0.1], abs=0.02) for point in followed)
    watched.picture("points")
    watched.view("Track", ".aa-choose").click()
    assert watched.value("Track", "placed_points") == ""


def timeline(node, done):
    windows = [
        {"index": i, "start": 24 * i, "length": 29, "first_new": 24 * i + 5 * (i > 0), "done": i < done}
        | ({"seam": 3.0 * (i > 0), "drift": 1.0 + i, "seconds": 10.0} if i < done else {})
        for i in range(3)
    ]
    conditions = {"pose": [0, 77], "environment": None, "reference": True}
    return {"node": str(node), "total": 77, "windows": windows, "conditions": conditions}


def test_the_timeline_grows_with_each_message_and_is_not_drawn_in_vain(page):
    page.open("animate")
    node = page.node("Sample shot", "node.id")
    send = "detail => comfyAPI.api.api.dispatchCustomEvent('animate_anywhere.timeline', detail)"
    page.show("Sample shot")
    page.js(send, timeline(node, 0))
    assert page.view("Sample shot", ".aa-bar").inner_text() == "0 of 3 windows, 77 frames"
    plot = page.view("Sample shot", ".aa-timeline")
    pictures = []
    for done, told in ((1, "drift ΔE 1.0, about 20 s to go"), (3, "drift ΔE 3.0")):
        page.js(send, timeline(node, done))
        page.settle()
        assert page.view("Sample shot", ".aa-bar").inner_text() == f"{done} of 3 windows, 77 frames, {told}"
        pictures.append(plot.evaluate("canvas => canvas.toDataURL()"))
    assert pictures[0] != pictures[1]
    painted = plot.get_attribute("data-painted")
    for _ in range(3):
        page.node("Sample shot", "(app.canvas.ds.offset[0] += 40, app.canvas.draw(true, true))")
        page.settle()
    assert plot.get_attribute("data-painted") == painted
    page.picture("timeline")


def test_views_stand_in_the_nodes_of_both_kinds(page):
    page.open("animate")
    page.js("() => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', true)")
    try:
        page.tab.wait_for_selector("[data-testid=node-widgets]")
        page.show("Sample shot")
        page.node(
            "Sample shot", "(node.onExecuted(value), undefined)", {"aa_timeline": [timeline(1, 2)], "text": ["done"]}
        )
        plot = page.view("Sample shot", ".aa-timeline")
        plot.wait_for()
        page.tab.wait_for_function("document.querySelector('[data-node-id] .aa-timeline')?.dataset.painted > 0")
        assert plot.evaluate("canvas => canvas.clientWidth") > 100
        page.picture("timeline-vue")
    finally:
        page.js("() => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', false)")


def test_the_pages_files_are_small():
    files = [path for path in (hosts.CLONE / "js").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 200_000
