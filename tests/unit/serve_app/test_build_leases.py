"""Who builds an engine, who waits for it, and what becomes of those who wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.build_leases import BuildLeases, Claim, ClaimKind

LEASE_S, MAX_BUILD_S, FAILURE_KEPT_S = 10.0, 100.0, 60.0


@pytest.fixture
def leases():
    """Leases of ten seconds."""
    return BuildLeases(lease_s=LEASE_S, max_build_s=MAX_BUILD_S, failure_kept_s=FAILURE_KEPT_S)


def test_the_first_builds_and_all_others_wait(leases):
    """One lease a key; who waits is told for whom and for how long."""
    assert leases.claim("k", "a", 5.0) == Claim(ClaimKind.BUILD, "a", 0.0)
    assert leases.claim("k", "b", 7.0) == Claim(ClaimKind.WAIT, "a", 2.0)
    assert leases.claim("other", "b", 7.0).kind is ClaimKind.BUILD


def test_the_holder_who_asks_again_still_has_the_lease(leases):
    """An answer that got lost must not make its owner wait for itself."""
    leases.claim("k", "a", 0.0)

    assert leases.claim("k", "a", 3.0) == Claim(ClaimKind.BUILD, "a", 3.0)


def test_what_is_done_is_ready_for_everybody(leases):
    """And stays so, however long ago."""
    leases.claim("k", "a", 0.0)
    leases.done("k", "a", 4.0)

    assert leases.claim("k", "b", 9.0) == Claim(ClaimKind.READY, "a", 5.0)
    assert leases.claim("k", "a", 1e9).kind is ClaimKind.READY


def test_a_lease_that_is_not_renewed_runs_out_and_the_next_who_asks_builds(leases):
    """A builder that died holds up nobody for longer than a lease."""
    leases.claim("k", "dead", 0.0)

    assert leases.claim("k", "b", 9.9).kind is ClaimKind.WAIT
    assert leases.claim("k", "c", 10.0) == Claim(ClaimKind.BUILD, "c", 0.0)
    assert leases.claim("k", "b", 10.0) == Claim(ClaimKind.WAIT, "c", 0.0)


def test_a_renewed_lease_lasts(leases):
    """Each renewal counts from when it was made."""
    leases.claim("k", "a", 0.0)
    assert [leases.renew("k", "a", now_s) for now_s in (9.0, 18.0)] == [True, True]

    assert leases.claim("k", "b", 27.9).kind is ClaimKind.WAIT
    assert leases.claim("k", "b", 28.0).kind is ClaimKind.BUILD


def test_a_builder_that_hangs_loses_its_lease_however_often_it_renews(leases):
    """Its thread that renews may be alive when the builder is not."""
    leases.claim("k", "a", 0.0)
    for now_s in range(5, 100, 5):
        assert leases.renew("k", "a", float(now_s))

    assert leases.claim("k", "b", 99.9).kind is ClaimKind.WAIT
    assert not leases.renew("k", "a", 100.0)
    assert leases.claim("k", "b", 100.0).kind is ClaimKind.BUILD


def test_only_the_holder_renews(leases):
    """Neither another one, nor the holder once the lease is lost, done or unknown."""
    leases.claim("k", "a", 0.0)
    leases.claim("done", "a", 0.0)
    leases.done("done", "a", 1.0)

    assert not leases.renew("k", "b", 1.0)
    assert not leases.renew("never claimed", "a", 1.0)
    assert not leases.renew("done", "a", 1.0)
    assert not leases.renew("k", "a", 10.0)


def test_who_lost_a_lease_and_is_done_after_all_ends_everybodys_wait(leases):
    """Two builds of one key may stand for each other."""
    leases.claim("k", "slow", 0.0)
    leases.claim("k", "b", 20.0)
    leases.done("k", "slow", 21.0)

    assert leases.claim("k", "c", 21.0) == Claim(ClaimKind.READY, "slow", 0.0)


def test_a_failure_is_told_to_all_for_a_while_and_then_tried_again(leases):
    """What cannot be built is not built by a hundred replicas in turn."""
    leases.claim("k", "a", 0.0)
    leases.failed("k", "a", "layer 7 is not supported", 5.0)

    assert leases.claim("k", "b", 6.0) == Claim(ClaimKind.FAILED, "a", 1.0, "layer 7 is not supported")
    assert leases.claim("k", "a", 64.9).kind is ClaimKind.FAILED
    assert leases.claim("k", "b", 65.0) == Claim(ClaimKind.BUILD, "b", 0.0)


def test_only_the_holder_can_fail_or_give_up(leases):
    """Somebody who lost its lease says nothing of the build that goes on, nor of an engine that is ready."""
    leases.claim("k", "a", 0.0)
    leases.failed("k", "b", "no", 1.0)
    leases.release("k", "b")
    assert leases.claim("k", "c", 1.0).kind is ClaimKind.WAIT

    leases.done("k", "a", 2.0)
    leases.failed("k", "a", "no", 3.0)
    leases.release("k", "a")
    assert leases.claim("k", "c", 3.0).kind is ClaimKind.READY


def test_who_gives_up_lets_the_next_one_build_at_once(leases):
    """A full disk of one machine is no fault of the engine."""
    leases.claim("k", "a", 0.0)
    leases.release("k", "a")

    assert leases.claim("k", "b", 0.0).kind is ClaimKind.BUILD


def test_only_an_engine_that_is_ready_can_be_forgotten(leases):
    """Bytes that are pushed out make it unbuilt; a build that runs goes on."""
    leases.claim("k", "a", 0.0)
    leases.forget("k")
    leases.forget("never claimed")
    assert leases.claim("k", "b", 1.0).kind is ClaimKind.WAIT

    leases.done("k", "a", 2.0)
    leases.forget("k")
    assert leases.claim("k", "b", 3.0).kind is ClaimKind.BUILD


def test_what_nobody_asks_for_again_does_not_stay(leases):
    """Leases that ran out and old failures leave when anything is claimed."""
    for number in range(50):
        leases.claim(f"k{number}", "a", 0.0)
        if number % 2:
            leases.failed(f"k{number}", "a", "no", 0.0)
    leases.claim("last", "a", 60.0)

    assert len(leases) == 1


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["claim", "renew", "done", "failed", "release", "forget"]),
        st.sampled_from("ab"),
        st.sampled_from("xyz"),
        st.sampled_from([0.0, 1.0, 9.9, 10.0, 45.0]),
    ),
    max_size=40,
)


@given(MOVES)
def test_at_most_one_lease_of_a_key_is_out(moves):
    """Whatever happens in whatever order: nobody is told to build while another holds a lease that has not run out."""
    leases = BuildLeases(lease_s=LEASE_S, max_build_s=MAX_BUILD_S, failure_kept_s=FAILURE_KEPT_S)
    now_s = 0.0
    out: dict[str, tuple[str, float]] = {}  # by key: who holds it, and until when at least
    for move, key, who, later_s in moves:
        now_s += later_s
        holder, until_s = out.get(key, ("", 0.0))
        if move == "claim" and leases.claim(key, who, now_s) == Claim(ClaimKind.BUILD, who, 0.0):
            assert holder in ("", who) or now_s >= until_s
            out[key] = (who, now_s + LEASE_S)
        elif move == "renew" and leases.renew(key, who, now_s):
            assert holder == who
            out[key] = (who, now_s)
        elif move == "forget":
            leases.forget(key)
        elif move == "done":
            leases.done(key, who, now_s)
            out.pop(key, None)
        elif move in ("failed", "release"):
            leases.failed(key, who, "no", now_s) if move == "failed" else leases.release(key, who)
            if holder == who:
                del out[key]
