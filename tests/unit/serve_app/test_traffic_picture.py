"""The picture of a proposal: that it is drawn, with everything that a reader looks for."""

from __future__ import annotations

import sys

import pytest
from fleet_samples import MODEL, POOL, clustered_fleet

from engines.image_file import read_image
from serve_app.errors import FramelaneError
from serve_app.latency import LatencyModel
from serve_app.planning.planner import propose
from serve_app.planning.proposal import PlannerLimits
from serve_app.planning.traffic_picture import COLOURS, draw_proposal, save_picture_of

PROPOSAL = propose(clustered_fleet(), MODEL, LatencyModel(), PlannerLimits(), pool=POOL)


def test_every_size_every_canvas_and_every_figure_are_in_the_picture():
    """Read from the drawing itself: bubbles, numbered corners, the legend."""
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    figure = Figure()
    draw_proposal(figure, PROPOSAL)
    axes = figure.axes[0]
    bubbles = [tuple(map(float, bubble.get_offsets()[0])) for bubble in axes.collections]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]

    assert sorted(bubbles) == sorted((width, height) for height, width in {e.size_hw for e in PROPOSAL.traffic})
    assert [text.get_text() for text in axes.texts] == ["1", "2", "3", "4", "5", "6"]
    assert [text.xy for text in axes.texts] == [(use.canvas.width, use.canvas.height) for use in PROPOSAL.canvases]
    assert labels[:2] == ["480×640: 125 frames/s, 28.2% padding", "736×1280: 48 frames/s, 4.0% padding"]
    assert axes.get_title(loc="left").startswith("40 frame sizes on 6 canvases: 6.2% padding\n265 frames/s need 36.4")
    low_px, high_px = axes.get_xlim()
    assert low_px < min(min(bubble) for bubble in bubbles)
    assert high_px > max(max(bubble) for bubble in bubbles)
    assert len(set(COLOURS)) == len(COLOURS)


def test_the_picture_is_a_png_of_a_size_that_can_be_read(tmp_path):
    """Its folder is made."""
    pytest.importorskip("matplotlib")
    save_picture_of(PROPOSAL, tmp_path / "new" / "plan.png")

    assert read_image(tmp_path / "new" / "plan.png").shape == (1040, 1625, 3)


def test_without_matplotlib_the_cure_is_told(monkeypatch, tmp_path):
    """It is an extra."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)

    with pytest.raises(FramelaneError, match=r"picture: got no matplotlib, .* pip install 'framelane\[plots\]'"):
        save_picture_of(PROPOSAL, tmp_path / "plan.png")
