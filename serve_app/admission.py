"""Admission: which route a frame takes, or why none, by the finish that the pool's work predicts."""

from __future__ import annotations

from collections.abc import Mapping

from serve_app.frames import Frame, Priority
from serve_app.lane_key import DEFERRED as DEFERRED_LANE
from serve_app.plan import Plan
from serve_app.pool_queue import PoolQueue
from serve_app.route import Route
from serve_app.verdicts import RejectCause, Verdict, VerdictKind

# Predictions are means, and a frame that is begun so that it would be done just in time is late every other time. So
# much more than predicted its own time may be, and the wait for what is ahead of it.
MARGIN_FRACTION = 0.25
# A critical frame takes a cheaper route while there is still time for what was not foreseen.
CRITICAL_MARGIN_FRACTION = 0.5
# One that has had to wait for its dear route is the slowest of all: it begins earlier by so much of its own time, or
# goes the cheaper way; but by half of the time for which it can wait at most: an idle pool serves it the dear way.
CRITICAL_EARLIER_FRACTION = 0.25
# Tiles of one frame pass others on their way: they are begun earlier than their bare sum asks.
DEFERRED_MARGIN = 1.5
# No sooner is it worth to ask again.
MIN_RETRY_S = 0.05

# Looked up for every frame, see `lane_key.py`.
CRITICAL = Priority.CRITICAL

ADMITTED = Verdict(VerdictKind.ADMIT, "in time by prediction")
DEFERRED = Verdict(VerdictKind.DEFER, "a large frame: served when nothing more urgent waits, or when it must begin")
TOO_SHORT = Verdict(VerdictKind.ADMIT, "its deadline is shorter than its own time here, however little else waits")


class Admission:
    """Judges frames.

    Algorithm: of the frame's routes, dearest first, the first that pressure allows and whose predicted finish (work
    ahead of it on the pool's replicas, its own time, the call around it) lies before the deadline. If none does: a
    critical frame takes the cheapest; a normal one is rejected with the time by which it would be late, unless it would
    be late on an idle pool as well, which no waiting mends: then it is admitted on the cheapest. Before any is rejected
    the pool goes down the ladder, if then there is room: what waits is moved when its batch is formed.
    A pool that has no replica, since it starts its first one say, is passed over for one that has; deferred frames wait
    for its replicas all the same, however much waits already: nothing is known of how many will come, and when.
    """

    def __init__(self, plan: Plan, pools: Mapping[str, PoolQueue]) -> None:
        """Take the plan and its pools' queues, which are asked, and told to go down the ladder."""
        self._pools = pools
        self._max_defer_s = plan.scheduling.max_defer_s
        self._max_chunk_s = plan.max_chunk_s
        self._calm_s = plan.memory.calm_s

    def judge(self, frame: Frame, routes: tuple[Route, ...]) -> tuple[Verdict, int]:
        """The verdict, and which of the routes it means."""
        if not routes:
            reason = "larger than every canvas, and the plan rejects such frames"
            return Verdict(VerdictKind.REJECT, reason, cause=RejectCause.OVERSIZE), 0
        is_critical = frame.priority is CRITICAL
        last = len(routes) - 1
        wait_s = late_s = 0.0
        shed = full = None
        pools = self._pools
        for index, route in enumerate(routes):
            pool = pools[route.pool]
            pressure = pool.pressure
            if pool.is_empty and self._is_passed_over(routes, index):
                continue
            if not is_critical and pressure.sheds:
                shed = route.pool
            elif is_critical or index == last or route.rung >= pressure.rung:
                wait_s, late_s = self._late_s(frame, route)
                if late_s <= 0:
                    return self._admitted(routes, index, full), index
            elif route.rung < pressure.memory_rung:
                full = route.pool
        if is_critical or (shed is None and last > 0 and self._fits_if_degraded(frame, routes[last])):
            return self._admitted(routes, last, full), last
        if shed is None and self.times(frame, routes[last], routes[last])[1] < frame.arrived_s:
            return (TOO_SHORT if last == 0 else self._admitted(routes, last, full)), last
        return self._rejected(shed, wait_s, late_s), last

    def _is_passed_over(self, routes: tuple[Route, ...], index: int) -> bool:
        """Whether a route's pool, which has no replica, is left for another one of the frame's routes."""
        if routes[index].lane.lane_class is DEFERRED_LANE:
            return False
        return any(self._pools[route.pool].credits.num_ready for route in routes[index + 1 :])

    def _rejected(self, shed: str | None, wait_s: float, late_s: float) -> Verdict:
        if shed is not None:
            reason = f"the memory of pool {shed} is nearly full: critical frames only"
            # No level falls sooner than that.
            return Verdict(VerdictKind.REJECT, reason, max(MIN_RETRY_S, self._calm_s), cause=RejectCause.MEMORY)
        reason = f"predicted to finish {late_s:.3f} s after its deadline, {wait_s:.3f} s of work is ahead of it"
        return Verdict(VerdictKind.REJECT, reason, max(MIN_RETRY_S, late_s), cause=RejectCause.LATE)

    def _fits_if_degraded(self, frame: Frame, cheapest: Route) -> bool:
        """Whether a frame is in time after all if everybody goes down the ladder; then the pool does so."""
        pool, now_s = self._pools[cheapest.pool], frame.arrived_s
        finish_s = pool.wait_if_degraded_s(now_s) + cheapest.own_s + pool.around_s
        if finish_s * (1 + MARGIN_FRACTION) > frame.deadline_s - now_s:
            return False
        pool.pressure.goes_down(now_s)
        return True

    def _late_s(self, frame: Frame, route: Route) -> tuple[float, float]:
        """The predicted wait on a route, and by how much the frame would be late there; at most 0: in time."""
        pool, now_s = self._pools[route.pool], frame.arrived_s
        own_s, left_s = route.own_s + pool.around_s, frame.deadline_s - now_s
        if pool.is_empty and route.lane.lane_class is DEFERRED_LANE:
            return 0.0, own_s * (1 + MARGIN_FRACTION) - left_s
        if frame.priority is CRITICAL:
            wait_s = pool.wait_for_critical_s(now_s)
            margin = 1 + CRITICAL_MARGIN_FRACTION + CRITICAL_EARLIER_FRACTION
            return wait_s, wait_s * margin + _critical_needs_s(own_s, left_s) - left_s
        wait_s = pool.wait_at_most_s(now_s)
        if (wait_s + own_s) * (1 + MARGIN_FRACTION) > left_s:
            # Behind all that waits it would be late; behind what is due before it perhaps not.
            due_s, _, _ = self.times(frame, route, route)
            wait_s = pool.wait_for_other_s(due_s, now_s)
        return wait_s, (wait_s + own_s) * (1 + MARGIN_FRACTION) - left_s

    def times(self, frame: Frame, route: Route, cheapest: Route) -> tuple[float, float, float]:
        """What follows from a frame's deadline, in seconds on the scheduler's clock.

        Its place in its lane: for a critical frame its deadline, for the others when they should begin. After which
        moment a cheaper route than this one is safer. After which no route makes the deadline.

        A frame that is begun by its time and the margin before its deadline is hardly ever late. Deferred frames must
        begin a chunk earlier, and their tiles let others pass. A critical frame is given up only when it would be late
        for certain; one that never could be in time at its deadline.
        """
        deadline_s = frame.deadline_s
        own_s = route.own_s + self._pools[route.pool].around_s
        cheapest_s = own_s if cheapest is route else cheapest.own_s + self._pools[cheapest.pool].around_s
        if frame.priority is CRITICAL:
            due_s = deadline_s
            begin_by_s = deadline_s - _critical_needs_s(own_s, deadline_s - frame.arrived_s)
            last_start_s = deadline_s - cheapest_s
        else:
            due_s = begin_by_s = deadline_s - (1 + MARGIN_FRACTION) * own_s
            last_start_s = deadline_s - (1 + MARGIN_FRACTION) * cheapest_s
            if route.lane.lane_class is DEFERRED_LANE:
                begin_s = deadline_s - DEFERRED_MARGIN * (1 + MARGIN_FRACTION) * own_s - self._max_chunk_s
                due_s = min(max(begin_s, frame.arrived_s), frame.arrived_s + self._max_defer_s)
        return due_s, begin_by_s, last_start_s if last_start_s > frame.arrived_s else deadline_s

    def _admitted(self, routes: tuple[Route, ...], index: int, full: str | None) -> Verdict:
        """Served by this route; `full`: the pool whose memory forbids a dearer one."""
        route = routes[index]
        if index > 0:
            wanted = routes[0]
            reason = f"rung {route.rung}: {route.model} on {route.canvas} instead of {wanted.model} on {wanted.canvas}"
            if full is not None:
                reason += f"; memory of pool {full}: level {self._pools[full].pressure.memory.name.lower()}"
            return Verdict(VerdictKind.DEGRADE, reason, rung=route.rung)
        if route.lane.lane_class is not DEFERRED_LANE:
            return ADMITTED
        if self._pools[route.pool].pressure.pauses_deferred:
            reason = f"a large frame: it waits until the memory of pool {route.pool} is free again, or expires"
            return Verdict(VerdictKind.DEFER, reason)
        return DEFERRED


def _critical_needs_s(own_s: float, left_s: float) -> float:
    """How long before its deadline a critical frame is to begin a route of so many seconds; it came with `left_s`."""
    needs_s = (1 + CRITICAL_MARGIN_FRACTION) * own_s
    slack_s = left_s - needs_s
    return needs_s + min(CRITICAL_EARLIER_FRACTION * own_s, slack_s / 2) if slack_s > 0 else needs_s
