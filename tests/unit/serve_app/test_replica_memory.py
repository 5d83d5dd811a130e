"""A replica whose engine or host has no memory for a while: it answers, says so, mends itself, ends only at last."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import numpy as np
import pytest
from ray.exceptions import RaySystemError
from serve_samples import HD, VGA, sample_plan

from engines.cpu_device import CpuDevice
from engines.device_facts import DeviceFacts
from engines.errors import DeviceError, EngineMemoryError, ShapeNotWarmError
from engines.fake import FakeEngine
from engines.spec import WarmShape
from serve_app import bucket_repair, direct_calls, engine_replica
from serve_app.engine_replica import MAX_MEMORY_AGE_S, EngineReplica
from serve_app.plan import Bucket, Pool
from serve_app.pool_engines import PoolEngines
from serve_app.results import BatchRequest

BUCKETS = (Bucket("vga", "full", "near", (VGA,), (1, 2)), Bucket("hd", "full", "near", (HD,), (1, 2)))
SIZES_HW = {"vga": tuple(VGA), "hd": tuple(HD)}
PATIENCE_S = 20.0


class TightEngine(FakeEngine):
    """A fake engine that has memory for batches of so many frames."""

    room = 9

    def __init__(self):
        super().__init__({}, lambda _: None)
        self.num_closed = 0

    def warm(self, shapes):
        """See `Engine.warm`."""
        for shape in shapes:
            self._allocate(shape.batch)
        super().warm(shapes)

    def infer(self, batch_nhwc):
        """See `Engine.infer`."""
        output = super().infer(batch_nhwc)  # refuses what is not warm, as a closed engine does
        self._allocate(len(batch_nhwc))
        return output

    def close(self):
        """See `Engine.close`."""
        self.num_closed += 1
        super().close()

    def _allocate(self, num_frames):
        if num_frames > self.room:
            raise EngineMemoryError(f"no room for {num_frames} frames")


class World:
    """A replica of two buckets in one event loop."""

    def __init__(self):
        self.engines = {bucket.name: TightEngine() for bucket in BUCKETS}
        self.num_started = 0
        self.device = CpuDevice()
        self.replica = EngineReplica(sample_plan(pools=(Pool("near"),), buckets=BUCKETS), "near", self._make)

    def _make(self, _plan, _pool):
        self.num_started += 1
        return PoolEngines(self.engines, self.device, lambda: None)

    async def infer(self, bucket="vga", num_frames=1, pixels=None):
        """Answer a batch of grey frames; or of what the refs give."""
        size_hw = SIZES_HW[bucket]
        image = np.full((*size_hw, 3), 51, np.uint8) if pixels is None else pixels
        refs = [asyncio.get_running_loop().create_future() for _ in range(num_frames)]
        for ref in refs:
            if isinstance(image, Exception):
                ref.set_exception(image)
            else:
                ref.set_result(image)
        canvas = {"vga": VGA, "hd": HD}[bucket]
        request = BatchRequest(bucket, canvas, False, (size_hw,) * num_frames, (None,) * num_frames)
        reply = await self.replica.infer(request, refs)
        return "ok" if not reply.out_of_memory else "broken" if reply.is_broken else "out of memory"

    async def broken(self):
        """Which buckets it reports as broken."""
        report, _ = await self.replica.report()
        return [name for name, _ in report.broken]

    async def attempts(self, num_attempts):
        """Until so many attempts at the VGA bucket were in vain."""
        give_up_s = time.monotonic() + PATIENCE_S
        while self.replica._repair._states["vga"].num_attempts < num_attempts:
            assert time.monotonic() < give_up_s
            await asyncio.sleep(0.001)

    async def mended(self):
        """Until nothing is under repair."""
        tasks = self.replica._repair._tasks.values()
        await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE_S)


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    """The replica asks Ray who and where it is; repairs do not wait for a clock."""
    context = SimpleNamespace(
        get_node_id=lambda: "node0123456789", get_actor_id=lambda: "actor012345678", current_actor=object()
    )
    for module in (engine_replica, direct_calls):
        monkeypatch.setattr(module, "ray", SimpleNamespace(get_runtime_context=lambda: context))
    monkeypatch.setattr(bucket_repair, "RETRY_S", (0.0,) * bucket_repair.MAX_ATTEMPTS)


@pytest.fixture
def world():
    """A replica with room."""
    made = World()
    yield made
    made.replica._engine_thread.shutdown()
    made.replica._placing_thread.shutdown()


def test_a_batch_without_memory_is_answered_and_breaks_nothing(world):
    """The router sends it again in halves, which fit."""

    async def scenario():
        world.engines["vga"].room = 1
        assert await world.infer(num_frames=2) == "out of memory"
        assert await world.infer(num_frames=1) == "ok"
        assert await world.broken() == []

    asyncio.run(scenario())
    assert world.engines["vga"].num_closed == 0


def test_a_broken_bucket_is_rebuilt_while_the_others_are_served(world):
    """It says so in its answers and in its reports; nobody restarts it, and then it is well."""

    async def scenario():
        world.engines["vga"].room = 0
        assert await world.infer() == "broken"
        assert await world.broken() == ["vga"]
        await world.attempts(1)
        assert await world.infer(num_frames=2) == "broken"
        assert await world.infer("hd", 2) == "ok"
        world.engines["vga"].room = 9
        await world.mended()
        world.replica.check_health()
        assert await world.broken() == []
        assert [await world.infer(num_frames=2), await world.infer()] == ["ok", "ok"]

    asyncio.run(scenario())
    assert world.engines["vga"].num_closed > 0
    assert (world.engines["hd"].num_closed, world.num_started) == (0, 1)


def test_health_is_red_when_the_smallest_canvas_cannot_be_served(world):
    """After all attempts, and with the reason; the larger bucket would still be served."""

    async def scenario():
        world.engines["vga"].room = 0
        await world.infer()
        await world.attempts(bucket_repair.MAX_ATTEMPTS)
        with pytest.raises(EngineMemoryError, match=r"replica near-actor012: buckets vga: no memory .*no room for 1"):
            world.replica.check_health()
        assert await world.infer("hd") == "ok"
        world.engines["vga"].room = 9
        await world.mended()
        world.replica.check_health()

    asyncio.run(scenario())


def test_a_batch_that_waited_for_the_device_is_not_run_on_a_closed_engine(world, monkeypatch):
    """It was staged before its bucket broke: it is out of memory like the first, and no bug."""

    def refuse(*_):
        raise EngineMemoryError("no room as it is")

    monkeypatch.setattr(bucket_repair, "_run_grey", refuse)

    async def scenario():
        world.engines["vga"].room = 0
        told = await asyncio.gather(*(world.infer() for _ in range(12)))
        assert set(told) == {"broken"}
        world.engines["vga"].room = 9
        await world.mended()
        assert await world.infer() == "ok"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "error", [MemoryError("Unable to allocate 6 MiB"), RaySystemError(MemoryError("mmap"), "")], ids=["python", "ray"]
)
def test_frames_that_find_no_memory_here_are_out_of_memory(world, error):
    """Fetching and placing allocate too; the batch goes again, its neighbours and the process go on."""

    async def scenario():
        assert await world.infer("hd", 2, pixels=error) == "out of memory"
        assert await world.infer("hd", 2) == "ok"

    asyncio.run(scenario())


def test_decoding_without_memory_is_out_of_memory(world, monkeypatch):
    """Its own error of Python's, from inside the engine's call."""

    def infer(_):
        raise MemoryError("Unable to allocate 2 MiB")

    async def scenario():
        with monkeypatch.context() as patch:
            patch.setattr(world.engines["hd"], "infer", infer)
            assert await world.infer("hd", 2) == "out of memory"
        assert await world.infer("hd", 2) == "ok"

    asyncio.run(scenario())


def test_placing_without_memory_is_out_of_memory(world, monkeypatch):
    """Not a failed call, after which nothing would be tried again."""
    place_batch = engine_replica.place_batch

    def tight(pieces_hwc, canvas):
        if len(pieces_hwc) > 1:
            raise MemoryError("Unable to allocate 2.6 MiB")
        return place_batch(pieces_hwc, canvas)

    monkeypatch.setattr(engine_replica, "place_batch", tight)

    async def scenario():
        assert await world.infer("hd", 2) == "out of memory"
        assert await world.infer("hd", 1) == "ok"

    asyncio.run(scenario())


def test_a_bug_is_no_want_of_memory(world):
    """It fails the batch, and nothing is rebuilt for it."""
    world.engines["vga"]._warm.clear()

    async def scenario():
        with pytest.raises(ShapeNotWarmError):
            world.engines["vga"].infer(np.zeros((1, *VGA, 3), np.uint8))
        assert await world.infer() == "ok"  # answered: the frames carry the error
        assert await world.broken() == []

    asyncio.run(scenario())


def test_a_start_without_memory_is_tried_again(monkeypatch):
    """The engines that were half made are closed each time; with memory the replica is ready."""
    waited_s = []
    monkeypatch.setattr(engine_replica, "with_patience", patient_with(waited_s))
    closed = []
    made = []

    def make(plan, pool):
        engines = {bucket.name: TightEngine() for bucket in plan.buckets_of(pool)}
        engines["hd"].room = 9 if len(waited_s) >= 2 else 0
        made.append(engines)
        return PoolEngines(engines, CpuDevice(), lambda: closed.append(engines))

    replica = EngineReplica(sample_plan(pools=(Pool("near"),), buckets=BUCKETS), "near", make)
    replica._engine_thread.shutdown()
    replica._placing_thread.shutdown()

    assert waited_s == [1.0, 2.0]
    assert closed == made[:2]
    assert made[2]["hd"]._warm == {WarmShape(HD, 1), WarmShape(HD, 2)}


def patient_with(waited_s):
    """`with_patience` on a clock that only notes."""
    from serve_app.start_patience import with_patience

    return lambda start, name: with_patience(start, name, sleep=waited_s.append)


class SilentDevice:
    """A device that answered once."""

    def __init__(self):
        self.is_silent = False

    def facts(self):
        """See `Device.facts`."""
        if self.is_silent:
            raise DeviceError("Unknown Error (999)")
        return DeviceFacts("a device", 0, "GPU-1", None, 100, 99, 1, 0.5, None, None, None)

    def close(self):
        """Nothing is held."""


def test_what_a_silent_device_uses_is_not_known_for_ever(monkeypatch):
    """Else a pool would shed frames until somebody restarts it, for a reading of long ago."""
    clock = SimpleNamespace(now_s=1000.0, monotonic=lambda: clock.now_s)
    monkeypatch.setattr(engine_replica, "time", clock)
    world = World.__new__(World)
    world.engines, world.num_started, world.device = {b.name: TightEngine() for b in BUCKETS}, 0, SilentDevice()
    replica = EngineReplica(sample_plan(pools=(Pool("near"),), buckets=BUCKETS), "near", world._make)
    world.device.is_silent = True
    told = []
    for age_s in (1.0, MAX_MEMORY_AGE_S, MAX_MEMORY_AGE_S + 1):
        clock.now_s = 1000.0 + age_s
        report, _ = asyncio.run(replica.report())
        told.append((report.device.used_bytes, report.device.total_bytes))

    assert told == [(99, 100), (99, 100), (None, 100)]
