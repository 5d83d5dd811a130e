"""Where Serve puts the replicas of a plan: what each one reserves, on which machines, how many on one."""

from __future__ import annotations

from typing import Any

from serve_app.label_rule import label_rules
from serve_app.plan import Pool

# Serve asks Ray to spread replicas, and Ray takes turns among machines; but a replica that reserves nothing goes to a
# machine by lot: four of them landed on two of four machines. With a limit, Serve reserves a part of a resource that
# each machine has for it, and then they take turns as well. So high a limit, the highest that Serve takes, is none.
NO_LIMIT_PER_NODE = 100
# A machine that says `framelane-routers=no` takes no routers; those that say nothing do.
ROUTER_LABELS = {"framelane-routers": "!no"}


def pool_options(pool: Pool) -> dict[str, Any]:
    """Options of a pool's deployment: it is spread over the machines that its labels allow."""
    reserves = {"num_cpus": pool.num_cpus, "num_gpus": pool.num_gpus}
    rules = label_rules(pool.labels, f"pools.{pool.name}.labels")
    labels = {"label_selector": {rule.key: rule.selector for rule in rules}} if rules else {}
    needs_turns = not (pool.num_cpus or pool.num_gpus)
    per_node = pool.max_replicas_per_node or (NO_LIMIT_PER_NODE if needs_turns else None)
    limit = {} if per_node is None else {"max_replicas_per_node": per_node}
    return {"ray_actor_options": reserves | labels} | limit


def router_options() -> dict[str, Any]:
    """Options of the routers' deployment: they reserve nothing, pixels never pass them, and nearly any machine will do.

    `cluster.yaml` gives the head this label: when the head dies, frames go on while it comes back.
    """
    return {
        "ray_actor_options": {"num_cpus": 0, "label_selector": dict(ROUTER_LABELS)},
        "max_replicas_per_node": NO_LIMIT_PER_NODE,
    }
