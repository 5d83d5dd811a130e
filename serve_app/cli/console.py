"""Where commands write: results to standard output, progress and errors to standard error."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from serve_app.camera_summary import CameraSummary

output = Console()
errors = Console(stderr=True)


def progress() -> Progress:
    """A progress display on standard error that disappears when it is done."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=errors,
        transient=True,
    )


def camera_table(summaries: Sequence[CameraSummary], *, title: str) -> Table:
    """The table that `stream` and `demo` end with: one row a camera, at most 80 columns wide for usual names."""
    table = Table(title=title or None, title_justify="left", header_style="bold", box=None, padding=(0, 1, 0, 0))
    table.add_column("camera", style="cyan", overflow="fold", min_width=8)
    table.add_column("priority", no_wrap=True)
    for heading in ("size", "canvas", "padding", "frames", "lost", "p50 ms", "p95 ms", "found"):
        table.add_column(heading, justify="right", no_wrap=True)
    for summary in summaries:
        lost = summary.num_missing
        table.add_row(
            escape(summary.camera),
            f"[bold]{summary.priority}[/]" if summary.priority == "critical" else summary.priority,
            _sizes([f"{h}×{w}" for h, w in summary.sizes]),
            _sizes([f"{canvas.height}×{canvas.width}" for canvas in summary.canvases]),
            f"{summary.padding_fraction:.1%}",
            str(summary.num_frames),
            f"[bold red]{lost}[/]" if lost else "0",
            _ms(summary.latency_s(0.5)),
            _ms(summary.latency_s(0.95)),
            str(summary.num_detections),
        )
    return table


def print_problems(summaries: Sequence[CameraSummary]) -> None:
    """Say, for each camera that lost frames, how many, how and why first."""
    for summary in summaries:
        if summary.all_answered:
            continue
        parts = [f"{count} {cause.value}" for cause, count in summary.gaps.items()]
        parts += [f"{count} × {cause.value}" for cause, count in summary.breaks.items()]
        what = ", ".join(parts) or "no frame"
        reason = f": {summary.first_error}" if summary.first_error else ""
        errors.print(f"[bold yellow]{escape(summary.camera)}[/]: {what}{escape(reason)}", highlight=False)


def _sizes(texts: list[str]) -> str:
    return "\n".join(texts[:3]) + (f"\n+{len(texts) - 3} more" if len(texts) > 3 else "") if texts else "–"


def _ms(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds * 1000:.0f}"
