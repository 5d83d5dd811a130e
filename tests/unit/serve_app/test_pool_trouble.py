"""What Serve says of a pool without replicas, cut to the line that tells."""

from __future__ import annotations

import pytest

from serve_app.pool_trouble import telling_line

TRACE = """A replica failed to start with exception. Retrying. Error:
Traceback (most recent call last):
  File "replica.py", line 1, in start
engines.errors.EngineMemoryError: engine: no memory for a batch of shape (1, 480, 640, 3)

"""


@pytest.mark.parametrize(
    ("message", "told"),
    [
        pytest.param("", "", id="nothing-said"),
        pytest.param(
            TRACE,
            "engines.errors.EngineMemoryError: engine: no memory for a batch of shape (1, 480, 640, 3)",
            id="trace",
        ),
        pytest.param("A replica's health check failed.\n", "A replica's health check failed.", id="one-line"),
    ],
)
def test_the_error_itself_is_told(message, told):
    """Not the trace above it."""
    assert telling_line(message) == told
