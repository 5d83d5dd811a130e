"""The Open Inference Protocol as plain HTTP: bodies as they stand on the wire, room at the door, what is refused."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace

import cv2
import httpx
import numpy as np
import pytest
from protocol_world import LIMITS, PixelGateway, app_on, found_in, picture

from serve_app.errors import ServiceUnavailableError
from serve_app.http import bodies, inference_protocol
from serve_app.http.callers import KeyRule, hash_of
from serve_app.http.inference_protocol_model import OUTPUT_NAMES
from serve_app.http.limits import HttpLimits

INFER = "/v2/models/framelane/infer"
BINARY = "Inference-Header-Content-Length"


@pytest.fixture
def gateway():
    """The service behind the door."""
    return PixelGateway()


def ask(app, *requests):
    """The responses to requests (method, path, options), one after the other."""

    async def asked():
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://line") as client:
            return [await client.request(method, path, **options) for method, path, options in requests]

    return asyncio.run(asked())


def infer(gateway, content, *, limits=LIMITS, path=INFER, rules=None, **options):
    """One call for inference."""
    app = app_on(gateway, limits, rules)
    response = ask(app, ("POST", path, {"content": content, **options}))[0]
    door = app.state.door
    assert (door.num_requests, door.num_bytes) == (0, 0)  # whatever happened, nothing is held any more
    return response


def body_of(images_hwc=None, **changes):
    """A request as JSON, of PNG files in base64."""
    files = [
        base64.b64encode(cv2.imencode(".png", image)[1].tobytes()).decode() for image in images_hwc or [picture(2)]
    ]
    return json.dumps({"inputs": [tensor("encoded_images", [len(files)], files)]} | changes).encode()


def tensor(name, shape, data):
    """An input as JSON."""
    return {"name": name, "datatype": "BYTES" if "encoded" in name else "UINT8", "shape": shape, "data": data}


def outputs_of(response):
    """Its outputs by name, as arrays."""
    assert response.status_code == 200, response.text
    return {spec["name"]: np.array(spec["data"]).reshape(spec["shape"]) for spec in response.json()["outputs"]}


def test_json_in_is_answered_with_json(gateway):
    """Images in base64, all outputs, flat and in order: what curl shows."""
    response = infer(gateway, body_of([picture(2), picture(1)], id="nr. 7"))
    told = outputs_of(response)
    assert response.headers["content-type"] == "application/json"
    assert BINARY not in response.headers
    assert tuple(told) == OUTPUT_NAMES
    assert {key: response.json()[key] for key in ("model_name", "model_version", "id")} == {
        "model_name": "framelane", "model_version": "1", "id": "nr. 7",
    }  # fmt: skip
    assert told["num_detections"].tolist() == [2, 1]
    assert told["class_names"].tolist() == [["scratch", "süßer Fleck"], ["scratch", ""]]
    np.testing.assert_array_equal(told["boxes_xyxy"][0].astype(np.float32), found_in(picture(2)).boxes_xyxy)


def test_a_file_may_be_the_whole_body(gateway):
    """With `curl --data-binary @photo.jpg` and the header at 0: Triton's raw binary request."""
    data = cv2.imencode(".png", picture(3))[1].tobytes()
    told = outputs_of(infer(gateway, data, headers={BINARY: "0"}, params={"camera": "gate-1"}))
    assert told["num_detections"].tolist() == [3]
    assert gateway.asked == [((40, 56, 3), "gate-1", "normal", None)]


def test_outputs_come_in_the_order_asked_for_some_as_binary(gateway):
    """The binary ones stand behind the JSON, in the order of the outputs."""
    outputs = [{"name": "scores", "parameters": {"binary_data": True}}, {"name": "rungs"}, {"name": "class_names"}]
    response = infer(gateway, body_of(outputs=outputs, parameters={"binary_data_output": True}))
    length = int(response.headers[BINARY])
    told = json.loads(response.content[:length])["outputs"]
    assert [(spec["name"], spec["parameters"]) for spec in told] == [
        ("scores", {"binary_data_size": 8}), ("rungs", {"binary_data_size": 4}),
        ("class_names", {"binary_data_size": 4 + 7 + 4 + 13}),
    ]  # fmt: skip
    tail = response.content[length:]
    np.testing.assert_array_equal(np.frombuffer(tail[:8], "<f4"), found_in(picture(2)).scores)
    assert tail[8:] == b"\1\0\0\0" + b"\7\0\0\0scratch" + b"\x0d\0\0\0" + "süßer Fleck".encode()


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "got 0 bytes that are no JSON"),
        (b"[" * 10_000, 400, "no JSON"),
        (b"\xff{}", 400, "no JSON"),
        (b"[]", 400, "request: got list of 0, allowed is an object"),
        (b"{}", 400, "inputs: got None"),
        (body_of(input=1), 400, "did you mean inputs?"),
        (body_of(parameters={"priority": "urgent"}), 400, "allowed are 'critical', 'normal', 1"),
        (body_of(parameters={"priority": True}), 400, "parameters.priority: got True"),
        (body_of(parameters={"timeout": 10**400}), 400, "got a huge number"),
        (body_of(parameters={"timeout": 5, "slo_s": 1}), 400, "allowed is one"),
        (body_of(parameters={"slo_s": float("nan")}), 400, "allowed is a number above 0"),
        (body_of(parameters={"camera": "\ud800"}), 400, "allowed is a text"),
        (body_of(parameters={"camera": "x" * 201}), 400, "up to 200 characters"),
        (body_of(parameters={"allow_partial": 1}), 400, "allowed are true and false"),
        (body_of(outputs=[{"name": "scores"}] * 2), 400, "a second time"),
        (body_of(outputs=[{"name": "scores", "parameters": {"classification": 3}}]), 400, "allowed are binary_data"),
        (body_of(inputs=[tensor("images", [0, 8, 8, 3], [])]), 400, "no image"),
        (body_of(inputs=[tensor("images", [1, 7, 8, 3], [1] * 168)]), 422, "8 px"),
        (body_of(inputs=[tensor("images", [1, 8, 8], [1] * 64)]), 400, "[images, height, width, 3]"),
        (body_of(inputs=[tensor("pictures", [1], [1])]), 400, "allowed are images and encoded_images"),
        (body_of(inputs=[tensor("images", [1], [1])] * 2), 400, "allowed is one of"),
        (body_of(inputs=[tensor("encoded_images", [1], ["/9j/!"])]), 400, "base64"),
        (body_of(inputs=[tensor("encoded_images", [1], ["R0lGOA=="])]), 415, "GIF"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_in_words(gateway, body, status, words):
    """As `{"error": …}`, and nothing of it reaches the service."""
    response = infer(gateway, body)
    assert (response.status_code, gateway.asked) == (status, [])
    assert words in response.json()["error"]
    assert len(response.json()["error"]) < 500


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("-1", "whole number"),
        ("x", "whole number"),
        ("9" * 30, "whole number"),
        ("999999999", "up to"),
        ("5", "no JSON"),
    ],
)
def test_a_header_that_lies_is_refused(gateway, header, words):
    """It says where the JSON ends."""
    response = infer(gateway, body_of(), headers={BINARY: header})
    assert (response.status_code, words in response.json()["error"]) == (400, True)


def test_bytes_that_no_input_claims_are_refused(gateway):
    """And sizes that claim more than there is."""
    body = body_of()
    for tail, size, words in ((b"xx", None, "got 2 bytes behind the JSON"), (b"xx", 3, "the 2 bytes that are left")):
        claim = {"name": "encoded_images", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": size}}
        head = body if size is None else json.dumps({"inputs": [claim]}).encode()
        response = infer(gateway, head + tail, headers={BINARY: str(len(head))})
        assert (response.status_code, words in response.json()["error"]) == (400, True), response.text


def test_a_body_that_unpacks_to_too_much_is_refused(gateway):
    """A kilobyte of gzip; nothing beyond the limit is ever unpacked."""
    bomb = gzip.compress(b" " * (LIMITS.max_body_bytes + 1))
    response = infer(gateway, bomb, headers={"content-encoding": "gzip"})
    assert (response.status_code, "unpack to more than 2,000,000" in response.json()["error"]) == (413, True)
    assert infer(gateway, b"x", headers={"content-encoding": "br"}).status_code == 415


def test_images_that_would_not_fit_together_are_not_decoded(gateway):
    """Each is within its limit; what they take decoded is counted at the door beside what others hold."""
    limits = HttpLimits(100_000, 120_000, 200_000, 8, 5.0, 50)
    app = app_on(gateway, limits)
    with app.state.door.entered("critical") as other:
        other.hold(60_000)
        files = [np.zeros((120, 120, 3), np.uint8)] * 2
        response = ask(app, ("POST", INFER, {"content": body_of(files)}))[0]
    assert (response.status_code, gateway.asked) == (503, [])
    assert response.headers["retry-after"] == "1"


def test_a_refusal_says_when_to_try_again(gateway):
    """The longest of the batch's times, in whole seconds."""
    response = infer(gateway, body_of([picture(1), picture(0, refused=True)]))
    assert (response.status_code, response.headers["retry-after"]) == (429, "3")
    assert response.json() == {"error": "images[1]: no room for this frame (1 of 2 did not finish)"}
    partial = {"parameters": {"allow_partial": True}}
    assert infer(gateway, body_of([picture(0, refused=True)], **partial)).status_code == 429
    assert infer(gateway, body_of([picture(1), picture(0, refused=True)], **partial)).status_code == 200


def test_a_service_that_has_gone_is_said_to_have_gone(gateway):
    """503, not a frame without boxes."""

    async def gone(*_, **__):
        raise ServiceUnavailableError("service: it was stopped")

    gateway.detect = gone
    response = infer(gateway, body_of())
    assert (response.status_code, response.json()) == (503, {"error": "service: it was stopped"})


def test_a_batch_is_charged_frame_by_frame(gateway):
    """A key of five frames sends a batch of three, and not another one; nor critical frames by way of the body."""
    rules = [KeyRule("line", hash_of("k"), frames_hz=1.0, burst=5)]
    app = app_on(gateway, rules=rules)
    key = {"headers": {"x-api-key": "k"}}
    batch = {"content": body_of([picture(0)] * 3)}
    critical = {"content": body_of(parameters={"priority": 1})}
    statuses = [response.status_code for response in ask(
        app, ("POST", INFER, batch), ("POST", INFER, batch | key), ("POST", INFER, batch | key),
        ("POST", INFER, critical | key),
    )]  # fmt: skip
    assert statuses == [401, 200, 429, 403]
    assert len(gateway.asked) == 3


def test_every_path_of_the_model_needs_its_name_a_version_of_it_and_a_key(gateway):
    """Health is open; an unknown name is 404 in the protocol's own words."""
    app = app_on(gateway, rules=[KeyRule("line", hash_of("k"))])
    paths = [
        f"/v2/models/framelane{version}{what}" for version in ("", "/versions/1") for what in ("", "/ready", "/config")
    ]
    key = {"headers": {"authorization": "Bearer k"}}
    told = ask(app, *(("GET", path, key) for path in paths), *(("GET", path, {}) for path in paths))
    assert [response.status_code for response in told] == [200] * 6 + [401] * 6
    other = ask(
        app, ("GET", "/v2/models/yolo", key), ("GET", "/v2/models/framelane/versions/2", key),
        ("GET", "/v2/nothing", key), ("DELETE", "/v2", key),
    )  # fmt: skip
    assert [response.status_code for response in other] == [404, 404, 404, 405]
    assert all(set(response.json()) == {"error"} for response in other)
    health = ask(app, ("GET", "/v2/health/live", {}), ("GET", "/v2/health/ready", {}))
    assert [response.status_code for response in health] == [200, 200]


def test_the_config_tells_the_plan(gateway):
    """What a client needs to know of sizes and colours."""
    config = ask(app_on(gateway, replace(LIMITS, max_parts=3)), ("GET", "/v2/models/framelane/config", {}))[0].json()
    assert config["max_batch_size"] == 3
    assert config["parameters"]["canvases_hw"] == {"string_value": "480x640"}
    assert config["parameters"]["color_order"] == {"string_value": "BGR"}


def test_what_waited_for_its_turn_has_fewer_seconds_left(gateway, monkeypatch):
    """The deadline began when the request came; one that is over is refused before its frames cost anything."""
    now_s = iter([0.0, 0.4, 0.0, 0.6, 0.0, 0.001])
    monkeypatch.setattr(inference_protocol, "time", SimpleNamespace(monotonic=lambda: next(now_s)))
    monkeypatch.setattr(bodies, "Turns", NoTurns)
    half_a_second = body_of(parameters={"slo_s": 0.5})
    statuses = [infer(gateway, half_a_second).status_code for _ in range(3)]
    assert statuses == [200, 503, 200]
    assert [slo_s for *_, slo_s in gateway.asked] == [pytest.approx(0.1), 0.5]


class NoTurns:
    """`Turns` that nobody has to wait for, which ask no clock."""

    def __init__(self, _):
        """Nothing."""

    @asynccontextmanager
    async def taken(self, _):
        """At once."""
        yield
