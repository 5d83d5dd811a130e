"""Traces from files: a router's frame log, or the YAML of a fleet. Every error names the file and the line."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import yaml

from serve_app.errors import InvalidPlanError
from serve_app.file_fields import (
    check_keys,
    number_of,
    priority_of,
    rate_of,
    record_of,
    refuse,
    side_of,
    slo_of,
    whole_of,
)
from serve_app.frames import Priority
from serve_app.planning.traffic import SizeHw
from serve_app.planning.traffic_file import LOG_SUFFIXES, MAX_BACKWARDS_S, MAX_CAMERAS, YAML_SUFFIXES
from serve_app.simulation.traces import DAY_S, Bursts, CameraGroup, DayCurve, FleetSpec, Trace, TraceSource

FLEET_KEYS = ("fleet", "seconds", "day", "jitter", "seed")
GROUP_KEYS = ("name", "count", "size", "fps", "critical_share", "slo_s", "burst")
BURST_KEYS = ("every_s", "length_s", "factor")
DAY_KEYS = ("factors", "length_s")
MAX_SEED = 2**32 - 1


def load_trace(path: Path) -> TraceSource:
    """Read a trace: `.jsonl` a frame log, `.yaml` a synthetic fleet.

    Raises:
        InvalidPlanError: not there, of another kind, damaged, or with a value that is not allowed.
    """
    suffix = path.suffix.lower()
    if suffix not in LOG_SUFFIXES + YAML_SUFFIXES:
        allowed = ", ".join(LOG_SUFFIXES + YAML_SUFFIXES)
        raise InvalidPlanError(f"trace {path}: got suffix {path.suffix!r}, allowed are {allowed}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as err:
        raise InvalidPlanError(
            f"trace {path}: {(err.strerror or str(err)).lower()}; give a frame log or the YAML of a fleet"
        ) from err
    except ValueError as err:
        raise InvalidPlanError(f"trace {path}: got bytes that are no text, allowed is UTF-8") from err
    return _from_log(path, text) if suffix in LOG_SUFFIXES else _from_yaml(path, text)


class _Columns:
    """The columns of a log as they grow."""

    def __init__(self) -> None:
        self.at_s: list[float] = []
        self.camera: list[int] = []
        self.size: list[int] = []
        self.is_critical: list[bool] = []
        self.slo_s: list[float] = []
        self._cameras: dict[str, int] = {}
        self._sizes: dict[SizeHw, int] = {}

    def add(self, where: str, record: Mapping[str, object], at_s: float) -> None:
        """One frame."""
        size = record.get("source_hw")
        if not isinstance(size, list) or len(size) != 2:
            refuse(where, "source_hw", size, "[height, width] in px")
        size_hw = (side_of(where, "source_hw height", size[0]), side_of(where, "source_hw width", size[1]))
        slo_s = slo_of(where, record.get("slo_s"))
        camera = str(record.get("camera"))
        self.at_s.append(at_s)
        self.camera.append(self._cameras.setdefault(camera, len(self._cameras)))
        self.size.append(self._sizes.setdefault(size_hw, len(self._sizes)))
        self.is_critical.append(priority_of(where, record.get("priority")) is Priority.CRITICAL)
        self.slo_s.append(math.nan if slo_s is None else slo_s)

    def trace(self) -> Trace:
        """All of them in the order of arrival, from 0 s; the last one is followed by the mean time between two."""
        at_s = np.asarray(self.at_s)
        order = np.argsort(at_s, kind="stable")
        at_s = at_s[order] - at_s.min()
        duration_s = float(at_s[-1]) * len(at_s) / (len(at_s) - 1)
        return Trace(
            at_s, np.asarray(self.camera, np.int32)[order], np.asarray(self.size, np.int32)[order],
            np.asarray(self.is_critical, np.bool_)[order], np.asarray(self.slo_s, np.float64)[order],
            tuple(self._cameras), tuple(self._sizes), duration_s,
        )  # fmt: skip


def _from_log(path: Path, text: str) -> Trace:
    """All frames but those that were refused unread, for what their client said of them.

    A router writes a record when the frame ends, so records stand in the order of ends; those without `total_ms`,
    which no router wrote, must stand in the order of arrival.
    """
    columns = _Columns()
    ended_s = -math.inf
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"trace {path} line {number}"
        record = record_of(where, line)
        at_s = number_of(where, "at_s", record.get("at_s"), "seconds on the router's clock, which frame logs carry")
        took_ms = record.get("total_ms")
        now_s = at_s + (0.0 if took_ms is None else number_of(where, "total_ms", took_ms, "milliseconds") / 1000)
        allowed_s = 0.0 if took_ms is None else MAX_BACKWARDS_S
        if now_s < ended_s - allowed_s:
            raise InvalidPlanError(
                f"{where}: out of order: got a frame of {now_s:.3f} s after one of {ended_s:.3f} s, allowed is the "
                "log of one router as it wrote it, or frames in the order of at_s; sort it, give each router's log "
                "as a file of its own, and begin a new one when the machine was restarted"
            )
        ended_s = max(ended_s, now_s)
        if record.get("outcome") == "rejected" and record.get("verdict") is None:
            continue
        columns.add(where, record, at_s)
    if not columns.at_s:
        raise InvalidPlanError(f"trace {path}: got no frames, allowed is a log with two or more")
    if not max(columns.at_s) > min(columns.at_s):
        raise InvalidPlanError(f"trace {path}: got frames of one moment, a trace needs two different times")
    return columns.trace()


def _from_yaml(path: Path, text: str) -> FleetSpec:
    where = f"trace {path}"
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode):
            raise InvalidPlanError(f"{where}: got no mapping, allowed is one with the key 'fleet'")
        nodes = {str(loader.construct_object(key)): value for key, value in root.value}
        check_keys(f"{where} line {root.start_mark.line + 1}", [str(key.value) for key, _ in root.value], FLEET_KEYS)
        groups_node = nodes.pop("fleet", None)
        if not isinstance(groups_node, yaml.SequenceNode) or not groups_node.value:
            raise InvalidPlanError(f"{where}: fleet: got none, allowed is a list of one or more groups of cameras")
        groups = [(n.start_mark.line + 1, loader.construct_object(n, deep=True)) for n in groups_node.value]
        others = {
            key: (f"{where} line {node.start_mark.line + 1}", loader.construct_object(node, deep=True))
            for key, node in nodes.items()
        }
    except (yaml.YAMLError, ValueError) as err:
        raise InvalidPlanError(f"{where}: is no YAML ({' '.join(str(err).split())[:200]})") from err
    return _fleet(where, groups, others)


def _fleet(where: str, groups: list[tuple[int, object]], others: dict[str, tuple[str, object]]) -> FleetSpec:
    spec = FleetSpec(tuple(_group(f"{where} line {line}", index, each) for index, (line, each) in enumerate(groups)))
    for key, (at, value) in others.items():
        if key == "seconds":
            spec = dataclasses.replace(spec, duration_s=_positive(at, key, value))
        elif key == "jitter":
            spec = dataclasses.replace(spec, jitter_fraction=_share(at, key, value, 0.5))
        elif key == "seed":
            spec = dataclasses.replace(spec, seed=whole_of(at, key, value, MAX_SEED, "any kind"))
        else:
            spec = dataclasses.replace(spec, day=_day(at, value))
    return spec


def _group(where: str, index: int, values: object) -> CameraGroup:
    group = _mapping(where, "group", values, GROUP_KEYS, "{count: 40, size: [720, 1280], fps: 5}")
    missing = [key for key in ("size", "fps") if key not in group]
    if missing:
        raise InvalidPlanError(f"{where}: {' and '.join(missing)} missing; cameras need size [height, width] and fps")
    size = group["size"]
    if not isinstance(size, list) or len(size) != 2:
        refuse(where, "size", size, "[height, width] in px, such as [720, 1280]")
    slos_s: Mapping[str, object] = {}
    if group.get("slo_s") is not None:
        names = tuple(priority.value for priority in Priority)
        slos_s = _mapping(where, "slo_s", group["slo_s"], names, "{critical: 0.2, normal: 1.0}")
    return CameraGroup(
        str(group.get("name", f"group{index + 1}")),
        whole_of(where, "count", group.get("count", 1), MAX_CAMERAS, "cameras of this kind"),
        (side_of(where, "height", size[0]), side_of(where, "width", size[1])),
        rate_of(where, "fps", group["fps"]),
        _share(where, "critical_share", group.get("critical_share", 0.0), 1.0),
        slo_of(where, slos_s.get(Priority.CRITICAL.value)),
        slo_of(where, slos_s.get(Priority.NORMAL.value)),
        _bursts(where, group["burst"]) if group.get("burst") is not None else None,
    )


def _bursts(where: str, values: object) -> Bursts:
    burst = _mapping(where, "burst", values, BURST_KEYS, "{every_s: 30, length_s: 2, factor: 4}")
    missing = [key for key in BURST_KEYS if key not in burst]
    if missing:
        raise InvalidPlanError(f"{where}: burst: {' and '.join(missing)} missing")
    every_s, length_s = (_positive(where, f"burst.{key}", burst[key]) for key in BURST_KEYS[:2])
    factor = number_of(where, "burst.factor", burst["factor"], "times the rate")
    if length_s >= every_s or factor < 0:
        refuse(where, "burst", dict(burst), "a length_s below every_s and a factor of 0 or more")
    return Bursts(every_s, length_s, factor)


def _day(where: str, values: object) -> DayCurve:
    day = _mapping(where, "day", values, DAY_KEYS, "{factors: [0.2, 1, 0.6], length_s: 600}")
    factors = day.get("factors")
    if not isinstance(factors, list) or len(factors) < 2:
        refuse(where, "day.factors", factors, "a list of two or more numbers, midnight to midnight")
    numbers = tuple(number_of(where, "day.factors", factor, "times the rate") for factor in factors)
    if min(numbers) < 0 or max(numbers) <= 0:
        refuse(where, "day.factors", factors, "numbers of 0 or more, one of them above")
    return DayCurve(numbers, _positive(where, "day.length_s", day.get("length_s", DAY_S)))


def _mapping(where: str, what: str, values: object, keys: tuple[str, ...], example: str) -> Mapping[str, object]:
    if not isinstance(values, dict):
        refuse(where, what, values, f"a mapping such as {example}")
    check_keys(f"{where}: {what}", [str(key) for key in values], keys)
    return values


def _positive(where: str, what: str, value: object) -> float:
    number = number_of(where, what, value, "seconds above 0")
    if number <= 0:
        refuse(where, what, value, "a number of seconds above 0")
    return number


def _share(where: str, what: str, value: object, most: float) -> float:
    number = number_of(where, what, value, f"0 to {most:g}")
    if not 0 <= number <= most:
        refuse(where, what, value, f"a number from 0 to {most:g}")
    return number
