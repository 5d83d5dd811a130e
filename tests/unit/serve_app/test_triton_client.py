"""NVIDIA's own client, unchanged, on a real socket: it finds the model, and its arrays are the service's."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from protocol_world import LIMITS, PixelGateway, app_on, found_in, listening, picture

from serve_app.http.callers import KeyRule, hash_of
from serve_app.http.gateway import Readiness

tritonclient = pytest.importorskip("tritonclient.http")
utils = pytest.importorskip("tritonclient.utils")
InferInput, InferRequestedOutput = tritonclient.InferInput, tritonclient.InferRequestedOutput


@pytest.fixture(scope="module")
def gateway():
    """The service behind the door."""
    return PixelGateway()


@pytest.fixture(scope="module")
def address(gateway):
    """Where it listens."""
    with listening(app_on(gateway)) as address:
        yield address


@pytest.fixture
def triton(address, gateway):
    """A client of it."""
    gateway.asked.clear()
    with tritonclient.InferenceServerClient(address) as client:
        yield client


def raw_input(images_hwc, *, binary_data=True):
    """Images of one size as one tensor."""
    batch = np.stack(images_hwc)
    tensor = InferInput("images", batch.shape, "UINT8")
    return tensor.set_data_from_numpy(batch, binary_data=binary_data)


def encoded_input(images_hwc, suffix=".png"):
    """Images of any size as files."""
    files = np.array([cv2.imencode(suffix, image)[1].tobytes() for image in images_hwc], object)
    return InferInput("encoded_images", files.shape, "BYTES").set_data_from_numpy(files)


def assert_found(answer, images_hwc):
    """Every output holds what the service found on these frames, to the bit."""
    counts = answer.as_numpy("num_detections")
    boxes, scores, class_ids, names = (
        answer.as_numpy(name) for name in ("boxes_xyxy", "scores", "class_ids", "class_names")
    )
    assert (boxes.dtype, scores.dtype, class_ids.dtype, counts.dtype) == (np.float32, np.float32, np.int64, np.int32)
    for index, image_hwc in enumerate(images_hwc):
        expected, count = found_in(image_hwc), counts[index]
        assert count == len(expected)
        np.testing.assert_array_equal(boxes[index, :count], expected.boxes_xyxy)
        np.testing.assert_array_equal(scores[index, :count], expected.scores)
        np.testing.assert_array_equal(class_ids[index, :count], expected.class_ids)
        assert (boxes[index, count:] == 0).all()
        assert (class_ids[index, count:] == -1).all()
        told = [name.decode() if isinstance(name, bytes) else name for name in names[index]]
        assert told == [*(("scratch", "süßer Fleck")[i] for i in expected.class_ids), *[""] * (len(told) - count)]


def test_it_finds_the_model(triton):
    """Server, model, inputs, outputs, configuration, repository: all that the client asks before it infers."""
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("framelane")
    assert triton.is_model_ready("framelane", "1")
    assert triton.get_server_metadata()["name"] == "framelane"
    assert triton.get_model_repository_index() == [
        {"name": "framelane", "version": "1", "state": "READY", "reason": ""}
    ]
    metadata = triton.get_model_metadata("framelane", "1")
    assert {spec["name"]: (spec["datatype"], spec["shape"]) for spec in metadata["inputs"]} == {
        "images": ("UINT8", [-1, -1, -1, 3]),
        "encoded_images": ("BYTES", [-1]),
    }
    assert {spec["name"]: spec["shape"] for spec in metadata["outputs"]} == {
        "num_detections": [-1], "boxes_xyxy": [-1, -1, 4], "scores": [-1, -1], "class_ids": [-1, -1],
        "class_names": [-1, -1], "outcomes": [-1], "errors": [-1], "frame_ids": [-1], "models": [-1], "rungs": [-1],
    }  # fmt: skip
    config = triton.get_model_config("framelane")
    assert (config["max_batch_size"], config["input"][0]["dims"]) == (LIMITS.max_parts, [-1, -1, 3])


def test_a_service_that_is_not_ready_says_so(triton, gateway):
    """The client's own questions; the process lives all the same."""
    gateway.told = Readiness(is_ready=False, reasons=("no replica of pool cpu runs",))
    try:
        assert triton.is_server_live()
        assert not triton.is_server_ready()
        assert not triton.is_model_ready("framelane")
        assert triton.get_model_repository_index()[0]["state"] == "UNAVAILABLE"
    finally:
        gateway.told = Readiness(is_ready=True)


@pytest.mark.parametrize("binary_output", [True, False], ids=["binary out", "json out"])
@pytest.mark.parametrize("binary_data", [True, False], ids=["binary in", "json in"])
def test_a_batch_is_inferred(triton, binary_data, binary_output):
    """Binary or JSON, either way: to the bit the same arrays, whatever the number of boxes of each frame."""
    images = [picture(3), picture(0), picture(7)]
    names = ("num_detections", "boxes_xyxy", "scores", "class_ids", "class_names")
    outputs = [InferRequestedOutput(name, binary_data=binary_output) for name in names]
    answer = triton.infer("framelane", [raw_input(images, binary_data=binary_data)], outputs=outputs, request_id="r-1")
    assert_found(answer, images)
    assert answer.get_response()["id"] == "r-1"
    assert [output["name"] for output in answer.get_response()["outputs"]] == list(names)


def test_without_outputs_asked_for_all_come_as_binary(triton):
    """The client's default."""
    answer = triton.infer("framelane", [raw_input([picture(2)])], model_version="1")
    assert_found(answer, [picture(2)])
    assert answer.as_numpy("outcomes").tolist() == [b"finished"]
    assert answer.as_numpy("errors").tolist() == [b""]
    assert answer.as_numpy("models").tolist() == [b"full"]
    assert answer.as_numpy("rungs").tolist() == [1]
    assert answer.as_numpy("frame_ids").tolist() == [b"frame-1"]


def test_encoded_images_have_sizes_of_their_own(triton, gateway):
    """One request holds frames of several cameras' sizes."""
    images = [picture(1), picture(5, (64, 24)), picture(2, (100, 200))]
    assert_found(triton.infer("framelane", [encoded_input(images)]), images)
    assert [shape for shape, *_ in gateway.asked] == [(40, 56, 3), (64, 24, 3), (100, 200, 3)]


def test_frames_without_a_box_keep_their_dtypes(triton):
    """The client makes float64 of an output without bytes; there is always one row of padding."""
    answer = triton.infer("framelane", [raw_input([picture(0), picture(0)])])
    assert_found(answer, [picture(0), picture(0)])
    assert answer.as_numpy("boxes_xyxy").shape == (2, 1, 4)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_bodies_may_be_compressed_both_ways(triton, algorithm):
    """As the client offers it."""
    images = [picture(3), picture(60)]
    answer = triton.infer(
        "framelane", [raw_input(images)],
        request_compression_algorithm=algorithm, response_compression_algorithm=algorithm,
    )  # fmt: skip
    assert_found(answer, images)


def test_parameters_say_who_and_how_soon(triton, gateway):
    """The protocol's own priority (1 is the highest) and timeout (µs), or ours."""
    image = [raw_input([picture(0)])]
    triton.infer("framelane", image, priority=1, timeout=250_000, parameters={"camera": "gate-1"})
    triton.infer("framelane", image, priority=2, parameters={"camera": "gate-2", "slo_s": 1.5})
    triton.infer("framelane", image, query_params={"camera": "gate-3", "priority": "critical"})
    triton.infer("framelane", image)
    assert [rest for _, *rest in gateway.asked] == [
        ["gate-1", "critical", 0.25], ["gate-2", "normal", 1.5], ["gate-3", "critical", None],
        ["camera", "normal", None],
    ]  # fmt: skip


def test_asynchronous_calls_are_answered(triton):
    """The client's own way to have several in flight."""
    calls = [triton.async_infer("framelane", [raw_input([picture(n)])]) for n in range(4)]
    for n, call in enumerate(calls):
        assert_found(call.get_result(timeout=30), [picture(n)])


def test_a_frame_that_did_not_finish_fails_the_request(triton):
    """Nobody may take a frame that was refused for one without defects."""
    with pytest.raises(utils.InferenceServerException) as caught:
        triton.infer("framelane", [raw_input([picture(3), picture(0, refused=True)])])
    assert caught.value.status() == "429"
    assert caught.value.message() == "images[1]: no room for this frame (1 of 2 did not finish)"


def test_who_asks_for_it_gets_the_frames_that_finished(triton):
    """With a count that no loop takes for an empty frame unnoticed, and the outcome of each."""
    images = [picture(3), picture(0, refused=True)]
    answer = triton.infer("framelane", [raw_input(images)], parameters={"allow_partial": True})
    assert answer.as_numpy("num_detections").tolist() == [3, -1]
    assert answer.as_numpy("outcomes").tolist() == [b"finished", b"rejected"]
    assert answer.as_numpy("errors").tolist() == [b"", b"no room for this frame"]
    np.testing.assert_array_equal(answer.as_numpy("boxes_xyxy")[0, :3], found_in(images[0]).boxes_xyxy)


def test_what_is_not_served_is_refused_in_words(triton):
    """The client shows the server's sentence."""
    image = raw_input([picture(0)])
    shared = InferInput("images", [1, 8, 8, 3], "UINT8").set_shared_memory("region", 192)
    floats = np.zeros((1, 8, 8, 3), np.float32)
    as_floats = InferInput("images", floats.shape, "FP32").set_data_from_numpy(floats)
    for status, words, call in (
        ("404", "allowed is 'framelane'", lambda: triton.infer("yolo", [image])),
        ("404", "allowed is '1'", lambda: triton.infer("framelane", [image], model_version="2")),
        ("400", "did you mean boxes_xyxy", lambda: triton.infer(
            "framelane", [image], outputs=[InferRequestedOutput("boxes_xyxyx")])),
        ("400", "got shared memory", lambda: triton.infer("framelane", [shared])),
        ("400", "allowed is UINT8 of shape", lambda: triton.infer("framelane", [as_floats])),
        ("400", "no state is kept", lambda: triton.infer("framelane", [image], sequence_id=7)),
        ("400", "did you mean camera", lambda: triton.infer("framelane", [image], parameters={"camra": "x"})),
        ("400", "allowed are up to 8 images", lambda: triton.infer("framelane", [raw_input([picture(0)] * 9)])),
        ("413", "allowed are 200,000", lambda: triton.infer("framelane", [raw_input([picture(0, (400, 600))])])),
        ("422", "images[1]: image: got a truncated", lambda: triton.infer("framelane", [
            InferInput("encoded_images", [2], "BYTES").set_data_from_numpy(np.array([
                cv2.imencode(".png", picture(0))[1].tobytes(), cv2.imencode(".png", picture(0))[1].tobytes()[:-9],
            ], object))])),
    ):  # fmt: skip
        with pytest.raises(utils.InferenceServerException) as caught:
            call()
        assert (caught.value.status(), words in caught.value.message()) == (status, True), caught.value.message()


def test_a_key_opens_the_door():
    """As a header or by a plugin of the client; health needs none."""
    rules = [KeyRule("line", hash_of("s3cret"), cameras=("gate-*",))]
    with (
        listening(app_on(PixelGateway(), rules=rules)) as address,
        tritonclient.InferenceServerClient(address) as client,
    ):
        assert client.is_server_ready()
        with pytest.raises(utils.InferenceServerException, match="key: got none"):
            client.get_model_metadata("framelane")
        key = {"authorization": "Bearer s3cret"}
        image = [raw_input([picture(1)])]
        for refused in ({"priority": 1, "parameters": {"camera": "gate-1"}}, {"parameters": {"camera": "yard"}}):
            with pytest.raises(utils.InferenceServerException) as caught:
                client.infer("framelane", image, headers=dict(key), **refused)
            assert caught.value.status() == "403"
        answer = client.infer("framelane", image, headers=dict(key), parameters={"camera": "gate-1"})
        assert_found(answer, [picture(1)])
