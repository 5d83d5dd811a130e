"""`framelane stream` as people run it: cameras that die and come back, a service that restarts, Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections import Counter

import cv2
import pytest
from camera_server import CameraServer

from framelane_inspection.scenes import draw_scene

pytestmark = pytest.mark.cluster

PLAN = """\
models: {light: "bundled:inspection-light"}
buckets:
  small: {canvases: [[128, 160]]}
  tiny: {canvases: [[96, 128]]}
slo_s: {critical: 30, normal: 60}
"""
PATIENCE_S = 150.0


class Running:
    """The command while it runs: its lines so far, and its end."""

    def __init__(self, framelane, folder, *arguments):
        self._results, self._errors = folder / "results.jsonl", folder / "errors.txt"
        with self._results.open("w") as results, self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [str(framelane.path), "stream", *map(str, arguments), "--json"],
                cwd=framelane.folder, env=framelane.environment, stdout=results, stderr=errors,
            )  # fmt: skip

    @property
    def lines(self):
        """Whole records so far."""
        return [json.loads(line) for line in self._results.read_text().splitlines(keepends=True) if line.endswith("\n")]

    @property
    def said(self):
        """Standard error so far."""
        return self._errors.read_text()

    def answers(self, camera):
        """How many frames of a camera were answered so far."""
        return sum(line["camera"] == camera and "gap" not in line for line in self.lines)

    def until(self, condition):
        """Look again and again; fails with what was said."""
        give_up_s = time.monotonic() + PATIENCE_S
        while not condition(self):
            assert self._process.poll() is None, self.said
            assert time.monotonic() < give_up_s, self.said
            time.sleep(0.1)

    def interrupted(self):
        """Ctrl-C; the exit status."""
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(60)

    def kill(self):
        """Whatever it is doing."""
        self._process.kill()
        self._process.wait()


@pytest.fixture
def clip(tmp_path):
    """A video of forty 128×160 frames, ten a second."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (160, 128))
    for seed in range(40):
        writer.write(draw_scene((128, 160), seed=seed).image_hwc)
    writer.release()
    return path


@pytest.fixture
def hosted(framelane, tmp_path):
    """A service of `framelane up` in a state folder of its own."""
    (tmp_path / "plan.yaml").write_text(PLAN)
    up = framelane("up", "plan.yaml")
    assert up.returncode == 0, up.stderr
    yield framelane
    framelane("down")


def assert_accounted(lines):
    """Each number of each camera is one answer's or in one gap, in order."""
    next_number = Counter()
    for line in lines:
        assert line["frame"] == next_number[line["camera"]]
        next_number[line["camera"]] += line["num_frames"] if "gap" in line else 1
    return next_number


@pytest.mark.timeout(500)
def test_cameras_and_the_service_go_and_come_back_and_nothing_is_unaccounted(hosted, clip, tmp_path):
    """A file with its own clock, one without, a network camera that is killed and one that never delivers."""
    (tmp_path / "empty.avi").write_bytes(b"")
    with CameraServer("128x96", 5) as camera, CameraServer("0x0") as silent:
        (tmp_path / "cameras.yaml").write_text(
            "defaults: {stall_s: 2}\n"
            "cameras:\n"
            f"  gate: {camera.address}\n"
            f"  never: {silent.address}\n"
            "  Band 東: {source: clip.avi, loop: true, realtime: true, max_fps: 4, priority: critical, slo_s: 30}\n"
            f"  file: {{source: {clip.name}, loop: true, max_fps: 4, slo_s: 60}}\n"
            "  empty: empty.avi\n",
            encoding="utf-8",
        )
        running = Running(hosted, tmp_path, "--cameras", "cameras.yaml", "--record", "recorded")
        try:
            running.until(lambda now: min(now.answers(name) for name in ("gate", "Band 東", "file")) > 3)
            camera.kill()
            running.until(
                lambda now: any(line["camera"] == "gate" and line.get("gap") == "reconnecting" for line in now.lines)
            )
            before = {name: running.answers(name) for name in ("gate", "Band 東", "file")}
            running.until(lambda now: min(now.answers(name) - before[name] for name in ("Band 東", "file")) > 3)
            camera.start()
            running.until(lambda now: now.answers("gate") > before["gate"] + 3)

            assert hosted("down").returncode == 0
            running.until(
                lambda now: any(line.get("gap") == "service away" for line in now.lines) or "away" in now.said
            )
            up = hosted("up", "plan.yaml")
            assert up.returncode == 0, up.stderr
            before = {name: running.answers(name) for name in ("gate", "Band 東", "file")}
            running.until(lambda now: min(now.answers(name) - before[name] for name in before) > 3)
            assert running.interrupted() == 130
        finally:
            running.kill()
    lines = running.lines
    num_read = assert_accounted(lines)
    assert num_read["never"] == num_read["empty"] == 0
    causes = {name: {line["gap"] for line in lines if line["camera"] == name and "gap" in line} for name in num_read}
    assert "reconnecting" in causes["gate"]
    assert "service away" in causes["gate"] | causes["Band 東"]
    # A file waits for the service: it loses nothing, and says that it waited.
    assert [line["num_frames"] for line in lines if line["camera"] == "file" and "gap" in line] in ([0], [])
    assert causes["empty"] == {"lost"}
    assert causes["never"] == {"reconnecting"}
    assert "secret" not in running.said + running._results.read_text()
    assert "Traceback" not in running.said
    for name in ("gate", "Band_東", "file"):
        capture = cv2.VideoCapture(str(tmp_path / "recorded" / f"{name}.mp4"))
        assert capture.read()[0]
        capture.release()


def test_a_wrong_list_of_cameras_is_told_before_anything_starts(framelane, tmp_path):
    """The nearest right key; both a list and sources; neither."""
    (tmp_path / "cameras.yaml").write_text("cameras: {gate: {source: 'rtsp://u:secret@h/x', prioirty: critical}}")
    wrong = framelane("stream", "--cameras", "cameras.yaml")
    assert (wrong.returncode, "secret" in wrong.stderr) == (1, False)
    assert "did you mean 'priority'" in " ".join(wrong.stderr.split())
    assert "allowed is the list alone" in " ".join(framelane("stream", "x.avi", "-c", "cameras.yaml").stderr.split())
    assert "allowed are one or more" in " ".join(framelane("stream").stderr.split())
