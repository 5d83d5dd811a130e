"""Two routers in front of fake engines on real Serve: whose cameras are whose, and the death of one of them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections import Counter, defaultdict

import numpy as np
import pytest
import ray
from ray import serve

from serve_app import client as client_module
from serve_app.app import application
from serve_app.camera_owner import owner
from serve_app.client import Client
from serve_app.config import plan_from
from serve_app.errors import TicketUnknownError
from serve_app.fake_pool import FakeEngines
from serve_app.frames import FrameMeta
from serve_app.peer_routers import Doors
from serve_app.ray_session import start_ray, stop_ray
from serve_app.router_lines import RouterLines
from serve_app.verdicts import Outcome

pytestmark = [
    pytest.mark.cluster,
    # Ray 2.60 leaves sockets, files and processes to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

NAME = "two-routers"
FRAME = np.full((64, 64, 3), 102, np.uint8)
CAMERAS = [f"gate-{number}" for number in range(10)]
PATIENCE_S = 30.0
RUN_S = 0.05
# Frames of one call, so that batches are of several.
PER_CALL = 3


class TwoRouters:
    """The running application and what tests look at."""

    def __init__(self, handle, plan, log_path):
        self.handle = handle
        self.plan = plan
        self.log_path = log_path
        self.client = self.connected(self.doors())

    def doors(self):
        """The routers that some router knows."""
        return self.handle.doors.remote().result(timeout_s=PATIENCE_S)

    def connected(self, doors):
        """A client that begins with this list of routers."""
        return Client(self.handle, RouterLines(self.handle, doors), self.plan)

    def routers(self):
        """What each router says, once there are two that own cameras, by all that are asked."""
        give_up_s = time.monotonic() + PATIENCE_S
        while True:
            routers = self.client.status().routers
            owning = [{door.router for door in self.doors().doors if door.owns} for _ in range(6)]
            if owning == [{router.report.router for router in routers}] * 6 and len(routers) == 2:
                return routers
            assert time.monotonic() < give_up_s, f"two routers were not ready: {owning}"
            time.sleep(0.1)

    def records(self):
        """Those of all frames that were logged."""
        return [json.loads(line) for line in self.log_path.read_text().splitlines()]


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """Two routers and two replicas, under a name of their own beside what other tests have started."""
    folder = tmp_path_factory.mktemp("routers")
    plan = plan_from(
        {
            "models": {"light": "bundled:inspection-light"},
            "pools": {"cpu": {"replicas": 2, "cpus": 0.1}},
            "buckets": {"small": {"canvases": [[64, 64]], "batches": [1, 2, 4]}},
            "routers": 2,
            "slo_s": {"critical": 10, "normal": 20},
            "frame_log": "frames.jsonl",
        },
        folder,
    )
    is_ours = not ray.is_initialized()
    if is_ours:
        start_ray(num_cpus=1)
    serve.start(proxy_location="Disabled")
    handle = serve.run(application(plan, FakeEngines(RUN_S)), name=NAME, route_prefix=None)
    yield TwoRouters(handle, plan, folder / "frames.jsonl")
    serve.delete(NAME)
    if is_ours:
        serve.shutdown()
        stop_ray()


def test_each_camera_is_served_by_the_router_that_owns_it(service):
    """By a client, by plain calls that Serve gives to any router, and by a client that knows one of them only."""
    names = [router.report.router for router in service.routers()]
    expected = {camera: owner(camera, names) for camera in CAMERAS}
    assert set(expected.values()) == set(names)
    doors = service.doors()
    ignorant = service.connected(Doors(doors.by, tuple(door for door in doors.doors if door.router == doors.by)))

    served = defaultdict(set)
    for camera in CAMERAS:
        served[camera] |= {result.router for result in service.client.detect_many([FRAME] * 2, camera=camera)}
        served[camera] |= {ignorant.detect(FRAME, camera=camera).router}
        served[camera] |= {service.handle.remote(FRAME, camera=camera).result(timeout_s=PATIENCE_S).router}

    assert served == {camera: {router} for camera, router in expected.items()}


def test_one_plain_call_for_several_cameras_is_answered_in_its_order(service):
    """Each frame by its owner; the pixels travel as refs to whoever serves them."""
    names = [router.report.router for router in service.routers()]
    metas = [FrameMeta(f"mixed-{number}", camera, (64, 64)) for number, camera in enumerate(CAMERAS)]
    refs = [ray.put(np.full((64, 64, 3), 20 * number, np.uint8)) for number in range(len(CAMERAS))]
    results = service.handle.submit_many.remote(metas, refs).result(timeout_s=PATIENCE_S)

    assert [(result.frame_id, result.router) for result in results] == [
        (meta.frame_id, owner(meta.camera, names)) for meta in metas
    ]
    brightness = [round(float(result.detections.scores[0]) * 255) for result in results]
    assert brightness == [20 * number for number in range(len(CAMERAS))]


def test_the_status_of_any_router_is_that_of_the_service(service):
    """Its counts are those of the log; each router says its part."""
    service.routers()
    give_up_s = time.monotonic() + PATIENCE_S
    while (status := service.client.status()).num_in_flight and time.monotonic() < give_up_s:
        time.sleep(0.05)

    assert Counter(record["outcome"] for record in service.records()) == status.outcomes
    by_router = Counter(record["router"] for record in service.records())
    assert {each.report.router: sum(each.outcomes.values()) for each in status.routers} == by_router
    assert len({router.report.pid for router in status.routers}) == 2
    (pool,) = status.pools
    assert [replica.credits.num_routers for replica in pool.replicas] == [2, 2]


def test_tickets_are_found_wherever_they_were_given(service):
    """By the ticket, by its id alone, by a plain call, and in the results of the camera."""
    service.routers()
    for camera in CAMERAS[:4]:
        ticket = service.client.submit(FRAME, camera=camera)
        assert service.client.result(ticket, wait_s=PATIENCE_S).outcome is Outcome.FINISHED
        assert service.client.result(ticket.ticket_id).router == ticket.router
        plain = [
            service.handle.ticket_result.remote(ticket.ticket_id, 0.0).result(timeout_s=5).router for _ in range(4)
        ]
        assert plain == [ticket.router] * 4
        page = service.handle.ticket_results.remote(camera, 0, 0.0).result(timeout_s=5)
        assert [result.frame_id for result in page.results] == [ticket.ticket_id]

        async def first(camera=camera):
            results = service.client.results(camera)
            result = await anext(results)
            await results.aclose()
            return result

        assert asyncio.run(first()).frame_id == ticket.ticket_id
    with pytest.raises(TicketUnknownError, match="no router has given out"):
        service.client.result("nobody's")


class Load:
    """A thread for each camera that sends frames and notes what came back."""

    def __init__(self, client):
        self.client = client
        self.results = defaultdict(list)
        self.errors = []
        self.num_sent = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(camera,)) for camera in CAMERAS]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
        assert not any(thread.is_alive() for thread in self._threads), "a caller waits for ever"

    def _send(self, camera):
        while not self._stop.is_set():
            self.num_sent += PER_CALL
            try:
                self.results[camera] += self.client.detect_many([FRAME] * PER_CALL, camera=camera)
            except Exception as err:
                self.errors.append(err)

    def wait_for(self, num_results):
        """Until each camera has so many more."""
        wanted = {camera: len(self.results[camera]) + num_results for camera in CAMERAS}
        give_up_s = time.monotonic() + PATIENCE_S
        while any(len(self.results[camera]) < number for camera, number in wanted.items()):
            assert time.monotonic() < give_up_s, f"no answers: {self.errors[:3]}"
            time.sleep(0.02)


def test_when_a_router_is_killed_its_frames_are_tried_again_and_no_other_camera_notices(service, monkeypatch):
    """Kill -9 under load: every frame ends once, the dead one's cameras move, and no replica holds too much."""
    tried = []

    class Noted(client_module.Tries):
        def next(self):
            """Note what is sent."""
            metas = super().next()
            tried.extend(metas)
            return metas

    monkeypatch.setattr(client_module, "Tries", Noted)
    routers = service.routers()
    victim, survivor = (router.report for router in routers)
    names = [victim.router, survivor.router]
    orphan = next(camera for camera in CAMERAS if owner(camera, names) == victim.router)
    ticket = service.client.submit(FRAME, camera=orphan)
    assert ticket.router == victim.router

    with Load(service.client) as load:
        load.wait_for(9)
        os.kill(victim.pid, signal.SIGKILL)
        load.wait_for(18)
        held = [replica.credits for pool in service.client.status().pools for replica in pool.replicas]

    assert load.errors == []
    results = [result for camera in CAMERAS for result in load.results[camera]]
    assert len(results) == load.num_sent
    assert {result.outcome for result in results} == {Outcome.FINISHED}
    again = {meta.frame_id for meta in tried if meta.attempt}
    assert again
    finished = Counter(result.frame_id for result in results)
    assert again <= set(finished)
    assert set(finished.values()) == {1}
    for camera in CAMERAS:
        served_by = [result.router for result in load.results[camera]]
        if owner(camera, names) == survivor.router:
            # Until a new router takes its share, which is no disturbance.
            assert victim.router not in served_by
            assert not again & {result.frame_id for result in load.results[camera]}
        else:
            assert served_by[0] == victim.router
            moved = served_by.index(survivor.router)
            assert victim.router not in served_by[moved:]
    records = Counter((record["frame_id"], record["router"]) for record in service.records())
    # The dead one may have answered a frame with its last breath; no router answers one twice.
    assert set(records.values()) == {1}
    assert {(result.frame_id, result.router) for result in results} <= set(records)
    assert all(0 < use.most_held <= use.most_credits for use in held), held
    with pytest.raises(TicketUnknownError, match="took its results along"):
        service.client.result(ticket)


def test_a_new_router_takes_its_share(service):
    """Serve replaces the dead one; only what the new one owns moves, and a client hears of it by itself."""
    routers = service.routers()
    names = [router.report.router for router in routers]
    expected = {camera: owner(camera, names) for camera in CAMERAS}
    give_up_s = time.monotonic() + PATIENCE_S
    while True:
        served = {camera: service.client.detect(FRAME, camera=camera).router for camera in CAMERAS}
        if served == expected:
            break
        assert time.monotonic() < give_up_s, (served, expected)
        time.sleep(0.1)
