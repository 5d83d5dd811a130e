"""Drawings of a report as SVG that takes its colours from the page's style, so that it is light or dark with it. Pure.

Every drawing has a title for those who hear it, and each of its parts one that shows when it is pointed at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from serve_app.report import words
from serve_app.report.markup import Markup, joined, tag
from serve_app.report.quantile_sketch import QuantileSketch

WIDTH, HEIGHT = 560, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 34
# A label of the log axis for each of these, in seconds.
DECADES_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0, 600.0,
             1800.0, 3600.0)  # fmt: skip
MAX_TICKS = 6


@dataclass(frozen=True, slots=True)
class Series:
    """Values of one kind: its name, the class that colours it, and the values."""

    name: str
    style: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Curve:
    """Latencies of one class of frames.

    Attributes:
        name, style: its name, and the class that colours it.
        sketch: seconds of those that finished.
        num_all: frames in all: a curve ends at the share that finished.
        slos_s: deadlines to mark.
    """

    name: str
    style: str
    sketch: QuantileSketch
    num_all: int
    slos_s: Sequence[float] = ()


def stacked_steps(title: str, series: Sequence[Series], step_s: float) -> Markup:
    """Frames a second over time, one colour a kind, each step a column."""
    shown = [each for each in series if any(each.values)]
    num_steps = max((len(each.values) for each in series), default=0)
    totals = [sum(values) for values in zip(*(each.values for each in shown), strict=True)] if shown else []
    top = _nice(max(totals, default=1.0) / step_s)
    column = (WIDTH - LEFT - RIGHT) / max(1, num_steps)
    parts = [_y_grid(top, "/s"), _time_axis(num_steps, step_s, column)]
    below = [0.0] * num_steps
    for each in shown:
        runs = []
        for place, value in enumerate(each.values):
            if value:
                y0, y1 = _y(below[place] / step_s, top), _y((below[place] + value) / step_s, top)
                x = LEFT + place * column
                runs.append(f"M{x:.1f} {y0:.1f}V{y1:.1f}H{x + column:.1f}V{y0:.1f}z")
            below[place] += value
        hint = tag("title", f"{each.name}: {words.frames(round(sum(each.values)))}")
        parts.append(tag("path", hint, d="".join(runs), class_=f"fill {each.style}"))
    return _drawing(title, HEIGHT, *parts)


def mean_lines(title: str, series: Sequence[Series], step_s: float) -> Markup:
    """Seconds over time, one line a kind; a value that is not a number is a gap."""
    num_steps = max((len(each.values) for each in series), default=0)
    most_s = max((value for each in series for value in each.values if not math.isnan(value)), default=0.0)
    top = _nice(most_s * (1000 if most_s < 1 else 1))
    scale = 1000 if most_s < 1 else 1
    column = (WIDTH - LEFT - RIGHT) / max(1, num_steps)
    parts = [_y_grid(top, " ms" if scale == 1000 else " s"), _time_axis(num_steps, step_s, column)]
    for each in series:
        path, is_on = [], False
        for place, value in enumerate(each.values):
            if math.isnan(value):
                is_on = False
                continue
            point = f"{LEFT + (place + 0.5) * column:.1f} {_y(value * scale, top):.1f}"
            path.append(f"{'L' if is_on else 'M'}{point}" + ("" if is_on else "h0.1"))
            is_on = True
        if path:
            parts.append(tag("path", tag("title", each.name), d="".join(path), class_=f"line {each.style}"))
    return _drawing(title, HEIGHT, *parts)


def latency_curves(title: str, curves: Sequence[Curve]) -> Markup:
    """The share of all frames that was answered by then, over the time on a logarithmic axis."""
    least = min((curve.sketch.least for curve in curves if len(curve.sketch)), default=0.001)
    most = max((max(curve.sketch.most, *curve.slos_s, 0.0) for curve in curves if len(curve.sketch)), default=1.0)
    low_s = max(0.0005, least) / 1.15
    high_s = max(most, low_s * 4) * 1.2
    scale = (WIDTH - LEFT - RIGHT) / math.log(high_s / low_s)

    def x(value_s: float) -> float:
        return LEFT + scale * math.log(max(value_s, low_s) / low_s)

    parts = [_share_grid()]
    ticks_s = [tick for tick in DECADES_S if low_s <= tick <= high_s]
    each_nth = max(1, math.ceil(len(ticks_s) / MAX_TICKS))
    parts += [_vertical(x(tick_s), words.seconds(tick_s)) for tick_s in ticks_s[::each_nth]]
    for curve in curves:
        for slo_s in curve.slos_s:
            hint = tag("title", f"deadline of {curve.name} frames: {words.seconds(slo_s)}")
            at = f"{x(slo_s):.1f}"
            parts.append(tag("line", hint, x1=at, x2=at, y1=TOP, y2=HEIGHT - BOTTOM, class_=f"mark {curve.style}"))
    for curve in curves:
        points, height = [], HEIGHT - TOP - BOTTOM
        for value_s, seen in curve.sketch.steps():
            points.append(f"{x(value_s):.1f},{HEIGHT - BOTTOM - height * seen / curve.num_all:.1f}")
        if points:
            hint = tag("title", f"{curve.name}: half within {words.seconds(curve.sketch.quantile(0.5))}")
            first = f"{x(curve.sketch.least):.1f},{HEIGHT - BOTTOM}"
            parts.append(tag("polyline", hint, points=" ".join([first, *points]), class_=f"line {curve.style}"))
    return _drawing(title, HEIGHT, *parts)


def bar(parts: Sequence[tuple[str, str, float]], whole: float) -> Markup:
    """A bar of parts (name, class, amount), as wide as they are of a whole."""
    cells = [
        tag("i", class_=f"fill {style}", style=f"width:{100 * amount / whole:.3f}%", title=name)
        for name, style, amount in parts
        if amount > 0 and whole > 0
    ]
    return tag("span", *cells, class_="bar")


def range_bar(low_s: float, middle_s: float, high_s: float, whole: tuple[float, float], style: str) -> Markup:
    """From p50 to p95 full, on to p99 pale, on a logarithmic scale that reaches over `whole` (seconds)."""
    least_s, most_s = max(whole[0], 1e-6), max(whole[1], whole[0] * 1.01, 2e-6)
    places = [
        100 * min(1.0, max(0.0, math.log(max(value_s, least_s) / least_s) / math.log(most_s / least_s)))
        for value_s in (low_s, middle_s, high_s)
    ]
    title = f"p50 {words.seconds(low_s)}, p95 {words.seconds(middle_s)}, p99 {words.seconds(high_s)}"
    return tag(
        "span",
        tag("i", class_="gap", style=f"width:{min(places[0], 99):.2f}%"),
        tag("i", class_=f"fill {style}", style=f"width:{max(1.0, places[1] - places[0]):.2f}%"),
        tag("i", class_=f"fill pale {style}", style=f"width:{places[2] - places[1]:.2f}%"),
        class_="bar",
        title=title,
    )


def legend(entries: Sequence[tuple[str, str]]) -> Markup:
    """Names beside their colours; (name, class)."""
    items = [tag("li", tag("i", class_=f"fill {style}"), " ", name) for name, style in entries]
    return tag("ul", *items, class_="legend")


def _drawing(title: str, height: int, *parts: Markup) -> Markup:
    return tag(
        "svg", tag("title", title), *parts, viewBox=f"0 0 {WIDTH} {height}", role="img", aria_label=title
    )  # fmt: skip


def _y(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top


def _nice(value: float) -> float:
    """The next round number for the end of an axis."""
    if value <= 0:
        return 1.0
    scale = 10.0 ** math.floor(math.log10(value))
    return next(step * scale for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * scale >= value * 0.999)


def _y_grid(top: float, unit: str) -> Markup:
    lines = []
    for part in range(5):
        value = top * part / 4
        y = _y(value, top)
        lines.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}", class_="grid"))
        lines.append(tag("text", f"{value:.3g}{unit}", x=LEFT - 6, y=f"{y + 4:.1f}", text_anchor="end"))
    return joined(*lines)


def _share_grid() -> Markup:
    lines = []
    for part in range(5):
        y = _y(part, 4)
        lines.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}", class_="grid"))
        lines.append(tag("text", f"{25 * part} %", x=LEFT - 6, y=f"{y + 4:.1f}", text_anchor="end"))
    return joined(*lines)


def _vertical(x: float, label: str) -> Markup:
    line = tag("line", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=TOP, y2=HEIGHT - BOTTOM, class_="grid")
    return joined(line, tag("text", label, x=f"{x:.1f}", y=HEIGHT - BOTTOM + 16, text_anchor="middle"))


def _time_axis(num_steps: int, step_s: float, column: float) -> Markup:
    whole_s = num_steps * step_s
    unit, seconds = next(((u, s) for u, s in (("h", 3600.0), ("min", 60.0)) if whole_s >= 3 * s), ("s", 1.0))
    tick = _nice(whole_s / seconds / 6)
    labels = []
    for index in range(math.floor(whole_s / seconds / tick) + 1):
        at = index * tick
        x = LEFT + column * at * seconds / step_s
        if x > WIDTH - RIGHT + 1:
            break
        label = f"{at:.3g} {unit}" if index else "0"
        anchor = "end" if x > WIDTH - 30 else "middle"
        labels.append(tag("text", label, x=f"{x:.1f}", y=HEIGHT - BOTTOM + 16, text_anchor=anchor))
    return joined(*labels)
