"""The figures of a simulation, its tables and its pictures."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console
from simulated_samples import FOUR_VGA, HD, VGA, exact_table, poisson_trace, sample_plan, sample_trace, simulated

from serve_app.latency import LatencyModel
from serve_app.plan import Rung, Scheduling
from serve_app.simulation.failures import Failure
from serve_app.simulation.simulated_calls import SimulatedCalls
from serve_app.simulation.simulation_plots import save_plots
from serve_app.simulation.simulation_report import offered_use, report
from serve_app.simulation.simulation_table import class_table, ends_table, pool_table, summary_line, sweep_table
from serve_app.simulation.traces import CameraGroup, FleetSpec


def reported(plan, trace, load=1.0, **options):
    """The report of one run."""
    run = simulated(plan, trace, **options)
    return report(run, offered_use=offered_use(plan, trace, LatencyModel(exact_table(plan))), load=load)


def overloaded(load=1.0):
    """Critical, normal and deferred frames, more than one device can do."""
    groups = (
        CameraGroup("gate", 6, (480, 640), 10.0, critical_share=0.2),
        CameraGroup("belt", 4, (720, 1280), 10.0),
    )
    plan = sample_plan(canvases=(VGA, HD), ladder=(Rung("yolo", VGA),), scheduling=Scheduling(defer_above_px=500_000))
    return plan, FleetSpec(groups, duration_s=6.0).at_load(load)


def printed(*renderables) -> str:
    """What a terminal of 80 columns shows."""
    console = Console(file=io.StringIO(), width=80)
    console.print(*renderables, sep="\n")
    return console.file.getvalue()


def test_figures_of_four_frames_that_can_be_worked_out_by_hand():
    """10 ms each on one device: two normal, a critical one that overtakes, and one that nobody could do in time."""
    trace = sample_trace([0.0, 0.001, 0.002, 0.1], slo_s=[0.5, 0.5, 0.5, 0.005], critical=[2], duration_s=0.5)

    figures = reported(sample_plan(batches=(1,)), trace)

    critical, normal = figures.classes
    assert (critical.name, critical.num_frames, critical.in_time_fraction) == ("critical", 1, 1.0)
    assert critical.latency_s(0.5) == pytest.approx(0.018)
    assert critical.slos_s == (0.5,)
    assert (normal.name, normal.num_frames, normal.outcomes) == ("normal", 3, {"finished": 3})
    assert normal.in_time_fraction == pytest.approx(2 / 3)
    assert [normal.latency_s(share) for share in (0.0, 1.0)] == pytest.approx([0.010, 0.029])
    assert normal.slos_s == (0.005, 0.5)
    assert figures.goodput_hz == pytest.approx(3 / 0.5)
    assert figures.offered_use == pytest.approx(4 * 0.010 / 0.5)
    pool = figures.pools[0]
    assert (pool.num_batches, pool.batch_counts, pool.use_fraction) == (4, {1: 4}, pytest.approx(4 * 0.010 / 0.5))


def test_padding_is_weighted_by_pixels():
    """A third of the canvas's pixels is not the frame's own."""
    trace = sample_trace([0.0, 1.0], canvas=(320, 640))

    assert reported(sample_plan(), trace).padding_fraction == pytest.approx(1 / 3)


def test_tiles_count_with_their_own_pixels():
    """A frame in overlapping tiles (two by two of 480×640 that share 64 px) fills each of them."""
    plan = sample_plan(canvases=(VGA, FOUR_VGA), scheduling=Scheduling(max_chunk_s=0.02))
    trace = sample_trace([0.0, 1.0], canvas=FOUR_VGA)

    run = simulated(plan, trace)

    assert run.is_tiled.all()
    figures = report(run, offered_use=0.0)
    assert figures.padding_fraction == pytest.approx(0.0)
    assert figures.class_named("deferred").outcomes == {"finished": 2}


def test_classes_add_up():
    """Every frame is in one class, with one verdict and one outcome."""
    plan, trace = overloaded()

    figures = reported(plan, trace)

    assert sum(each.num_frames for each in figures.classes) == len(trace)
    for each in figures.classes:
        assert sum(each.outcomes.values()) == each.num_frames
        assert sum(each.verdicts.values()) == each.num_frames
    assert figures.goodput_hz == pytest.approx(sum(each.goodput_hz for each in figures.classes))
    pool = figures.pools[0]
    assert sum(pool.batch_counts.values()) == pool.num_batches
    assert figures.mean_batch == pool.mean_batch
    assert 0.8 < pool.use_fraction <= 1.0


def test_the_queue_is_as_deep_as_littles_law_says():
    """Mean number that wait is rate times mean wait; here an M/D/1 queue."""
    plan = sample_plan(batches=(1,), slo_s=(0.25, 600.0))
    trace = poisson_trace(80.0, 8000)

    run = simulated(plan, trace)
    figures = report(run, offered_use=0.0)

    # One running and one staged have left the lane, so fewer wait than are here.
    here = 80.0 * (run.end_s - trace.at_s).mean()
    depth = np.mean(figures.queue.depths["normal"])
    assert here - 2 < depth < here - 0.9
    assert figures.queue.depths["normal"][-1] == 0


def test_device_use_of_a_dead_replica_ends_with_it():
    """Its batch counts up to its death."""
    plan = sample_plan(batches=(1,), slo_s=(0.25, 30.0))
    calls = SimulatedCalls(0.0, 0.0, detect_s=0.5, restart_s=0.5)

    figures = reported(
        plan, sample_trace([0.0], duration_s=1.0), calls=calls, failures=[Failure(0.004)]
    )  # fmt: skip

    assert figures.pools[0].use_fraction == pytest.approx(0.004)  # the second run comes after the cameras' last frame


def test_offered_use_takes_each_frame_in_its_best_batch():
    """Four frames of 640x480 together take 22 ms: 5.5 ms each, on two devices."""
    plan = sample_plan(replicas=2)

    use = offered_use(plan, sample_trace([0.0] * 100, duration_s=1.0), LatencyModel(exact_table(plan)))

    assert use == pytest.approx(100 * 0.0055 / 2)


def test_tables_fit_into_a_terminal_and_name_what_happened():
    """80 columns, as the demo's."""
    plan, trace = overloaded()
    figures = reported(plan, trace)

    text = printed(summary_line(figures), class_table(figures), ends_table(figures), pool_table(figures))
    sweep = printed(sweep_table([figures, figures]))

    for word in ("critical", "deferred", "p99 ms", "lower rung", "finished", "degrade", "mean batch", "padding"):
        assert word in text
    assert "…" not in text + sweep
    assert len(sweep.splitlines()) == 3
    assert max(map(len, sweep.splitlines())) <= 80


def test_the_report_is_json():
    """With percentiles in milliseconds, and nothing that JSON has not."""
    plan, trace = overloaded()
    figures = reported(plan, trace)

    content = json.loads(json.dumps(figures.as_json(), allow_nan=False))

    critical = content["classes"][0]
    assert critical["p99_ms"] == pytest.approx(figures.classes[0].latency_s(0.99) * 1000, abs=1e-3)
    assert critical["p50_ms"] <= critical["p95_ms"] <= critical["p99_ms"]
    assert set(content["queue"]["depths"]) == {each["name"] for each in content["classes"]}


def test_a_class_of_which_nothing_finished_has_no_latency():
    """The only replica is dead from the begin."""
    calls = SimulatedCalls(0.0, 0.0, detect_s=0.0, restart_s=100.0)

    figures = reported(sample_plan(), sample_trace([1.0, 1.1]), calls=calls, failures=[Failure(0.0)])

    assert figures.classes[0].latency_s(0.99) is None
    assert figures.classes[0].in_time_fraction == 0
    assert "–" in printed(class_table(figures))
    assert json.dumps(figures.as_json(), allow_nan=False)


def test_pictures_of_one_run_and_of_a_sweep(tmp_path):
    """PNGs with something on them; a run without any answer can be drawn too."""
    cv2 = pytest.importorskip("cv2")
    pytest.importorskip("matplotlib")
    reports = [reported(*overloaded(load), load=load) for load in (0.5, 1.0)]

    one = save_plots(tmp_path / "one", reports[:1], "a test")
    sweep = save_plots(tmp_path / "sweep", reports, "a test")

    assert [path.name for path in (*one, *sweep)] == ["latency.png", "queue.png", "batches.png", "sweep.png"]
    for path in (*one, *sweep):
        picture = cv2.imread(str(path))
        assert picture.shape[1] > 1000
        assert picture.std() > 10
