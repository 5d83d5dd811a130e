"""The TensorRT runner at work on stand-ins of driver and runtime: memory, replays, uploads, captures (simulated).

The fixture `driver` asserts at the end of each test that all that was allocated is free and no API was misused.
"""

from __future__ import annotations

import threading

import driver_stand_in as codes
import numpy as np
import pytest
from engine_promises import assert_same, frames
from fake_tensorrt import DynamicShapesKernelSpecializationStrategy, Fault
from simulated_engines import LARGE, SHAPES, SMALL, WIDE

from engines.errors import CanvasError, ShapeNotWarmError
from engines.gpu_device import GpuDevice
from engines.spec import CanvasShape, WarmShape

NEED_OF_LARGE = 16 * 3 * 96 * 96


def nhwc(shape):
    """A warm shape as an array has it."""
    return (shape.batch, *shape.canvas, 3)


# --- memory ---


def test_a_warm_engine_holds_one_arena_and_two_buffer_sets(make, driver, trt):
    """However many shapes are warm: weights, arena, 2 x (in, out) and a bit for each context; 2 graphs a shape."""
    engine = make()
    engine.warm(SHAPES)
    assert driver.held() | {"device_bytes": 0} == {
        "device_blocks": 1 + 1 + 4 + len(SHAPES),
        "device_bytes": 0,
        "pinned_blocks": 4,
        "streams": 2,
        "events": 4,
        "executables": 2 * len(SHAPES),
        "contexts": 1,
    }
    assert trt.live() == (len(SHAPES), 1, 1)
    engine.close()
    assert trt.live() == (0, 0, 0)


def test_the_arena_is_the_largest_need_and_not_the_sum(make, trt):
    """All contexts of all engines are given the very same block."""
    first, second = make(), make(bytes_per_px=24)
    first.warm(SHAPES)
    second.warm(SHAPES)
    ((address, size),) = set(trt.arenas)
    assert size == NEED_OF_LARGE * 24 // 16
    assert address % 256 == 0
    assert len(trt.arenas) == 2 * len(SHAPES)


def test_an_arena_is_no_larger_than_the_warm_shapes_need(make, trt):
    """Where TensorRT says what the shapes need, its profile's largest does not count."""
    make().warm([SMALL])
    assert [size for _, size in trt.arenas] == [16 * 64 * 64]


def test_an_arena_holds_any_shape_where_tensorrt_does_not_say(make, trt):
    """Without the preview feature the need is the profile's."""
    trt.shrinks = False
    make().warm([SMALL])
    assert [size for _, size in trt.arenas] == [NEED_OF_LARGE]


def test_a_zero_need_counts_as_the_profiles(make, trt):
    """TensorRT answers 0 where it fails to say."""
    trt.faults["update_device_memory_size_for_shapes"] = Fault(0)
    make().warm([SMALL])
    assert [size for _, size in trt.arenas] == [NEED_OF_LARGE]


def test_a_later_larger_need_moves_every_engine(make, driver):
    """Old and new memory stand beside each other only meanwhile; all engines answer as before, by new graphs."""
    first = make()
    first.warm([SMALL])
    batch_nhwc = frames(SMALL)
    wanted = first.infer(batch_nhwc).detections
    second = make(bytes_per_px=64)
    second.warm([LARGE])
    assert (driver.count("executables"), driver.count("pinned_blocks")) == (4, 4)
    assert driver.count("device_blocks") == 2 + 1 + 4 + 2
    launches = driver.count("cuGraphLaunch")
    assert_same(first.infer(batch_nhwc).detections, wanted)
    assert len(second.infer(frames(LARGE)).detections) == 3
    assert driver.count("cuGraphLaunch") == launches + 2


def test_a_batch_staged_before_a_move_is_uploaded_again(make):
    """The buffers that held it are gone."""
    engine = make()
    engine.warm([SMALL])
    batch_nhwc = frames(SMALL)
    wanted = engine.infer(batch_nhwc).detections
    engine.stage(batch_nhwc)
    engine.warm([LARGE])
    assert_same(engine.infer(batch_nhwc).detections, wanted)


def test_memory_is_that_of_the_whole_gpu(make, driver):
    """Used and total bytes; closing gives the weights back, the shared memory stays until the device is closed."""
    engine = make()
    engine.warm(SHAPES)
    assert engine.memory().total_bytes == 1 << 30
    assert engine.memory().used_bytes == driver.count("device_bytes")
    before = driver.count("device_bytes")
    engine.close()
    assert driver.count("device_bytes") == before - 4096 - 512 * len(SHAPES)


def test_memory_of_a_device_that_is_not_open_is_unknown(driver):
    """Nothing is asked of a driver that is not loaded."""
    memory = GpuDevice().memory()
    assert (memory.used_bytes, memory.total_bytes, driver.count("cuMemGetInfo")) == (0, 0, 0)


# --- running ---


@pytest.mark.parametrize("is_rtx", [True, False], ids=["rtx", "tensorrt"])
def test_every_shape_is_replayed_from_its_graph(make, driver, trt, is_rtx):
    """After `warm`, one launch a batch, and TensorRT itself is not asked any more."""
    engine = make(is_rtx=is_rtx)
    engine.warm(SHAPES)
    ran, launches = len(trt.enqueued), driver.count("cuGraphLaunch")
    given = driver.count("standin_launch")
    for shape in SHAPES * 2:
        engine.infer(frames(shape))
    assert trt.enqueued[ran:] == [nhwc(shape) for shape in SHAPES * 2]
    assert driver.count("cuGraphLaunch") == launches + 6
    assert driver.count("standin_launch") == given


def test_rtx_compiles_kernels_of_the_shape_before_they_are_captured(make, trt):
    """A graph would keep the general ones for ever."""
    make().warm(SHAPES)
    strategies = {config.dynamic_shapes_kernel_specialization_strategy for config in trt.configs}
    assert strategies == {DynamicShapesKernelSpecializationStrategy.EAGER}


def test_warming_a_warm_shape_does_nothing(make, driver):
    """Contexts are made once."""
    engine = make()
    engine.warm(SHAPES)
    before = driver.held()
    engine.warm(SHAPES)
    assert driver.held() == before


@pytest.mark.parametrize("shape", [(4, 96, 96, 3), (3, 128, 96, 3), (1, 96, 96, 3)], ids=str)
def test_a_shape_that_is_not_warm_never_reaches_the_device(make, driver, shape):
    """Too many frames, too large, or inside the profile and not warmed: no driver call is made."""
    engine = make()
    engine.warm(SHAPES)
    calls = ("cuMemcpyHtoDAsync", "cuGraphLaunch", "standin_launch", "cuCtxSetCurrent")
    before = [driver.count(name) for name in calls]
    engine.stage(np.zeros(shape, np.uint8))
    with pytest.raises(ShapeNotWarmError):
        engine.infer(np.zeros(shape, np.uint8))
    assert [driver.count(name) for name in calls] == before


@pytest.mark.parametrize("shape", [((128, 64), 1), ((64, 64), 4), ((32, 64), 1)], ids=str)
def test_a_shape_outside_the_profile_cannot_be_warmed(make, driver, shape):
    """Nothing is loaded for it."""
    held = driver.held()
    with pytest.raises(CanvasError, match=r"allowed are 64x64 to 96x96 in batches of 1 to 3.*framelane build"):
        make().warm([SMALL, WarmShape(CanvasShape(*shape[0]), shape[1])])
    assert driver.held() == held


# --- uploads beside the running batch ---


def staged_while_running(engine, driver, first, second, third=None):
    """Run `first`; while the host waits for it, another thread stages `second` (and `third` in its place)."""

    def stage():
        for batch_nhwc in (second, third):
            if batch_nhwc is not None:
                engine.stage(batch_nhwc)

    def in_another_thread():
        thread = threading.Thread(target=stage)
        thread.start()
        thread.join()

    driver.timeline()
    driver.on_wait(in_another_thread)
    return engine.infer(first).detections


def test_the_next_upload_overlaps_the_running_batch(make, driver):
    """On the virtual time line it begins before the running kernel ends; its own kernel begins right after."""
    engine = make()
    engine.warm([LARGE])
    first, second = frames(LARGE, seed=1), frames(LARGE, seed=2)
    wanted = [engine.infer(first).detections, engine.infer(second).detections]
    assert_same(staged_while_running(engine, driver, first, second), wanted[0])
    assert_same(engine.infer(second).detections, wanted[1])
    line = driver.timeline()
    uploads, kernels, downloads = ([e for e in line if e.kind == kind] for kind in ("upload", "kernel", "download"))
    assert [len(entries) for entries in (uploads, kernels, downloads)] == [2, 2, 2]
    assert uploads[1].start_ns < kernels[0].end_ns
    assert uploads[1].end_ns - uploads[1].start_ns == 81 * 1000
    assert kernels[1].start_ns == downloads[0].end_ns


def test_without_staging_the_upload_is_paid_before_each_kernel(make, driver):
    """So that the test above can fail."""
    engine = make()
    engine.warm([LARGE])
    driver.timeline()
    engine.infer(frames(LARGE, seed=1))
    engine.infer(frames(LARGE, seed=2))
    kernels = [e for e in driver.timeline() if e.kind == "kernel"]
    assert kernels[1].start_ns - kernels[0].end_ns > 81 * 1000


def test_a_batch_staged_just_before_another_one_begins_does_not_cost_it_its_place(make, driver):
    """A replica's two threads may come in either order: each batch is uploaded once."""
    engine = make()
    engine.warm([LARGE])
    first, second = frames(LARGE, seed=1), frames(LARGE, seed=2)
    wanted = [engine.infer(batch_nhwc).detections for batch_nhwc in (first, second)]
    for later, earlier in ((first, second), (second, first)):
        uploads = driver.count("cuMemcpyHtoDAsync")
        engine.stage(earlier)
        engine.stage(later)
        answers = {id(batch_nhwc): engine.infer(batch_nhwc).detections for batch_nhwc in (earlier, later)}
        assert driver.count("cuMemcpyHtoDAsync") == uploads + 2
        assert_same(answers[id(first)], wanted[0])
        assert_same(answers[id(second)], wanted[1])


def test_a_staged_batch_is_uploaded_once(make, driver):
    """`infer` waits for the upload that is under way."""
    engine = make()
    engine.warm([LARGE])
    staged_while_running(engine, driver, frames(LARGE), second := frames(LARGE, seed=2))
    engine.infer(second)
    assert len([e for e in driver.timeline() if e.kind == "upload"]) == 2


def test_a_batch_staged_twice_while_one_runs_never_touches_the_running_one(make, driver):
    """The second takes the place of the first, and the running batch's answer stays its own."""
    engine = make()
    engine.warm(SHAPES)
    first, second, third = frames(WIDE, seed=1), frames(LARGE, seed=2), frames(SMALL, seed=3)
    wanted = [engine.infer(batch_nhwc).detections for batch_nhwc in (first, second, third)]
    assert_same(staged_while_running(engine, driver, first, second, third), wanted[0])
    assert_same(engine.infer(third).detections, wanted[2])
    assert_same(engine.infer(second).detections, wanted[1])


def test_engines_of_one_device_stage_for_each_other(make, driver):
    """While one runs, the next batch of another is uploaded."""
    first, second = make(), make()
    first.warm([SMALL])
    second.warm([LARGE])
    small, large = frames(SMALL), frames(LARGE)
    wanted = second.infer(large).detections
    driver.on_wait(lambda: second.stage(large))
    first.infer(small)
    uploads = driver.count("cuMemcpyHtoDAsync")
    assert_same(second.infer(large).detections, wanted)
    assert driver.count("cuMemcpyHtoDAsync") == uploads


def test_an_upload_that_fails_ahead_is_done_again(make, driver):
    """Staging never raises; `infer` succeeds or says what is wrong."""
    engine = make()
    engine.warm([LARGE])
    batch_nhwc = frames(LARGE)
    wanted = engine.infer(batch_nhwc).detections
    driver.fail("cuMemcpyHtoDAsync", codes.INVALID_VALUE)
    engine.stage(batch_nhwc)
    assert_same(engine.infer(batch_nhwc).detections, wanted)


def test_a_batch_whose_place_was_overwritten_is_uploaded_again(make, driver):
    """The batch that was to replace it failed half-way: neither is there."""
    engine = make()
    engine.warm([LARGE])
    first, second = frames(LARGE, seed=1), frames(LARGE, seed=2)
    wanted = [engine.infer(batch_nhwc).detections for batch_nhwc in (first, second)]
    engine.stage(first)
    driver.fail("cuEventRecord", codes.INVALID_VALUE)
    engine.stage(second)
    make.device.drain()
    assert_same(engine.infer(first).detections, wanted[0])
    assert_same(engine.infer(second).detections, wanted[1])


# --- capture ---


@pytest.mark.parametrize("call", ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate"])
def test_where_capture_fails_the_network_is_enqueued_plainly(make, driver, caplog, call):
    """It is logged once an engine, and the answers are the same."""
    plain, wanted = make(), make()
    wanted.warm(SHAPES)
    for nth in (1, 2, 3):
        driver.fail(call, codes.INVALID_VALUE, nth=nth)
    plain.warm(SHAPES)
    assert [record.message for record in caplog.records if "without a CUDA graph" in record.message] == [
        (
            f"shape (3, 96, 96, 3) runs without a CUDA graph, somewhat slower: {call}: got CUDA_ERROR_INVALID_VALUE, "
            "allowed is CUDA_SUCCESS; look at the driver's log (dmesg) and nvidia-smi"
        )
    ]
    launches = driver.count("cuGraphLaunch")
    answers = [plain.infer(frames(shape)).detections for shape in SHAPES]
    assert driver.count("cuGraphLaunch") == launches
    for shape, answer in zip(SHAPES, answers, strict=True):
        assert_same(answer, wanted.infer(frames(shape)).detections)


def test_a_network_that_allocates_while_it_is_enqueued_is_not_captured(make, trt, caplog):
    """The capture is spoiled rather than the allocation baked into a graph."""
    trt.allocates_in_enqueue = True
    engine = make()
    engine.warm([SMALL])
    assert "without a CUDA graph" in caplog.text
    assert "operation not permitted when capturing" in caplog.text
    assert len(engine.infer(frames(SMALL)).detections) == 1


def test_a_context_that_says_it_cannot_be_captured_is_not(make, trt, driver, caplog):
    """TensorRT for RTX can be asked."""
    trt.is_capturable = False
    make().warm([SMALL])
    assert driver.count("cuStreamBeginCapture") == 0
    assert "is_stream_capturable" in caplog.text
