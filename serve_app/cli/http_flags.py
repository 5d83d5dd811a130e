"""What `framelane up` is told of HTTP on its command line."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from serve_app.config import load_plan
from serve_app.errors import InvalidPlanError
from serve_app.http_rules import HttpRules
from serve_app.plan import Plan


@dataclass(frozen=True, slots=True)
class HttpFlags:
    """`--http`, `--http-port` and `--http-host`; None: not given."""

    is_on: bool = False
    port: int | None = None
    host: str | None = None

    def rules(self, plan: Plan) -> HttpRules:
        """The plan's, with what the command line says in their place. Raises `InvalidPlanError`."""
        is_on = self.is_on or plan.http.is_on
        if not is_on and (self.port is not None or self.host is not None):
            raise InvalidPlanError(
                "up: got --http-port or --http-host without --http; add it, or set http.enabled in the plan"
            )
        port = plan.http.port if self.port is None else self.port
        return replace(plan.http, is_on=is_on, port=port, host=self.host or plan.http.host)

    def plan(self, path: Path) -> Plan:
        """The plan of this file, with these rules. Raises `InvalidPlanError`."""
        plan = load_plan(path)
        return replace(plan, http=self.rules(plan))

    def arguments(self) -> list[str]:
        """The same for another process."""
        given = ["--http"] if self.is_on else []
        given += [] if self.port is None else ["--http-port", str(self.port)]
        return given + ([] if self.host is None else ["--http-host", self.host])


def shown_at(rules: HttpRules) -> str:
    """Where HTTP is served, to be put behind a sentence; empty: nowhere."""
    if not rules.is_on:
        return ""
    host = f"[{rules.host}]" if ":" in rules.host else rules.host
    critical = "" if rules.critical_port is None else f", for critical keys http://{host}:{rules.critical_port}"
    return f", http://{host}:{rules.port}{critical}"
