"""What Serve is told of a pool's and the routers' places."""

from __future__ import annotations

import pytest
from ray import serve

from serve_app.placement import pool_options, router_options
from serve_app.plan import Pool


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        (
            Pool("gpu", num_cpus=2.0, num_gpus=0.5, labels={"gpu": "in(l4, a10)"}, max_replicas_per_node=2),
            {
                "ray_actor_options": {"num_cpus": 2.0, "num_gpus": 0.5, "label_selector": {"gpu": "in(l4,a10)"}},
                "max_replicas_per_node": 2,
            },
        ),
        (Pool("cpu"), {"ray_actor_options": {"num_cpus": 1.0, "num_gpus": 0.0}}),
        (
            Pool("free", num_cpus=0.0),
            {"ray_actor_options": {"num_cpus": 0.0, "num_gpus": 0.0}, "max_replicas_per_node": 100},
        ),
    ],
    ids=["everything", "plain", "reserves-nothing"],
)
def test_a_pools_options_say_what_the_plan_says(pool, expected):
    """A replica that reserves nothing gets a limit that is none: only then do machines take turns."""
    assert pool_options(pool) == expected
    serve.deployment(name="engine", **pool_options(pool))(object)  # Serve takes them


def test_routers_go_anywhere_but_where_their_label_says_no():
    """They reserve nothing, and take turns among machines all the same."""
    assert router_options() == {
        "ray_actor_options": {"num_cpus": 0, "label_selector": {"framelane-routers": "!no"}},
        "max_replicas_per_node": 100,
    }
    serve.deployment(name="router", **router_options())(object)
