"""`framelane report` as users run it, on the log that the demo's service wrote."""

from __future__ import annotations

import json
import re
from collections import Counter
from types import SimpleNamespace

import pytest
from service_world import Command


@pytest.fixture(scope="module")
def reported(demo, tmp_path_factory):
    """A report of the demo's log with its plan: the folder, the command, what it said, the records."""
    process, demo_folder = demo
    assert process.returncode == 0
    folder = tmp_path_factory.mktemp("reported")
    framelane = Command(folder)
    (folder / "frames.jsonl").write_bytes((demo_folder / "out" / "frames.jsonl").read_bytes())
    ran = framelane("report", "frames.jsonl", "--plan", "bundled:demo", "--plots", "plots", "-o", "out/report.html")
    assert ran.returncode == 0, ran.stderr
    records = [json.loads(line) for line in (folder / "frames.jsonl").read_text().splitlines()]
    return SimpleNamespace(framelane=framelane, folder=folder, ran=ran, records=records)


def test_the_demos_log_becomes_a_page_and_pictures(reported):
    """Named where they are; the page has every camera of the fleet."""
    page = (reported.folder / "out" / "report.html").read_text(encoding="utf-8")

    assert "page: out/report.html" in reported.ran.stderr
    assert sorted(path.name for path in (reported.folder / "plots").iterdir()) == [
        "batches.png", "course.png", "latency.png", "sizes.png",
    ]  # fmt: skip
    assert f"{len(reported.records)} frames of 5 cameras" in page
    for camera in {record["camera"] for record in reported.records}:
        assert camera in page
    assert "compared this traffic with the plan" in page
    assert not re.search(r"(?:src|href)=|https?://", page)


def test_the_figures_as_json_are_those_of_the_log(reported):
    """Counted here in the plain way."""
    ran = reported.framelane("report", "frames.jsonl", "--json")
    figures = json.loads(ran.stdout)
    ends = Counter(record["outcome"] for record in reported.records)

    assert ran.returncode == 0
    assert figures["frames"] == len(reported.records)
    assert figures["all"]["finished"] == ends["finished"]
    assert sum(group["frames"] for group in figures["classes"].values()) == len(reported.records)
    finished = [record for record in reported.records if record["outcome"] == "finished"]
    mean_ms = sum(record["infer_ms"] for record in finished) / len(finished)
    assert figures["all"]["stages_ms"]["infer"]["mean"] == pytest.approx(mean_ms, rel=1e-3)
    assert figures["advice"]["is_plan_known"] is False


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.jsonl"], ["nowhere.jsonl", "no such file"]),
        (["empty.jsonl"], ["no frame record in empty.jsonl", "frame_log"]),
        (["frames.jsonl", "./frames.jsonl"], ["got it twice"]),
        (["frames.jsonl", "-o", "frames.jsonl"], ["one of the logs"]),
        (["frames.jsonl", "-o", "empty.jsonl/x.html"], ["cannot be written"]),
        (["frames.jsonl", "--plan", "none.yaml"], ["none.yaml"]),
    ],
    ids=["not there", "empty", "twice", "over a log", "no folder", "no plan"],
)
def test_what_cannot_be_reported_is_one_line(reported, arguments, said):
    """With the name of what is wrong; the log stays as it is."""
    (reported.folder / "empty.jsonl").write_text("")
    before = (reported.folder / "frames.jsonl").read_bytes()
    ran = reported.framelane("report", *arguments)

    assert ran.returncode == 1
    (line,) = [line for line in ran.stderr.splitlines() if line.startswith("error:")]
    for word in said:
        assert word in line
    assert "Traceback" not in ran.stderr
    assert (reported.folder / "frames.jsonl").read_bytes() == before


def test_foreign_and_torn_lines_are_named_at_the_end(reported):
    """Counted, never silently left out."""
    content = (reported.folder / "frames.jsonl").read_bytes()
    (reported.folder / "mixed.jsonl").write_bytes(b"not ours\n" + content + content[:100])
    ran = reported.framelane("report", "mixed.jsonl", "-o", "mixed.html")

    assert ran.returncode == 0
    assert "mixed.jsonl: 1 lines that are no records were left out; line 1: no JSON object" in ran.stderr
    assert "its last line is torn" in ran.stderr
