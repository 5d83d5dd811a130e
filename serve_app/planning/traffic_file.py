"""Traffic from files: frame logs, CSV histograms, YAML camera lists. Every error names the file and the line."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path

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
from serve_app.planning.traffic import SizeRate, Traffic, merged
from serve_app.planning.traffic_count import TrafficCount

# Only a slip of the pen passes this.
MAX_CAMERAS = 100_000
# A router writes a record when a frame ends; frames of one batch end together, and are written one after the other.
MAX_BACKWARDS_S = 1.0

LOG_SUFFIXES = (".jsonl", ".log", ".ndjson")
YAML_SUFFIXES = (".yaml", ".yml")
CSV_COLUMNS = ("height", "width", "rate_hz", "priority", "slo_s", "camera")
NEEDED_COLUMNS = CSV_COLUMNS[:3]
CAMERA_KEYS = ("name", "size", "fps", "count", "priority", "slo_s")


def load_traffic(path: Path) -> Traffic:
    """Read the traffic of one file: `.jsonl` a frame log, `.csv` a histogram, `.yaml` a list of cameras.

    Raises:
        InvalidPlanError: not there, of another kind, damaged, or with a value that is not allowed.
    """
    readers = dict.fromkeys(LOG_SUFFIXES, _from_log) | dict.fromkeys(YAML_SUFFIXES, _from_yaml) | {".csv": _from_csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InvalidPlanError(f"traffic {path}: got suffix {path.suffix!r}, allowed are {', '.join(sorted(readers))}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as err:
        raise InvalidPlanError(
            f"traffic {path}: {(err.strerror or str(err)).lower()}; give a frame log, a CSV or a YAML of cameras"
        ) from err
    except ValueError as err:
        raise InvalidPlanError(f"traffic {path}: got bytes that are no text, allowed is UTF-8") from err
    return merged(reader(path, text))


def save_traffic(path: Path, traffic: Traffic) -> None:
    """Write traffic as a CSV that `load_traffic` reads."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for entry in traffic:
        slo_s = "" if entry.slo_s is None else repr(entry.slo_s)
        writer.writerow([*entry.size_hw, repr(entry.rate_hz), entry.priority.value, slo_s, entry.camera or ""])
    path.write_text(out.getvalue(), encoding="utf-8")


def _from_csv(path: Path, text: str) -> Iterator[SizeRate]:
    reader = csv.DictReader(io.StringIO(text, newline=""), restkey="more", skipinitialspace=True, strict=True)
    try:
        columns = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = columns
        missing = [name for name in NEEDED_COLUMNS if name not in columns]
        if missing:
            raise InvalidPlanError(
                f"traffic {path} line 1: got columns {', '.join(columns) or 'none'}, needed are "
                f"{', '.join(NEEDED_COLUMNS)}; name the columns in the first line"
            )
        check_keys(f"traffic {path} line 1", columns, CSV_COLUMNS)
        for row in reader:
            where = f"traffic {path} line {reader.line_num}"
            if "more" in row or None in row.values():
                raise InvalidPlanError(f"{where}: got a number of values other than the {len(columns)} columns allowed")
            values = {name: value.strip() for name, value in row.items()}
            yield SizeRate(
                (side_of(where, "height", values["height"]), side_of(where, "width", values["width"])),
                rate_of(where, "rate_hz", values["rate_hz"]),
                priority_of(where, values.get("priority") or Priority.NORMAL.value),
                slo_of(where, values.get("slo_s") or None),
                values.get("camera") or None,
            )
    except csv.Error as err:
        raise InvalidPlanError(f"traffic {path} line {reader.line_num + 1}: is no CSV ({err})") from err


def _from_yaml(path: Path, text: str) -> Iterator[SizeRate]:
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        items = _camera_nodes(path, loader, root)
        cameras = [(item.start_mark.line + 1, loader.construct_object(item, deep=True)) for item in items]
    except (yaml.YAMLError, ValueError) as err:
        raise InvalidPlanError(f"traffic {path}: is no YAML ({' '.join(str(err).split())[:200]})") from err
    for line, camera in cameras:
        where = f"traffic {path} line {line}"
        if not isinstance(camera, dict):
            raise InvalidPlanError(
                f"{where}: got {camera!r:.80}, allowed is a camera such as {{size: [720, 1280], fps: 5}}"
            )
        check_keys(where, [str(key) for key in camera], CAMERA_KEYS)
        missing = [key for key in ("size", "fps") if key not in camera]
        if missing:
            raise InvalidPlanError(
                f"{where}: {' and '.join(missing)} missing; a camera needs size [height, width] and fps"
            )
        size = camera["size"]
        if not isinstance(size, list) or len(size) != 2:
            refuse(where, "size", size, "[height, width] in px, such as [720, 1280]")
        num_cameras = whole_of(where, "count", camera.get("count", 1), MAX_CAMERAS, "cameras of this kind")
        yield SizeRate(
            (side_of(where, "height", size[0]), side_of(where, "width", size[1])),
            rate_of(where, "fps", camera["fps"]) * num_cameras,
            priority_of(where, camera.get("priority", Priority.NORMAL.value)),
            slo_of(where, camera.get("slo_s")),
            str(camera["name"]) if camera.get("name") is not None else None,
        )


def _camera_nodes(path: Path, loader: yaml.SafeLoader, root: yaml.Node | None) -> list[yaml.Node]:
    """The nodes of the list below `cameras`."""
    if not isinstance(root, yaml.MappingNode):
        raise InvalidPlanError(f"traffic {path}: got no mapping, allowed is one with the key 'cameras'")
    sections = {str(loader.construct_object(key)): value for key, value in root.value}
    check_keys(f"traffic {path} line {root.start_mark.line + 1}", list(sections), ("cameras",))
    cameras = sections.get("cameras")
    if not isinstance(cameras, yaml.SequenceNode) or not cameras.value:
        raise InvalidPlanError(f"traffic {path}: cameras: got none, allowed is a list of one or more")
    return list(cameras.value)


def _from_log(path: Path, text: str) -> Iterator[SizeRate]:
    """Rates are counts over the time between first and last arrival, of all frames that a service could have taken."""
    counts = TrafficCount()
    first_s, last_s, ended_s = math.inf, -math.inf, -math.inf
    # A camera's name may hold what `splitlines` takes for a line break.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"traffic {path} line {number}"
        record = record_of(where, line)
        if not counts.add(where, record):
            continue
        at_s = number_of(where, "at_s", record.get("at_s"), "seconds on the router's clock, which frame logs carry")
        first_s, last_s = min(first_s, at_s), max(last_s, at_s)
        if record.get("outcome") == "finished":
            now_s = at_s + number_of(where, "total_ms", record.get("total_ms"), "milliseconds") / 1000
            if now_s < ended_s - MAX_BACKWARDS_S:
                raise InvalidPlanError(
                    f"{where}: out of order: got a frame that ended at {now_s:.3f} s after one at {ended_s:.3f} s, "
                    "allowed is the log of one router as it wrote it; give each router's log as a file of its own, "
                    "and begin a new one when the machine was restarted"
                )
            ended_s = max(ended_s, now_s)
    if not counts:
        raise InvalidPlanError(f"traffic {path}: got no frames, allowed is a log with two or more")
    if not last_s > first_s:
        raise InvalidPlanError(
            f"traffic {path}: got frames of one moment, a rate needs two that arrived at different times"
        )
    yield from counts.traffic(last_s - first_s)
