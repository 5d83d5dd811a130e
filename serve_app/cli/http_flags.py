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
    """`--http`, `--http-port`, `--http-host` and `--http-critical-port`; None: not given."""

    is_on: bool = False
    port: int | None = None
    host: str | None = None
    critical_port: int | None = None

    def rules(self, plan: Plan) -> HttpRules:
        """The plan's, with what the command line says in their place. Raises `InvalidPlanError`."""
        is_on = self.is_on or plan.http.is_on
        if not is_on and any(given is not None for given in (self.port, self.host, self.critical_port)):
            raise InvalidPlanError(
                "up: got --http-port, --http-host or --http-critical-port without --http; add it, or set http.enabled "
                "in the plan"
            )
        port = plan.http.port if self.port is None else self.port
        critical_port = plan.http.critical_port if self.critical_port is None else self.critical_port
        host = self.host or plan.http.host
        return replace(plan.http, is_on=is_on, port=port, host=host, critical_port=critical_port)

    def plan(self, path: Path) -> Plan:
        """The plan of this file, with these rules. Raises `InvalidPlanError`."""
        plan = load_plan(path)
        return replace(plan, http=self.rules(plan))

    def arguments(self) -> list[str]:
        """The same for another process."""
        given = ["--http"] if self.is_on else []
        given += [] if self.port is None else ["--http-port", str(self.port)]
        given += [] if self.host is None else ["--http-host", self.host]
        return given + ([] if self.critical_port is None else ["--http-critical-port", str(self.critical_port)])


def shown_at(rules: HttpRules) -> str:
    """Where HTTP is served, to be put behind a sentence; empty: nowhere."""
    if not rules.is_on:
        return ""
    host = f"[{rules.host}]" if ":" in rules.host else rules.host
    critical = "" if rules.critical_port is None else f", for critical keys http://{host}:{rules.critical_port}"
    return f", http://{host}:{rules.port}{critical}"
