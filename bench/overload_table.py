"""The rows that `overload.py` prints: one a system and load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cpu_use import ENGINE
from overload_figures import Figures

COLUMNS = (
    ("system", 20),
    ("load", 5),
    ("offered/s", 9),
    ("good/s", 7),
    ("of offered", 10),
    ("of capacity", 11),
    ("crit in time", 12),
    ("crit lost", 9),
    ("crit p50/p95/p99 ms", 19),
    ("normal p50/p95 ms", 17),
    ("lower rung", 10),
    ("batch", 5),
    ("CPU ms/frame: outside, engine", 29),
)
NONE = "–"


@dataclass(frozen=True, slots=True)
class Row:
    """One run.

    Attributes:
        system, load: of what.
        capacity_hz: what a load of 1 is.
        figures: of its frames.
        cpu_s: CPU seconds by role, from the first frame to the last answer; None of a simulated run.
        others_cores: how many cores others kept busy meanwhile.
    """

    system: str
    load: float
    capacity_hz: float
    figures: Figures
    cpu_s: Mapping[str, float] | None = None
    others_cores: float = 0.0

    @property
    def cpu_outside_ms(self) -> float | None:
        """CPU ms for each frame offered, of all processes but the engine's replica; the cameras' own included."""
        if self.cpu_s is None or not self.figures.num_offered:
            return None
        return 1000 * (sum(self.cpu_s.values()) - self.cpu_s.get(ENGINE, 0.0)) / self.figures.num_offered

    @property
    def cpu_engine_ms(self) -> float | None:
        """CPU ms for each frame offered, of the engine's replica."""
        if self.cpu_s is None or not self.figures.num_offered:
            return None
        return 1000 * self.cpu_s.get(ENGINE, 0.0) / self.figures.num_offered


def header() -> str:
    """The names of the columns."""
    return "  ".join(name.rjust(width) for name, width in COLUMNS)


def line(row: Row) -> str:
    """One row, and below it the outcomes, and what else a reader must know."""
    figures = row.figures
    share = figures.num_good / figures.num_offered if figures.num_offered else None
    cells = (
        row.system,
        f"{row.load:g}",
        f"{figures.offered_hz:.1f}",
        f"{figures.good_hz:.1f}",
        _percent(share),
        _percent(figures.good_hz / row.capacity_hz),
        _percent(figures.critical_in_time_fraction),
        str(figures.num_critical_lost),
        "/".join(map(_ms, (figures.critical.p50_s, figures.critical.p95_s, figures.critical.p99_s))),
        "/".join(map(_ms, (figures.normal.p50_s, figures.normal.p95_s))),
        _percent(figures.lower_rung_fraction),
        NONE if figures.mean_batch is None else f"{figures.mean_batch:.2f}",
        ", ".join(NONE if ms is None else f"{ms:.1f}" for ms in (row.cpu_outside_ms, row.cpu_engine_ms)),
    )
    text = "  ".join(cell.rjust(width) for cell, (_, width) in zip(cells, COLUMNS, strict=True))
    return f"{text}\n{'':22}{_remarks(row)}"


def _remarks(row: Row) -> str:
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in row.figures.outcomes.items())
    remarks = [outcomes, f"{row.figures.num_critical} critical", f"sent late p99 {_ms(row.figures.send_late_p99_s)} ms"]
    if row.cpu_s is not None:
        by_use = sorted(row.cpu_s.items(), key=lambda item: -item[1])
        remarks.append("CPU s: " + ", ".join(f"{role} {used_s:.2f}" for role, used_s in by_use))
        remarks.append(f"others kept {row.others_cores:.2f} cores busy")
    return "; ".join(remarks)


def _percent(fraction: float | None) -> str:
    return NONE if fraction is None else f"{100 * fraction:.1f} %"


def _ms(seconds: float | None) -> str:
    return NONE if seconds is None else f"{1000 * seconds:.0f}"
