"""What Serve says of a pool without replicas, cut to the line that tells."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from serve_app import pool_trouble
from serve_app.app_name import APP_NAME

TRACE = """A replica failed to start with exception. Retrying. Error:
Traceback (most recent call last):
  File "replica.py", line 1, in start
engines.errors.EngineMemoryError: engine: no memory for a batch of shape (1, 480, 640, 3)

"""


def deployment(status, message=""):
    """As Serve describes one."""
    return SimpleNamespace(status=SimpleNamespace(value=status), message=message)


@pytest.mark.parametrize(
    ("status", "message", "told"),
    [
        pytest.param("HEALTHY", "", None, id="well"),
        pytest.param("UPSCALING", "Upscaling from 1 to 2 replicas.", None, id="growing"),
        pytest.param("UPDATING", "", None, id="nothing-said"),
        pytest.param(
            "UPDATING", TRACE,
            "UPDATING: engines.errors.EngineMemoryError: engine: no memory for a batch of shape (1, 480, 640, 3)",
            id="no-memory-to-start",
        ),
        pytest.param(
            "UNHEALTHY", "A replica's health check failed.\n", "UNHEALTHY: A replica's health check failed.",
            id="replica-being-replaced",
        ),
    ],
)  # fmt: skip
def test_a_pool_in_trouble_is_told_with_its_reason(monkeypatch, status, message, told):
    """The error itself, not the trace above it."""
    overview = {APP_NAME: SimpleNamespace(deployments={"engine-cpu": deployment(status, message)})}
    monkeypatch.setattr(pool_trouble.serve, "status", lambda: SimpleNamespace(applications=overview))

    assert pool_trouble.troubles() == ({} if told is None else {"engine-cpu": told})


def test_a_ray_without_the_service_has_no_trouble(monkeypatch):
    """Whoever asks is told elsewhere that nothing runs."""
    monkeypatch.setattr(pool_trouble.serve, "status", lambda: SimpleNamespace(applications={}))

    assert pool_trouble.troubles() == {}
