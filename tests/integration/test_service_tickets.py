"""Frames that nobody waits for: tickets, the results of a camera in their order, and callbacks, through real Serve."""

from __future__ import annotations

import asyncio
import threading
import time

import numpy as np
import pytest
import ray
from service_world import frames_in_store

from framelane_inspection.scenes import draw_scene
from serve_app.client import MissedResults
from serve_app.errors import FrameExpiredError, FrameRejectedError, InvalidFrameError, TicketUnknownError
from serve_app.verdicts import Outcome, VerdictKind

pytestmark = [
    # Ray 2.60 leaves sockets, files and processes to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

WAIT_S = 60.0
LARGE_HW = (720, 1280)  # 2.6 MiB, so that a single frame shows in the store


def ended(service, tickets):
    """The results of all these tickets, in their order."""
    results = [service.client.result(ticket, wait_s=WAIT_S) for ticket in tickets]
    assert None not in results
    return results


async def read(client, camera, num_results):
    """The next results of a camera, no more than so many."""
    seen = []
    results = client.results(camera)
    async for result in results:
        seen.append(result)
        if len(seen) == num_results:
            break
    await results.aclose()
    return seen


def test_a_ticket_brings_the_result_of_its_frame(service, scene_hwc):
    """The same boxes as for a caller that waits; asked again, by its id, it is the same."""
    expected = service.client.detect(scene_hwc, camera="ticket-same")

    ticket = service.client.submit(scene_hwc, camera="ticket-same")

    assert (ticket.camera, ticket.verdict.kind, ticket.expires_in_s) == ("ticket-same", VerdictKind.ADMIT, 600)
    (result,) = ended(service, [ticket])
    again = service.client.result(ticket.ticket_id)
    assert result.outcome is Outcome.FINISHED
    assert (result.frame_id, again.frame_id) == (ticket.ticket_id, ticket.ticket_id)
    np.testing.assert_array_equal(result.detections.boxes_xyxy, expected.detections.boxes_xyxy)


def test_a_frame_in_tiles_can_have_a_ticket(service):
    """Its verdict says that it is deferred, its result is one."""
    ticket = service.client.submit(draw_scene(LARGE_HW, seed=5).image_hwc, camera="tile-ticket")
    assert ticket.verdict.kind is VerdictKind.DEFER
    (result,) = ended(service, [ticket])
    assert result.num_tiles > 1
    assert len(result.detections) > 10


def test_an_unknown_ticket_is_told(service):
    """An error of ours, through Ray, that says so."""
    with pytest.raises(TicketUnknownError, match="nope"):
        service.client.result("nope")


def test_a_refused_frame_gets_no_ticket(service):
    """The caller learns it at once, with the reason; the camera has no result of it."""
    with pytest.raises(FrameRejectedError, match="larger than every canvas"):
        service.client.submit(draw_scene(LARGE_HW, seed=5).image_hwc, camera="strict-ticket")
    with pytest.raises(InvalidFrameError, match="'critical', 'normal'"):
        service.client.submit(draw_scene((100, 200), seed=5).image_hwc, camera="strict-ticket", priority="urgent")


def test_a_ticket_of_a_frame_that_expires_says_so(service, scene_hwc):
    """A ticket is for how a frame ended, whatever that is."""
    ticket = service.client.submit(scene_hwc, camera="ticket-late", slo_s=1e-6)
    (result,) = ended(service, [ticket])
    assert result.outcome is Outcome.EXPIRED
    with pytest.raises(FrameExpiredError):
        result.unless_failed()


def test_superseded_frames_tell_their_tickets(service, scene_hwc):
    """Of a camera that keeps the latest every ticket is answered, and at least the last one with boxes."""
    tickets = [service.client.submit(scene_hwc, camera="latest-ticket") for _ in range(12)]
    outcomes = [result.outcome for result in ended(service, tickets)]
    assert set(outcomes) <= {Outcome.FINISHED, Outcome.SUPERSEDED}
    assert outcomes[-1] is Outcome.FINISHED


def test_results_of_a_camera_come_as_they_end_each_once(service, scene_hwc):
    """Read while they come: frames of both priorities and two sizes, one of which expires, in the log's order."""
    small_hwc = draw_scene((384, 640), seed=8).image_hwc

    def send():
        for number in range(20):
            image_hwc = small_hwc if number % 3 else scene_hwc
            priority = "critical" if number % 5 == 0 else "normal"
            slo_s = 1e-6 if number == 7 else None
            service.client.submit(image_hwc, camera="ticket-order", priority=priority, slo_s=slo_s)

    sender = threading.Thread(target=send)
    sender.start()
    seen = asyncio.run(asyncio.wait_for(read(service.client, "ticket-order", 20), WAIT_S))
    sender.join()

    assert not any(isinstance(result, MissedResults) for result in seen)
    frame_ids = [result.frame_id for result in seen]
    assert frame_ids == [record["frame_id"] for record in service.records_of("ticket-order")]
    assert len(set(frame_ids)) == 20
    assert [result.outcome for result in seen].count(Outcome.EXPIRED) == 1


def test_two_readers_of_a_camera_get_all_of_it_each(service, scene_hwc):
    """Reading takes nothing away, also not from the tickets."""
    tickets = [service.client.submit(scene_hwc, camera="ticket-twice") for _ in range(6)]

    async def both():
        return await asyncio.gather(*(read(service.client, "ticket-twice", 6) for _ in range(2)))

    one, other = asyncio.run(asyncio.wait_for(both(), WAIT_S))
    assert [result.frame_id for result in one] == [result.frame_id for result in other]
    assert {result.frame_id for result in one} == {ticket.ticket_id for ticket in tickets}
    assert {result.outcome for result in ended(service, tickets)} == {Outcome.FINISHED}


@ray.remote(num_cpus=0)
class Inbox:
    """Notes what it is called with."""

    def __init__(self):
        self.results = []

    def ended(self, result):
        """A callback."""
        self.results.append((result.frame_id, result.outcome.value, len(result.detections)))

    def fails(self, _):
        """A callback that cannot."""
        raise ValueError("out of paper")

    def seen(self):
        """All calls so far."""
        return self.results


def test_an_actors_method_is_called_once_for_each_frame(service, scene_hwc):
    """With the whole result, however the frame ended; one that fails harms nobody."""
    inbox = Inbox.remote()
    tickets = [service.client.submit(scene_hwc, camera="ticket-call", callback=inbox.ended) for _ in range(4)]
    tickets.append(service.client.submit(scene_hwc, camera="ticket-call", callback=inbox.ended, slo_s=1e-6))
    failing = service.client.submit(scene_hwc, camera="ticket-call", callback=inbox.fails)

    results = ended(service, [*tickets, failing])
    give_up_s = time.monotonic() + WAIT_S
    while len(seen := ray.get(inbox.seen.remote())) < len(tickets):
        assert time.monotonic() < give_up_s
        time.sleep(0.05)
    ray.kill(inbox)

    assert sorted(seen) == sorted((r.frame_id, r.outcome.value, len(r.detections)) for r in results[:-1])
    assert results[-1].outcome is Outcome.FINISHED


def test_the_object_store_is_empty_after_tickets_and_tiles(service):
    """What is kept are results, no pixels: of tickets, tiles, superseded, expired and refused frames."""
    image_hwc = draw_scene(LARGE_HW, seed=4).image_hwc
    tickets = [service.client.submit(image_hwc, camera=f"tile-{n % 2}") for n in range(6)]
    tickets += [service.client.submit(image_hwc, camera="latest-store") for _ in range(6)]
    tickets.append(service.client.submit(image_hwc, camera="tile-store", slo_s=1e-6))
    service.client.detect_many([image_hwc] * 5, camera="latest-store")
    with pytest.raises(FrameRejectedError):
        service.client.submit(image_hwc, camera="strict-store")
    ended(service, tickets)
    assert frames_in_store() == set()


def test_cancelling_a_frame_in_tiles_leaves_nothing(service):
    """Its tiles that wait leave, one that runs is answered to nobody and fails nobody, and its pixels go."""
    image_hwc = draw_scene(LARGE_HW, seed=4).image_hwc

    async def cancel_some():
        calls = [asyncio.create_task(service.client.submit_async(image_hwc, camera="tile-cancel")) for _ in range(12)]
        await calls[0]
        late = [call for call in calls if not call.done()]
        for call in late:
            call.cancel()
        await asyncio.wait(calls)
        # No exception leaves here: its traceback would hold what the call held, and so the pixels.
        return [call.result() for call in calls if call not in late], [call.cancelled() for call in late]

    answered, cancelled = asyncio.run(cancel_some())
    assert cancelled
    assert all(cancelled)
    assert {result.outcome for result in answered} == {Outcome.FINISHED}
    assert frames_in_store() == set()
    service.assert_conserved()
    outcomes = [record["outcome"] for record in service.records_of("tile-cancel")]
    assert outcomes.count("finished") >= len(answered)
    assert set(outcomes) <= {"finished", "cancelled"}
