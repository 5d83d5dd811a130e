"""Pools that grow and shrink on the virtual clock, with the scaler that serves."""

from __future__ import annotations

import dataclasses
import itertools
import random

import numpy as np
import pytest
from simulated_samples import HD, NO_CALLS, VGA, exact_table, sample_plan, sample_trace

from serve_app.autoscaling import Autoscaling
from serve_app.errors import InvalidPlanError
from serve_app.latency import LatencyModel
from serve_app.plan import Pool, Scheduling
from serve_app.routes import CALL_COST_S
from serve_app.scheduler import Scheduler
from serve_app.simulation.failures import Failure
from serve_app.simulation.simulate import Simulation
from serve_app.simulation.simulated_scaling import SimulatedScaling, offered_work
from serve_app.simulation.simulation_report import offered_use, report
from serve_app.verdicts import Outcome

# A frame, always alone in its batch, as the scheduler counts it.
SLOWER = 4.0
PIECE_S = SLOWER * 0.030 + CALL_COST_S
START_UP_S = 20.0


def growing_plan(*, least=1, most=8, rules=None, **changes):
    """One pool that may grow; normal frames have four seconds."""
    plan = sample_plan(autoscaling=rules or Autoscaling(), canvases=(HD,), batches=(1,), slo_s=(1.0, 4.0), **changes)
    return dataclasses.replace(plan, pools=(Pool("gpu", least, max_replicas=most),))


def camera_times(load, seconds, seed=0):
    """When frames come that ask for `load(t)` device seconds a second, shifted a little each, as cameras do."""
    times_s = np.linspace(0, seconds, 20_001)
    summed = np.concatenate([[0.0], np.cumsum(load((times_s[1:] + times_s[:-1]) / 2) * np.diff(times_s))]) / PIECE_S
    shift = np.random.default_rng(seed).uniform(-0.4, 0.4, int(summed[-1]))
    return np.sort(np.interp(np.arange(len(shift)) + 0.5 + shift, summed, times_s))


def played(plan, trace, *, start_up_s=START_UP_S, failures=(), spread_fraction=0.1):
    """A run with growing pools: what became of it, and how the sizes went."""
    table = exact_table(plan, factor=SLOWER, spread_fraction=spread_fraction)
    scheduler = Scheduler(plan, LatencyModel(table))
    scaling = SimulatedScaling(plan, scheduler.loads, start_up_s=start_up_s)
    simulation = Simulation(
        plan, scheduler, LatencyModel(table), random.Random(0).gauss, calls=NO_CALLS, failures=failures,
        scaling=scaling,
    )  # fmt: skip
    return simulation.run(trace), scaling.figures(trace, LatencyModel(table))


def steps(seconds):
    """0.68 device seconds a second, in the middle four times as many."""
    return camera_times(lambda at_s: np.where((at_s >= seconds / 4) & (at_s < 3 * seconds / 4), 2.72, 0.68), seconds)


def sine(seconds, period_s):
    """Between 0.7 and 3.9."""
    return camera_times(lambda at_s: 2.3 + 1.6 * np.sin(2 * np.pi * at_s / period_s), seconds)


def day(seconds):
    """Quiet at night, three replicas' worth at noon."""
    return camera_times(lambda at_s: 0.2 + 2.8 * np.sin(np.pi * at_s / seconds) ** 2, seconds)


# With replicas that take 20 s to start, and a calm of 60 s unless it says otherwise.
@pytest.mark.parametrize(
    ("times_s", "rules"),
    [
        pytest.param(steps(1200), Autoscaling(), id="steps"),
        pytest.param(sine(1200, 600), Autoscaling(), id="sine of ten minutes"),
        pytest.param(sine(1200, 120), Autoscaling(down_after_s=20), id="sine of two minutes, calm of 20 s"),
        pytest.param(day(1200), Autoscaling(), id="day of twenty minutes"),
    ],
)
def test_replica_seconds_are_within_a_fifth_of_the_clairvoyant_optimum(times_s, rules):
    """Of the least with which one who knows the future serves the same work as little loaded as the plan wants."""
    plan = growing_plan(rules=rules)

    run, figures = played(plan, sample_trace(times_s, canvas=HD))

    sizes = figures["gpu"]
    assert 0.8 <= sizes.ratio <= 1.2
    assert sizes.replica_s == pytest.approx(sizes.mean * run.trace.duration_s)
    assert 1 <= sizes.least <= sizes.most <= 8


def test_a_step_from_once_to_four_times_is_served_within_fifteen_seconds_and_the_start():
    """From then on every frame is in time; the pool comes back after the calm."""
    plan = growing_plan(most=4)

    run, figures = played(plan, sample_trace(steps(1200), canvas=HD))

    sizes = figures["gpu"]
    grown_s = next(at_s for at_s, size in zip(sizes.times_s, sizes.sizes, strict=True) if size == 4)
    assert 300 < grown_s <= 300 + 15
    later = run.trace.at_s > grown_s + START_UP_S + 5
    assert run.in_time[later].all()
    shrunk_s = sizes.times_s[-1]
    assert sizes.sizes[-1] == 1
    assert 900 + 60 <= shrunk_s <= 900 + 60 + 20


def test_critical_frames_are_in_time_while_replicas_start():
    """The cold start hurts none of them: others wait, or are refused."""
    times_s = steps(1200)
    plan = growing_plan(most=4)

    run, _ = played(plan, sample_trace(times_s, canvas=HD, critical=range(0, len(times_s), 10)))

    assert run.in_time[run.trace.is_critical].all()
    assert not run.in_time.all()


@pytest.mark.parametrize("period_s", [10, 40])
def test_a_sine_shorter_than_the_calm_settles(period_s):
    """At what its crest wants; nothing changes any more."""
    _, figures = played(growing_plan(), sample_trace(sine(600, period_s), canvas=HD))

    sizes = figures["gpu"]
    assert [at_s for at_s in sizes.times_s if at_s > 240] == []
    assert sizes.sizes[-1] >= 4


def test_a_pool_for_deferred_frames_starts_from_none_and_goes_back():
    """They wait through the cold start, and all are served by their deadline."""
    plan = dataclasses.replace(
        growing_plan(scheduling=Scheduling(defer_above_px=500_000)),
        pools=(Pool("gpu", 0, max_replicas=2),),
    )
    trace = sample_trace([100.0 + 0.2 * number for number in range(50)], canvas=HD, slo_s=60.0, duration_s=300.0)

    run, figures = played(plan, trace)

    assert run.in_time.all()
    sizes = figures["gpu"]
    assert (sizes.sizes[:2], sizes.sizes[-1]) == ((0, 1), 0)
    assert 100 <= sizes.times_s[1] <= 100.5
    assert sizes.clairvoyant_s <= sizes.replica_s


def test_a_replica_that_is_given_up_runs_what_it_holds():
    """Nothing is lost as a pool shrinks under load."""
    rules = Autoscaling(down_after_s=5.0)
    run, figures = played(growing_plan(rules=rules), sample_trace(sine(600, 60), canvas=HD), start_up_s=2.0)

    sizes = figures["gpu"].sizes
    assert sum(after < before for before, after in itertools.pairwise(sizes)) > 5
    assert np.isin(run.outcome, [1 + list(Outcome).index(o) for o in (Outcome.FINISHED, Outcome.REJECTED)]).all()
    assert (run.batches.ran_s > 0).all()


def test_replicas_that_die_are_replaced_and_change_nothing_else():
    """The pool keeps its size: another one is on its way."""
    failures = [Failure(60.0, "gpu"), Failure(61.0, "gpu")]
    constant = camera_times(lambda at_s: 2.0 + 0 * at_s, 300)

    run, figures = played(growing_plan(), sample_trace(constant, canvas=HD), failures=failures)

    assert figures["gpu"].sizes in [(1, 3), (1, 2, 3)]
    assert run.in_time[run.trace.at_s > 100].all()


def test_starts_that_are_no_longer_wanted_are_given_up_first():
    """A load that ends before its replicas are warm: the one that serves stays."""
    rules = Autoscaling(down_after_s=5.0)
    short = camera_times(lambda at_s: np.where((at_s > 20) & (at_s < 30), 3.0, 0.3), 200)

    run, figures = played(growing_plan(rules=rules), sample_trace(short, canvas=HD), start_up_s=120.0)

    assert figures["gpu"].most >= 4
    assert figures["gpu"].sizes[-1] == 1
    assert run.in_time[run.trace.at_s > 40].all()


def test_the_report_tells_how_sizes_went_in_numbers_for_people_and_for_json():
    """Use is that of the replicas that there were; a pool that keeps its size has no such figures."""
    plan = growing_plan(most=4)
    trace = sample_trace(steps(600), canvas=HD)
    run, figures = played(plan, trace)

    use = offered_use(plan, trace, LatencyModel(exact_table(plan, factor=SLOWER)))
    grown, fixed = report(run, offered_use=use, scaling=figures), report(run, offered_use=use)

    (pool,) = grown.pools
    assert pool.scaling == figures["gpu"]
    assert pool.use_fraction == pytest.approx(fixed.pools[0].use_fraction * 600 / figures["gpu"].replica_s, rel=1e-3)
    (as_json,) = grown.as_json()["pools"]
    assert as_json["scaling"]["ratio"] == figures["gpu"].ratio
    assert "scaling" not in fixed.as_json()["pools"][0]


def test_offered_work_is_each_frames_first_route():
    """What the clairvoyant is told is what the scheduler's counter came to."""
    plan = growing_plan(most=4)
    trace = sample_trace(steps(60), canvas=HD)
    scheduler = Scheduler(plan, LatencyModel(exact_table(plan, factor=SLOWER)))
    scaling = SimulatedScaling(plan, scheduler.loads, start_up_s=1.0)
    Simulation(
        plan,
        scheduler,
        LatencyModel(exact_table(plan, factor=SLOWER)),
        random.Random(0).gauss,
        calls=NO_CALLS,
        scaling=scaling,
    ).run(trace)

    ((name, (at_s, work_s)),) = offered_work(plan, trace, LatencyModel(exact_table(plan, factor=SLOWER))).items()

    assert name == "gpu"
    assert np.array_equal(at_s, trace.at_s)
    assert work_s.sum() == pytest.approx(scheduler.loads()["gpu"].offered_s, rel=0.02)
    assert work_s[0] == pytest.approx(PIECE_S)


@pytest.mark.parametrize("start_up_s", [-1.0, float("inf"), float("nan")])
def test_a_start_that_no_replica_takes_is_refused(start_up_s):
    """With what is allowed."""
    plan = growing_plan()

    with pytest.raises(InvalidPlanError, match="allowed are seconds of 0 or more"):
        SimulatedScaling(plan, Scheduler(plan).loads, start_up_s=start_up_s)


def test_a_plan_without_pools_that_grow_is_refused():
    """There is nothing to see."""
    plan = sample_plan(canvases=(VGA,))

    with pytest.raises(InvalidPlanError, match="no pool with max_replicas"):
        SimulatedScaling(plan, Scheduler(plan).loads)
