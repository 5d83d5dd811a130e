"""Plans for GPUs: engines of a replica share one arena, and an engine's memory is that of its profile's corner."""

from __future__ import annotations

import dataclasses

import pytest
from fleet_samples import MODEL, batching_latency

from serve_app.errors import InvalidPlanError
from serve_app.latency import LatencyModel
from serve_app.plan import Pool, Runtime
from serve_app.planning.engine_memory import ACTIVATION_BYTES_PER_PX, GPU_LEAST_BYTES, EngineMemory
from serve_app.planning.planner import propose
from serve_app.planning.proposal import PlannerLimits
from serve_app.planning.traffic import SizeRate

VGA, HD, UPRIGHT_HD = (480, 640), (736, 1280), (1280, 736)
HD_PX = 736 * 1280
WEIGHTS_BYTES = MODEL.memory.weights_bytes
GPU_POOL = Pool("gpu", num_gpus=1.0, runtime=Runtime.TENSORRT)
SMALL_AND_LARGE = (SizeRate(VGA, 0.1), SizeRate(HD, 0.1))


def planned(traffic, *, shares_arena=True, built=None, latency=None, **limits):
    """The proposal for a GPU, or for a device whose engines share nothing."""
    memory = EngineMemory(WEIGHTS_BYTES, shares_arena=shares_arena, built=built or {})
    model = dataclasses.replace(MODEL, memory=memory)
    return propose(traffic, model, latency or LatencyModel(), PlannerLimits(**limits), pool=GPU_POOL)


def arena_bytes(num_px):
    """What activations of so many px take on a GPU, by estimate."""
    return GPU_LEAST_BYTES + ACTIVATION_BYTES_PER_PX * num_px


def canvases(proposal):
    """Those of each bucket."""
    return [bucket.canvases for bucket in proposal.plan.buckets]


def test_a_limit_allows_two_engines_that_share_an_arena_and_not_two_that_do_not():
    """It has room for two engines' weights and the larger one's activations."""
    limit = 2 * WEIGHTS_BYTES + arena_bytes(HD_PX)
    shared = planned(SMALL_AND_LARGE, memory_bytes=limit)
    apart = planned(SMALL_AND_LARGE, shares_arena=False, memory_bytes=limit - GPU_LEAST_BYTES)

    assert canvases(shared) == [(VGA,), (HD,)]
    assert shared.memory_bytes == limit
    assert len(canvases(apart)) == 1
    assert apart.memory_bytes == WEIGHTS_BYTES + ACTIVATION_BYTES_PER_PX * HD_PX


def test_a_limit_allows_larger_batches_where_the_arena_is_shared():
    """The small canvas fills what the large one needs anyway."""
    traffic = (SizeRate(VGA, 5.0), SizeRate(HD, 2.0))
    limit = 2 * WEIGHTS_BYTES + arena_bytes(2 * HD_PX)
    shared = planned(traffic, latency=batching_latency(), memory_bytes=limit)
    apart = planned(traffic, shares_arena=False, latency=batching_latency(), memory_bytes=limit - GPU_LEAST_BYTES)

    assert {bucket.canvases[0]: bucket.batches for bucket in shared.plan.buckets} == {VGA: (1, 2, 4), HD: (1, 2)}
    assert shared.memory_bytes <= limit
    assert shared.device_s_per_s < apart.device_s_per_s


def test_upright_and_lying_frames_share_no_engine_where_its_corner_does_not_fit():
    """One engine for both holds a square of 1280 px; two share an arena of 736 × 1280."""
    traffic = (SizeRate(HD, 1.0), SizeRate(UPRIGHT_HD, 1.0))
    limit = 2 * WEIGHTS_BYTES + arena_bytes(HD_PX)
    proposal = planned(traffic, memory_bytes=limit)

    assert sorted(canvases(proposal)) == [(HD,), (UPRIGHT_HD,)]
    assert proposal.memory_bytes == limit
    one = planned(traffic, max_buckets=1)
    assert one.memory_bytes == WEIGHTS_BYTES + arena_bytes(1280 * 1280)
    assert one.one_wide.memory_bytes == one.memory_bytes


def test_what_was_built_replaces_the_estimate():
    """An engine of HD was built and holds 80 MB; a smaller one is taken to hold no less."""
    proposal = planned(SMALL_AND_LARGE, built={HD_PX: 80_000_000})

    assert proposal.memory_bytes == 2 * WEIGHTS_BYTES + 80_000_000
    assert proposal.activation_bytes["b736x1280"] == 80_000_000
    assert proposal.activation_bytes["b480x640"] == 80_000_000


def test_a_gpu_too_small_for_one_engine_is_told_what_would_do():
    """By what was built."""
    with pytest.raises(InvalidPlanError, match=r"got a limit of 50 MiB, allowed is 88 MiB or more.*736x1280"):
        planned(SMALL_AND_LARGE, built={HD_PX: 80_000_000}, memory_bytes=50 * 2**20)


def test_the_pool_is_the_gpus():
    """Its resources and its runtime, whatever the number of replicas."""
    (pool,) = planned(SMALL_AND_LARGE).plan.pools
    assert (pool.runtime, pool.num_gpus) == (Runtime.TENSORRT, 1.0)
