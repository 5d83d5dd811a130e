"""What a router remembers of cameras: the last frame of each, ways and times, all of it bounded."""

from __future__ import annotations

import pytest
from metric_samples import FINISHED, ended

from engines.spec import CanvasShape
from serve_app.live.camera_book import MAX_NAME_CHARS, CameraBook
from serve_app.live.live_report import FlowKey
from serve_app.results import StageTimes
from serve_app.verdicts import Outcome, Verdict, VerdictKind


def test_a_camera_shows_its_last_frame_and_counts_all():
    """Also one that did not finish; what it took is that of its last finished one."""
    book = CameraBook()
    book.ended(FINISHED, 10.0)
    book.ended(ended(outcome=Outcome.EXPIRED, times=StageTimes(queue_s=1.0, total_s=1.0)), 12.0)

    (camera,) = book.cameras(15.0)
    assert (camera.camera, camera.outcome, camera.verdict, camera.age_s) == ("gate-1", "expired", "admit", 3.0)
    assert (camera.num_ended, camera.num_finished, camera.total_s) == (2, 1, 0.076)
    assert (camera.size_hw, camera.bucket, camera.pool) == ((480, 640), "vga", "near")


def test_finished_frames_count_by_way_and_by_the_class_that_they_waited_in():
    """Others have taken no device time, and tell nothing of how long frames take."""
    book = CameraBook()
    book.ended(FINISHED, 0.0)
    book.ended(ended(priority="critical"), 0.0)
    book.ended(ended(verdict=Verdict(VerdictKind.DEFER, "large"), num_tiles=4), 0.0)
    book.ended(ended(outcome=Outcome.FAILED), 0.0)

    whole = FlowKey((480, 640), CanvasShape(480, 640), "vga", "near", is_tiled=False)
    tiled = FlowKey((480, 640), CanvasShape(480, 640), "vga", "near", is_tiled=True)
    assert book.flows() == {whole: 2, tiled: 1}
    assert {lane: spread.num_values for lane, spread in book.total_s().items()} == {
        "critical": 1, "normal": 1, "deferred": 1,
    }  # fmt: skip
    assert book.queue_s()["critical"].sum_s == pytest.approx(0.04)


def test_whatever_clients_say_the_book_stays_small():
    """Ten thousand names and sizes: the latest cameras stay, rare sizes count as one, counts are not lost."""
    book = CameraBook(max_cameras=50, max_flows=20)
    for number in range(10_000):
        book.ended(ended(camera=f"camera-{number}", size_hw=(480 + number, 640)), float(number))
    book.ended(ended(camera="x" * 1_000_000), 10_000.0)

    cameras = book.cameras(10_000.0)
    assert len(cameras) == 50
    assert {"camera-9999", "x" * (MAX_NAME_CHARS - 1) + "…"} <= {camera.camera for camera in cameras}
    assert len(book.flows()) == 21
    assert sum(book.flows().values()) == 10_001


def test_a_refused_frame_may_carry_anything():
    """A client's priority and size are shown as none of ours, its name as text."""
    book = CameraBook()
    book.ended(ended(outcome=Outcome.REJECTED, camera=None, priority=["?"], size_hw="big", verdict=None), 0.0)

    (camera,) = book.cameras(0.0)
    assert (camera.camera, camera.priority, camera.size_hw, camera.verdict) == ("None", "other", (0, 0), "")
