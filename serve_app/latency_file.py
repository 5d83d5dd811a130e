"""Latency tables as JSON files."""

from __future__ import annotations

import json
import math
from pathlib import Path

from engines.spec import CanvasShape
from serve_app.errors import InvalidPlanError
from serve_app.latency import Latency, LatencyKey, LatencyTable, Origin

VERSION = 1


def save_table(path: Path, table: LatencyTable) -> None:
    """Write a table; readers see the old one or the new one, never half of it."""
    content = {
        "version": VERSION,
        "machine": table.machine,
        "origin": table.origin.value,
        "entries": [
            {
                "model": key.model,
                "canvas_hw": list(key.canvas),
                "batch": key.batch,
                "run_ms": round(latency.run_s * 1000, 4),
                "spread_ms": round(latency.spread_s * 1000, 4),
                "num_samples": latency.num_samples,
            }
            for key, latency in sorted(table.entries.items())
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(path)


def load_table(path: Path, *, machine: str | None, force: bool = False) -> LatencyTable:
    """Read a table.

    Args:
        path: a file that `save_table` wrote.
        machine: where it is to be used; a table that was measured elsewhere is refused. None: it cannot be told here.
        force: take it all the same.

    Raises:
        InvalidPlanError: missing, damaged, or measured on another machine.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != VERSION:
            raise ValueError(f"version: got {content['version']!r}, allowed is {VERSION}")
        entries = dict(map(_entry, content["entries"]))
        table = LatencyTable(str(content["machine"]), Origin(content["origin"]), entries)
    except OSError as err:
        raise InvalidPlanError(
            f"latency table {path}: {(err.strerror or str(err)).lower()}; make one with: framelane profile"
        ) from err
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as err:
        raise InvalidPlanError(
            f"latency table {path}: got no sound table ({type(err).__name__}: {str(err)[:120]}); "
            "make one with: framelane profile"
        ) from err
    if not entries:
        raise InvalidPlanError(f"latency table {path}: got no entries, allowed is one or more; run framelane profile")
    if table.origin is Origin.MEASURED and machine not in (None, table.machine) and not force:
        raise InvalidPlanError(
            f"latency table {path}: got one measured on {table.machine!r}, allowed is one of this machine, "
            f"{machine!r}; run framelane profile here, or take it all the same with --force"
        )
    return table


def _entry(entry: dict[str, object]) -> tuple[LatencyKey, Latency]:
    """One line of the file; raises `ValueError`, `KeyError` or `TypeError`."""
    height, width = entry["canvas_hw"]  # type: ignore[misc]
    key = LatencyKey(str(entry["model"]), CanvasShape(int(height), int(width)), int(entry["batch"]))  # type: ignore[call-overload, has-type]
    run_s, spread_s = float(entry["run_ms"]) / 1000, float(entry["spread_ms"]) / 1000  # type: ignore[arg-type]
    if min(key.canvas) < 1 or key.batch < 1 or not 0 < run_s < math.inf or not 0 <= spread_s < math.inf:
        raise ValueError(f"entry {entry}: sides, batch and milliseconds must be above 0")
    return key, Latency(run_s, spread_s, int(entry["num_samples"]))  # type: ignore[call-overload]
