"""Pictures drawn by matplotlib, saved as PNG; it comes with the `plots` extra and is loaded when one is drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from serve_app.errors import FramelaneError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 130


def save_plot(path: Path, size_in: tuple[float, float], label: str, draw: Callable[[Figure], None]) -> Path:
    """Draw a picture of this size in inches, with a line of small print below, and save it.

    Raises:
        FramelaneError: there is no matplotlib, or the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as err:
        raise FramelaneError(
            "plots: got no matplotlib, which draws them; install it with: pip install 'framelane[plots]'"
        ) from err
    # Not through pyplot: it would choose a backend and keep the figure for the whole process.
    figure = Figure(figsize=size_in, layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure)
    figure.supxlabel(without_formulas(label), fontsize=7.5, color="#555555", x=0.01, ha="left", wrap=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=DPI, format="png")
    except OSError as err:
        raise FramelaneError(f"plot {path}: cannot be written ({err.strerror}); choose another folder") from err
    return path


def without_formulas(text: str) -> str:
    """A text in which matplotlib sees no formula."""
    return text.replace("$", r"\$")
