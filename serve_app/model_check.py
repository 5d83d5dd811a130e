"""Checks the models of a plan before anything starts: that they exist, are detectors, and take their canvases."""

from __future__ import annotations

from collections.abc import Mapping

from engines.errors import EngineError
from engines.graph import load_model, read_info
from engines.spec import ModelInfo, check_shapes
from serve_app.config import model_path
from serve_app.errors import InvalidPlanError
from serve_app.plan import Plan


def check_models(plan: Plan) -> Mapping[str, ModelInfo]:
    """Read every model of the plan; returns what each says of itself.

    Raises:
        InvalidPlanError: names the model or bucket, what was got and what is allowed.
    """
    infos = {}
    for name, source in plan.models.items():
        try:
            path = model_path(source)
            infos[name] = read_info(load_model(path), path.name)
        except (EngineError, InvalidPlanError) as err:
            raise InvalidPlanError(f"models.{name}: {err}") from err
    for bucket in plan.buckets:
        try:
            check_shapes(bucket.warm_shapes(), infos[bucket.model])
        except EngineError as err:
            raise InvalidPlanError(f"buckets.{bucket.name}: {err}") from err
    return infos
