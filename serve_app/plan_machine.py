"""On what the engines of a plan run: the name that a table of measured seconds holds for."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing

from engines.device_facts import open_device
from engines.errors import EngineError
from engines.machine import machine_name
from serve_app.plan import Plan, Runtime


def machine_of(plan: Plan) -> str | None:
    """The devices that this machine has for a plan; None where it needs a GPU and none is here to be asked."""
    names = set()
    for runtime in {pool.runtime for pool in plan.pools}:
        name = device_name(runtime)
        if name is None:
            return None
        names.add(name)
    return joined(names)


def joined(names: Iterable[str]) -> str:
    """One name for all of these devices."""
    return " + ".join(sorted(set(names)))


def device_name(runtime: Runtime) -> str | None:
    """What this machine has for a runtime; None where that is a GPU and none is here to be asked."""
    if runtime is Runtime.ONNX:
        return machine_name()
    try:
        with closing(open_device(0)) as device:
            return device.facts().name
    except EngineError:
        return None
