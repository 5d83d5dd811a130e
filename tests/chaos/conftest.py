"""One cluster for all tests of a file: starting one takes longer than most of them, and other files start their own."""

from __future__ import annotations

import pytest
from chaos_world import ChaosWorld


@pytest.fixture(scope="module")
def cluster_world(tmp_path_factory):
    """Three nodes with the service on them; two routers, so that there is one to go to."""
    world = ChaosWorld(tmp_path_factory.mktemp("chaos"), num_routers=2)
    try:
        world.start()
        yield world
    finally:
        world.stop()


@pytest.fixture
def world(cluster_world):
    """The same with all its nodes, whatever the test before has killed."""
    while len(cluster_world.workers) < 2:
        cluster_world.add_node()
    return cluster_world
