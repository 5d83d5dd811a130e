"""Frames that are sent once more, and batches that a replica refuses: each frame is answered once all the same."""

from __future__ import annotations

import asyncio

import pytest
from router_world import Ref, brief, found, play, reply, report, score_of, with_replica
from serve_samples import sample_limits, sample_meta, sample_plan

from serve_app.credit_grants import CreditAsk, CreditGrant
from serve_app.errors import InvalidFrameError
from serve_app.recent_results import MAX_AGE_S
from serve_app.tickets import Ticket
from serve_app.verdicts import Outcome

pytestmark = pytest.mark.usefixtures("driven_by_hand")


def once_more(world, *metas, **changes):
    """A second try of frames, which are counted once."""
    world.num_submitted -= len(metas)
    return world.submit(*(sample_meta(meta, attempt=1, **changes) for meta in metas))


def test_a_frame_that_is_sent_once_more_joins_the_one_that_is_here():
    """One batch, one record, and the same answer for both callers."""

    async def scenario(world):
        await with_replica(world)
        first = world.submit(sample_meta("a"))
        call = await world.near.next_call()
        second = once_more(world, "a")
        await world.settle()
        call.answer(found(0.5))

        assert brief(await first) == brief(await second) == [("a", "finished", 0.5)]
        assert world.near.num_calls == 1

    play(scenario, sample_plan())


def test_without_saying_so_an_id_that_is_here_is_refused():
    """Two frames of one name are a client's mistake."""

    async def scenario(world):
        await with_replica(world)
        first = world.submit(sample_meta("a"))
        call = await world.near.next_call()
        (refused,) = await world.submit(sample_meta("a"))
        assert isinstance(refused.error, InvalidFrameError)
        call.answer(found(0.5))
        await first

    play(scenario, sample_plan())


def test_a_frame_that_was_answered_of_late_is_not_served_again():
    """Finished or not: the caller learns how it ended."""

    async def scenario(world):
        await with_replica(world)
        first = world.submit(sample_meta("a"), sample_meta("b", slo_s=1e-6))
        (await world.near.next_call()).answer(found(0.5))
        results = await first
        again = await once_more(world, "a", "b")

        assert again[0] is results[0]
        assert again[1] is results[1]
        assert [each.outcome for each in again] == [Outcome.FINISHED, Outcome.EXPIRED]
        assert world.near.num_calls == 1

    play(scenario, sample_plan())


def test_a_result_is_not_remembered_for_ever(clock):
    """Ids come back after a while, and then the frame is another one."""

    async def scenario(world):
        await with_replica(world)
        for score in (0.5, 0.7):
            caller = world.submit(sample_meta("a", attempt=1))
            (await world.near.next_call()).answer(found(score))
            assert score_of((await caller)[0]) == score
            clock.pass_s(MAX_AGE_S + 0.1)

    play(scenario, sample_plan())


def test_a_second_try_of_an_unknown_frame_is_served():
    """Its first router died with it."""

    async def scenario(world):
        await with_replica(world)
        caller = world.submit(sample_meta("a", attempt=2))
        (await world.near.next_call()).answer(found(0.5))
        assert brief(await caller) == [("a", "finished", 0.5)]

    play(scenario, sample_plan())


@pytest.mark.parametrize("gone", ["first", "second"])
def test_a_frame_stays_while_one_of_its_callers_waits(gone):
    """The first call may be cancelled because it broke; whoever asks again still gets the answer."""

    async def scenario(world):
        callers = {"first": world.submit(sample_meta("a"))}
        await world.settle()
        callers["second"] = once_more(world, "a")
        await world.settle()
        callers.pop(gone).cancel()
        await world.settle()
        await with_replica(world)
        (await world.near.next_call()).answer(found(0.5))
        ((_, caller),) = callers.items()
        assert brief(await caller) == [("a", "finished", 0.5)]

    play(scenario, sample_plan())


def test_a_frame_leaves_when_its_last_caller_has_gone():
    """It waits for nobody, so no device runs it."""

    async def scenario(world):
        callers = [world.submit(sample_meta("a"))]
        await world.settle()
        callers.append(once_more(world, "a"))
        await world.settle()
        for caller in callers:
            caller.cancel()
            await world.settle()
        await with_replica(world)
        assert world.near.num_calls == 0
        assert world.router._book.outcomes == {"cancelled": 1}

    play(scenario, sample_plan())


def test_a_ticket_is_given_again_to_who_asks_again():
    """While its frame is here and after; the caller never got the first one."""

    async def scenario(world):
        await with_replica(world)
        world.num_submitted = 1
        (ticket,) = await world.router.submit_tickets([sample_meta("a")], None, [Ref()])
        call = await world.near.next_call()
        again = [sample_meta("a", attempt=1)]
        assert await world.router.submit_tickets(again, None, [Ref()]) == [ticket]
        call.answer(found(0.5))
        await world.settle()
        assert await world.router.submit_tickets(again, None, [Ref()]) == [ticket]
        assert isinstance(ticket, Ticket)
        assert ticket.router == "router"
        assert score_of(await world.router.ticket_result("a", 0.0)) == 0.5

    play(scenario, sample_plan())


def test_a_result_says_which_router_took_the_frame():
    """However it ended."""

    async def scenario(world):
        await with_replica(world)
        caller = world.submit(sample_meta("a"), sample_meta("b", camera=""), sample_meta("c", slo_s=1e-6))
        (await world.near.next_call()).answer(found(0.5))
        assert [(each.outcome.value, each.router) for each in await caller] == [
            ("finished", "router"), ("rejected", "router"), ("expired", "router")
        ]  # fmt: skip

    play(scenario, sample_plan())


def granted(name, num_credits):
    """A report with a grant."""
    said = report(name)
    grant = CreditGrant(num_credits, 1 / 2, 0.0, 0.0)
    return type(said)(said.replica, said.node, said.num_batches, said.warm_s, said.device, grant=grant)


def test_a_batch_that_a_replica_refuses_is_sent_again_when_it_has_a_credit():
    """No frame is lost, no attempt is counted, and nothing is sent before the replica has spoken."""

    async def scenario(world):
        world.near.say([granted("near-0", 1)])
        await world.router.status()
        caller = world.submit(sample_meta("a"))
        call = await world.near.next_call()
        assert (call.request.router, call.request.run_s > 0) == ("router", True)
        call.response.set_result(reply(replica="near-0", no_credit=True, grant=CreditGrant(1, 0.5, 0.0, 0.0)))
        await world.settle()
        assert world.near.calls.empty()
        assert (await world.router.status()).pools[0].num_waiting == 1

        world.near.say([granted("near-0", 1)])
        call = await world.near.next_call()
        call.answer(found(0.5))
        assert brief(await caller) == [("a", "finished", 0.5)]

    play(scenario, sample_plan())


def test_a_router_keeps_to_its_grant_and_critical_frames_need_none():
    """A grant of none: critical batches go, others wait for the next word."""

    async def scenario(world):
        world.near.say([granted("near-0", 0)])
        await world.router.status()
        normal = world.submit(sample_meta("a"))
        critical = world.submit(sample_meta("b", priority="critical"))
        call = await world.near.next_call()
        assert call.request.urgent
        assert world.near.calls.empty()
        call.response.set_result(reply(found(0.5), replica="near-0", grant=CreditGrant(1, 0.5, 0.0, 0.0)))
        assert brief(await critical) == [("b", "finished", 0.5)]
        (await world.near.next_call()).answer(found(0.6))
        assert brief(await normal) == [("a", "finished", 0.6)]

    play(scenario, sample_plan())


def test_replicas_are_asked_in_the_routers_name():
    """With what it would have."""

    async def scenario(world):
        await with_replica(world)
        assert world.near.asks[0] == CreditAsk("router", 2, 0.0)

    play(scenario, sample_plan())


def test_a_router_is_ready_when_each_pool_had_a_replica_once():
    """Before that it would let frames wait that another one could serve; after that a dead pool does not count."""

    async def scenario(world):
        async def is_ready():
            status = await world.router.status()
            return status.routers[0].report.is_ready

        world.pools["far"].say([report("far-0")])
        assert not await is_ready()
        await with_replica(world)
        assert await is_ready()
        world.near.has_replicas(0)
        await world.settle()
        assert await is_ready()

    play(scenario, sample_plan())


def test_budgets_hold_for_second_tries_too():
    """One that joins takes no place; one that is new here is judged like any other."""

    async def scenario(world):
        await with_replica(world)
        first = world.submit(sample_meta("a"), sample_meta("b"))
        call = await world.near.next_call()
        joined = once_more(world, "a")
        (refused,) = await world.submit(sample_meta("c", attempt=1))
        assert refused.outcome is Outcome.REJECTED
        call.answer(found(0.1), found(0.2))
        await asyncio.gather(first, joined)

    play(scenario, sample_plan(limits=sample_limits(frames=2)))
