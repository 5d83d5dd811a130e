"""The picture of a proposal: frame sizes by rate, and the canvases over them. Needs matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from serve_app.errors import FramelaneError
from serve_app.planning.proposal import CanvasUse, Proposal
from serve_app.planning.traffic import rate_by_size, total_rate_hz

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Ten colours that colour-blind people tell apart (Okabe & Ito 2008, then Tol's muted ones); more canvases repeat them.
COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#44AA99", "#999933", "#332288",
)  # fmt: skip
TICKS_PX = (120, 160, 240, 320, 480, 640, 960, 1280, 1920, 2560, 3840, 5120, 7680)
LARGEST_BUBBLE_PT2 = 420.0
SMALLEST_BUBBLE_PT2 = 12.0
# Room around the sizes, as a factor.
MARGIN = 1.2
DPI = 130


def save_picture_of(proposal: Proposal, path: Path) -> None:
    """Draw a proposal into a PNG.

    Raises:
        FramelaneError: no matplotlib, or the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as err:
        raise FramelaneError(
            "picture: got no matplotlib, which draws it; install it with: pip install 'framelane[plots]'"
        ) from err
    # Not through pyplot: it would choose a backend and keep the figure for the whole process.
    figure = Figure(figsize=(12.5, 8.0), layout="constrained")
    FigureCanvasAgg(figure)
    draw_proposal(figure, proposal)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=DPI, format="png")
    except OSError as err:
        raise FramelaneError(f"picture {path}: cannot be written ({err.strerror}); choose another file") from err


def draw_proposal(figure: Figure, proposal: Proposal) -> None:
    """Draw a proposal into an empty figure."""
    axes = figure.add_subplot()
    sizes_hw = [use.canvas for use in proposal.canvases] + [entry.size_hw for entry in proposal.traffic]
    low_px = min(min(size) for size in sizes_hw) / MARGIN
    high_px = max(max(size) for size in sizes_hw) * MARGIN
    largest_hz = max(rate_by_size(proposal.traffic).values())
    for index, use in enumerate(proposal.canvases):
        _draw_canvas(axes, index, use, low_px, largest_hz)
    _scale(axes, low_px, high_px)
    num_sizes = len(rate_by_size(proposal.traffic))
    axes.set_title(
        f"{num_sizes} frame sizes on {len(proposal.canvases)} canvases: {proposal.padding_fraction:.1%} padding\n"
        f"{total_rate_hz(proposal.traffic):.4g} frames/s need {proposal.device_s_per_s:.3g} device seconds a second, "
        f"predicted; on one square {proposal.one_square.device_s_per_s:.3g}",
        loc="left",
        fontsize=11,
    )
    _legend(figure, proposal, largest_hz)


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _draw_canvas(axes: Axes, index: int, use: CanvasUse, low_px: float, largest_hz: float) -> None:
    """One canvas as a rectangle from the origin to its numbered corner, and the sizes that lie on it as bubbles."""
    (height, width), colour = use.canvas, _colour(index)
    axes.plot([low_px, width, width], [height, height, low_px], color=colour, linewidth=1.1, alpha=0.55, zorder=2)
    for (frame_height, frame_width), rate_hz in rate_by_size(load.size for load in use.loads).items():
        axes.plot([frame_width, width], [frame_height, height], color=colour, linewidth=0.7, alpha=0.6, zorder=2)
        axes.scatter(
            [frame_width], [frame_height], s=_bubble_pt2(rate_hz, largest_hz), color=colour, alpha=0.35,
            edgecolors=colour, linewidths=0.8, zorder=3,
        )  # fmt: skip
    axes.plot([width], [height], marker="s", markersize=4, color=colour, zorder=4)
    axes.annotate(
        str(index + 1), (width, height), xytext=(8, 8), textcoords="offset points", fontsize=9, fontweight="bold",
        color="white", ha="center", va="center", zorder=6,
        bbox={"boxstyle": "circle,pad=0.2", "facecolor": colour, "edgecolor": "white", "linewidth": 0.8},
    )  # fmt: skip


def _scale(axes: Axes, low_px: float, high_px: float) -> None:
    """Logarithmic on both axes: VGA and 4K are both to be seen."""
    ticks = [tick for tick in TICKS_PX if low_px <= tick <= high_px]
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low_px, high_px)
    axes.set_ylim(low_px, high_px)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks, [str(tick) for tick in ticks])
        axis.set_ticks([], minor=True)
    axes.plot([low_px, high_px], [low_px, high_px], color="0.8", linewidth=0.8, linestyle=":", zorder=1)
    axes.set_xlabel("width, px")
    axes.set_ylabel("height, px")
    axes.grid(visible=True, color="0.93")
    axes.set_axisbelow(True)


def _legend(figure: Figure, proposal: Proposal, largest_hz: float) -> None:
    """Beside the axes: the numbered canvases with their figures, and how to read bubbles and lines."""
    from matplotlib.lines import Line2D

    canvases = [
        Line2D(
            [], [], linestyle="none", marker=f"${index + 1}$", markersize=9, color=_colour(index),
            label=f"{_size(use.canvas)}: {use.rate_hz:.3g} frames/s, {use.padding_fraction:.1%} padding",
        )
        for index, use in enumerate(proposal.canvases)
    ]  # fmt: skip
    rates_hz = sorted({float(f"{largest_hz * share:.1g}") for share in (0.1, 0.3, 1.0)})
    bubbles = [
        Line2D(
            [], [], linestyle="none", marker="o", markersize=_bubble_pt2(rate_hz, largest_hz) ** 0.5, color="0.5",
            alpha=0.5, label=f"a frame size, {rate_hz:g} frames/s",
        )
        for rate_hz in rates_hz
    ]  # fmt: skip
    lines = [
        Line2D([], [], marker="s", markersize=4, color="0.4", label="a canvas holds what is left of it and below"),
        Line2D([], [], linewidth=0.7, color="0.4", label="from a size to the canvas it is placed on"),
    ]
    figure.legend(
        handles=canvases + bubbles + lines, loc="outside right upper", fontsize=9, labelspacing=1.0, frameon=False,
        title="canvases, height×width px", title_fontsize=10, alignment="left",
    )  # fmt: skip


def _size(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[0]}×{size_hw[1]}"


def _bubble_pt2(rate_hz: float, largest_hz: float) -> float:
    """Area of a bubble, in proportion to the rate."""
    return max(SMALLEST_BUBBLE_PT2, LARGEST_BUBBLE_PT2 * min(1.0, rate_hz / largest_hz))
