"""The page of `framelane status`: from a view of the service to rich's tables. It asks nobody."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from engines.device_facts import DeviceFacts
from serve_app.cli.spool import status_lines
from serve_app.memory_level import MemoryLevel
from serve_app.results import PoolStatus
from serve_app.service_view import DeploymentFacts, NodeFacts, Rates, ServiceView, notes_on, rates, state_of
from serve_app.verdicts import Outcome, VerdictKind

NONE = "–"
# Dead machines are history: the last few tell what happened.
MAX_DEAD_NODES = 3
MAX_LABELS = 3
# Said of every GPU; eighty columns have better uses.
MAKER = "NVIDIA "
MAY_BE_CUT = ("host", "labels", "device")
LEVEL_STYLES = {MemoryLevel.HIGH: "yellow", MemoryLevel.CRITICAL: "bold yellow", MemoryLevel.SHED: "bold red"}
STATE_STYLES = {"draining": "yellow", "dead": "red"}
BAD_OUTCOMES = {Outcome.FAILED.value: "bold red", Outcome.EXPIRED.value: "yellow", Outcome.REJECTED.value: "yellow"}
WORSE_VERDICTS = {VerdictKind.DEGRADE.value: "yellow", VerdictKind.REJECT.value: "bold yellow"}


def status_page(view: ServiceView, before: ServiceView | None = None) -> RenderableType:
    """The whole page; at least 80 columns wide it needs no folded cell of ours.

    Args:
        view: what is shown.
        before: an earlier look, for rates since then; None: rates since the start.
    """
    per_second = rates(view.status, before.status if before else None)
    parts: list[RenderableType] = [header(view, per_second)]
    parts += [nodes_table(view.nodes)] if view.nodes else []
    parts += [pools_table(view), replicas_table(view.status.pools, view.nodes)]
    parts += [rates_table(view, per_second)]
    parts += [routers_table(view)] if len(view.status.routers) > 1 else []
    said = list(remarks(view))
    parts += [Group(*said)] if said else []
    spaced = [part for each in parts for part in (each, "")]
    return Group(*spaced[:-1])


def header(view: ServiceView, per_second: Rates) -> Text:
    """One line: how long, how fast, how much."""
    status, routers = view.status, view.routers
    ready = routers.num_running if routers else max(1, len(status.routers))
    wanted = max(routers.num_wanted if routers else ready, ready)
    line = Text.assemble(
        ("framelane", "bold"), f"  up {duration(status.uptime_s)}, ",
        (f"{number(per_second.frames_hz)} frames/s", "bold cyan"), f", {status.num_in_flight} in flight, ",
        (f"{ready}/{wanted} router{'s' if wanted > 1 else ''}", "" if ready >= wanted else "bold red"),
    )  # fmt: skip
    if status.num_records_lost:
        line.append(f", {status.num_records_lost} records could not be written to the frame log", "bold red")
    return line


def nodes_table(nodes: Iterable[NodeFacts]) -> Table:
    """The machines; of dead ones the first few."""
    table = _table("node", "host", "address", "state", right=("CPUs", "GPUs", "GiB"), last=("labels",))
    dead = [node for node in nodes if not node.is_alive]
    for node in [*(node for node in nodes if node.is_alive), *dead[:MAX_DEAD_NODES]]:
        state = state_of(node)
        shown = "head" if node.is_head and state == "alive" else state
        table.add_row(
            node.node, _cut(node.host), node.address, _styled(shown, STATE_STYLES.get(state)),
            _of(node.cpus_used, node.num_cpus), _of(node.gpus_used, node.num_gpus), _gib(node.memory_bytes),
            _cut(_labels(node.labels)),
        )  # fmt: skip
    if len(dead) > MAX_DEAD_NODES:
        table.add_row("", f"and {len(dead) - MAX_DEAD_NODES} more", "", "[red]dead[/]")
    return table


def pools_table(view: ServiceView) -> Table:
    """What waits for each pool, and what it may do about it."""
    counts = (
        "\nready", "waiting\ncritical", "\nnormal", "\ndeferred", "work\ns", "batches\nrunning",
        "free\ncredits", "\nrung",
    )  # fmt: skip
    table = _table("\npool", right=counts, last=("memory\nlevel",))
    for pool in view.status.pools:
        serve = (view.pools or {}).get(pool.name)
        table.add_row(
            f"[bold]{escape(pool.name)}[/]", _ready(pool, serve),
            *(_styled(str(num_waiting), None if num_waiting else "dim") for num_waiting in pool.waiting),
            f"{pool.backlog_s:.2f}", str(pool.num_running), str(pool.num_credits),
            _styled(str(pool.rung), "yellow" if pool.rung else None),
            _styled(pool.memory.name.lower(), LEVEL_STYLES.get(pool.memory)),
        )  # fmt: skip
    return table


def replicas_table(pools: Iterable[PoolStatus], nodes: Iterable[NodeFacts] = ()) -> Table:
    """Every replica with its device."""
    table = _table("replica", "host", "device", right=("GiB used", "°C", "use", "batches", "up"))
    hosts = {node.node: node.host for node in nodes}
    for pool in pools:
        for replica in pool.replicas:
            device = replica.device
            marked = _styled(escape(replica.replica), "yellow" if notes_on(replica) else None)
            table.add_row(
                marked, _cut(hosts.get(replica.node) or replica.node), _cut(device.name.removeprefix(MAKER)),
                _memory(device),
                NONE if device.temperature_c is None else f"{device.temperature_c:.0f}",
                NONE if device.utilisation_fraction is None else f"{device.utilisation_fraction:.0%}",
                str(replica.num_batches), duration(replica.up_s),
            )  # fmt: skip
    return table


def rates_table(view: ServiceView, per_second: Rates) -> Table:
    """Verdicts beside outcomes: how many in all, and how many a second."""
    over = "since the start" if per_second.since_start else f"last {per_second.over_s:.0f} s"
    table = _table("verdict", right=("frames", "/s"))
    table.add_column("", width=2)
    table.add_column("outcome", no_wrap=True)
    table.add_column("frames", justify="right", no_wrap=True)
    table.add_column("/s", justify="right", no_wrap=True)
    table.caption, table.caption_justify, table.caption_style = f"/s: {over}", "left", "dim"
    status = view.status
    verdicts = _rows(VerdictKind, status.verdicts, per_second.verdicts, WORSE_VERDICTS)
    outcomes = _rows(Outcome, status.outcomes, per_second.outcomes, BAD_OUTCOMES)
    for index in range(max(len(verdicts), len(outcomes))):
        left = verdicts[index] if index < len(verdicts) else ("", "", "")
        right = outcomes[index] if index < len(outcomes) else ("", "", "")
        table.add_row(*left, "", *right)
    return table


def routers_table(view: ServiceView) -> Table:
    """The routers, where there are several."""
    table = _table("router", "node", right=("frames", "in flight", "up"))
    for router in view.status.routers:
        table.add_row(
            router.report.router, router.report.node, str(sum(router.outcomes.values())), str(router.num_in_flight),
            duration(router.uptime_s),
        )  # fmt: skip
    return table


def remarks(view: ServiceView) -> Iterable[Text]:
    """What is not as it should be, one line each, and where metrics are."""
    for pool in view.status.pools:
        serve = (view.pools or {}).get(pool.name)
        if not pool.replicas:
            yield Text(f"pool {pool.name}: no replica is ready", "bold red" if sum(pool.waiting) else "yellow")
        if serve and serve.trouble:
            yield Text(f"pool {pool.name}: {serve.trouble}", "bold red")
        for replica, why in pool.unhealthy.items():
            yield Text(f"{replica} gets no frames: {why}", "bold yellow")
        for each in pool.replicas:
            for note in notes_on(each):
                yield Text(f"{each.replica}: {note}", "yellow")
    if view.spool is not None:
        yield from (Text.from_markup(line) for line in status_lines(view.spool))
    if view.routers and view.routers.trouble:
        yield Text(f"routers: {view.routers.trouble}", "bold red")
    ports = [f"{node.address}:{node.metrics_port}" for node in view.nodes if node.is_alive and node.metrics_port]
    if ports:
        more = f" and {len(ports) - 2} more" if len(ports) > 2 else ""
        yield Text(f"metrics: {', '.join(f'http://{port}/metrics' for port in ports[:2])}{more}", "dim")


def duration(seconds: float) -> str:
    """At most six characters: `7 s`, `12 min`, `3.5 h`, `41 d`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 100 * 3600 else f"{seconds / 86400:.0f} d"


def number(value: float) -> str:
    """With one digit behind the point where that says something."""
    if value >= 100 or value == 0:
        return f"{value:,.0f}"
    if value >= 0.995:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.005 else "<0.01"


def _table(*left: str, right: tuple[str, ...] = (), last: tuple[str, ...] = ()) -> Table:
    table = Table(header_style="bold dim", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in left:
        # Where the screen is narrow only these are cut; see `_cut`.
        table.add_column(heading, no_wrap=heading not in MAY_BE_CUT, overflow="ellipsis")
    for heading in right:
        table.add_column(heading, justify="right", no_wrap=True, min_width=max(map(len, heading.split())) + 1)
    for heading in last:
        table.add_column(heading, no_wrap=heading not in MAY_BE_CUT, overflow="ellipsis")
    return table


def _cut(text: str) -> Text:
    """A cell that is cut rather than wrapped, in a column that gives way before all others."""
    return Text(text, no_wrap=True, overflow="ellipsis")


def _rows(
    names: type[Outcome | VerdictKind], counts: Mapping[str, int], hz: Mapping[str, float], styles: Mapping[str, str]
) -> list[tuple[str, str, str]]:
    """Name, number and rate of everything that happened; the first name always."""
    rows = []
    for index, each in enumerate(names):
        count = counts.get(each.value, 0)
        if count or index == 0:
            style = styles.get(each.value)
            rows.append((_styled(each.value, style), _styled(f"{count:,}", style), number(hz.get(each.value, 0.0))))
    return rows


def _ready(pool: PoolStatus, serve: DeploymentFacts | None) -> str:
    ready, wanted = len(pool.replicas), serve.num_wanted if serve else pool.num_wanted
    style = "bold red" if not ready and wanted else "yellow" if ready < wanted else "green"
    return _styled(f"{ready}/{wanted}", style)


def _memory(device: DeviceFacts) -> str:
    if device.used_bytes is None or device.total_bytes is None:
        return NONE
    return f"{device.used_bytes / 2**30:.1f}/{device.total_bytes / 2**30:.1f}"


def _of(used: float, total: float) -> str:
    return f"{used:g}/{total:g}" if total else NONE


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.0f}" if num_bytes else NONE


def _labels(labels: Mapping[str, str]) -> str:
    texts = [f"{name}={value}" for name, value in sorted(labels.items())]
    return ", ".join(texts[:MAX_LABELS]) + (" …" if len(texts) > MAX_LABELS else "") or NONE


def _styled(text: str, style: str | None) -> str:
    return f"[{style}]{text}[/]" if style else text
