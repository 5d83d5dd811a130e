"""What a report says of its logs."""

from __future__ import annotations

import math
import tracemalloc
from collections import Counter

import pytest
from report_samples import figures_of, record, unfinished, write
from simulated_log import records, simulated_run, write_log

from serve_app.planning.traffic_file import load_traffic
from serve_app.report import log_figures
from serve_app.report.log_figures import OTHER_CAMERAS, read_logs
from serve_app.report.timeline import ENDS, MAX_STEPS, VERDICTS


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Half a minute of an overloaded fleet: the records, and what is read of them."""
    content = records(simulated_run(30.0, 6.0))
    return content, read_logs([write_log(tmp_path_factory.mktemp("log") / "frames.jsonl", content)])


def test_every_record_is_counted_once_in_every_way(simulated):
    """By class and size, by camera, by verdict, over time."""
    content, figures = simulated
    (clock,) = figures.clocks
    series = clock.timeline.series()

    assert figures.num_frames == len(content) > 1000
    assert figures.whole().counts.num_frames == len(content)
    assert Counter(record["camera"] for record in content) == {
        name: camera.num_frames for name, camera in figures.cameras.items()
    }
    assert sum(figures.verdicts.values()) == len(content)
    assert sum(map(sum, series.ends)) == sum(map(sum, series.verdicts)) == len(content)
    assert sum(map(sum, series.rungs)) == sum(record["outcome"] == "finished" for record in content)
    assert series.num_steps <= MAX_STEPS


def test_shares_sums_and_quantiles_are_those_of_the_records(simulated):
    """Worked out here in the plain way."""
    content, figures = simulated
    for name in ("critical", "normal", "deferred"):
        of_class = [
            record for record in content
            if ("deferred" if record["verdict"] == "defer" else record["priority"]) == name
        ]  # fmt: skip
        took_ms = sorted(record["total_ms"] for record in of_class if record["outcome"] == "finished")
        group = figures.class_group(name)
        in_time = [r for r in of_class if r["outcome"] == "finished" and r["total_ms"] <= r["slo_s"] * 1000]
        assert group.counts.in_time_fraction == pytest.approx(len(in_time) / len(of_class))
        assert group.total.mean == pytest.approx(math.fsum(took_ms) / len(took_ms) / 1000)
        exact_ms = took_ms[math.ceil(0.95 * len(took_ms)) - 1]
        assert group.total.quantile(0.95) == pytest.approx(exact_ms / 1000, rel=0.0101)
        queue_ms = math.fsum(record["queue_ms"] for record in of_class if record["outcome"] == "finished")
        assert group.stages[0].sum == pytest.approx(queue_ms / 1000)


def test_the_traffic_is_that_of_the_planners_own_reader(simulated, tmp_path):
    """`framelane plan --check` and the report see the same rates."""
    content, figures = simulated

    assert figures.traffic == load_traffic(write_log(tmp_path / "frames.jsonl", content))


def test_one_line_is_enough(tmp_path):
    """It has figures, and no rate."""
    figures = figures_of(tmp_path, record())

    assert (figures.num_frames, figures.rate_hz, figures.traffic) == (1, 0.0, ())
    assert figures.whole().total.quantile(0.99) == pytest.approx(0.1)


def test_clocks_of_several_logs_are_never_compared(tmp_path):
    """Two machines that started days apart: each has a course of its own, and the rates add up."""
    one = write(tmp_path / "one.jsonl", *(record(at_s=10.0 + n, router="r-1") for n in range(11)))
    other = write(tmp_path / "two.jsonl", *(record(at_s=9e5 + n / 2, router="r-2") for n in range(21)))
    figures = read_logs([one, other])

    assert [(clock.router, clock.num_frames, clock.span.seconds) for clock in figures.clocks] == [
        ("r-1", 11, 10.0), ("r-2", 21, 10.0),
    ]  # fmt: skip
    assert figures.observed_s == 10.0
    assert figures.rate_hz == pytest.approx(11 / 10 + 21 / 10)


def test_routers_of_two_machines_in_one_file_have_clocks_of_their_own(tmp_path):
    """A folder that machines share: the lines lie among each other's, their times are far apart."""
    lines = [record(at_s=start_s + n, router=name) for n in range(11) for name, start_s in (("a", 10.0), ("b", 9e5))]
    figures = figures_of(tmp_path, *lines)

    assert [(clock.router, clock.span.seconds) for clock in figures.clocks] == [("a", 10.0), ("b", 10.0)]
    assert figures.observed_s == 10.0
    assert figures.rate_hz == pytest.approx(2.2)


def test_a_clock_that_goes_back_begins_anew(tmp_path):
    """The machine was restarted and the log goes on; the two runs followed each other."""
    lines = [record(at_s=start_s + n, router=None) for start_s in (5000.0, 20.0) for n in range(11)]
    figures = figures_of(tmp_path, *lines)

    assert [clock.num_frames for clock in figures.clocks] == [11, 11]
    assert figures.observed_s == 20.0


def test_records_of_a_client_have_no_times_and_all_else(tmp_path):
    """`framelane stream --json` writes them."""
    figures = figures_of(tmp_path, record(at_s=None, slo_s=None), record(at_s=None, slo_s=None))

    assert figures.whole().counts.in_time_fraction is None
    assert figures.whole().ends[ENDS.index("finished")] == 2
    assert not figures.clocks[0].span.is_known


def test_what_is_superseded_or_fails_is_told_apart(tmp_path):
    """Each end in its own place."""
    ends = ("rejected", "expired", "superseded", "cancelled", "failed")
    figures = figures_of(tmp_path, record(), record(total_ms=1500.0), *(unfinished(end) for end in ends))

    assert dict(zip(ENDS, figures.whole().ends, strict=True)) == dict.fromkeys(ENDS, 1) | {"finished": 0}
    assert figures.whole().counts.in_time_fraction == pytest.approx(1 / 7)
    assert figures.verdicts["normal", VERDICTS.index("admit")] == 7


def test_a_fleet_without_end_fills_no_memory(tmp_path, monkeypatch):
    """Each line names another camera, size, reason and router: the rest is put together, and all are counted."""
    for name in ("MAX_CAMERAS", "MAX_GROUPS", "MAX_PLACES", "MAX_CLOCKS", "MAX_ENTRIES"):
        monkeypatch.setattr(log_figures, name, 50)
    lines = [
        record(at_s=float(n), camera=f"c{n}", source_hw=[100 + n, 100], bucket=f"b{n}", replica=f"r{n}", slo_s=1 + n,
               router=f"router-{n}", verdict="degrade", verdict_reason=f"{chr(33 + n % 90) * (n % 40)} of {n}")
        for n in range(4000)
    ]  # fmt: skip
    path = write(tmp_path / "frames.jsonl", *lines)
    tracemalloc.start()
    figures = read_logs([path])
    most_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert most_bytes < 20e6
    assert len(figures.cameras) == 51
    assert figures.cameras[OTHER_CAMERAS].num_frames == 3950
    assert figures.whole().counts.num_frames == 4000
    assert (len(figures.clocks), figures.has_more_clocks, figures.knows_cameras) == (50, True, False)
    assert sum(reason.num_frames for reason in figures.reasons.most_frequent()) == 4000
    assert len(figures.reasons.most_frequent()) <= 201


def test_reasons_that_differ_in_numbers_are_one(tmp_path):
    """With the first one as the example."""
    late = [unfinished("expired", error=f"expired after {n}.5 s", camera=f"c{n}") for n in range(5)]
    (reason,) = figures_of(tmp_path, record(), *late).reasons.most_frequent()

    assert (reason.what, reason.example, reason.num_frames, reason.camera) == (
        "expired",
        "expired after 0.5 s",
        5,
        "c0",
    )


def test_padding_is_weighted_by_the_pixels_that_were_computed(tmp_path):
    """A full-HD canvas that is half empty counts more than a full VGA one; tiles as many times as there are."""
    figures = figures_of(
        tmp_path, record(), record(canvas_hw=[1088, 1920], padding_fraction=0.5),
        record(canvas_hw=[640, 640], num_tiles=3, padding_fraction=0.25),
    )  # fmt: skip
    vga, full, tile = 480 * 640, 1088 * 1920, 3 * 640 * 640

    assert figures.padding_fraction == pytest.approx((full / 2 + tile / 4) / (vga + full + tile))
