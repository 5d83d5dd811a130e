"""The conformance suite of all runners on the TensorRT runner (simulated)."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.tensorrt


def test_the_tensorrt_runner_keeps_what_every_engine_promises(simulated):
    """The very suite of `tests/unit/engines/engine_promises.py`, for both kinds of the library."""
    simulated.assert_all_passed("engine_promises_kept", at_least=130)
