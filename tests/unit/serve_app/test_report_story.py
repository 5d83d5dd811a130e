"""The slowest frames, and what was ahead of them."""

from __future__ import annotations

from report_samples import figures_of, record

from serve_app.report.frames_ahead import WINDOW
from serve_app.report.slow_story import story

BIG = {
    "camera": "yard", "source_hw": [1080, 1920], "canvas_hw": [1088, 1920], "infer_ms": 900.0, "total_ms": 930.0,
    "queue_ms": 20.0, "verdict": "defer", "replica": "cpu-2",
}  # fmt: skip
WAITED = {"at_s": 100.1, "queue_ms": 1300.0, "total_ms": 1390.0, "priority": "critical", "slo_s": 0.25}


def slowest(figures, lane_class):
    """The slowest frame of a class."""
    return figures.slowest[lane_class].frames()[0]


def test_a_frame_that_waited_names_what_ran_meanwhile(tmp_path):
    """A long batch of its pool, and one that came later and went first; not what ended before, nor other pools."""
    figures = figures_of(
        tmp_path,
        record(at_s=99.0, camera="before"),
        record(at_s=100.0, **BIG),
        record(at_s=100.2, camera="later", total_ms=120.0, infer_ms=81.0),
        record(at_s=100.2, camera="elsewhere", pool="gpu"),
        record(camera="gate", **WAITED),
    )
    slow = slowest(figures, "critical")

    assert (slow.line, slow.ahead.num_frames, slow.ahead.num_batches, slow.ahead.num_later) == (5, 2, 2, 1)
    assert dict(slow.ahead.by_class) == {"deferred": 1, "normal": 1}
    assert slow.ahead.longest.camera == "yard"
    assert slow.ahead.reaches_back
    assert story(slow) == (
        "1.3 s of it (93.5 %) was waiting for its batch.",
        "It ran alone on canvas 480×640 by full on replica cpu-1.",
        (
            "While it waited its pool answered 2 frames of its router in 2 batches (1 deferred, 1 normal); 1 of them "
            "had come after it. The longest was one frame on 1088×1920, 900 ms of the network, with a frame of yard."
        ),
    )


def test_frames_of_one_batch_count_as_one_batch_and_not_as_ahead_of_each_other(tmp_path):
    """They have their times in common."""
    pair = {"batch_size": 2, "queue_ms": 500.0, "total_ms": 590.0, "infer_ms": 82.0}
    figures = figures_of(
        tmp_path, record(at_s=99.9, camera="a", batch_size=2, infer_ms=81.0, total_ms=200.0),
        record(at_s=99.9, camera="b", batch_size=2, infer_ms=81.0, total_ms=200.0),
        record(camera="c", **pair), record(camera="d", **pair | {"total_ms": 591.0}),
    )  # fmt: skip
    ahead = slowest(figures, "normal").ahead

    assert (ahead.num_frames, ahead.num_batches) == (2, 1)


def test_routers_know_nothing_of_each_others_frames(tmp_path):
    """Their clocks cannot be compared."""
    figures = figures_of(tmp_path, record(at_s=100.0, router="other", **BIG), record(**WAITED))

    assert slowest(figures, "critical").ahead.num_frames == 0
    assert "no frame of its pool and router" in story(slowest(figures, "critical"))[-1]


def test_a_story_says_where_it_cannot_look_back_far_enough(tmp_path):
    """A bounded number of records is kept."""
    many = [record(at_s=100.2 + n / 1000, camera=f"c{n}", infer_ms=80 + n / 1000) for n in range(WINDOW + 5)]
    figures = figures_of(tmp_path, *many, record(**WAITED))
    slow = slowest(figures, "critical")

    assert not slow.ahead.reaches_back
    assert f"looks back {WINDOW} records" in story(slow)[-1]


def test_each_camera_is_among_the_slowest_once(tmp_path):
    """With its slowest frame, whatever the order in which they come."""
    took_ms = [(f"c{n % 9}", 100.0 + (n * 37) % 101) for n in range(90)]
    figures = figures_of(
        tmp_path, *(record(at_s=100.0 + n, camera=c, total_ms=ms) for n, (c, ms) in enumerate(took_ms))
    )
    worst = {}
    for camera, ms in took_ms:
        worst[camera] = max(ms, worst.get(camera, 0.0))
    expected = sorted(worst.items(), key=lambda item: -item[1])[:4]

    assert [(slow.frame.camera, slow.frame.total_s * 1000) for slow in figures.slowest["normal"].frames()] == expected


def test_a_frame_of_a_client_tells_that_nothing_is_known(tmp_path):
    """Without times of arrival."""
    assert "does not tell what was ahead" in story(slowest(figures_of(tmp_path, record(at_s=None)), "normal"))[-1]
