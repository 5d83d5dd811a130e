"""A later deployment has a larger revision, whatever the clocks say."""

from __future__ import annotations

import time

import pytest

from serve_app import revision


@pytest.mark.parametrize(
    ("running", "now_ns", "expected"),
    [(0, 1000, 1000), (900, 1000, 1000), (1000, 1000, 1001), (5000, 1000, 5001)],
    ids=["first", "later", "at once", "clock set back"],
)
def test_it_is_the_clock_or_one_more_than_what_runs(monkeypatch, running, now_ns, expected):
    """Routers hand over to larger revisions only: with a smaller one an update would never begin."""
    monkeypatch.setattr(revision, "running_revision", lambda: running)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns)

    assert revision.next_revision() == expected


def test_without_ray_nothing_runs(monkeypatch):
    """Building an application is no reason to start a cluster."""
    monkeypatch.setattr(revision.ray, "is_initialized", lambda: False)

    assert revision.running_revision() == 0
