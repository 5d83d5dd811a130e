"""A start without memory waits for it, and for nothing else."""

from __future__ import annotations

import logging

import pytest

from engines.errors import EngineMemoryError, ModelFileError
from serve_app.start_patience import RETRY_S, with_patience


class Start:
    """Fails so often before it returns, and notes how long is waited."""

    def __init__(self, num_failures, error):
        self.left = num_failures
        self.error = error
        self.num_calls = 0
        self.waited_s: list[float] = []

    def __call__(self):
        """Start."""
        self.num_calls += 1
        if self.left:
            self.left -= 1
            raise self.error
        return "started"


@pytest.mark.parametrize("error", [EngineMemoryError("none left"), MemoryError("none left")], ids=["engine", "python"])
def test_memory_that_comes_back_is_waited_for(error, caplog):
    """With growing pauses, each told."""
    start = Start(3, error)
    with caplog.at_level(logging.WARNING):
        assert with_patience(start, "pool near", sleep=start.waited_s.append) == "started"

    assert start.waited_s == [1.0, 2.0, 4.0]
    assert caplog.messages[-1] == "pool near: no memory to start, trying again in 4 s (none left)"


def test_after_a_minute_it_fails():
    """Serve shows the reason, and begins anew at most once a minute."""
    start = Start(100, EngineMemoryError("none left"))
    with pytest.raises(EngineMemoryError, match="none left"):
        with_patience(start, "pool near", sleep=start.waited_s.append)

    assert start.num_calls == len(RETRY_S) + 1
    assert 55 < sum(start.waited_s) < 70


def test_another_error_is_told_at_once():
    """Waiting mends no damaged model."""
    start = Start(1, ModelFileError("damaged"))
    with pytest.raises(ModelFileError):
        with_patience(start, "pool near", sleep=start.waited_s.append)

    assert (start.num_calls, start.waited_s) == (1, [])
