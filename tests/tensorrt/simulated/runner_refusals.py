"""What can go wrong with the TensorRT runner: each has its name, and nothing leaks (simulated).

The fixture `driver` asserts at the end of each test that all that was allocated is free and no API was misused.
"""

from __future__ import annotations

import threading

import driver_stand_in as codes
import numpy as np
import onnx
import pytest
from engine_promises import assert_same, frames
from fake_tensorrt import Fault
from onnx import numpy_helper
from simulated_engines import LARGE, SHAPES, SMALL

from engines.errors import (
    DeviceError,
    DeviceLostError,
    EngineFileError,
    EngineMemoryError,
    ModelFileError,
    ShapeNotWarmError,
)

OUT_OF_MEMORY = "Error Code 1: Cuda Runtime (out of memory)"


# --- refusals ---

ASKED_AT_WARM = {
    "Runtime": DeviceError,
    "deserialize_cuda_engine": EngineFileError,
    "create_runtime_config": DeviceError,
    "create_execution_context": DeviceError,
    "set_optimization_profile_async": DeviceError,
    "set_input_shape": DeviceError,
    "infer_shapes": DeviceError,
    "get_tensor_shape": DeviceError,
    "update_device_memory_size_for_shapes": DeviceError,
    "set_tensor_address": DeviceError,
    "execute_async_v3": DeviceError,
}
BOOLS = {"set_optimization_profile_async", "set_input_shape", "set_tensor_address", "execute_async_v3"}


@pytest.mark.parametrize("call", ASKED_AT_WARM)
@pytest.mark.parametrize("how", ["refused", "raised", "out-of-memory"])
def test_a_refusal_at_warm_is_named_and_leaves_nothing(make, driver, trt, call, how):
    """False, None and exceptions of each call; the log's words are quoted; the same engine can be warmed after all."""
    held = driver.held()
    answer = RuntimeError("something broke") if how == "raised" else (False if call in BOOLS else None)
    trt.faults[call] = Fault(answer, OUT_OF_MEMORY if how == "out-of-memory" else "Error Code 3: API Usage Error")
    engine = make()
    expected = EngineMemoryError if how == "out-of-memory" else ASKED_AT_WARM[call]
    with pytest.raises(expected) as caught:
        engine.warm(SHAPES)
    assert type(caught.value) is expected
    assert call in str(caught.value)
    assert ("out of memory" if how == "out-of-memory" else "API Usage Error") in str(caught.value)
    assert (driver.held(), trt.live()) == (held, (0, 0, 0))
    engine.warm(SHAPES)
    assert len(engine.infer(frames(LARGE)).detections) == 3


def test_an_error_that_only_the_logger_hears_is_raised_too(make, driver, trt):
    """`set_device_memory` answers nothing."""
    held = driver.held()
    trt.faults["set_device_memory"] = Fault(None, "Error Code 3: API Usage Error (memory is too small)")
    with pytest.raises(DeviceError, match=r"set_device_memory.*memory is too small"):
        make().warm(SHAPES)
    assert (driver.held(), trt.live()) == (held, (0, 0, 0))


def test_a_refusal_of_a_later_warm_leaves_the_older_shapes_warm(make, driver, trt):
    """Also where the memory had to grow for it."""
    engine = make()
    engine.warm([SMALL])
    held = driver.held()
    trt.faults["execute_async_v3"] = Fault(False, "Error Code 3: API Usage Error")
    with pytest.raises(DeviceError, match="execute_async_v3"):
        engine.warm([LARGE])
    assert driver.held() == held
    assert len(engine.infer(frames(SMALL)).detections) == 1
    with pytest.raises(ShapeNotWarmError):
        engine.infer(frames(LARGE))
    engine.warm([LARGE])
    assert len(engine.infer(frames(LARGE)).detections) == 3


@pytest.mark.parametrize(
    ("call", "answer"), [("infer_shapes", ["output0"]), ("get_tensor_shape", (-1, 7, 3)), ("get_tensor_shape", ())]
)
def test_an_output_without_a_fixed_size_is_refused(make, driver, trt, call, answer):
    """No buffer could be made for it."""
    held = driver.held()
    trt.faults[call] = Fault(answer)
    with pytest.raises(EngineFileError, match=r"allowed are fixed ones.*framelane export"):
        make().warm([SMALL])
    assert (driver.held(), trt.live()) == (held, (0, 0, 0))


def test_every_driver_call_of_a_warm_may_fail_without_a_leak(make, driver, trt):
    """Each call in turn, until none is left to fail; only a capture's failure is no error."""
    calls = ("cuMemAlloc", "cuMemHostAlloc", "cuEventCreate", "cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync")
    calls += ("cuEventRecord", "cuStreamWaitEvent", "cuEventSynchronize", "cuGraphLaunch", "cuCtxSetCurrent")
    held = driver.held()
    failures = 0
    for call in calls:
        for nth in range(1, 40):
            driver.reset()
            driver.fail(call, codes.INVALID_VALUE, nth=nth)
            engine = make()
            try:
                engine.warm([SMALL, LARGE])
            except (DeviceError, EngineMemoryError, EngineFileError):
                failures += 1
                assert (driver.held(), trt.live()) == (held, (0, 0, 0)), f"{call} {nth}"
            else:
                engine.close()
                break
            engine.close()
        driver.reset()
        # What a warm engine leaves to its device would hide a leak of the next round.
        make.device.close()
        make.device.open()
    assert failures > len(calls)


@pytest.mark.parametrize("room_bytes", [2048, 4096 + 600, 4096 + 512 + 1000, 200_000, 500_000])
def test_a_device_too_small_to_warm_is_a_memory_error(make, driver, trt, room_bytes):
    """Weights, contexts, arena or buffers do not fit: everything is given back, and a larger device would do."""
    driver.reset(device_bytes=room_bytes)
    held = driver.held()
    engine = make()
    with pytest.raises(EngineMemoryError, match="smaller canvases or batches"):
        engine.warm([LARGE])
    assert (driver.held(), trt.live()) == (held, (0, 0, 0))
    driver.reset()
    engine.warm([LARGE])


def test_out_of_memory_in_service_leaves_the_engine_usable(make, trt):
    """The scheduler is told, the next batch runs."""
    trt.is_capturable = False
    engine = make()
    engine.warm([LARGE])
    batch_nhwc = frames(LARGE)
    wanted = engine.infer(batch_nhwc).detections
    trt.faults["execute_async_v3"] = Fault(False, OUT_OF_MEMORY)
    with pytest.raises(EngineMemoryError, match="execute_async_v3"):
        engine.infer(batch_nhwc)
    assert_same(engine.infer(batch_nhwc).detections, wanted)


@pytest.mark.parametrize(
    "call", ["cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuStreamWaitEvent", "cuEventRecord", "cuGraphLaunch"]
)
def test_a_driver_error_in_service_costs_that_batch_only(make, driver, call):
    """Both buffer sets stay in use, staged batches included."""
    engine = make()
    engine.warm([LARGE])
    batch_nhwc = frames(LARGE)
    wanted = engine.infer(batch_nhwc).detections
    driver.fail(call, codes.INVALID_VALUE)
    with pytest.raises(DeviceError, match=f"{call}: got CUDA_ERROR_INVALID_VALUE"):
        engine.infer(batch_nhwc)
    for _ in range(3):
        engine.stage(batch_nhwc)
        assert_same(engine.infer(batch_nhwc).detections, wanted)


# --- files ---


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        pytest.param({"plan": b"garbage"}, "magicTag does not match", id="damaged"),
        pytest.param({"shapes": [(1, 64, 64, 3), (3, 64, 96, 3), (4, 96, 96, 3)]}, "profile", id="other-profile"),
        pytest.param({"output_dims": (-1, 84, 3)}, "allowed are 3 axes, and 7 values", id="other-classes"),
        pytest.param({"output_type": "HALF"}, "allowed are UINT8 in and FLOAT out", id="other-type"),
        pytest.param({"more_outputs": ["proto"]}, r"got inputs \['frames_nhwc'\] and outputs", id="two-outputs"),
        pytest.param({"output_dims": (-1, 1000)}, "3 axes", id="no-detector"),
    ],
)
def test_a_plan_that_is_not_what_its_facts_say_is_refused(make, driver, trt, parts, message):
    """Never a wrong result: the cure is to build it again."""
    held = driver.held()
    with pytest.raises(EngineFileError, match=message) as caught:
        make(**parts).warm([SMALL])
    assert "build it again" in str(caught.value)
    assert (driver.held(), trt.live()) == (held, (0, 0, 0))


def test_weights_that_give_no_numbers_are_found_at_warm(make, driver, trt):
    """A plain grey frame must give finite values."""
    damaged = onnx.ModelProto()
    damaged.CopyFrom(make.model)
    for tensor in damaged.graph.initializer:
        if tensor.name == "offset":
            values = numpy_helper.to_array(tensor).copy()
            values[0, 0, 0] = np.inf
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    held = driver.held()
    with pytest.raises(ModelFileError, match="no numbers on a plain grey frame"):
        make(model=damaged).warm([SMALL])
    assert (driver.held(), trt.live()) == (held, (0, 0, 0))


# --- the device is lost ---


def test_a_device_lost_in_service_is_told_again_at_once_and_closes(make, driver):
    """A kernel breaks the context; later calls do not ask the device; close gives back what can be."""
    engine = make()
    engine.warm(SHAPES)
    driver.fail("kernel", codes.LAUNCH_FAILED, lasting=True)
    with pytest.raises(DeviceLostError, match="CUDA_ERROR_LAUNCH_FAILED"):
        engine.infer(frames(LARGE))
    asked = driver.count("cuCtxSetCurrent")
    for _ in range(2):
        with pytest.raises(DeviceLostError, match="CUDA_ERROR_LAUNCH_FAILED"):
            engine.infer(frames(LARGE))
        with pytest.raises(DeviceLostError):
            engine.memory()
        engine.stage(frames(LARGE))
    assert driver.count("cuCtxSetCurrent") == asked
    engine.close()
    engine.close()


def test_a_refusal_of_tensorrt_on_a_lost_device_is_a_lost_device(make, driver, trt):
    """Its False does not tell: the driver is asked."""
    trt.is_capturable = False
    engine = make()
    engine.warm([LARGE])
    trt.faults["execute_async_v3"] = Fault(False, "Error Code 1: Cuda Driver (TensorRT internal error)")
    driver.fail("cuStreamSynchronize", codes.ECC_UNCORRECTABLE, lasting=True)
    with pytest.raises(DeviceLostError, match="CUDA_ERROR_ECC_UNCORRECTABLE"):
        engine.infer(frames(LARGE))


@pytest.mark.parametrize("nth", range(1, 10))
def test_a_device_lost_while_warming_leaves_nothing(make, driver, trt, nth):
    """The nth kernel breaks it: the first run, or a replay of either set, of one of three shapes."""
    engine = make()
    driver.fail("kernel", codes.ILLEGAL_ADDRESS, nth=nth, lasting=True)
    with pytest.raises(DeviceLostError, match="CUDA_ERROR_ILLEGAL_ADDRESS"):
        engine.warm(SHAPES)
    assert trt.live() == (0, 0, 0)


def test_a_device_lost_while_engines_move_closes_them(make, driver, trt):
    """An engine that could not move has no memory left: it must not run."""
    first, second = make(), make(bytes_per_px=64)
    first.warm([SMALL])
    driver.fail("kernel", codes.ILLEGAL_ADDRESS, nth=4, lasting=True)
    with pytest.raises(DeviceLostError):
        second.warm([LARGE])
    with pytest.raises(ShapeNotWarmError):
        first.infer(frames(SMALL))
    assert trt.live() == (0, 0, 0)


def test_an_engine_that_cannot_move_costs_no_other_its_memory(make, trt):
    """It is closed; all others must still leave the memory that is freed, and answer as before."""
    first, second = make(), make()
    for engine in (first, second):
        engine.warm([SMALL])
    wanted = second.infer(frames(SMALL)).detections
    third = make(bytes_per_px=64)
    trt.faults["set_device_memory"] = Fault(None, "Error Code 3: API Usage Error", nth=2)
    with pytest.raises(DeviceError, match="set_device_memory"):
        third.warm([LARGE])
    with pytest.raises(ShapeNotWarmError):
        first.infer(frames(SMALL))
    assert_same(second.infer(frames(SMALL)).detections, wanted)


# --- closing ---


def test_closing_the_device_closes_its_engines(make, driver, trt):
    """In the right order: contexts, engine, runtime, then the memory."""
    engines = [make(), make()]
    for engine in engines:
        engine.warm(SHAPES)
    make.device.close()
    assert (driver.held(), trt.live()) == ({}, (0, 0, 0))
    with pytest.raises(ShapeNotWarmError):
        engines[0].infer(frames(SMALL))
    engines[1].close()


def test_another_thread_may_close_what_it_did_not_open(make, driver, trt):
    """A process that ends closes from its main thread: the context is made current there first."""
    engine = make()
    engine.warm(SHAPES)
    for close in (engine.close, make.device.close):
        thread = threading.Thread(target=close)
        thread.start()
        thread.join()
    assert (driver.held(), trt.live(), driver.count("misuses")) == ({}, (0, 0, 0), 0)


def test_a_closed_engine_can_be_warmed_again(make):
    """As any other runner."""
    engine = make()
    engine.warm(SHAPES)
    batch_nhwc = frames(LARGE)
    wanted = engine.infer(batch_nhwc).detections
    engine.close()
    engine.warm([LARGE])
    assert_same(engine.infer(batch_nhwc).detections, wanted)


def test_an_engine_of_a_closed_device_says_so(make):
    """Instead of crashing in the driver."""
    engine = make()
    make.device.close()
    with pytest.raises(DeviceError, match="closed device"):
        engine.warm([SMALL])
