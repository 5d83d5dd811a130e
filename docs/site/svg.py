"""Boxes, texts and arrows as SVG text; what is drawn with them is in `drawings.py`."""

from __future__ import annotations

from html import escape

INK, FAINT, LINE = "#1f2937", "#6b7280", "#94a3b8"
BLUE, ORANGE, GREEN, GREY = "#2563eb", "#c2410c", "#15803d", "#64748b"
PALE = {BLUE: "#dbeafe", ORANGE: "#ffedd5", GREEN: "#dcfce7", GREY: "#f1f5f9"}


class Drawing:
    """A picture of a fixed size on a light ground, in px; coordinates are (x, y) from the upper left corner."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img" font-family="system-ui, Liberation Sans, sans-serif"><title>{escape(title)}</title>\n'
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            f'orient="auto-start-reverse"><path d="M0 0 8 4 0 8z" fill="{INK}"/></marker></defs>\n'
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>\n'
        )
        self._parts: list[str] = []

    def box(self, x: float, y: float, width: float, height: float, colour: str = GREY, *, dashed: bool = False) -> None:
        """A rectangle with a pale ground of its colour."""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5" fill="{PALE[colour]}" '
            f'stroke="{colour}" stroke-width="1.4"{dash}/>'
        )

    def block(self, x: float, y: float, width: float, height: float, fill: str) -> None:
        """A rectangle of one colour without an edge."""
        self._parts.append(f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{fill}"/>')

    def text(
        self,
        x: float,
        y: float,
        lines: str,
        *,
        size: float = 13,
        colour: str = INK,
        bold: bool = False,
        at: str = "middle",
    ) -> None:
        """Lines of text, the first on the baseline `y`; `at` is start, middle or end."""
        weight = ' font-weight="600"' if bold else ""
        for number, line in enumerate(lines.split("\n")):
            self._parts.append(
                f'<text x="{x:g}" y="{y + number * size * 1.3:g}" font-size="{size:g}" fill="{colour}" '
                f'text-anchor="{at}"{weight} style="white-space:pre">{escape(line)}</text>'
            )

    def arrow(self, *points: tuple[float, float], colour: str = INK, dashed: bool = False) -> None:
        """A line through the points with a tip at the last."""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        self._parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"{dash} marker-end="url(#tip)"/>'
        )

    def svg(self) -> str:
        """The whole file."""
        return self._head + "\n".join(self._parts) + "\n</svg>\n"
