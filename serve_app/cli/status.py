"""`framelane status`: the service at a glance, once or kept current, for people or for scripts."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.live import Live

from serve_app.cli.console import output
from serve_app.cli.service import AddressOption
from serve_app.cli.status_feed import Feed
from serve_app.cli.status_tables import status_page
from serve_app.cli.status_watch import Watch, keep_watching
from serve_app.service_view import rates, view_as_json

Show = Callable[[Watch, bool], None]


def status(
    address: AddressOption = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep the page current until Ctrl-C.")] = False,
    every_s: Annotated[float, typer.Option("--every", min=0.1, help="Seconds between two looks with --watch.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a look; see docs/cluster.md.")] = False,
) -> None:
    """Show machines, pools, replicas, what waits, and how frames end."""
    if watch:
        _watch(address, every_s, as_json=as_json)
        return
    from serve_app.client import Client
    from serve_app.cluster_look import look

    view = look(Client.connect(address))
    if as_json:
        typer.echo(json.dumps(view_as_json(view, rates(view.status, None))))
    else:
        output.print(status_page(view), highlight=False)


def _watch(address: str | None, every_s: float, *, as_json: bool) -> None:
    watched = Watch(every_s, time.monotonic())
    with contextlib.ExitStack() as at_end:
        show: Show = _show_as_json
        if not as_json:
            show = at_end.enter_context(_screen()) if output.is_terminal else _print
        with contextlib.suppress(KeyboardInterrupt):
            keep_watching(watched, lambda: Feed(address, every_s), show, time.monotonic)


@contextlib.contextmanager
def _screen() -> Iterator[Show]:
    """The whole terminal, given back at the end with the last page left on it."""
    last: RenderableType | None = None

    def show(watched: Watch, _: bool) -> None:
        nonlocal last
        last = watched.page(time.monotonic())
        live.update(last, refresh=True)

    with Live(console=output, auto_refresh=False, screen=True) as live:
        yield show
    if last is not None:
        output.print(last, highlight=False)


def _print(watched: Watch, is_new: bool) -> None:
    """A page after each look, for files and pipes."""
    if is_new:
        output.print(watched.page(time.monotonic()), highlight=False)
        output.print()


def _show_as_json(watched: Watch, is_new: bool) -> None:
    """A line after each look; none while the service is away."""
    before = watched.before
    if is_new and watched.view is not None and not watched.is_away:
        per_second = rates(watched.view.status, before.status if before else None)
        typer.echo(json.dumps(view_as_json(watched.view, per_second)))
