"""Reading traffic from files: what is taken, and what is refused with its line."""

from __future__ import annotations

import json

import pytest

from serve_app.errors import InvalidPlanError
from serve_app.frames import Priority
from serve_app.planning.traffic import SizeRate
from serve_app.planning.traffic_file import load_traffic, save_traffic

VGA, HD = (480, 640), (720, 1280)
HEAD = "height,width,rate_hz\n"


@pytest.fixture
def written(tmp_path):
    """Writes a file and returns its path."""

    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def refused(path):
    """What is told of this file, without its folder."""
    with pytest.raises(InvalidPlanError) as told:
        load_traffic(path)
    return str(told.value).replace(f"{path.parent}/", "")


# CSV


def test_a_csv_histogram_with_the_needed_columns(written):
    """All frames are normal, with the plan's deadlines."""
    path = written("a.csv", HEAD + "480,640,5\n720, 1280, 0.5\n")

    assert load_traffic(path) == (SizeRate(VGA, 5.0), SizeRate(HD, 0.5))


def test_a_csv_with_every_column_in_any_order(written):
    """As spreadsheets write it: with a byte order mark and Windows' line ends."""
    text = "\ufeffcamera,priority,slo_s,width,height,rate_hz\r\ngate-1,critical,0.2,640,480,5\r\n,,,1280,720,1\r\n"

    assert load_traffic(written("a.csv", text)) == (
        SizeRate(VGA, 5.0, Priority.CRITICAL, 0.2, "gate-1"),
        SizeRate(HD, 1.0),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("height,width\n", "line 1: got columns height, width, needed are height, width, rate_hz; name the columns"),
        ("", "line 1: got columns none, needed are"),
        ("height,width,rate_hz,prio\n", "line 1: unknown key 'prio'; did you mean 'priority'?"),
        ("height,height,width,rate_hz\n", "line 1: got 'height' more than once"),
        (HEAD + "480,640,5\n-480,640,5\n", "line 3: height: got '-480', allowed is a whole number of px"),
        (HEAD + "480,6e9,5\n", "line 2: width: got '6e9', allowed is a whole number of px from 1 to 16384"),
        (HEAD + "480,640.5,5\n", "line 2: width: got '640.5'"),
        (HEAD + "480,640,-5\n", "line 2: rate_hz: got '-5', allowed is a number of frames a second above 0"),
        (HEAD + "480,640,nan\n", "line 2: rate_hz: got 'nan', allowed is a number of frames a second"),
        (HEAD + "480,640,0\n", "line 2: rate_hz: got '0'"),
        (HEAD + "480,640\n", "line 2: got a number of values other than the 3 columns allowed"),
        (HEAD + "480,640,5,6\n", "line 2: got a number of values other than the 3 columns allowed"),
        ("height,width,rate_hz,slo_s\n480,640,5,0\n", "line 2: slo_s: got '0', allowed is a number of seconds"),
        ("height,width,rate_hz,priority\n480,640,5,urgent\n", "line 2: priority: got 'urgent', allowed is"),
        (HEAD + '480,"640"x,5\n', "line 2: is no CSV"),
    ],
)  # fmt: skip
def test_a_csv_that_is_wrong_is_refused_with_its_line(written, text, message):
    """What, got, allowed."""
    assert message in refused(written("a.csv", text))


def test_saved_traffic_is_read_back(tmp_path):
    """Whole, to the last bit of its rates."""
    traffic = (SizeRate(VGA, 1 / 3, Priority.CRITICAL, 0.1, 'a "name", with commas'), SizeRate(HD, 2.0))
    save_traffic(tmp_path / "a.csv", traffic)

    assert load_traffic(tmp_path / "a.csv") == traffic


# YAML


def test_a_list_of_cameras(written):
    """Counts multiply rates."""
    path = written(
        "a.yaml",
        "cameras:\n"
        "- {name: gate, size: [480, 640], fps: 5, count: 3, priority: critical, slo_s: 0.2}\n"
        "- size: [720, 1280]\n  fps: 0.5\n",
    )

    assert load_traffic(path) == (SizeRate(VGA, 15.0, Priority.CRITICAL, 0.2, "gate"), SizeRate(HD, 0.5))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "got no mapping, allowed is one with the key 'cameras'"),
        ("", "got no mapping"),
        ("camras: []", "line 1: unknown key 'camras'; did you mean 'cameras'?"),
        ("cameras: []", "cameras: got none, allowed is a list of one or more"),
        ("cameras: {a: 1}", "cameras: got none"),
        ("cameras:\n- 5\n", "line 2: got 5, allowed is a camera such as"),
        ("cameras:\n- {size: [480, 640]}\n", "line 2: fps missing"),
        ("cameras:\n- {size: [480, 640], fps: 5}\n- {size: [480, 640], fbs: 5}\n", "line 3: unknown key 'fbs'; did"),
        ("cameras:\n- {size: 480, fps: 5}\n", "line 2: size: got 480, allowed is [height, width] in px"),
        ("cameras:\n- {size: [480, -640], fps: 5}\n", "line 2: width: got -640, allowed is a whole number of px"),
        ("cameras:\n- {size: [480, 640], fps: yes}\n", "line 2: fps: got True, allowed is a number"),
        ("cameras:\n- {size: [480, 640], fps: -1}\n", "line 2: fps: got -1"),
        ("cameras:\n- {size: [480, 640], fps: 1, count: 0}\n", "line 2: count: got 0"),
        ("cameras:\n- {size: [480, 640], fps: 1, slo_s: 0}\n", "line 2: slo_s: got 0, allowed is a number of seconds"),
        ("cameras:\n- {size: [480, 640], fps: 1, priority: [1]}\n", "line 2: priority: got [1], allowed is"),
        ("cameras: [", "is no YAML"),
    ],
)  # fmt: skip
def test_cameras_that_are_wrong_are_refused_with_their_line(written, text, message):
    """What, got, allowed."""
    assert message in refused(written("a.yaml", text))


# Frame logs


def line_of(at_s, size=VGA, **changes):
    """A record as the router writes it, in short."""
    record = {
        "camera": "gate", "source_hw": list(size), "canvas_hw": [480, 640], "priority": "normal", "slo_s": 1.0,
        "at_s": at_s, "total_ms": 100.0, "outcome": "finished",
    }  # fmt: skip
    return json.dumps(record | changes, ensure_ascii=False) + "\n"


def test_rates_of_a_log_are_counts_over_the_time_between_first_and_last_arrival(written):
    """Whatever became of the frames: what arrives must be planned for."""
    log = "".join(
        [
            line_of(100.0),
            line_of(104.0, HD, camera="belt", slo_s=None),
            line_of(102.0, outcome="expired", total_ms=9000.0),
            line_of(105.0, outcome="rejected", canvas_hw=None),
            line_of(110.0, priority="critical", slo_s=0.2),
        ]
    )

    assert load_traffic(written("a.jsonl", log)) == (
        SizeRate(VGA, 0.1, Priority.CRITICAL, 0.2, "gate"),
        SizeRate(VGA, 0.3, Priority.NORMAL, 1.0, "gate"),
        SizeRate(HD, 0.1, Priority.NORMAL, None, "belt"),
    )


def test_frames_that_were_refused_for_what_they_are_do_not_count(written):
    """A client may say anything, and the log repeats it; no plan could serve them."""
    wild = [{"source_hw": None}, {"priority": "urgent"}, {"slo_s": "soon"}, {"source_hw": [-1, 5]}]
    refused_lines = "".join(line_of(101.0, outcome="rejected", canvas_hw=None, **said) for said in wild)

    assert load_traffic(written("a.jsonl", line_of(100.0) + refused_lines + line_of(102.0))) == (
        SizeRate(VGA, 1.0, Priority.NORMAL, 1.0, "gate"),
    )


def test_deadlines_of_a_log_that_nearly_agree_are_one(written):
    """Each frame of a client that passes on the rest of a deadline has another one."""
    log = "".join(line_of(100.0 + index, slo_s=0.2 + index / 1e4) for index in range(11))

    assert load_traffic(written("a.jsonl", log)) == (SizeRate(VGA, 1.1, Priority.NORMAL, 0.2, "gate"),)


def test_a_camera_name_may_hold_what_looks_like_a_line_break(written):
    """The log writes it as it is."""
    path = written("a.jsonl", line_of(1.0, camera="a\u2028b") + line_of(2.0, camera="a\u2028b"))

    assert [entry.camera for entry in load_traffic(path)] == ["a\u2028b"]


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("", "got no frames, allowed is a log with two or more"),
        (line_of(1.0), "got frames of one moment"),
        (line_of(1.0) + '{"camera": "ga\n', "line 2: record: got '{\"camera\": \"ga', allowed is one JSON object"),
        (line_of(1.0) + "[1]\n", "line 2: record: got '[1]'"),
        (line_of(None), "line 1: at_s: got None, allowed is a number of seconds on the router's clock"),
        (line_of(50.0) + line_of(10.0), "line 2: out of order: got a frame that ended at 10.100 s after one at"),
        (line_of(1.0, priority="urgent"), "line 1: priority: got 'urgent', allowed is 'critical' or 'normal'"),
        (line_of(1.0, (-480, 640)), "line 1: source_hw height: got -480, allowed is a whole number of px from 1"),
        (line_of(1.0, source_hw=None), "line 1: source_hw: got None, allowed is [height, width] in px"),
        (line_of(1.0, slo_s=0), "line 1: slo_s: got 0, allowed is a number of seconds above 0"),
        (line_of(1.0, total_ms="x"), "line 1: total_ms: got 'x'"),
    ],
)  # fmt: skip
def test_a_log_that_is_wrong_is_refused_with_its_line(written, log, message):
    """Damaged, out of order, or with values that no router writes."""
    assert message in refused(written("a.jsonl", log))


# Files


def test_files_that_are_none_of_these_are_refused(written, tmp_path):
    """The kind, the place, the text."""
    assert refused(written("a.txt", "")) == (
        "traffic a.txt: got suffix '.txt', allowed are .csv, .jsonl, .log, .ndjson, .yaml, .yml"
    )
    assert refused(tmp_path / "none.csv").startswith("traffic none.csv: no such file or directory; give a frame log")
    assert "got bytes that are no text, allowed is UTF-8" in refused(written("a.csv", b"\xff\xfe\x00"))
