"""Frames that keep a device longer than a chunk and that no tiles suit: they leave critical frames a place."""

from __future__ import annotations

from serve_samples import VGA, admit, replicas, sample_frame, scheduler_of, sent

from serve_app.decisions import Decisions
from serve_app.frames import Priority
from serve_app.plan import Scheduling

CRITICAL = Priority.CRITICAL
# Larger than every canvas: shrunk onto the largest one, which takes 80 ms, and not cut into tiles.
HUGE = (1440, 2560)
CHUNKS = Scheduling(max_chunk_s=0.05)
NOTHING = Decisions((), ())


def huge(*names, **changes):
    """Normal frames of that size, with half a minute of time."""
    return [sample_frame(name, size_hw=HUGE, **({"deadline_s": 30.0} | changes)) for name in names]


def test_one_replica_is_left_to_the_others():
    """Two of three replicas take a long frame each; the third waits for what is short, and gets it at once."""
    scheduler = scheduler_of(*huge("a", "b", "c"), scheduling=CHUNKS)
    scheduler.replicas_ready("far", replicas("far", 3))
    assert sent(scheduler.decide(1.0)) == [["a"], ["b"]]

    admit(scheduler, sample_frame("critical", size_hw=HUGE, priority=CRITICAL, arrived_s=1.01, deadline_s=2.0))
    (batch,) = scheduler.decide(1.01).batches
    assert (batch.pieces[0].frame.frame_id, batch.replica) == ("critical", replicas("far", 3)[2])


def test_the_next_long_frame_goes_when_one_has_ended():
    """Nothing is forgotten: each batch that ends makes room for one more."""
    scheduler = scheduler_of(*huge("a", "b"), scheduling=CHUNKS)
    scheduler.replicas_ready("far", replicas("far", 2))
    (first,) = scheduler.decide(1.0).batches
    assert scheduler.decide(1.05) == NOTHING

    scheduler.batch_ended(first.batch_id, 1.08)
    assert sent(scheduler.decide(1.08)) == [["b"]]


def test_a_pool_of_one_replica_serves_them_one_by_one():
    """There is no other to leave free."""
    scheduler = scheduler_of(*huge("a", "b"), scheduling=CHUNKS)
    scheduler.replicas_ready("far", replicas("far", 1))
    (first,) = scheduler.decide(1.0).batches
    assert scheduler.decide(1.01) == NOTHING
    scheduler.batch_ended(first.batch_id, 1.08)
    assert sent(scheduler.decide(1.08)) == [["b"]]


def test_a_long_frame_is_never_staged_even_when_it_must_begin():
    """A critical frame that comes now would stand behind it: it waits until a replica is idle, and others with it."""
    scheduler = scheduler_of(
        sample_frame("critical", size_hw=HUGE, priority=CRITICAL, deadline_s=2.0), *huge("due", deadline_s=1.1),
        scheduling=CHUNKS,
    )  # fmt: skip
    scheduler.replicas_ready("far", replicas("far", 1))
    (first,) = scheduler.decide(0.9).batches
    assert first.pieces[0].frame.frame_id == "critical"
    assert scheduler.decide(0.91) == NOTHING

    scheduler.batch_ended(first.batch_id, 0.98)
    assert sent(scheduler.decide(0.98)) == [["due"]]


def test_short_frames_go_on_beside_a_long_one():
    """They need no replica to themselves."""
    scheduler = scheduler_of(*huge("a", "b"), scheduling=CHUNKS, near=2)
    scheduler.replicas_ready("far", replicas("far", 2))
    scheduler.decide(1.0)
    admit(scheduler, sample_frame("vga", size_hw=VGA, arrived_s=1.0, deadline_s=5.0))

    assert sent(scheduler.decide(1.0)) == [["vga"]]
