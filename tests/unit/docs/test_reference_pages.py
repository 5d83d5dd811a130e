"""The pages that are made from the code say what the code says."""

from __future__ import annotations

import pytest
import write_reference
from plan_reference import page as plan_page

from serve_app.plan_schema import SECTIONS, PlanFile, Section


def sections():
    """Every model of a file that people write, and of its sections, which are all of one base."""
    found, new = set(), {Section}
    while new:
        new = {below for model in new for below in model.__subclasses__()} - found
        found |= new
    return sorted(found, key=lambda model: model.__name__)


@pytest.mark.parametrize("name", write_reference.PAGES)
def test_a_page_made_from_the_code_is_up_to_date(name):
    """Otherwise: make reference."""
    written = (write_reference.DOCS / name).read_text(encoding="utf-8")
    assert written == write_reference.wanted(name), f"docs/{name} differs from the code; run: make reference"


@pytest.mark.parametrize("model", sections(), ids=lambda m: m.__name__)
def test_every_key_of_the_plan_has_a_description(model):
    """The text below a key in plan_schema.py, or `description=` of its Field."""
    assert [key for key, field in model.model_fields.items() if not field.description] == []


def test_every_key_of_the_plan_is_on_the_page_with_its_default():
    """No section is left out."""
    rows = plan_page().splitlines()
    for model in (PlanFile, *SECTIONS.values()):
        for key in model.model_fields:
            assert any(row.startswith((f"| `{key}` |", f"| [`{key}`](")) for row in rows), key


@pytest.mark.parametrize(
    "row",
    [
        "| `max_chunk_s` | number, above 0, at most 86400 | – | seconds | The longest piece",
        "| `utilisation` | number, above 0, at most 1 | `0.8` | share, 0 to 1 | ",
        "| `canvases` | list of pairs (whole number, at least 1, at most 16384) | required | px | ",
        "| `keep` | `all`, `latest` | `all` |  | ",
        "| `surge` | `true` or `false` | `true` |  | ",
        "| [`pools`](#pools) | sections by name | | | ",
    ],
    ids=lambda row: row.split("`")[1],
)
def test_a_row_tells_type_bounds_default_and_unit(row):
    """As a person would write them in YAML."""
    assert any(line.startswith(row) for line in plan_page().splitlines())
