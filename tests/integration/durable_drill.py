"""Run by `test_durable_frames.py` in a process of its own, since it starts and stops Ray: prints what it saw as JSON.

python durable_drill.py FOLDER (restart | kills) [REDIS]
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
from ray._private.state import actors  # the one way to a replica's process without Ray's dashboard

from serve_app.app import application
from serve_app.client import Client
from serve_app.config import plan_from
from serve_app.ray_session import delete_application, deploy, start_ray, stop_ray

NUM_FRAMES = 500
NUM_CALLERS = 8
CAMERAS = ("night-0", "night-1", "night-2")
SIDE_PX = 256
PATIENCE_S = 120.0


def plan_of(folder, redis):
    """A small service whose cameras are durable."""
    return plan_from(
        {
            "models": {"light": "bundled:inspection-light"},
            "buckets": {"small": {"canvases": [[SIDE_PX, SIDE_PX]], "batches": [1, 2, 4]}},
            "cameras": {"night-*": {"durable": True}},
            "spool": {"redis": redis} if redis else {"folder": "spool"},
            "frame_log": "frames.jsonl",
        },
        folder,
    )


def submit_all(client):
    """500 tickets, taken by several callers at once; each frame's number is in its pixels."""
    tickets, errors = [], []
    numbers = iter(range(NUM_FRAMES))
    lock = threading.Lock()

    def calls():
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            image_hwc = np.random.default_rng(number).integers(0, 256, (SIDE_PX, SIDE_PX, 3), np.uint8)
            try:
                ticket = client.submit(image_hwc, camera=CAMERAS[number % 3])
            except Exception as err:
                errors.append(repr(err))
            else:
                tickets.append(ticket)

    threads = [threading.Thread(target=calls) for _ in range(NUM_CALLERS)]
    for thread in threads:
        thread.start()
    return tickets, errors, threads


def kill(deployment):
    """SIGKILL the one replica of a deployment; waits until Ray has noticed."""
    for actor in actors().values():
        if actor["State"] == "ALIVE" and f"framelane#{deployment}#" in actor["Name"]:
            os.kill(actor["Address"]["Pid"] if "Pid" in actor["Address"] else actor["Pid"], signal.SIGKILL)
            return
    raise AssertionError(f"no replica of {deployment}: {[a['Name'] for a in actors().values()]}")


def wait_until(is_so, what):
    """Poll."""
    give_up_s = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > give_up_s:
            raise AssertionError(f"waited in vain: {what}")
        time.sleep(0.02)


async def stream_of(client, camera, num_results):
    """What a reader of the camera gets: the frames' ids."""
    seen = []
    results = client.results(camera)
    async for result in results:
        seen.append(getattr(result, "frame_id", "missed"))
        if len(seen) == num_results:
            break
    await results.aclose()
    return seen


def answers_of(client, tickets):
    """The outcome of every ticket, and what readers of the cameras get."""
    results = [client.result(ticket, wait_s=PATIENCE_S) for ticket in tickets]
    again = [client.result(ticket) for ticket in tickets]
    per_camera = Counter(ticket.camera for ticket in tickets)

    async def streams():
        return [await asyncio.wait_for(stream_of(client, name, num), PATIENCE_S) for name, num in per_camera.items()]

    streamed = [frame_id for stream in asyncio.run(streams()) for frame_id in stream]
    return {
        "outcomes": Counter(result.outcome.value if result else "none" for result in results),
        "same_again": all(a.frame_id == b.frame_id for a, b in zip(results, again, strict=True)),
        "own": all(f"durable-{r.frame_id}" == ticket.ticket_id for r, ticket in zip(results, tickets, strict=True)),
        "streamed": len(streamed),
        "streamed_once": len(set(streamed)),
    }


def restart(plan):
    """The whole application is deleted in the middle, and deployed again, while callers go on."""
    tickets, errors, threads = submit_all(Client.connect())
    wait_until(lambda: len(tickets) > NUM_FRAMES // 2, "half of the tickets")
    delete_application()
    deleted_at = len(tickets)
    deploy(application(plan))
    for thread in threads:
        thread.join()
    return Client.connect(), tickets, errors, {"middle": deleted_at}


def kills(_):
    """Kill -9 of the router, then of the spool, while frames come in and are fed."""
    tickets, errors, threads = submit_all(Client.connect())
    wait_until(lambda: len(tickets) > NUM_FRAMES // 4, "a quarter of the tickets")
    kill("router")
    wait_until(lambda: len(tickets) > NUM_FRAMES // 2, "half of the tickets")
    kill("spool")
    killed_at = len(tickets)
    for thread in threads:
        thread.join()
    return Client.connect(), tickets, errors, {"middle": killed_at}


def main():
    """Run one drill."""
    folder, drill = Path(sys.argv[1]), {"restart": restart, "kills": kills}[sys.argv[2]]
    plan = plan_of(folder, sys.argv[3] if len(sys.argv) > 3 else None)
    begun_s = time.monotonic()

    def say(what):
        print(f"{time.monotonic() - begun_s:.1f} s: {what}", file=sys.stderr)  # noqa: T201 - shown where the drill fails

    start_ray(2)
    say("Ray")
    try:
        deploy(application(plan))
        say("serving")
        client, tickets, errors, seen = drill(plan)
        say("all tickets are out")
        seen |= {"tickets": len({ticket.ticket_id for ticket in tickets}), "errors": errors}
        seen |= answers_of(client, tickets)
        say("answered")
        status = client.spool_status()
        seen |= {"pending": status.num_pending, "done": status.num_done, "aside": status.num_aside}
        seen["fed"] = len((folder / "frames.jsonl").read_text().splitlines())
    finally:
        stop_ray()
    print(json.dumps(seen))  # noqa: T201 - read by the test


if __name__ == "__main__":
    main()
