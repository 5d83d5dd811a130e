"""No code block of the documentation escapes the tests without saying why, and every piece of a plan is a plan."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from code_blocks import RUN, SHOWN, CodeBlock, blocks_of

from serve_app.config import plan_from
from serve_app.plan_schema import PlanFile

DOCS = Path(__file__).parents[3] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


def ids(path):
    """A page as people call it."""
    return path.relative_to(DOCS).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_block_runs_or_is_shown_or_says_why_not(page):
    """A fence without a language, or with one that nobody runs, would hide a command that is wrong."""
    unknown = [
        f"{page.name}:{block.line}: language {block.language!r}, allowed are {', '.join((*RUN, *SHOWN))}"
        for block in blocks_of(page.read_text(encoding="utf-8"))
        if block.language not in (*RUN, *SHOWN)
    ]
    assert unknown == []


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_a_mark_stands_above_a_block_that_would_run(page):
    """One that a line was put below, or that stands above data, marks nothing."""
    text = page.read_text(encoding="utf-8")
    marked = [block for block in blocks_of(text) if block.not_run_because]
    assert text.count("*Not run by the tests") == len(marked)
    assert all(block.language in RUN for block in marked)


def test_blocks_are_found_with_their_language_and_reason():
    """Indented ones too."""
    page = (
        "a\n```sh\nls\n```\n*Not run by the tests: it needs a GPU.*\n```sh\nmake test-gpu\n```\n"
        "- b\n\n  ```python\n  if x:\n      y()\n  ```\n```\nbare\n```\n"
    )
    assert list(blocks_of(page)) == [
        CodeBlock(2, "sh", "ls\n"),
        CodeBlock(6, "sh", "make test-gpu\n", "it needs a GPU"),
        CodeBlock(11, "python", "if x:\n    y()\n"),
        CodeBlock(15, "", "bare\n"),
    ]
    assert [block.runs for block in blocks_of(page)] == [True, False, True, False]


def test_a_block_without_an_end_is_an_error():
    """It would swallow the rest of the page."""
    with pytest.raises(ValueError, match="line 2: the code block has no end"):
        list(blocks_of("a\n```sh\nls\n"))


def pieces_of_plans():
    """YAML blocks whose keys are all a plan's."""
    for page in PAGES:
        for block in blocks_of(page.read_text(encoding="utf-8")):
            if block.language == "yaml":
                content = yaml.safe_load(block.code)
                if isinstance(content, dict) and set(content) <= set(PlanFile.model_fields):
                    yield pytest.param(content, id=f"{ids(page)}:{block.line}")


def models_of(content):
    """The models that a piece of a plan speaks of."""
    below = [*content.get("cameras", {}).values(), *content.get("buckets", {}).values(), *content.get("ladder", [])]
    return [section["model"] for section in below if "model" in section]


@pytest.mark.parametrize("content", [*pieces_of_plans()])
def test_every_piece_of_a_plan_can_be_read(content, tmp_path):
    """Its keys exist and its values are allowed; the models and buckets that it needs are put beside it."""
    models = {"models": {"full": "a.onnx"} | dict.fromkeys(models_of(content), "b.onnx")}
    least = {"buckets": {name: {"model": name, "canvases": [[480, 640]]} for name in models["models"]}}
    plan_from(models | least | content, tmp_path)
