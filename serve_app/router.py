"""The router: drives the scheduler with what really happens, sends its batches, answers and records every frame.

It holds no policy: order, admission and batches are `scheduler.py`'s. Pixels never pass here, only object refs.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
from ray.exceptions import RayActorError
from ray.serve.handle import DeploymentHandle

from engines.errors import FrameArrayError
from engines.frame_array import check_frame
from engines.machine import machine_name
from serve_app.batch_calls import BatchCalls
from serve_app.batching import Batch
from serve_app.direct_calls import DirectlyCalled, ReplicaLine, own_actor
from serve_app.errors import (
    FrameCancelledError,
    FrameExpiredError,
    FramelaneError,
    FrameRejectedError,
    FrameSupersededError,
    InvalidFrameError,
    TicketUnknownError,
)
from serve_app.frame_book import FrameBook, InFlight
from serve_app.frame_log import FrameLog
from serve_app.frame_store import put_frame
from serve_app.frames import Frame, FrameMeta, check_meta
from serve_app.handover import Handover, take_over
from serve_app.latency import LatencyModel, LatencyTable, Origin
from serve_app.lingering import Lingering
from serve_app.live.live_report import LiveAsk, LiveReport
from serve_app.live.router_side import RouterSide
from serve_app.log_fields import log_to_serve
from serve_app.metric_book import MetricSink, Nowhere
from serve_app.metrics import RouterMetrics
from serve_app.peer_routers import Doors, PeerRouters, alone
from serve_app.plan import Plan
from serve_app.plan_machine import joined
from serve_app.replica_limits import ReplicaLimits
from serve_app.replica_news import ReplicaNews
from serve_app.replica_watch import ReplicaWatch
from serve_app.results import (
    FrameResult,
    PoolStatus,
    ReplicaReport,
    RouterReport,
    ServiceStatus,
)
from serve_app.router_credits import RouterCredits
from serve_app.router_log import RouterLog
from serve_app.router_status import merged, seen_by
from serve_app.scheduler import Scheduler
from serve_app.serve_autoscaling import PoolReports
from serve_app.slow_probes import SlowProbes
from serve_app.spool.spool_line import SpoolLine, check_no_callback
from serve_app.ticket_desk import TicketDesk
from serve_app.tickets import ResultsPage, Ticket, TicketBook, is_durable_ticket
from serve_app.verdicts import Outcome, Verdict, VerdictKind

logger = logging.getLogger(__name__)

# A service that is deployed anew has warm engines after some seconds.
RESTART_S = 5.0

# How often a router that has handed over looks whether its last frame has ended.
SETTLED_INTERVAL_S = 0.1
# What is left of a frame's time must be above 0 to be sent on; the receiver lets it expire.
LEAST_S = 1e-3


class Router(DirectlyCalled):
    """Takes frames from callers, gives them to engine replicas by the scheduler's decisions, answers each one once."""

    def __init__(
        self,
        plan: Plan,
        pools: Mapping[str, DeploymentHandle[Any]],
        frame_log: FrameLog | None,
        latency: LatencyTable | None = None,
        *,
        open_peers: Callable[[Plan], PeerRouters] = alone,
        open_metrics: Callable[[], MetricSink] = Nowhere,
        revision: int = 0,
        routers: Callable[[], DeploymentHandle[Any]] | None = None,
        spool: DeploymentHandle[Any] | None = None,
    ) -> None:
        """Take the plan, a handle for each of its pools, where to record frames, and what is known of latencies.

        Args:
            plan: what is served.
            pools: a handle for each pool of the plan.
            frame_log: where frames are recorded; None: nowhere.
            latency: what was measured before; None: nothing.
            open_peers: gives the other routers, and this one's name among them.
            open_metrics: gives where metrics go; called here because Ray's belong to the replica that makes them.
            revision: of the application that it is part of.
            routers: gives a handle for the routers of all revisions; None: there are no others.
            spool: a handle for the spool of durable frames; None: no camera is durable.
        """
        log_to_serve(plan.log_level.value)
        log, metrics = RouterLog(), RouterMetrics(plan, open_metrics())
        self._plan = plan
        self._spool = SpoolLine(spool)
        self._scheduler = Scheduler(plan, LatencyModel(latency))
        self._peers = open_peers(plan)
        self._live: RouterSide[ray.ObjectRef[Any]] = RouterSide(plan.limits.max_waiting_bytes)
        self._book = FrameBook(self._peers.name, revision, log, metrics, frame_log, self._live)
        self._desk = TicketDesk(
            TicketBook(
                max_tickets=plan.limits.max_tickets,
                ttl_s=plan.limits.ticket_ttl_s,
                first_cursor=time.time_ns() // 1000,
            ),
            time.monotonic,
            self._peers.name,
        )
        self._revision = revision
        self._routers = routers
        self._handover = Handover()
        self._may_begin = False
        self._is_ending = False
        limits = ReplicaLimits(self._scheduler)
        grants = RouterCredits(self._peers.name, self._scheduler, limits, revision)
        self._news = ReplicaNews(plan, self._scheduler, limits, grants, log, metrics)
        self._replicas: ReplicaWatch[ReplicaReport] = ReplicaWatch(
            pools,
            self._reported,
            lambda pool: (grants.ask(pool),),
            revision=revision,
            lingering={pool.name: Lingering(keeps_last=pool.surge and pool.num_replicas > 0) for pool in plan.pools},
        )
        self._pool_reports = PoolReports()
        self._probes = SlowProbes(self._scheduler, self._replicas)
        self._calls = BatchCalls(
            self._peers.name, plan, self._scheduler, self._replicas, self._book,
            grants=grants, news=self._news, log=log, metrics=metrics,
        )  # fmt: skip
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake: asyncio.TimerHandle | None = None
        self._started_s = time.monotonic()

    async def submit(self, meta: FrameMeta, refs: Sequence[ray.ObjectRef[Any]]) -> FrameResult:
        """Serve one frame.

        Args:
            meta: what the client says of it.
            refs: one ref to its pixels, nested in a list so that Ray does not fetch it here.

        Returns:
            How it ended, whatever that is; look at `outcome` and `error`, or call `unless_failed()`.
        """
        return (await self.submit_many([meta], refs))[0]

    async def submit_many(self, metas: Sequence[FrameMeta], refs: Sequence[ray.ObjectRef[Any]]) -> list[FrameResult]:
        """Serve several frames of one call; one result each, in their order. See `submit`."""
        return await self._peers.spread("serve_here", metas, refs, self.serve_here)

    async def serve_here(self, metas: Sequence[FrameMeta], refs: Sequence[ray.ObjectRef[Any]]) -> list[FrameResult]:
        """The same, whoever owns the cameras."""
        self._watch()
        now_s = time.monotonic()
        answers = [self._arrived(meta, ref, now_s) for meta, ref in zip(metas, refs, strict=True)]
        self._pump()
        try:
            return list(await asyncio.gather(*answers))
        except asyncio.CancelledError:
            # Cancelled with this call were the answers still due, and no frame of another call that has the same id.
            for meta, answer in zip(metas, answers, strict=True):
                if answer.cancelled():
                    self._cancelled(meta.frame_id)
            raise

    async def submit_tickets(
        self, metas: Sequence[FrameMeta], callback: Any, refs: Sequence[ray.ObjectRef[Any]]
    ) -> list[Ticket | FramelaneError]:
        """Take frames whose callers do not wait: a ticket for each, or why it was refused.

        Those of durable cameras are handed on to the spool, which feeds them to `submit` later.

        Args:
            metas: what the client says of them.
            callback: a deployment handle or an actor's method: `callback.remote(result)` is called at each frame's end;
                None: nothing is called.
            refs: as for `submit_many`; their owner must live until the frames have ended.
        """
        durable = [self._plan.is_durable(str(meta.camera), meta.priority) for meta in metas]
        if any(durable) and len(metas) == len(refs):
            return await self._partly_durable(metas, callback, refs, durable)
        return await self._peers.spread("tickets_here", metas, refs, self.tickets_here, callback)

    async def tickets_here(
        self, metas: Sequence[FrameMeta], callback: Any, refs: Sequence[ray.ObjectRef[Any]]
    ) -> list[Ticket | FramelaneError]:
        """The same, whoever owns the cameras."""
        if self._handover.has_begun:
            given: list[Ticket | FramelaneError] = await self._handover.ask(
                "tickets_here", list(metas), callback, refs=refs
            )
            return given
        self._watch()
        now_s = time.monotonic()
        tickets = [self._ticket(meta, ref, callback, now_s) for meta, ref in zip(metas, refs, strict=True)]
        self._pump()
        return tickets

    async def ticket_result(self, ticket_id: str, wait_s: float) -> FrameResult | None:
        """How the frame of a ticket ended; None if it has not within `wait_s`. Any router can be asked."""
        if is_durable_ticket(ticket_id):
            return await self._spool.result(ticket_id, wait_s)
        self._watch()
        try:
            return await self.ticket_result_here(ticket_id, wait_s)
        except TicketUnknownError:
            return await self._peers.ticket_result(ticket_id, wait_s)

    async def ticket_result_here(self, ticket_id: str, wait_s: float) -> FrameResult | None:
        """The same for a ticket that this router gave out, or handed over."""
        if not self._handover.has_begun:
            result = await self._desk.result(ticket_id, wait_s)
            if not self._handover.has_begun:
                return result
        kept: FrameResult | None = await self._handover.ask("ticket_result_here", ticket_id, wait_s)
        return kept

    async def ticket_results(self, camera: str, cursor: int, wait_s: float) -> ResultsPage:
        """The results of a camera's tickets after a cursor, in the order in which they ended, from its owner."""
        self._watch()
        return await self._peers.ticket_results(camera, cursor, wait_s, self.ticket_results_here)

    async def ticket_results_here(self, camera: str, cursor: int, wait_s: float) -> ResultsPage:
        """The same for the tickets that this router gave out, or handed over."""
        if not self._handover.has_begun:
            page = await self._desk.results(camera, cursor, wait_s)
            if not self._handover.has_begun:
                return page
        next_page: ResultsPage = await self._handover.ask("ticket_results_here", camera, cursor, wait_s)
        return next_page

    async def __call__(
        self,
        image_hwc: npt.NDArray[np.uint8],
        camera: str = "camera",
        priority: str = "normal",
        slo_s: float | None = None,
    ) -> FrameResult:
        """Serve one numpy frame for callers that use a plain `DeploymentHandle` and no client library.

        Args:
            image_hwc: uint8 `(height, width, 3)` BGR.
            camera: who took it.
            priority: `critical` or `normal`.
            slo_s: seconds from now until it must be finished; None: the plan's default.

        Raises:
            FramelaneError: the frame did not finish; the subclass says why.
        """
        try:
            image_hwc = check_frame(image_hwc, max_frame_px=self._plan.limits.max_frame_px)
        except FrameArrayError as err:
            unseen = FrameMeta(uuid.uuid4().hex, camera, (0, 0), priority, slo_s)
            error = InvalidFrameError(str(err))
            self._book.refuse(unseen, None, error, time.monotonic())
            raise error from err
        meta = FrameMeta(uuid.uuid4().hex, camera, image_hwc.shape[:2], priority, slo_s)
        ref = await asyncio.to_thread(put_frame, image_hwc)
        result = await self.submit(meta, [ref])
        if result.error is not None:
            # A fresh error: the result is kept, and the traceback of its own would keep this call's frame.
            raise type(result.error)(*result.error.args)
        return result

    async def status(self) -> ServiceStatus:
        """The service at a glance, all its routers together."""
        self._watch()
        await self._peers.counted()
        return merged([await self.status_here(), *await self._peers.ask_others("status_here")])

    async def status_here(self) -> ServiceStatus:
        """What this router sees of it; the first call waits until the replicas have been counted."""
        self._watch()
        await self._replicas.counted()
        self._pump()
        loads, now_s = self._scheduler.loads(), time.monotonic()
        pools = tuple(
            PoolStatus(
                name, load.num_waiting, load.num_running, self._replicas.reports(name), load.backlog_s, load.rung,
                load.around_s, load.waiting, load.memory, load.num_credits,
                self._plan.pool(name).num_replicas, self._scheduler.unfit_replicas(name, now_s),
            )
            for name, load in loads.items()
        )  # fmt: skip
        status = ServiceStatus(
            time.monotonic() - self._started_s,
            pools,
            dict(self._book.outcomes),
            num_in_flight=len(self._book),
            num_records_lost=self._book.num_records_lost,
            verdicts=dict(self._book.verdicts),
            revision=self._revision,
            num_handed_over=self._handover.num_frames,
        )
        return seen_by(self._own_report(), status)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What Serve's controller learns of the pools' load, where a pool may grow; Serve asks."""
        return self._pool_reports.values(self._scheduler.loads(), time.monotonic())

    async def plan(self) -> Plan:
        """The plan that is served."""
        if self._handover.has_begun:
            newer: Plan = await self._handover.ask("plan")
            return newer
        return self._plan

    async def latency_table(self) -> LatencyTable:
        """How long batches take here now, as learnt from all that was served; at first what the warm-up measured."""
        self._watch()
        await self._replicas.counted()
        devices = [report.device.name for pool in self._plan.pools for report in self._replicas.reports(pool.name)]
        return LatencyTable(joined(devices) or machine_name(), Origin.MEASURED, self._scheduler.latency.entries())

    async def doors(self) -> Doors:
        """The actors of all routers, for clients that call them directly; see `direct_calls.py`."""
        self._watch()
        await self._peers.counted()
        return replace(self._peers.doors(), revision=self._revision)

    async def live_here(self, ask: LiveAsk) -> tuple[LiveReport, list[ray.ObjectRef[Any]]]:
        """What this router tells the live page, and refs to the pixels of last frames; see `live/`."""
        self._watch()
        return self._live.answer(self._peers.name, ask, time.monotonic())

    async def own_report(self) -> RouterReport:
        """What this router says of itself to the others; they ask every second."""
        self._watch()
        return self._own_report()

    def _own_report(self) -> RouterReport:
        return self._peers.report(revision=self._revision, is_ready=not self._news.uncounted)

    def _watch(self) -> None:
        """Begin to watch replicas and routers; at every call, since there is no event loop before the first."""
        self._replicas.start()
        self._peers.start()

    async def application_revision(self) -> int:
        """The revision of the application that this router is part of."""
        return self._revision

    async def check_health(self) -> None:
        """Serve asks every few seconds, and before it announces this router: it takes over from older ones first.

        So replicas are counted and metrics told before any frame.
        """
        self._watch()
        if self._routers is not None and not self._may_begin:
            await take_over(self._revision, self._can_serve, self._routers())
        self._may_begin = True

    async def hand_over(self, revision: int, successor: object) -> None:
        """A newer router is ready: from now on it gets all frames of which nothing has begun, and the tickets."""
        if revision <= self._revision or not self._handover.begin(revision, successor):
            return
        logger.info("revision %d hands over to revision %d", self._revision, revision)
        waiting, unread = self._desk.hand_over()
        for frame_id in waiting.keys() & self._book.frame_ids:
            self._book.entry(frame_id).answer.add_done_callback(self._ticket_ended)
        self._start(self._handover.tickets(waiting, unread))
        # A call to itself: Serve lets it live until that is over.
        self._start(ReplicaLine(own_actor()).call("settled"))
        self._pump()

    async def settled(self) -> None:
        """Return when nothing is left here to be answered; then the replicas that Serve is stopping may go."""
        while True:
            await asyncio.sleep(SETTLED_INTERVAL_S)
            if not (len(self._book) or self._handover.is_busy or self._desk.is_calling):
                self._replicas.leave()
                return

    async def let_go(self) -> None:
        """The application is about to be deleted, with all its routers: see `let_go_here`."""
        await self.let_go_here()
        await self._peers.ask_others("let_go_here")

    async def let_go_here(self) -> None:
        """Refuse what waits and what still comes, and keep no replica that Serve stops: it waits for both."""
        self._is_ending = True
        self._replicas.leave()
        now_s = time.monotonic()
        for frame in self._scheduler.take_unbegun():
            self._book.end_unserved(frame, Outcome.REJECTED, _service_ends(), now_s)

    async def adopt_tickets(self, waiting: dict[str, str], unread: list[tuple[str, FrameResult]]) -> int:
        """Keep the tickets of an older router, see `TicketDesk.adopt`; how many found no room."""
        return self._desk.adopt(waiting, unread)

    async def ticket_ended(self, result: FrameResult) -> None:
        """The frame of a ticket that was adopted has ended."""
        self._desk.ended(result)

    def _arrived(self, meta: FrameMeta, ref: ray.ObjectRef[Any], now_s: float) -> asyncio.Future[FrameResult]:
        """Check and schedule one frame; its result, now or later."""
        answer: asyncio.Future[FrameResult] = asyncio.get_running_loop().create_future()
        if meta.attempt and self._book.joins(meta.frame_id, answer, now_s):
            return answer
        if self._handover.has_begun:
            return asyncio.get_running_loop().create_task(self._relayed(meta, ref, now_s))
        if self._is_ending:
            answer.set_result(self._book.refuse(meta, None, _service_ends(), now_s))
            return answer
        try:
            frame = self._checked(meta, now_s)
        except InvalidFrameError as err:
            # A fresh error: the tracebacks of `err` and its cause hold this call's frame, and so would pin the pixels.
            answer.set_result(self._book.refuse(meta, None, InvalidFrameError(err.message), now_s))
            return answer
        arrival = self._scheduler.arrived(frame)
        if arrival.superseded is not None:
            newer = FrameSupersededError("frame superseded: a newer one of its camera came while it waited")
            self._book.end_unserved(arrival.superseded, Outcome.SUPERSEDED, newer, now_s)
        verdict = arrival.verdict
        if verdict.kind is VerdictKind.REJECT:
            slo_s = frame.deadline_s - now_s
            answer.set_result(self._book.refuse(meta, verdict, _rejection(verdict), now_s, slo_s))
            return answer
        self._book.add(InFlight(frame, verdict, ref, answer))
        return answer

    def _ticket(self, meta: FrameMeta, ref: ray.ObjectRef[Any], callback: Any, now_s: float) -> Ticket | FramelaneError:
        """Schedule one frame that nobody waits for."""
        frame_id, camera = str(meta.frame_id), str(meta.camera)
        known = self._book.known(frame_id, now_s) if meta.attempt else None
        if known is not None and known.verdict is not None:
            return self._desk.ticket(frame_id, camera, known.verdict)
        try:
            self._desk.open(frame_id, camera)
        except FramelaneError as err:
            error = type(err)(err.message, err.retry_after_s)
            self._book.refuse(meta, None, error, now_s)
            return error
        answer = self._arrived(meta, ref, now_s)
        if answer.done() and (rejection := answer.result().error) is not None:
            self._desk.withdrawn(frame_id)
            return rejection
        if callback is not None:
            self._desk.call_back(callback, answer)
        return self._desk.given(frame_id, camera, self._book.entry(frame_id).verdict, answer)

    async def _partly_durable(
        self, metas: Sequence[FrameMeta], callback: Any, refs: Sequence[ray.ObjectRef[Any]], durable: Sequence[bool]
    ) -> list[Ticket | FramelaneError]:
        """Tickets of frames of which some go to the spool."""
        check_no_callback(callback)
        frames = list(zip(metas, refs, durable, strict=True))
        kept = iter(await self._spool.keep([m for m, _, is_kept in frames if is_kept], [r for _, r, k in frames if k]))
        ours = [(meta, ref) for meta, ref, is_kept in frames if not is_kept]
        others = iter(await self.submit_tickets([meta for meta, _ in ours], callback, [ref for _, ref in ours]))
        return [next(kept if is_kept else others) for is_kept in durable]

    def _checked(self, meta: FrameMeta, now_s: float) -> Frame:
        priority = check_meta(meta, max_frame_px=self._plan.limits.max_frame_px)
        if meta.frame_id in self._book.frame_ids:
            raise InvalidFrameError(f"frame_id: got {meta.frame_id!r}, which is in flight; give every frame its own id")
        slo_s = self._plan.slo_s[priority] if meta.slo_s is None else float(meta.slo_s)
        size_hw = (int(meta.size_hw[0]), int(meta.size_hw[1]))
        num_bytes = size_hw[0] * size_hw[1] * 3
        if num_bytes > self._plan.limits.max_waiting_bytes:
            raise InvalidFrameError(
                f"frame: got {num_bytes:,} bytes, {self._plan.limits.max_waiting_bytes:,} allowed for all that wait; "
                "raise limits.max_waiting_bytes in the plan"
            )
        return Frame(meta.frame_id, meta.camera, size_hw, priority, now_s, now_s + slo_s, num_bytes)

    def _pump(self) -> None:
        """Do what the scheduler decides now, and come back when it is due again."""
        now_s = time.monotonic()
        if self._handover.has_begun:
            for frame in self._scheduler.take_unbegun():
                self._start(self._relay(self._book.take(frame.frame_id), now_s))
        decisions = self._scheduler.decide(now_s)
        for expired in decisions.expired:
            frame = expired.frame
            message = (
                f"frame expired: after {now_s - frame.arrived_s:.3f} s of waiting it could not be finished within its "
                f"{frame.deadline_s - frame.arrived_s:.3f} s"
            )
            self._book.end_unserved(frame, Outcome.EXPIRED, FrameExpiredError(message), now_s, expired.route)
        self._calls.give_up(decisions.given_up, "has not answered", now_s)
        loop = asyncio.get_running_loop()
        for batch in decisions.batches:
            # Now, not when the task starts: a frame of which a tile fails until then has left.
            refs = [self._book.entry(piece.frame.frame_id).ref for piece in batch.pieces]
            self._start(self._send(batch, refs, now_s))
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        wake_s = self._scheduler.next_wake_s()
        if wake_s is not None:
            self._wake = loop.call_later(max(0.0, wake_s - now_s), self._pump)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Do this beside what else happens."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _can_serve(self) -> bool:
        """Whether every pool has as many replicas of this revision as of others, and those that it needs have one."""
        return all(
            len(self._replicas.reports(pool.name)) >= max(1, self._replicas.num_others(pool.name))
            for pool in self._plan.pools
            if pool.num_replicas
        )

    async def _relay(self, entry: InFlight, now_s: float) -> None:
        """Let the successor serve a frame that waited here, within what is left of its time."""
        frame = entry.frame
        left_s = max(frame.deadline_s - now_s, LEAST_S)
        meta = FrameMeta(frame.frame_id, frame.camera, frame.size_hw, frame.priority.value, left_s)
        result = await self._relayed(meta, entry.ref, now_s)
        entry.answer_all(result)

    async def _relayed(self, meta: FrameMeta, ref: ray.ObjectRef[Any], now_s: float) -> FrameResult:
        """The successor's answer to a frame; if that one dies with it, the frame is served here after all."""
        try:
            return await self._handover.frame(meta, ref)
        except RayActorError as err:
            logger.warning("frame %s: the new router has died: %r", meta.frame_id, err)
        if meta.slo_s is not None:
            left_s = max(meta.slo_s - (time.monotonic() - now_s), LEAST_S)
            meta = replace(meta, slo_s=left_s)
        answer = self._arrived(meta, ref, time.monotonic())
        self._pump()
        return await answer

    def _ticket_ended(self, answer: asyncio.Future[FrameResult]) -> None:
        """A ticket's frame has ended here: the successor keeps the ticket."""
        if not answer.cancelled():
            self._start(self._handover.ticket_ended(answer.result()))

    async def _send(self, batch: Batch, refs: list[ray.ObjectRef[Any]], sent_s: float) -> None:
        """Send a batch, see to its frames, and use the credit that is free again."""
        await self._calls.send(batch, refs, sent_s)
        self._pump()

    def _reported(self, pool: str, reports: tuple[ReplicaReport, ...]) -> None:
        """The replicas of a pool were counted; that also wakes frames whose replica had died."""
        self._news.counted(pool, reports, self._replicas.fresh(pool))
        self._probes.look(pool)
        self._pump()
        self._live.tick(time.monotonic())
        self._news.tell({each.name: self._replicas.reports(each.name) for each in self._plan.pools}, self._book)

    def _cancelled(self, frame_id: str) -> None:
        """A caller gave up: a waiting frame leaves its lane; one that runs is answered to nobody, but recorded."""
        entry = self._book.find(frame_id)
        if entry is not None and not entry.is_awaited and self._scheduler.cancelled(frame_id):
            error = FrameCancelledError("frame cancelled by its caller while it waited")
            self._book.end_unserved(entry.frame, Outcome.CANCELLED, error, time.monotonic())


def _service_ends() -> FrameRejectedError:
    return FrameRejectedError(
        f"frame rejected: the service is being stopped; send it again when one serves, not before {RESTART_S:g} s",
        RESTART_S,
    )


def _rejection(verdict: Verdict) -> FrameRejectedError:
    cure = "shrink it" if verdict.retry_after_s is None else f"try again in {verdict.retry_after_s:.2f} s"
    return FrameRejectedError(f"frame rejected: {verdict.reason}; {cure}", verdict.retry_after_s)
