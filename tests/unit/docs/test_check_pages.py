"""What is wrong with a built site is found: foreign hosts, dead links, dead anchors."""

from __future__ import annotations

import pytest
from check_pages import problems

GOOD = '<link rel="stylesheet" href="style.css"><h2 id="one">1</h2><a href="https://example.org/paper">paper</a>'


@pytest.fixture
def site(tmp_path):
    """Two pages that lead to each other, and a style sheet."""
    (tmp_path / "style.css").write_text("body { background: url(ground.png) }")
    (tmp_path / "other.html").write_text('<h2 id="there">2</h2><a href="index.html#one">back</a>')
    (tmp_path / "index.html").write_text(GOOD + '<a href="other.html#there">on</a><a href="#one">up</a>')
    return tmp_path


def test_a_good_site_has_no_problems(site):
    """Links that a reader may follow to other hosts are no requests."""
    assert list(problems(site)) == []


@pytest.mark.parametrize(
    ("html", "problem"),
    [
        ('<script src="https://cdn.example/x.js"></script>', "index.html: would fetch https://cdn.example/x.js"),
        ('<link rel="stylesheet" href="//fonts.example/a">', "index.html: would fetch //fonts.example/a"),
        ('<img src="HTTP://a.example/b.png">', "index.html: would fetch HTTP://a.example/b.png"),
        ("<p style=\"background:url('https://a.example/b')\">", "index.html: would fetch https://a.example/b"),
        ('<a href="gone.html">x</a>', "index.html: leads to gone.html, which is not there"),
        ('<img src="gone.png">', "index.html: leads to gone.png, which is not there"),
        ('<a href="other.html#gone">x</a>', "index.html: leads to other.html#gone, but other.html has no such anchor"),
        ('<a href="#gone">x</a>', "index.html: leads to #gone, but index.html has no such anchor"),
    ],
    ids=["script", "font", "picture", "style", "page", "file", "anchor", "own-anchor"],
)
def test_each_problem_is_named(site, html, problem):
    """With the page that has it."""
    (site / "index.html").write_text(GOOD + html)
    assert list(problems(site)) == [problem]


def test_a_style_sheet_that_would_fetch_is_a_problem(site):
    """Imports count too."""
    (site / "style.css").write_text('@import "https://fonts.example/css";')
    assert list(problems(site)) == ["style.css: would fetch https://fonts.example/css"]


def test_a_site_without_pages_is_a_problem(tmp_path):
    """A build that wrote nothing must not pass."""
    assert list(problems(tmp_path)) == [f"{tmp_path}: holds no page"]
