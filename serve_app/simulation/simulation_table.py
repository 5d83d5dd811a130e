"""The figures of simulations as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from serve_app.simulation.simulation_report import ClassFigures, SimulationReport
from serve_app.verdicts import Outcome, VerdictKind

PERCENTILES = (50, 95, 99)
# A smaller share in time is something to look at.
GOOD_SHARE = 0.95


def class_table(report: SimulationReport) -> Table:
    """One row a class: latencies and the share in time; as all tables here at most 80 columns wide for usual values."""
    table = _table("class", "frames", "in time", "good/s", *(f"p{p} ms" for p in PERCENTILES), "lower rung")
    for figures in report.classes:
        table.add_row(
            _class(figures),
            f"{figures.num_frames:,}",
            _share(figures.in_time_fraction),
            f"{figures.goodput_hz:,.1f}",
            *(_ms(figures.latency_s(percent / 100)) for percent in PERCENTILES),
            f"{figures.lower_rung_fraction:.1%}",
        )
    return table


def ends_table(report: SimulationReport) -> Table:
    """One row a class: what admission decided, and how its frames ended; what never happened has no column."""
    verdicts = [kind.value for kind in VerdictKind if any(kind.value in each.verdicts for each in report.classes)]
    outcomes = [kind.value for kind in Outcome if any(kind.value in each.outcomes for each in report.classes)]
    table = _table("class", *verdicts, "→", *outcomes)
    for figures in report.classes:
        decided = [f"{figures.verdicts.get(name, 0):,}" for name in verdicts]
        table.add_row(_class(figures), *decided, "", *(f"{figures.outcomes.get(name, 0):,}" for name in outcomes))
    return table


def pool_table(report: SimulationReport) -> Table:
    """One row a pool: replicas, device use, batches."""
    table = _table("pool", "replicas", "device use", "batches", "mean batch", "batches by size")
    for pool in report.pools:
        table.add_row(
            escape(pool.name),
            str(pool.num_replicas) if pool.scaling is None else f"{pool.scaling.least}–{pool.scaling.most}",
            f"{pool.use_fraction:.1%}",
            f"{pool.num_batches:,}",
            f"{pool.mean_batch:.2f}",
            _counts({str(size): count for size, count in pool.batch_counts.items()}),
        )
    return table


def scaling_table(report: SimulationReport) -> Table | None:
    """One row a pool that grew and shrank: its size, what it cost beside who knew the future; None if all kept theirs.

    `optimum s` are the clairvoyant's replica-seconds, `of it` ours as a multiple of them.
    """
    table = _table("pool", "least", "mean", "most", "changes", "replica s", "optimum s", "of it")
    for pool in report.pools:
        if pool.scaling is not None:
            figures = pool.scaling
            table.add_row(
                escape(pool.name), str(figures.least), f"{figures.mean:.2f}", str(figures.most),
                str(figures.num_changes), f"{figures.replica_s:,.0f}", f"{figures.clairvoyant_s:,.0f}",
                f"{figures.ratio:.2f}",
            )  # fmt: skip
    return table if table.row_count else None


def sweep_table(reports: Sequence[SimulationReport]) -> Table:
    """One row a load.

    `of full`: offered device seconds, in full batches, of all there are; `critical` and `normal`: in time; `p99 ms` of
    the critical; `light`: of the normal on a lower rung; `use` of the devices; `batch`: the mean.
    """
    table = _table(
        "load", "offered/s", "of full", "good/s", "in time", "critical", "normal", "p99 ms", "light", "use", "batch"
    )  # fmt: skip
    for report in reports:
        critical, normal = report.class_named("critical"), report.class_named("normal")
        replicas = sum(pool.mean_replicas for pool in report.pools)
        use = sum(pool.use_fraction * pool.mean_replicas for pool in report.pools) / (replicas or 1)
        table.add_row(
            f"{report.load:g}",
            f"{report.offered_hz:,.1f}",
            f"{report.offered_use:.2f}",
            f"{report.goodput_hz:,.1f}",
            _share(report.in_time_fraction),
            _in_time(critical),
            _in_time(normal),
            _ms(critical.latency_s(0.99)) if critical else "–",
            f"{normal.lower_rung_fraction:.0%}" if normal else "–",
            f"{use:.0%}",
            f"{report.mean_batch:.2f}",
        )
    return table


def summary_line(report: SimulationReport) -> str:
    """What no table says."""
    deepest = {name: max(depths) for name, depths in report.queue.depths.items()}
    return (
        f"{report.num_frames:,} frames in {report.duration_s:,.1f} s ({report.offered_hz:,.1f}/s, "
        f"{report.offered_use:.2f} of the capacity in full batches): {report.goodput_hz:,.1f}/s in time, "
        f"padding {report.padding_fraction:.1%}, deepest queues: {_counts(deepest)}"
    )


def _table(*headings: str) -> Table:
    table = Table(header_style="bold", box=None, padding=(0, 1, 0, 0))
    for index, heading in enumerate(headings):
        is_text = index == 0 or heading == "batches by size"
        table.add_column(heading, justify="left" if is_text else "right", overflow="fold", no_wrap=not is_text)
    return table


def _class(figures: ClassFigures) -> str:
    return f"[bold]{figures.name}[/]" if figures.name == "critical" else figures.name


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "–"


def _in_time(figures: ClassFigures | None) -> str:
    return _share(figures.in_time_fraction) if figures else "–"


def _share(fraction: float) -> str:
    text = f"{fraction:.2%}" if 0.99 < fraction < 1 else f"{fraction:.1%}"
    return text if fraction > GOOD_SHARE else f"[bold yellow]{text}[/]"


def _ms(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds * 1000:,.1f}"
