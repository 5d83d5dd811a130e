"""The ways a frame can be served, and what each costs."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serve_samples import HD, PORTRAIT, RULES, RUN_S, UHD, VGA, ladder_plan, sample_latency, sample_plan

from engines.spec import CanvasShape
from engines.tiles import tile_windows
from serve_app.frames import Priority
from serve_app.lane_key import LaneClass, LaneKey
from serve_app.latency import LatencyModel
from serve_app.plan import DEFAULT_RULE, Bucket, CameraRule, Pool, Rung, Scheduling
from serve_app.route import Route
from serve_app.routes import CALL_COST_S, TILE_OVERLAP_PX, WORTH_DEGRADING, RouteTable

LATEST, TILE, REJECT, FIRM = RULES
NORMAL, CRITICAL = Priority.NORMAL, Priority.CRITICAL


def routes_of(size_hw, rule=DEFAULT_RULE, priority=NORMAL, *, plan=None, latency=None) -> tuple[Route, ...]:
    """The routes of a frame in the plan with a ladder."""
    return RouteTable(plan or ladder_plan(), latency or sample_latency()).routes(rule, tuple(size_hw), priority)


def in_short(routes: tuple[Route, ...]) -> list[tuple[int, str, CanvasShape, int]]:
    """Of each route its rung, model, canvas and number of pieces."""
    return [(route.rung, route.model, route.canvas, route.num_pieces) for route in routes]


def as_dicts(routes: tuple[Route, ...]) -> list[dict[str, object]]:
    """Routes as values: they themselves are compared by identity."""
    return [dataclasses.asdict(route) for route in routes]


def test_a_route_says_who_serves_what_at_which_price():
    """Of a VGA frame without a ladder: four at a time are the cheapest."""
    assert as_dicts(routes_of(VGA, plan=sample_plan())) == as_dicts(
        (
            Route(
                rung=0, lane=LaneKey("vga", VGA, LaneClass.NORMAL), pool="near", bucket="vga", model="full", canvas=VGA,
                windows=(), shrunk=False, num_pieces=1, alone_s=0.010, own_s=0.010,
                piece_s=(0.028 + CALL_COST_S) / 4, work_s=(0.028 + CALL_COST_S) / 4, max_batch=4, ladder=(1, 2, 4),
            ),
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("size_hw", "expected"),
    [
        (VGA, [(0, "full", VGA, 1), (2, "light", VGA, 1)]),
        (HD, [(0, "full", HD, 1), (1, "full", VGA, 1), (2, "light", VGA, 1)]),
        (UHD, [(0, "full", UHD, 1), (1, "full", VGA, 1), (2, "light", VGA, 1)]),
        (PORTRAIT, [(0, "full", PORTRAIT, 1), (2, "light", VGA, 1)]),
    ],
    ids=str,
)
@pytest.mark.parametrize("priority", [NORMAL, CRITICAL])
def test_routes_stand_dearest_first_and_rungs_that_save_nothing_are_left_out(size_hw, expected, priority):
    """A VGA frame has nothing to gain from the rung that caps canvases at VGA."""
    assert in_short(routes_of(size_hw, priority=priority)) == expected


def test_a_camera_that_must_not_degrade_has_one_route():
    """Its own model at the frame's own size, or nothing."""
    assert in_short(routes_of(HD, FIRM)) == [(0, "full", HD, 1)]


def test_a_camera_with_its_own_model_begins_there():
    """The ladder's dearer models are no step down from a light one."""
    assert in_short(routes_of(VGA, CameraRule("*", "light"))) == [(0, "light", VGA, 1)]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (DEFAULT_RULE, [(0, "full", UHD, 1), (1, "full", VGA, 1), (2, "light", VGA, 1)]),
        (REJECT, []),
        (TILE, [(0, "full", UHD, 9), (1, "full", VGA, 1), (2, "light", VGA, 1)]),
    ],
    ids=["shrink", "reject", "tile"],
)
def test_a_frame_larger_than_every_canvas_follows_its_cameras_rule(rule, expected):
    """4K on canvases up to full HD; tiled even when critical, as its camera asks."""
    plan = ladder_plan(pools=(Pool("near"), Pool("far")), scheduling=Scheduling(max_chunk_s=0.1))
    latency = sample_latency(RUN_S | {("full", VGA): (0.050, 0.100, 0.200), ("full", PORTRAIT): (0.050, 0.100, 0.200),
                                      ("full", HD): (0.099, 0.198)})  # fmt: skip

    for priority in (NORMAL, CRITICAL):
        routes = routes_of((2160, 3840), rule, priority, plan=plan, latency=latency)
        assert in_short(routes) == expected
    if expected:
        assert routes[0].shrunk is (rule is DEFAULT_RULE)
        assert [route.shrunk for route in routes[1:]] == [True, True]


def test_frames_that_fit_are_not_touched_by_the_oversize_rule():
    """Not rejected, not cut."""
    assert in_short(routes_of(UHD, REJECT)) == in_short(routes_of(UHD, TILE)) == in_short(routes_of(UHD))


def test_tiles_are_cut_for_the_cheapest_canvas_no_longer_than_a_chunk():
    """HD tiles cost less than VGA ones here; with a shorter chunk only small tiles are left."""
    size_hw = (2160, 3840)
    by_chunk = {}
    for max_chunk_s in (0.05, 0.02):
        plan = ladder_plan(scheduling=Scheduling(max_chunk_s=max_chunk_s))
        route = routes_of(size_hw, TILE, plan=plan, latency=sample_latency(RUN_S | {("full", HD): (0.02001, 0.03)}))[0]
        by_chunk[max_chunk_s] = route.canvas
        assert route.windows == tile_windows(size_hw, route.canvas, TILE_OVERLAP_PX)

    assert by_chunk == {0.05: HD, 0.02: PORTRAIT}


def test_a_normal_frame_longer_than_a_chunk_is_tiled_though_it_fits():
    """Critical ones pass between its tiles. A critical one itself runs whole."""
    plan = ladder_plan(scheduling=Scheduling(max_chunk_s=0.05))

    assert in_short(routes_of(UHD, FIRM, plan=plan)) == [(0, "full", PORTRAIT, 10)]
    assert in_short(routes_of(UHD, FIRM, CRITICAL, plan=plan)) == [(0, "full", UHD, 1)]


def test_a_long_frame_runs_whole_where_tiles_cost_far_more_or_are_long_themselves():
    """The whole frame is the lesser evil then."""
    plan = ladder_plan(scheduling=Scheduling(max_chunk_s=0.05))
    dear = sample_latency(RUN_S | {("full", HD): (0.0499, 0.1), ("full", VGA): (0.04,), ("full", PORTRAIT): (0.04,)})
    long = sample_latency(RUN_S | {("full", HD): (0.06, 0.1), ("full", VGA): (0.055,), ("full", PORTRAIT): (0.055,)})

    for latency in (dear, long):
        assert in_short(routes_of((1080, 1700), FIRM, plan=plan, latency=latency))[0] == (0, "full", UHD, 1)


def test_batches_shrink_with_the_chunk():
    """The ladder ends at the largest batch that is no longer than a chunk; one frame alone is always allowed."""
    ladders = {}
    for max_chunk_s in (0.1, 0.028, 0.027, 0.016, 0.015, 0.001):
        plan = sample_plan(scheduling=Scheduling(max_chunk_s=max_chunk_s))
        ladders[max_chunk_s] = routes_of(VGA, priority=CRITICAL, plan=plan)[0].ladder

    assert ladders == {0.1: (1, 2, 4), 0.028: (1, 2, 4), 0.027: (1, 2), 0.016: (1, 2), 0.015: (1,), 0.001: (1,)}


def test_batches_that_cost_more_than_smaller_ones_are_not_formed():
    """On a device that gains nothing from company, and loses with too much of it."""
    latency = sample_latency({("full", VGA): (0.010, 0.019, 0.060)})
    route = routes_of(VGA, plan=sample_plan(), latency=latency)[0]

    assert (route.max_batch, route.ladder, route.piece_s) == (2, (1, 2), pytest.approx((0.019 + CALL_COST_S) / 2))


def test_routes_are_remembered_until_they_are_refreshed():
    """Latencies move all the time; prices are looked at again when told."""
    latency = sample_latency()
    table = RouteTable(ladder_plan(), latency)
    before = table.routes(DEFAULT_RULE, VGA, NORMAL)
    for _ in range(200):
        latency.observe("full", VGA, 1, 0.02)
    same = table.routes(DEFAULT_RULE, VGA, NORMAL)
    table.refresh(0.0)
    after = table.routes(DEFAULT_RULE, VGA, NORMAL)

    assert same is before
    assert (before[0].alone_s, after[0].alone_s) == (0.010, pytest.approx(0.02, rel=0.05))


def test_a_camera_has_the_rule_of_the_plan():
    """Asked once or twice, by any number of cameras."""
    table = RouteTable(ladder_plan(), sample_latency())

    for _ in range(2):
        assert [table.rule_of(name) for name in ("tile-1", "gate-1", "latest-")] == [TILE, DEFAULT_RULE, LATEST]


sides = st.integers(1, 30).map(lambda n: 32 * n)


@given(
    canvases=st.lists(st.builds(CanvasShape, sides, sides), min_size=1, max_size=4, unique=True),
    size_hw=st.tuples(st.integers(8, 1500), st.integers(8, 1500)),
    rule=st.sampled_from([DEFAULT_RULE, *RULES]),
    priority=st.sampled_from(Priority),
    max_chunk_s=st.floats(0.001, 0.2),
    speeds=st.lists(st.floats(0.5, 50), min_size=4, max_size=4),
)
@settings(derandomize=True, database=None, deadline=None)
def test_routes_are_sound_for_any_sizes_and_speeds(canvases, size_hw, rule, priority, max_chunk_s, speeds):
    """Each clearly cheaper than the one before, on warmed sizes no longer than a chunk, tiles covering the frame."""
    batches = (1, 2, 4)
    buckets = (
        Bucket("a", "full", "near", tuple(canvases), batches),
        Bucket("b", "light", "near", tuple(canvases[:1]), batches),
    )
    latency = LatencyModel()
    for canvas, speed in zip(canvases, speeds, strict=False):
        latency.observe("full", canvas, 1, canvas.num_px * speed * 1e-8)
    latency.observe("light", canvases[0], 2, canvases[0].num_px * 1e-8)
    plan = ladder_plan(
        pools=(Pool("near"),), buckets=buckets, ladder=(Rung("full", canvases[0]), Rung("light")),
        scheduling=Scheduling(max_chunk_s=max_chunk_s),
    )  # fmt: skip
    routes = routes_of(size_hw, rule, priority, plan=plan, latency=latency)
    holding = [c for c in canvases if c.height >= size_hw[0] and c.width >= size_hw[1]]

    assert bool(routes) is bool(holding or rule is not REJECT)
    for route in routes:
        assert route.ladder[0] == 1
        assert route.ladder[-1] == route.max_batch
        assert set(route.ladder) <= set(batches)
        for batch in route.ladder[1:]:
            assert latency.predict_s(route.model, route.canvas, batch) <= max_chunk_s
        assert route.alone_s == latency.predict_s(route.model, route.canvas, 1)
        assert route.windows == () or route.windows == tile_windows(size_hw, route.canvas, TILE_OVERLAP_PX)
        fits = route.canvas.height >= size_hw[0] and route.canvas.width >= size_hw[1]
        assert route.shrunk is (not fits and not route.windows)
    costs = [route.piece_s * route.num_pieces for route in routes]
    assert all(after < WORTH_DEGRADING * before for before, after in pairwise(costs))
    assert [route.rung for route in routes] == sorted({route.rung for route in routes})
    assert len(routes) <= (1 if rule is FIRM else 3)
