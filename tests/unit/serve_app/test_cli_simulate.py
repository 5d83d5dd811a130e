"""`framelane simulate`, from files to tables, JSON and pictures."""

from __future__ import annotations

import json

import pytest
import typer
from simulated_samples import exact_table, sample_plan
from typer.testing import CliRunner

from serve_app.cli.simulate import simulate
from serve_app.errors import FramelaneError
from serve_app.latency import LatencyTable, Origin
from serve_app.latency_file import save_table

PLAN = """
models: {yolo: yolo.onnx}
pools: {gpu: {replicas: 1}}
buckets:
  vga: {canvases: [[480, 640]], batches: [1, 2, 4]}
"""
FLEET = """
seconds: 3
fleet:
  - {name: gate, count: 8, size: [480, 640], fps: 10, critical_share: 0.2, slo_s: {critical: 0.1, normal: 0.5}}
"""


@pytest.fixture
def files(tmp_path):
    """A plan, a fleet, and a latency table that was measured on another machine."""
    (tmp_path / "plan.yaml").write_text(PLAN)
    (tmp_path / "fleet.yaml").write_text(FLEET)
    entries = exact_table(sample_plan()).entries
    save_table(tmp_path / "elsewhere.json", LatencyTable("another machine", Origin.MEASURED, entries))
    return tmp_path


def run(files, *options, plan="plan.yaml", trace="fleet.yaml", latency=("--latency", "t4-yolo26n")) -> str:
    """What the command prints; raises what it raises."""
    app = typer.Typer()
    app.command()(simulate)
    result = CliRunner().invoke(app, [str(files / plan), str(files / trace), *latency, *map(str, options)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_it_prints_tables_and_writes_json_and_pictures(files):
    """One command, all outputs; the JSON says what it is made of."""
    pytest.importorskip("matplotlib")

    text = run(files, "--json", files / "out" / "run.json", "--plots", files / "plots", "--replicas", "2")

    content = json.loads((files / "out" / "run.json").read_text())
    assert content["kind"] == "simulated"
    assert content["latency"]["origin"] == "estimated"
    assert content["runs"][0]["pools"][0]["num_replicas"] == 2
    assert sum(each["num_frames"] for each in content["runs"][0]["classes"]) == content["runs"][0]["num_frames"]
    assert {path.name for path in (files / "plots").iterdir()} == {"latency.png", "queue.png", "batches.png"}
    for word in ("SIMULATED", "NVIDIA T4", "critical", "p99 ms", "mean batch"):
        assert word in text


def test_a_sweep_has_a_row_a_load(files):
    """Both ends included."""
    run(files, "--sweep", "load=0.5:2:0.5", "--json", files / "sweep.json", "--seconds", "1")

    runs = json.loads((files / "sweep.json").read_text())["runs"]
    assert [each["load"] for each in runs] == [0.5, 1.0, 1.5, 2.0]
    assert runs[3]["offered_hz"] == pytest.approx(4 * runs[0]["offered_hz"], rel=0.1)


def test_a_failure_and_the_seed_are_passed_on(files):
    """The same seed gives the same figures; a dead replica shows in them."""
    outputs = {}
    for name, options in {"one": ("--seed", 5), "again": ("--seed", 5), "other": ("--seed", 6)}.items():
        run(files, *options, "--json", files / f"{name}.json")
        outputs[name] = json.loads((files / f"{name}.json").read_text())["runs"]
    run(files, "--seed", 5, "--fail-at", "1:gpu", "--restart-s", "100", "--json", files / "dead.json")
    dead = json.loads((files / "dead.json").read_text())["runs"][0]

    assert outputs["one"] == outputs["again"]
    assert outputs["one"] != outputs["other"]
    assert dead["in_time_fraction"] < 0.5 < outputs["one"][0]["in_time_fraction"]


def test_a_table_of_another_machine_needs_force(files):
    """It is refused by name, and taken with --force."""
    table = ("--latency", str(files / "elsewhere.json"))

    with pytest.raises(FramelaneError, match=r"measured on 'another machine'.*--force"):
        run(files, latency=table)
    assert "latencies measured: another machine" in run(files, "--force", latency=table)


def test_a_table_knows_every_model_of_the_plan(files):
    """Nothing is assumed silently beside what was measured."""
    (files / "plan.yaml").write_text(PLAN.replace("yolo: yolo.onnx", "full: full.onnx"))

    with pytest.raises(FramelaneError, match="got models yolo, needed are all of the plan: full is missing"):
        run(files, "--force", latency=("--latency", str(files / "elsewhere.json")))


def test_a_scheduler_can_be_given_a_wrong_belief(files):
    """Another table to begin with than the true one."""
    assert "SIMULATED" in run(files, "--believed", files / "elsewhere.json")


def test_without_a_table_the_assumption_is_named(files):
    """Nothing measured is said, not hidden."""
    assert "latencies assumed: nothing measured" in run(files, latency=())


def test_a_table_for_each_model(files):
    """By the model's name in the plan."""
    assert "YOLO26s 2.6 ms" in run(files, latency=("--latency", "yolo=t4-yolo26s"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--sweep", "rate=1:2:1"), "--sweep: got 'rate=1:2:1', allowed is load=FROM:TO:STEP"),
        (("--sweep", "load=2:1:1"), "FROM at most TO"),
        (("--sweep", "load=a:1:1"), "--sweep: got"),
        (("--sweep", "load=1:1000:0.1"), "allowed are 200 loads"),
        (("--replicas", "0"), "--replicas: got '0'"),
        (("--replicas", "cpu=2"), "got pool 'cpu', allowed are the plan's: gpu"),
        (("--fail-at", "soon"), "--fail-at: got 'soon'"),
        (("--fail-at", "-1"), "--fail-at: got '-1'"),
        (("--fail-at", "1:cpu"), "got pool 'cpu', allowed are the plan's: gpu"),
        (("--load", "0"), "load: got 0, allowed is a number above 0"),
        (("--before-ms", "-1"), "before_s: got -0.001"),
        (("--latency", "a100"), "latency table: got 'a100', allowed are a file or one of"),
        (("--latency", "x=t4-yolo26n"), "got 'x', allowed are the plan's: yolo"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_options_are_told(files, options, says):
    """What, got, allowed."""
    with pytest.raises(FramelaneError, match=says):
        run(files, *options, latency=() if "--latency" in options else ("--latency", "t4-yolo26n"))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("plan.yaml", PLAN + "  other: {canvases: [[480, 640]]}\n", "canvases of model yolo .* more than once"),
        ("fleet.yaml", FLEET.replace("[480, 640]", "[-480, 640]"), "height: got -480"),
        ("fleet.yaml", FLEET.replace("critical: 0.1", "urgent: 0.1"), "unknown key 'urgent'"),
        ("fleet.yaml", FLEET.replace("normal: 0.5", "normal: 0"), "slo_s: got 0"),
    ],
    ids=["overlapping buckets", "negative size", "unknown priority", "deadline of 0"],
)
def test_bad_files_are_told(files, name, content, says):
    """Before anything is simulated."""
    (files / name).write_text(content)

    with pytest.raises(FramelaneError, match=says):
        run(files)


def test_a_recorded_trace_has_its_own_length(files):
    """--seconds is for fleets."""
    records = [
        {"camera": "c", "source_hw": [480, 640], "priority": "normal", "at_s": at_s, "slo_s": 1.0, "total_ms": 5}
        for at_s in (5.0, 5.1, 5.2)
    ]
    (files / "frames.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))

    assert "3 frames" in run(files, trace="frames.jsonl")
    with pytest.raises(FramelaneError, match=r"--seconds: got 5 for .*recorded trace"):
        run(files, "--seconds", "5", trace="frames.jsonl")


GROWING = PLAN.replace("replicas: 1", "replicas: 1, max_replicas: 4") + "autoscaling: {down_after_s: 5}\n"


def test_autoscale_tells_how_pools_went(files):
    """In a table beside who knew the future, in the JSON, and as a picture of its own."""
    pytest.importorskip("matplotlib")
    (files / "growing.yaml").write_text(GROWING)
    options = ("--autoscale", "--start-up-s", 2, "--seconds", 20, "--load", 8)

    text = run(files, *options, "--json", files / "run.json", "--plots", files / "plots", plan="growing.yaml")

    (pool,) = json.loads((files / "run.json").read_text())["runs"][0]["pools"]
    sizes = pool["scaling"]
    assert sizes["sizes"][0] == 1
    assert 1 < sizes["most"] <= 4
    assert sizes["replica_s"] == pytest.approx(sizes["mean"] * 20)
    assert sizes["ratio"] == pytest.approx(sizes["replica_s"] / sizes["clairvoyant_s"])
    for shown in ("replica s", "optimum s", f"{sizes['ratio']:.2f}", f"1–{sizes['most']}"):
        assert shown in text
    assert (files / "plots" / "replicas.png").stat().st_size > 5000


def test_without_autoscale_such_a_pool_keeps_its_least(files):
    """As many as `replicas` says."""
    (files / "growing.yaml").write_text(GROWING)

    run(files, "--json", files / "run.json", plan="growing.yaml")

    (pool,) = json.loads((files / "run.json").read_text())["runs"][0]["pools"]
    assert (pool["num_replicas"], "scaling" in pool) == (1, False)


def test_autoscale_needs_a_pool_that_grows(files):
    """The message says what to set."""
    with pytest.raises(FramelaneError, match="no pool with max_replicas in the plan"):
        run(files, "--autoscale")
