"""The engines of a pool share one arena of the size that the builder said. Never run on a device so far."""

from __future__ import annotations

from contextlib import closing
from itertools import pairwise

import pytest
from gpu_machine import TIMEOUT_S

from engines.engine_spec import Precision
from engines.tensorrt_load import shape_nhwc
from serve_app.plan import Bucket, EngineBuilding, Plan, Pool, Runtime
from serve_app.tensorrt_pool import tensorrt_engines

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(TIMEOUT_S)]

MIB = 2**20
# What a warm engine may take beside weights, arena and buffers: kernels that are loaded at their first use, contexts,
# graphs. An assumption, to be replaced by what is seen; it is less than the activations of the second engine, which
# would show as much if it had an arena of its own.
SLACK_BYTES = 300 * MIB
# Device memory is handed out in pages of 2 MiB, and builder and runtime may count a little differently.
ARENA_TOLERANCE = 0.1


def test_two_engines_take_one_arena_of_the_builders_size(machine, report):
    """By `cuMemGetInfo` before, between and after warming; nothing else should run on the GPU meanwhile."""
    shape = machine.large
    buckets = tuple(
        Bucket(name, name, "gpu", (shape.canvas,), (1, shape.batch) if shape.batch > 1 else (1,))
        for name in ("inspection-full", "inspection-light")
    )
    plan = Plan(
        {name: str(path) for name, path in machine.models.items()},
        (Pool("gpu", num_gpus=1, runtime=Runtime.TENSORRT),),
        buckets,
        engines=EngineBuilding(Precision.FP32),
    )
    parts = machine.parts()
    pool = tensorrt_engines(plan, "gpu", parts=parts, folder=machine.folder, store=None, claimant="")
    with closing(pool):
        driver, engines = parts.device.driver, list(pool.by_bucket.values())
        free_bytes = [driver.memory_info()[0]]
        for engine in engines:
            engine.warm([shape])
            free_bytes.append(driver.memory_info()[0])
        memory = parts.device._memory
        arena_bytes, buffers = memory.arena.num_bytes, memory.buffers
        own_bytes = [engine._contexts[shape_nhwc(shape)].needs.activation_bytes for engine in engines]
    first_bytes, second_bytes = (before - after for before, after in pairwise(free_bytes))
    facts = [engine._built.facts for engine in engines]
    largest_bytes = max(each.activation_bytes for each in facts)
    buffers_bytes = sum(one.input_bytes + one.output_bytes for one in buffers)
    expected_bytes = facts[0].weights_bytes + arena_bytes + buffers_bytes
    report.add(
        f"memory, {shape.batch} × {shape.canvas} FP32, MiB",
        f"activations by builder {[round(each.activation_bytes / MIB, 1) for each in facts]}, "
        f"by runtime {[round(each / MIB, 1) for each in own_bytes]}, arena {arena_bytes / MIB:.1f}",
        f"first engine took {first_bytes / MIB:.1f}, of which accounted for {expected_bytes / MIB:.1f}; "
        f"second took {second_bytes / MIB:.1f}, its weights {facts[1].weights_bytes / MIB:.1f}",
    )
    assert largest_bytes <= arena_bytes <= (1 + ARENA_TOLERANCE) * largest_bytes
    for each, own in zip(facts, own_bytes, strict=True):
        assert own == pytest.approx(each.activation_bytes, rel=ARENA_TOLERANCE)
    assert 0.9 * expected_bytes <= first_bytes <= expected_bytes + SLACK_BYTES
    assert second_bytes <= facts[1].weights_bytes + SLACK_BYTES
