"""One replica with a fake engine and no cluster: whose frame fails, and what the engine gets to see."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace

import numpy as np
import pytest
from ray.exceptions import ObjectLostError, OwnerDiedError, RayTaskError
from serve_samples import HD, PORTRAIT, UHD, VGA, sample_plan

from engines.base import EngineMemory
from engines.errors import CanvasError, EngineMemoryError
from engines.fake import FakeEngine
from engines.spec import CanvasShape, WarmShape
from serve_app import engine_replica
from serve_app.engine_replica import EngineReplica
from serve_app.errors import FrameFailedError, FramelaneError, FrameLostError, InvalidFrameError
from serve_app.plan import Bucket, Limits, Pool
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

    def memory(self):
        """Something is held."""
        return EngineMemory(7, 70)


class Bench:
    """A replica of one pool, and the fake engines that it made."""

    def __init__(self, pool: str = "near", **changes):
        self.engines: dict[str, BrokenEngine] = {}
        self.replica = EngineReplica(sample_plan(**changes), pool, self._make)

    def _make(self, bucket: Bucket, _plan) -> BrokenEngine:
        self.engines[bucket.name] = BrokenEngine({}, lambda _: None)
        return self.engines[bucket.name]

    def infer(self, *pixels, sizes_hw=None, bucket: str = "vga", canvas: CanvasShape = VGA) -> BatchReply:
        """Answer a batch whose refs give these arrays, raise these errors, or (None) never come."""
        request = BatchRequest(bucket, canvas, tuple(sizes_hw or [VGA_HW] * len(pixels)))

        async def call():
            refs = [asyncio.get_running_loop().create_future() for _ in pixels]
            for ref, value in zip(refs, pixels, strict=True):
                if isinstance(value, Exception):
                    ref.set_exception(value)
                elif value is not None:
                    ref.set_result(value)
            return await self.replica.infer(request, refs)

        return asyncio.run(call())


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    """The replica asks Ray who and where it is; this answers."""
    context = SimpleNamespace(get_node_id=lambda: "node0123456789", get_actor_id=lambda: "actor012345678")
    monkeypatch.setattr(engine_replica, "ray", SimpleNamespace(get_runtime_context=lambda: context))


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
    request = BatchRequest("vga", VGA, (VGA_HW,))

    async def both():
        refs = [[asyncio.get_running_loop().create_future()] for _ in range(2)]
        calls = [asyncio.create_task(bench.replica.infer(request, each)) for each in refs]
        refs[1][0].set_result(grey(102))
        second = await calls[1]
        refs[0][0].set_result(grey(51))
        return await calls[0], second

    first, second = asyncio.run(both())

    assert (brief(first), brief(second)) == ([(0.2, ("thing",))], [(0.4, ("thing",))])
    assert bench.engines["vga"].infer_calls == [WarmShape(VGA, 1)] * 2


def test_a_batch_of_lost_frames_only_never_reaches_the_engine(bench):
    """Other cameras' frames must not wait behind the inference of grey."""
    reply = bench.infer("no array", ObjectLostError("ref", None, "site"))
    assert [type(frame) for frame in reply.frames] == [InvalidFrameError, FrameLostError]
    assert bench.engines["vga"].infer_calls == []


def test_a_replica_reports_itself(bench):
    """Its name and machine, what it has done, and its device's memory."""
    bench.infer(grey(51))
    bench.infer("no array")

    report = asyncio.run(bench.replica.report())

    assert report == ReplicaReport(
        replica="near-actor012",
        node="node0123",
        num_batches=2,
        warm_s=report.warm_s,
        used_bytes=7,
        total_bytes=70,
    )
    assert report.warm_s >= 0


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
