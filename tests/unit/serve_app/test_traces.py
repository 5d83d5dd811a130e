"""Traces: synthetic fleets, recorded logs, and what is said of damaged ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
from simulated_samples import sample_trace

from serve_app.errors import InvalidPlanError
from serve_app.simulation.trace_file import load_trace
from serve_app.simulation.traces import Bursts, CameraGroup, DayCurve, FleetSpec, Trace


def fleet(*groups, **changes) -> FleetSpec:
    """Thirty cameras of two sizes unless groups are given."""
    groups = groups or (
        CameraGroup("gate", 20, (480, 640), 5.0, critical_share=0.25, critical_slo_s=0.1),
        CameraGroup("belt", 10, (720, 1280), 2.0, normal_slo_s=0.5),
    )
    return FleetSpec(groups, **{"duration_s": 20.0} | changes)


def test_a_fleet_sends_what_its_groups_say():
    """Rates, sizes, names, shares and deadlines; in the order of time."""
    trace = fleet().at_load(1.0)

    assert len(trace) == pytest.approx(20 * 5 * 20 + 10 * 2 * 20, abs=30)
    assert np.bincount(trace.camera).tolist() == pytest.approx([100] * 20 + [40] * 10, abs=1)
    assert (trace.cameras[0], trace.cameras[-1]) == ("gate-1", "belt-10")
    assert {trace.sizes_hw[size] for size in trace.size[trace.camera >= 20]} == {(720, 1280)}
    assert trace.is_critical[trace.camera < 20].mean() == pytest.approx(0.25, abs=0.04)
    assert set(trace.slo_s[trace.is_critical]) == {0.1}
    assert np.isnan(trace.slo_s[~trace.is_critical & (trace.camera < 20)]).all()
    assert (np.diff(trace.at_s) >= 0).all()


def test_a_camera_keeps_its_time_but_for_the_jitter():
    """Even from a phase of its own: no two cameras in step, no frame of one before its last."""
    trace = fleet(CameraGroup("cam", 50, (480, 640), 4.0), jitter_fraction=0.1).at_load(1.0)

    gaps_s = np.concatenate([np.diff(trace.at_s[trace.camera == camera]) for camera in range(50)])
    firsts_s = [trace.at_s[trace.camera == camera][0] for camera in range(50)]
    assert (gaps_s.min(), gaps_s.max()) == (pytest.approx(0.2, abs=0.02), pytest.approx(0.3, abs=0.02))
    assert np.std(firsts_s) > 0.05


def test_the_same_seed_gives_the_same_trace_and_another_one_another():
    """A simulation can be repeated."""
    first, again, other = (fleet(seed=seed).at_load(1.3).at_s.tolist() for seed in (1, 1, 2))

    assert first == again
    assert first != other


def test_load_multiplies_the_rate_of_a_fleet_in_the_same_time():
    """And of a recorded trace by playing it faster."""
    spec, recorded = fleet(), sample_trace([0.0, 1.0, 2.0], duration_s=3.0)

    assert len(spec.at_load(2.5)) == pytest.approx(2.5 * len(spec.at_load(1.0)), rel=0.02)
    assert spec.at_load(2.5).duration_s == 20.0
    assert recorded.at_load(2.0).at_s.tolist() == [0.0, 0.5, 1.0]
    assert recorded.at_load(2.0).rate_hz == 2 * recorded.rate_hz
    assert recorded.at_load(1.0) is recorded


def test_bursts_multiply_the_rate_for_their_time():
    """Two seconds of ten at four times the rate: 26 frames where there were ten."""
    trace = fleet(CameraGroup("cam", 10, (480, 640), 10.0, bursts=Bursts(10.0, 2.0, 4.0)), duration_s=30.0).at_load(1)

    counts = np.histogram(trace.at_s, np.arange(0, 30.25, 0.25))[0]
    assert len(trace) == pytest.approx(10 * 10 * 30 * 1.6, rel=0.01)
    assert counts.max() == pytest.approx(4 * np.median(counts), rel=0.15)
    assert (counts > 2 * np.median(counts)).sum() * 0.25 == pytest.approx(6.0, abs=1.0)


def test_a_day_curve_is_followed():
    """Nothing at midnight, twice the rate at noon, linear between."""
    trace = fleet(CameraGroup("cam", 20, (480, 640), 10.0), day=DayCurve((0.0, 2.0), length_s=20.0)).at_load(1.0)

    counts = np.histogram(trace.at_s, np.arange(0, 21, 2.0))[0]
    assert len(trace) == pytest.approx(20 * 10 * 20, rel=0.02)
    assert counts[4] == pytest.approx(2 * 20 * 10 * 0.9 * 2, rel=0.05)
    assert counts[0] < 0.15 * counts[4]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: CameraGroup("cam", 1, (-480, 640), 5.0), "fleet cam: size: got .-480, 640"),
        (lambda: CameraGroup("cam", 0, (480, 640), 5.0), "fleet cam: count: got 0, allowed is 1 or more"),
        (lambda: CameraGroup("cam", 1, (480, 640), 0.0), "fleet cam: fps: got 0"),
        (
            lambda: CameraGroup("cam", 1, (480, 640), 5.0, critical_share=2.0),
            "critical_share: got 2.0, allowed is 0 to",
        ),
        (lambda: CameraGroup("cam", 1, (480, 640), 5.0, normal_slo_s=0.0), "slo_s.normal: got 0.0, allowed is above 0"),
        (lambda: Bursts(1.0, 2.0, 3.0), "burst: got 2 s every 1 s"),
        (lambda: DayCurve((0.0, 0.0)), "day: got factors"),
        (lambda: DayCurve((1.0, 2.0), 0.0), "length of 0 s"),
        (lambda: fleet(jitter_fraction=0.6), "jitter: got 0.6"),
        (lambda: fleet(duration_s=0.0), "seconds: got 0"),
        (lambda: FleetSpec(()), "got no cameras"),
        (lambda: fleet(*[CameraGroup("cam", 1, (480, 640), 5.0)] * 2), "a name of its own"),
        (lambda: fleet().at_load(0.0), "load: got 0"),
        (lambda: fleet(duration_s=1e9).at_load(1.0), "allowed are 50,000,000"),
        (lambda: sample_trace([1.0, 0.5]), "frame 2: out of order: got 0.5.* after 1.0"),
        (lambda: sample_trace([1.0], slo_s=0.0), "frame 1: slo_s: got 0"),
        (lambda: sample_trace([-1.0]), "first frame at -1 s"),
        (lambda: sample_trace([1.0], canvas=(0, 5)), "sides of 1 px or more"),
    ],
)
def test_values_that_make_no_sense_are_refused(make, says):
    """What, got, allowed."""
    with pytest.raises(InvalidPlanError, match=says):
        make()


def test_columns_have_one_length():
    """A trace is made of rows."""
    good = sample_trace([1.0, 2.0])

    with pytest.raises(InvalidPlanError, match=r"columns of \[1, 2\] rows"):
        Trace(
            good.at_s[:1], good.camera, good.size, good.is_critical, good.slo_s, good.cameras, good.sizes_hw, 3.0
        )  # fmt: skip


# Files


def record(at_s=100.0, **changes) -> dict:
    """One line of a frame log, as far as traces read it."""
    return {
        "camera": "gate-1", "source_hw": [480, 640], "priority": "normal", "at_s": at_s, "slo_s": None,
        "outcome": "finished", "verdict": "admit", "total_ms": 20.0,
    } | changes  # fmt: skip


def log_of(tmp_path, *records):
    """A frame log; texts are lines as they are."""
    path = tmp_path / "frames.jsonl"
    path.write_text("\n".join(each if isinstance(each, str) else json.dumps(each) for each in records) + "\n")
    return path


def test_a_frame_log_is_a_trace_in_the_order_of_arrival(tmp_path):
    """Records stand in the order of ends; frames that were refused unread are left out, rejected ones are not."""
    path = log_of(
        tmp_path,
        record(100.5, total_ms=10.0),
        record(100.0, total_ms=900.0, priority="critical", slo_s=0.2, camera="belt"),
        record(101.0, outcome="rejected", verdict="reject", total_ms=0.0, source_hw=[720, 1280]),
        record(101.1, outcome="rejected", verdict=None, total_ms=0.0, source_hw=None),
    )

    trace = load_trace(path)

    assert trace.at_s.tolist() == [0.0, 0.5, 1.0]
    assert [trace.cameras[camera] for camera in trace.camera] == ["belt", "gate-1", "gate-1"]
    assert [trace.sizes_hw[size] for size in trace.size] == [(480, 640), (480, 640), (720, 1280)]
    assert trace.is_critical.tolist() == [True, False, False]
    assert trace.slo_s.tolist() == pytest.approx([0.2, np.nan, np.nan], nan_ok=True)
    assert trace.duration_s == 1.5


@pytest.mark.parametrize(
    ("second", "says"),
    [
        (record(90.0), "line 2: out of order: got a frame of 90.020 s after one of 100.020 s"),
        (record(99.9, total_ms=None), "line 2: out of order"),
        (record(101.0, source_hw=[-480, 640]), "line 2: source_hw height: got -480, allowed is a whole number of px"),
        (record(101.0, source_hw=None), "line 2: source_hw: got None"),
        (record(101.0, priority="urgent"), "line 2: priority: got 'urgent', allowed is 'critical' or 'normal'"),
        (record(101.0, slo_s=0), "line 2: slo_s: got 0, allowed is a number of seconds above 0"),
        (record(None), "line 2: at_s: got None, allowed is a number of seconds on the router's clock"),
        (record("soon"), "line 2: at_s: got 'soon'"),
        ("{half", "line 2: record: got '{half'"),
        (record(100.0), "frames of one moment"),
    ],
)
def test_a_damaged_log_is_told_with_its_line(tmp_path, second, says):
    """Out of order, negative sizes, unknown priorities, deadlines of 0, half lines."""
    with pytest.raises(InvalidPlanError, match=says):
        load_trace(log_of(tmp_path, record(), second))


def test_a_fleet_is_read_from_yaml(tmp_path):
    """All keys."""
    path = tmp_path / "fleet.yaml"
    path.write_text(
        "seconds: 12\njitter: 0.1\nseed: 7\nday: {factors: [0.5, 1, 0.7], length_s: 600}\n"
        "fleet:\n"
        "  - {name: gate, count: 3, size: [480, 640], fps: 5, critical_share: 0.2, slo_s: {critical: 0.1, normal: 2}}\n"
        "  - {size: [720, 1280], fps: 2.5, burst: {every_s: 30, length_s: 2, factor: 4}}\n"
    )

    assert load_trace(path) == FleetSpec(
        (
            CameraGroup("gate", 3, (480, 640), 5.0, 0.2, 0.1, 2.0),
            CameraGroup("group2", 1, (720, 1280), 2.5, bursts=Bursts(30.0, 2.0, 4.0)),
        ),
        12.0,
        DayCurve((0.5, 1.0, 0.7), 600.0),
        0.1,
        7,
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fleet:\n  - {size: [480, 640]}\n", "line 2: fps missing"),
        ("fleet:\n  - {size: [-480, 640], fps: 5}\n", "line 2: height: got -480"),
        ("fleet:\n  - {size: 480, fps: 5}\n", "line 2: size: got 480, allowed is"),
        ("fleet:\n  - {size: [480, 640], fps: 0}\n", "line 2: fps: got 0"),
        (
            "fleet:\n  - {size: [480, 640], fps: 5, critical: 0.1}\n",
            "unknown key 'critical'; did you mean 'critical_share'",
        ),
        ("fleet:\n  - {size: [480, 640], fps: 5, critical_share: 2}\n", "critical_share: got 2"),
        ("fleet:\n  - {size: [480, 640], fps: 5, slo_s: {normal: 0}}\n", "slo_s: got 0"),
        ("fleet:\n  - {size: [480, 640], fps: 5, slo_s: {urgent: 1}}\n", "unknown key 'urgent'"),
        ("fleet:\n  - {size: [480, 640], fps: 5, slo_s: 1}\n", "slo_s: got 1, allowed is a mapping"),
        ("fleet:\n  - {size: [480, 640], fps: 5, burst: {every_s: 1}}\n", "burst: length_s and factor missing"),
        (
            "fleet:\n  - {size: [480, 640], fps: 5, burst: {every_s: 1, length_s: 2, factor: 3}}\n",
            "length_s below every_s",
        ),
        ("fleet:\n  - 5\n", "line 2: group: got 5"),
        ("fleet: []\n", "fleet: got none"),
        ("seconds: 5\n", "fleet: got none"),
        ("seconds: 0\nfleet:\n  - {size: [480, 640], fps: 5}\n", "line 1: seconds: got 0"),
        ("seed: -1\nfleet:\n  - {size: [480, 640], fps: 5}\n", "seed: got -1"),
        ("jitter: 1\nfleet:\n  - {size: [480, 640], fps: 5}\n", "jitter: got 1"),
        ("day: {factors: [1]}\nfleet:\n  - {size: [480, 640], fps: 5}\n", "day.factors: got"),
        ("day: {factors: [-1, 2]}\nfleet:\n  - {size: [480, 640], fps: 5}\n", "day.factors: got"),
        ("fleets: 1\n", "unknown key 'fleets'; did you mean 'fleet'"),
        ("- 1\n", "got no mapping"),
        ("fleet: [\n", "is no YAML"),
    ],
)
def test_a_damaged_fleet_is_told_with_its_line(tmp_path, text, says):
    """What, got, allowed."""
    path = tmp_path / "fleet.yaml"
    path.write_text(text)

    with pytest.raises(InvalidPlanError, match=says):
        load_trace(path)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("trace.txt", b"", "got suffix '.txt', allowed are"),
        ("frames.jsonl", b"\xff\xfe\xff", "allowed is UTF-8"),
        ("frames.jsonl", b"\n", "got no frames"),
        ("frames.jsonl", None, "no such file"),
    ],
    ids=["suffix", "binary", "empty", "missing"],
)
def test_files_that_are_no_traces(tmp_path, name, content, says):
    """Each with what is allowed."""
    if content is not None:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(InvalidPlanError, match=says):
        load_trace(tmp_path / name)
