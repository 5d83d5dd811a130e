"""Numbers and names as people read them. Pure."""

from __future__ import annotations

import unicodedata

from engines.spec import CanvasShape
from serve_app.planning.traffic import SizeHw

MAX_NAME = 80
NONE = "–"


def seconds(value_s: float | None) -> str:
    """A duration with its unit, to three digits: `8.42 ms`, `1.2 s`, `3 min`."""
    if value_s is None:
        return NONE
    if value_s < 0.9995:
        return f"{_digits(value_s * 1000)} ms"
    if value_s < 120:
        return f"{_digits(value_s)} s"
    return f"{_digits(value_s / 60)} min" if value_s < 7200 else f"{_digits(value_s / 3600)} h"


def share(value: float | None) -> str:
    """A share as a percentage that is 100 % or 0 % only where it is all or none."""
    if value is None:
        return NONE
    percent = 100 * value
    if percent in {0.0, 100.0}:
        return f"{percent:.0f} %"
    if percent > 99.9:
        return f"{int(percent * 100) / 100:g} %" if percent <= 99.99 else "> 99.99 %"
    return "< 0.1 %" if percent < 0.1 else f"{percent:.1f} %"


def count(value: float) -> str:
    """A number of frames, in groups of three."""
    return f"{value:,.0f}"


def rate(value_hz: float) -> str:
    """Frames a second."""
    return f"{_digits(value_hz)}/s"


def size(size_hw: SizeHw | CanvasShape | None) -> str:
    """Height and width, as everywhere here."""
    return "other sizes" if size_hw is None else f"{size_hw[0]}×{size_hw[1]}"


def frames(number: int) -> str:
    """So many frames, in words."""
    return f"{count(number)} frame{'' if number == 1 else 's'}"


def name(text: str) -> str:
    """What a client or file calls something, as one printable line; too long a one is cut.

    Control characters, lone halves of characters, and marks that turn the direction of writing are shown as �: a name
    must not change how the rest of a line reads.
    """
    shown = "".join(
        "�" if unicodedata.category(letter) in {"Cc", "Cf", "Cs", "Zl", "Zp"} else letter for letter in text
    )
    return (shown[: MAX_NAME - 1] + "…" if len(shown) > MAX_NAME else shown) or "(no name)"


def sentence(text: str) -> str:
    """Words of the log, as one printable line."""
    return "".join("�" if unicodedata.category(letter) in {"Cc", "Cf", "Cs", "Zl", "Zp"} else letter for letter in text)


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 99.5 else f"{value:.3g}"
