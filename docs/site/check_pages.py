"""Looks at a built site for what Sphinx does not: `python check_pages.py FOLDER` exits with 1 if something is wrong.

Wrong is a page that would fetch something from another host, and a link to a file or an anchor that is not there.
Links to other hosts that a reader may follow are allowed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a browser fetches by itself; `<a href>` it does not.
FETCHED = {
    "img": "src",
    "script": "src",
    "link": "href",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
}
# Relations that name a page without fetching it.
UNFETCHED_RELATIONS = {"canonical", "next", "prev", "author", "license", "index", "search"}
REMOTE = re.compile(r"^(?:https?:)?//", re.IGNORECASE)
IN_STYLES = re.compile(r"""(?:url\(|@import)\s*["']?\s*((?:https?:)?//[^"')\s]+)""", re.IGNORECASE)


class _Page(HTMLParser):
    """The ids of a page, where it leads, and what it fetches."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids |= {values[name] for name in ("id", "name") if values.get(name)}
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        address = values.get(FETCHED.get(tag, ""), "")
        if address and not (tag == "link" and values.get("rel", "") in UNFETCHED_RELATIONS):
            self.fetched.append(address)
        self.fetched += IN_STYLES.findall(values.get("style", ""))


def problems(folder: Path) -> Iterator[str]:
    """Everything that is wrong with a built site, in words."""
    pages = {path: _parsed(path) for path in sorted(folder.rglob("*.html"))}
    if not pages:
        yield f"{folder}: holds no page"
    for path, page in pages.items():
        where = path.relative_to(folder)
        yield from (f"{where}: would fetch {one}" for one in page.fetched if REMOTE.match(one))
        for link in (*page.links, *(one for one in page.fetched if not REMOTE.match(one))):
            yield from _broken(link, path, where, pages)
    for style in folder.rglob("*.css"):
        for address in IN_STYLES.findall(style.read_text(encoding="utf-8")):
            yield f"{style.relative_to(folder)}: would fetch {address}"


def _parsed(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def _broken(link: str, path: Path, where: Path, pages: dict[Path, _Page]) -> Iterator[str]:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    target = target / "index.html" if target.is_dir() else target
    if not target.exists():
        yield f"{where}: leads to {link}, which is not there"
    elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
        yield f"{where}: leads to {link}, but {target.name} has no such anchor"


if __name__ == "__main__":
    found = list(problems(Path(sys.argv[1]).resolve()))
    sys.stdout.write("".join(f"error: {line}\n" for line in found))
    sys.exit(bool(found))
