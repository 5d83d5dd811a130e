"""The pictures of a report as PNGs, for documents and slides. Needs matplotlib."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from serve_app.plot_file import save_plot, without_formulas
from serve_app.report import words
from serve_app.report.frame_groups import GroupKey
from serve_app.report.frame_line import STAGES
from serve_app.report.log_clock import LogClock
from serve_app.report.log_figures import LogFigures
from serve_app.report.timeline import ENDS, RUNGS, VERDICTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that colour-blind people tell apart (Okabe & Ito 2008); the page has the same.
BLUE, ORANGE, GREEN, PINK, GOLD, SKY, GREY, DARK, RED = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#A3ABB5", "#4A5560", "#B3261E",
)  # fmt: skip
CLASS_COLOURS = {"critical": ORANGE, "normal": BLUE, "deferred": GREEN, "other": GREY}
STAGE_COLOURS = (GOLD, PINK, SKY, BLUE, GREEN)
END_COLOURS = (BLUE, GOLD, SKY, ORANGE, PINK, GREY, DARK, RED)
VERDICT_COLOURS = (BLUE, GREEN, GOLD, ORANGE, GREY)
RUNG_COLOURS = (BLUE, SKY, GOLD, ORANGE)
MAX_BARS = 16
# The left end of a logarithmic axis, which has no 0.
LEAST_S = 1e-4


def save_plots(folder: Path, figures: LogFigures) -> tuple[Path, ...]:
    """Draw latency, stages, course and batches.

    Args:
        folder: made if it is not there.
        figures: of the logs.

    Returns:
        The files; none of what the logs have nothing of.

    Raises:
        FramelaneError: no matplotlib, or a file cannot be written.
    """
    label = f"{words.frames(figures.num_frames)} of " + ", ".join(words.name(f.path.name) for f in figures.files[:4])
    draws: list[tuple[str, tuple[float, float], Callable[[Figure], None]]] = []
    keys = _keys(figures)
    if keys:
        high_in = 1.6 + 0.36 * len(keys)
        draws.append(("latency.png", (9.0, 5.0), lambda figure: _draw_latency(figure, figures)))
        draws.append(("sizes.png", (9.5, high_in), lambda figure: _draw_sizes(figure, figures, keys)))
        draws.append(("batches.png", (9.0, 4.4), lambda figure: _draw_batches(figure, figures)))
    clocks = [clock for clock in figures.clocks if clock.span.is_known]
    if clocks:
        longest = max(clocks, key=lambda clock: clock.num_frames)
        several = f"router {words.name(longest.router)} alone" if len(clocks) > 1 else ""
        draws.append(("course.png", (9.0, 7.6), lambda figure: _draw_course(figure, longest, several)))
    return tuple(save_plot(folder / name, size_in, label, draw) for name, size_in, draw in draws)


def _draw_latency(figure: Figure, figures: LogFigures) -> None:
    from matplotlib.ticker import LogLocator

    axes = figure.add_subplot()
    _label(axes, "Latency from receipt to answer, by class", "", "share of all frames answered by then")
    for name in figures.classes():
        group = figures.class_group(name)
        if not len(group.total):
            continue
        values_s, seen = zip(*group.total.steps(), strict=True)
        shares = np.array([0, *seen]) / group.counts.num_frames
        in_time = words.share(group.counts.in_time_fraction)
        axes.plot(
            np.maximum([values_s[0], *values_s], LEAST_S), shares, color=CLASS_COLOURS[name], lw=2,
            label=f"{name}: {in_time} of {group.counts.num_frames:,} in time",
        )  # fmt: skip
    axes.set_xscale("log")
    low_s, high_s = axes.get_xlim()
    if high_s < 4 * low_s:  # one frame, or frames that took the same
        axes.set_xlim(low_s / 2, high_s * 2)
    axes.xaxis.set_major_formatter(lambda value, _: words.seconds(value))
    axes.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axes.xaxis.set_minor_formatter(lambda value, _: words.seconds(value))
    axes.tick_params(axis="x", which="minor", labelsize=8, colors="#777777")
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), frameon=False, fontsize=9, ncols=4)


def _keys(figures: LogFigures) -> list[GroupKey]:
    """The groups that have most frames, in ascending order of pixels."""
    answered = [key for key, group in figures.groups.items() if len(group.total)]
    most = sorted(answered, key=lambda key: -figures.groups[key].counts.num_frames)[:MAX_BARS]
    return sorted(most, key=lambda key: ((key[1] or (9e9, 1))[0] * (key[1] or (9e9, 1))[1], key[1] or (0, 0), key[0]))


def _draw_sizes(figure: Figure, figures: LogFigures, keys: Sequence[GroupKey]) -> None:
    axes = figure.add_subplot()
    _label(axes, "Where the time goes: mean of each stage, by size and class", "", "")
    places = np.arange(len(keys))[::-1]
    left = np.zeros(len(keys))
    for index, stage in enumerate(STAGES):
        means_s = np.array([figures.groups[key].stages[index].mean for key in keys])
        axes.barh(places, means_s, 0.62, left=left, color=STAGE_COLOURS[index], label=stage)
        left += means_s
    tails_s = [figures.groups[key].total.quantile(0.99) or 0.0 for key in keys]
    axes.plot(tails_s, places, "|", color=DARK, ms=11, mew=2, label="p99 of the whole")
    axes.set_yticks(places, [f"{words.size(size_hw)}, {name}" for name, size_hw in keys])
    axes.xaxis.set_major_formatter(lambda value, _: words.seconds(value) if value else "0")
    axes.grid(visible=False, axis="y")
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.5 / (0.36 * len(keys) + 0.8)), frameon=False, fontsize=9,
                ncols=6)  # fmt: skip


def _draw_course(figure: Figure, clock: LogClock, several: str) -> None:
    series = clock.timeline.series()
    titles = (
        ("How frames ended", ENDS, END_COLOURS, series.ends),
        ("Verdicts", VERDICTS, VERDICT_COLOURS, series.verdicts),
        ("Rungs of the ladder, of the frames that finished", RUNGS, RUNG_COLOURS, series.rungs),
    )
    times_s = np.arange(series.num_steps + 1) * series.step_s
    for axes, (title, names, colours, rows) in zip(figure.subplots(3, 1, sharex=True), titles, strict=True):
        _label(axes, title + (f" ({several})" if several and title.startswith("How") else ""), "", "frames/s")
        below = np.zeros(series.num_steps)
        for name, colour, counts in zip(names, colours, rows, strict=True):
            if any(counts):
                above = below + np.array(counts) / series.step_s
                axes.stairs(above, times_s, baseline=below, fill=True, color=colour, label=f"{name} {sum(counts):,}")
                below = above
        axes.set_ylim(0, 1.12 * max(float(below.max()), 1e-9))
        axes.set_xlim(0, float(times_s[-1]))
        if any(map(any, rows)):
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8.5)
    axes.set_xlabel("seconds since the first frame")


def _draw_batches(figure: Figure, figures: LogFigures) -> None:
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    frames: Counter[int] = Counter()
    for (_, _, size), number in figures.batches.items():
        frames[size] += number
    _label(left, f"Frames by size of batch, mean {figures.mean_batch:.2f}", "frames in the batch", "share of frames")
    _bars(left, {str(size): frames[size] for size in sorted(frames)}, BLUE)
    rungs: Counter[int] = Counter()
    for place, number in figures.placements.items():
        rungs[place.rung] += number
    _label(right, f"Frames by rung, padding {words.share(figures.padding_fraction)}", "rung of the ladder", "")
    _bars(right, {"own" if rung == 0 else str(rung): rungs[rung] for rung in sorted(rungs)}, GOLD)


def _bars(axes: Axes, counts: Mapping[str, int], colour: str) -> None:
    whole = max(1, sum(counts.values()))
    shares = [count / whole for count in counts.values()]
    bars = axes.bar(range(len(shares)), shares, 0.62, color=colour)
    axes.bar_label(bars, [words.share(each) for each in shares], fontsize=8.5, padding=2)
    axes.set_xticks(range(len(shares)), list(counts))
    axes.set_xlim(-0.7, max(1.7, len(shares) - 0.3))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.margins(y=0.15)
    axes.grid(visible=False, axis="x")


def _label(axes: Axes, title: str, across: str, up: str) -> None:
    axes.set_title(without_formulas(title), loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(visible=True, color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
