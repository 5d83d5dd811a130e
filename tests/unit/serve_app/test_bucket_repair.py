"""Engines that run out of memory for a while: what is refused meanwhile, when they are rebuilt, when it is given up."""

from __future__ import annotations

import asyncio

import pytest
from serve_samples import HD, PORTRAIT, VGA

from engines.errors import DeviceLostError, EngineMemoryError
from engines.fake import FakeEngine
from engines.spec import CanvasShape, WarmShape
from serve_app import bucket_repair
from serve_app.bucket_repair import MAX_ATTEMPTS, BucketRepair
from serve_app.plan import Bucket

SMALL = CanvasShape(256, 320)
VGA_BUCKET = Bucket("vga", "full", "near", (VGA, SMALL), (1, 2))
HD_BUCKET = Bucket("hd", "full", "near", (HD,), (1,))
SMALLEST = WarmShape(SMALL, 1)
PATIENCE_S = 20.0


class TightEngine(FakeEngine):
    """A fake engine that has memory for so many pixels in a batch, and notes what is done to it."""

    def __init__(self):
        super().__init__({}, lambda _: None)
        self.room_px = 10**9
        self.error: Exception | None = None
        self.done: list[object] = []

    def warm(self, shapes):
        """See `Engine.warm`."""
        for shape in shapes:
            self.done.append(shape)
            self._allocate(shape.canvas.num_px * shape.batch)
        super().warm(shapes)

    def infer(self, batch_nhwc):
        """See `Engine.infer`."""
        num_frames, height, width, _ = batch_nhwc.shape
        self.done.append("run")
        self._allocate(num_frames * height * width)
        return super().infer(batch_nhwc)

    def close(self):
        """See `Engine.close`."""
        self.done.append("close")
        super().close()

    def _allocate(self, num_px):
        if self.error is not None:
            raise self.error
        if num_px > self.room_px:
            raise EngineMemoryError(f"no room for {num_px} px")


class Waits:
    """Stands for `asyncio.sleep`: the repair waits until the test lets it go on."""

    def __init__(self):
        self.asked_s: asyncio.Queue[float] = asyncio.Queue()
        self._over: asyncio.Queue[None] = asyncio.Queue()

    async def sleep(self, seconds):
        """See `asyncio.sleep`."""
        self.asked_s.put_nowait(seconds)
        await self._over.get()

    async def begun(self):
        """For how long the repair wants to wait, once it does."""
        return await asyncio.wait_for(self.asked_s.get(), PATIENCE_S)

    def end(self):
        """The time has passed."""
        self._over.put_nowait(None)


class World:
    """A repair of two buckets, their engines, its waits, and what it told of the device."""

    def __init__(self, *buckets):
        self.buckets = buckets or (VGA_BUCKET, HD_BUCKET)
        self.engines = {bucket.name: TightEngine() for bucket in self.buckets}
        for bucket in self.buckets:
            self.engines[bucket.name].warm(bucket.warm_shapes())
            self.engines[bucket.name].done.clear()
        self.vga = self.engines["vga"]
        self.waits = Waits()
        self.lost: list[str] = []
        self.repair = BucketRepair(self.engines, self.buckets, self._on_thread, lambda err: self.lost.append(str(err)))

    async def _on_thread(self, act):
        return await asyncio.to_thread(act)

    async def settle(self):
        """Let the repair end."""
        await asyncio.wait_for(asyncio.gather(*self.repair._tasks.values()), PATIENCE_S)


def play(monkeypatch, scenario, *buckets):
    """Run a scenario; at its end nothing is repaired any more."""
    world = World(*buckets)
    real_sleep = asyncio.sleep
    monkeypatch.setattr(bucket_repair.asyncio, "sleep", world.waits.sleep)

    async def main():
        await scenario(world)
        for task in world.repair._tasks.values():
            task.cancel()
        await real_sleep(0)

    asyncio.run(main())


def test_a_moment_without_memory_costs_no_rebuild(monkeypatch):
    """The engine is tried as it is before it is taken down."""

    async def scenario(world):
        assert world.repair.out_of_memory("vga", SMALLEST, "none left")
        assert world.repair.broken == (("vga", "none left"),)
        assert world.repair.refusal("vga", WarmShape(VGA, 2)) == "none left"
        assert world.repair.refusal("hd", WarmShape(HD, 1)) is None
        await world.settle()
        assert (world.vga.done, world.repair.broken) == (["run"], ())
        assert world.repair.refusal("vga", WarmShape(VGA, 2)) is None

    play(monkeypatch, scenario)


@pytest.mark.parametrize("shape", [WarmShape(SMALL, 2), WarmShape(VGA, 1)])
def test_a_larger_shape_without_memory_breaks_nothing(monkeypatch, shape):
    """The router halves it or lowers its rung; the bucket goes on."""

    async def scenario(world):
        assert not world.repair.out_of_memory("vga", shape, "none left")
        assert (world.repair.broken, world.vga.done) == ((), [])

    play(monkeypatch, scenario)


def test_any_of_its_smallest_canvases_breaks_a_bucket(monkeypatch):
    """Portrait is as small as landscape."""

    async def scenario(world):
        assert world.repair.out_of_memory("vga", WarmShape(PORTRAIT, 1), "none left")
        await world.settle()

    play(monkeypatch, scenario, Bucket("vga", "full", "near", (VGA, PORTRAIT), (1,)))


def test_an_engine_is_rebuilt_when_memory_allows(monkeypatch):
    """Its smallest shape first, so that it serves again, then the others from the largest on; waits grow meanwhile."""

    async def scenario(world):
        world.vga.room_px = 0
        world.repair.out_of_memory("vga", SMALLEST, "none left")
        waited_s = []
        for number in range(3):
            waited_s.append(await world.waits.begun())
            assert world.repair.broken == (("vga", f"no room for {SMALL.num_px} px"),)
            if number == 2:
                world.vga.room_px = 10**9
            world.waits.end()
        await world.settle()
        assert waited_s == [1.0, 2.0, 4.0]
        last = ["close", SMALLEST, WarmShape(VGA, 2), WarmShape(VGA, 1), WarmShape(SMALL, 2)]
        assert world.vga.done == ["run", "close", SMALLEST, *["close", SMALLEST] * 2, *last]
        assert (world.repair.broken, world.vga._warm) == ((), set(VGA_BUCKET.warm_shapes()))

    play(monkeypatch, scenario)


def test_what_does_not_fit_again_is_refused_until_it_does(monkeypatch):
    """A bucket that serves its small shapes is not broken; its large ones come back when memory does."""

    async def scenario(world):
        world.vga.room_px = 0
        world.repair.out_of_memory("vga", SMALLEST, "none left")
        await world.waits.begun()
        world.vga.room_px = VGA.num_px
        world.waits.end()
        await world.waits.begun()
        assert world.repair.broken == ()
        refused = {shape for shape in VGA_BUCKET.warm_shapes() if world.repair.refusal("vga", shape)}
        assert refused == {WarmShape(VGA, 2)}
        assert world.repair.given_up() is None
        world.vga.room_px = 10**9
        world.waits.end()
        await world.settle()
        assert world.repair.refusal("vga", WarmShape(VGA, 2)) is None

    play(monkeypatch, scenario)


async def in_vain(world, bucket, shape, num_attempts):
    """So many attempts of a bucket fail."""
    world.engines[bucket].room_px = 0
    world.repair.out_of_memory(bucket, shape, "none left")
    for number in range(num_attempts):
        await world.waits.begun()
        if number < num_attempts - 1:
            world.waits.end()


def test_a_replica_is_given_up_after_many_attempts_at_its_smallest_canvas(monkeypatch):
    """Not one sooner; and if memory comes back before Serve has acted, it is well again."""

    async def scenario(world):
        await in_vain(world, "vga", SMALLEST, MAX_ATTEMPTS - 1)
        assert world.repair.given_up() is None
        world.waits.end()
        await world.waits.begun()
        assert world.repair.given_up() == (
            f"buckets vga: no memory for the smallest batch, and none after {MAX_ATTEMPTS} attempts "
            f"(no room for {SMALL.num_px} px)"
        )
        world.vga.room_px = 10**9
        world.waits.end()
        await world.settle()
        assert world.repair.given_up() is None

    play(monkeypatch, scenario)


def test_attempts_of_an_earlier_time_count_no_more(monkeypatch):
    """What was mended begins anew."""

    async def scenario(world):
        for _ in range(2):
            await in_vain(world, "vga", SMALLEST, MAX_ATTEMPTS - 1)
            world.vga.room_px = 10**9
            world.waits.end()
            await world.settle()
        await in_vain(world, "vga", SMALLEST, 1)
        assert world.repair.given_up() is None
        assert world.repair._states["vga"].num_attempts == 1

    play(monkeypatch, scenario)


def test_a_replica_that_serves_its_smallest_canvas_is_kept(monkeypatch):
    """A larger bucket that stays broken is told of and tried on; a new process would serve no more than this one."""

    async def scenario(world):
        await in_vain(world, "hd", WarmShape(HD, 1), MAX_ATTEMPTS + 1)
        assert [name for name, _ in world.repair.broken] == ["hd"]
        assert world.repair.given_up() is None

    play(monkeypatch, scenario)


def test_a_replica_with_another_engine_for_its_smallest_canvas_is_kept(monkeypatch):
    """The light model still serves it."""
    light = Bucket("light", "light", "near", (SMALL,), (1,))

    async def scenario(world):
        await in_vain(world, "vga", SMALLEST, MAX_ATTEMPTS + 1)
        assert world.repair.given_up() is None

    play(monkeypatch, scenario, VGA_BUCKET, light)


def test_numpys_own_error_is_want_of_memory_too(monkeypatch):
    """Decoding boxes allocates beside the engine."""

    async def scenario(world):
        world.vga.error = MemoryError("Unable to allocate 2 GiB")
        world.repair.out_of_memory("vga", SMALLEST, "none left")
        await world.waits.begun()
        assert world.repair.broken == (("vga", "Unable to allocate 2 GiB"),)

    play(monkeypatch, scenario)


def test_an_engine_that_cannot_be_rebuilt_for_another_reason_is_tried_on_and_told(monkeypatch, caplog):
    """Nothing is swallowed: the log has it with its trace, the report with its words."""

    async def scenario(world):
        world.vga.error = ValueError("a bug")
        world.repair.out_of_memory("vga", SMALLEST, "none left")
        await world.waits.begun()
        assert world.repair.broken == (("vga", "ValueError: a bug"),)
        assert "cannot be rebuilt" in caplog.text

    play(monkeypatch, scenario)


def test_an_engine_that_cannot_even_be_closed_is_tried_on(monkeypatch):
    """The repair ends with success or with the replica, never by itself."""

    async def scenario(world):
        world.vga.error = EngineMemoryError("none")
        world.vga.close = lambda: 1 / 0
        world.repair.out_of_memory("vga", SMALLEST, "none left")
        await world.waits.begun()
        assert world.repair.broken == (("vga", "ZeroDivisionError: division by zero"),)
        del world.vga.close
        world.vga.error = None
        world.waits.end()
        await world.settle()
        assert world.repair.broken == ()

    play(monkeypatch, scenario)


def test_a_device_that_is_lost_meanwhile_is_told(monkeypatch):
    """It ends the replica, whatever memory there is."""

    async def scenario(world):
        world.vga.error = DeviceLostError("GPU: fell off the bus")
        world.repair.out_of_memory("vga", SMALLEST, "none left")
        await world.waits.begun()
        assert set(world.lost) == {"GPU: fell off the bus"}

    play(monkeypatch, scenario)


def test_a_bucket_can_break_again(monkeypatch):
    """After it was mended, and while what was missing is still being looked for."""

    async def scenario(world):
        for _ in range(2):
            world.repair.out_of_memory("vga", SMALLEST, "none left")
            await world.settle()
            assert world.repair.broken == ()
        world.vga.room_px = 0
        world.repair.out_of_memory("vga", SMALLEST, "none left")
        await world.waits.begun()
        world.vga.room_px = SMALL.num_px
        world.waits.end()
        await world.waits.begun()
        assert world.repair.out_of_memory("vga", SMALLEST, "once more")
        assert world.repair.broken == (("vga", "once more"),)
        world.vga.room_px = 10**9
        world.waits.end()
        await world.settle()
        assert world.repair.broken == ()
        assert world.repair.refusal("vga", WarmShape(VGA, 2)) is None

    play(monkeypatch, scenario)
