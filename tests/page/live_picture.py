"""The picture of the live page in the docs, and any other that one wants to look at.

Make it anew: python tests/page/live_picture.py
Or, of a fleet of so many cameras: python tests/page/live_picture.py FILE CAMERAS WIDTH light|dark
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from page_world import PageServer, PlayedService, fleet
from PIL import Image
from playwright.sync_api import sync_playwright

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "live.png"
# Until every camera in sight has its picture and the charts their lines.
SECONDS = 20


def take(path, num_cameras, width, theme, height=900):
    """A picture of the page on a played service."""
    source = PlayedService(fleet(num_cameras), num_routers=2)
    source.play(60)
    server = PageServer(source)
    with sync_playwright() as playwright:
        executable = os.environ.get("CHROMIUM") or shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)
        page.goto(server.url)
        page.wait_for_timeout(1000 * SECONDS)
        page.screenshot(path=path)
        browser.close()
    server.stop()


def small(path, out):
    """The same with as few colours as nobody misses: a picture in the docs is downloaded by everybody."""
    Image.open(path).convert("RGB").point(lambda value: value & 0xF8).save(out, optimize=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        take(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    else:
        with tempfile.TemporaryDirectory() as folder:
            take(Path(folder) / "live.png", 11, 1280, "dark")
            small(Path(folder) / "live.png", PICTURE)
