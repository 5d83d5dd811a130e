"""A router among fakes: pools that record its calls and answer when the test says so. No Ray cluster."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np

from engines.detections import Detections
from serve_app.frames import FrameMeta
from serve_app.plan import Plan
from serve_app.results import BatchReply, BatchRequest, FrameResult, ReplicaReport
from serve_app.router import Router

# Long enough for a machine that is busy with other work; only a broken router makes a test wait for it.
PATIENCE_S = 20.0


class Ref:
    """Stands for an object ref; can be weakly referenced, to see who still holds it."""


@dataclass(eq=False)
class Call:
    """One `infer` call that a pool got; the test answers it."""

    request: BatchRequest
    refs: list[Ref]
    response: asyncio.Future[BatchReply]

    def answer(self, *frames, replica: str = "near-1", **seconds: float) -> None:
        """Answer with one entry a frame: detections and names, or an error."""
        self.response.set_result(reply(*frames, replica=replica, **seconds))

    def fail(self, error: BaseException) -> None:
        """Let the call raise."""
        self.response.set_exception(error)


class FakePool:
    """What the router sees of a deployment: `infer.remote(...)` and `broadcast("report")`."""

    def __init__(self):
        self.infer = self
        self.calls: asyncio.Queue[Call] = asyncio.Queue()
        self.num_calls = 0
        self._reports: asyncio.Queue[list[object] | Exception] = asyncio.Queue()

    def remote(self, request: BatchRequest, refs: list[Ref]) -> asyncio.Future[BatchReply]:
        """Note a batch."""
        call = Call(request, refs, asyncio.get_running_loop().create_future())
        self.num_calls += 1
        self.calls.put_nowait(call)
        return call.response

    def broadcast(self, method: str) -> FakePool:
        """Only reports are ever asked of all replicas."""
        assert method == "report"
        return self

    async def results_async(self, *, timeout_s: float, return_exceptions: bool) -> list[object]:
        """The next reports that the test gives; waits for them as for replicas that do not answer."""
        assert timeout_s > 0
        assert return_exceptions is True
        reports = await self._reports.get()
        self._reports.task_done()
        if isinstance(reports, Exception):
            raise reports
        return reports

    def say(self, reports: list[object] | Exception) -> None:
        """Give the answer to the router's next question for reports."""
        self._reports.put_nowait(reports)

    def has_replicas(self, num_replicas: int) -> None:
        """Let so many replicas report."""
        self.say([report(f"near-{number}") for number in range(num_replicas)])

    async def next_call(self) -> Call:
        """The next batch that the router sends."""
        return await self.calls.get()


class World:
    """A router, its pools, and the frames that were submitted to it."""

    def __init__(self, plan: Plan, frame_log=None):
        self.pools = {pool.name: FakePool() for pool in plan.pools}
        self.router = Router(plan, self.pools, frame_log)
        self.num_submitted = 0

    @property
    def near(self) -> FakePool:
        """The pool that most tests look at."""
        return self.pools["near"]

    def submit(self, *metas: FrameMeta, refs: list[Ref] | None = None) -> asyncio.Task[list[FrameResult]]:
        """A caller that submits these frames in one call."""
        self.num_submitted += len(metas)
        return asyncio.get_running_loop().create_task(
            self.router.submit_many(metas, [Ref() for _ in metas] if refs is None else refs)
        )

    async def settle(self) -> None:
        """Let every task run until it waits for something outside."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Stop the watchers, which live as long as the router, and look at what is left."""
        await self.settle()
        watchers = set(self.router._replicas._tasks)
        left = asyncio.all_tasks() - watchers - {asyncio.current_task()}
        for task in watchers:
            task.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        assert self.router._tasks - watchers == set(), "batches are under way"
        assert left == set(), "callers or batches are left"
        assert self.router._in_flight == {}
        assert self.router._scheduler.num_waiting == 0
        assert all(load.num_running == 0 for load in self.router._scheduler.loads().values())
        assert self.router._outcomes.total() == self.num_submitted, "a frame ended never or twice"


def play(scenario: Callable[[World], Awaitable[None]], plan: Plan, frame_log=None, *, counted: bool = True) -> None:
    """Run a scenario in an event loop of its own, then check that every frame ended once and nothing is left.

    Args:
        scenario: what happens.
        plan: the router's.
        frame_log: the router's.
        counted: whether every pool answers the first count, with no replica.
    """

    async def main():
        world = World(plan, frame_log)
        if counted:
            for pool in world.pools.values():
                pool.has_replicas(0)
        loop_errors = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: loop_errors.append(context))
        await asyncio.wait_for(scenario(world), PATIENCE_S)
        await world.close()
        gc.collect()  # a task that failed unseen says so when it goes
        assert loop_errors == []

    asyncio.run(main())


def found(score: float) -> tuple[Detections, tuple[str, ...]]:
    """One box whose score tells whose answer it is."""
    box_xyxy = np.array([[1, 2, 3, 4]], np.float32)
    return Detections(box_xyxy, np.array([score], np.float32), np.zeros(1, np.int64)), ("thing",)


def score_of(result: FrameResult) -> float | None:
    """The score of the one box that `found` made; None if nothing was answered."""
    return round(float(result.detections.scores[0]), 3) if len(result.detections) else None


def reply(*frames, replica: str = "near-1", **seconds: float) -> BatchReply:
    """What a replica answers; durations that are not given are 0."""
    names = ("fetch_s", "preprocess_s", "staged_s", "infer_s", "postprocess_s")
    return BatchReply(replica, frames, **{name: seconds.get(name, 0.0) for name in names})


def report(replica: str) -> ReplicaReport:
    """A sound replica's report."""
    return ReplicaReport(replica, "node", num_batches=3, warm_s=1.0, used_bytes=10, total_bytes=100)
