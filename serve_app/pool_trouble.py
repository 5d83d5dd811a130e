"""Why pools of the running service lack replicas, as Serve has it: the error of a constructor or of a health check."""

from __future__ import annotations

from collections.abc import Mapping

from ray import serve
from ray.serve.schema import ApplicationStatusOverview, DeploymentStatusOverview

from serve_app.app_name import APP_NAME

# Deployments whose replicas all run; the others are being started, replaced, or cannot be.
CALM = frozenset({"HEALTHY", "UPSCALING", "DOWNSCALING"})


def troubles() -> Mapping[str, str]:
    """What hinders each deployment of the service, by its name; empty: nothing."""
    application: ApplicationStatusOverview | None = serve.status().applications.get(APP_NAME)
    deployments = application.deployments if application else {}
    return {name: told for name, deployment in deployments.items() if (told := trouble_of(deployment)) is not None}


def trouble_of(deployment: DeploymentStatusOverview) -> str | None:
    """State and reason of a deployment in trouble; None: it is in none."""
    if deployment.status.value in CALM:
        return None
    reason = telling_line(deployment.message)
    return f"{deployment.status.value}: {reason}" if reason else None


def telling_line(message: str) -> str:
    """The line of a message that names the error: the last of a traceback, which comes first to nobody."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    told = [line for line in lines if "Error:" in line or "Error(" in line]
    return (told or lines or [""])[-1]
