"""The page's addresses, called as a server calls them: headers, keys, events, pictures, and who goes away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re

import pytest
from fastapi import FastAPI, HTTPException, Request
from test_live_collector import GATE, Source, resting

from serve_app.live.collector import Collector
from serve_app.live.page import CONTENT_POLICY, assets, packed, page_routes
from serve_app.live.viewers import Event

KEY = {"authorization": "Bearer right"}
PATIENCE_S = 20.0


class Answer:
    """What an application sent; `until` waits for a text in it."""

    def __init__(self):
        self.status, self.headers, self.body = 0, {}, b""
        self.news = asyncio.Event()

    async def send(self, message):
        """As ASGI's."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        self.body += message.get("body", b"")
        self.news.set()

    async def until(self, text):
        """Wait until this has come."""
        while text not in self.body:
            self.news.clear()
            await asyncio.wait_for(self.news.wait(), PATIENCE_S)


class Browser:
    """Calls an application, and hangs up when told."""

    def __init__(self, app):
        self.app = app

    @contextlib.asynccontextmanager
    async def opened(self, path, headers=None):
        """An answer that may go on for long."""
        answer, has_gone = Answer(), asyncio.Event()

        async def receive():
            await has_gone.wait()
            return {"type": "http.disconnect"}

        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "GET",
            "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "scheme": "http",
            "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "state": {},
        }  # fmt: skip
        task = asyncio.create_task(self.app(scope, receive, answer.send))
        try:
            yield answer
        finally:
            has_gone.set()
            await asyncio.wait_for(task, PATIENCE_S)

    async def get(self, path, headers=None):
        """An answer that ends by itself."""
        answer = Answer()

        async def receive():
            await asyncio.sleep(0)
            return {"type": "http.request", "body": b"", "more_body": False}

        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "GET",
            "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "scheme": "http",
            "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "state": {},
        }  # fmt: skip
        await asyncio.wait_for(self.app(scope, receive, answer.send), PATIENCE_S)
        return answer


def play(scenario, *, sees=None, **options):
    """Run a scenario with a page that asks for a key."""

    def may_see(request: Request):
        if request.headers.get("authorization") != "Bearer right":
            raise HTTPException(401)
        return sees

    # FastAPI looks at the annotation itself.
    may_see.__annotations__["request"] = Request

    async def main():
        collector = Collector(Source(), every_s=0.0, linger_s=0.0, **options)
        app = FastAPI()
        app.include_router(page_routes(collector, may_see))
        await scenario(Browser(app), collector)
        await collector.close()

    asyncio.run(main())


def events_in(body):
    """Kinds and contents of a stream's whole events."""
    whole = body.rpartition(b"\n\n")[0].decode().split("\n\n")
    return [
        (
            re.search(r"^event: (.*)$", each, re.MULTILINE)[1],
            json.loads(re.search(r"^data: (.*)$", each, re.MULTILINE)[1]),
        )
        for each in whole
        if "event:" in each
    ]


def test_the_page_is_open_to_all_and_forbids_everything_from_elsewhere():
    """It holds no data. No inline script, no other host, no frame around it, names never become markup."""

    async def scenario(browser, _):
        page = await browser.get("/")
        assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert page.headers["content-security-policy"] == CONTENT_POLICY
        for part in ("default-src 'none'", "script-src 'self'", "require-trusted-types-for 'script'"):
            assert part in CONTENT_POLICY
        assert "unsafe" not in CONTENT_POLICY
        assert page.headers["x-content-type-options"] == "nosniff"
        again = await browser.get("/", {"if-none-match": page.headers["etag"]})
        assert (again.status, again.body) == (304, b"")

    play(scenario)


def test_every_file_that_a_file_names_is_there_and_none_names_another_host():
    """A page that works on a line without the internet."""
    files = assets()
    assert {"index.html", "main.js", "style.css", "inter-latin.woff2", "icon.svg"} <= set(files)
    for name, asset in files.items():
        if name.endswith("woff2"):
            continue
        text = asset.content.decode()
        named = re.findall(r"live/assets/([\w.-]+)", text) + re.findall(r'from "\./([\w.]+)"', text)
        assert set(named) <= set(files), name
        hosts = set(re.findall(r"https?://[^\s\"')]+", text)) - {"http://www.w3.org/2000/svg"}
        assert hosts == set(), name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), name
        assert not re.search(r"<[^>]+\son\w+=|\sstyle=", text), name


@pytest.mark.parametrize("name", ["../page.py", "..%2fpage.py", "inter-OFL.txt", "nothing.js", ""])
def test_no_other_file_can_be_asked_for(name):
    """Only the page's own."""

    async def scenario(browser, _):
        assert (await browser.get(f"/live/assets/{name}")).status == 404

    play(scenario)


@pytest.mark.parametrize("path", ["/live/events", f"/live/pictures/{GATE}"])
def test_numbers_and_pictures_need_the_key(path):
    """None, or a wrong one, and nothing is even looked at."""

    async def scenario(browser, collector):
        assert (await browser.get(path)).status == 401
        assert (await browser.get(path, {"authorization": "Bearer wrong"})).status == 401
        assert collector.is_resting

    play(scenario)


def test_events_stream_to_a_viewer_until_it_goes():
    """Hello, then numbers; never stored, never held back; afterwards nobody watches."""

    async def scenario(browser, collector):
        async with browser.opened("/live/events", KEY) as answer:
            await answer.until(b"event: numbers")
            await answer.until(b"\n\n")
            assert collector.num_viewers == 1
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-accel-buffering"] == "no"
            (kind, hello), *_ = events_in(answer.body)
            assert (kind, hello["history"]) == ("hello", [])
            assert re.search(rb"^id: [0-9a-f]{8}-\d+$", answer.body, re.MULTILINE)
        assert collector.num_viewers == 0
        await resting(collector)

    play(scenario)


def test_a_viewer_that_goes_before_the_first_event_is_gone():
    """Else some reloads would fill all places."""

    async def scenario(browser, collector):
        for _ in range(20):
            async with browser.opened("/live/events", KEY):
                pass
        assert collector.num_viewers == 0

    play(scenario, max_viewers=2)


def test_one_viewer_too_many_is_told_when_to_come_again():
    """503, and the page tries again by itself."""

    async def scenario(browser, _):
        async with browser.opened("/live/events", KEY) as first:
            await first.until(b"hello")
            second = await browser.get("/live/events", KEY)
            assert (second.status, second.headers["retry-after"]) == (503, "5")
            assert "1 watch already" in json.loads(second.body)["detail"]

    play(scenario, max_viewers=1)


def test_a_picture_is_there_while_somebody_watches():
    """A JPEG, never stored; 404 for a camera that has none."""

    async def scenario(browser, _):
        async with browser.opened("/live/events", KEY) as answer:
            await answer.until(b"event: numbers")
            picture = await browser.get(f"/live/pictures/{GATE}", KEY)
            assert (picture.status, picture.headers["content-type"]) == (200, "image/jpeg")
            assert picture.headers["cache-control"] == "no-store"
            assert (await browser.get("/live/pictures/0000", KEY)).status == 404

    play(scenario)


def test_a_key_for_some_cameras_sees_no_others():
    """Neither their numbers nor their pictures."""

    async def scenario(browser, _):
        async with browser.opened("/live/events", KEY) as answer:
            await answer.until(b"event: numbers")
            numbers = [content for kind, content in events_in(answer.body) if kind == "numbers"]
            assert [content["cameras"] for content in numbers] == [[]] * len(numbers)
            assert (await browser.get(f"/live/pictures/{GATE}", KEY)).status == 404

    play(scenario, sees=lambda camera: camera.startswith("belt"))


def test_an_event_is_one_line_whatever_a_camera_is_called():
    """A name with a line break must not end it, nor begin another."""
    name = "a\n\nevent: away\ndata: {}\r\u2028\ud800"
    line = packed(Event(3, "numbers", {"cameras": [{"name": name}]}), "e-3", None)

    assert line.count(b"\n") == 4
    assert b"\r" not in line
    assert events_in(line) == [("numbers", {"cameras": [{"name": name}]})]
