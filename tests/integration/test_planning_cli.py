"""`framelane profile`, `plan` and `simulate` as users run them: from a frame log to a plan and its figures."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from service_world import Command

from engines.machine import machine_name
from serve_app.config import load_plan
from serve_app.model_check import check_models

PROFILED = """\
models: {full: "bundled:inspection-full"}
buckets:
  vga: {canvases: [[480, 640]], batches: [1, 2]}
  small: {canvases: [[256, 320]]}
"""
LINE = {"at_s": 1.0, "camera": "gate", "source_hw": [480, 640], "priority": "normal", "slo_s": 1.0}
CSV = "height,width,rate_hz,priority,slo_s\n480,640,5,{priority},{slo_s}\n"


def assert_told(process, *words):
    """The command failed with one line that holds all words, and without a traceback."""
    assert process.returncode == 1, process.stderr
    (line,) = [line for line in process.stderr.splitlines() if line.startswith("error:")]
    assert "Traceback" not in process.stderr + process.stdout
    assert process.stderr.rstrip().endswith(line)
    for word in words:
        assert word in line


def run(framelane, *arguments, status=0):
    """Run a command that must end with this exit status; what it printed."""
    process = framelane(*arguments)
    assert process.returncode == status, process.stderr + process.stdout
    return process.stdout


@pytest.fixture(scope="module")
def planned(demo, tmp_path_factory):
    """Profile a plan, plan from the demo's frame log, check and simulate: the folder, the command, all that it said."""
    demo_process, demo_folder = demo
    assert demo_process.returncode == 0
    folder = tmp_path_factory.mktemp("planned")
    framelane = Command(folder)
    (folder / "profiled.yaml").write_text(PROFILED)
    (folder / "frames.jsonl").write_bytes((demo_folder / "out" / "frames.jsonl").read_bytes())
    return SimpleNamespace(
        framelane=framelane,
        folder=folder,
        profile=run(framelane, "profile", "profiled.yaml", "--repeats", 3),
        plan=run(framelane, "plan", "frames.jsonl", "--latency", "latency.json"),
        check=run(framelane, "plan", "--check", "frames.jsonl"),
        simulate=run(framelane, "simulate", "plan.yaml", "frames.jsonl", "--json", "figures/run.json"),
    )


@pytest.fixture
def foreign(planned, tmp_path):
    """The same table, measured elsewhere, and a plan that begins with it."""
    table = json.loads((planned.folder / "latency.json").read_text())
    path = tmp_path / "foreign.json"
    path.write_text(json.dumps(table | {"machine": "a machine far away"}))
    (tmp_path / "plan.yaml").write_text(PROFILED + "latency: foreign.json\n")
    (tmp_path / "frames.jsonl").write_bytes((planned.folder / "frames.jsonl").read_bytes())
    return path


def test_profile_measures_each_shape_on_this_machine(planned):
    """A table with this machine's name, an entry a shape, and the same in words."""
    table = json.loads((planned.folder / "latency.json").read_text())
    shapes = [(entry["model"], *entry["canvas_hw"], entry["batch"]) for entry in table["entries"]]
    assert (table["machine"], table["origin"]) == (machine_name(), "measured")
    assert shapes == [("full", 256, 320, 1), ("full", 480, 640, 1), ("full", 480, 640, 2)]
    assert all(entry["run_ms"] > 0 and entry["num_samples"] == 3 for entry in table["entries"])
    assert "3 shapes" in planned.profile


def test_the_written_plan_can_be_served(planned):
    """It loads with the table that it was made with, and its canvases are what the model takes and the sizes need."""
    plan = load_plan(planned.folder / "plan.yaml")
    check_models(plan)
    assert plan.latency == str(planned.folder / "latency.json")
    canvases = {tuple(canvas) for _, canvas in plan.canvases_of("full")}
    assert (480, 640) in canvases
    assert {path.name for path in planned.folder.glob("plan.*")} == {"plan.yaml", "plan.traffic.csv", "plan.png"}


def test_a_plan_fits_the_log_that_it_was_made_from(planned):
    """Exit status 0, which the fixture asks for, and a word on it."""
    assert "fits" in planned.check.lower()


def test_other_traffic_has_drifted(planned):
    """Exit status 2: neither a success nor a mistake."""
    other = "".join(json.dumps(LINE | {"at_s": n / 2, "source_hw": [2160, 3840]}) + "\n" for n in range(20))
    (planned.folder / "other.jsonl").write_text(other)
    assert "drift" in run(planned.framelane, "plan", "--check", "other.jsonl", status=2).lower()


def test_the_simulation_has_every_frame_of_the_log_once(planned):
    """The JSON is sound; each class's outcomes and verdicts add up to its frames, and all classes to the log."""
    content = json.loads((planned.folder / "figures" / "run.json").read_text())
    (figures,) = content["runs"]
    records = (planned.folder / "frames.jsonl").read_text().splitlines()
    assert (content["kind"], content["latency"]) == ("simulated", {"machine": machine_name(), "origin": "measured"})
    assert figures["num_frames"] == len(records) == sum(each["num_frames"] for each in figures["classes"])
    for each in figures["classes"]:
        assert sum(each["outcomes"].values()) == sum(each["verdicts"].values()) == each["num_frames"]
    assert planned.simulate.startswith("SIMULATED; latencies measured: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "frames.jsonl", "--latency", "foreign.json"],
        ["plan", "--check", "frames.jsonl"],
        ["simulate", "plan.yaml", "frames.jsonl"],
    ],
    ids=["plan", "check", "simulate"],
)
def test_a_table_of_another_machine_needs_force(framelane, foreign, arguments):
    """It is refused with both names; with --force it is taken."""
    assert foreign.exists()
    assert_told(framelane(*arguments), "foreign.json", "a machine far away", machine_name(), "--force")
    forced = framelane(*arguments, "--force")
    assert forced.returncode in (0, 2), forced.stderr


def test_a_service_does_not_begin_with_a_table_of_another_machine(framelane, foreign):
    """That is told before anything starts; there is no --force for it."""
    assert foreign.exists()
    assert_told(framelane("up", "plan.yaml"), "plan plan.yaml: ", "a machine far away", "framelane profile")


DAMAGED = {
    "half a line": ('{"at_s": 1.5, "came', "line 2", "one JSON object a line"),
    "unknown priority": (json.dumps(LINE | {"at_s": 2.0, "priority": "urgent"}), "line 2", "'urgent'"),
    "deadline 0": (json.dumps(LINE | {"at_s": 2.0, "slo_s": 0}), "line 2", "slo_s", "got 0"),
    "negative size": (json.dumps(LINE | {"at_s": 2.0, "source_hw": [-480, 640]}), "line 2", "source_hw", "-480"),
    "no size": (json.dumps(LINE | {"at_s": 2.0, "source_hw": None}), "line 2", "source_hw"),
    "no time": (json.dumps(LINE | {"at_s": None}), "line 2", "at_s"),
}


@pytest.mark.parametrize(("line", "words"), [(each[0], each[1:]) for each in DAMAGED.values()], ids=DAMAGED.keys())
def test_a_damaged_log_is_told_with_its_line(framelane, tmp_path, line, words):
    """By the planner and by the simulator."""
    good = json.dumps(LINE)
    (tmp_path / "plan.yaml").write_text(PROFILED)
    (tmp_path / "log.jsonl").write_text(f"{good}\n{line}\n{good}\n")
    assert_told(framelane("plan", "log.jsonl", "--out", "new.yaml"), "log.jsonl", *words)
    assert_told(framelane("simulate", "plan.yaml", "log.jsonl"), "log.jsonl", *words)
    assert not (tmp_path / "new.yaml").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (CSV.format(priority="urgent", slo_s=1), ["line 2", "'urgent'", "critical"]),
        (CSV.format(priority="normal", slo_s=0), ["line 2", "slo_s"]),
        (CSV.format(priority="normal", slo_s=1).replace("480", "-480"), ["line 2", "height", "-480"]),
        (CSV.format(priority="normal", slo_s=1).replace("5,", "0,"), ["line 2", "rate_hz"]),
        (
            CSV.format(priority="normal", slo_s=1).replace("width", "widht"),
            ["line 1", "widht", "needed are height, width"],
        ),
    ],
    ids=["unknown priority", "deadline 0", "negative size", "rate 0", "misspelt column"],
)
def test_a_wrong_histogram_is_told(framelane, tmp_path, content, words):
    """File, line, what was got and what is allowed."""
    (tmp_path / "traffic.csv").write_text(content)
    assert_told(framelane("plan", "traffic.csv"), "traffic.csv", *words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["profile"], ["PLAN", "--running"]),
        (["profile", "profiled.yaml", "--running"], ["PLAN", "--running"]),
        (["profile", "nowhere.yaml"], ["nowhere.yaml", "no such file"]),
        (["profile", "--running"], ["framelane up"]),
        (["profile", "profiled.yaml", "--repeats", "1", "--out", "profiled.yaml/x.json"], ["profiled.yaml"]),
        (["plan"], ["TRAFFIC"]),
        (["plan", "nowhere.jsonl"], ["nowhere.jsonl", "no such file"]),
        (["plan", "empty.jsonl"], ["empty.jsonl", "got no frames"]),
        (["plan", "--check", "nowhere.jsonl", "--plan", "profiled.yaml"], ["nowhere.jsonl", "no such file"]),
        (["simulate", "profiled.yaml", "nowhere.jsonl"], ["nowhere.jsonl", "no such file"]),
        (["simulate", "profiled.yaml", "empty.jsonl"], ["empty.jsonl", "got no frames"]),
        (["simulate", "nowhere.yaml", "empty.jsonl"], ["nowhere.yaml", "no such file"]),
    ],
)
def test_what_cannot_be_done_is_told(framelane, tmp_path, arguments, words):
    """Exit status 1 and one line."""
    (tmp_path / "profiled.yaml").write_text(PROFILED)
    (tmp_path / "empty.jsonl").write_text("")
    assert_told(framelane(*arguments), *words)
