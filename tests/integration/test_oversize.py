"""Frames larger than every canvas, superseded frames, and bursts: what camera rules and the ladder do in real Serve."""

from __future__ import annotations

import asyncio
from collections import Counter

import numpy as np
import pytest

from engines.boxes import DetectionLimits
from engines.detector import detect_placed, place_batch
from engines.spec import CanvasShape, WarmShape
from engines.tiles import crop, merge_tiles, tile_windows
from framelane_inspection.scenes import PART, draw_scene
from framelane_inspection.scoring import match
from serve_app.admission import MARGIN_FRACTION
from serve_app.errors import FrameRejectedError, FrameSupersededError
from serve_app.frames import Priority
from serve_app.latency import LatencyKey
from serve_app.routes import TILE_OVERLAP_PX
from serve_app.verdicts import Outcome, VerdictKind

pytestmark = [
    # Ray 2.60 leaves sockets, files and processes to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

LARGE_HW = (720, 1280)
TALL_HW = (1280, 720)


@pytest.fixture(scope="module", params=[LARGE_HW, TALL_HW], ids=["wide", "tall"])
def large(request):
    """A scene larger than every canvas of the service."""
    return draw_scene(request.param, seed=21)


def share_of_parts(scene, detections):
    """Recall of the metal parts."""
    parts = scene.class_ids == PART
    return match(scene, detections)[parts].mean()


def cut_by_hand(engine, image_hwc, canvas):
    """The boxes of the same tiles, one after the other on the bare engine."""
    size_hw = image_hwc.shape[:2]
    windows = tile_windows(size_hw, canvas, TILE_OVERLAP_PX)
    engine.warm([WarmShape(canvas, 1)])
    found = [detect_placed(engine, place_batch([crop(image_hwc, w)], canvas)).detections[0] for w in windows]
    return merge_tiles(found, windows, size_hw, DetectionLimits()), len(windows)


def test_a_frame_in_tiles_has_the_boxes_of_the_frame_cut_by_hand(service, engine, large):
    """The service cuts, batches, moves and merges as the engines' own code does; floats of a batch differ a little."""
    result = service.client.detect(large.image_hwc, camera="tile-same")

    expected, num_windows = cut_by_hand(engine, large.image_hwc, result.canvas)
    assert result.num_tiles == num_windows > 1
    assert result.verdict.kind is VerdictKind.DEFER
    assert len(result.detections) == len(expected) > 20
    np.testing.assert_allclose(result.detections.scores, expected.scores, atol=1e-3)
    np.testing.assert_allclose(result.detections.boxes_xyxy, expected.boxes_xyxy, atol=0.5)
    assert len(result.class_names) == len(expected)


def test_tiles_find_what_shrinking_loses(service, large):
    """Of the parts nearly all, as often as at native size; of all objects more than on the shrunk frame; none twice."""
    tiled = service.client.detect(large.image_hwc, camera="tile-recall")
    shrunk = service.client.detect(large.image_hwc, camera="shrink-recall")

    assert (shrunk.num_tiles, shrunk.verdict.kind) == (0, VerdictKind.ADMIT)
    assert share_of_parts(large, tiled.detections) >= max(0.9, share_of_parts(large, shrunk.detections))
    assert match(large, tiled.detections).sum() > match(large, shrunk.detections).sum()
    num_parts = int((large.class_ids == PART).sum())
    assert (tiled.detections.class_ids == PART).sum() <= num_parts * 1.15


def test_a_critical_frame_runs_as_tiles_too(service, large):
    """The rule is the camera's, whatever the priority; and each frame is one record with its tiles counted."""
    result = service.client.detect(large.image_hwc, camera="tile-critical", priority="critical")
    (record,) = service.records_of("tile-critical")[-1:]
    assert (result.outcome, result.verdict.kind) == (Outcome.FINISHED, VerdictKind.ADMIT)
    assert record["num_tiles"] == result.num_tiles > 1


def test_a_frame_that_fits_is_not_cut(service, scene_hwc):
    """`oversize: tile` is for larger frames only."""
    assert service.client.detect(scene_hwc, camera="tile-fits").num_tiles == 0


def test_an_oversize_frame_is_rejected_where_the_plan_says_so(service, scene_hwc, large):
    """No retry helps, so none is named; frames that fit are served."""
    with pytest.raises(FrameRejectedError, match="larger than every canvas") as caught:
        service.client.detect(large.image_hwc, camera="strict-1")
    assert caught.value.retry_after_s is None
    assert service.client.detect(scene_hwc, camera="strict-1").outcome is Outcome.FINISHED
    assert [record["verdict"] for record in service.records_of("strict-1")][-2:] == ["reject", "admit"]


def test_only_the_latest_frame_of_a_camera_is_served(service, scene_hwc):
    """Of ten that come together nine give way to a newer one, and their callers are told."""
    results = service.client.detect_many([scene_hwc] * 10, camera="latest-1")
    assert [result.outcome for result in results] == [Outcome.SUPERSEDED] * 9 + [Outcome.FINISHED]
    with pytest.raises(FrameSupersededError, match="a newer one"):
        results[0].unless_failed()


def test_a_newer_frame_takes_no_place_of_another_priority_or_camera(service, scene_hwc):
    """Two cameras and two priorities, all at once: only older frames of the same camera and priority give way."""

    async def all_at_once():
        calls = [
            service.client.submit_async(scene_hwc, camera=camera, priority=priority)
            for camera in ("latest-a", "latest-b")
            for priority in ("critical", "normal")
        ]
        return await asyncio.gather(*calls)

    assert {result.outcome for result in asyncio.run(all_at_once())} == {Outcome.FINISHED}


def test_bursts_are_degraded_and_no_critical_frame_is_lost(service, scene_hwc):
    """Deadlines from what the light model can just make to what the full one can: some that find room take the light.

    The rest are refused with a time, or expire; the critical ones all finish, in time. Log and counters agree.
    """
    for _ in range(3):  # what was learnt of both is from now
        service.client.detect(scene_hwc, camera="full-before")
        service.client.detect(scene_hwc, camera="before")
    entries = service.client.latency_table().entries
    full_s, light_s = (entries[LatencyKey(model, CanvasShape(480, 640), 1)].run_s for model in ("full", "light"))
    around_s = service.client.status().pools[0].around_s

    async def burst(slo_s):
        normal = [service.client.submit_async(scene_hwc, camera="full-burst", slo_s=slo_s) for _ in range(16)]
        critical = [service.client.submit_async(scene_hwc, camera="full-guard", priority="critical") for _ in range(2)]
        return await asyncio.gather(asyncio.gather(*normal), asyncio.gather(*critical))

    before = Counter(service.client.status().outcomes)
    critical, normal = [], []
    for step in range(1, 9):
        own_s = light_s + step / 6 * abs(full_s - light_s)
        normal_ones, critical_ones = asyncio.run(burst((1 + MARGIN_FRACTION) * (own_s + around_s)))
        critical += critical_ones
        normal += normal_ones

    assert {result.outcome for result in critical} == {Outcome.FINISHED}
    assert max(result.times.total_s for result in critical) < service.client.plan.slo_s[Priority.CRITICAL]
    assert {result.outcome for result in normal} <= {Outcome.FINISHED, Outcome.REJECTED, Outcome.EXPIRED}
    degraded = [result for result in normal if result.verdict.kind is VerdictKind.DEGRADE]
    assert {result.verdict.rung for result in degraded} == {1}
    served = [result for result in degraded if result.outcome is Outcome.FINISHED]
    assert {(result.rung, result.model) for result in served} == {(1, "light")}
    refused = [result for result in normal if result.outcome is Outcome.REJECTED]
    assert all(result.error.retry_after_s > 0 for result in refused)
    records = service.records_of("full-burst") + service.records_of("full-guard")
    outcomes = Counter(result.outcome.value for result in [*normal, *critical])
    assert Counter(record["outcome"] for record in records) == outcomes
    assert Counter(service.client.status().outcomes) - before == outcomes


def test_a_camera_that_must_not_be_degraded_keeps_its_model(service, scene_hwc):
    """The light cameras have nothing below them: whatever comes, they are served on rung 0."""
    results = service.client.detect_many([scene_hwc] * 24, camera="plain-burst", slo_s=20)
    assert {(result.rung, result.model) for result in results} == {(0, "light")}
