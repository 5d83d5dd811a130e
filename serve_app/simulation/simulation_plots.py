"""Pictures of simulations: latencies, queues, batches of one run; a sweep over loads. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from serve_app.plot_file import save_plot
from serve_app.simulation.simulation_report import CLASSES, ClassFigures, SimulationReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that colour-blind people tell apart (Okabe & Ito 2008).
COLOURS = {"critical": "#D55E00", "normal": "#0072B2", "deferred": "#009E73", "all": "#444444"}
POOL_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
# More deadlines of one class would be a fence, not marks.
MAX_DEADLINES = 4


def save_plots(folder: Path, reports: Sequence[SimulationReport], label: str) -> tuple[Path, ...]:
    """Draw one run, or several of one sweep, into PNGs.

    Args:
        folder: made if it is not there.
        reports: one or more; of several the sweep is drawn.
        label: what was simulated and where the latencies come from; stands below every picture.

    Returns:
        The files.

    Raises:
        FramelaneError: no matplotlib, or a file cannot be written.
    """
    one = reports[0]
    if len(reports) > 1:
        return (save_plot(folder / "sweep.png", (11.0, 4.6), label, lambda figure: _draw_sweep(figure, reports)),)
    files: tuple[Path, ...] = (
        save_plot(folder / "latency.png", (9.0, 5.0), label, lambda figure: _draw_latencies(figure, one)),
        save_plot(folder / "queue.png", (9.0, 4.4), label, lambda figure: _draw_queue(figure, one)),
        save_plot(folder / "batches.png", (9.0, 4.4), label, lambda figure: _draw_batches(figure, one)),
    )
    if any(pool.scaling is not None for pool in one.pools):
        files += (save_plot(folder / "replicas.png", (9.0, 4.4), label, lambda figure: _draw_replicas(figure, one)),)
    return files


def _draw_latencies(figure: Figure, report: SimulationReport) -> None:
    axes = _axes(
        figure, "Latency from arrival to answer, by class", "milliseconds", "share of all frames answered by then"
    )
    for figures in report.classes:
        if not figures.quantiles_s:
            continue
        # Frames that never finished are missing at the top, so a curve ends at the share that did.
        shares = np.linspace(0, 1, len(figures.quantiles_s)) * figures.outcomes.get("finished", 0) / figures.num_frames
        name = f"{figures.name}: {figures.in_time_fraction:.1%} of {figures.num_frames:,} in time"
        axes.plot(np.asarray(figures.quantiles_s) * 1000, shares, color=COLOURS[figures.name], lw=2, label=name)
        _mark_deadlines(axes, figures)
    axes.set_xscale("log")
    axes.set_ylim(0, 1.02)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    if axes.lines:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), frameon=False, fontsize=9, ncols=len(CLASSES))


def _mark_deadlines(axes: Axes, figures: ClassFigures) -> None:
    for slo_s in figures.slos_s[:MAX_DEADLINES]:
        axes.axvline(slo_s * 1000, color=COLOURS[figures.name], lw=1, ls=":")
        axes.annotate(
            f"{figures.name} deadline",
            (slo_s * 1000, 0.02 + 0.3 * CLASSES.index(figures.name)),
            xytext=(-3, 0),
            textcoords="offset points",
            rotation=90,
            ha="right",
            va="bottom",
            fontsize=7.5,
            color=COLOURS[figures.name],
        )


def _draw_queue(figure: Figure, report: SimulationReport) -> None:
    axes = _axes(figure, "Frames that wait in the lanes", "seconds", "frames")
    times_s = np.asarray(report.queue.times_s)
    names = [name for name in CLASSES if name in report.queue.depths]
    depths = [np.asarray(report.queue.depths[name]) for name in names]
    axes.stackplot(
        times_s, *depths, labels=[f"{name}, at most {max(report.queue.depths[name]):,}" for name in names],
        colors=[COLOURS[name] for name in names], alpha=0.85, step="post",
    )  # fmt: skip
    axes.axvline(report.duration_s, color="#444444", lw=1, ls=":")
    axes.annotate(
        "cameras stop", (report.duration_s, 0.97), xycoords=("data", "axes fraction"), xytext=(-3, 0),
        textcoords="offset points", rotation=90, ha="right", va="top", fontsize=7.5, color="#444444",
    )  # fmt: skip
    axes.set_xlim(0, float(times_s[-1]))
    axes.set_ylim(bottom=0, top=max(1.0, 1.15 * float(np.sum(depths, axis=0).max())) if depths else 1.0)
    axes.legend(loc="upper left", frameon=False, fontsize=9, ncols=len(names) or 1)


def _draw_batches(figure: Figure, report: SimulationReport) -> None:
    axes = _axes(figure, "Frames by the size of the batch they went in", "batch size", "share of the pool's frames")
    sizes = sorted({size for pool in report.pools for size in pool.batch_counts})
    width = 0.8 / len(report.pools)
    for index, pool in enumerate(report.pools):
        frames = np.array([size * pool.batch_counts.get(size, 0) for size in sizes], np.float64)
        shares = frames / max(1.0, frames.sum())
        places = np.arange(len(sizes)) + (index - (len(report.pools) - 1) / 2) * width
        name = f"{pool.name}: mean batch {pool.mean_batch:.2f}, device use {pool.use_fraction:.0%}"
        bars = axes.bar(places, shares, 0.92 * width, color=POOL_COLOURS[index % len(POOL_COLOURS)], label=name)
        axes.bar_label(bars, [f"{share:.0%}" for share in shares], fontsize=8, padding=2)
    axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.margins(y=0.2)
    axes.grid(visible=False, axis="x")
    axes.legend(loc="upper left", frameon=False, fontsize=9)


def _draw_replicas(figure: Figure, report: SimulationReport) -> None:
    axes = _axes(figure, "Replicas of the pools that grow and shrink, starting ones included", "seconds", "replicas")
    for index, pool in enumerate(report.pools):
        if pool.scaling is None:
            continue
        times_s, sizes = [*pool.scaling.times_s, report.duration_s], [*pool.scaling.sizes, pool.scaling.sizes[-1]]
        figures = pool.scaling
        name = f"{pool.name}: {figures.replica_s:,.0f} replica-seconds, {figures.ratio:.2f} times the clairvoyant's"
        axes.step(times_s, sizes, where="post", lw=2, color=POOL_COLOURS[index % len(POOL_COLOURS)], label=name)
    axes.set_xlim(0, report.duration_s)
    axes.set_ylim(0, 1.25 * max(1, *(pool.scaling.most for pool in report.pools if pool.scaling is not None)))
    axes.locator_params(axis="y", integer=True)
    axes.legend(loc="upper left", frameon=False, fontsize=9)


def _draw_sweep(figure: Figure, reports: Sequence[SimulationReport]) -> None:
    left, right = figure.subplots(1, 2)
    loads = [report.load for report in reports]
    _label(left, "Goodput", "load (1: the trace as it is)", "frames a second")
    left.plot(loads, [report.offered_hz for report in reports], color="#999999", ls="--", lw=1.5, label="offered")
    left.plot(loads, [r.goodput_hz for r in reports], color=COLOURS["all"], lw=2, marker="o", ms=4, label="in time")
    left.set_ylim(bottom=0)
    _label(right, "Share within the deadline", "load (1: the trace as it is)", "share of all frames of the class")
    for width, name in zip((6.0, 3.5, 1.5), reversed(CLASSES), strict=True):  # equal curves show beside each other
        points = [(r.load, found.in_time_fraction) for r in reports if (found := r.class_named(name)) is not None]
        if points:
            right.plot(*zip(*points, strict=True), color=COLOURS[name], lw=width, marker="o", label=name)
    right.set_ylim(0, 1.03)
    right.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    full = _load_at_capacity(reports)
    for axes in (left, right):
        if full is not None:
            axes.axvline(full, color="#444444", lw=1, ls=":")
            axes.annotate(
                "all devices busy, at own size", (full, 0.03), xycoords=("data", "axes fraction"), xytext=(-3, 0),
                textcoords="offset points", rotation=90, ha="right", va="bottom", fontsize=7.5, color="#444444",
            )  # fmt: skip
    left.legend(loc="upper left", frameon=False, fontsize=9)
    right.legend(loc="lower left", frameon=False, fontsize=9)


def _load_at_capacity(reports: Sequence[SimulationReport]) -> float | None:
    """The load that asks for all device seconds there are, if it lies within the sweep."""
    loads, uses = [report.load for report in reports], [report.offered_use for report in reports]
    return float(np.interp(1.0, uses, loads)) if uses[0] <= 1 <= uses[-1] else None


def _axes(figure: Figure, title: str, across: str, up: str) -> Axes:
    axes = figure.add_subplot()
    _label(axes, title, across, up)
    return axes


def _label(axes: Axes, title: str, across: str, up: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(visible=True, color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
