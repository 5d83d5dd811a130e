"""HTML and SVG from elements; every text is escaped unless it was made here. Pure."""

from __future__ import annotations

import html


class Markup(str):
    """Text that is markup already; made by `tag` and `joined` only."""

    __slots__ = ()


Content = str | float | None


def tag(name: str, /, *content: Content, **attributes: Content) -> Markup:
    """An element.

    Args:
        name: of it.
        content: elements, and texts, which are escaped; None: nothing.
        attributes: their values are escaped; None leaves one out. `class_` is `class`, and `_` within a name is `-`.
    """
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(_text(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Markup(f"<{name}{said}>")
    return Markup(f"<{name}{said}>{joined(*content)}</{name}>")


def joined(*content: Content) -> Markup:
    """Elements and texts one after the other."""
    return Markup("".join(part if isinstance(part, Markup) else html.escape(_text(part)) for part in content))


# Elements that have no content in HTML.
VOID = frozenset({"meta", "br", "hr"})


def _text(value: Content) -> str:
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
