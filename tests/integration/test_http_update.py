"""A new plan for a service with HTTP, while callers go on at both ports: every frame is answered."""

from __future__ import annotations

import threading
import time
from collections import Counter

import cv2
import httpx
import pytest
from service_world import Command, free_ports

from framelane_inspection.scenes import draw_scene

pytestmark = pytest.mark.cluster

PLAN = """\
models: {{light: "bundled:inspection-light"}}
buckets: {{small: {{canvases: [[128, 160]]}}}}
slo_s: {{critical: 60, normal: 60}}
http: {{enabled: true, port: {0}, critical_port: {1}, max_parts: {2}}}
"""
PAUSE_S = 0.05


class Caller(threading.Thread):
    """Sends frame after frame, each on a connection of its own, and notes what became of them."""

    def __init__(self, url, image):
        super().__init__(daemon=True)
        self._request = {"url": url, "content": image, "headers": {"content-type": "image/png"}, "timeout": 120}
        self._ended = threading.Event()
        self.ends = Counter()

    def run(self):
        """Until it is told to stop."""
        while not self._ended.wait(PAUSE_S):
            try:
                response = httpx.post(**self._request)
                self.ends[response.status_code] += 1
            except httpx.HTTPError as err:
                self.ends[repr(err)] += 1

    def stop(self):
        """Once its last frame is answered."""
        self._ended.set()
        self.join(120)


def until_answered(callers, num_more):
    """Wait until each has so many answers more."""
    wanted = [caller.ends[200] + num_more for caller in callers]
    give_up_s = time.monotonic() + 60
    while any(caller.ends[200] < num for caller, num in zip(callers, wanted, strict=True)):
        assert time.monotonic() < give_up_s, [caller.ends for caller in callers]
        time.sleep(0.1)


def test_an_update_answers_every_frame_at_both_ports(tmp_path):
    """The processes of the old plan answer what they have; those of the new one listen before they go."""
    framelane = Command(tmp_path)
    port, critical_port = free_ports(2)
    (tmp_path / "plan.yaml").write_text(PLAN.format(port, critical_port, 16))
    (tmp_path / "new.yaml").write_text(PLAN.format(port, critical_port, 3))
    image = cv2.imencode(".png", draw_scene((120, 160), seed=3).image_hwc)[1].tobytes()
    urls = [
        f"http://127.0.0.1:{port}/v1/detect?camera=belt",
        f"http://127.0.0.1:{critical_port}/v1/detect?camera=gate&priority=critical",
    ]
    up = framelane("up", "plan.yaml")
    try:
        assert up.returncode == 0, up.stderr
        assert f"for critical keys http://127.0.0.1:{critical_port}" in " ".join(up.stdout.split())
        callers = [Caller(url, image) for url in urls]
        for caller in callers:
            caller.start()
        until_answered(callers, 20)
        updated = framelane("update", "new.yaml")
        assert updated.returncode == 0, updated.stderr
        until_answered(callers, 20)
        for caller in callers:
            caller.stop()
        assert [set(caller.ends) for caller in callers] == [{200}, {200}], [caller.ends for caller in callers]
        parts = [("image", ("one.png", image, "image/png"))] * 4
        for url in urls:
            assert httpx.post(url, files=parts, timeout=60).status_code == 413, "the new plan's limit"
    finally:
        framelane("down")
