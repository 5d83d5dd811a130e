"""Replicas that hang or become slow, on the virtual clock: what the production scheduler makes of it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from simulated_samples import NO_CALLS, poisson_trace, sample_plan, simulated

from serve_app.cli.simulate import _failures
from serve_app.errors import FramelaneError, InvalidPlanError
from serve_app.overdue import LATE_GRACE_S, OVERDUE_FLOOR_S
from serve_app.simulation.failures import Failure, FailureKind
from serve_app.simulation.simulated_calls import DEFAULT_STUCK_S
from serve_app.simulation.simulation_run import OUTCOMES
from serve_app.verdicts import Outcome

# Between two frames of the trace, so that one is with the replica.
FAILS_S = 2.0


def outcomes(run) -> Counter:
    """Frames by how they ended."""
    return Counter(OUTCOMES[code - 1] for code in run.outcome.tolist())


def took_s(run, *, critical: bool):
    """Seconds that frames of a priority took."""
    return (run.end_s - run.trace.at_s)[run.trace.is_critical == critical]


def test_a_hung_replica_costs_nobody_an_answer_while_another_one_is_there():
    """Critical frames are tried elsewhere within their 600 ms, the others soon after."""
    trace = poisson_trace(60.0, 1200, critical=range(0, 1200, 5))
    plan = sample_plan(replicas=2, slo_s=(0.6, 5.0))

    run = simulated(plan, trace, failures=[Failure(FAILS_S, kind=FailureKind.HANGS)])

    assert outcomes(run) == {Outcome.FINISHED: 1200}
    assert took_s(run, critical=True).max() <= 0.6
    assert took_s(run, critical=False).max() <= OVERDUE_FLOOR_S + 0.3


def test_frames_of_a_lone_hung_replica_end_by_their_deadlines_and_a_second():
    """None hangs with it; when it is replaced all is well again."""
    trace = poisson_trace(20.0, 1200)

    run = simulated(sample_plan(slo_s=(0.25, 1.0)), trace, failures=[Failure(FAILS_S, kind=FailureKind.HANGS)])

    assert set(outcomes(run)) == {Outcome.FINISHED, Outcome.EXPIRED}
    assert (run.end_s - run.trace.at_s).max() <= 1.0 + LATE_GRACE_S + 1e-6
    back_s = FAILS_S + DEFAULT_STUCK_S + NO_CALLS.restart_s + 1.0
    late = run.outcome[run.trace.at_s > back_s]
    assert len(late) > 100
    assert {OUTCOMES[code - 1] for code in late.tolist()} == {Outcome.FINISHED}


@pytest.mark.parametrize("factor", [6.0, 10.0, 100.0])
def test_a_slow_replica_is_left_alone_after_some_batches(factor):
    """All frames finish, and the median of those that follow is that of a sound pool."""
    trace = poisson_trace(40.0, 2000, critical=range(0, 2000, 5))
    plan = sample_plan(replicas=2, slo_s=(0.6, 5.0))

    run = simulated(plan, trace, failures=[Failure(FAILS_S, kind=FailureKind.SLOW, factor=factor)])

    assert outcomes(run) == {Outcome.FINISHED: 2000}
    later = run.end_s[run.trace.at_s > FAILS_S + 10.0] - run.trace.at_s[run.trace.at_s > FAILS_S + 10.0]
    assert np.max(later) < 0.15
    slow_runs = np.count_nonzero(run.batches.ran_s > 0.9 * factor * 0.010)
    assert 1 <= slow_runs <= 12


def test_the_second_of_two_failures_meets_another_replica():
    """A slow one is not made slow again."""
    trace = poisson_trace(40.0, 800)
    failures = [Failure(FAILS_S, kind=FailureKind.SLOW), Failure(FAILS_S + 1, kind=FailureKind.HANGS)]

    run = simulated(sample_plan(replicas=3, slo_s=(0.6, 5.0)), trace, failures=failures)

    assert outcomes(run) == {Outcome.FINISHED: 800}


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("3", Failure(3.0, None, FailureKind.DIES, 1.0)),
        ("3:gpu", Failure(3.0, "gpu", FailureKind.DIES, 1.0)),
        ("die@3", Failure(3.0, None, FailureKind.DIES, 1.0)),
        ("hang@3.5:gpu", Failure(3.5, "gpu", FailureKind.HANGS, 1.0)),
        ("slow@3", Failure(3.0, None, FailureKind.SLOW, 10.0)),
        ("slow4.5@3:gpu", Failure(3.0, "gpu", FailureKind.SLOW, 4.5)),
    ],
)
def test_options_name_what_befalls_whom_and_when(option, expected):
    """The old form is a death."""
    assert _failures([option], sample_plan()) == [expected]


@pytest.mark.parametrize("option", ["melt@3", "slow0.5@3", "slowly@3", "@", "hang@", "slow@soon"])
def test_other_options_are_refused_with_what_is_allowed(option):
    """By name."""
    with pytest.raises(FramelaneError, match="KIND die, hang, slow or slowN"):
        _failures([option], sample_plan())


def test_a_replica_cannot_become_slow_by_becoming_faster():
    """A slip in a script that makes simulations."""
    with pytest.raises(InvalidPlanError, match=r"0\.5 times slower, allowed is 1 or more"):
        simulated(sample_plan(), poisson_trace(1.0, 1), failures=[Failure(1.0, factor=0.5)])
