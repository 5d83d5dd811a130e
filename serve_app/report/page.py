"""The report as one page: no script, no request to anybody, light or dark as the screen is. Reads its style only."""

from __future__ import annotations

from importlib import resources

from serve_app.report import words
from serve_app.report.advice import Advice
from serve_app.report.cause_sections import camera_section, canvas_section, reason_section, slow_section
from serve_app.report.course_sections import batch_section, padding_section, time_section
from serve_app.report.findings import Weight, findings
from serve_app.report.latency_sections import latency_section, promise_section, section, size_section
from serve_app.report.log_figures import LogFigures
from serve_app.report.log_reader import LogFile
from serve_app.report.markup import Markup, joined, tag

# Nothing but its own style: a reader's browser asks nobody, whatever a camera is called.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
MARKS = {Weight.GOOD: ("good", "✓"), Weight.NOTE: ("mind", "!"), Weight.BAD: ("bad", "✗")}


def report_page(figures: LogFigures, advice: Advice) -> str:
    """The whole page, as HTML to be written in UTF-8."""
    style = (resources.files("serve_app.report") / "report.css").read_text(encoding="utf-8")
    title = f"Framelane report: {_files_line(figures)}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    parts = [
        promise_section(figures), latency_section(figures), size_section(figures), time_section(figures),
        batch_section(figures), padding_section(figures), slow_section(figures), reason_section(figures),
        canvas_section(figures, advice), camera_section(figures), _about_section(figures),
    ]  # fmt: skip
    body = tag("body", _header(figures), tag("main", _tiles(figures), _findings(figures, advice), *parts))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _files_line(figures: LogFigures) -> str:
    names = [words.name(file.path.name) for file in figures.files]
    return names[0] if len(names) == 1 else f"{len(names)} logs"


def _header(figures: LogFigures) -> Markup:
    covered = f" over {words.seconds(figures.observed_s)}" if figures.observed_s else ""
    text = (
        f"{words.frames(figures.num_frames)} of {words.count(len(figures.cameras))} "
        f"camera{'' if len(figures.cameras) == 1 else 's'}{covered}"
    )
    files = ", ".join(words.name(str(file.path)) for file in figures.files[:4])
    more = f" and {len(figures.files) - 4} more" if len(figures.files) > 4 else ""
    return tag("header", tag("h1", "Framelane report"), tag("p", f"{text}, from {files}{more}"))


def _tiles(figures: LogFigures) -> Markup:
    whole = figures.whole()
    counts = whole.counts
    critical = figures.class_group("critical")
    tiles = []
    if critical.counts.num_due:
        good = critical.counts.in_time_fraction == 1
        tiles.append(("critical in time", words.share(critical.counts.in_time_fraction), "good" if good else "bad"))
        tiles.append(("critical p99", words.seconds(critical.total.quantile(0.99)), ""))
    tiles += [
        ("all in time", words.share(counts.in_time_fraction), ""),
        ("p50, all", words.seconds(whole.total.quantile(0.5)), ""),
        ("p99, all", words.seconds(whole.total.quantile(0.99)), ""),
        ("frames a second", f"{figures.rate_hz:.3g}" if figures.rate_hz else words.NONE, ""),
        ("not finished", words.share((counts.num_frames - counts.num_finished) / counts.num_frames), ""),
        ("on a lower rung", words.share(counts.num_lower / counts.num_finished if counts.num_finished else None), ""),
        ("frames a batch", f"{figures.mean_batch:.2f}" if figures.mean_batch else words.NONE, ""),
        ("padding", words.share(figures.padding_fraction) if figures.computed_px else words.NONE, ""),
    ]
    cells = [
        tag("div", tag("dt", name), tag("dd", value, class_=style or None)) for name, value, style in tiles
    ]  # fmt: skip
    return tag("dl", *cells, class_="tiles")


def _findings(figures: LogFigures, advice: Advice) -> Markup:
    items = []
    for finding in findings(figures, advice):
        style, mark = MARKS[finding.weight]
        cure = joined(" ", tag("span", f"Turn: {finding.cure}.", class_="cure")) if finding.cure else None
        items.append(tag("li", tag("b", mark, class_=f"mark {style}"), tag("span", finding.text, cure)))
    return section("What stands out", "findings", tag("ul", *items, class_="findings"))


def _about_section(figures: LogFigures) -> Markup:
    items = [tag("li", line) for file in figures.files for line in _about_file(file)]
    notes = []
    if figures.has_more_clocks:
        notes.append("There were more routers than are told apart: some frames are missing over time.")
    if not figures.knows_cameras:
        notes.append("There were too many cameras for the planner to tell them apart.")
    return section(
        "About this report", "about", tag("ul", *items),
        tag("p", *(f"{note} " for note in notes),
            "Quantiles are within 1 % of a measured value; counts, sums and means are exact. Times are compared only "
            "with those of the same router. Made by ", tag("code", "framelane report"), ".", class_="note"),
    )  # fmt: skip


def _about_file(file: LogFile) -> list[str]:
    """What was read of it, and what was not."""
    lines = [
        f"{words.name(str(file.path))}: {words.count(file.num_records)} records, {file.num_bytes / 2**20:.3g} MiB."
    ]
    if file.is_torn:
        lines.append("Its last line ends in the middle: its writer was stopped there, or was still writing.")
    if file.num_foreign:
        kinds = ", ".join(f"{words.count(number)} × {kind}" for kind, number in file.kinds.most_common())
        lines.append(
            f"{words.count(file.num_foreign)} lines were left out ({kinds}). The first: "
            + "; ".join(words.sentence(note) for note in file.foreign) + "."
        )  # fmt: skip
    return lines
