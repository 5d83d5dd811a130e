"""A router among fakes: pools that record its calls and answer when the test says so. No Ray cluster."""

from __future__ import annotations

import asyncio
import gc
import pickle
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np
from ray.serve._private.common import RequestMetadata
from serve_samples import HD, PORTRAIT, UHD, VGA, sample_table

from engines.detections import Detections
from engines.device_facts import DeviceFacts
from engines.spec import WarmShape
from serve_app.credit_grants import CreditAsk
from serve_app.errors import FrameFailedError
from serve_app.frames import FrameMeta
from serve_app.latency import LatencyTable
from serve_app.plan import Bucket, CameraRule, Oversize, Plan, Pool
from serve_app.results import BatchReply, BatchRequest, FrameResult, PoolStatus, ReplicaReport
from serve_app.router import Router

# Long enough for a machine that is busy with other work; only a broken router makes a test wait for it.
PATIENCE_S = 20.0
# Seconds that batches of 1, 2, 4 are predicted to take: less than the call around them, so that no batch is held back
# for company while the clock of a test stands still; and large batches are worth it.
QUICK_S = {
    ("full", VGA): (0.003, 0.004, 0.006),
    ("full", PORTRAIT): (0.003, 0.004, 0.006),
    ("full", HD): (0.005, 0.007),
    ("full", UHD): (0.008,),
    ("light", VGA): (0.001, 0.002, 0.003),
}
# A frame of this size is cut by `tile_plan` into four windows of 480x640, side by side.
WIDE_HW = (480, 2240)


def quick_table() -> LatencyTable:
    """What the routers of these tests believe of batches."""
    return sample_table(QUICK_S)


def tile_plan(*batches: int, **changes) -> Plan:
    """One pool with one canvas, VGA, onto which every larger frame is tiled; `batches` are the warmed sizes."""
    bucket = Bucket("vga", "full", "near", (VGA,), batches or (1,))
    fields = {"cameras": (CameraRule("*", oversize=Oversize.TILE),)} | changes
    return Plan({"full": "/models/full.onnx"}, (Pool("near"),), (bucket,), **fields)


class Clock:
    """Stands where a module looks for `time`; passes when the test says so."""

    def __init__(self):
        self.now_s = 1000.0

    def monotonic(self) -> float:
        """As `time.monotonic`."""
        return self.now_s

    def time_ns(self) -> int:
        """As `time.time_ns`."""
        return int(self.now_s * 1e9)

    def pass_s(self, seconds: float) -> None:
        """Later."""
        self.now_s += seconds


@dataclass(frozen=True)
class Silent:
    """What a replica says that does not answer."""

    replica: str


class Ref:
    """Stands for an object ref; can be weakly referenced, to see who still holds it."""


@dataclass(eq=False)
class Call:
    """One `infer` call that a replica got; the test answers it."""

    replica: str
    request: BatchRequest
    refs: list[Ref]
    response: asyncio.Future[BatchReply]

    def answer(self, *frames, **seconds: float) -> None:
        """Answer with one entry a piece: detections and names, or an error."""
        self.response.set_result(reply(*frames, replica=self.replica, **seconds))

    def has_no_memory(self, *, is_broken: bool = False) -> None:
        """Answer that the device had no memory for this batch, or for any of its bucket."""
        errors = [FrameFailedError("engine of bucket vga: out of memory")] * len(self.refs)
        self.response.set_result(reply(*errors, replica=self.replica, out_of_memory=True, is_broken=is_broken))

    def fail(self, error: BaseException) -> None:
        """Let the call raise."""
        self.response.set_exception(error)


class FakeActor:
    """What the router sees of a replica's actor: Serve's `handle_request.remote(metadata, *arguments)`."""

    def __init__(self, pool: FakePool, name: str):
        self.handle_request = self
        self._pool = pool
        self._name = name

    def remote(self, metadata: bytes, packed: bytes, refs: list[Ref]) -> PackedReply:
        """Note a batch, or give the report of this round."""
        said = pickle.loads(metadata)  # noqa: S301 (our own)
        assert isinstance(said, RequestMetadata)
        assert said.call_method == "call_directly"
        method, arguments = pickle.loads(packed)  # noqa: S301
        if method != "infer":
            return PackedReply(self._pool.asked(self._name, method, *arguments))
        (request,) = arguments
        return PackedReply(self._pool.called(self._name, request, refs))


class PackedReply:
    """Stands for the ref of a reply, as `DirectlyCalled` packs it."""

    def __init__(self, response: asyncio.Future[BatchReply]):
        self._response = response

    def __await__(self):
        """The packed reply, or what the call raised."""
        reply = yield from self._response.__await__()
        return pickle.dumps(reply)


class FakePool:
    """What the router sees of a deployment: its running replicas, each of which is then asked for its report."""

    def __init__(self):
        self.calls: asyncio.Queue[Call] = asyncio.Queue()
        self.num_calls = 0
        self.refusal: Exception | None = None
        self.asks: tuple[CreditAsk, ...] = ()
        self._answers: asyncio.Queue[list[object] | Exception] = asyncio.Queue()
        self._said: dict[str, object] = {}
        self.questions: dict[str, asyncio.Future[object]] = {}
        self.num_questions: Counter[str] = Counter()
        # What replicas answer when they are asked for anything else than reports and batches, by method.
        self.answers: dict[str, object] = {}
        self.asked_for: list[tuple[str, str]] = []

    def called(self, replica: str, request: BatchRequest, refs: list[Ref]) -> asyncio.Future[BatchReply]:
        """A replica of this pool got a batch; raises the refusal if there is one."""
        if self.refusal is not None:
            raise self.refusal
        call = Call(replica, request, refs, asyncio.get_running_loop().create_future())
        self.num_calls += 1
        self.calls.put_nowait(call)
        return call.response

    async def running(self) -> dict[str, FakeActor]:
        """The replicas of the next round that the test gives; waits for it as for Serve's word."""
        answers = await self._answers.get()
        if isinstance(answers, Exception):
            raise answers
        names = [getattr(each, "replica", f"odd-{number}") for number, each in enumerate(answers)]
        self._said = dict(zip(names, answers, strict=True))
        return {name: FakeActor(self, name) for name in names}

    def asked(self, replica: str, method: str, *arguments: object) -> asyncio.Future[object]:
        """A replica is asked for its report, or for something else; a silent one does not answer, see `wake`."""
        answer = asyncio.get_running_loop().create_future()
        if method == "own_report":
            said = self._said[replica]
            self.asks += arguments
            self.questions[replica] = answer
            self.num_questions[replica] += 1
        else:
            self.asked_for.append((replica, method))
            said = self.answers[method]
        if isinstance(said, Exception):
            answer.set_exception(said)
        elif not isinstance(said, Silent):
            answer.set_result(said)
        return answer

    def wake(self, replica: str, answer: object) -> None:
        """A silent replica answers what it was asked."""
        self.questions[replica].set_result(answer)

    def say(self, answers: list[object] | Exception) -> None:
        """Give the replicas of the router's next round by their reports, or by what else they answer."""
        self._answers.put_nowait(answers)

    def has_replicas(self, num_replicas: int) -> None:
        """Let so many replicas report: `near-0` and so on."""
        self.say([report(f"near-{number}") for number in range(num_replicas)])

    async def next_call(self) -> Call:
        """The next batch that the router sends."""
        return await self.calls.get()


class World:
    """A router, its pools, and the frames that were submitted to it."""

    def __init__(self, plan: Plan, frame_log=None, latency: LatencyTable | None = None):
        self.pools = {pool.name: FakePool() for pool in plan.pools}
        self.router = Router(plan, self.pools, frame_log, latency or quick_table())
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
        assert len(self.router._book) == 0
        assert (self.router._scheduler.num_frames, self.router._scheduler.held_bytes) == (0, 0)
        loads = self.router._scheduler.loads().values()
        assert [(load.num_waiting, load.num_running) for load in loads] == [(0, 0)] * len(self.pools)
        assert self.router._book.outcomes.total() == self.num_submitted, "a frame ended never or twice"


def play(
    scenario: Callable[[World], Awaitable[None]],
    plan: Plan,
    frame_log=None,
    latency: LatencyTable | None = None,
    *,
    counted: bool = True,
) -> None:
    """Run a scenario in an event loop of its own, then check that every frame ended once and nothing is left.

    Args:
        scenario: what happens.
        plan: the router's.
        frame_log: the router's.
        latency: what the router was told of latencies; None: all batches are quick.
        counted: whether every pool answers the first count, with no replica.
    """

    async def main():
        world = World(plan, frame_log, latency)
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


async def with_replica(world: World, num_replicas: int = 1) -> None:
    """Wait until the router knows of so many replicas of the near pool, and no other."""
    world.near.has_replicas(num_replicas)
    await world.router.status()
    await world.settle()


def brief(results: list[FrameResult]) -> list[tuple[str, str, float | None]]:
    """Ids, outcomes and scores."""
    return [(each.frame_id, each.outcome.value, score_of(each)) for each in results]


def brief_pool(status: PoolStatus) -> tuple[str, int, int, list[str]]:
    """Name, what waits, what runs, and the names of the replicas."""
    return status.name, status.num_waiting, status.num_running, [each.replica for each in status.replicas]


def found(score: float, box_xyxy=(1, 2, 3, 4), name: str = "thing") -> tuple[Detections, tuple[str, ...]]:
    """One box whose score tells whose answer it is."""
    boxes_xyxy = np.array([box_xyxy], np.float32)
    return Detections(boxes_xyxy, np.array([score], np.float32), np.zeros(1, np.int64)), (name,)


def score_of(result: FrameResult) -> float | None:
    """The score of the best box that `found` made; None if nothing was answered."""
    return round(float(result.detections.scores[0]), 3) if len(result.detections) else None


def reply(*frames, replica: str = "near-1", **changes) -> BatchReply:
    """What a replica answers; durations that are not given are 0."""
    names = ("fetch_s", "preprocess_s", "staged_s", "infer_s", "postprocess_s")
    return BatchReply(replica, frames, **dict.fromkeys(names, 0.0) | changes)


DEVICE_FACTS = DeviceFacts("a device", None, None, None, 100, 10, 90, None, None, None, None)


def report(replica: str, *latencies: tuple[str, WarmShape, float], busy_s: float = 0.0) -> ReplicaReport:
    """A sound replica's report, with what it measured after warming."""
    return ReplicaReport(
        replica, "node", num_batches=3, warm_s=1.0, device=DEVICE_FACTS, latencies=latencies, busy_s=busy_s
    )
