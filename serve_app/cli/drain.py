"""`framelane drain`: take the replicas off a machine before it is switched off."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from serve_app.cli.console import output, progress
from serve_app.cli.service import AddressOption
from serve_app.errors import ServiceUnavailableError

# Replicas elsewhere load and warm their engines first; building TensorRT engines for a new kind of GPU takes longer.
DEFAULT_WAIT_S = 600.0
POLL_S = 0.5


def drain(
    node: Annotated[str, typer.Argument(help="The node's id or its beginning, name or address; see framelane status.")],
    wait: Annotated[bool, typer.Option("--wait", help="Return when no replica is left there.")] = False,
    timeout_s: Annotated[float, typer.Option(help="How long --wait waits.")] = DEFAULT_WAIT_S,
    force: Annotated[bool, typer.Option("--force", help="Also if nothing else has room for its replicas.")] = False,
    address: AddressOption = None,
) -> None:
    """Send a machine no more work: replicas start elsewhere first, what it holds ends. For good; there is no undo.

    To use the machine again, stop Ray there and start it anew.
    """
    from serve_app.client import Client
    from serve_app.node_drain import check_drain, find_node, num_serve_actors_on, replicas_on
    from serve_app.node_drain import drain as drain_node
    from serve_app.ray_nodes import living_nodes

    client = Client.connect(address)
    nodes = living_nodes()
    found = find_node(node, nodes)
    there = replicas_on(found, client.status().pools)
    check_drain(found, nodes, [pool for pool, _ in there], client.plan, force=force)
    drain_node(found)
    names = ", ".join(replica for _, replica in there) or "no replica"
    output.print(f"draining {found.label}: {names} there", highlight=False)
    if not wait:
        return
    give_up_s = time.monotonic() + timeout_s
    with progress() as shown:
        shown.add_task("waiting for replicas elsewhere", total=None)
        while left := num_serve_actors_on(found):
            if time.monotonic() > give_up_s:
                raise ServiceUnavailableError(
                    f"drain: {left} replicas or routers are still on {found.label} after {timeout_s:.0f} s; they serve "
                    "on until others are ready: look at framelane status and the pools' labels"
                )
            time.sleep(POLL_S)
    output.print(f"drained {found.label}: it can be switched off", highlight=False)
