"""HTTP in front of the real service: the same answers as the client library, and what kills it harms nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import httpx
import numpy as np
import pytest
import ray
from ray import serve

from serve_app.app_name import CRITICAL_DOOR_NAME, HTTP_APP_NAME
from serve_app.direct_calls import running_replicas

AGAIN_S = 60.0


@pytest.fixture
def http(service):
    """A client of it."""
    with httpx.Client(base_url=service.http_url, timeout=60) as client:
        yield client


def png_of(image_hwc):
    """Without loss."""
    return cv2.imencode(".png", image_hwc)[1].tobytes()


def send(http, image_hwc, path="/v1/detect", **params):
    """One frame."""
    return http.post(path, content=png_of(image_hwc), headers={"content-type": "image/png"}, params=params)


def served_again(http, image_hwc):
    """Whether a frame is answered soon."""
    give_up_s = time.monotonic() + AGAIN_S
    while time.monotonic() < give_up_s:
        with contextlib.suppress(httpx.HTTPError):
            if send(http, image_hwc).status_code == 200:
                return True
        time.sleep(0.5)
    return False


def test_the_answer_is_the_client_librarys(service, http, scene_hwc):
    """To the rounding of JSON."""
    ours = service.client.detect(scene_hwc, camera="http-1").detections
    response = send(http, scene_hwc, camera="http-1")

    assert response.status_code == 200
    found = response.json()["detections"]
    assert len(found) == len(ours) > 0
    np.testing.assert_allclose([each["box_xyxy"] for each in found], ours.boxes_xyxy, atol=0.006)
    np.testing.assert_allclose([each["score"] for each in found], ours.scores, atol=6e-5)
    assert [each["class_id"] for each in found] == ours.class_ids.tolist()


def test_raw_pixels_are_served_too(http, scene_hwc):
    """The same boxes as from the PNG."""
    headers = {"content-type": "application/octet-stream", "x-image-height": "480", "x-image-width": "640"}
    raw = http.post("/v1/detect", content=scene_hwc.tobytes(), headers=headers)
    assert raw.json()["detections"] == send(http, scene_hwc).json()["detections"]


def test_a_ticket_is_given_and_its_result_waits(http, scene_hwc):
    """By its own address, and among those of its camera."""
    given = send(http, scene_hwc, "/v1/tickets", camera="http-ticket", slo_s=60)
    assert given.status_code == 202
    result = http.get(given.headers["location"], params={"wait_s": 20})
    assert (result.status_code, result.json()["outcome"]) == (200, "finished")
    page = http.get("/v1/cameras/http-ticket/results").json()
    assert [each["frame_id"] for each in page["results"]] == [given.json()["ticket_id"]]
    later = http.get("/v1/cameras/http-ticket/results", params={"cursor": page["cursor"]}).json()
    assert (later["results"], later["num_missed"]) == ([], 0)
    assert http.get("/v1/tickets/no-such").status_code == 404
    assert http.get("/v1/cameras/http-ticket/results", params={"cursor": "99.0"}).json()["num_missed"] is None


def test_what_the_service_says_of_itself_is_what_the_library_says(service, http):
    """Counts of one moment."""
    assert http.get("/v1/health/live").json() == {"is_live": True}
    assert http.get("/v1/health/ready").json() == {"is_ready": True, "reasons": []}
    time.sleep(1.1)  # a look is a second old at most
    assert http.get("/v1/status").json()["outcomes"] == service.client.status().outcomes


def test_refusals_of_the_router_reach_the_caller(http, scene_hwc):
    """With its words and its status: this camera's frames are refused above the largest canvas."""
    large = cv2.resize(scene_hwc, (1600, 1200))
    response = send(http, large, camera="strict-1")
    assert (response.status_code, response.json()["outcome"]) == (429, "rejected")
    assert "retry-after" not in response.headers
    assert send(http, cv2.resize(scene_hwc, (2100, 2000)), camera="gate").status_code == 413


def test_many_at_once_are_each_answered(service, scene_hwc):
    """A hundred connections at the same time: as many answers, and as many records."""
    frame = png_of(cv2.resize(scene_hwc, (320, 240)))

    async def all_at_once():
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=service.http_url, timeout=120, limits=limits) as client:
            asked = {"headers": {"content-type": "image/png"}, "params": {"camera": "http-crowd", "slo_s": 100}}
            return await asyncio.gather(*(client.post("/v1/detect", content=frame, **asked) for _ in range(100)))

    answers = asyncio.run(all_at_once())
    assert {answer.status_code for answer in answers} == {200}
    ids = {answer.json()["frame_id"] for answer in answers}
    assert len(ids) == 100
    assert {record["frame_id"] for record in service.records_of("http-crowd")} == ids


def test_a_slow_client_is_sent_away_by_the_clock(service):
    """Its first bytes come at once, the others never."""
    host, port = service.http_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 30) as line:
        line.sendall(
            b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 999\r\n\r\nabc"
        )
        line.settimeout(30)
        assert line.recv(1000).startswith(b"HTTP/1.1 408")


def test_a_body_above_the_limit_is_refused_while_it_comes(http):
    """Announced or not; one that comes without end may find the connection closed."""
    assert http.post("/v1/detect", content=b"x" * 5_000_000).status_code == 413
    with contextlib.suppress(httpx.WriteError):
        assert http.post("/v1/detect", content=(b"x" * 100_000 for _ in range(400))).status_code == 413


def test_the_port_of_critical_keys_is_served_by_a_process_of_its_own(service, scene_hwc):
    """It answers while the other one is dead, and comes back when it is killed itself."""
    door = asyncio.run(running_replicas(serve.get_deployment_handle(CRITICAL_DOOR_NAME, HTTP_APP_NAME), 30))
    others = asyncio.run(running_replicas(serve.get_app_handle(HTTP_APP_NAME), 30))
    assert len(door) == 1
    with httpx.Client(base_url=service.critical_url, timeout=60) as critical:
        ours = service.client.detect(scene_hwc, camera="http-critical").detections
        for actor in others.values():
            ray.kill(actor)
        response = send(critical, scene_hwc, camera="http-critical", priority="critical")
        assert (response.status_code, len(response.json()["detections"])) == (200, len(ours))
        for actor in door.values():
            ray.kill(actor)
        assert served_again(critical, scene_hwc), "the port of critical keys did not come back"
    with httpx.Client(base_url=service.http_url, timeout=60) as other:
        assert served_again(other, scene_hwc), "HTTP did not come back"


def test_the_death_of_http_harms_no_router(service, http, scene_hwc):
    """Frames of the library go on while HTTP starts anew, and are none fewer; then HTTP serves again."""
    replicas = asyncio.run(running_replicas(serve.get_app_handle(HTTP_APP_NAME), 30))
    before = service.client.status()
    with ThreadPoolExecutor(1) as beside:
        frames = beside.submit(lambda: [service.client.detect(scene_hwc, camera="http-beside") for _ in range(20)])
        for actor in replicas.values():
            ray.kill(actor)
        assert len(frames.result(timeout=120)) == 20
    after = service.client.status()
    assert [router.report.router for router in after.routers] == [router.report.router for router in before.routers]
    assert after.outcomes["finished"] >= before.outcomes["finished"] + 20
    assert served_again(http, scene_hwc), "HTTP did not come back"
