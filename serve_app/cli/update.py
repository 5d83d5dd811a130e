"""`framelane update`: a new plan for a service that runs, without losing a frame."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from serve_app.cli.console import output, progress
from serve_app.cli.service import AddressOption, check_files
from serve_app.config import load_plan, plan_path

NewPlanArgument = Annotated[str, typer.Argument(help="The new plan's YAML file, or a bundled one.")]


def update(plan: NewPlanArgument, address: AddressOption = None) -> None:
    """Give the service that runs a new plan or model; it serves on meanwhile, and stays as it is if that one fails."""
    path = plan_path(plan)
    checked = load_plan(path)
    if address is None:  # on a cluster the models lie on its machines
        check_files(checked, path)
    from serve_app.http.deployment import deploy_http, is_http_deployed
    from serve_app.ray_session import connect_ray
    from serve_app.update import update as replace

    connect_ray(address)
    with progress() as shown:
        task = shown.add_task(f"updating to {path.name}: warming engines", total=None)
        replace(checked, lambda news: shown.update(task, description=escape(f"updating to {path.name}: {news}")))
        if is_http_deployed():
            shown.update(task, description=escape(f"updating to {path.name}: HTTP"))
            deploy_http(checked)
    output.print(f"serving {escape(str(path))}", highlight=False)
