"""A GPU pool, a replica and the tests for GPUs on stand-ins of driver and runtime (simulated, see `simulated/`)."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.tensorrt


def test_a_replica_of_a_gpu_pool_keeps_its_promises_through_its_whole_life(simulated):
    """One arena for all buckets; engines from folder, store or builder; overtaking; a lost device; framelane parity."""
    simulated.assert_all_passed("pool_life", at_least=21)


def test_the_tests_for_a_gpu_have_run_once(simulated):
    """Conformance, parity, memory, benchmark and report of `tests/gpu`, with small sizes: their own code works."""
    simulated.assert_all_passed("gpu_tests_once", at_least=110)
