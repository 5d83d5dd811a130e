"""Throughput of one router and of two where the router is the limit, on engines that compute nothing.

Usage: python bench/two_routers.py [--seconds N] [--share S]

What stands for what: in a cluster each router has a core of its own, and the replicas have GPUs. Here two cores are
shared by all, so each router is held to a share of one core (`cpu_share.py` stops it when it has used its part of each
50 ms), which leaves the rest to the client and the replicas: a router with a fraction of a core beside ample others
stands for a router with one core in front of many GPUs. The engines are `engines/fake.py`: a batch takes `RUN_S` of
waiting and no CPU. A client sends calls of many tiny frames, whose pixels are in the object store before, so that a
frame costs client and replicas little. The figures are ratios; frames a second mean nothing by themselves.

Printed for each number of routers: frames a second that finished, CPU seconds of the routers a second (they must be at
their share, else something else was the limit), batches that replicas refused for want of a credit, and the most
noncritical batches that a replica held beside its credits. Wanted: two routers are at least 1.7 times one.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
from cpu_share import cpu_s, held_to
from ray import serve
from ray.serve.handle import DeploymentHandle

from serve_app.app_name import APP_NAME
from serve_app.camera_owner import owner
from serve_app.client import Client
from serve_app.config import plan_from
from serve_app.fake_pool import FakeEngines
from serve_app.frames import FrameMeta
from serve_app.local_service import local_service
from serve_app.plan import Plan
from serve_app.results import FrameResult, ReplicaReport, RouterStatus
from serve_app.router_lines import RouterLines

SIZE_HW = (32, 32)
NUM_REPLICAS = 2
RUN_S = 0.02
FRAMES_PER_CALL = 32
NUM_CAMERAS = 24
READY_S = 60.0
WARM_S = 5.0
WANTED_RATIO = 1.7


@dataclass(frozen=True, slots=True)
class Figures:
    """One measurement.

    Attributes:
        frames_hz: frames that finished, a second.
        router_cpu: CPU seconds a second that each router used.
        outcomes: of the frames that were counted.
        num_refused: batches that replicas refused for want of a credit.
        most_held: the most noncritical batches that a replica held, and its most credits.
    """

    frames_hz: float
    router_cpu: tuple[float, ...]
    outcomes: Counter[str]
    num_refused: int
    most_held: tuple[tuple[int, int], ...]


def main() -> None:
    """Measure one router, then two, and print both with their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="measured for each number of routers")
    parser.add_argument("--share", type=float, default=0.15, help="of a core, for each router")
    options = parser.parse_args()
    print(f"each router is held to {options.share:.0%} of a core; {NUM_REPLICAS} replicas of fake engines")
    by_routers = {number: measured(plan_of(number), options.seconds, options.share) for number in (1, 2)}
    for number, figures in by_routers.items():
        cpu = ", ".join(f"{used:.2f}" for used in figures.router_cpu)
        held = ", ".join(f"{most} of {credits_}" for most, credits_ in figures.most_held)
        print(
            f"{number} router{'s' if number > 1 else ' '}: {figures.frames_hz:7.1f} frames/s finished "
            f"({dict(figures.outcomes)}); CPU of routers {cpu}; {figures.num_refused} batches refused for credit; "
            f"most held by a replica {held}"
        )
    ratio = by_routers[2].frames_hz / by_routers[1].frames_hz
    print(f"ratio {ratio:.2f} ({'met' if ratio >= WANTED_RATIO else 'NOT met'}; wanted: at least {WANTED_RATIO})")


def plan_of(num_routers: int) -> Plan:
    """A plan in which nothing but the router limits anything."""
    return plan_from(
        {
            "models": {"any": "bundled:inspection-light"},
            "pools": {"fake": {"replicas": NUM_REPLICAS, "cpus": 0.1}},
            "buckets": {"tiny": {"canvases": [list(SIZE_HW)], "batches": [1, 8, 32]}},
            "routers": num_routers,
            "slo_s": {"critical": 30, "normal": 60},
            "limits": {"max_waiting_frames": 4 * NUM_CAMERAS * FRAMES_PER_CALL},
        },
        Path.cwd(),
    )


def measured(plan: Plan, seconds: float, share: float) -> Figures:
    """Serve a plan, load it, and count."""
    with local_service(plan, num_cpus=2, engines=FakeEngines(RUN_S)) as client:
        routers = ready_routers(client, plan.num_routers)
        with held_to(share, [router.report.pid for router in routers]):
            handle: DeploymentHandle[Any] = serve.get_app_handle(APP_NAME)
            lines = RouterLines(handle, handle.doors.remote().result(timeout_s=READY_S))
            counted = asyncio.run(loaded(lines, routers, seconds))
        replicas = [replica for pool in client.status().pools for replica in pool.replicas]
    outcomes, router_cpu = counted
    return Figures(
        outcomes["finished"] / seconds, router_cpu, outcomes, sum(each.credits.num_refused for each in replicas),
        tuple(held_by(each) for each in replicas),
    )  # fmt: skip


def held_by(replica: ReplicaReport) -> tuple[int, int]:
    """The most that a replica held, and the most credits that it had."""
    return replica.credits.most_held, replica.credits.most_credits


def ready_routers(client: Client, num_routers: int) -> tuple[RouterStatus, ...]:
    """The routers, when all of them have found their replicas."""
    give_up_s = time.monotonic() + READY_S
    while True:
        routers = client.status().routers
        if len(routers) == num_routers and all(router.report.is_ready for router in routers):
            return routers
        if time.monotonic() > give_up_s:
            raise SystemExit(f"error: {num_routers} routers were not ready within {READY_S:.0f} s")
        time.sleep(0.2)


async def loaded(
    lines: RouterLines, routers: tuple[RouterStatus, ...], seconds: float
) -> tuple[Counter[str], tuple[float, ...]]:
    """Keep a call of every camera on its way; outcomes in the measured time, and CPU a second of each router."""
    names = [router.report.router for router in routers]
    ref = ray.put(np.zeros((*SIZE_HW, 3), np.uint8))
    outcomes: Counter[str] = Counter()
    counts_from_s, ends_s = time.monotonic() + WARM_S, time.monotonic() + WARM_S + seconds
    # As many cameras for each router: how evenly the hash spreads a few cameras is not measured here.
    cameras = [name for number in range(len(names)) for name in cameras_of(names, number)]

    async def camera_sends(camera: str) -> None:
        number = 0
        while time.monotonic() < ends_s:
            found = lines.to_owner(camera)
            if found is None:
                raise SystemExit("error: the routers went away")
            metas = [FrameMeta(f"{camera}-{number + index}", camera, SIZE_HW) for index in range(FRAMES_PER_CALL)]
            number += FRAMES_PER_CALL
            results: list[FrameResult] = await found[1].call("submit_many", metas, refs=[ref] * FRAMES_PER_CALL)
            if counts_from_s <= time.monotonic() <= ends_s:
                outcomes.update(result.outcome.value for result in results)

    async def cpu_is_read() -> tuple[float, ...]:
        await asyncio.sleep(max(0.0, counts_from_s - time.monotonic()))
        before = [cpu_s(router.report.pid) for router in routers]
        await asyncio.sleep(max(0.0, ends_s - time.monotonic()))
        return tuple((cpu_s(router.report.pid) - was) / seconds for router, was in zip(routers, before, strict=True))

    sending = asyncio.gather(*(camera_sends(camera) for camera in cameras))
    cpu = await cpu_is_read()
    await sending
    return outcomes, cpu


def cameras_of(names: list[str], number: int) -> list[str]:
    """The first cameras that one of these routers owns."""
    wanted = NUM_CAMERAS // len(names)
    found = (f"camera-{index}" for index in range(100_000) if owner(f"camera-{index}", names) == names[number])
    return [next(found) for _ in range(wanted)]


if __name__ == "__main__":
    main()
