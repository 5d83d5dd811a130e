"""Debian's Chromium, headless, and pages in it that must neither complain nor speak to another host."""

from __future__ import annotations

import os
import re
import shutil
import time
from urllib.parse import urlsplit

import pytest
from page_world import PageServer
from playwright.sync_api import expect, sync_playwright

# Two cores, a browser, and whatever else runs on them.
PATIENCE_S = 30.0
PLACES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# What Chromium says when a server is away, which is what some tests are about.
AWAY = re.compile(r"ERR_(CONNECTION_REFUSED|INCOMPLETE_CHUNKED_ENCODING|CONNECTION_RESET|EMPTY_RESPONSE)")


def pytest_collection_modifyitems(items):
    """All of this folder need the browser."""
    for item in items:
        item.add_marker(pytest.mark.page)


expect.set_options(timeout=1000 * PATIENCE_S)


@pytest.fixture(scope="session")
def chromium():
    """The browser."""
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, PLACES)), None)
    if path is None:
        pytest.fail(f"Chromium: none of {', '.join(PLACES)} is there; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


class Tab:
    """One page in the browser, with what it said and asked for."""

    def __init__(self, page):
        self.page = page
        self.said, self.hosts = [], set()
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))

    def complaints(self, *, may_be_away=False):
        """What it said, but for a server that was away on purpose."""
        return [line for line in self.said if not (may_be_away and AWAY.search(line))]

    def wait(self, is_so):
        """Wait until this holds; the page's own policy forbids what Playwright would run in it for that."""
        give_up_s = time.monotonic() + PATIENCE_S
        while not is_so() and time.monotonic() < give_up_s:
            self.page.wait_for_timeout(50)
        assert is_so()

    def text(self, selector):
        """What people read there."""
        return self.page.locator(selector).inner_text()


@pytest.fixture
def tab(chromium):
    """Opens pages: `tab(url, width=…)`; each must have been quiet in the end."""
    opened = []

    def open_tab(url, *, width=1280, height=900, theme="light", may_be_away=False, **options):
        context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=theme, **options)
        found = Tab(context.new_page())
        found.page.set_default_timeout(1000 * PATIENCE_S)
        opened.append((found, may_be_away, urlsplit(url).netloc))
        found.page.goto(url)
        return found

    yield open_tab
    for found, may_be_away, host in opened:
        assert found.complaints(may_be_away=may_be_away) == []
        assert {each for each in found.hosts if each} <= {host}
        found.page.context.close()


@pytest.fixture
def serve():
    """Starts page servers, and stops them."""
    servers = []

    def start(source, **options):
        servers.append(PageServer(source, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
