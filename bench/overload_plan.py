"""The plan that `overload.py` serves: the one place to change it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from serve_app.config import load_plan
from serve_app.plan import Plan

DEFAULT_PLAN_PATH = Path(__file__).parent / "overload.yaml"


def overload_plan(path: Path | None, *, ladder: bool) -> Plan:
    """The plan of this file, by default the one beside this module; with or without its ladder.

    Raises:
        InvalidPlanError: the file; see `load_plan`.
    """
    plan = load_plan(path or DEFAULT_PLAN_PATH)
    return plan if ladder else dataclasses.replace(plan, ladder=())
