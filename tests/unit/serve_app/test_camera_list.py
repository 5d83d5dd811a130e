"""Lists of cameras in YAML: what they may say, and errors that help and tell no password."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.plan import Keep
from serve_app.streams.camera_list import cameras_from, load_cameras
from serve_app.streams.camera_spec import CameraListError, CameraSpec

LIST = """\
defaults: {max_fps: 10, stall_s: 5}
cameras:
  gate: rtsp://user:secret@10.0.0.7/stream1
  Überwachung 東: {source: clips/belt.mp4, realtime: true, priority: critical, slo_s: 0.5, keep: all}
  desk: 0
  slow: {source: pictures, fps: 2, max_fps: 1, loop: true, record: false}
"""


def test_a_list_says_all_that_the_command_line_says(tmp_path):
    """Short and long form, defaults, paths beside the list."""
    (tmp_path / "cameras.yaml").write_text(LIST, encoding="utf-8")
    shared = {"max_fps": 10.0, "stall_s": 5.0}
    assert load_cameras(tmp_path / "cameras.yaml") == [
        CameraSpec("rtsp://user:secret@10.0.0.7/stream1", name="gate", **shared),
        CameraSpec(
            str(tmp_path / "clips/belt.mp4"), name="Überwachung 東", realtime=True, priority="critical", slo_s=0.5,
            keep=Keep.ALL, **shared,
        ),
        CameraSpec("0", name="desk", **shared),
        CameraSpec(str(tmp_path / "pictures"), name="slow", fps=2.0, max_fps=1.0, loop=True, record=False, stall_s=5.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            {"cameras": {"a": {"source": "x", "prioirty": "critical"}}},
            "cameras.a.prioirty: unknown key; did you mean 'priority'",
        ),
        ({"camera": {}}, "camera: unknown key; did you mean 'cameras'"),
        ({"cameras": {"a": "x"}, "defaults": {"fsp": 1}}, "defaults.fsp: unknown key; did you mean 'fps'"),
        ({"cameras": {"a": "x"}, "defaults": {"source": "x"}}, "defaults.source: unknown key"),
        ({}, "cameras: is missing"),
        ({"cameras": {}}, "at least 1 item"),
        ({"cameras": ["x"]}, "cameras: got list"),
        ({"cameras": {"a": {}}}, "cameras.a.source: is missing"),
        ({"cameras": {"a": None}}, "cameras.a: got NoneType"),
        ({"cameras": {"a": ""}}, "cameras.a.source: got str"),
        ({"cameras": {"a": {"source": "x", "fps": 0}}}, "cameras.a.fps: got 0, input should be greater than 0"),
        ({"cameras": {"a": {"source": "x", "fps": True}}}, "cameras.a.fps: got 'True'"),
        ({"cameras": {"a": {"source": "x", "max_fps": float("inf")}}}, "cameras.a.max_fps"),
        ({"cameras": {"a": {"source": "x", "priority": "urgent"}}}, "'critical' or 'normal'"),
        ({"cameras": {"a": {"source": "x", "fps": 5, "realtime": True}}}, "camera a: fps and realtime"),
        ({"cameras": {" ": "x"}}, "got the name ' '"),
        ("a text", "got str, allowed is a mapping"),
    ],
)  # fmt: skip
def test_a_wrong_list_is_told(content, words):
    """The place, what was got, what is allowed or meant."""
    with pytest.raises(CameraListError) as raised:
        cameras_from(content, Path())
    assert words in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "cameras: {a: 'rtsp://u:secret@h/x', a: 'rtsp://u:secret@h/y'}",
        "cameras: {a: {source: [rtsp://u:secret@h/x]}}",
        "cameras: {a: {source: 'rtsp://u:secret@h/x', loop: true}}",
        "cameras: {a: {source: x, hwaccel: ['rtsp://u:secret@h/x']}}",
        "cameras: ['rtsp://u:secret@h/x']",
        "cameras: {a: rtsp://u:secret@h/x",
        "cameras:\n  a: 'rtsp://u:secret@h/x\n",
        "cameras: {a: !!python/object:os.system rtsp://u:secret@h/x}",
        "- 'rtsp://u:secret@h/x'",
    ],
)
def test_no_error_repeats_a_password(tmp_path, text):
    """Not even that of YAML itself, which quotes lines."""
    (tmp_path / "list.yaml").write_text(text)
    with pytest.raises(CameraListError) as raised:
        load_cameras(tmp_path / "list.yaml")
    assert "list.yaml" in str(raised.value)
    assert "secret" not in repr(raised.value) + repr(raised.value.__cause__)


@pytest.mark.parametrize(
    "make", [lambda _: None, lambda path: path.mkdir(), lambda path: path.write_bytes(b"\xff\xfe:")]
)
def test_a_list_that_cannot_be_read_is_told(tmp_path, make):
    """Missing, a folder, no UTF-8."""
    make(tmp_path / "list.yaml")
    with pytest.raises(CameraListError, match=r"cameras .*list\.yaml: "):
        load_cameras(tmp_path / "list.yaml")
