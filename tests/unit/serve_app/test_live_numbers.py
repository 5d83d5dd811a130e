"""What the page shows of looks: sums over routers, rates and quantiles of a while, the status unchanged."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from metric_samples import FINISHED, ended
from serve_samples import sample_plan
from status_samples import VIEW

from serve_app.live.camera_book import CameraBook
from serve_app.live.live_report import LiveReport
from serve_app.live.numbers import Numbers
from serve_app.results import StageTimes
from serve_app.service_view import rates, view_as_json


def report(router, book, now_s):
    """What a router with this book tells."""
    return LiveReport(router, book.cameras(now_s), book.flows(), book.total_s(), book.queue_s())


def taking(seconds):
    """A finished frame that took so long, half of it waiting."""
    return ended(times=StageTimes(queue_s=seconds / 2, total_s=seconds))


def later(seconds, **outcomes):
    """The service so many seconds later, with more frames."""
    status = VIEW.status
    more = {name: count + outcomes.get(name, 0) for name, count in status.outcomes.items()}
    return replace(VIEW, status=replace(status, uptime_s=status.uptime_s + seconds, outcomes=more))


def test_it_is_the_status_with_more_beside_it():
    """What `framelane status --json` prints is all in it, as it is; and it is JSON."""
    shown = Numbers(str.upper).taken(sample_plan(), VIEW, [], {}, 0.0)

    plain = view_as_json(VIEW, rates(VIEW.status, None))
    assert {name: shown[name] for name in plain if name != "rates"} == {n: plain[n] for n in plain if n != "rates"}
    assert shown["rates"] == plain["rates"] | {"since_start": True}
    assert json.loads(json.dumps(shown, allow_nan=False))["cameras"] == []


def test_rates_are_those_of_the_last_seconds():
    """Of ten at most, so that they follow; the first look tells the mean since the start."""
    numbers = Numbers(str.upper)
    numbers.taken(sample_plan(), VIEW, [], {}, 0.0)
    numbers.taken(sample_plan(), later(10), [], {}, 10.0)

    shown = numbers.taken(sample_plan(), later(15, finished=100), [], {}, 15.0)
    assert (shown["rates"]["over_s"], shown["rates"]["outcomes_hz"]["finished"]) == (5.0, 20.0)
    assert shown["frames_hz"] == 20.0


def test_quantiles_are_of_the_last_minute_and_of_all_routers_together():
    """What was before is seen since the start only."""
    numbers, one, two = Numbers(str.upper), CameraBook(), CameraBook()
    for _ in range(100):
        one.ended(taking(1.5), 0.0)
    numbers.taken(sample_plan(), VIEW, [report("one", one, 0.0), report("two", two, 0.0)], {}, 0.0)
    for _ in range(50):
        one.ended(taking(0.1), 1.0)
        two.ended(taking(0.2), 1.0)

    shown = numbers.taken(sample_plan(), later(1), [report("one", one, 1.0), report("two", two, 1.0)], {}, 1.0)
    (normal,) = [each for each in shown["classes"] if each["class"] == "normal"]
    assert (normal["recent"]["num_frames"], normal["ever"]["num_frames"]) == (100, 200)
    assert normal["recent"]["p50_s"] == pytest.approx(0.1, rel=0.06)
    assert normal["recent"]["p99_s"] == pytest.approx(0.2, rel=0.06)
    assert normal["recent"]["queue_p99_s"] == pytest.approx(0.1, rel=0.06)
    assert normal["ever"]["p99_s"] == pytest.approx(1.5, rel=0.06)


def test_a_router_that_began_anew_counts_from_its_start():
    """Its counts went back: no negative rate, and the other router's frames are not lost."""
    numbers, one, two = Numbers(str.upper), CameraBook(), CameraBook()
    for _ in range(10):
        one.ended(taking(0.1), 0.0)
        two.ended(taking(0.1), 0.0)
    numbers.taken(sample_plan(), VIEW, [report("one", one, 0.0), report("two", two, 0.0)], {}, 0.0)
    anew = CameraBook()
    anew.ended(taking(0.1), 2.0)
    two.ended(taking(0.1), 2.0)

    shown = numbers.taken(sample_plan(), later(2), [report("one", anew, 2.0), report("two", two, 2.0)], {}, 2.0)
    (flow,), (camera,) = shown["flows"], shown["cameras"]
    (normal,) = [each for each in shown["classes"] if each["class"] == "normal"]
    assert (normal["recent"]["num_frames"], flow["num_frames"], flow["hz"], camera["hz"]) == (2, 12, 1.0, 1.0)


def test_a_camera_of_two_routers_is_shown_once_by_its_younger_frame():
    """Its frames add up; sizes are told as width × height."""
    numbers, one, two = Numbers(str.upper), CameraBook(), CameraBook()
    one.ended(FINISHED, 1.0)
    two.ended(ended(size_hw=(1080, 1920)), 3.0)

    shown = numbers.taken(sample_plan(), VIEW, [report("one", one, 4.0), report("two", two, 4.0)], {"gate-1": "f"}, 4.0)
    (camera,) = shown["cameras"]
    assert (camera["name"], camera["key"], camera["size"], camera["canvas"]) == (
        "gate-1",
        "GATE-1",
        "1920×1080",
        "640×480",
    )
    assert (camera["num_ended"], camera["picture"], camera["hz"]) == (2, "f", None)


def test_looks_and_points_are_forgotten():
    """A wall that stands for weeks takes no more memory than after minutes."""
    numbers = Numbers(str.upper)
    for second in range(1000):
        numbers.taken(sample_plan(), later(second), [], {}, float(second))

    assert len(numbers._looks) <= 62
    assert len(numbers.history) <= 182
