"""ComfyUI's page in a headless Chromium, as an artist sees it; what the page complains about and asks others for."""

import json
from contextlib import contextmanager

import host as hosts
from playwright.sync_api import sync_playwright

import workflows

CHROMIUM = workflows.chromium()
PICTURES = hosts.CLONE / "output" / "browser"
WAIT_S = 300  # far more than is needed, for machines that are busy
SIZE = {"width": 1600, "height": 1000}
# Text and widgets stay readable however far the page zooms out; nothing welcomes a new user on top of it.
SETTINGS = {"LiteGraph.Canvas.MinFontSizeForLOD": 0, "Comfy.TutorialCompleted": True}
# Complaints of the host's own, by address or text: files of the user's that it looks for at every start; the sizes of
# models that are not there, which it may not ask for on a server that keeps its page from the internet; and how it
# starts, with nothing but itself, too.
HOSTS_OWN = (
    "/userdata/",
    "/userdata?",
    "/user.css",
    "/assets/missingModelDownload-",
    "ComfyApp graph accessed before initialization",
)


@contextmanager
def started(connection):
    """A browser for the ComfyUI of ``connection`` (client.Client): yields a function that opens a fresh Page."""
    for name, value in SETTINGS.items():
        connection.post(f"settings/{name}", json.dumps(value).encode())
    with sync_playwright() as playwright:
        # The clock of a page that nobody looks at may stand still otherwise.
        flags = ["--disable-renderer-backgrounding", "--disable-background-timer-throttling"]
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        context = chromium.new_context(viewport=SIZE)
        context.set_default_timeout(WAIT_S * 1000)
        context.add_init_script("localStorage.clear(); sessionStorage.clear()")  # or it opens what was open before
        yield lambda: Page(context, connection.url)
        chromium.close()


class Page:
    """One tab. ``errors``: what its console shows in red; ``strangers``: addresses asked for outside of the server."""

    def __init__(self, context, url) -> None:
        self.url = url
        self.errors, self.strangers = [], []
        self.tab = context.new_page()
        self.tab.on("console", self._hear)
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.on("request", self._ask)

    def _hear(self, message) -> None:
        text = f"{message.text} ({message.location.get('url', '')})"
        if message.type == "error" and not any(known in text for known in HOSTS_OWN):
            self.errors.append(text)

    def _ask(self, request) -> None:
        if not request.url.startswith((self.url, f"blob:{self.url}", "data:")):
            self.strangers.append(request.url)

    def open_empty(self) -> None:
        """A graph without nodes."""
        self.tab.goto(self.url)
        self.tab.wait_for_function("document.title.endsWith(' - ComfyUI')")  # one of the host's is there
        self.js("() => app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
        self.tab.wait_for_function("!app.rootGraph.nodes.length")

    def add(self, kind, title, at, widgets=None) -> None:
        """Put a node on the graph, its upper left corner ``at`` [x, y]."""
        self.js(
            """([kind, title, at]) => {
                const node = LiteGraph.createNode(kind)
                Object.assign(node, { title, pos: at })
                app.rootGraph.add(node)
            }""",
            [kind, title, at],
        )
        for name, value in (widgets or {}).items():
            self.put(title, name, value)

    def link(self, source, output, target, socket) -> None:
        script = (
            "node.connect(node.findOutputSlot(value[0]), app.rootGraph.nodes.find(node => node.title === value[1]),"
        )
        self.node(source, f"Boolean({script} value[2]))", [output, target, socket])

    def open(self, template) -> None:
        """A template of the pack, by the address that opens it; waits until its nodes are drawn."""
        self.tab.goto(f"{self.url}/?template={template}&source={hosts.LINK}")
        # Not before is there a graph to ask for.
        self.tab.wait_for_function("name => document.title.replace('*', '') === `${name} - ComfyUI`", arg=template)
        self.tab.wait_for_function("app.rootGraph.nodes.length")
        self.settle()

    def settle(self) -> None:
        """Wait until what changed is drawn."""
        self.js("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))")

    def js(self, script, argument=None):
        return self.tab.evaluate(script, argument)

    def node(self, title, expression, value=None):
        """What a JavaScript ``expression`` of ``node``, the one called ``title``, and ``value`` gives."""
        found = f"app.rootGraph.nodes.find(node => node.title === {json.dumps(title)})"
        return self.js(f"value => {{ const node = {found}; return {expression} }}", value)

    def put(self, title, widget, value) -> None:
        """Set a widget as its editor would."""
        found = f"node.widgets.find(widget => widget.name === '{widget}')"
        self.node(title, f"(widget => {{ widget.value = value; widget.callback?.(value) }})({found})", value)

    def value(self, title, widget):
        return self.node(title, f"node.widgets.find(widget => widget.name === '{widget}').value")

    def show(self, title, zoom=1.0) -> None:
        """Bring a node into the middle of the view."""
        self.node(
            title, "(app.canvas.ds.scale = value, app.canvas.centerOnNode(node), app.canvas.draw(true, true))", zoom
        )
        self.settle()

    def run(self) -> None:
        """Press Run."""
        self.tab.get_by_test_id("queue-button").click()

    def run_to_end(self) -> None:
        """Press Run, and wait until all is done."""
        self.js(
            """() => {
                window.ended = null
                for (const kind of ["execution_success", "execution_error", "execution_interrupted"])
                    comfyAPI.api.api.addEventListener(kind, ({ detail }) => {
                        window.ended ??= detail.exception_message ?? kind
                    }, { once: true })
            }"""
        )
        self.run()
        self.tab.wait_for_function("window.ended")
        assert self.js("() => window.ended") == "execution_success"
        self.settle()

    def output(self, title):
        """What the node's last run gave the page."""
        return self.node(title, "app.nodeOutputs[node.id]")

    def view(self, title, part):
        """The first element of class ``part`` in the view of a node."""
        self.node(title, "(node.widgets.find(widget => widget.name === 'aa_view').element.dataset.title = node.title)")
        return self.tab.locator(f".aa-view[data-title='{title}'] {part}")

    def drag(self, locator, start, end) -> None:
        """With the left button from one place to another, both in 0…1 of what ``locator`` finds."""
        box = locator.bounding_box()
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)]
        mouse = self.tab.mouse
        mouse.move(*places[0])
        mouse.down()
        mouse.move(*places[1], steps=4)
        mouse.up()
        self.settle()

    def picture(self, name) -> None:
        """Keep a screenshot."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.tab.screenshot(path=PICTURES / f"{name}.png")
