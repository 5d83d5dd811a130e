"""The process that looks at a service for `framelane status --watch`."""

from __future__ import annotations

import signal
import time

import pytest

from serve_app.cli import status_feed
from serve_app.cli.status_feed import Feed


def deaf(line, address, every_s):
    """What the child does that hears no SIGTERM, as in a call of Ray that does not return."""
    del address, every_s
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    line.send("deaf")
    time.sleep(600)


def test_a_child_that_does_not_hear_is_ended_all_the_same(monkeypatch):
    """Ctrl-C gives the terminal back."""
    monkeypatch.setattr(status_feed, "_look_again_and_again", deaf)
    monkeypatch.setattr(status_feed, "END_S", 0.2)
    feed = Feed(None, 1.0)
    assert feed.next(30.0) == "deaf"
    child = feed._child

    feed.close()

    assert child.exitcode == -signal.SIGKILL
    with pytest.raises(EOFError):
        feed.next(0.1)
