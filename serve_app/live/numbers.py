"""What the page shows, as one JSON object a look: sums over routers, and rates and quantiles over the last while.

Pure: looks and the time go in, values come out.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engines.spec import CanvasShape
from serve_app.frames import Priority
from serve_app.live.camera_book import LANES
from serve_app.live.live_report import CameraSeen, FlowKey, LiveReport
from serve_app.live.spread import Spread, summed
from serve_app.memory_level import MemoryLevel
from serve_app.plan import Plan
from serve_app.results import ServiceStatus
from serve_app.service_view import ServiceView, rates, view_as_json

# Rates follow what happens; a p99 needs many frames.
RATES_OVER_S = 10.0
QUANTILES_OVER_S = 60.0
# What the charts show.
HISTORY_S = 180.0

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    at_s: float
    status: ServiceStatus
    reports: Mapping[str, LiveReport]


class Numbers:
    """Makes each look an object for the page, and remembers looks for as long as rates and quantiles need them."""

    def __init__(self, key_of: Callable[[str], str]) -> None:
        """Take what gives cameras the keys by which pages ask for pictures."""
        self._key_of = key_of
        self._looks: deque[_Look] = deque()
        self.history: deque[Json] = deque()

    def taken(
        self, plan: Plan, view: ServiceView, reports: Sequence[LiveReport], pictures: Mapping[str, str], now_s: float
    ) -> Json:
        """What the page shows of a look; its `point` is the newest of the history.

        Args:
            plan: what is served.
            view: what `framelane status` shows.
            reports: of all routers.
            pictures: by camera, the id of the frame whose picture there is.
            now_s: when, on a clock that cannot be set.
        """
        look = _Look(now_s, view.status, {report.router: report for report in reports})
        while self._looks and now_s - self._looks[0].at_s > QUANTILES_OVER_S:
            self._looks.popleft()
        recent = next((each for each in self._looks if now_s - each.at_s <= RATES_OVER_S), None)
        per_second = rates(view.status, recent.status if recent else None)
        earlier = self._looks[0] if self._looks else None
        shown = view_as_json(view, per_second)
        shown["rates"]["since_start"] = per_second.since_start
        shown["frames_hz"] = round(per_second.frames_hz, 4)
        shown["revision"] = view.status.revision
        shown["classes"] = classes(plan, look, earlier)
        shown["flows"] = flows(look, recent)
        shown["cameras"] = self._cameras(look, recent, pictures)
        shown["ladder"] = [
            f"{rung.model} ≤ {canvas_text(rung.max_canvas)}" if rung.max_canvas else rung.model for rung in plan.ladder
        ]
        shown["memory_marks"] = {
            level.name.lower(): plan.memory.begin_of(level) for level in MemoryLevel if level is not MemoryLevel.NORMAL
        }
        shown["buckets"] = [
            {"bucket": bucket.name, "pool": bucket.pool, "model": bucket.model, "canvases": _texts(bucket.canvases)}
            for bucket in plan.buckets
        ]
        self._looks.append(look)
        shown["point"] = self._point(shown, now_s)
        return shown

    def _point(self, shown: Json, now_s: float) -> Json:
        point = {
            "at_s": round(now_s, 3),
            "outcomes_hz": shown["rates"]["outcomes_hz"],
            "frames_hz": shown["frames_hz"],
            "p99_s": {each["class"]: each["recent"]["p99_s"] for each in shown["classes"]},
            "p50_s": {each["class"]: each["recent"]["p50_s"] for each in shown["classes"]},
        }
        self.history.append(point)
        while now_s - self.history[0]["at_s"] > HISTORY_S:
            self.history.popleft()
        return point

    def _cameras(self, look: _Look, before: _Look | None, pictures: Mapping[str, str]) -> list[Json]:
        seen: dict[str, CameraSeen] = {}
        num_ended: Counter[str] = Counter()
        num_finished: Counter[str] = Counter()
        for report in look.reports.values():
            for camera in report.cameras:
                num_ended[camera.camera] += camera.num_ended
                num_finished[camera.camera] += camera.num_finished
                if camera.camera not in seen or camera.age_s < seen[camera.camera].age_s:
                    seen[camera.camera] = camera
        hz = _camera_hz(look, before)
        return [
            {
                "key": self._key_of(name),
                "name": name,
                "priority": camera.priority,
                "size": size_text(camera.size_hw),
                "canvas": None if camera.canvas is None else canvas_text(camera.canvas),
                "bucket": camera.bucket,
                "pool": camera.pool,
                "model": camera.model,
                "outcome": camera.outcome,
                "verdict": camera.verdict,
                "rung": camera.rung,
                "num_tiles": camera.num_tiles,
                "num_boxes": camera.num_boxes,
                "total_s": _rounded(camera.total_s),
                "age_s": round(camera.age_s, 2),
                "num_ended": num_ended[name],
                "num_finished": num_finished[name],
                "hz": hz.get(name),
                "picture": pictures.get(name),
            }
            for name, camera in sorted(seen.items())
        ]


def classes(plan: Plan, look: _Look, before: _Look | None) -> list[Json]:
    """By lane class: how long finished frames took and waited, since the start and of late."""
    found = []
    for lane in LANES:
        priority = Priority.CRITICAL if lane == Priority.CRITICAL.value else Priority.NORMAL
        found.append(
            {
                "class": lane,
                "slo_s": plan.slo_s[priority],
                "ever": _times(look, None, lane),
                "recent": _times(look, before, lane),
                "over_s": round(look.at_s - before.at_s, 1) if before else None,
            }
        )
    return found


def _times(look: _Look, before: _Look | None, lane: str) -> Json:
    total_s, queue_s = [], []
    for router, report in look.reports.items():
        earlier = before.reports.get(router) if before else None
        nothing = Spread()
        total_s.append(report.total_s.get(lane, nothing).since(earlier.total_s.get(lane) if earlier else None))
        queue_s.append(report.queue_s.get(lane, nothing).since(earlier.queue_s.get(lane) if earlier else None))
    total, queue = summed(total_s), summed(queue_s)
    return {
        "num_frames": total.num_values,
        "p50_s": _rounded(total.quantile_s(0.5)),
        "p99_s": _rounded(total.quantile_s(0.99)),
        "queue_p50_s": _rounded(queue.quantile_s(0.5)),
        "queue_p99_s": _rounded(queue.quantile_s(0.99)),
        "mean_s": _rounded(total.sum_s / total.num_values if total.num_values else None),
    }


def flows(look: _Look, before: _Look | None) -> list[Json]:
    """The ways that finished frames went, the most used first: how many so far, and how many a second of late."""
    now = _flow_counts(look.reports.values())
    grown: Counter[FlowKey] = Counter()
    for router, report in look.reports.items():
        earlier = before.reports.get(router) if before else None
        for key, count in report.flows.items():
            grown[key] += _growth(count, earlier.flows.get(key, 0) if earlier else 0)
    over_s = look.at_s - before.at_s if before else look.status.uptime_s
    return [
        {
            "size": size_text(key.size_hw) if key.size_hw != (0, 0) else "other sizes",
            "size_px": key.size_hw[0] * key.size_hw[1],
            "canvas": canvas_text(key.canvas),
            "canvas_px": key.canvas.num_px,
            "bucket": key.bucket,
            "pool": key.pool,
            "is_tiled": key.is_tiled,
            "num_frames": count,
            "hz": round(grown[key] / max(over_s, 1e-9), 4),
        }
        for key, count in now.most_common()
    ]


def size_text(size_hw: tuple[int, int]) -> str:
    """As people say it: width × height."""
    return f"{size_hw[1]}×{size_hw[0]}"


def canvas_text(canvas: CanvasShape) -> str:
    """As people say it: width × height."""
    return size_text((canvas.height, canvas.width))


def _flow_counts(reports: Iterable[LiveReport]) -> Counter[FlowKey]:
    counts: Counter[FlowKey] = Counter()
    for report in reports:
        counts.update(report.flows)
    return counts


def _camera_hz(look: _Look, before: _Look | None) -> dict[str, float]:
    """Frames that ended a second, by camera; without an earlier look nobody knows."""
    if before is None or look.at_s <= before.at_s:
        return {}
    grown: Counter[str] = Counter()
    for router, report in look.reports.items():
        earlier = before.reports.get(router)
        then = {camera.camera: camera.num_ended for camera in earlier.cameras} if earlier else {}
        for camera in report.cameras:
            grown[camera.camera] += _growth(camera.num_ended, then.get(camera.camera, 0))
    return {name: round(count / (look.at_s - before.at_s), 4) for name, count in grown.items()}


def _growth(now: int, before: int) -> int:
    """How much was added; all of it when the count began anew."""
    return now - before if now >= before else now


def _texts(canvases: Sequence[CanvasShape]) -> list[str]:
    return [canvas_text(canvas) for canvas in canvases]


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
