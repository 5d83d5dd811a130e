"""How many pieces make a batch, who may join it, and what joining saves."""

from __future__ import annotations

import dataclasses

import pytest
from serve_samples import BUCKETS, HD, PORTRAIT, VGA, sample_frame, sample_latency, sample_plan

from engines.spec import CanvasShape
from engines.tiles import Window
from serve_app.batching import Piece, batch_size, gain_of_joining, neighbours
from serve_app.frames import Priority
from serve_app.lanes import Lane, Waiting
from serve_app.plan import DEFAULT_RULE, Bucket, Pool
from serve_app.routes import CALL_COST_S, RouteTable

LATENCY = sample_latency()
ROUTE = RouteTable(sample_plan(), LATENCY).routes(DEFAULT_RULE, VGA, Priority.NORMAL)[0]
NARROW, TALL, TINY = CanvasShape(480, 512), CanvasShape(512, 640), CanvasShape(448, 512)


def lane_with(num_waiting: int) -> Lane:
    """A lane in which so many frames wait."""
    lane = Lane(ROUTE.lane)
    for number in range(num_waiting):
        lane.add(Waiting(sample_frame(str(number)), (ROUTE,), 0), 0)
    return lane


@pytest.mark.parametrize(("num_waiting", "size"), [(1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (100, 4)])
def test_a_batch_is_the_largest_warmed_size_that_waits(num_waiting, size):
    """Never a size that the engine has not seen, never more than wait."""
    assert batch_size(ROUTE, lane_with(num_waiting), LATENCY, 9.0) == size


@pytest.mark.parametrize(
    ("time_left_s", "size"), [(9.0, 4), (0.028, 4), (0.0279, 2), (0.016, 2), (0.0159, 1), (0.001, 1), (-1.0, 1)]
)
def test_a_batch_lets_its_most_urgent_frame_be_on_time(time_left_s, size):
    """Company that would make it late is left behind; alone it goes in any case."""
    assert batch_size(ROUTE, lane_with(9), LATENCY, time_left_s) == size


def test_a_batch_is_no_larger_than_its_route_allows():
    """Routes end at the chunk: so do batches, however many wait."""
    short = dataclasses.replace(ROUTE, max_batch=2, ladder=(1, 2))

    assert batch_size(short, lane_with(9), LATENCY, 9.0) == 2


def test_neighbours_are_nearly_as_large_and_fit():
    """Canvases of the same model and pool, largest first: not larger on any side, and at most 1.3 times smaller."""
    odd = Bucket("odd", "full", "near", (TALL, NARROW, TINY), (1, 2))
    found = neighbours(sample_plan(buckets=(*BUCKETS, odd)))

    assert found["odd", TALL] == (("vga", VGA),)
    assert found["vga", VGA] == (("odd", NARROW),)
    assert found["odd", NARROW] == (("odd", TINY),)
    assert [found[place] for place in (("vga", PORTRAIT), ("hd", HD), ("odd", TINY))] == [(), (), ()]


@pytest.mark.parametrize(
    "other",
    [Bucket("odd", "light", "near", (NARROW,), (1, 2)), Bucket("odd", "full", "far", (NARROW,), (1, 2))],
    ids=["another model", "another pool"],
)
def test_what_another_engine_serves_is_no_neighbour(other):
    """However near its size is."""
    models = {"full": "f.onnx", "light": "l.onnx"}
    buckets = (*BUCKETS, other, Bucket("rest", "light", "near", (VGA,), (1,)))
    found = neighbours(sample_plan(models=models, buckets=buckets, pools=(Pool("near"), Pool("far"))))

    assert found["vga", VGA] == ()


@pytest.mark.parametrize(
    ("size", "joining", "gain_s"),
    [(1, 1, 0.009 + CALL_COST_S - 0.006), (2, 2, 0.014 + CALL_COST_S - 0.012), (1, 3, 0.020 + CALL_COST_S - 0.018)],
)
def test_joining_gains_what_two_batches_cost_more_than_one(size, joining, gain_s):
    """Seconds alone, with their call, less what the larger batch takes longer."""
    latency = sample_latency({("full", VGA): (0.010, 0.016, 0.028), ("full", NARROW): (0.009, 0.014, 0.026)})
    small = dataclasses.replace(ROUTE, canvas=NARROW)

    assert gain_of_joining(ROUTE, size, joining, small, latency) == pytest.approx(gain_s)


def test_joining_gains_nothing_where_batches_do_not():
    """On a device whose time is proportional the larger canvas costs more than the call saves."""
    latency = sample_latency({("full", VGA): (0.1, 0.2), ("full", TINY): (0.08, 0.16)})

    assert gain_of_joining(ROUTE, 1, 1, dataclasses.replace(ROUTE, canvas=TINY), latency) < 0


def test_a_piece_knows_its_window():
    """The whole frame has none."""
    windows = (Window(0, 0, 480, 640), Window(0, 576, 480, 640))
    frame, tiled = sample_frame("a"), dataclasses.replace(ROUTE, windows=windows)

    assert [Piece(frame, tiled, number).window for number in (0, 1)] == list(windows)
    assert Piece(frame, ROUTE, 0).window is None
