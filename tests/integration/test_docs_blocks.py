"""Every Python and shell block of docs/ runs, in its page's order, or says above it why it cannot."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from docs_world import DocsWorld, PagePython

pytestmark = pytest.mark.docs

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs" / "site"))

from code_blocks import blocks_of  # noqa: E402 (it is a script's module, in no package)

# Whose tests also look at what the blocks print.
TESTED_ELSEWHERE = {"http.md": "test_http_docs.py", "python.md": "test_docs_python.py"}
PAGES = {
    path: list(blocks_of(path.read_text(encoding="utf-8")))
    for path in sorted((ROOT / "docs").rglob("*.md"))
    if path.name not in TESTED_ELSEWHERE
}
STARTS_ITS_OWN = re.compile(r"^framelane up\b", re.MULTILINE)
USES_ONE = re.compile(
    r"Client\.connect|serve_app\.streams|^framelane (?:status|stream|spool|update)\b|localhost|127\.0\.0\.1",
    re.MULTILINE,
)


def code_that_runs(page):
    """All of a page's blocks that run, as one text."""
    return "".join(block.code for block in PAGES[page] if block.runs)


def starts_its_own(page):
    """Whether a block of the page starts a service."""
    return STARTS_ITS_OWN.search(code_that_runs(page)) is not None


# Those that share the service go first, so that it is started and stopped once.
RUN = sorted((page for page in PAGES if code_that_runs(page)), key=lambda page: (starts_its_own(page), page))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The files and the service of all pages."""
    made = DocsWorld(tmp_path_factory.mktemp("docs"))
    yield made
    if made.is_up:
        made.stop_service()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_block_of_the_page_runs(world, page):
    """Top to bottom, in a folder with the files that it speaks of."""
    if starts_its_own(page):
        world.stop_service()
    elif USES_ONE.search(code_that_runs(page)):
        world.start_service()
    folder = world.page_folder(page.stem)
    python = PagePython(world, folder)
    try:
        for block in PAGES[page]:
            if block.runs:
                printed = python.run(block.code) if block.language == "python" else world.run(block.code, folder)
                sys.stdout.write(f"{page.name}:{block.line}\n{printed}")
    finally:
        python.close()
        if starts_its_own(page):
            world.stop_service()
