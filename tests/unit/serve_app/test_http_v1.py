"""What `/v1` takes and answers, on a service that tests steer."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from fake_gateway import ADMITTED, Site, ended, finished, jpeg, picture, plan_of, png

from serve_app.errors import (
    FrameExpiredError,
    FrameFailedError,
    FrameRejectedError,
    FrameSupersededError,
    InvalidFrameError,
    ServiceUnavailableError,
    TicketExpiredError,
)
from serve_app.http.answers import (
    CameraPageAnswer,
    FrameAnswer,
    FramesAnswer,
    Problem,
    TicketAnswer,
    TicketsAnswer,
    WaitingAnswer,
)
from serve_app.http.gateway import Readiness
from serve_app.verdicts import Outcome, Verdict, VerdictKind

RAW = {"x-image-height": "48", "x-image-width": "64"}


@pytest.fixture
def site(tmp_path):
    """Open to all."""
    return Site(plan_of(tmp_path, max_parts=3, max_body_bytes=100_000, max_image_px=100_000))


def problem_of(response):
    """A problem whose body says the same as its status."""
    assert response.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate(response.json())
    assert problem.status == response.status_code
    return problem


@pytest.mark.parametrize(
    ("content", "media_type"),
    [(jpeg(), "image/jpeg"), (png(), "image/png"), (jpeg(), "image/png"), (png(), "application/octet-stream"),
     (png(), "")],
    ids=["jpeg", "png", "jpeg said to be png", "png said to be bytes", "png unsaid"],
)  # fmt: skip
def test_an_image_is_detected_on(site, content, media_type):
    """What camera, priority and deadline were asked for reaches the service with the pixels."""
    response = site.send(content, media_type=media_type, camera="gate-1", priority="critical", slo_s=0.5)

    assert response.status_code == 200
    answer = FrameAnswer.model_validate(response.json())
    assert (answer.camera, answer.priority, answer.outcome, answer.size_hw) == (
        "gate-1", "critical", "finished", (48, 64),
    )  # fmt: skip
    assert [d.model_dump() for d in answer.detections] == [
        {"box_xyxy": (1.0, 2.0, 30.0, 40.0), "score": 0.875, "class_id": 0, "class_name": "scratch"}
    ]
    (image_hwc, *rest) = site.gateway.asked[0]
    assert image_hwc.shape == (48, 64, 3)
    assert np.abs(image_hwc.astype(int) - picture()).max() < 30
    assert rest == ["gate-1", "critical", 0.5, None]


@pytest.mark.parametrize(
    ("layout", "pixels"), [("bgr", picture()), ("rgb", picture()[..., ::-1]), ("grey", picture()[..., 0])], ids=str
)
def test_raw_pixels_are_taken_as_their_headers_say(site, layout, pixels):
    """Without a codec between camera and service nothing is lost."""
    response = site.send(
        pixels.tobytes(), media_type="application/octet-stream", headers=RAW | {"x-image-layout": layout}
    )

    assert response.status_code == 200
    assert np.array_equal(site.gateway.asked[0][0], picture())


@pytest.mark.parametrize(
    ("content", "media_type", "headers", "status", "told"),
    [
        (b"", "image/jpeg", {}, 400, "got no bytes"),
        (b"GIF89a", "image/gif", {}, 415, "got 'image/gif'"),
        (b"no image", "image/jpeg", {}, 415, "image"),
        (jpeg()[:-30], "image/jpeg", {}, 422, "image"),
        (jpeg((400, 400)), "image/jpeg", {}, 413, "allowed are 100,000"),
        (b"x" * 100_001, "image/jpeg", {}, 413, "allowed are 100,000"),
        (b"x" * 100, "application/octet-stream", RAW, 422, "got 100 bytes"),
        (b"x" * 100, "application/octet-stream", {"x-image-height": "-3"}, 422, "x-image-height: got '-3'"),
        (b"x" * 100, "application/octet-stream", RAW | {"x-image-layout": "bgra"}, 422, "layout"),
        (b"x" * 100, "application/octet-stream", {"x-image-height": "9999", "x-image-width": "9999"}, 413, "px"),
        (b"x", "multipart/form-data", {}, 400, "boundary"),
        (b"x", "multipart/form-data; boundary=abc", {}, 400, "multipart"),
    ],
    ids=["empty", "gif", "text", "cut off", "many px", "many bytes", "raw short", "raw side", "raw layout", "raw px",
         "no boundary", "no multipart"],
)  # fmt: skip
def test_what_is_no_image_is_refused_with_its_reason(site, content, media_type, headers, status, told):
    """And never reaches the service."""
    response = site.send(content, media_type=media_type, headers=headers)

    problem = problem_of(response)
    assert problem.status == status
    assert told in problem.detail
    assert site.gateway.asked == []


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"priority": "urgent"}, "priority: got 'urgent'"),
        ({"slo_s": "-1"}, "slo_s: got '-1'"),
        ({"slo_s": "nan"}, "slo_s: got"),
        ({"slo_s": "1e9"}, "slo_s: got '1e9'"),
        ({"camera": ""}, "camera: got ''"),
        ({"camera": "x" * 300}, "camera: got"),
    ],
    ids=str,
)
def test_a_wrong_parameter_is_named_with_what_was_got(site, params, told):
    """As in the client library."""
    problem = problem_of(site.send(**params))
    assert problem.status == 422
    assert told in problem.detail
    assert len(problem.detail) < 300


@pytest.mark.parametrize(
    ("answer", "status", "retry_after", "outcome"),
    [
        (ended(Outcome.REJECTED, FrameRejectedError("late", 1.2)), 429, "2", "rejected"),
        (ended(Outcome.REJECTED, FrameRejectedError("late"), Verdict(VerdictKind.REJECT, "late", 0.1)), 429, "1",
         "rejected"),
        (ended(Outcome.REJECTED, InvalidFrameError("slo_s")), 422, None, "rejected"),
        (ended(Outcome.EXPIRED, FrameExpiredError("too late")), 504, None, "expired"),
        (ended(Outcome.SUPERSEDED, FrameSupersededError("newer")), 409, None, "superseded"),
        (ended(Outcome.FAILED, FrameFailedError("engine")), 500, None, "failed"),
        (ServiceUnavailableError("gone", 1.0), 503, "1", None),
        (FrameRejectedError("store full", 1.0), 429, "1", None),
    ],
    ids=["rejected", "by verdict", "invalid", "expired", "superseded", "failed", "gone", "full"],
)  # fmt: skip
def test_a_frame_that_did_not_finish_is_a_problem_with_its_outcome(site, answer, status, retry_after, outcome):
    """`Retry-After` comes from the verdict."""
    site.gateway.answer = answer
    response = site.send()

    problem = problem_of(response)
    assert (problem.status, problem.outcome, response.headers.get("retry-after")) == (status, outcome, retry_after)


def test_a_bug_of_ours_tells_nothing_of_its_inside(site):
    """What an exception says may be anything, a key too."""
    site.gateway.answer = RuntimeError("the secret")
    problem = problem_of(site.send())
    assert problem.status == 500
    assert "secret" not in problem.detail


def parts(*files):
    """A multipart request of these."""
    return [("image", file) for file in files]


def test_several_images_are_answered_each_for_itself(site):
    """One that is none harms no other; order and names are kept."""
    files = parts(("a.jpg", jpeg(), "image/jpeg"), ("b.png", b"no", "image/png"), ("c.png", png((32, 40)), "image/png"))
    response = site.ask("POST", "/v1/detect", files=files, params={"camera": "belt-1"})

    assert response.status_code == 200
    answer = FramesAnswer.model_validate(response.json())
    assert [(part.name, part.status) for part in answer.frames] == [("a.jpg", 200), ("b.png", 415), ("c.png", 200)]
    assert [part["size_hw"] for part in response.json()["frames"] if part["status"] == 200] == [[48, 64], [32, 40]]
    assert [camera for _, camera, *_ in site.gateway.asked] == ["belt-1", "belt-1"]


def test_several_images_of_which_none_went_well_are_a_problem(site):
    """With the longest time to retry: a client that looks at the status only does the right thing."""
    waits = iter([0.5, 3.0])
    site.gateway.answer = lambda _: ended(Outcome.REJECTED, FrameRejectedError("late", next(waits)))
    response = site.ask("POST", "/v1/detect", files=parts(("a", jpeg()), ("b", jpeg())))

    assert problem_of(response).status == 429
    assert response.headers["retry-after"] == "3"
    assert [frame["status"] for frame in response.json()["frames"]] == [429, 429]


@pytest.mark.parametrize(
    ("files", "status"),
    [(parts(*(("a.jpg", jpeg()) for _ in range(4))), 413), ([("camera", (None, b"gate-1"))], 422)],
    ids=["too many", "a field"],
)
def test_a_multipart_of_something_else_is_refused(site, files, status):
    """Parameters go into the query: they must be known before the body is."""
    assert problem_of(site.ask("POST", "/v1/detect", files=files)).status == status


def test_a_part_may_be_raw_pixels(site):
    """Its headers are its own."""
    body = (
        b"--b\r\ncontent-disposition: form-data; name=image; filename=x\r\ncontent-type: application/octet-stream\r\n"
        b"x-image-height: 48\r\nx-image-width: 64\r\n\r\n" + picture().tobytes() + b"\r\n--b--\r\n"
    )
    response = site.send(body, media_type="multipart/form-data; boundary=b")
    assert [frame["status"] for frame in response.json()["frames"]] == [200]
    assert np.array_equal(site.gateway.asked[0][0], picture())


def test_a_frame_is_submitted_for_a_ticket(site):
    """Where to ask for it stands in `Location`."""
    response = site.send(path="/v1/tickets", camera="belt-1", slo_s=30)

    assert response.status_code == 202
    assert response.headers["location"] == "/v1/tickets/t1"
    assert TicketAnswer.model_validate(response.json()).ticket_id == "t1"
    assert site.gateway.asked[0][1:4] == ("belt-1", "normal", 30.0)


def test_several_frames_get_a_ticket_each(site):
    """Or a reason."""
    response = site.ask("POST", "/v1/tickets", files=parts(("a.jpg", jpeg()), ("b.jpg", b"no")))
    assert response.status_code == 202
    answer = TicketsAnswer.model_validate(response.json())
    assert [(part.name, part.status, getattr(part, "ticket_id", None)) for part in answer.tickets] == [
        ("a.jpg", 202, "t1"), ("b.jpg", 415, None),
    ]  # fmt: skip


def test_a_ticket_is_asked_about(site):
    """Waiting, ended in whatever way, unknown, gone."""
    site.gateway.kept = {"waits": None, "done": finished(), "late": ended(Outcome.EXPIRED, FrameExpiredError("late"))}

    waiting = site.ask("GET", "/v1/tickets/waits", params={"wait_s": 5})
    assert (waiting.status_code, waiting.headers["retry-after"]) == (202, "1")
    assert WaitingAnswer.model_validate(waiting.json()).state == "waiting"
    assert site.gateway.asked == [("waits", 5.0)]
    assert FrameAnswer.model_validate(site.ask("GET", "/v1/tickets/done").json()).outcome == "finished"
    late = site.ask("GET", "/v1/tickets/late")
    assert (late.status_code, late.json()["outcome"], late.json()["error"]) == (200, "expired", "late")
    assert problem_of(site.ask("GET", "/v1/tickets/other")).status == 404
    assert problem_of(site.ask("GET", "/v1/tickets/done", params={"wait_s": 21})).status == 422


def test_a_ticket_that_is_gone_says_so(site):
    """Not the same as one that never was."""

    async def result(ticket_id, wait_s=0.0):
        raise TicketExpiredError(f"{ticket_id} after {wait_s}")

    site.gateway.result = result
    assert problem_of(site.ask("GET", "/v1/tickets/old")).status == 410


def test_a_cameras_results_come_page_by_page(site):
    """Names with a slash are names too."""
    response = site.ask("GET", "/v1/cameras/hall/belt-1/results", params={"cursor": "3.0", "wait_s": 1})
    page = CameraPageAnswer.model_validate(response.json())
    assert (page.cursor, page.num_missed, page.num_waiting, len(page.results)) == ("7.0", 2, 1, 1)
    assert site.gateway.asked == [("hall/belt-1", "3.0", 1.0)]


def test_the_status_is_that_of_the_command(site):
    """Scripts read the same keys."""
    status = site.ask("GET", "/v1/status").json()
    assert status["outcomes"]["finished"] == 311_022
    assert [pool["pool"] for pool in status["pools"]] == ["near", "wide", "archive"]


def test_ready_and_live_are_two_questions(site):
    """A service that warms is alive."""
    site.gateway.ready = Readiness(is_ready=False, reasons=("pool cpu: no replica serves",))
    ready = site.ask("GET", "/v1/health/ready")
    assert (ready.status_code, ready.json()) == (503, {"is_ready": False, "reasons": ["pool cpu: no replica serves"]})
    assert site.ask("GET", "/v1/health/live").status_code == 200
    site.gateway.ready = Readiness(is_ready=True)
    assert site.ask("GET", "/v1/health/ready").status_code == 200


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/nothing", 404), ("GET", "/v1/detect", 405)])
def test_a_path_or_method_that_is_not_there_is_a_problem_too(site, method, path, status):
    """One shape for all."""
    problem = problem_of(site.ask(method, path))
    assert problem.status == status
    assert "/openapi.json" in problem.detail


def test_below_v2_errors_are_of_that_protocol(site):
    """Its clients read `error`."""
    response = site.ask("GET", "/v2/nothing")
    assert response.status_code == 404
    assert set(response.json()) == {"error"}


def test_the_document_tells_of_every_path_with_examples(site):
    """And its examples are answers as the models have them."""
    document = site.ask("GET", "/openapi.json").json()
    ours = {path for path in document["paths"] if path.startswith("/v1")}
    assert ours == {
        "/v1/detect", "/v1/tickets", "/v1/tickets/{ticket_id}", "/v1/cameras/{camera}/results", "/v1/status",
        "/v1/health/live", "/v1/health/ready",
    }  # fmt: skip
    detect = document["paths"]["/v1/detect"]["post"]
    assert set(detect["requestBody"]["content"]) == {
        "image/jpeg", "image/png", "application/octet-stream", "multipart/form-data",
    }  # fmt: skip
    FrameAnswer.model_validate(detect["responses"]["200"]["content"]["application/json"]["example"])
    rejected = detect["responses"]["429"]["content"]["application/problem+json"]["example"]
    assert Problem.model_validate(rejected).status == 429
    assert {"Problem", "FrameAnswer"} <= set(document["components"]["schemas"])


def test_nobodys_page_may_call_unless_the_plan_names_it(tmp_path):
    """Browsers are told nothing by default."""
    ask = {"headers": {"origin": "https://line.example", "access-control-request-method": "POST"}}
    closed = Site(plan_of(tmp_path)).ask("OPTIONS", "/v1/detect", **ask)
    assert "access-control-allow-origin" not in closed.headers
    opened = Site(plan_of(tmp_path, cors_origins=["https://line.example"]))
    assert opened.ask("OPTIONS", "/v1/detect", **ask).headers["access-control-allow-origin"] == "https://line.example"
    other = {"headers": ask["headers"] | {"origin": "https://other.example"}}
    assert "access-control-allow-origin" not in opened.ask("OPTIONS", "/v1/detect", **other).headers


def test_frames_are_served_beside_each_other(site):
    """A hundred at once, none lost, none mixed up."""

    async def scenario():
        async with site.client() as client:
            sent = [
                client.post("/v1/detect", content=jpeg((16 + n, 32)), params={"camera": f"c{n}"},
                            headers={"content-type": "image/jpeg"})
                for n in range(100)
            ]  # fmt: skip
            return await asyncio.gather(*sent)

    answers = [response.json() for response in asyncio.run(scenario())]
    assert [(answer["camera"], answer["size_hw"][0]) for answer in answers] == [(f"c{n}", 16 + n) for n in range(100)]
    assert site.app.state.door.num_requests == site.app.state.door.num_bytes == 0
    assert ADMITTED.kind is VerdictKind.ADMIT
