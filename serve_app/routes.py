"""The ways a frame can be served: at its own size, in tiles, or on a lower rung of the ladder, with what each costs."""

from __future__ import annotations

from engines.spec import CanvasShape
from engines.tiles import Window, tile_windows
from serve_app.frames import Priority
from serve_app.lane_key import LaneClass, LaneKey
from serve_app.latency import LatencyModel
from serve_app.plan import Bucket, CameraRule, Oversize, Plan
from serve_app.route import Route

# What one call to a replica costs beside the engine, on the cores that the engine may need: fewer, larger batches.
CALL_COST_S = 0.003
# What neighbouring tiles share, so that a defect on a seam is whole in one of them.
TILE_OVERLAP_PX = 64
# A rung that saves less than this is none.
WORTH_DEGRADING = 0.9
# Tiles overlap, so they cost more than the whole: a canvas made for it an eighth (four of 576×1024 for full HD). Where
# it is more than this, no canvas of the plan suits, and the whole frame is the lesser evil.
MAX_TILING_COST = 1.3
# For so long a device that had no memory for a batch gets no such batch again.
MEMORY_PAUSE_S = 60.0
# Critical frames try it again sooner: they keep their model unless memory leaves no other way, and a try that fails
# costs one of them the time of a short call.
CRITICAL_MEMORY_PAUSE_S = 5.0
# Sizes and cameras are the clients' to choose: forget them all before they fill the memory.
MAX_CACHED = 20_000


class RouteTable:
    """Works out the routes of frames and remembers them until the latencies have moved on.

    Routes stand dearest first, and each is clearly cheaper than the one before. The first is the camera's own model at
    the frame's size; noncritical frames that would keep the device longer than a chunk are cut into tiles there.

    Attributes:
        limits: what devices had no memory for, by bucket and canvas: the largest batch now, and until when that holds.
    """

    def __init__(self, plan: Plan, latency: LatencyModel) -> None:
        """Take the plan, and the model that predicts seconds."""
        self._plan = plan
        self._latency = latency
        self._max_chunk_s = plan.max_chunk_s
        self._defer_above_px = plan.scheduling.defer_above_px
        self._rules: dict[str, CameraRule] = {}
        self.limits: dict[tuple[str, CanvasShape], tuple[int, float]] = {}
        # Of these, what critical frames may try again.
        self._open_to_critical: set[tuple[str, CanvasShape]] = set()
        # By the pattern of a rule, which is one of a kind, the frame's size, and whether it is critical.
        self._routes: dict[tuple[str, tuple[int, int], bool], tuple[Route, ...]] = {}

    def rule_of(self, camera: str) -> CameraRule:
        """The plan's rule for a camera."""
        rule = self._rules.get(camera)
        if rule is None:
            if len(self._rules) >= MAX_CACHED:
                self._rules.clear()
            rule = self._rules[camera] = self._plan.rule_of(camera)
        return rule

    def routes(self, rule: CameraRule, size_hw: tuple[int, int], priority: Priority) -> tuple[Route, ...]:
        """The routes of a frame, dearest first; none if the plan rejects frames of this size."""
        key = (rule.pattern, size_hw, priority is Priority.CRITICAL)
        routes = self._routes.get(key)
        if routes is None:
            if len(self._routes) >= MAX_CACHED:
                self._routes.clear()
            routes = self._routes[key] = self._work_out(rule, size_hw, priority)
        return routes

    def refresh(self, now_s: float) -> None:
        """Work out every route anew when it is next asked for: latencies have moved, and memory may be free again."""
        self._routes.clear()
        if self.limits:
            self.limits = {place: limit for place, limit in self.limits.items() if limit[1] > now_s}
            soon_s = now_s + MEMORY_PAUSE_S - CRITICAL_MEMORY_PAUSE_S
            self._open_to_critical = {place for place, limit in self.limits.items() if limit[1] <= soon_s}

    def limit_batches(self, bucket: str, canvas: CanvasShape, max_batch: int, now_s: float) -> None:
        """A device had no memory for more than this on a canvas, for 0 not even for a frame alone."""
        self.limits[bucket, canvas] = max_batch, now_s + MEMORY_PAUSE_S
        self._open_to_critical.discard((bucket, canvas))
        self._routes.clear()

    def worked(self, bucket: str, canvas: CanvasShape) -> None:
        """A device had memory for a batch on a canvas: what a critical frame has tried is open to the others, alone.

        Not before critical frames may try: where one device of several is short, another's batch says nothing of it.
        """
        place = bucket, canvas
        if place in self._open_to_critical and self.limits[place][0] == 0:
            self.limits[place] = 1, self.limits[place][1]
            self._routes.clear()

    def max_batch(self, route: Route) -> int | None:
        """The largest batch that the devices have memory for on a route's canvas, 1 at least; None: any."""
        limit = self.limits.get((route.bucket, route.canvas))
        return None if limit is None else max(1, limit[0])

    def _work_out(self, rule: CameraRule, size_hw: tuple[int, int], priority: Priority) -> tuple[Route, ...]:
        own = self._own_route(rule, size_hw, priority)
        if own is None:
            return ()
        routes = [own]
        for index, rung in enumerate(self._plan.ladder if rule.degrade else (), 1):
            choice = self._plan.canvas_for(rung.model, size_hw, rung.max_canvas)
            route = self._route(index, choice.bucket, choice.canvas, size_hw, priority, shrunk=choice.shrunk)
            before = routes[-1]
            if route.piece_s < WORTH_DEGRADING * before.work_s:
                routes.append(route)
        # A canvas that does not fit into memory is no way, unless it is the only one.
        fitting = [route for route in routes if self._fits(route, priority)]
        return tuple(fitting or routes[-1:])

    def _fits(self, route: Route, priority: Priority) -> bool:
        place = route.bucket, route.canvas
        if self.limits.get(place, (1, 0.0))[0] > 0:
            return True
        return priority is Priority.CRITICAL and place in self._open_to_critical

    def _own_route(self, rule: CameraRule, size_hw: tuple[int, int], priority: Priority) -> Route | None:
        model = rule.model or self._plan.default_model
        choice = self._plan.canvas_for(model, size_hw)
        whole = self._route(0, choice.bucket, choice.canvas, size_hw, priority, shrunk=choice.shrunk)
        if choice.shrunk and rule.oversize is Oversize.REJECT:
            return None
        if choice.shrunk and rule.oversize is Oversize.TILE:
            return self._tiled(model, size_hw, priority, max_cost_s=None) or whole
        is_long = priority is not Priority.CRITICAL and whole.alone_s > self._max_chunk_s
        if is_long and not choice.shrunk:
            return self._tiled(model, size_hw, priority, max_cost_s=MAX_TILING_COST * whole.alone_s) or whole
        return whole

    def _tiled(
        self, model: str, size_hw: tuple[int, int], priority: Priority, *, max_cost_s: float | None
    ) -> Route | None:
        """The cheapest way to cut the frame into tiles, none longer than a chunk if that can be; None: no way."""
        ways = []
        for bucket, canvas in self._plan.canvases_of(model):
            if min(canvas) <= TILE_OVERLAP_PX or not _is_smaller(canvas, size_hw):
                continue
            windows = tile_windows(size_hw, canvas, TILE_OVERLAP_PX)
            route = self._route(0, bucket, canvas, size_hw, priority, shrunk=False, windows=windows)
            ways.append(((route.alone_s > self._max_chunk_s, route.piece_s * len(windows)), route))
        if not ways:
            return None
        (is_long, cost_s), route = min(ways, key=lambda way: way[0])
        return None if max_cost_s is not None and (is_long or cost_s > max_cost_s) else route

    def _route(
        self,
        rung: int,
        bucket: Bucket,
        canvas: CanvasShape,
        size_hw: tuple[int, int],
        priority: Priority,
        *,
        shrunk: bool,
        windows: tuple[Window, ...] = (),
    ) -> Route:
        seconds = {batch: self._latency.predict_s(bucket.model, canvas, batch) for batch in bucket.batches}
        within = [n for n in bucket.batches if n == 1 or seconds[n] <= self._max_chunk_s]
        best = min(within, key=lambda n: (seconds[n] + CALL_COST_S) / n)
        piece_s, num_pieces = (seconds[best] + CALL_COST_S) / best, len(windows) or 1
        return Route(
            rung=rung,
            lane=LaneKey(bucket.name, canvas, self._lane_class(rung, size_hw, priority, num_pieces, seconds[1])),
            pool=bucket.pool,
            bucket=bucket.name,
            model=bucket.model,
            canvas=canvas,
            windows=windows,
            shrunk=shrunk,
            num_pieces=num_pieces,
            alone_s=seconds[1],
            own_s=seconds[1] * num_pieces,
            piece_s=piece_s,
            work_s=piece_s * num_pieces,
            max_batch=best,
            ladder=tuple(n for n in within if n <= best),
        )

    def _lane_class(
        self, rung: int, size_hw: tuple[int, int], priority: Priority, num_pieces: int, alone_s: float
    ) -> LaneClass:
        """Which lane a frame waits in: large and long ones of the noncritical are deferred."""
        if priority is Priority.CRITICAL:
            return LaneClass.CRITICAL
        is_large = rung == 0 and size_hw[0] * size_hw[1] > self._defer_above_px
        is_long = num_pieces > 1 or alone_s > self._max_chunk_s
        return LaneClass.DEFERRED if is_large or is_long else LaneClass.NORMAL


def _is_smaller(canvas: CanvasShape, size_hw: tuple[int, int]) -> bool:
    """Whether a frame does not fit on the canvas, so that tiles of it make sense."""
    return canvas.height < size_hw[0] or canvas.width < size_hw[1]
