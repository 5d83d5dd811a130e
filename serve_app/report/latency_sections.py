"""The sections of a report about deadlines and latency: by class, by stage, by size. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from serve_app.report import charts, words
from serve_app.report.frame_groups import FrameGroup, GroupKey
from serve_app.report.frame_line import CLASSES, STAGES
from serve_app.report.log_figures import LogFigures
from serve_app.report.markup import Content, Markup, joined, tag
from serve_app.report.timeline import ENDS

QUANTILES = (0.5, 0.95, 0.99)
# A page of more rows is a file, which --json gives.
MAX_ROWS = 40
END_STYLES = tuple(f"end{place}" for place in range(len(ENDS)))
STAGE_STYLES = tuple(f"stage{place}" for place in range(len(STAGES)))


def section(title: str, anchor: str, *content: Content) -> Markup:
    """A part of the page with its heading."""
    return tag("section", tag("h2", title), *content, id=anchor)


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[Content]],
    *,
    words_in: Sequence[int] = (0,),
    long_in: Sequence[int] = (),
) -> Markup:
    """A table that scrolls by itself where the page is too narrow.

    Args:
        headings: of the columns.
        rows: their cells.
        words_in: columns of words; those of numbers stand to the right.
        long_in: columns of many words, which may break.
    """
    styles = ["long" if at in long_in else None if at in words_in else "num" for at in range(len(headings))]
    head = [tag("th", text, scope="col", class_=style) for text, style in zip(headings, styles, strict=True)]
    body = [
        tag("tr", *(tag("td", cell, class_=style) for cell, style in zip(row, styles, strict=True))) for row in rows
    ]  # fmt: skip
    inner = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *body))
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=headings[0])


def promise_section(figures: LogFigures) -> Markup:
    """How each class fared."""
    rows = []
    for name in figures.classes():
        group = figures.class_group(name)
        counts, total = group.counts, group.total
        lower = counts.num_lower / counts.num_finished if counts.num_finished else None
        rows.append(
            [
                _class_name(name), words.count(counts.num_frames), tag("b", words.share(counts.in_time_fraction)),
                _ends_bar(group), *(words.seconds(total.quantile(share)) for share in QUANTILES),
                words.seconds(total.most if len(total) else None), words.share(lower),
            ]
        )  # fmt: skip
    whole = figures.whole()
    entries = [(name, style) for name, style, n in zip(ENDS, END_STYLES, whole.ends, strict=True) if n]
    return section(
        "Deadlines by class", "classes",
        table(["class", "frames", "in time", "how they ended", "p50", "p95", "p99", "slowest", "lower rung"], rows,
              words_in=(0, 3)),
        charts.legend(entries),
        tag("p", "In time: answered within the deadline, of all frames that had one; what did not finish counts as "
            "late. Deferred: normal frames that admission let wait. Latency: from the router’s receipt to its answer, "
            "of the frames that finished.", class_="note"),
    )  # fmt: skip


def latency_section(figures: LogFigures) -> Markup:
    """Curves by class, and where the time went."""
    groups = {name: figures.class_group(name) for name in figures.classes()}
    curves = [
        charts.Curve(name, f"class-{name}", group.total, group.counts.num_frames, _usual_slos(figures, name))
        for name, group in groups.items()
        if len(group.total)
    ]
    if not curves:
        return section("Latency", "latency", tag("p", "No frame was answered."))
    waiting = [charts.Curve(curve.name, curve.style, groups[curve.name].stages[0], curve.num_all) for curve in curves]
    rows = []
    for curve in curves:
        group = groups[curve.name]
        cells: list[Content] = [
            _class_name(curve.name),
            words.seconds(group.total.mean),
            _stage_bar(group, group.total.mean),
        ]
        cells += [_stage_cell(sketch.quantile(0.5), sketch.quantile(0.99)) for sketch in group.stages]
        rows.append(cells)
    return section(
        "Latency", "latency",
        tag(
            "div",
            _figure("From receipt to answer", charts.latency_curves("Share of all frames answered by then", curves)),
            _figure("Of that, waiting", charts.latency_curves("Share of all frames whose batch ran by then", waiting)),
            class_="figures",
        ),
        charts.legend([(curve.name, curve.style) for curve in curves]),
        tag("p", "Share of all frames of a class by time, on a logarithmic scale; a curve ends at the share that "
            "finished. Dashed: the usual deadline.", class_="note"),
        tag("h3", "Where the time went"),
        table(["class", "mean", "stages of the mean", *STAGES], rows, words_in=(0, 2)),
        charts.legend(list(zip(STAGES, STAGE_STYLES, strict=True))),
        tag("p", "Below each stage: p50 and p99. A batch’s stages count for each of its frames; queue: in the router’s "
            "lane, and staged at the replica behind a running batch.", class_="note"),
    )  # fmt: skip


def size_section(figures: LogFigures) -> Markup:
    """Latency of each size and class."""
    keys = sorted((key for key, group in figures.groups.items() if len(group.total)), key=_order)
    if not keys:
        return Markup("")
    shown = set(sorted(keys, key=lambda key: -figures.groups[key].counts.num_frames)[:MAX_ROWS])
    least_s = min(figures.groups[key].total.quantile(0.5) or 0.0 for key in shown)
    most_s = max(figures.groups[key].total.quantile(0.99) or 0.0 for key in shown)
    rows = []
    for key in [key for key in keys if key in shown]:
        group = figures.groups[key]
        low_s, middle_s, high_s = (group.total.quantile(share) or 0.0 for share in QUANTILES)
        rows.append(
            [
                words.size(key[1]), _class_name(key[0]), words.count(group.counts.num_frames),
                words.share(group.counts.in_time_fraction),
                charts.range_bar(low_s, middle_s, high_s, (least_s / 1.3, most_s), f"class-{key[0]}"),
                *(words.seconds(value_s) for value_s in (low_s, middle_s, high_s)),
                _stage_bar(group, group.total.mean),
            ]
        )  # fmt: skip
    rest = len(keys) - len(rows)
    more = tag("p", f"The {len(rows)} most frequent of {len(keys)} are shown; --json has all.", class_="note")
    return section(
        "Latency by size and class", "sizes",
        table(["size, px", "class", "frames", "in time", "p50 to p99", "p50", "p95", "p99", "stages"], rows,
              words_in=(0, 1, 4, 8)),
        charts.legend(list(zip(STAGES, STAGE_STYLES, strict=True))),
        tag("p", "p50 to p95 full, on to p99 pale, on one logarithmic scale; stages: each row’s own mean.",
            class_="note"),
        more if rest else None,
    )  # fmt: skip


def _figure(caption: str, drawing: Markup) -> Markup:
    return tag("figure", tag("figcaption", caption), drawing)


def _order(key: GroupKey) -> tuple[int, int, int, int]:
    height, width = key[1] or (10**9, 1)
    return height * width, height, width, CLASSES.index(key[0])


def _class_name(name: str) -> Markup:
    return joined(tag("i", class_=f"dot fill class-{name}"), name)


def _ends_bar(group: FrameGroup) -> Markup:
    parts = [
        (f"{name}: {words.frames(number)}", style, float(number))
        for name, style, number in zip(ENDS, END_STYLES, group.ends, strict=True)
    ]
    return charts.bar(parts, float(group.counts.num_frames))


def _stage_bar(group: FrameGroup, whole_s: float) -> Markup:
    """The mean, in stages; `whole_s` is as wide as the column."""
    parts = [
        (f"{stage}: {words.seconds(sketch.mean)}", style, sketch.mean)
        for stage, style, sketch in zip(STAGES, STAGE_STYLES, group.stages, strict=True)
    ]
    # Tiles run beside each other, so their stages may add up to more than the frame took.
    return charts.bar(parts, max(whole_s, sum(amount for _, _, amount in parts)))


def _stage_cell(low_s: float | None, high_s: float | None) -> Markup:
    return joined(words.seconds(low_s), tag("br"), tag("small", words.seconds(high_s)))


def _usual_slos(figures: LogFigures, name: str) -> tuple[float, ...]:
    """The two deadlines that most frames of a class had."""
    rates_hz: dict[float, float] = {}
    for entry in figures.traffic:
        if entry.slo_s is not None and (name == "critical") == (entry.priority.value == "critical"):
            rates_hz[entry.slo_s] = rates_hz.get(entry.slo_s, 0.0) + entry.rate_hz
    return tuple(sorted(rates_hz, key=lambda slo_s: -rates_hz[slo_s])[: 1 if name != "deferred" else 0])
