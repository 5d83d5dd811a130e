"""The picture of `framelane status` in the docs.

Make it anew: python tests/unit/serve_app/status_picture.py
"""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console
from status_samples import VIEW

from serve_app.cli.status_tables import status_page

PICTURE = Path(__file__).parents[3] / "docs" / "images" / "status.svg"
WIDTH = 88


def status_svg() -> str:
    """The page of the sample service, in the reader's own font: a picture in the docs fetches nothing."""
    console = Console(width=WIDTH, record=True, file=io.StringIO(), force_terminal=True)
    console.print(status_page(VIEW), highlight=False)
    svg = console.export_svg(title="framelane status")
    svg = re.sub(r"\s*@font-face \{.*?\}\n", "\n", svg, flags=re.DOTALL)
    return svg.replace("Fira Code, monospace", "DejaVu Sans Mono, Menlo, Consolas, monospace")


if __name__ == "__main__":
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.write_text(status_svg())
