"""Frames through the real service: right boxes, one call a batch, nothing left behind, errors that arrive whole."""

from __future__ import annotations

import asyncio
import time
import uuid

import numpy as np
import pytest
import ray
from service_world import frames_in_store

from engines.detector import detect_placed, place_batch
from engines.spec import CanvasShape, WarmShape
from framelane_inspection.scenes import draw_scene
from serve_app.errors import FrameExpiredError, FramelaneError, FrameLostError, InvalidFrameError
from serve_app.frames import FrameMeta
from serve_app.verdicts import Outcome

pytestmark = [
    # Ray 2.60 leaves sockets, files and processes to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def meta_of(image_hwc, **changes):
    """What a client would say of this frame."""
    values = {"frame_id": uuid.uuid4().hex, "camera": "raw", "size_hw": image_hwc.shape[:2], "priority": "normal"}
    return FrameMeta(**(values | changes))


def is_lost(ref):
    """Whether the store has noticed that the owner of an object died."""
    try:
        ray.get(ref, timeout=30)
    except ray.exceptions.OwnerDiedError:
        return True
    return False


def test_the_service_gives_the_boxes_of_the_bare_engine(service, engine, scene_hwc):
    """Between client and engine nothing changes a frame or its boxes."""
    canvas = CanvasShape(480, 640)
    engine.warm([WarmShape(canvas, 1)])
    expected = detect_placed(engine, place_batch([scene_hwc], canvas)).detections[0]

    result = service.client.detect(scene_hwc, camera="same")

    assert len(expected) > 5
    np.testing.assert_array_equal(result.detections.boxes_xyxy, expected.boxes_xyxy)
    np.testing.assert_array_equal(result.detections.scores, expected.scores)
    assert result.class_names == tuple(engine.model.class_names[i] for i in expected.class_ids)


@pytest.mark.parametrize(
    ("size_hw", "canvas"),
    [((480, 640), (480, 640)), ((640, 480), (640, 480)), ((360, 640), (384, 640)), ((1080, 1920), (384, 640))],
    ids=["native", "transposed", "next larger", "larger than all"],
)
def test_every_frame_goes_to_the_canvas_of_its_own_size(service, size_hw, canvas):
    """The canvas that wastes the fewest padded pixels; beyond the largest, the one that keeps most resolution."""
    result = service.client.detect(draw_scene(size_hw, seed=1).image_hwc, camera="sizes")
    assert result.canvas == canvas
    height, width = size_hw
    assert (result.detections.boxes_xyxy <= [width, height, width, height]).all()


def test_frames_of_one_call_come_back_in_their_order(service):
    """Frames of different sizes in one call: each result belongs to its frame."""
    sizes = [(480, 640), (640, 480), (384, 640), (480, 640), (100, 200)]
    results = service.client.detect_many([draw_scene(size, seed=2).image_hwc for size in sizes], camera="many")
    assert [result.size_hw for result in results] == sizes
    assert {result.outcome for result in results} == {Outcome.FINISHED}


def test_a_batch_is_one_call_to_the_replica(service, scene_hwc):
    """Frames that wait together travel together, and the replica counts exactly the batches of the log."""
    before = service.num_batches()
    results = service.client.detect_many([scene_hwc] * 16, camera="batches")
    assert 1 < max(result.batch_size for result in results) <= 4
    num_batches = sum(1 / record["batch_size"] for record in service.records_of("batches"))
    assert num_batches == pytest.approx(round(num_batches))
    assert service.num_batches() - before == round(num_batches) < 16


def test_a_frame_leaves_one_whole_record(service, scene_hwc):
    """Every field of the record, with stages that add up to the total."""
    result = service.client.detect(scene_hwc, camera="record", priority="critical", slo_s=20)
    (record,) = service.records_of("record")
    times = {key: record.pop(key) for key in list(record) if key.endswith("_ms")}
    assert record.pop("at_s") < time.monotonic()  # of the router, which runs on this machine
    replica = service.client.status().pools[0].replicas[0].replica
    assert record == {
        "frame_id": result.frame_id,
        "camera": "record",
        "source_hw": [480, 640],
        "canvas_hw": [480, 640],
        "bucket": "vga",
        "pool": "cpu",
        "replica": replica,
        "model": "light",
        "priority": "critical",
        "slo_s": 20.0,
        "verdict": "admit",
        "verdict_reason": "in time by prediction",
        "rung": 0,
        "num_tiles": 0,
        "batch_size": 1,
        "padding_fraction": 0.0,
        "num_detections": len(result.detections),
        "outcome": "finished",
        "error": None,
        "router": result.router,
    }
    total_ms = times.pop("total_ms")
    assert set(times) == {"queue_ms", "transfer_ms", "preprocess_ms", "infer_ms", "postprocess_ms"}
    assert min(times.values()) >= 0
    assert sum(times.values()) == pytest.approx(total_ms, abs=1.0)


def test_the_object_store_is_empty_when_all_frames_are_answered(service):
    """Neither router nor replica keeps a frame, be it answered, failed, refused or passed inline."""
    image_hwc = draw_scene((720, 1280), seed=4).image_hwc  # 2.6 MiB, so that a single one shows
    service.client.detect_many([image_hwc] * 20, camera="store")
    handle = service.client._handle
    handle.submit.remote(meta_of(image_hwc, size_hw=(100, 100)), [ray.put(image_hwc)]).result()
    handle.submit.remote(meta_of(image_hwc, priority="urgent"), [ray.put(image_hwc)]).result()
    handle.submit.remote(meta_of(image_hwc, slo_s=1e-9), [ray.put(image_hwc)]).result()
    handle.remote(image_hwc, camera="store").result()
    with pytest.raises(InvalidFrameError):
        handle.remote(image_hwc[..., 0], camera="store").result()
    assert frames_in_store() == set()


def test_a_bad_frame_fails_alone(service, scene_hwc):
    """In one batch: pixels of another size, grey, floats and a lie about nothing; their neighbours are answered."""
    small = draw_scene((240, 320), seed=3).image_hwc
    images = [scene_hwc, small, scene_hwc, scene_hwc[..., 0].copy(), scene_hwc, scene_hwc.astype(np.float32), scene_hwc]
    metas = [meta_of(scene_hwc, camera="neighbours") for _ in images]
    results = service.client._handle.submit_many.remote(metas, [ray.put(image) for image in images]).result()
    outcomes = [result.outcome for result in results]
    bad = [1, 3, 5]
    assert [i for i, outcome in enumerate(outcomes) if outcome is Outcome.FAILED] == bad
    assert [i for i, outcome in enumerate(outcomes) if outcome is Outcome.FINISHED] == [0, 2, 4, 6]
    assert "announced were 480×640" in str(results[1].error)
    assert "grey" in str(results[3].error)
    assert "float32" in str(results[5].error)
    counts = {len(results[i].detections) for i in (0, 2, 4, 6)}
    assert len(counts) == 1
    assert counts.pop() > 5


def test_a_frame_whose_owner_died_is_lost_alone(service, scene_hwc):
    """The object store frees what a dead process owned; the service says so and goes on."""

    @ray.remote(num_cpus=0)
    class Camera:
        def put(self, image_hwc):
            return [ray.put(image_hwc)]

    camera = Camera.remote()
    lost_ref = ray.get(camera.put.remote(scene_hwc))[0]
    ray.kill(camera)
    give_up_s = time.monotonic() + 60  # the store learns of the death after a while
    while not is_lost(lost_ref):
        assert time.monotonic() < give_up_s
        time.sleep(0.1)
    metas = [meta_of(scene_hwc, camera="orphan") for _ in range(2)]
    lost, kept = service.client._handle.submit_many.remote(metas, [lost_ref, ray.put(scene_hwc)]).result(timeout_s=60)
    assert isinstance(lost.error, FrameLostError)
    assert kept.outcome is Outcome.FINISHED


BAD_ARRAYS = {
    "wrong dtype": (np.zeros((480, 640, 3), np.float32), "dtype float32"),
    "wrong rank": (np.zeros((1, 480, 640, 3), np.uint8), "4 axes"),
    "empty": (np.zeros((0, 640, 3), np.uint8), "0×640"),
    "1x1": (np.zeros((1, 1, 3), np.uint8), "1×1"),
    "30000x30000": (np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (30_000, 30_000, 3)), "900,000,000"),
    "grey": (np.zeros((480, 640), np.uint8), "COLOR_GRAY2BGR"),
    "alpha": (np.zeros((480, 640, 4), np.uint8), "COLOR_BGRA2BGR"),
    "no array": ([[1, 2, 3]], "list"),
}


@pytest.mark.parametrize(("image", "word"), BAD_ARRAYS.values(), ids=BAD_ARRAYS.keys())
def test_a_bad_array_is_a_clear_error_and_the_service_goes_on(service, scene_hwc, image, word):
    """The client refuses it before anything is sent."""
    with pytest.raises(InvalidFrameError) as caught:
        service.client.detect(image)
    assert word in str(caught.value)
    assert "allowed" in str(caught.value)
    assert service.client.detect(scene_hwc).outcome is Outcome.FINISHED


@pytest.mark.parametrize(
    "view", [np.s_[::2, ::2], np.s_[::-1, ::-1], np.s_[:, :, ::-1]], ids=["strided", "turned", "rgb"]
)
def test_arrays_of_any_strides_are_served(service, scene_hwc, view):
    """A view is a frame like any other; its boxes are those of its copy."""
    view_hwc = scene_hwc[view]
    seen, copied = service.client.detect(view_hwc), service.client.detect(view_hwc.copy())
    np.testing.assert_array_equal(seen.detections.boxes_xyxy, copied.detections.boxes_xyxy)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"priority": "urgent"}, "'critical', 'normal'"),
        ({"slo_s": -0.5}, "deadline in the past"),
        ({"camera": ""}, "camera"),
    ],
    ids=["unknown priority", "deadline in the past", "no camera"],
)
def test_what_is_said_of_a_frame_is_checked(service, scene_hwc, options, word):
    """Priority, deadline and camera name; errors name what is allowed."""
    with pytest.raises(InvalidFrameError, match=word):
        service.client.detect(scene_hwc, **options)


def test_errors_survive_the_trip_through_ray(service, scene_hwc):
    """A plain handle call raises our own class, with its message and attributes."""
    with pytest.raises(InvalidFrameError) as caught:
        service.client._handle.remote(scene_hwc[..., 0], camera="plain").result()
    assert isinstance(caught.value, FramelaneError)
    assert "COLOR_GRAY2BGR" in str(caught.value)
    assert caught.value.retry_after_s is None


def test_a_plain_handle_call_needs_no_client_library(service, scene_hwc):
    """An upstream service passes a numpy array and gets a result."""
    result = service.client._handle.remote(scene_hwc, camera="plain", priority="critical", slo_s=30).result()
    assert result.outcome is Outcome.FINISHED
    assert result.priority == "critical"


def test_a_frame_that_cannot_start_in_time_expires(service, scene_hwc):
    """A deadline that passes while others run ends the wait; no device time is spent."""

    async def flood():
        calls = [service.client.submit_async(scene_hwc, camera="flood") for _ in range(12)]
        late = service.client.submit_async(scene_hwc, camera="late", slo_s=0.001)
        return await asyncio.gather(*calls, late)

    *flooded, late = asyncio.run(flood())
    assert {result.outcome for result in flooded} == {Outcome.FINISHED}
    assert late.outcome is Outcome.EXPIRED
    with pytest.raises(FrameExpiredError):
        late.unless_failed()


def test_critical_frames_pass_normal_ones(service, scene_hwc):
    """Behind a queue of normal frames, a critical one waits for the batches on the replica only."""

    async def race():
        normal = [asyncio.create_task(service.client.submit_async(scene_hwc, camera="race")) for _ in range(40)]
        await normal[0]
        critical = await service.client.submit_async(scene_hwc, camera="race", priority="critical")
        num_ahead = sum(task.done() for task in normal)
        await asyncio.gather(*normal)
        return critical, num_ahead

    critical, num_ahead = asyncio.run(race())
    assert critical.outcome is Outcome.FINISHED
    assert num_ahead < 40 - 4


def test_cancelling_one_caller_leaves_the_others_answered(service, scene_hwc):
    """The first test of any batcher: cancel one of three that wait, the other two get their results."""

    async def cancel_one():
        busy = [asyncio.create_task(service.client.submit_async(scene_hwc, camera="busy")) for _ in range(16)]
        await busy[0]
        three = [asyncio.create_task(service.client.submit_async(scene_hwc, camera="three")) for _ in range(3)]
        await busy[1]
        three[1].cancel()
        return await asyncio.gather(*three, return_exceptions=True), await asyncio.gather(*busy)

    (first, cancelled, third), _ = asyncio.run(cancel_one())
    assert isinstance(cancelled, asyncio.CancelledError)
    assert (first.outcome, third.outcome) == (Outcome.FINISHED, Outcome.FINISHED)


def test_cancelled_callers_do_not_take_the_batch_of_others_with_them(service, scene_hwc):
    """The call that set a batch off is cancelled while it runs: the other frames in it are answered all the same."""

    async def cancel_half(wait_s):
        calls = [asyncio.create_task(service.client.submit_async(scene_hwc, camera="halves")) for _ in range(8)]
        await calls[0]
        await asyncio.sleep(wait_s)  # so that each round meets another moment of a batch
        for call in calls[1::2]:
            call.cancel()
        await asyncio.wait(calls)
        return {call.result().outcome for call in calls[::2]}

    assert [asyncio.run(cancel_half(0.005 * round_)) for round_ in range(10)] == [{Outcome.FINISHED}] * 10
    assert {record["outcome"] for record in service.records_of("halves")} <= {"finished", "cancelled"}


def test_every_frame_has_exactly_one_outcome(service):
    """The router's counts equal the log's records, and nothing is in flight; asked again when the service goes."""
    service.assert_conserved()
