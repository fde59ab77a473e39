"""Write workflows/api/ from workflows/: the form that the API takes, from the form that an artist edits and saves.

    $(python3 scripts/host.py --python) scripts/workflows.py

It is what the menu's Export (API) gives: ComfyUI's own page translates, in a headless Chromium.
"""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import comfyui
import host as hosts

FOLDER = hosts.CLONE / "workflows"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_MS = 180_000  # a busy machine takes a minute to load the page
READY = "window.app?.rootGraph && window.app.vueAppReady"
TRANSLATE = """async workflow => {
    await app.loadGraphData(workflow)
    return (await app.graphToPrompt()).output
}"""


def chromium() -> str | None:
    """The Chromium or Chrome that is installed here."""
    return next(filter(None, map(shutil.which, CHROMIUM)), None)


@contextmanager
def translator(url: str) -> Iterator[Callable[[dict], dict]]:
    """A function from a saved workflow to its API form, by the page of the ComfyUI at ``url``."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium())
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(url)
        page.wait_for_function(READY)
        yield lambda workflow: page.evaluate(TRANSLATE, workflow)
        browser.close()


def main() -> int:
    if not chromium():
        print("There is no Chromium here (Debian: apt-get install chromium)", file=sys.stderr)
        return 1
    with comfyui.running(hosts.get()) as server, translator(server.url) as translate:
        for path in sorted(FOLDER.glob("*.json")):
            target = FOLDER / "api" / path.name
            prompt = translate(json.loads(path.read_text(encoding="utf-8")))
            target.write_text(json.dumps(prompt, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            print(target.relative_to(hosts.CLONE))
    return 0


if __name__ == "__main__":
    sys.exit(main())
