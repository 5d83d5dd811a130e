"""One replica with a fake engine and no cluster: whose frame fails, and what the engine gets to see."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from ray.exceptions import ObjectLostError, OwnerDiedError, RayTaskError
from router_world import PATIENCE_S, Clock
from serve_samples import HD, PORTRAIT, UHD, VGA, sample_plan

from engines.cpu_device import CpuDevice
from engines.device_facts import DeviceFacts
from engines.errors import CanvasError, DeviceError, DeviceLostError, EngineMemoryError
from engines.fake import FakeEngine
from engines.spec import CanvasShape, WarmShape
from engines.tiles import Window
from serve_app import direct_calls, engine_replica
from serve_app.credit_grants import CreditUse
from serve_app.engine_replica import STUCK_FLOOR_S, EngineReplica
from serve_app.errors import FrameFailedError, FramelaneError, FrameLostError, InvalidFrameError, ReplicaLeavingError
from serve_app.plan import Bucket, Limits, Pool, Runtime
from serve_app.pool_engines import PoolEngines
from serve_app.results import BatchReply, BatchRequest, ReplicaReport

VGA_HW = (480, 640)


class BrokenEngine(FakeEngine):
    """A fake engine whose next call raises what the test says."""

    error: Exception | None = None

    def infer(self, batch_nhwc):
        """See `Engine.infer`."""
        if self.error is not None:
            raise self.error
        return super().infer(batch_nhwc)


FACTS = DeviceFacts("a device", None, None, None, 70, 7, 63, None, None, None, None)


class AskedDevice:
    """A device that says what the test wants."""

    error: Exception | None = None

    def facts(self):
        """See `Device.facts`."""
        if self.error is not None:
            raise self.error
        return FACTS

    def close(self):
        """Nothing is held."""


def each(make):
    """Engines of a pool that this makes one by one, with nothing to close."""

    def make_engines(plan, pool):
        return PoolEngines({bucket.name: make() for bucket in plan.buckets_of(pool)}, CpuDevice(), lambda: None)

    return make_engines


class Bench:
    """A replica of one pool, and the fake engines that it made; their calls while it warmed are forgotten."""

    def __init__(self, pool: str = "near", **changes):
        self.engines: dict[str, BrokenEngine] = {}
        self.device = AskedDevice()
        self.replica = EngineReplica(sample_plan(**changes), pool, self._make)
        for engine in self.engines.values():
            engine.infer_calls.clear()

    def _make(self, plan, pool) -> PoolEngines:
        self.engines = {bucket.name: BrokenEngine({}, lambda _: None) for bucket in plan.buckets_of(pool)}
        return PoolEngines(self.engines, self.device, lambda: None)

    def infer(self, *pixels, **request) -> BatchReply:
        """Answer a batch whose refs give these arrays, raise these errors, or (None) never come."""

        async def call():
            return await self.replica.infer(request_for(len(pixels), **request), refs_to(*pixels))

        return asyncio.run(call())


def request_for(
    num_pieces: int, *, sizes_hw=None, windows=None, bucket="vga", canvas=VGA, urgent=False
) -> BatchRequest:
    """Whole VGA frames, unless the test says otherwise."""
    return BatchRequest(
        bucket, canvas, urgent, tuple(sizes_hw or [VGA_HW] * num_pieces), tuple(windows or [None] * num_pieces)
    )


def refs_to(*pixels) -> list[asyncio.Future]:
    """Refs that give these arrays, raise these errors, or (None) never come."""
    refs = [asyncio.get_running_loop().create_future() for _ in pixels]
    for ref, value in zip(refs, pixels, strict=True):
        if isinstance(value, Exception):
            ref.set_exception(value)
        elif value is not None:
            ref.set_result(value)
    return refs


ACTOR = object()


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    """The replica asks Ray who and where it is; this answers."""
    context = SimpleNamespace(
        get_node_id=lambda: "node0123456789", get_actor_id=lambda: "actor012345678", current_actor=ACTOR
    )
    for module in (engine_replica, direct_calls):
        monkeypatch.setattr(module, "ray", SimpleNamespace(get_runtime_context=lambda: context))


@pytest.fixture
def bench():
    """A replica of the near pool; its threads end with the test."""
    made = Bench()
    yield made
    made.replica._engine_thread.shutdown()
    made.replica._placing_thread.shutdown()


def grey(level: int, size_hw=VGA_HW):
    """A frame of one brightness, which the fake engine answers as a score."""
    return np.full((*size_hw, 3), level, np.uint8)


def brief(reply: BatchReply):
    """For each frame its score and names, or the type of its error."""
    return [
        type(frame) if isinstance(frame, FramelaneError) else (round(float(frame[0].scores[0]), 2), frame[1])
        for frame in reply.frames
    ]


def test_each_frame_of_a_batch_gets_its_own_boxes(bench):
    """In the order of the refs, in px of the frame itself."""
    reply = bench.infer(grey(51), grey(102), grey(255), grey(0))

    assert brief(reply) == [(0.2, ("thing",)), (0.4, ("thing",)), (1.0, ("thing",)), (0.0, ("thing",))]
    assert [frame[0].boxes_xyxy.tolist() for frame in reply.frames] == [[[160, 120, 480, 360]]] * 4
    assert bench.engines["vga"].infer_calls == [WarmShape(VGA, 4)]
    assert bench.engines["hd"].infer_calls == []


def test_boxes_are_in_px_of_frames_that_were_scaled_and_padded(bench):
    """A frame of half the size on the same canvas: its boxes are its own."""
    reply = bench.infer(grey(255, (240, 320)), grey(255, (360, 640)), sizes_hw=[(240, 320), (360, 640)])

    assert [frame[0].boxes_xyxy.tolist() for frame in reply.frames] == [[[80, 60, 240, 180]], [[160, 60, 480, 300]]]
    assert bench.engines["vga"].infer_calls == [WarmShape(VGA, 2)]


def test_each_bucket_has_its_engine_and_each_canvas_its_shape(bench):
    """Batches go to the engine of their bucket."""
    bench.infer(grey(9, (640, 480)), sizes_hw=[(640, 480)], canvas=PORTRAIT)
    bench.infer(grey(9, (720, 1280)), sizes_hw=[(720, 1280)], bucket="hd", canvas=HD)

    assert bench.engines["vga"].infer_calls == [WarmShape(PORTRAIT, 1)]
    assert bench.engines["hd"].infer_calls == [WarmShape(HD, 1)]


LOST = "frame: its pixels cannot be fetched ({}); keep the sending process alive"


@pytest.mark.parametrize(
    ("spoilt", "error", "message"),
    [
        (
            grey(1, (480, 641)),
            InvalidFrameError,
            "frame: got 480×641 px, announced were 480×640 px; send the array's own size",
        ),
        (
            grey(1, (640, 480)),
            InvalidFrameError,
            "frame: got 640×480 px, announced were 480×640 px; send the array's own size",
        ),
        (np.zeros(VGA_HW, np.uint8), InvalidFrameError, "frame: got grey 480×640, allowed is"),
        (np.zeros((*VGA_HW, 3), np.float32), InvalidFrameError, "frame: got dtype float32"),
        (np.zeros((0, 640, 3), np.uint8), InvalidFrameError, "frame: got 0×640 px"),
        ("no array", InvalidFrameError, "frame: got str, allowed is"),
        (ObjectLostError("ab" * 28, None, ""), FrameLostError, LOST.format("ObjectLostError")),
        (OwnerDiedError("ab" * 28, None, ""), FrameLostError, LOST.format("OwnerDiedError")),
        (RayTaskError("grab", "trace", ValueError("camera")), FrameLostError, LOST.format("RayTaskError")),
    ],
    ids=["wider", "turned", "grey", "float", "empty", "text", "lost", "owner died", "task failed"],
)
@pytest.mark.parametrize("slot", [0, 1, 3])
def test_a_spoilt_frame_fails_alone(bench, spoilt, error, message, slot):
    """Its neighbours are answered, each with its own, and the engine sees the batch size that was warmed."""
    pixels = [grey(51), grey(102), grey(153), grey(204)]
    expected = [(score, ("thing",)) for score in (0.2, 0.4, 0.6, 0.8)]
    pixels[slot], expected[slot] = spoilt, error

    reply = bench.infer(*pixels)

    assert brief(reply) == expected
    assert str(reply.frames[slot]).startswith(message)
    assert bench.engines["vga"].infer_calls == [WarmShape(VGA, 4)]


def test_a_batch_of_spoilt_frames_is_answered(bench):
    """Nothing is left to detect on; every frame has its error."""
    reply = bench.infer(np.zeros(3), ObjectLostError("ab" * 28, None, ""))

    assert brief(reply) == [InvalidFrameError, FrameLostError]


def test_a_single_spoilt_frame_is_answered(bench):
    """A batch of one, which is otherwise placed without a copy."""
    assert brief(bench.infer("no array")) == [InvalidFrameError]
    assert brief(bench.infer(grey(51))) == [(0.2, ("thing",))]


def test_the_plan_limits_what_is_fetched():
    """A frame of more pixels than the plan allows is refused here too, whatever was announced."""
    bench = Bench(limits=Limits(max_frame_px=480 * 640))

    reply = bench.infer(grey(51), grey(51, (481, 640)), sizes_hw=[VGA_HW, (481, 640)])

    assert brief(reply) == [(0.2, ("thing",)), InvalidFrameError]
    assert "307,840 in all, allowed are 307,200" in str(reply.frames[1])


def test_a_frame_that_never_arrives_is_lost_alone(bench, monkeypatch):
    """A dead owner or a cut network delays its batch by a bounded time and takes no neighbour along."""
    monkeypatch.setattr(engine_replica, "MAX_FETCH_S", 0.02)

    reply = bench.infer(grey(51), None)

    assert brief(reply) == [(0.2, ("thing",)), FrameLostError]
    assert str(reply.frames[1]) == LOST.format("no answer in 0 s")
    assert reply.fetch_s >= 0.02
    assert bench.engines["vga"].infer_calls == [WarmShape(VGA, 2)]


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (EngineMemoryError("batch 2 on 480x640: out of memory"), "batch 2 on 480x640: out of memory"),
        (RuntimeError("driver gone"), "RuntimeError: driver gone"),
        (KeyError("x"), "KeyError: 'x'"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_engine_that_raises_fails_the_frames_of_its_batch(bench, raised, message, caplog):
    """Each with the engine's words; a frame that was spoilt before keeps its own error; the next batch is served."""
    bench.engines["vga"].error = raised
    with caplog.at_level(logging.ERROR):
        reply = bench.infer(grey(51), "no array", grey(51), grey(51))

    assert brief(reply) == [FrameFailedError, InvalidFrameError, FrameFailedError, FrameFailedError]
    assert {str(reply.frames[slot]) for slot in (0, 2, 3)} == {f"engine of bucket vga: {message}"}
    assert caplog.messages == ["replica near-actor012: batch of bucket vga failed"]

    bench.engines["vga"].error = None
    assert brief(bench.infer(grey(51))) == [(0.2, ("thing",))]


@pytest.mark.parametrize(
    ("bucket", "num_frames"), [("vga", 3), ("uhd", 1)], ids=["a batch size not warmed", "another pool's bucket"]
)
def test_a_batch_that_this_replica_cannot_run_fails_as_an_answer(bench, bucket, num_frames):
    """A router with another plan gets errors, not a dead replica."""
    reply = bench.infer(*(grey(51) for _ in range(num_frames)), bucket=bucket)

    assert brief(reply) == [FrameFailedError] * num_frames


def test_durations_are_never_negative(bench):
    """They are differences of one monotonic clock, for good batches and for failed ones."""
    good = bench.infer(grey(51), grey(51))
    bench.engines["vga"].error = RuntimeError("no")
    bad = bench.infer(grey(51), "no array")

    for reply in (good, bad):
        assert reply.replica == "near-actor012"
        stages_s = (reply.fetch_s, reply.preprocess_s, reply.staged_s, reply.infer_s, reply.postprocess_s)
        assert min(stages_s) >= 0
    assert bad.infer_s == 0


def test_two_batches_at_once_are_both_answered(bench):
    """While one runs the other is fetched and placed; the engine sees one after the other."""

    async def both():
        refs = [[asyncio.get_running_loop().create_future()] for _ in range(2)]
        calls = [asyncio.create_task(bench.replica.infer(request_for(1), each)) for each in refs]
        refs[1][0].set_result(grey(102))
        second = await calls[1]
        refs[0][0].set_result(grey(51))
        return await calls[0], second

    first, second = asyncio.run(both())

    assert (brief(first), brief(second)) == ([(0.2, ("thing",))], [(0.4, ("thing",))])
    assert bench.engines["vga"].infer_calls == [WarmShape(VGA, 1)] * 2


class GatedEngine(FakeEngine):
    """A fake engine of which each batch tells that it runs, by its first frame's grey level, and waits to go on."""

    def __init__(self):
        super().__init__({}, lambda _: None)
        self.is_gated = False
        self.running: queue.Queue[int] = queue.Queue()
        self.gate: queue.Queue[None] = queue.Queue()

    def infer(self, batch_nhwc):
        """See `Engine.infer`."""
        if self.is_gated:
            self.running.put(int(batch_nhwc[0].mean()))
            self.gate.get(timeout=PATIENCE_S)
        return super().infer(batch_nhwc)


class GatedReplica:
    """A replica whose engine does one batch when the test lets it; `runs` and `finish` never sleep."""

    def __init__(self, engine=None, runtime=Runtime.ONNX):
        self.engine = engine or GatedEngine()
        pools = (Pool("near", num_gpus=1.0, runtime=runtime),)
        buckets = (Bucket("vga", "full", "near", (VGA,), (1, 2)),)
        self.replica = EngineReplica(sample_plan(pools=pools, buckets=buckets), "near", each(lambda: self.engine))
        self.engine.is_gated = True
        self.calls: dict[int, asyncio.Task[BatchReply]] = {}

    def send(self, level: int, *, urgent: bool = False) -> None:
        """A batch of one frame of this grey level."""
        call = self.replica.infer(request_for(1, urgent=urgent), refs_to(grey(level)))
        self.calls[level] = asyncio.get_running_loop().create_task(call)

    async def staged(self, num_batches: int) -> None:
        """Let the replica go on until so many batches wait for the device: no thread and no clock are in between."""
        for _ in range(200):
            if len(self.replica._turns) == num_batches:
                return
            await asyncio.sleep(0)
        pytest.fail(f"{len(self.replica._turns)} batches wait for the device, not {num_batches}")

    async def runs(self) -> int:
        """The grey level of the batch that the device has now."""
        return await asyncio.to_thread(self.engine.running.get, timeout=PATIENCE_S)

    def finish(self) -> None:
        """Let the running batch end."""
        self.engine.gate.put(None)

    async def order(self, num_batches: int) -> list[int]:
        """Let so many batches run to their end, one after the other."""
        order = []
        for _ in range(num_batches):
            order.append(await self.runs())
            self.finish()
        await asyncio.gather(*self.calls.values(), return_exceptions=True)
        return order

    def close(self) -> None:
        """End the threads."""
        self.replica._engine_thread.shutdown()
        self.replica._placing_thread.shutdown()


def play_gated(scenario) -> None:
    """Run a scenario with a gated replica."""
    gated = GatedReplica()

    loop_errors = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: loop_errors.append(context))
        await asyncio.wait_for(scenario(gated), PATIENCE_S)

    try:
        asyncio.run(main())
        assert (len(gated.replica._turns), loop_errors) == (0, [])
    finally:
        gated.close()


def test_an_urgent_batch_overtakes_the_staged_ones_but_not_the_running_one():
    """It waits for one batch only; the others keep their order, and each gets its own answer."""

    async def scenario(gated):
        gated.send(10)
        assert await gated.runs() == 10
        for level, urgent in ((20, False), (30, False), (40, True), (50, True)):
            gated.send(level, urgent=urgent)
            await gated.staged(len(gated.calls) - 1)
        assert not any(call.done() for call in gated.calls.values())
        gated.finish()
        assert await gated.order(4) == [40, 50, 20, 30]
        for level, call in gated.calls.items():
            assert brief(await call) == [(round(level / 255, 2), ("thing",))]

    play_gated(scenario)


def test_batches_that_are_not_urgent_run_in_the_order_in_which_they_were_ready():
    """First come, first served."""

    async def scenario(gated):
        gated.send(10)
        assert await gated.runs() == 10
        for number, level in enumerate((20, 30, 40), 1):
            gated.send(level)
            await gated.staged(number)
        gated.finish()
        assert await gated.order(3) == [20, 30, 40]

    play_gated(scenario)


def test_a_staged_batch_whose_router_has_gone_is_not_run():
    """A cancelled call frees its turn; those behind it are answered."""

    async def scenario(gated):
        gated.send(10)
        assert await gated.runs() == 10
        for number, level in enumerate((20, 30), 1):
            gated.send(level)
            await gated.staged(number)
        gated.calls[20].cancel()
        await asyncio.gather(gated.calls[20], return_exceptions=True)
        gated.finish()
        assert await gated.order(1) == [30]
        assert [call.cancelled() for call in gated.calls.values()] == [False, True, False]

    play_gated(scenario)


def test_a_running_batch_whose_router_has_gone_does_not_stop_the_next():
    """Its answer is nobody's; the device is free for the others."""

    async def scenario(gated):
        gated.send(10)
        assert await gated.runs() == 10
        gated.send(20)
        await gated.staged(1)
        gated.calls[10].cancel()
        await asyncio.gather(gated.calls[10], return_exceptions=True)
        gated.finish()
        assert await gated.order(1) == [20]
        assert brief(await gated.calls[20]) == [(0.08, ("thing",))]

    play_gated(scenario)


def test_a_large_batch_is_placed_beside_the_running_one(bench):
    """Above `INLINE_PLACING_PX` by a thread of its own: the answer is the same."""
    assert HD.num_px * 2 > engine_replica.INLINE_PLACING_PX >= VGA.num_px
    reply = bench.infer(
        grey(51, (720, 1280)), grey(102, (720, 1280)), sizes_hw=[(720, 1280)] * 2, bucket="hd", canvas=HD
    )
    # The canvas is 16 px higher than the frame, and grey there.
    assert [round(frame[0].scores[0].item(), 2) for frame in reply.frames] == [0.21, 0.4]


WIDE_HW = (480, 1200)


def wide_frame():
    """A frame whose left and right halves, 600 px each, are of two brightnesses."""
    return np.concatenate([grey(51, (480, 600)), grey(204, (480, 600))], axis=1)


def test_a_tile_is_the_part_of_its_frame_that_its_window_says(bench):
    """Two tiles of one frame and a whole one in a batch: each sees its own pixels, boxes are in px of the piece."""
    frame = wide_frame()
    reply = bench.infer(
        frame, frame, grey(255), grey(0),
        sizes_hw=[WIDE_HW, WIDE_HW, VGA_HW, VGA_HW],
        windows=[Window(0, 0, 480, 600), Window(0, 600, 480, 600), None, None],
    )  # fmt: skip
    scores = [frame[0].scores[0].item() for frame in reply.frames]
    fill = 114 * 40 / 640  # the windows are 600 px wide, the canvas 640: the rest is filled
    assert scores == pytest.approx([(51 * 600 / 640 + fill) / 255, (204 * 600 / 640 + fill) / 255, 1.0, 0.0], abs=1e-3)
    # The fake engine's box is the middle of the canvas, 160 to 480 px; the piece begins at 20.
    assert [frame[0].boxes_xyxy.tolist() for frame in reply.frames] == [
        [[140, 120, 460, 360]], [[140, 120, 460, 360]], [[160, 120, 480, 360]], [[160, 120, 480, 360]]
    ]  # fmt: skip


def test_a_lost_frame_fails_each_of_its_tiles_and_no_other(bench):
    """The announced size is the frame's, not the window's."""
    lost = ObjectLostError("ab" * 28, None, "")
    windows = [Window(0, 0, 480, 600), None]
    reply = bench.infer(lost, grey(102), sizes_hw=[WIDE_HW, VGA_HW], windows=windows)
    assert brief(reply) == [FrameLostError, (0.4, ("thing",))]

    reply = bench.infer(wide_frame(), grey(102), sizes_hw=[(480, 600), VGA_HW], windows=windows)
    assert brief(reply) == [InvalidFrameError, (0.4, ("thing",))]
    assert "got 480×1200 px, announced were 480×600 px" in str(reply.frames[0])


def test_of_each_warmed_shape_the_shortest_run_is_reported(monkeypatch):
    """What the router begins with: seconds of a batch on the warm engine, without the stalls of a start."""
    clock = Clock()
    monkeypatch.setattr(engine_replica, "time", clock)
    latency_s = {WarmShape(VGA, 1): 0.5, WarmShape(VGA, 2): 0.75, WarmShape(HD, 1): 2.0}

    class SlowToWarm(FakeEngine):
        def warm(self, shapes):
            clock.pass_s(30.0)
            super().warm(shapes)

        def infer(self, batch_nhwc):
            if self.num_stalls:
                self.num_stalls -= 1
                clock.pass_s(5.0)
            return super().infer(batch_nhwc)

        num_stalls = 2

    buckets = (Bucket("vga", "full", "near", (VGA,), (1, 2)), Bucket("hd", "full", "near", (HD,), (1,)))
    plan = sample_plan(pools=(Pool("near"),), buckets=buckets)
    replica = EngineReplica(plan, "near", each(lambda: SlowToWarm(latency_s, clock.pass_s)))
    report, _ = asyncio.run(replica.report())

    assert report.latencies == (
        ("vga", WarmShape(VGA, 1), 0.5), ("vga", WarmShape(VGA, 2), 0.75), ("hd", WarmShape(HD, 1), 2.0)
    )  # fmt: skip
    assert (report.warm_s, report.num_batches) == (2 * 30.0 + 3 * 3.25 + 2 * 2 * 5.0, 0)


def test_the_stages_of_a_batch_are_told_apart(monkeypatch):
    """On a clock that passes in the engine only: that time is the device's, and nobody else's."""
    clock = Clock()
    buckets = (Bucket("vga", "full", "near", (VGA,), (1,)),)
    plan = sample_plan(pools=(Pool("near"),), buckets=buckets)
    replica = EngineReplica(plan, "near", each(lambda: FakeEngine({WarmShape(VGA, 1): 0.5}, clock.pass_s)))
    monkeypatch.setattr(engine_replica, "time", clock)

    async def call():
        return await replica.infer(request_for(1), refs_to(grey(51)))

    reply = asyncio.run(call())
    stages_s = (reply.fetch_s, reply.preprocess_s, reply.staged_s, reply.infer_s, reply.postprocess_s)
    assert stages_s == (0.0, 0.0, 0.0, 0.5, 0.0)


def test_a_batch_of_lost_frames_only_never_reaches_the_engine(bench):
    """Other cameras' frames must not wait behind the inference of grey."""
    reply = bench.infer("no array", ObjectLostError("ref", None, "site"))
    assert [type(frame) for frame in reply.frames] == [InvalidFrameError, FrameLostError]
    assert bench.engines["vga"].infer_calls == []


def test_a_replica_reports_itself(bench):
    """Its name and machine, what it has done, its device's memory, and its actor for direct calls."""
    bench.infer(grey(51))
    bench.infer("no array")

    report, actor = asyncio.run(bench.replica.report())

    assert actor is ACTOR
    assert report == ReplicaReport(
        replica="near-actor012",
        node="node0123",
        num_batches=2,
        warm_s=report.warm_s,
        device=FACTS,
        latencies=report.latencies,
        credits=CreditUse(1, 2, 1, 0, 2),
        up_s=report.up_s,
    )
    assert report.up_s >= report.warm_s
    assert report.warm_s >= 0
    assert [entry[:2] for entry in report.latencies] == [
        *(("vga", WarmShape(canvas, batch)) for canvas in (VGA, PORTRAIT) for batch in (1, 2, 4)),
        *(("hd", WarmShape(HD, batch)) for batch in (1, 2)),
    ]
    assert min(seconds for *_, seconds in report.latencies) >= 0


def test_every_engine_of_the_pool_is_warm_when_the_replica_is_ready():
    """And none of another pool is loaded."""
    bench = Bench("near")

    assert {name: engine._warm for name, engine in bench.engines.items()} == {
        "vga": {WarmShape(canvas, batch) for canvas in (VGA, PORTRAIT) for batch in (1, 2, 4)},
        "hd": {WarmShape(HD, 1), WarmShape(HD, 2)},
    }
    assert list(Bench("far").engines) == ["uhd"]


def test_a_replica_whose_engine_cannot_take_a_canvas_does_not_start():
    """The error names the canvas; Serve shows it as the reason."""
    odd = Bucket("odd", "full", "near", (CanvasShape(481, 640),), (1,))

    with pytest.raises(CanvasError, match="canvas 481x640"):
        Bench("near", buckets=(odd,), pools=(Pool("near"),))


def test_a_frame_larger_than_its_canvas_is_shrunk(bench):
    """A 4k frame on the largest canvas of the far pool; its boxes are in its own px."""
    far = Bench("far")
    reply = far.infer(grey(255, (2176, 3840)), sizes_hw=[(2176, 3840)], bucket="uhd", canvas=UHD)

    assert reply.frames[0][0].boxes_xyxy.tolist() == [[960, 544, 2880, 1632]]
    assert bench.engines["vga"].infer_calls == []


def test_a_lost_device_ends_the_replica_and_not_its_callers():
    """The batch that found out fails with the reason; then the replica neither reports nor passes its health check."""
    bench = Bench()
    bench.replica.check_health()
    bench.engines["vga"].error = DeviceLostError("GPU: fell off the bus")

    reply = bench.infer(grey(51))

    assert isinstance(reply.frames[0], FrameFailedError)
    assert "fell off the bus" in str(reply.frames[0])
    with pytest.raises(DeviceLostError, match="fell off the bus"):
        bench.replica.check_health()
    with pytest.raises(DeviceLostError, match="fell off the bus"):
        asyncio.run(bench.replica.report())


def test_a_device_that_cannot_be_asked_does_not_cost_the_replica_its_frames(bench, caplog):
    """In a container NVML may stop to answer while the GPU computes on; what it said last is reported, told once."""
    bench.device.error = DeviceError("nvmlDeviceGetMemoryInfo: NVML answers Unknown Error (999)")

    with caplog.at_level(logging.WARNING):
        reports = [asyncio.run(bench.replica.report())[0] for _ in range(2)]

    assert [report.device for report in reports] == [FACTS] * 2
    assert [record.message.count("Unknown Error") for record in caplog.records] == [1]
    bench.replica.check_health()


def test_a_device_that_is_found_lost_when_it_is_asked_ends_the_replica(bench):
    """NVML may notice it before any batch does; Serve replaces what does not pass its health check."""
    bench.device.error = DeviceLostError("nvmlDeviceGetMemoryInfo: the GPU fell off the bus")

    with pytest.raises(DeviceLostError, match="fell off the bus"):
        asyncio.run(bench.replica.report())
    with pytest.raises(DeviceLostError, match="fell off the bus"):
        bench.replica.check_health()


def test_a_replica_whose_engine_is_stuck_says_so_and_is_to_be_replaced(monkeypatch):
    """After many times what the batch takes by rights, and at least ten seconds; a report says how long it has run."""
    clock = Clock()
    monkeypatch.setattr(engine_replica, "time", clock)
    gate = threading.Event()
    engine = FakeEngine({}, lambda _: None)
    replica = EngineReplica(sample_plan(), "near", each(lambda: engine))
    began = threading.Event()

    def hang(_seconds):
        began.set()
        gate.wait(PATIENCE_S)

    engine._sleep = hang

    async def scenario():
        running = asyncio.create_task(replica.infer(request_for(1), refs_to(grey(51))))
        assert await asyncio.to_thread(began.wait, PATIENCE_S)
        clock.pass_s(STUCK_FLOOR_S)
        replica.check_health()
        assert (await replica.own_report()).busy_s == pytest.approx(STUCK_FLOOR_S)
        clock.pass_s(0.1)
        with pytest.raises(DeviceLostError, match="has been running one batch for 10 s"):
            replica.check_health()
        staged = asyncio.create_task(replica.infer(request_for(1), refs_to(grey(52))))
        while not len(replica._turns):  # noqa: ASYNC110 — it says nothing of itself
            await asyncio.sleep(0)
        with pytest.raises(DeviceLostError, match="is to be replaced"):
            await replica.own_report()
        for reply in (await running, await staged):  # while the engine still hangs
            assert "has been running one batch for 10 s" in str(reply.frames[0])
        gate.set()
        await asyncio.to_thread(replica._engine_thread.submit(lambda: None).result)
        await asyncio.sleep(0)
        assert (await replica.own_report()).busy_s == 0.0
        replica.check_health()

    engine.infer_calls.clear()
    asyncio.run(scenario())
    replica._engine_thread.shutdown()
    replica._placing_thread.shutdown()


def test_a_replica_that_serve_stops_refuses_what_comes_late(bench):
    """The refusal says that nothing was begun, so that it costs the frame no attempt; it reports no more either."""
    bench.replica.__del__()

    with pytest.raises(ReplicaLeavingError, match="is about to leave"):
        bench.infer(grey(51))
    with pytest.raises(ReplicaLeavingError, match="is about to leave"):
        asyncio.run(bench.replica.own_report())
    assert bench.engines["vga"].infer_calls == []


def test_a_probe_is_the_quickest_batch_of_grey(bench):
    """It says what ran and how long; no frame is risked."""
    bucket, shape, took_s = asyncio.run(bench.replica.probe())

    assert [shape] == bench.engines[bucket].infer_calls
    assert 0 <= took_s < PATIENCE_S


def test_a_replica_that_is_told_to_end_fails_its_health_checks(bench):
    """So that Serve replaces it; the reason stands in Serve's log."""
    asyncio.run(bench.replica.retire("it is slow"))

    with pytest.raises(DeviceLostError, match="is to be replaced: it is slow"):
        bench.replica.check_health()


class StagingEngine(GatedEngine):
    """A gated engine that notes the grey level of what is staged."""

    def __init__(self):
        super().__init__()
        self.staged: queue.SimpleQueue[int] = queue.SimpleQueue()

    def stage(self, batch_nhwc):
        """See `Engine.stage`."""
        self.staged.put(int(batch_nhwc[0].mean()))


def test_the_next_batch_is_copied_to_a_gpu_while_another_one_runs():
    """Only the next one: of two that wait the critical one, though it came later; and nothing when nothing runs."""

    async def story():
        world = GatedReplica(StagingEngine(), Runtime.TENSORRT)
        staged = world.engine.staged
        world.send(10)
        assert await world.runs() == 10
        world.send(20)
        assert await asyncio.to_thread(staged.get, timeout=PATIENCE_S) == 20
        world.send(30, urgent=True)
        assert await asyncio.to_thread(staged.get, timeout=PATIENCE_S) == 30
        world.finish()
        assert await world.runs() == 30
        assert await asyncio.to_thread(staged.get, timeout=PATIENCE_S) == 20
        world.finish()
        assert await world.runs() == 20
        world.finish()
        await asyncio.gather(*world.calls.values())
        assert staged.empty()

    asyncio.run(story())


def test_nothing_is_copied_ahead_where_the_device_is_the_cpu():
    """It has no memory of its own, and a hop to another thread for nothing costs a tenth of a millisecond."""

    async def story():
        world = GatedReplica(StagingEngine(), Runtime.ONNX)
        world.send(10)
        assert await world.runs() == 10
        world.send(20)
        await world.staged(1)
        for _ in range(2):
            world.finish()
        await asyncio.gather(*world.calls.values())
        assert world.engine.staged.empty()

    asyncio.run(story())


def test_a_device_without_memory_for_a_batch_is_told_apart_from_a_failure():
    """The router can do something about it; the replica goes on."""
    bench = Bench()
    bench.engines["vga"].error = EngineMemoryError("no room")
    assert bench.infer(grey(51), grey(51)).out_of_memory
    bench.engines["vga"].error = ValueError("a bug")
    assert not bench.infer(grey(51), grey(51)).out_of_memory
    bench.engines["vga"].error = None
    assert not bench.infer(grey(51), grey(51)).out_of_memory
    bench.replica.check_health()
