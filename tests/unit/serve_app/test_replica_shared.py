"""One replica that several routers use: who is refused unread, and what each is told. A fake engine, no cluster."""

from __future__ import annotations

import asyncio
import queue
from types import SimpleNamespace

import numpy as np
import pytest
from router_world import PATIENCE_S
from serve_samples import VGA, sample_plan

from engines.cpu_device import CpuDevice
from engines.fake import FakeEngine
from serve_app import direct_calls, engine_replica
from serve_app.credit_grants import CreditAsk, CreditUse
from serve_app.engine_replica import EngineReplica
from serve_app.pool_engines import PoolEngines
from serve_app.results import BatchRequest

GREY = np.full((480, 640, 3), 51, np.uint8)


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    """The replica asks Ray who and where it is; this answers."""
    context = SimpleNamespace(
        get_node_id=lambda: "node0123456789", get_actor_id=lambda: "actor012345678", current_actor=object()
    )
    for module in (engine_replica, direct_calls):
        monkeypatch.setattr(module, "ray", SimpleNamespace(get_runtime_context=lambda: context))


@pytest.fixture
def replica():
    """A replica whose engine runs when the test opens its gate; two routers have asked it."""
    gate: queue.Queue[None] = queue.Queue()

    def make(plan, pool):
        engines = {
            bucket.name: FakeEngine({}, lambda _: gate.get(timeout=PATIENCE_S)) for bucket in plan.buckets_of(pool)
        }
        return PoolEngines(engines, CpuDevice(), lambda: None)

    for _ in range(100):  # warming
        gate.put(None)
    made = EngineReplica(sample_plan(), "near", make)
    while not gate.empty():
        gate.get()
    made.gate = gate
    yield made
    made._engine_thread.shutdown()
    made._placing_thread.shutdown()


async def asked(replica, *routers):
    """These routers ask for their reports; the last answers."""
    for _ in range(2):
        reports = {router: await replica.own_report(CreditAsk(router, 2, 0.0)) for router in routers}
    return reports


def sent(replica, router, *, urgent=False):
    """A batch of one grey frame on its way."""
    ref = asyncio.get_running_loop().create_future()
    ref.set_result(GREY)
    request = BatchRequest("vga", VGA, urgent, ((480, 640),), (None,), router, 0.01)
    return asyncio.ensure_future(replica.infer(request, [ref]))


def test_a_batch_beyond_the_grant_is_refused_unread(replica):
    """At once and without boxes; its router learns what it may have."""

    async def scenario():
        await asked(replica, "a", "b")
        first, second, critical = sent(replica, "a"), sent(replica, "a"), sent(replica, "a", urgent=True)
        refused = await second
        assert (refused.no_credit, refused.frames, refused.grant.num_credits) == (True, (), 1)
        assert refused.replica == "near-actor012"
        for _ in range(2):
            replica.gate.put(None)
        for reply in (await first, await critical):
            assert not reply.no_credit
            assert len(reply.frames) == 1
            assert reply.grant.num_credits == 2  # it is the busier one now
        report, _ = await replica.report()
        assert report.num_batches == 2
        assert report.credits == CreditUse(2, 3, 1, 1, 3)

    asyncio.run(scenario())


def test_a_credit_is_free_again_when_its_batch_has_ended(replica):
    """Also when the call was cancelled, as that of a router that gave up."""

    async def scenario():
        await asked(replica, "a", "b")
        cancelled = sent(replica, "a")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        for _ in range(3):
            replica.gate.put(None)
            assert not (await sent(replica, "a")).no_credit

    asyncio.run(scenario())


def test_each_router_is_told_its_own_grant(replica):
    """In its report and with each reply; a router that is alone is told nothing."""

    async def scenario():
        reports = await asked(replica, "a")
        assert reports["a"].grant is None
        replica.gate.put(None)
        assert (await sent(replica, "a")).grant is None

        reports = await asked(replica, "a", "b")
        assert {router: report.grant.num_credits for router, report in reports.items()} == {"a": 2, "b": 1}
        running = sent(replica, "a")
        await asyncio.sleep(0)
        told = (await replica.own_report(CreditAsk("b", 2, 0.0))).grant
        assert 0 < told.before_other_s <= 0.01
        replica.gate.put(None)
        await running

    asyncio.run(scenario())


def test_who_only_looks_takes_no_credit(replica):
    """A report without a question, as a tool asks it."""

    async def scenario():
        await asked(replica, "a")
        report, _ = await replica.report()
        assert report.grant is None
        assert report.credits.num_routers == 1

    asyncio.run(scenario())
