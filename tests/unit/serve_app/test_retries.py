"""The next try of frames whose router died."""

from __future__ import annotations

import pytest
from router_world import Clock
from serve_samples import sample_meta

from serve_app.frames import Priority
from serve_app.retries import LEAST_SLO_S, MAX_TRIES, Tries

SLO_S = {Priority.CRITICAL: 0.5, Priority.NORMAL: 2.0}


def tries(*metas):
    """Tries of these frames, and the clock that they look at."""
    clock = Clock()
    return Tries(metas, SLO_S, clock.monotonic), clock


def test_the_first_try_is_what_was_asked_for():
    """Nothing is changed, however long the first line took to find."""
    meta = sample_meta("a", slo_s=None)
    sent, clock = tries(meta)
    clock.pass_s(1.0)

    assert sent.next() == [meta]


def test_the_next_try_has_the_same_id_and_what_is_left_of_the_seconds():
    """Seconds travel, no clock readings; those that brought none have the plan's."""
    sent, clock = tries(
        sample_meta("a", slo_s=3.0), sample_meta("b", slo_s=None), sample_meta("c", slo_s=None, priority="critical")
    )
    sent.next()
    clock.pass_s(0.4)
    again = sent.next()

    assert [(meta.frame_id, meta.attempt) for meta in again] == [("a", 1), ("b", 1), ("c", 1)]
    assert [meta.slo_s for meta in again] == [pytest.approx(left_s) for left_s in (2.6, 1.6, 0.1)]
    clock.pass_s(0.4)
    assert [(meta.attempt, meta.slo_s) for meta in sent.next()] == [
        (2, pytest.approx(2.2)), (2, pytest.approx(1.2)), (2, LEAST_SLO_S)
    ]  # fmt: skip


def test_tries_of_a_frame_that_was_passed_on_are_counted_on():
    """A router that passes a frame on and finds its owner dead has the second try of a second try."""
    sent, _ = tries(sample_meta("a", attempt=1))
    sent.next()

    assert sent.next()[0].attempt == 2


@pytest.mark.parametrize("slo_s", [0, -1.0, "soon", float("nan")])
def test_what_is_no_duration_is_refused_by_the_router_at_every_try(slo_s):
    """It is not made valid on the way."""
    sent, _ = tries(sample_meta("a", slo_s=slo_s))
    sent.next()

    assert sent.next()[0].slo_s is slo_s


def test_the_second_try_is_made_even_if_it_is_too_late():
    """So a router counts and records how the frame ended; after that, it is over."""
    sent, clock = tries(sample_meta("a", slo_s=0.1))
    sent.next()
    clock.pass_s(1.0)

    assert sent.is_another_worth_it()
    assert sent.next()[0].slo_s == LEAST_SLO_S
    assert not sent.is_another_worth_it()


def test_tries_go_on_while_one_of_the_frames_has_time_but_not_for_ever():
    """Four routers that die one after the other are an outage."""
    sent, clock = tries(sample_meta("a", slo_s=0.1), sample_meta("b", slo_s=60.0))
    for _ in range(MAX_TRIES - 1):
        sent.next()
        clock.pass_s(1.0)
        assert sent.is_another_worth_it()
    sent.next()
    assert not sent.is_another_worth_it()
