"""A proposal as a plan file: what stands in it, and that it is read back as it was meant."""

from __future__ import annotations

import dataclasses

import pytest
import yaml
from fleet_samples import MODEL, POOL, batching_latency, clustered_fleet

from engines.spec import CanvasShape
from serve_app.config import load_plan
from serve_app.errors import InvalidPlanError
from serve_app.frames import Priority
from serve_app.latency import LatencyModel, Origin
from serve_app.plan import Pool, Runtime
from serve_app.planning.engine_memory import EngineMemory
from serve_app.planning.plan_file import plan_text, save_plan
from serve_app.planning.planner import propose
from serve_app.planning.proposal import PlannedModel, PlannerLimits
from serve_app.planning.traffic import SizeRate

UHD_FLEET = (
    SizeRate((2160, 3840), 0.1, slo_s=9.5),
    SizeRate((480, 640), 4.0, Priority.CRITICAL),
    SizeRate((720, 1280), 1.0),
)
PROPOSALS = {
    "one size": propose((SizeRate((480, 640), 1.0),), MODEL, LatencyModel(), PlannerLimits(), pool=POOL),
    "a fleet on GPUs": propose(
        clustered_fleet(),
        MODEL,
        batching_latency(),
        PlannerLimits(),
        pool=Pool("gpu", 1, 0.5, 1.0, 3, Runtime.TENSORRT),
    ),
    "shrunk, laddered, deferred": propose(
        UHD_FLEET, MODEL, LatencyModel(), PlannerLimits(max_canvas=CanvasShape(1088, 1920)), pool=POOL
    ),
    "names that YAML would read as something else": propose(
        UHD_FLEET,
        PlannedModel("no", "bundled:inspection-full", 32, EngineMemory(0)),
        LatencyModel(),
        PlannerLimits(),
        pool=Pool("1.5"),
    ),
}


@pytest.mark.parametrize("name", PROPOSALS)
def test_a_written_plan_is_read_back_whole(name, tmp_path):
    """Everything that the planner decided, in the words of docs/plan.md."""
    proposal = PROPOSALS[name]
    save_plan(tmp_path / "plan.yaml", proposal, sources="a.csv", origin=Origin.ASSUMED)

    assert load_plan(tmp_path / "plan.yaml") == proposal.plan


def test_paths_are_read_back_too(tmp_path):
    """Of models and of the latency table, with spaces and quotes in them."""
    model, table = tmp_path / 'my "best" model.onnx', tmp_path / "times: all.json"
    proposal = propose(
        UHD_FLEET, PlannedModel("full", str(model), 32, EngineMemory(0)), LatencyModel(), PlannerLimits(), pool=POOL
    )
    plan = dataclasses.replace(proposal.plan, latency=str(table))
    save_plan(
        tmp_path / "plan.yaml", dataclasses.replace(proposal, plan=plan), sources="a\nb: c", origin=Origin.MEASURED
    )

    assert load_plan(tmp_path / "plan.yaml") == plan


def test_the_file_says_what_it_was_made_from_and_where_its_times_come_from():
    """Figures that nobody measured are labelled."""
    text = plan_text(PROPOSALS["one size"], sources="a.csv", origin=Origin.ASSUMED)

    assert text.startswith(
        "# Written by framelane plan from a.csv:\n"
        "# 1 sizes, 1 frames a second.\n"
        "# Predicted from assumed latencies: 0.0399 device seconds a second,\n"
        "# 0.0% padding. Every key is explained in docs/plan.md.\n"
        "models:\n"
    )
    assert "      - [480, 640] # 1 frames/s, 0.0% padding\n" in text


def test_keys_that_hold_nothing_are_left_out():
    """A reader sees what was decided."""
    assert set(yaml.safe_load(plan_text(PROPOSALS["one size"], sources="a", origin=Origin.ASSUMED))) == {
        "models", "pools", "buckets", "scheduling", "slo_s",
    }  # fmt: skip


def test_an_older_plan_is_kept_beside_the_new_one(tmp_path):
    """Plans are edited by hand; the same one again changes nothing."""
    path, proposal = tmp_path / "plan.yaml", PROPOSALS["one size"]
    path.write_text("mine")

    assert save_plan(path, proposal, sources="a", origin=Origin.ASSUMED) == tmp_path / "plan.yaml.old"
    assert save_plan(path, proposal, sources="a", origin=Origin.ASSUMED) is None
    assert (tmp_path / "plan.yaml.old").read_text() == "mine"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["plan.yaml", "plan.yaml.old"]


def test_a_folder_in_its_place_is_refused(tmp_path):
    """With what to do; nothing is left behind."""
    (tmp_path / "plan.yaml").mkdir()

    with pytest.raises(
        InvalidPlanError, match=r"plan .*plan.yaml: cannot be written \(is a directory\); choose another"
    ):
        save_plan(tmp_path / "plan.yaml", PROPOSALS["one size"], sources="a", origin=Origin.ASSUMED)
    assert [file.name for file in tmp_path.iterdir()] == ["plan.yaml"]
