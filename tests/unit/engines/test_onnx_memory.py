"""ONNX Runtime where allocations really fail: under a limit of the address space, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

PREAMBLE = """
import resource, numpy as np
from engines.errors import EngineMemoryError
from engines.memory_bounds import tightest_bound
from engines.onnx_run import OnnxEngine
from engines.spec import CanvasShape, WarmShape
from serve_app.config import model_path

SMALL, LARGE = WarmShape(CanvasShape(256, 320), 1), WarmShape(CanvasShape(1088, 1920), 2)

def leave(room_mib):
    with open("/proc/self/statm") as statm:
        mapped = int(statm.read().split()[0]) * resource.getpagesize()
    soft = resource.RLIM_INFINITY if room_mib is None else mapped + int(room_mib * 2**20)
    resource.setrlimit(resource.RLIMIT_AS, (soft, resource.RLIM_INFINITY))

def frames(shape):
    canvas, batch = shape
    return np.full((batch, *canvas, 3), 114, np.uint8)

def refused(act):
    try:
        act()
    except EngineMemoryError as err:
        return str(err)
    raise AssertionError("there was memory")
"""


def run(code):
    """Run code in a process of its own; it must end by itself, and well."""
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("room_mib", [20, 60])
def test_a_batch_that_finds_no_memory_harms_nothing_else(room_mib):
    """Wherever in the network it runs out: the small shape is served on, and all of them when memory is back."""
    run(f"""
engine = OnnxEngine(model_path("bundled:inspection-light"), num_threads=1)
engine.warm([SMALL])
small = frames(SMALL)
large = frames(LARGE)
leave({room_mib})
assert tightest_bound().name == "address space"
for _ in range(3):
    assert "use a smaller" in refused(lambda: engine.warm([LARGE]))
    engine.infer(small)
leave(None)
engine.warm([LARGE])
engine.infer(large)
""")


def test_threads_that_cannot_be_made_are_want_of_memory():
    """A thread's stack is memory too; the model is not at fault."""
    run("""
engine = OnnxEngine(model_path("bundled:inspection-light"), num_threads=2)
leave(1)
assert "no memory to load model" in refused(lambda: engine.warm([SMALL]))
leave(None)
engine.warm([SMALL])
""")


def test_an_engine_is_rebuilt_when_memory_is_back():
    """Closed while there was none, it cannot be warmed, and says why; then it can."""
    run("""
engine = OnnxEngine(model_path("bundled:inspection-light"), num_threads=2)
engine.warm([SMALL])
large = frames(LARGE)
engine.close()
leave(20)
refused(lambda: engine.warm([LARGE]))
engine.close()
leave(None)
engine.warm([LARGE])
engine.infer(large)
""")
