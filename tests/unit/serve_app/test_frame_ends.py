"""What is put together for a caller when its frame has ended."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from router_world import found, quick_table, reply, tile_plan
from serve_samples import HD, VGA, sample_frame, sample_meta

from engines.boxes import DetectionLimits
from engines.detections import Detections
from engines.tiles import Window
from serve_app.errors import FrameExpiredError, FrameLostError, FrameRejectedError, InvalidFrameError
from serve_app.frame_ends import AnsweredPiece, answered, refused, unserved
from serve_app.frames import Priority
from serve_app.latency import LatencyModel
from serve_app.results import StageTimes
from serve_app.route import Route
from serve_app.routes import RouteTable
from serve_app.verdicts import Outcome, Verdict, VerdictKind

LIMITS = DetectionLimits()
ADMIT = Verdict(VerdictKind.ADMIT, "so")
NOTHING = Detections.none(), ()
TILES = (Window(0, 0, 480, 640), Window(0, 560, 480, 640))
WIDE_HW = (480, 1200)


def route(*, rung=0, windows=(), model="full") -> Route:
    """A way to serve a frame in bucket `vga`."""
    plan = tile_plan()
    (whole,) = RouteTable(plan, LatencyModel(quick_table())).routes(plan.rule_of("gate-1"), VGA, Priority.NORMAL)
    return dataclasses.replace(whole, rung=rung, windows=windows, model=model)


def piece(
    way, answer, *, canvas=VGA, batch_size=1, sent_s=0.0, answered_s=1.0, replica="near-1", **seconds
) -> AnsweredPiece:
    """A piece that was answered with these boxes, or (None) failed."""
    return AnsweredPiece(way, canvas, batch_size, reply(answer, replica=replica, **seconds), sent_s, answered_s, answer)


def stages_s(times: StageTimes) -> list[float]:
    """All but the total."""
    return [times.queue_s, times.transfer_s, times.preprocess_s, times.infer_s, times.postprocess_s]


def test_a_refused_frame_carries_what_its_client_said():
    """And nothing of a replica, a canvas or a time."""
    verdict = Verdict(VerdictKind.REJECT, "full", 0.5)
    error = FrameRejectedError("frame rejected: full", 0.5)
    result = refused(sample_meta("a", camera="gate-9", size_hw=(10, 20), priority="critical"), verdict, error)

    assert (result.frame_id, result.camera, result.size_hw, result.priority) == ("a", "gate-9", (10, 20), "critical")
    assert (result.outcome, result.verdict, result.error) == (Outcome.REJECTED, verdict, error)
    assert (result.bucket, result.pool, result.replica, result.model, result.canvas) == (None,) * 5
    assert (result.times, len(result.detections), result.class_names) == (StageTimes(), 0, ())


def test_an_invalid_frame_has_no_verdict():
    """Nobody judged it: whatever stands in its metadata is handed back as it came."""
    result = refused(sample_meta("a", priority=["odd"], size_hw=None), None, InvalidFrameError("no"))
    assert (result.verdict, result.priority, result.size_hw) == (None, ["odd"], None)


def test_a_frame_that_no_replica_answered_has_waited_all_its_time():
    """And says how it would have been served, where that is known."""
    frame = sample_frame("a", size_hw=WIDE_HW, priority=Priority.CRITICAL, arrived_s=100.0)
    error = FrameExpiredError("too late")
    result = unserved(frame, ADMIT, Outcome.EXPIRED, error, 102.5, route(rung=2, windows=TILES, model="light"))

    assert (result.outcome, result.error, result.verdict, result.priority) == (
        Outcome.EXPIRED, error, ADMIT, "critical"
    )  # fmt: skip
    assert (result.bucket, result.pool, result.model, result.canvas) == ("vga", "near", "light", VGA)
    assert (result.rung, result.num_tiles) == (2, 2)
    assert (result.replica, result.batch_size, result.padding_fraction) == (None, 0, 0.0)
    assert result.times == StageTimes(queue_s=2.5, total_s=2.5)


def test_a_frame_of_which_no_way_is_known_names_none():
    """As one that was superseded, or cancelled."""
    result = unserved(sample_frame("a"), ADMIT, Outcome.CANCELLED, FrameExpiredError("gone"), 1.0)
    assert (result.bucket, result.pool, result.model, result.canvas, result.rung, result.num_tiles) == (
        None, None, None, None, 0, 0
    )  # fmt: skip


def test_a_whole_frame_has_the_boxes_of_its_piece():
    """As the replica gave them: they are in its px already."""
    frame = sample_frame("a", size_hw=(470, 640), arrived_s=10.0)
    boxes = found(0.75, (5, 6, 7, 8), "dent")
    pieces = {0: piece(route(rung=1), boxes, batch_size=3, sent_s=10.5, answered_s=11.0, replica="near-7")}
    verdict = Verdict(VerdictKind.DEGRADE, "rung 1", rung=1)
    result = answered(frame, verdict, pieces, LIMITS)

    assert (result.outcome, result.error, result.verdict) == (Outcome.FINISHED, None, verdict)
    assert result.detections is boxes[0]
    assert (result.class_names, result.rung, result.num_tiles) == (("dent",), 1, 0)
    assert (result.bucket, result.pool, result.replica, result.model) == ("vga", "near", "near-7", "full")
    assert (result.canvas, result.batch_size) == (VGA, 3)
    assert result.padding_fraction == pytest.approx(10 / 480)


def test_a_frame_that_joined_a_larger_canvas_says_that_one():
    """The padding that it had is that of the batch's canvas, not of its own."""
    pieces = {0: piece(route(), NOTHING, canvas=HD)}
    result = answered(sample_frame("a", size_hw=(736, 640)), ADMIT, pieces, LIMITS)
    assert (result.canvas, result.padding_fraction) == (HD, pytest.approx(0.5))


def test_the_stages_of_a_whole_frame_add_up():
    """Waiting is before the call and behind the running batch; what is left of the call is the way there and back."""
    seconds = {"fetch_s": 0.125, "preprocess_s": 0.0625, "staged_s": 0.5, "infer_s": 0.25, "postprocess_s": 0.03125}
    pieces = {0: piece(route(), NOTHING, sent_s=11.0, answered_s=13.0, **seconds)}
    times = answered(sample_frame("a", arrived_s=10.0), ADMIT, pieces, LIMITS).times

    assert times == StageTimes(
        queue_s=1.5, transfer_s=2.0 - 0.84375, preprocess_s=0.0625, infer_s=0.25, postprocess_s=0.03125, total_s=3.0
    )
    assert sum(stages_s(times)) == times.total_s


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=str)
def test_tiles_become_one_answer_in_px_of_the_frame(order):
    """Whichever came last; each class keeps its name, the best score stands first."""
    frame = sample_frame("w", size_hw=WIDE_HW, arrived_s=0.0)
    way = route(windows=TILES)
    scratch = dataclasses.replace(found(0.5)[0], class_ids=np.array([3]))
    tiles = {
        0: piece(way, (scratch, ("scratch",)), replica="near-0", batch_size=1, answered_s=1.0),
        1: piece(way, found(0.9, (100, 50, 140, 90), "dent"), replica="near-1", batch_size=2, answered_s=2.0),
    }
    result = answered(frame, ADMIT, {number: tiles[number] for number in order}, LIMITS)

    assert result.detections.boxes_xyxy.tolist() == [[660, 50, 700, 90], [1, 2, 3, 4]]
    assert (result.detections.class_ids.tolist(), result.class_names) == ([0, 3], ("dent", "scratch"))
    assert (result.num_tiles, result.size_hw, result.canvas) == (2, WIDE_HW, VGA)
    assert (result.replica, result.batch_size) == (f"near-{order[-1]}", order[-1] + 1)
    assert result.padding_fraction == 0.0
    assert result.times.total_s == 2.0


def test_tiles_are_merged_within_the_limits_of_the_plan():
    """`max_boxes` holds for the frame, not for the tile."""
    way = route(windows=TILES)
    tiles = {number: piece(way, found(0.9 - number / 10)) for number in range(2)}
    result = answered(sample_frame("w", size_hw=WIDE_HW), ADMIT, tiles, DetectionLimits(max_boxes=1))
    assert (len(result.detections), result.class_names) == (1, ("thing",))


def test_tiles_that_found_nothing_are_a_frame_without_boxes():
    """Finished, and empty."""
    way = route(windows=TILES)
    result = answered(sample_frame("w", size_hw=WIDE_HW), ADMIT, {n: piece(way, NOTHING) for n in range(2)}, LIMITS)
    assert (result.outcome, len(result.detections), result.class_names) == (Outcome.FINISHED, 0, ())


def test_a_frame_that_failed_at_a_piece_has_no_boxes():
    """Not those of the pieces that were answered either: half an answer would look like a whole one."""
    error = FrameLostError("gone")
    way = route(windows=TILES)
    pieces = {0: piece(way, found(0.5)), 1: piece(way, None, replica="near-2", answered_s=3.0)}
    result = answered(sample_frame("w", size_hw=WIDE_HW), ADMIT, pieces, LIMITS, error)

    assert (result.outcome, result.error) == (Outcome.FAILED, error)
    assert (len(result.detections), result.class_names) == (0, ())
    assert (result.replica, result.num_tiles, result.times.total_s) == ("near-2", 2, 3.0)


def test_a_frame_that_failed_before_its_other_tiles_came_is_answered():
    """Pieces that are missing are not waited for."""
    pieces = {1: piece(route(windows=TILES), None)}
    result = answered(sample_frame("w", size_hw=WIDE_HW), ADMIT, pieces, LIMITS, FrameLostError("gone"))
    assert (result.outcome, result.canvas, result.batch_size) == (Outcome.FAILED, VGA, 1)


def test_tiles_that_ran_beside_each_other_wait_no_less_than_nothing():
    """Their stages are sums, which may be longer than the frame was here: then waiting is 0, and the total holds."""
    seconds = {"infer_s": 0.75, "preprocess_s": 0.125}
    way = route(windows=TILES)
    tiles = {number: piece(way, NOTHING, sent_s=0.0, answered_s=1.0, **seconds) for number in range(2)}
    times = answered(sample_frame("w", size_hw=WIDE_HW), ADMIT, tiles, LIMITS).times
    assert times == StageTimes(
        queue_s=0.0, transfer_s=0.25, preprocess_s=0.25, infer_s=1.5, postprocess_s=0.0, total_s=1.0
    )


def test_tiles_that_ran_one_after_the_other_have_waited_for_the_rest():
    """The stages add up to the total again."""
    seconds = {"infer_s": 0.5, "staged_s": 0.25}
    way = route(windows=TILES)
    tiles = {
        0: piece(way, NOTHING, sent_s=1.0, answered_s=2.0, **seconds),
        1: piece(way, NOTHING, sent_s=2.0, answered_s=3.0, **seconds),
    }
    times = answered(sample_frame("w", size_hw=WIDE_HW), ADMIT, tiles, LIMITS).times
    assert times == StageTimes(queue_s=1.5, transfer_s=0.5, infer_s=1.0, total_s=3.0)
    assert sum(stages_s(times)) == times.total_s
