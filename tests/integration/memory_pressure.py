"""A service whose replica lives under a limit of its address space, of which more and more is taken.

Usage: python memory_pressure.py FOLDER

Prints what it saw. Run by `test_memory_levels.py` in a process of its own, because it needs a Ray of its own.
"""

from __future__ import annotations

import json
import mmap
import resource
import sys
import time
from pathlib import Path

import serve_app.app
from engines.device_facts import open_device
from engines.memory_bounds import memory_bounds
from framelane_inspection.scenes import draw_scene
from serve_app.config import plan_from
from serve_app.errors import FrameRejectedError
from serve_app.local_service import local_service
from serve_app.memory_gauge import CPU_USABLE_FRACTION
from serve_app.pool_engines import PoolEngines, onnx_engines

PLAN = {
    "models": {"full": "bundled:inspection-full", "light": "bundled:inspection-light"},
    "buckets": {
        "full": {"canvases": [[480, 640]], "batches": [1]},
        "light": {"model": "light", "canvases": [[480, 640]], "batches": [1]},
    },
    "ladder": [{"model": "light"}],
    "slo_s": {"critical": 30, "normal": 60},
    "memory": {"calm_s": 1},
}
# Shares of what may be used, and the level that each leads to; at the end all is given back.
PRESSURES = ((0.0, "NORMAL"), (0.88, "HIGH"), (0.95, "CRITICAL"), (0.985, "SHED"), (0.0, "NORMAL"))
# What the replica has mapped is so much of what it may map, before anything is taken.
BEGIN_FRACTION = 0.3
PATIENCE_S = 30.0


class PressedDevice:
    """The CPU, with as much of the address space taken as a file says, whenever it is asked."""

    def __init__(self, path):
        self._device = open_device(None)
        self._path = path
        self._held = []
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (int(mapped / BEGIN_FRACTION), resource.RLIM_INFINITY))

    def facts(self):
        """See `Device.facts`."""
        while self._held:
            self._held.pop().close()
        bound = next(bound for bound in memory_bounds() if bound.name == "address space")
        text = self._path.read_text() if self._path.exists() else ""
        missing = int(float(text or 0) * CPU_USABLE_FRACTION * bound.total_bytes) - bound.used_bytes
        if missing > 0:
            self._held.append(mmap.mmap(-1, missing, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        return self._device.facts()

    def close(self):
        """See `Device.close`."""
        self._device.close()


def main(folder: Path) -> None:
    """Print a JSON object: what was seen at each pressure, and the replica before and after."""
    path = folder / "pressure"

    def pressed_engines(plan, pool):
        made = onnx_engines(plan, pool)
        return PoolEngines(made.by_bucket, PressedDevice(path), made.close)

    serve_app.app.make_engines = pressed_engines
    frame = draw_scene((480, 640), seed=7).image_hwc
    with local_service(plan_from(PLAN, folder), num_cpus=2) as client:
        before = replica_of(client)
        seen = []
        for pressure, wanted in PRESSURES:
            path.write_text(str(pressure))
            levels = levels_until(client, wanted)
            critical = client.detect(frame, camera="gate", priority="critical")
            seen.append({"levels": levels, "critical": critical.model, "normal": normal_frame(client, frame)})
        answer = {"seen": seen, "before": before, "after": replica_of(client)}
    sys.stdout.write(json.dumps(answer) + "\n")


def replica_of(client):
    """The name of the one replica, and how often it was asked of: both change when it is restarted."""
    (pool,) = client.status().pools
    (replica,) = pool.replicas
    return [replica.replica, replica.warm_s]


def levels_until(client, wanted):
    """The pool's levels, each once, until it is this one."""
    give_up_s = time.monotonic() + PATIENCE_S
    levels = []
    while levels[-1:] != [wanted] and time.monotonic() < give_up_s:
        (pool,) = client.status().pools
        if levels[-1:] != [pool.memory.name]:
            levels.append(pool.memory.name)
        time.sleep(0.05)
    return levels


def normal_frame(client, frame):
    """The model that served a normal frame, and the reason of its verdict; or why it was rejected."""
    try:
        result = client.detect(frame, camera="gate")
    except FrameRejectedError as err:
        return ["rejected", str(err)]
    return [result.model, result.verdict.reason]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
