"""A GPU pool's engines and a whole replica on stand-ins of driver and runtime: made, shared, run, lost (simulated).

The fixture `driver` asserts at the end of each test that all that was allocated is free and no API was misused.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace

import cv2
import driver_stand_in as codes
import numpy as np
import onnx
import pytest
import typer
from simulated_engines import ACTIVATION_BYTES_PER_PX
from simulated_pool import BUCKETS, LARGE, SMALL, WIDE, NearStore, World
from typer.testing import CliRunner

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray's affair
    from serve_app import direct_calls, engine_replica, precision_check, tensorrt_pool

from engines.engine_spec import Precision
from engines.errors import DeviceError, DeviceLostError, EngineBuildError, EngineMemoryError, PrecisionError
from engines.spec import WarmShape
from framelane_inspection.scenes import draw_scene
from serve_app.check_frames import NamedFrame
from serve_app.cli import parity as parity_command
from serve_app.engine_replica import EngineReplica
from serve_app.errors import FrameFailedError
from serve_app.results import BatchRequest

NUM_SHAPES = sum(len(bucket.warm_shapes()) for bucket in BUCKETS)
ARENA_BYTES = ACTIVATION_BYTES_PER_PX * 2 * LARGE.num_px
PATIENCE_S = 20.0


class Served:
    """A replica of the pool, driven without Ray."""

    def __init__(self, world):
        self._made = []

        def make(plan, pool):
            assert pool == "gpu"
            self._made.append(world.engines(plan))
            return self._made[0]

        self.replica = EngineReplica(world.plan, "gpu", make)
        self.staged: queue.SimpleQueue[tuple[int, ...]] = queue.SimpleQueue()
        for engine in self._made[0].by_bucket.values():
            engine.stage = self._told(engine.stage)

    def _told(self, stage):
        """Stage, then say what shape was."""

        def stage_and_tell(batch_nhwc):
            stage(batch_nhwc)
            self.staged.put(batch_nhwc.shape)

        return stage_and_tell

    async def infer(self, bucket, canvas, *colours_bgr, urgent=False):
        """Answer a batch of frames of one colour each, which fill their canvas."""
        refs = [asyncio.get_running_loop().create_future() for _ in colours_bgr]
        for ref, colour in zip(refs, colours_bgr, strict=True):
            ref.set_result(painted(canvas, colour))
        request = BatchRequest(bucket, canvas, urgent, (tuple(canvas),) * len(refs), (None,) * len(refs))
        return await self.replica.infer(request, refs)

    def close(self):
        """End its threads and free its GPU."""
        self.replica._engine_thread.shutdown()
        self.replica._placing_thread.shutdown()
        self._made[0].close()


@pytest.fixture
def world(tmp_path, driver, trt, raw_model, end_to_end_model):
    """The machine; its stand-ins are healthy."""
    assert trt.driver is driver
    models = {}
    for name, model in (("raw", raw_model()), ("ends", end_to_end_model())):
        models[name] = str(tmp_path / f"{name}.onnx")
        onnx.save_model(model, models[name])
    return World(tmp_path, models)


@pytest.fixture
def served(world, monkeypatch):
    """A replica; Ray's answers to who and where it is are the test's."""
    context = SimpleNamespace(get_node_id=lambda: "node0123", get_actor_id=lambda: "actor012", current_actor=object())
    for module in (engine_replica, direct_calls):
        monkeypatch.setattr(module, "ray", SimpleNamespace(get_runtime_context=lambda: context))
    replica = Served(world)
    yield replica
    replica.close()


@pytest.fixture
def small_scenes(monkeypatch):
    """One frame in the drawn scenes' place; counts how often it was asked for."""
    asked = []

    def scenes():
        asked.append(1)
        return [NamedFrame("a scene", draw_scene((320, 320), 8).image_hwc)]

    monkeypatch.setattr(precision_check, "drawn_scenes", scenes)
    return asked


def painted(canvas, colour_bgr):
    """A frame of one colour that fills a canvas."""
    return np.full((*canvas, 3), colour_bgr, np.uint8)


def brief(reply):
    """For each frame its class names, its scores and its boxes."""
    return [
        (names, [round(score, 3) for score in found.scores.tolist()], found.boxes_xyxy.tolist())
        for found, names in reply.frames
    ]


def warmed(pool):
    """Warm every engine of a pool, as a replica does, and answer the pool."""
    for bucket in BUCKETS:
        pool.by_bucket[bucket.name].warm(bucket.warm_shapes())
    return pool


# --- memory ---


def test_the_engines_of_all_buckets_share_one_arena_of_the_largest_bucket(world, driver, trt):
    """It is allocated once, by the first engine that is warm, though that one needs less."""
    pool = warmed(world.engines())
    ((_, size),) = set(trt.arenas)
    assert size == ARENA_BYTES
    # Weights and contexts are TensorRT's own; the two buffer sets grew once, for the larger bucket.
    of_tensorrt = len(BUCKETS) + NUM_SHAPES
    assert driver.count("device_blocks") == of_tensorrt + 1 + 4
    assert driver.count("cuMemAlloc") == of_tensorrt + 1 + 4 + 4
    pool.close()


def test_closing_the_engines_frees_the_gpu_and_lets_go_of_nvml(world, driver, trt):
    """Once or twice."""
    pool = warmed(world.engines())
    pool.close()
    pool.close()
    assert (driver.held(), trt.live()) == ({}, (0, 0, 0))
    assert world.gpus[0].num_closed >= 1


def test_a_gpu_that_is_too_small_for_all_buckets_is_a_memory_error(world, driver):
    """When the replica warms, and everything can be freed after it."""
    driver.reset(device_bytes=ARENA_BYTES)
    pool = world.engines()
    with pytest.raises(EngineMemoryError):
        warmed(pool)
    pool.close()
    assert driver.held() == {}


# --- a replica ---


def test_a_replica_answers_frames_of_both_buckets(served):
    """Each with its model's boxes, in px of the frame, best first; two frames in a batch keep their order."""
    near = asyncio.run(served.infer("near", WIDE, (51, 102, 204), (255, 0, 0)))
    far = asyncio.run(served.infer("far", LARGE, (0, 255, 153)))
    red, green, blue = [4, 2, 24, 10], [30, 40, 60, 44], [8, 16, 16, 48]
    assert brief(near) == [(("red", "green"), [0.8, 0.4], [red, green]), (("blue",), [1.0], [blue])]
    assert brief(far) == [(("green", "red"), [1.0, 0.6], [green, red])]


def test_a_replica_reports_its_gpu_and_every_warm_shape(served, world):
    """What NVML says, and seconds of each shape."""
    report, _ = asyncio.run(served.replica.report())
    assert report.device == world.gpus[0].facts()
    assert [entry[:2] for entry in report.latencies] == [
        (bucket.name, shape) for bucket in BUCKETS for shape in bucket.warm_shapes()
    ]


def test_a_critical_batch_overtakes_and_the_batch_that_goes_next_is_uploaded_meanwhile(served, driver, trt):
    """It does not stop the running one; each answer is its own; what was staged and overtaken is uploaded again."""
    held, goes_on = threading.Event(), threading.Event()

    def hold():
        held.set()
        assert goes_on.wait(PATIENCE_S)

    async def next_staged():
        return await asyncio.to_thread(served.staged.get, timeout=PATIENCE_S)

    async def story():
        driver.on_wait(hold)
        calls = [asyncio.create_task(served.infer("near", SMALL, (0, 0, 255)))]
        assert await asyncio.to_thread(held.wait, PATIENCE_S)
        calls.append(asyncio.create_task(served.infer("near", WIDE, (0, 255, 0))))
        assert await next_staged() == (1, *WIDE, 3)
        calls.append(asyncio.create_task(served.infer("far", LARGE, (255, 0, 0), urgent=True)))
        assert await next_staged() == (1, *LARGE, 3)
        goes_on.set()
        assert await next_staged() == (1, *WIDE, 3)
        return await asyncio.gather(*calls)

    driver.timeline()
    ran = len(trt.enqueued)
    replies = asyncio.run(story())

    assert trt.enqueued[ran:] == [(1, 64, 64, 3), (1, 128, 96, 3), (1, 64, 96, 3)]
    assert [brief(reply)[0][0] for reply in replies] == [("red",), ("green",), ("blue",)]
    line = driver.timeline()
    uploads = [entry for entry in line if entry.kind == "upload"]
    kernels = [entry for entry in line if entry.kind == "kernel"]
    assert len(uploads) == 4
    assert uploads[2].start_ns < kernels[0].end_ns


def test_a_device_lost_in_service_ends_the_replica(served, driver):
    """The batch fails with the reason; then it reports nothing, and its health check tells Serve to replace it."""
    served.replica.check_health()
    driver.fail("kernel", codes.LAUNCH_FAILED, lasting=True)
    reply = asyncio.run(served.infer("far", LARGE, (0, 0, 255)))
    assert isinstance(reply.frames[0], FrameFailedError)
    assert "CUDA_ERROR_LAUNCH_FAILED" in str(reply.frames[0])
    with pytest.raises(DeviceLostError, match="CUDA_ERROR_LAUNCH_FAILED"):
        served.replica.check_health()
    with pytest.raises(DeviceLostError, match="CUDA_ERROR_LAUNCH_FAILED"):
        asyncio.run(served.replica.report())


def test_a_batch_that_the_driver_refuses_fails_alone(served, driver):
    """The next one is answered, and the replica stays healthy."""
    driver.fail("cuGraphLaunch", codes.INVALID_VALUE)
    failed = asyncio.run(served.infer("near", SMALL, (0, 0, 255)))
    assert isinstance(failed.frames[0], FrameFailedError)
    assert brief(asyncio.run(served.infer("near", SMALL, (0, 0, 255))))[0][0] == ("red",)
    served.replica.check_health()


# --- where engines come from ---


def test_a_second_start_takes_the_engines_from_the_folder(world):
    """Both are built once, and never again on this model of GPU."""
    world.engines().close()
    assert world.builds.models == ["raw", "ends"]
    warmed(world.engines()).close()
    assert world.builds.models == ["raw", "ends"]


def test_tensorrt_has_a_folder_for_each_model_of_gpu(world):
    """Also where both have the same compute capability: it measured its kernels on one of them."""
    for name in ("NVIDIA L4", "NVIDIA RTX 4000 Ada / 20GB"):
        world.engines(parts=world.parts(name, library="tensorrt")).close()
    assert world.builds.models == ["raw", "ends"] * 2
    names = sorted(path.parent.name for path in world.folder.rglob("*.engine"))
    assert names == ["NVIDIA-L4"] * 2 + ["NVIDIA-RTX-4000-Ada-20GB"] * 2


def test_tensorrt_for_rtx_has_one_folder_for_all_of_a_compute_capability(world):
    """What it builds is for whoever has it."""
    for name in ("NVIDIA L4", "NVIDIA RTX 4000 Ada / 20GB"):
        world.engines(parts=world.parts(name)).close()
    assert world.builds.models == ["raw", "ends"]


def test_a_second_machine_gets_its_engines_from_the_clusters_store(world, tmp_path):
    """It builds none, and has them in its own folder afterwards."""
    store = NearStore()
    world.engines(store=store).close()
    warmed(world.engines(folder=tmp_path / "second", store=store)).close()
    assert world.builds.models == ["raw", "ends"]
    assert len(list((tmp_path / "second").glob("*.engine"))) == 2


def test_a_graph_in_fp16_is_compared_once_before_its_engines_are_built(world, small_scenes):
    """Two buckets have one graph; and not again for engines that are in the folder."""
    warmed(world.engines(world.in_fp16())).close()
    assert (len(small_scenes), world.builds.models) == (1, ["inspection-light"] * 2)
    world.engines(world.in_fp16()).close()
    assert (len(small_scenes), world.builds.models) == (1, ["inspection-light"] * 2)


# --- what is refused ---


def test_an_fp16_graph_that_finds_something_else_is_not_built(world, small_scenes, monkeypatch, driver):
    """The reason reaches whoever makes the replica; nothing is left on the GPU or in the folder."""

    def refuse(*_):
        raise PrecisionError("precision: frame 0 has another box; set precision: fp32")

    monkeypatch.setattr(precision_check, "check_precision", refuse)
    with pytest.raises(PrecisionError, match="set precision: fp32"):
        world.engines(world.in_fp16())
    assert (world.builds.models, len(small_scenes)) == ([], 1)
    assert list(world.folder.rglob("*.engine")) == []
    assert (driver.held(), world.gpus[0].num_closed) == ({}, 1)


def test_a_build_that_fails_closes_the_gpu(world, driver):
    """Also where the first engine was built; the next start builds the rest."""
    world.builds.error = EngineBuildError("the builder refuses")
    with pytest.raises(EngineBuildError, match="the builder refuses"):
        world.engines()
    assert (driver.held(), world.gpus[0].num_closed) == ({}, 1)
    world.builds.error = None
    world.engines().close()
    assert world.builds.models == ["raw", "ends"]


def test_a_gpu_that_does_not_open_leaves_nothing(world, driver):
    """NVML is let go too."""
    driver.fail("cuStreamCreate", codes.OUT_OF_MEMORY, nth=2)
    with pytest.raises(EngineMemoryError):
        world.engines()
    assert (driver.held(), world.gpus[0].num_closed) == ({}, 1)


def test_a_gpu_without_a_compute_capability_is_refused(world, driver):
    """No engine could be chosen for it; it is not even opened."""
    with pytest.raises(DeviceError, match="GPU NVIDIA L4: its driver does not say which compute capability"):
        world.engines(parts=world.parts(capability=None))
    assert (driver.count("cuDevicePrimaryCtxRetain"), world.gpus[0].num_closed) == (0, 1)


# --- framelane parity --runner tensorrt ---


@pytest.fixture
def compare(world, tmp_path, monkeypatch):
    """Runs the command on two frames of different sizes; the GPU is the stand-in."""
    frames = tmp_path / "frames"
    frames.mkdir()
    for name, canvas in (("a.png", WIDE), ("b.png", LARGE)):
        cv2.imwrite(str(frames / name), painted(canvas, (60, 120, 240)))
    monkeypatch.setattr(tensorrt_pool, "gpu_here", world.parts)
    monkeypatch.setenv("FRAMELANE_CACHE_DIR", str(world.folder))
    command = typer.Typer()
    command.command()(parity_command.parity)

    def run(*args):
        return CliRunner().invoke(command, [*args, "--frames", str(frames)], env={"COLUMNS": "120"})

    return run


@pytest.mark.parametrize("model", ["raw", "ends"])
def test_the_tensorrt_runner_is_compared_with_onnx_runtime(world, compare, driver, model):
    """One engine whose profile holds just the frames' shapes; the GPU is free afterwards."""
    answer = compare(world.plan.models[model], "--runner", "tensorrt", "--precision", "fp32")
    assert answer.exit_code == 0, answer.output
    assert answer.stdout.splitlines()[-1].startswith("same: tensorrt and onnx-fp32: ")
    (file,) = world.folder.rglob("*.engine")
    assert f"{model}_1x64x96-1x128x96-1x128x96_fp32_sm89" in file.name
    assert (driver.held(), world.gpus[0].num_closed) == ({}, 1)


def test_a_lone_engine_that_cannot_be_built_closes_the_gpu(world, compare, driver):
    """The command ends with the builder's reason."""
    world.builds.error = EngineBuildError("the builder refuses")
    answer = compare(world.plan.models["raw"], "--runner", "tensorrt", "--precision", "fp32")
    assert isinstance(answer.exception, EngineBuildError)
    assert (driver.held(), world.gpus[0].num_closed) == ({}, 1)


def test_a_lone_engine_behaves_as_any_other(world):
    """It is warmed for its shapes, stages, answers, knows the GPU's memory, and closes twice."""
    from serve_app.lone_engine import lone_tensorrt_engine

    shape = WarmShape(WIDE, 2)
    path = Path(world.plan.models["raw"])
    engine = lone_tensorrt_engine(path, Precision.FP32, [shape], parts=world.parts(), folder=world.folder)
    engine.warm([shape])
    batch_nhwc = np.stack([painted(WIDE, (0, 0, 255)), painted(WIDE, (0, 255, 0))])
    engine.stage(batch_nhwc)
    found = engine.infer(batch_nhwc).detections
    # Boxes before NMS: of each anchor its best class, whatever its score above the least.
    assert [engine.model.class_name(int(answer.class_ids[0])) for answer in found] == ["red", "green"]
    assert engine.memory().used_bytes > ACTIVATION_BYTES_PER_PX * 2 * WIDE.num_px
    engine.close()
    engine.close()
