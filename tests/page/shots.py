"""Pictures of the page for people: `python tests/page/shots.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

from page_world import PageServer, PlayedService, fleet
from playwright.sync_api import sync_playwright

from serve_app.memory_level import MemoryLevel
from serve_app.verdicts import Outcome, Verdict, VerdictKind

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
wanted = set(sys.argv[2:])


def shot(name, source, width, theme, seconds=6, full=True, then=None, height=1700, **options):
    if wanted and name not in wanted:
        return
    server = PageServer(source, **options)
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)
    page.on("console", lambda message: print(name, "console:", message.text))
    page.on("pageerror", lambda error: print(name, "error:", error))
    page.goto(server.url)
    page.wait_for_timeout(seconds * 1000)
    if then:
        then(server, page)
    page.screenshot(path=folder / f"{name}.png", full_page=full)
    page.close()
    server.stop()


def played(num_cameras, history_s=20, **options):
    source = PlayedService(fleet(num_cameras), **options)
    source.play(history_s)
    return source


def bad_hour(source):
    source.level, source.rung, source.waiting = MemoryLevel.HIGH, 1, (1, 31, 22)
    for camera in list(source.cameras)[:3]:
        source.sends(camera, (720, 1280), outcome=Outcome.EXPIRED, num_frames=5)
        source.sends(
            camera, (720, 1280), outcome=Outcome.REJECTED, verdict=Verdict(VerdictKind.REJECT, "no"), num_frames=9
        )
        source.cameras[camera] = (720, 1280), "normal", 0
    return source


with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
    shot("wall-dark", played(11, num_routers=2), 1280, "dark", 14)
    shot("wall-light", played(11), 1280, "light")
    shot("phone-dark", played(11), 390, "dark", height=3000)
    shot("phone-light", played(11), 390, "light", height=3000)
    shot("sixty", played(60), 1920, "dark", 9)
    shot("one", played(1), 1280, "light")
    shot("empty", PlayedService(), 1280, "dark", 3)
    shot("bad", bad_hour(played(11)), 1280, "light", 13)
    shot(
        "away",
        played(5),
        1280,
        "light",
        then=lambda server, page: (setattr(server.source, "is_away", True), page.wait_for_timeout(4000)),
    )
    shot(
        "lost",
        played(5),
        1280,
        "dark",
        then=lambda server, page: (server.stop(), page.wait_for_timeout(3000), server.start()),
    )
    shot("key", played(3), 1280, "light", 2, key="secret")
    browser.close()
