"""What `framelane plan` prints: the proposal, what it saves, and how live traffic fits a plan."""

from __future__ import annotations

from rich.table import Table

from serve_app.cli.console import output
from serve_app.latency import Origin
from serve_app.planning.drift import DriftReport, Fit
from serve_app.planning.proposal import Alternative, Proposal
from serve_app.planning.traffic import rate_by_size, total_rate_hz

# At most so many sizes are listed where there may be hundreds.
MAX_LISTED = 8


def print_proposal(proposal: Proposal, origin: Origin, machine: str) -> None:
    """The canvases, the totals, and the alternatives."""
    traffic = proposal.traffic
    _say(
        f"{len(rate_by_size(traffic))} frame sizes, {total_rate_hz(traffic):.4g} frames/s; "
        f"latencies {origin.value}{f' on {machine}' if origin is not Origin.ASSUMED else ''}\n"
    )
    output.print(_canvas_table(proposal))
    proof = (
        "no choice of so many canvases needs less"
        if proposal.gap_fraction == 0
        else f"another choice may need up to {proposal.gap_fraction:.1%} less"
    )
    _say("ms: one frame alone; busy s/s: device seconds a second, in the best batches")
    _say(
        f"together {proposal.device_s_per_s:.3g} device seconds a second, {proposal.padding_fraction:.1%} padding; "
        f"{proof}"
    )
    pools = ", ".join(f"{pool.name} {pool.num_replicas}" for pool in proposal.plan.pools)
    _say(f"replicas for {proposal.limits.utilisation:.0%} use: {pools}\n")
    output.print(_alternative_table(proposal))
    _say(
        "own sizes: one engine with one wide profile. Not counted, because they are not measured here: kernels tuned\n"
        "for another size, and a stall at each new shape."
    )
    if proposal.engine_memory.shares_arena:
        _say(_arena_line(proposal))
    steps = ", ".join(f"{step.num_canvases}: {step.padding_fraction:.1%}" for step in proposal.curve)
    _say(f"\nleast-time padding by number of canvases: {steps}")
    _print_late(proposal)


def print_drift(report: DriftReport) -> None:
    """The verdict, its reasons, and the sizes that lie badly."""
    colour = "green" if report.fit is Fit.FITS else "yellow"
    output.print(f"[bold {colour}]{report.fit.value}[/]", highlight=False)
    for reason in report.reasons:
        _say(f"- {reason}")
    _say(
        f"padding {report.padding_fraction:.1%}; {report.device_s_per_s:.3g} device seconds a second predicted, "
        f"{report.fresh_s_per_s:.3g} under a fresh plan of as many canvases"
    )
    pools = ", ".join(f"{pool} {share:.0%}" for pool, share in report.utilisation.items())
    changed = "" if report.distance_fraction is None else f"; {report.distance_fraction:.0%} of the frames changed size"
    _say(f"replicas busy: {pools}; larger than every canvas: {report.oversize_fraction:.1%}{changed}")
    if report.misfits:
        table = _table("frame size", "canvas", "frames/s", "padding", "least", title="Sizes that no canvas fits well")
        for size in report.misfits[:MAX_LISTED]:
            table.add_row(
                _size(size.size_hw),
                _size(size.canvas) + (" shrunk" if size.shrunk else ""),
                f"{size.rate_hz:.3g}",
                f"{size.padding_fraction:.1%}",
                f"{size.least_padding_fraction:.1%}",
            )
        output.print(table)
        if len(report.misfits) > MAX_LISTED:
            _say(f"and {len(report.misfits) - MAX_LISTED} more")


def _arena_line(proposal: Proposal) -> str:
    """What the engines of a replica hold on its GPU, bucket by bucket."""
    memory, mib = proposal.engine_memory, 2**20
    origin = "as built" if memory.built else "estimated; framelane build says it exactly, see --engines"
    activations = ", ".join(f"{name} {size / mib:.0f}" for name, size in proposal.activation_bytes.items())
    return (
        f"\nactivations by bucket, MiB: {activations} ({origin}); engines of one replica share the largest, beside "
        f"{memory.weights_bytes / mib:.0f} MiB of weights each"
    )


def _canvas_table(proposal: Proposal) -> Table:
    table = _table("canvas", "bucket", "batches", "sizes", "frames/s", "ms", "busy s/s", "padding")
    for use in proposal.canvases:
        table.add_row(
            _size(use.canvas),
            use.bucket,
            ",".join(map(str, use.batches)),
            str(len(rate_by_size(load.size for load in use.loads))),
            f"{use.rate_hz:.3g}",
            f"{use.run_s * 1000:.0f}" if use.run_s > 0.01 else f"{use.run_s * 1000:.2g}",
            f"{use.device_s_per_s:.3g}",
            f"{use.padding_fraction:.1%}",
        )
    return table


def _alternative_table(proposal: Proposal) -> Table:
    table = _table("", "device s/s", "saves", "padding", "shapes", "MiB")
    plan = Alternative(
        proposal.device_s_per_s,
        proposal.padding_fraction,
        proposal.memory_bytes,
        proposal.num_shapes,
        proposal.canvases[-1].canvas,
    )
    square, wide = proposal.one_square, proposal.one_wide
    for name, way in (
        ("this plan", plan),
        (f"one square, {_size(square.canvas)}", square),
        (f"own sizes, to {_size(wide.canvas)}", wide),
    ):
        saves = "–" if way is plan else f"{proposal.saved_fraction(way):.1%}"
        memory_mib = f"{way.memory_bytes / 2**20:.0f}"
        table.add_row(
            name, f"{way.device_s_per_s:.3g}", saves, f"{way.padding_fraction:.1%}", str(way.num_shapes), memory_mib
        )  # fmt: skip
    return table


def _print_late(proposal: Proposal) -> None:
    late = {(load.size.size_hw, load.choice.canvas) for load in proposal.late}
    if late:
        sizes = ", ".join(_size(size_hw) for size_hw, _ in sorted(late)[:MAX_LISTED])
        more = f" and {len(late) - MAX_LISTED} more" if len(late) > MAX_LISTED else ""
        _say(
            f"\n[bold yellow]late[/]: alone, frames of {sizes}{more} take longer than their deadline allows;\n"
            "give them more time, a smaller --max-canvas, a faster model or a faster machine"
        )


def _table(*headings: str, title: str = "") -> Table:
    table = Table(title=title or None, title_justify="left", header_style="bold", box=None, padding=(0, 1, 0, 0))
    for index, heading in enumerate(headings):
        is_name = index == 0 or heading == "bucket"
        table.add_column(heading, justify="left" if is_name else "right", no_wrap=not is_name, overflow="fold")
    return table


def _say(text: str) -> None:
    output.print(text, highlight=False, soft_wrap=True)


def _size(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[0]}×{size_hw[1]}"
