"""A plan on its way to a cluster: as plain values that stand in a Serve config, and back. Paths must hold there."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError

from serve_app.errors import InvalidPlanError
from serve_app.plan import Plan

_PLAN = TypeAdapter(Plan)


def plan_content(plan: Plan) -> dict[str, Any]:
    """All of a plan as values of JSON."""
    content: dict[str, Any] = _PLAN.dump_python(plan, mode="json")
    return content


def plan_of(content: dict[str, Any]) -> Plan:
    """The plan of such values, checked like any other.

    Raises:
        InvalidPlanError: it is none: another version of Framelane may have written it.
    """
    try:
        return _PLAN.validate_python(content)
    except ValidationError as err:
        raise InvalidPlanError(
            f"plan: got {err.error_count()} values that this version does not take ({err.errors()[0]['msg']}); install "
            "the same version of framelane here and on the cluster"
        ) from err
