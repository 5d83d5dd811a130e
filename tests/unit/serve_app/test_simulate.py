"""The simulator: the production scheduler on a virtual clock."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_samples import (
    HD,
    NO_CALLS,
    VGA,
    exact_table,
    poisson_trace,
    sample_plan,
    sample_trace,
    simulated,
)

from serve_app.decisions import NOTHING, Arrival, Decisions, Expired
from serve_app.errors import InvalidPlanError
from serve_app.latency import LatencyModel
from serve_app.plan import CameraRule, Keep, Limits, Rung
from serve_app.routes import RouteTable
from serve_app.scheduler import Scheduler
from serve_app.simulation.failures import Failure
from serve_app.simulation.simulate import Simulation, SimulationError
from serve_app.simulation.simulated_calls import SimulatedCalls
from serve_app.simulation.simulation_run import OUTCOMES, VERDICTS
from serve_app.simulation.traces import CameraGroup, FleetSpec
from serve_app.verdicts import Outcome, VerdictKind


def outcomes(run) -> Counter:
    """Frames by how they ended."""
    return Counter(OUTCOMES[code - 1] for code in run.outcome.tolist())


def took_s(run):
    """Seconds from arrival to answer of each frame."""
    return run.end_s - run.trace.at_s


def test_a_lone_frame_takes_its_run_and_the_call():
    """Call, run, answer: nothing else takes time on an idle replica."""
    run = simulated(sample_plan(), sample_trace([1.0]), calls=SimulatedCalls(before_s=0.007, after_s=0.003))

    assert took_s(run).tolist() == pytest.approx([0.020])
    assert run.batches.start_s.tolist() == pytest.approx([1.007])
    assert run.end_of_work_s == pytest.approx(1.020)


def test_the_next_batch_is_fetched_while_one_runs():
    """The call of a staged batch costs no device time: three frames run back to back."""
    calls = SimulatedCalls(before_s=0.007, after_s=0.0)

    run = simulated(sample_plan(batches=(1,)), sample_trace([0.0, 0.0005, 0.009]), calls=calls)

    assert run.end_s.tolist() == pytest.approx([0.017, 0.027, 0.037])


def test_a_tick_gathers_what_happens_within_it():
    """Frames of one tick are decided about together, at its end: here one batch of four."""
    calls = SimulatedCalls(0.0, 0.0, tick_s=0.005)

    run = simulated(sample_plan(), sample_trace([0.001, 0.002, 0.003, 0.004]), calls=calls)

    assert run.sent_s.tolist() == pytest.approx([0.005] * 4)
    assert run.end_s.tolist() == pytest.approx([0.005 + 0.022] * 4)


@pytest.mark.parametrize("use", [0.5, 0.7, 0.85])
def test_the_wait_is_that_of_an_md1_queue(use):
    """Poisson arrivals, one device, fixed runs: Pollaczek-Khinchine gives the mean wait, use * s / (2 (1 - use))."""
    plan = sample_plan(batches=(1,), slo_s=(0.25, 600.0))

    run = simulated(plan, poisson_trace(use / 0.010, 20_000))

    assert outcomes(run) == {Outcome.FINISHED: 20_000}
    assert (took_s(run) - 0.010).mean() == pytest.approx(use * 0.010 / (2 * (1 - use)), rel=0.12)


def test_two_devices_serve_twice_as_much():
    """Saturated, n replicas finish n frames in one frame's time."""
    trace = sample_trace(np.arange(400) * 1e-4)
    plans = [sample_plan(replicas=num, batches=(1,), slo_s=(0.25, 600.0)) for num in (1, 2, 4)]

    assert [simulated(plan, trace).end_s.max() for plan in plans] == pytest.approx([4.0, 2.0, 1.0], rel=0.02)


def test_critical_frames_stay_fast_while_normal_ones_queue():
    """At one and a half times what the device can do critical frames wait for one running chunk, not for the queue."""
    rate_hz, critical_share = 1.5 / 0.010, 0.1
    plan = sample_plan(batches=(1,))
    trace = poisson_trace(rate_hz, 3000, critical=np.arange(0, 3000, round(1 / critical_share)))

    run = simulated(plan, trace)

    critical = trace.is_critical
    assert run.in_time[critical].all()
    # Its own run, the running one, and now and then another critical one before it.
    assert np.quantile(took_s(run)[critical], 0.99) <= 0.035
    assert 0.5 < run.in_time[~critical].mean() < 0.75
    assert np.nanquantile(took_s(run)[~critical & run.in_time], 0.5) > 0.2


def test_a_staged_critical_batch_overtakes_a_staged_normal_one():
    """The device takes turns as the real replica does: urgent first, the running one is never interrupted."""
    run = simulated(sample_plan(batches=(1,)), sample_trace([0.0, 0.001, 0.002], critical=[2]))

    assert run.end_s.tolist() == pytest.approx([0.010, 0.030, 0.020])


def test_the_same_seed_gives_the_same_run():
    """Scatter is drawn from the lots that are given."""
    plan = sample_plan(replicas=2)
    truth, trace = exact_table(plan, spread_fraction=0.2), poisson_trace(150.0, 1500)

    first, again, other = (simulated(plan, trace, truth=truth, seed=seed) for seed in (1, 1, 2))

    assert first.end_s.tolist() == again.end_s.tolist()
    assert first.end_s.tolist() != other.end_s.tolist()


def test_runs_scatter_as_the_table_says_and_never_below_half():
    """The spread of a table is the mean distance from its mean."""
    plan = sample_plan(batches=(1,), slo_s=(0.25, 600.0))

    run = simulated(plan, poisson_trace(20.0, 4000), truth=exact_table(plan, spread_fraction=0.3))

    ran_s = run.batches.ran_s
    assert ran_s.mean() == pytest.approx(0.010, rel=0.03)
    assert np.abs(ran_s - 0.010).mean() == pytest.approx(0.003, rel=0.08)
    assert ran_s.min() == pytest.approx(0.005)


def test_a_scheduler_that_begins_with_a_wrong_table_learns_the_true_times():
    """It believes in a machine ten times faster; what it observes mends that."""
    plan = sample_plan()
    wrong, truth = exact_table(plan, factor=0.1), exact_table(plan)
    believed = LatencyModel(wrong)

    Simulation(plan, Scheduler(plan, believed), LatencyModel(truth), lambda mean_s, _: mean_s, calls=NO_CALLS).run(
        poisson_trace(100.0, 2000)
    )

    assert believed.predict_s("yolo", VGA, 1) == pytest.approx(0.010, rel=0.01)


def test_a_dead_replica_loses_no_frame_whose_deadline_allows_another_try():
    """What it held comes back when the router learns of it, and goes to the other one."""
    plan = sample_plan(replicas=2, slo_s=(0.25, 30.0))
    calls = SimulatedCalls(before_s=0.002, after_s=0.001, detect_s=0.5, restart_s=2.0)

    run = simulated(plan, poisson_trace(120.0, 1200), calls=calls, failures=[Failure(3.0, "gpu")])

    assert outcomes(run) == {Outcome.FINISHED: 1200}
    lost = np.flatnonzero(run.batches.ran_s == 0)
    assert len(lost) >= 1  # at least the staged one never came to the device


def test_a_batch_on_a_dead_device_counts_only_what_it_ran():
    """And its frame is answered after detection, another run and nothing else."""
    calls = SimulatedCalls(0.0, 0.0, detect_s=0.3, restart_s=5.0)
    plan = sample_plan(replicas=2, batches=(1,), slo_s=(0.25, 30.0))

    run = simulated(plan, sample_trace([1.0]), calls=calls, failures=[Failure(1.004)])

    assert run.batches.ran_s.tolist() == pytest.approx([0.004, 0.010])
    assert run.end_s.tolist() == pytest.approx([1.314])


def test_frames_that_cannot_wait_for_the_restart_end_all_the_same():
    """No replica is left: each frame expires at its deadline or is given up; none is forgotten."""
    calls = SimulatedCalls(0.0, 0.0, detect_s=0.1, restart_s=50.0)

    run = simulated(sample_plan(), poisson_trace(50.0, 500), calls=calls, failures=[Failure(2.0)])

    ends = outcomes(run)
    assert ends.total() == 500
    assert ends[Outcome.FINISHED] == pytest.approx(100, abs=30)
    assert set(ends) <= {Outcome.FINISHED, Outcome.EXPIRED, Outcome.REJECTED, Outcome.FAILED}


def test_a_replaced_replica_serves_again():
    """After detection and restart the pool is whole."""
    calls = SimulatedCalls(0.0, 0.0, detect_s=0.1, restart_s=1.0)

    run = simulated(sample_plan(), sample_trace([0.0, 2.0, 3.0]), calls=calls, failures=[Failure(1.0), Failure(1.2)])

    assert outcomes(run) == {Outcome.FINISHED: 3}


def test_frames_that_a_newer_one_replaced_are_recorded():
    """A camera that keeps its latest only, at two and a half times what the device can do."""
    plan = sample_plan(canvases=(HD,), batches=(1,), cameras=(CameraRule("*", keep=Keep.LATEST),))

    run = simulated(plan, sample_trace(np.arange(300) * 0.012, slo_s=0.3, canvas=HD))

    ends = outcomes(run)
    assert ends[Outcome.FINISHED] == pytest.approx(300 * 0.012 / 0.030, abs=4)
    assert ends[Outcome.SUPERSEDED] == 300 - ends[Outcome.FINISHED]
    assert (run.batch[run.outcome == OUTCOMES.index(Outcome.SUPERSEDED) + 1] == -1).all()


def test_verdicts_and_rungs_are_recorded():
    """Under too much load frames go to the smaller canvas: admission's verdict and the rung that served them."""
    plan = sample_plan(canvases=(VGA, HD), batches=(1,), ladder=(Rung("yolo", VGA),))

    run = simulated(plan, sample_trace(np.arange(300) * 0.012, canvas=HD))

    kinds = Counter(VERDICTS[code - 1] for code in run.verdict.tolist())
    served = run.outcome == OUTCOMES.index(Outcome.FINISHED) + 1
    assert kinds[VerdictKind.DEGRADE] > 100
    assert set(run.rung.tolist()) == {0, 1}
    assert {run.batches.canvases[run.batches.canvas[row]] for row in run.batch[served & (run.rung == 1)]} == {VGA}
    assert {run.batches.canvases[run.batches.canvas[row]] for row in run.batch[served & (run.rung == 0)]} == {HD}


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(
    rates_hz=st.lists(st.floats(1, 120), min_size=1, max_size=3),
    slo_s=st.floats(0.02, 3.0),
    critical_share=st.floats(0, 1),
    num_replicas=st.integers(1, 3),
    fails_s=st.lists(st.floats(0, 4), max_size=4),
    spread=st.floats(0, 0.5),
    belief=st.floats(0.2, 5.0),
)
def test_every_frame_has_exactly_one_end(rates_hz, slo_s, critical_share, num_replicas, fails_s, spread, belief):
    """Whatever fleet, deadlines, failures and however wrong the beliefs; and no device runs two batches at once."""
    sizes = ((480, 640), (720, 1280), (400, 500))
    groups = tuple(
        CameraGroup(f"g{index}", 1, size, rate_hz, critical_share, slo_s, slo_s)
        for index, (rate_hz, size) in enumerate(zip(rates_hz, sizes, strict=False))
    )
    trace = FleetSpec(groups, duration_s=3.0).at_load(1.0)
    plan = sample_plan(
        replicas=num_replicas, canvases=(VGA, HD), limits=Limits(max_waiting_frames=40), ladder=(Rung("yolo", VGA),)
    )
    calls = SimulatedCalls(0.004, 0.002, detect_s=0.2, restart_s=0.7)

    run = simulated(
        plan, trace, truth=exact_table(plan, spread_fraction=spread), believed=exact_table(plan, factor=belief),
        calls=calls, failures=[Failure(at_s) for at_s in fails_s],
    )  # fmt: skip

    assert outcomes(run).total() == len(trace)
    assert (run.end_s >= run.trace.at_s).all()
    began, ended = run.batches.start_s, run.batches.start_s + run.batches.ran_s
    moments = began[~np.isnan(began)] + 1e-9
    assert all(((began <= moment) & (moment < ended)).sum() <= num_replicas for moment in moments)


class Broken:
    """A policy that lets every frame in; subclasses break one promise."""

    def arrived(self, frame):
        """Everyone may come in."""
        self.frame = frame
        return Arrival(Scheduler(sample_plan()).arrived(frame).verdict)

    def decide(self, now_s):  # noqa: ARG002 (of the protocol)
        """Nothing ever happens."""
        return NOTHING

    def next_wake_s(self):
        """Never."""

    def replicas_ready(self, pool, replicas):
        """All the same."""


class Forgetful(Broken):
    """Forgets its frames."""


class Stubborn(Broken):
    """Wants to be woken now."""

    def next_wake_s(self):
        """At once, again."""
        return self.frame.arrived_s


class Twice(Broken):
    """Lets a frame expire again and again."""

    def decide(self, now_s):  # noqa: ARG002 (of the protocol)
        """Expired."""
        frame = self.frame
        (route,) = RouteTable(sample_plan(), LatencyModel()).routes(CameraRule("*"), frame.size_hw, frame.priority)
        return Decisions((), (Expired(frame, route),) * 2)


@pytest.mark.parametrize(
    ("policy", "says"),
    [(Forgetful(), "1 of 1 frames came to no end"), (Stubborn(), "asks to be woken"), (Twice(), "ended twice")],
    ids=lambda value: type(value).__name__,
)
def test_a_policy_that_breaks_a_promise_is_told(policy, says):
    """A frame without an end, a clock that stands, a frame that ends twice."""
    plan = sample_plan()
    simulation = Simulation(plan, policy, LatencyModel(exact_table(plan)), lambda mean_s, _: mean_s)

    with pytest.raises(SimulationError, match=says):
        simulation.run(sample_trace([1.0]))


@pytest.mark.parametrize(
    ("failure", "says"),
    [(Failure(1.0, "cpu"), "allowed are those of the plan: gpu"), (Failure(-1.0), "0 or more")],
    ids=["unknown pool", "before the begin"],
)
def test_failures_are_checked(failure, says):
    """They name a pool of the plan and a moment of the trace."""
    with pytest.raises(InvalidPlanError, match=says):
        simulated(sample_plan(), sample_trace([1.0]), failures=[failure])


def test_calls_take_no_negative_time():
    """A typing slip, told with its name."""
    with pytest.raises(InvalidPlanError, match="after_s: got -1"):
        SimulatedCalls(after_s=-1.0)


def test_frames_that_the_router_would_refuse_are_told_before_anything_runs():
    """Larger than the plan's limit."""
    plan = sample_plan(limits=Limits(max_frame_px=1000))

    with pytest.raises(InvalidPlanError, match="480x640 px, allowed are 1,000 px"):
        simulated(plan, sample_trace([1.0]))
