"""The real command, in processes of its own: what users type, and what they mistype."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from framelane_inspection.scenes import draw_scene

MODEL = "bundled:inspection-light"
PLAN = """\
models: {light: "bundled:inspection-light"}
buckets:
  vga: {canvases: [[480, 640]], batches: [1, 2]}
  small: {canvases: [[256, 320]]}
frame_log: frames.jsonl
"""


# Ray ends a process that puts a frame into a store which has gone; ours is told instead.
OUTLIVING_CLIENT = """
import sys
import numpy as np
from serve_app.client import Client
from serve_app.errors import ServiceUnavailableError

client = Client.connect()
frame = np.zeros((480, 640, 3), np.uint8)
print(client.detect(frame, slo_s=60).outcome.value, flush=True)
sys.stdin.read(1)
try:
    client.detect(frame)
except ServiceUnavailableError as err:
    print(err)
"""


@pytest.fixture
def pictures(tmp_path):
    """A folder with two scenes of different sizes as PNG."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, size_hw in (("a", (480, 640)), ("b", (256, 320))):
        cv2.imwrite(str(folder / f"{name}.png"), draw_scene(size_hw, seed=11).image_hwc)
    return folder


@pytest.fixture
def video(tmp_path):
    """A video of twelve 480×640 frames."""
    path = tmp_path / "belt.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (640, 480))
    for seed in range(12):
        writer.write(draw_scene((480, 640), seed=seed).image_hwc)
    writer.release()
    return path


def assert_told(process, *words):
    """The command failed with a message that holds all words, and without a traceback."""
    assert process.returncode == 1, process.stderr
    assert "Traceback" not in process.stderr + process.stdout
    for word in words:
        assert word in process.stderr


def test_detect_prints_one_json_object_a_line(framelane, pictures):
    """The documented keys, with boxes inside the image and one name, score and class a box."""
    process = framelane("detect", pictures / "a.png", pictures / "b.png", "--model", MODEL, "--json")
    assert process.returncode == 0, process.stderr
    records = [json.loads(line) for line in process.stdout.splitlines()]
    assert [record["source_hw"] for record in records] == [[480, 640], [256, 320]]
    assert [record["canvas_hw"] for record in records] == [[480, 640], [256, 320]]
    for record in records:
        assert set(record) == {
            "image", "canvas_hw", "source_hw", "boxes_xyxy", "scores", "class_ids", "class_names", "timings_ms",
        }  # fmt: skip
        boxes = np.array(record["boxes_xyxy"])
        assert len(boxes) == len(record["scores"]) == len(record["class_ids"]) == len(record["class_names"]) > 0
        assert (boxes >= 0).all()
        assert (boxes[:, 2] <= record["source_hw"][1]).all()
        assert min(record["scores"]) > 0.25


def test_detect_does_what_it_can_and_says_what_it_could_not(framelane, pictures, tmp_path):
    """Missing, truncated and no image: each named, the good one answered, exit status 1."""
    whole = cv2.imencode(".jpg", draw_scene((480, 640), seed=1).image_hwc)[1].tobytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no image")
    process = framelane("detect", "missing.jpg", "cut.jpg", "text.jpg", pictures / "a.png", "--model", MODEL, "--json")
    assert_told(process, "missing.jpg", "no such file", "cut.jpg", "truncated", "text.jpg", "3 of 4 images failed")
    assert [json.loads(line)["source_hw"] for line in process.stdout.splitlines()] == [[480, 640]]


def test_detect_takes_folders_and_tells_a_video_apart(framelane, pictures, video):
    """Each image of a folder by name; a video is no image, and the message names the command that plays it."""
    process = framelane("detect", pictures, video, "--model", MODEL, "--json")
    assert_told(process, "is a video by its name", "framelane stream", "1 of 3 images failed")
    assert [json.loads(line)["image"] for line in process.stdout.splitlines()] == [
        str(pictures / "a.png"), str(pictures / "b.png"),
    ]  # fmt: skip


def test_detect_writes_annotated_pictures(framelane, pictures, tmp_path):
    """One PNG an image, of the image's own size, with something drawn on it."""
    process = framelane("detect", pictures / "a.png", "--model", MODEL, "--save", tmp_path / "drawn")
    assert process.returncode == 0, process.stderr
    drawn, plain = cv2.imread(str(tmp_path / "drawn" / "a.png")), cv2.imread(str(pictures / "a.png"))
    assert drawn.shape == plain.shape
    assert (drawn != plain).any()


def no_detector(path):
    """A sound ONNX model that detects nothing."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", values[:1], values[1:])
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), str(path))
    return path


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("missing.onnx", ["missing.onnx", "no such file"]),
        ("text.onnx", ["text.onnx", "not a valid ONNX model"]),
        ("relu.onnx", ["relu.onnx", "allowed is one image batch"]),
        ("bundled:nope", ["bundled:nope", "bundled:inspection-light"]),
    ],
)
def test_a_model_that_is_none_is_told(framelane, pictures, tmp_path, model, words):
    """Missing, text, no detector, an unknown bundled name."""
    (tmp_path / "text.onnx").write_text("I am no model")
    no_detector(tmp_path / "relu.onnx")
    assert_told(framelane("detect", pictures / "a.png", "--model", model), *words)


@pytest.mark.parametrize(
    ("canvas", "words"),
    [
        ("100000x100000", ["10,000,000,000 px", "allowed are"]),
        ("481x640", ["481", "multiples of the model's stride, 32", "512x640"]),
        ("big", ["HEIGHTxWIDTH"]),
    ],
)
def test_a_canvas_that_the_model_cannot_take_is_told(framelane, pictures, canvas, words):
    """No multiple of the stride, and no size at all."""
    assert_told(framelane("detect", pictures / "a.png", "--model", MODEL, "--canvas", canvas), *words)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("canvases", "canvasses", ["buckets.vga.canvasses", "did you mean 'canvases'"]),
        ("[480, 640]", "[481, 640]", ["buckets.vga", "481", "512x640"]),
        ("inspection-light", "../nope.onnx", ["models.light"]),
        ("[1, 2]", "[2, 4]", ["buckets.vga.batches", "begin with 1"]),
        (PLAN, "- a list", ["allowed is a mapping"]),
        (PLAN, "{", ["no YAML"]),
    ],
    ids=["misspelt key", "no multiple of the stride", "no such model", "ladder without 1", "a list", "no yaml"],
)
def test_a_wrong_plan_is_told_before_anything_starts(framelane, tmp_path, old, new, words):
    """`up` names file, key, what it got and what is allowed."""
    (tmp_path / "plan.yaml").write_text(PLAN.replace(old, new))
    assert_told(framelane("up", "plan.yaml"), "plan plan.yaml: ", *words)


def test_a_plan_that_asks_for_more_than_the_machine_has_is_told(framelane, tmp_path):
    """Serve would wait for ever for CPUs that never come."""
    (tmp_path / "plan.yaml").write_text(PLAN + "pools: {cpu: {replicas: 500, cpus: 4}}\n")
    assert_told(framelane("up", "plan.yaml"), "500 replicas of 4 CPUs each", "no machine has room", "lower replicas")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.mp4"], ["nowhere.mp4", "no such file"]),
        (["belt.avi", "--priority", "urgent"], ["urgent", "'critical', 'normal'"]),
        (["belt.avi", "pictures", "--camera", "one"], ["--camera", "got 1 for 2 sources"]),
        (["belt.avi", "belt.avi", "--camera", "x", "--camera", "x"], ["a name twice"]),
        (["empty"], ["a folder without images"]),
        (["text.avi", "nowhere.mp4"], ["source text", "cannot be opened as video"]),
    ],
)
def test_a_wrong_stream_is_told_before_anything_starts(framelane, video, pictures, tmp_path, arguments, words):
    """Sources, priorities and names are checked first."""
    assert video.exists()
    assert pictures.exists()
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.avi").write_text("no video")
    assert_told(framelane("stream", *arguments, "--model", MODEL), *words)


def test_stream_answers_every_frame_of_every_camera(framelane, video, pictures, tmp_path):
    """A video and a folder of two sizes: a record a frame, all finished, no padding where the size is in the plan."""
    (pictures / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    process = framelane(
        "stream", video, pictures, "--model", MODEL, "--json", "--save", "drawn", "--priority", "critical"
    )
    lines = [json.loads(line) for line in process.stdout.splitlines()]
    records = [line for line in lines if "gap" not in line]
    cameras = [record["camera"] for record in records]
    assert (cameras.count("belt"), cameras.count("pictures")) == (12, 2)
    assert [record["frame"] for record in records if record["camera"] == "belt"] == list(range(12))
    (gap,) = (line for line in lines if "gap" in line)
    assert (gap["camera"], gap["gap"], gap["frame"], gap["num_frames"]) == ("pictures", "lost", 2, 1)
    assert {record["outcome"] for record in records} == {"finished"}
    assert {record["priority"] for record in records} == {"critical"}
    assert {record["padding_fraction"] for record in records} == {0.0}
    assert all(len(record["boxes_xyxy"]) == record["num_detections"] for record in records)
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == {"belt.png", "pictures.png"}
    assert_told(process, "cut.jpg", "truncated")  # what could be done was done; the exit status says that not all was


def test_a_service_comes_up_serves_and_goes(framelane, video, tmp_path):
    """up, status, stream, a second up, down, a second down."""
    (tmp_path / "plan.yaml").write_text(PLAN)
    try:
        up = framelane("up", "plan.yaml")
        assert up.returncode == 0, up.stderr
        status = framelane("status")
        assert status.returncode == 0, status.stderr
        assert "cpu-" in status.stdout
        assert_told(framelane("up", "plan.yaml"), "runs already")
        stream = framelane("stream", video, "--camera", "gate-1", "--limit", "5")
        assert stream.returncode == 0, stream.stderr
        assert "gate-1" in stream.stdout
        lines = (tmp_path / "frames.jsonl").read_text().splitlines()
        assert [json.loads(line)["camera"] for line in lines] == ["gate-1"] * 5
        assert re.search(r"finished +5 ", framelane("status").stdout)
        view = json.loads(framelane("status", "--json").stdout)
        assert view["outcomes"] == {"finished": 5}
        assert [(pool["pool"], pool["num_ready"], pool["num_wanted"]) for pool in view["pools"]] == [("cpu", 1, 1)]
        assert [node["state"] for node in view["nodes"]] == ["alive"]
        profile = framelane("profile", "--running", "--out", "learnt.json")
        assert profile.returncode == 0, profile.stderr
        assert {entry["model"] for entry in json.loads((tmp_path / "learnt.json").read_text())["entries"]} == {"light"}
        outliving = subprocess.Popen(
            [sys.executable, "-c", OUTLIVING_CLIENT], env=framelane.environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert outliving.stdout.readline() == "finished\n"
    finally:
        down = framelane("down")
    assert down.returncode == 0, down.stderr
    assert outliving.communicate("go on", timeout=60)[0] == "service: it was stopped; start it and connect again\n"
    assert outliving.returncode == 0
    assert_told(framelane("down"), "no service", "framelane up")
    assert_told(framelane("status", timeout_s=60), "framelane up")


def test_the_demo_leaves_pictures_and_a_record_a_frame(demo):
    """Exit status 0, five rows, five pictures and the sheet, and records of five cameras on four canvases."""
    process, folder = demo
    assert process.returncode == 0, process.stderr + process.stdout
    records = [json.loads(line) for line in (folder / "out" / "frames.jsonl").read_text().splitlines()]
    cameras = {"gate", "belt-1", "belt-2", "belt-3", "overview"}
    assert {record["camera"] for record in records} == cameras
    assert {record["model"] for record in records if record["camera"] == "overview"} == {"light"}
    assert all(camera in process.stdout for camera in cameras)
    assert max(record["padding_fraction"] for record in records) < 0.03
    pictures = {path.stem: cv2.imread(str(path)) for path in (folder / "out").glob("*.png")}
    assert set(pictures) == cameras | {"fleet"}
    assert pictures["belt-3"].shape == (1080, 1920, 3)


def test_export_without_its_extra_says_how_to_get_it(framelane):
    """The default install has no torch."""
    if importlib.util.find_spec("ultralytics") is not None:
        pytest.skip("the export extra is installed")
    assert_told(framelane("export", "best.pt"), "export extra", "framelane[export]")


def test_the_version_is_that_of_the_distribution(framelane):
    """One line."""
    assert framelane("--version").stdout.split() == ["framelane", importlib.metadata.version("framelane")]


def test_a_folder_that_cannot_be_made_is_told(framelane, tmp_path):
    """Operating system errors are words too."""
    (tmp_path / "file").write_text("")
    assert_told(framelane("demo", "--out", tmp_path / "file" / "out"), "file/out", "Not a directory")
