"""The page: whole, escaped, asking nobody; its pictures and its JSON."""

from __future__ import annotations

import json
import re
import time
from html.parser import HTMLParser

import pytest
from report_samples import figures_of, record, unfinished
from simulated_log import records, simulated_run

from serve_app.latency import LatencyModel
from serve_app.report import words
from serve_app.report.advice import advise
from serve_app.report.figures_json import figures_json
from serve_app.report.markup import tag
from serve_app.report.page import report_page
from serve_app.report.plots import save_plots

EVIL = "<img src=http://evil.test/x onerror=alert(1)>\"'&</style><script>"
VOID = {"meta", "br", "hr", "img"}


class Page(HTMLParser):
    """Elements with their attributes, and the text; every element must be closed in its order."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words, self._open = [], [], []
        self.feed(text)
        self.close()
        assert self._open == []

    # The parser calls these.
    # ruff: noqa: D102
    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in VOID:
            self._open.append(name)

    def handle_endtag(self, name):
        assert self._open.pop() == name

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return "".join(self.words)


def page_of(figures):
    """The page of a log."""
    return report_page(figures, advise(figures, None, LatencyModel(), strides_px={}))


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """An overloaded fleet, with names and reasons that are markup."""
    content = records(simulated_run(20.0, 6.0))
    for line in content[::3]:
        line["camera"] += EVIL
        line["verdict_reason"] = EVIL
        line["frame_id"] = line["replica"] = line["bucket"] = line["pool"] = line["model"] = EVIL
        if line["error"]:
            line["error"] = EVIL
    return figures_of(tmp_path_factory.mktemp("log"), *content)


def test_names_and_reasons_are_text_whatever_they_hold(figures):
    """No element of theirs is made, and they are shown as they are."""
    page = Page(page_of(figures))

    assert not {"img", "script", "a", "link", "iframe"} & {name for name, _ in page.elements}
    assert not any(key.startswith("on") for _, attributes in page.elements for key in attributes)
    assert "<img src=http://evil.test/x" in page.text


def test_the_page_asks_nobody_for_anything(figures):
    """No address in any attribute or style, and a policy that would refuse it."""
    text = page_of(figures)
    page = Page(text)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)

    assert not any(key in attributes for _, attributes in page.elements for key in ("src", "href", "srcset", "action"))
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = [a["content"] for name, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")


def test_light_dark_phone_and_paper_are_provided_for(figures):
    """Looked at in Chromium; here so that none goes missing."""
    text = page_of(figures)

    assert 'name="viewport"' in text
    for query in ("prefers-color-scheme: dark", "max-width: 560px", "@media print"):
        assert query in text


def test_each_section_is_there_with_its_figures(figures):
    """The headings, and the number of frames."""
    text = Page(page_of(figures)).text

    for heading in ("What stands out", "Deadlines by class", "Latency by size and class", "Over time", "Batches",
                    "Canvases and padding", "Slowest frames", "Reasons", "planner’s advice", "Cameras"):  # fmt: skip
        assert heading in text
    assert f"{figures.num_frames:,} frames" in text
    for style in set(re.findall(r'class="(?:dot )?fill (?:pale )?([a-z0-9-]+)"', page_of(figures))):
        assert f".{style} {{" in page_of(figures), style


@pytest.mark.parametrize(
    "lines",
    [
        [record()],
        [unfinished("rejected", source_hw=None, verdict=None, priority=None, camera=None, router=None, at_s=None)],
        [unfinished("expired"), unfinished("failed", at_s=101.0)],
        [record(at_s=None, slo_s=None)],
        [record(total_ms=0, queue_ms=0, transfer_ms=0, preprocess_ms=0, infer_ms=0, postprocess_ms=0)],
        [record(at_s=at_s) for at_s in (0.0, 1e9)],
        [record(camera="\ud800\x00\u202e\n", verdict_reason="\udfff", verdict="defer")],
        [record(total_ms=9e9, infer_ms=9e9)],
    ],
    ids=["one", "refused unread", "none finished", "of a client", "no time", "thirty years", "broken name", "for ever"],
)
def test_every_log_has_a_page_pictures_and_json(tmp_path, lines):
    """However little it tells."""
    figures = figures_of(tmp_path, *lines)
    text = page_of(figures)
    advice = advise(figures, None, LatencyModel(), strides_px={})

    assert Page(text).text
    assert "nan" not in re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL).lower().replace("finan", "")
    text.encode("utf-8")
    assert json.loads(json.dumps(figures_json(figures, advice), allow_nan=False))["frames"] == len(lines)
    for path in save_plots(tmp_path / "plots", figures):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_the_pictures_are_drawn(figures, tmp_path):
    """All four, with names in them that matplotlib must not take for formulas."""
    drawn = save_plots(tmp_path, figures)

    assert [path.name for path in drawn] == ["latency.png", "sizes.png", "batches.png", "course.png"]


def test_a_large_fleet_has_a_page_of_bounded_size(tmp_path):
    """A thousand cameras and sizes: what is left out is said."""
    lines = [
        record(at_s=100 + n / 50, camera=f"camera-{n}", source_hw=[100 + n % 397, 640], canvas_hw=[512, 640],
               bucket=f"bucket-{n % 77}")
        for n in range(2000)
    ]  # fmt: skip
    began_s = time.monotonic()
    text = page_of(figures_of(tmp_path, *lines))

    assert len(text) < 400_000
    assert "most frequent of" in text
    assert time.monotonic() - began_s < 60


def test_attributes_and_content_are_escaped():
    """The one place where markup is made."""
    assert (
        tag("p", "<b>", tag("i", "&"), title='"<', class_="a")
        == '<p title="&quot;&lt;" class="a">&lt;b&gt;<i>&amp;</i></p>'
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.99999, "> 99.99 %"),
        (0.99947, "99.94 %"),
        (0.0002, "< 0.1 %"),
        (0.5, "50.0 %"),
    ],
)
def test_a_share_is_all_or_none_only_where_it_is(value, text):
    """100 % with one frame late would be a lie."""
    assert words.share(value) == text


@pytest.mark.parametrize(
    ("value_s", "text"),
    [
        (None, "–"),
        (0.0, "0 ms"),
        (0.00842, "8.42 ms"),
        (0.0996, "100 ms"),
        (0.9996, "1 s"),
        (90.0, "90 s"),
        (600, "10 min"),
    ],
)
def test_durations_have_units(value_s, text):
    """Three digits."""
    assert words.seconds(value_s) == text
