"""A plan on its way to a cluster comes out as it went in."""

from __future__ import annotations

import dataclasses
import json

import pytest
from serve_samples import ladder_plan

from engines.boxes import DetectionLimits
from serve_app.autoscaling import Autoscaling
from serve_app.config import bundled_plans, load_plan
from serve_app.errors import InvalidPlanError
from serve_app.plan import EngineBuilding, Limits, Pool, Runtime, Scheduling
from serve_app.plan_content import plan_content, plan_of

FULL = ladder_plan(
    pools=(
        Pool("near", 1, 0.5, 0.25, 2, max_replicas=9, labels={"gpu": "l4"}, max_replicas_per_node=3),
        Pool("far", runtime=Runtime.TENSORRT, num_gpus=1),
    ),
    scheduling=Scheduling(max_chunk_s=0.03, defer_above_px=1),
    limits=Limits(max_tickets=7),
    detection=DetectionLimits(max_boxes=3),
    engines=EngineBuilding(workspace_bytes=2**30, cache="/cache"),
    num_routers=3,
    autoscaling=Autoscaling(max_wait_s=0.25),
    frame_log="/log.jsonl",
    latency="/latency.json",
)
PLANS = {"every section": FULL} | {path.stem: load_plan(path) for path in bundled_plans()}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_a_plan_is_the_same_after_its_way_through_json(plan):
    """Canvases, enums, paths, sections with values of their own."""
    assert plan_of(json.loads(json.dumps(plan_content(plan)))) == plan


def test_every_field_of_a_plan_travels():
    """A field that is added later does as well."""
    assert plan_content(FULL).keys() == {field.name for field in dataclasses.fields(FULL)}


def test_content_of_another_version_says_so():
    """Not a traceback of pydantic's."""
    with pytest.raises(InvalidPlanError, match="same version of framelane here and on the cluster"):
        plan_of(plan_content(FULL) | {"pools": [{"name": "near", "num_replicas": "many"}]})


def test_a_plan_that_contradicts_itself_is_refused_as_ever():
    """The plan's own checks run where it arrives."""
    content = plan_content(FULL)
    content["buckets"][0]["pool"] = "none"

    with pytest.raises(InvalidPlanError, match="pool"):
        plan_of(content)
