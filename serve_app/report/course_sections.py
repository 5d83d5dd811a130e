"""The sections of a report about what happened when, in which batches, on which canvases. Pure."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

from serve_app.planning.plan_load import padding_of
from serve_app.report import charts, words
from serve_app.report.charts import Series
from serve_app.report.latency_sections import END_STYLES, MAX_ROWS, section, table
from serve_app.report.log_clock import LogClock
from serve_app.report.log_figures import LogFigures
from serve_app.report.markup import Content, Markup, joined, tag
from serve_app.report.timeline import ENDS, FOLLOWED, RUNGS, VERDICTS

# Clocks that are drawn: of more the longest ones.
MAX_CLOCKS = 6
VERDICT_STYLES = tuple(f"verdict{place}" for place in range(len(VERDICTS)))
RUNG_STYLES = tuple(f"rung{place}" for place in range(len(RUNGS)))


def time_section(figures: LogFigures) -> Markup:
    """Outcomes, verdicts and rungs over time, each clock for itself."""
    clocks = sorted((clock for clock in figures.clocks if clock.span.is_known), key=lambda each: -each.num_frames)
    if not clocks:
        return section("Over time", "time", tag("p", "The log has no times of arrival."))
    drawn = [_clock_drawings(clock, len(clocks) > 1) for clock in clocks[:MAX_CLOCKS]]
    several = (
        "Each router has a clock of its own, whose times say nothing of another’s: so each is drawn for itself, from "
        "its first frame on. "
    )
    rest = len(clocks) - len(drawn)
    return section(
        "Over time", "time", *drawn,
        tag("p", several if len(clocks) > 1 else None,
            f"{rest} clocks with fewer frames are not drawn. " if rest else None,
            "Frames stand where they came. Rungs: of the frames that finished.", class_="note"),
    )  # fmt: skip


def _clock_drawings(clock: LogClock, is_named: bool) -> Markup:
    series = clock.timeline.series()
    drawings = []
    for title, names, styles, values in (
        ("How frames ended", ENDS, END_STYLES, series.ends),
        ("Verdicts", VERDICTS, VERDICT_STYLES, series.verdicts),
        ("Rungs of the ladder", RUNGS, RUNG_STYLES, series.rungs),
    ):
        shown = [
            Series(name, style, counts)
            for name, style, counts in zip(names, styles, values, strict=True)
            if any(counts)
        ]  # fmt: skip
        drawings.append(
            tag(
                "figure",
                tag("figcaption", f"{title}, frames a second"),
                charts.stacked_steps(f"{title}, frames a second over time", shown, series.step_s),
                charts.legend([(each.name, each.style) for each in shown]),
            )
        )
    means = [Series(name, f"class-{name}", means) for name, means in zip(FOLLOWED, series.means_s, strict=True)]
    shown = [each for each in means if not all(map(math.isnan, each.values))]
    drawings.append(
        tag(
            "figure",
            tag("figcaption", "Latency, mean of the frames that finished"),
            charts.mean_lines("Mean latency over time", shown, series.step_s),
            charts.legend([(each.name, each.style) for each in shown]),
        )
    )
    heading = f"Router {words.name(clock.router)}, {words.frames(clock.num_frames)} of {words.name(clock.file)}"
    return joined(tag("h3", heading) if is_named else None, tag("div", *drawings, class_="figures"))


def batch_section(figures: LogFigures) -> Markup:
    """In which batches frames went, by bucket."""
    by_bucket: dict[tuple[str, str], Counter[int]] = defaultdict(Counter)
    for (pool, bucket, batch), number in figures.batches.items():
        by_bucket[pool, bucket][batch] += number
    if not by_bucket:
        return Markup("")
    sizes = sorted({size for counts in by_bucket.values() for size in counts})
    rows: list[list[Content]] = []
    for (pool, bucket), counts in sorted(by_bucket.items(), key=lambda item: -item[1].total())[:MAX_ROWS]:
        num_batches = sum(number / size for size, number in counts.items() if size)
        parts = [
            (f"batches of {size}: {words.frames(counts[size])}", f"batch{min(place, 5)}", float(counts[size]))
            for place, size in enumerate(sizes)
        ]
        mean = counts.total() / num_batches if num_batches else None
        rows.append(
            [
                words.name(bucket) if bucket else words.NONE, words.name(pool) if pool else words.NONE,
                words.count(counts.total()), words.NONE if mean is None else f"{mean:.2f}",
                charts.bar(parts, float(counts.total())),
            ]
        )  # fmt: skip
    replicas = ", ".join(
        f"{words.name(replica)} {words.count(number)}" for (_, replica), number in figures.replicas.most_common(8)
    )
    return section(
        "Batches", "batches",
        table(["bucket", "pool", "frames", "mean batch", "frames by size of batch"], rows,
              words_in=(4,), long_in=(0, 1)),
        charts.legend([(f"{size}", f"batch{min(place, 5)}") for place, size in enumerate(sizes[:6])]),
        tag("p", f"Frames by replica: {replicas}" + (", …" if len(figures.replicas) > 8 else ".") if replicas else None,
            class_="note"),
    )  # fmt: skip


def padding_section(figures: LogFigures) -> Markup:
    """Which sizes went on which canvases."""
    places = figures.placements.most_common(MAX_ROWS)
    if not places:
        return Markup("")
    whole = figures.placements.total()
    rows: list[list[Content]] = []
    for place, number in places:
        rung = "own" if place.rung == 0 else str(place.rung)
        padding = None if place.is_tiled else padding_of(place.size_hw, place.canvas)
        rows.append(
            [
                words.size(place.size_hw), words.size(place.canvas) + (" in tiles" if place.is_tiled else ""),
                words.name(place.model) if place.model else words.NONE, rung, words.share(padding), words.count(number),
                charts.bar([(words.share(number / whole), "batch1", float(number))], float(places[0][1])),
            ]
        )  # fmt: skip
    note = f"{words.share(figures.padding_fraction)} of the computed pixels showed no frame."
    if len(figures.placements) > len(rows):
        note += f" The {len(rows)} most frequent of {len(figures.placements)} are shown."
    return section(
        "Canvases and padding", "padding",
        table(["size, px", "canvas", "model", "rung", "padding", "frames", ""], rows,
              words_in=(0, 1, 6), long_in=(2,)),
        tag("p", note, class_="note"),
    )  # fmt: skip
