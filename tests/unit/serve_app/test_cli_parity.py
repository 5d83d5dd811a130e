"""`framelane parity` from the command line: what it compares, prints and answers."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from engines.base import EngineOutput
from engines.detections import Detections
from engines.engine_spec import Precision
from engines.errors import EngineError, ImageFileError, ModelFileError
from engines.fake import FakeEngine
from engines.spec import CanvasShape, WarmShape
from framelane_inspection.scenes import draw_scene
from serve_app import check_frames
from serve_app.cli import app as framelane
from serve_app.cli import parity as parity_command
from serve_app.cli.parity import RUNNERS, Runner
from serve_app.errors import FramelaneError

MODEL = "bundled:inspection-light"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    alone = typer.Typer()
    alone.command()(parity_command.parity)

    def call(*args):
        answer = CliRunner().invoke(alone, [str(arg) for arg in args], env={"COLUMNS": "120"})
        if isinstance(answer.exception, (FramelaneError, EngineError)):
            raise answer.exception
        return answer

    return call


@pytest.fixture
def pictures(tmp_path):
    """A folder with two scenes, and a file that is no image."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, size_hw in (("a.png", (320, 320)), ("b.png", (320, 448))):
        cv2.imwrite(str(folder / name), draw_scene(size_hw, 8).image_hwc)
    (folder / "notes.txt").write_text("none")
    return folder


@pytest.fixture
def asked(monkeypatch):
    """A registered runner without a precision of its own; records what it was asked for, and finds one box."""
    made = []
    one = Detections(np.array([[1, 1, 9, 9]], np.float32), np.array([0.9], np.float32), np.array([0]))

    class Finder(FakeEngine):
        def infer(self, batch_nhwc):
            return EngineOutput([one] * len(batch_nhwc), run_s=0.0, decode_s=0.0)

    def make(path, precision, shapes):
        made.append((path.name, precision, list(shapes)))
        return Finder({}, sleep=lambda _: None)

    monkeypatch.setitem(RUNNERS, "other", Runner(make, None))
    return made


def test_fp16_and_fp32_are_the_same_on_given_frames(run, pictures):
    """One row a frame, a verdict with figures, exit status 0; what is no image is passed over."""
    answer = run(MODEL, "--frames", pictures)
    assert answer.exit_code == 0
    lines = answer.stdout.splitlines()
    assert [line.split()[0] for line in lines if ".png" in line] == ["a.png", "b.png"]
    assert lines[-1].startswith("same: onnx-fp16 and onnx-fp32: ")
    assert "notes" not in answer.stdout
    assert "drawn scenes" not in answer.stdout


def test_frames_may_be_files_and_folders(run, pictures):
    """In the order in which they are named."""
    answer = run(MODEL, "--frames", pictures / "b.png", "--frames", pictures)
    names = [line.split()[0] for line in answer.stdout.splitlines() if ".png" in line]
    assert names == ["b.png", "a.png", "b.png"]


def test_without_frames_it_draws_scenes_and_says_so(run, monkeypatch):
    """Anybody can try it."""
    monkeypatch.setattr(check_frames, "SCENE_SIZES_HW", ((320, 320), (320, 480)))
    answer = run(MODEL)
    assert answer.exit_code == 0
    assert "No --frames: comparing on 2 drawn scenes of an inspection line." in answer.stdout
    assert "scene 320×480" in answer.stdout


def test_beyond_the_tolerance_the_exit_status_is_1(run, pictures):
    """And the verdict names the frame, the box, what was got and what is allowed."""
    answer = run(MODEL, "--frames", pictures, "--min-iou", "1")
    assert answer.exit_code == 1
    verdict = answer.stdout.splitlines()[-1]
    assert verdict.startswith("differ: onnx-fp16 and onnx-fp32: a.png, box (")
    assert "allowed is 1.0000 or more, and " in verdict


def test_a_runner_compared_with_itself_is_the_same(run, pictures):
    """No box differs at all, so the strictest tolerance passes."""
    answer = run(
        MODEL, "--frames", pictures, "--runner", "onnx-fp16", "--runner", "onnx-fp16",
        "--min-iou", "1", "--max-score-difference", "0",
    )  # fmt: skip
    assert answer.exit_code == 0


def test_a_registered_runner_is_asked_for_model_precision_and_all_shapes(run, pictures, asked):
    """So that one that builds knows everything beforehand."""
    answer = run(MODEL, "--frames", pictures, "--runner", "other", "--precision", "fp16")
    assert asked == [
        (
            "inspection-light.onnx",
            Precision.FP16,
            [WarmShape(CanvasShape(320, 320), 1), WarmShape(CanvasShape(320, 448), 1)],
        )
    ]
    assert answer.exit_code == 1  # it does not find what the model finds
    assert "differ: other and onnx-fp32: a.png" in answer.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        pytest.param(["--runner", "onnx-fp15"], "got 'onnx-fp15', allowed are onnx-fp32, onnx-fp16", id="unknown"),
        pytest.param(["--runner", "onnx-fp32"], "two runners, or one to compare with onnx-fp32", id="lonely"),
        pytest.param(["--runner", "onnx-fp16"] * 3, "allowed are two runners", id="three"),
        pytest.param(["--precision", "as_is"], "each know only their own", id="precision-that-nobody-takes"),
    ],
)
def test_runners_that_cannot_be_compared_are_refused(run, pictures, args, message):
    """Before anything runs."""
    with pytest.raises(FramelaneError, match=message):
        run(MODEL, "--frames", pictures, *args)


def test_a_folder_without_an_image_is_refused(run, tmp_path):
    """The message says which files count."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(FramelaneError, match=r"empty without an image, allowed are files of .*\.jpg"):
        run(MODEL, "--frames", tmp_path / "empty")


def test_a_missing_frame_is_named(run):
    """As everywhere."""
    with pytest.raises(ImageFileError, match=r"none\.png: no such file"):
        run(MODEL, "--frames", "none.png")


def test_a_missing_model_is_named(run):
    """Before frames are drawn."""
    with pytest.raises(ModelFileError, match=r"none\.onnx: no such file"):
        run("none.onnx")


def test_frames_that_show_nothing_prove_nothing(run, tmp_path):
    """Two runners that find nothing agree for free, so that is an error and no verdict."""
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((64, 64, 3), 114, np.uint8))
    with pytest.raises(FramelaneError, match=r"got no box of inspection-light.onnx on 1 frames.*part, hole"):
        run(MODEL, "--frames", "grey.png")


def test_framelane_knows_the_command():
    """It is registered."""
    answer = CliRunner().invoke(framelane, ["parity", "--help"])
    assert answer.exit_code == 0
    assert "Compare two runners of a model" in answer.stdout
