"""Ray Serve's import warns of pydantic's future; that is Ray's affair, while all other warnings stay errors here."""

from __future__ import annotations

import warnings

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import ray.serve  # (imported here once, so that no test is the first)


@pytest.fixture
def driven_by_hand(monkeypatch):
    """A router needs no Ray to be driven, and its watchers wait for the test's reports, not for a clock."""
    from serve_app import replica_watch

    def refuse(*_args, **_kwargs):
        raise AssertionError("a unit test must not start Ray")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(ray, "put", refuse)
    monkeypatch.setattr(replica_watch, "REPORT_INTERVAL_S", 0.0)
    monkeypatch.setattr(replica_watch, "running_replicas", lambda pool, _wait_s: pool.running())


@pytest.fixture
def clock(monkeypatch):
    """The router's clock, which stands still until the test moves it; its timers run on real time all the same."""
    from router_world import Clock

    from serve_app import batch_calls, frame_book, replica_news, router

    stopped = Clock()
    for module in (batch_calls, frame_book, replica_news, router):
        monkeypatch.setattr(module, "time", stopped)
    return stopped
