"""The page on a real service: real Serve in front, real routers and replicas behind, and pixels that are let go."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading
import time
import urllib.request
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from page_world import free_port
from playwright.sync_api import expect

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import ray
    from ray import serve as ray_serve
    from ray._private.internal_api import memory_summary

from prometheus_client.parser import text_string_to_metric_families

from framelane_inspection.scenes import draw_scene
from serve_app.app_name import HTTP_APP_NAME, HTTP_NAME
from serve_app.config import plan_from
from serve_app.direct_calls import running_replicas
from serve_app.local_service import local_service

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.timeout(300),
]
SETTLED_S = 30.0
EXPORTED_S = 40.0
SMALLEST_FRAME_BYTES = 400 * 600 * 3
SIZES = {"gate-1": ((480, 640), "critical"), "belt-1": ((384, 640), "normal"), "<b>press</b>": ((400, 600), "normal")}


class Service:
    """The running service, its address, and cameras that send to it.

    Playwright's event loop lives in the tests' own thread, where Serve refuses to be waited for: all that speaks to the
    service does so in another one.
    """

    def __init__(self, client, thread, port):
        self.client = client
        self.thread = thread
        self.url = f"http://127.0.0.1:{port}/"
        self.scenes_hwc = {name: draw_scene(size_hw, seed=5).image_hwc for name, (size_hw, _) in SIZES.items()}

    def status(self):
        """As the client gets it."""
        return self.thread.submit(self.client.status).result()

    def sends(self, num_frames):
        """Each camera sends so many frames, one after the other."""
        self.thread.submit(self._send, num_frames).result()

    def _send(self, num_frames):
        for _ in range(num_frames):
            for name, (_, priority) in SIZES.items():
                self.client.detect_many([self.scenes_hwc[name]], camera=name, priority=priority, slo_s=30)

    @contextlib.contextmanager
    def sending(self):
        """Cameras send all the while."""
        is_over = threading.Event()

        def send():
            while not is_over.is_set():
                self._send(1)

        sent = self.thread.submit(send)
        try:
            yield
        finally:
            is_over.set()
            sent.result()


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """Two canvases of the bundled light model on one replica, with HTTP in front."""
    os.environ["RAY_metrics_report_interval_ms"] = "1000"  # noqa: SIM112 (Ray's own spelling)
    port = free_port()
    plan = plan_from(
        {
            "models": {"light": "bundled:inspection-light"},
            "pools": {"cpu": {"replicas": 1}},
            "buckets": {"vga": {"canvases": [[480, 640]]}, "wide": {"canvases": [[384, 640]]}},
            "slo_s": {"critical": 30, "normal": 60},
            "http": {"port": port},
        },
        tmp_path_factory.mktemp("service"),
    )
    with ThreadPoolExecutor(1) as thread:
        serving = local_service(plan, num_cpus=4, http=True)
        client = thread.submit(serving.__enter__).result()
        yield Service(client, thread, port)
        thread.submit(serving.__exit__, None, None, None).result()


def frames_in_store():
    """Frames that anybody holds in the object store: Serve's own objects there are smaller than our frames."""
    gc.collect()
    rows = [line.split("|") for line in memory_summary(ray.get_runtime_context().gcs_address).splitlines()]
    sizes = {row[8].strip(): row[6].strip() for row in rows if len(row) == 9}
    return {ref for ref, size in sizes.items() if size.endswith(" B") and float(size[:-2]) > SMALLEST_FRAME_BYTES}


def when(value, is_so, within_s):
    """The value as soon as this holds of it, or its last one."""
    give_up_s = time.monotonic() + within_s
    while not is_so(found := value()) and time.monotonic() < give_up_s:
        time.sleep(0.2)
    return found


def exported():
    """Finished frames by priority, as this node's endpoint tells Prometheus."""
    port = ray.nodes()[0]["MetricsExportPort"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        families = {family.name: family for family in text_string_to_metric_families(answer.read().decode())}
    counts = Counter()
    name = "ray_framelane_frame_latency_seconds_count"
    for sample in families[name].samples if name in families else ():
        counts[sample.labels["priority"]] += int(sample.value)
    return counts


def kill_http():
    """End the processes that answer HTTP, as a crash does."""
    handle = ray_serve.get_deployment_handle(HTTP_NAME, HTTP_APP_NAME)
    for actor in asyncio.run(running_replicas(handle, 10.0)).values():
        ray.kill(actor)


def number(text):
    """A count as people read it."""
    return int(text.replace(",", ""))


def finished(found):
    """Frames that have finished, as the page shows them."""
    return number(found.text("#counts tr[data-name='finished'] td:nth-child(2)"))


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_shows_what_status_and_metrics_tell(service, tab, width):
    """Frame by frame, once all is quiet; cameras under their own names, whatever these are."""
    service.sends(4)
    found = tab(service.url, width=width)
    outcomes, verdicts = service.status().outcomes, service.status().verdicts
    found.wait(lambda: finished(found) == outcomes["finished"])

    assert number(found.text("#counts tr[data-name='admit'] td:nth-child(2)")) == verdicts["admit"]
    by_class = {
        lane: number(found.page.locator(f"#classes tr[data-class='{lane}']").get_attribute("title").split()[3])
        for lane in ("critical", "normal", "deferred")
    }
    told = when(exported, lambda counts: counts.total() >= outcomes["finished"], EXPORTED_S)
    assert by_class == {"critical": told["critical"], "normal": told["normal"], "deferred": 0}
    assert sorted(found.page.locator(".camera .name").all_inner_texts()) == sorted(SIZES)
    expect(found.page.locator("[data-kpi='replicas'] .value")).to_have_text("1/1")


def test_pictures_come_while_one_watches_and_pixels_go_afterwards(service, tab):
    """Each camera's last frame with its boxes; the object store is as empty as before when the page is closed."""
    with service.sending():
        found = tab(service.url)
        expect(found.page.locator(".camera[data-picture='shown']")).to_have_count(3)
    assert len(frames_in_store()) == 3
    found.page.goto("about:blank")
    assert when(frames_in_store, lambda frames: not frames, SETTLED_S) == set()


def test_it_goes_on_when_the_process_behind_it_is_killed(service, tab):
    """Serve starts another one; the page says that it reconnects, and then what happens now."""
    found = tab(service.url, may_be_away=True)
    found.wait(lambda: found.text("#state-text") == "live")
    service.thread.submit(kill_http).result()
    found.wait(lambda: found.text("#state-text") == "reconnecting")
    service.sends(3)
    outcomes = service.status().outcomes
    found.wait(lambda: found.text("#state-text") == "live" and finished(found) == outcomes["finished"])
    # What Serve answers while there is no process is part of the trouble that this is about.
    found.said[:] = [line for line in found.said if "status of 50" not in line]
