"""The page of `framelane status`: what it says, that it fits, and that odd names do no harm."""

from __future__ import annotations

import dataclasses
import io

import pytest
from metric_samples import facts, report
from rich.console import Console
from status_picture import PICTURE, status_svg
from status_samples import NODES, POOLS, STATUS, VIEW, node

from serve_app.cli.status_tables import duration, number, status_page
from serve_app.results import PoolStatus, RouterReport, RouterStatus, ServiceStatus
from serve_app.service_view import DeploymentFacts, ServiceView


def shown(view: ServiceView, before: ServiceView | None = None, width: int = 80) -> list[str]:
    """The lines of the page, without colours and spaces at their ends."""
    console = Console(width=width, file=io.StringIO(), no_color=True)
    console.print(status_page(view, before), highlight=False)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def cells(lines: list[str], first: str) -> list[str]:
    """The cells of the only line that begins with this one."""
    found = [line.split() for line in lines if line.startswith(first)]
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize("width", [80, 120])
def test_the_page_fits(width):
    """No cell is cut, no line is longer than the screen."""
    lines = shown(VIEW, width=width)

    assert max(map(len, lines)) <= width
    assert not [line for line in lines if "…" in line]


def test_long_names_of_machines_and_devices_give_way_to_everything_else():
    """Pods and Xeons have long names; ids and numbers stay whole at 80 columns."""
    long = node("7be2d001", "raycluster-framelane-gpu-group-worker-x7k2p", "10.0.0.11", labels={"zone": "z" * 60})
    replica = report("near-0a41be22", total_bytes=2**36, used_bytes=2**35)
    replica = dataclasses.replace(
        replica, node="7be2d001", device=dataclasses.replace(replica.device, name="Intel(R) Xeon(R) Platinum " * 3)
    )
    pool = PoolStatus("near", 0, 0, (replica,), num_wanted=1)
    lines = shown(ServiceView(dataclasses.replace(STATUS, pools=(pool,)), (long,)))

    assert max(map(len, lines)) <= 80
    for words in (
        ("node", "host", "address", "state", "CPUs", "GPUs", "GiB", "labels"),
        ("replica", "host", "device", "GiB", "used", "°C", "use", "batches", "up"),
    ):
        assert cells(lines, words[0] + " ") == list(words)
    assert {"10.0.0.11", "alive", "3/16"} <= set(cells(lines, "7be2d001"))
    assert cells(lines, "near-0a41be22")[-6:] == ["32.0/64.0", "–", "–", "3", "0", "s"]


def test_the_page_says_what_is_known():
    """Header, machines, pools, replicas, verdicts beside outcomes, remarks: in this order."""
    assert shown(VIEW) == [
        "framelane  up 2.2 h, 39.0 frames/s, 38 in flight, 1/1 router",
        "",
        "node     host       address   state     CPUs  GPUs  GiB labels",
        "1f0c9a44 line-head  10.0.0.10 head       1/4     –   44 –",
        "7be2d001 line-gpu-1 10.0.0.11 alive     3/16   1/1   44 gpu=h100, hall=3",
        "93aa41c7 line-gpu-2 10.0.0.12 draining  3/16   1/1   44 gpu=l4, hall=3",
        "c00c00c0 line-gpu-3 10.0.0.13 dead      0/16   0/2   44 –",
        "",
        "                 waiting                    work  batches     free       memory",
        "pool     ready  critical  normal  deferred     s  running  credits  rung level",
        "near       2/2         1       4         0  0.21        3        2     1 high",
        "wide       1/3         0       9        22  4.92        1        0     0 normal",
        "archive    0/1         0       0         0  0.00        0        0     0 normal",
        "",
        "replica       host       device          GiB used  °C  use  batches    up",
        "near-0a41be22 line-gpu-1 H100 80GB HBM3  5.2/79.6  61  62%   181204 2.2 h",
        "near-77c0d9f1 line-gpu-2 L4             21.6/22.5  88 100%    92113 2.2 h",
        "wide-5510aa0c line-gpu-1 H100 80GB HBM3  5.2/79.6  61  62%    12019  42 s",
        "",
        "verdict  frames   /s    outcome     frames    /s",
        "admit   290,114 36.3    finished   311,022  38.9",
        "degrade  18,220  2.3    rejected       941  0.12",
        "defer     2,847 0.36    expired        120  0.01",
        "reject      937 0.12    superseded      33 <0.01",
        "                        cancelled        2 <0.01",
        "                        failed           4 <0.01",
        "/s: since the start",
        "",
        "near-77c0d9f1: slowed down: hw_thermal",
        "pool archive: no replica is ready",
        "pool archive: unhealthy: no machine has the label hall=4",
        "metrics: http://10.0.0.10:8080/metrics, http://10.0.0.11:8080/metrics and 1 more",
    ]


def test_rates_are_those_since_the_look_before():
    """50 frames in ten seconds, 5 of them rejected."""
    later = dataclasses.replace(
        STATUS,
        uptime_s=8010.0,
        outcomes=STATUS.outcomes | {"finished": 311_067, "rejected": 946},
        verdicts=STATUS.verdicts | {"admit": 290_159, "reject": 942},
    )
    lines = shown(dataclasses.replace(VIEW, status=later), VIEW)

    assert "5.0 frames/s" in lines[0]
    assert cells(lines, "admit") == ["admit", "290,159", "4.5", "finished", "311,067", "4.5"]
    assert cells(lines, "degrade") == ["degrade", "18,220", "0", "rejected", "946", "0.50"]
    assert "/s: last 10 s" in lines


def test_a_service_that_has_done_nothing_yet_is_shown():
    """No frame, no replica, nothing of Ray or Serve."""
    lines = shown(ServiceView(ServiceStatus(0.0, (PoolStatus("cpu", 0, 0, (), num_wanted=1),), {}, 0)))

    assert lines[0] == "framelane  up 0 s, 0 frames/s, 0 in flight, 1/1 router"
    assert cells(lines, "admit") == ["admit", "0", "0", "finished", "0", "0"]
    assert "pool cpu: no replica is ready" in lines


def test_what_a_device_does_not_say_is_a_dash():
    """A CPU has no temperature here and there."""
    pool = PoolStatus("cpu", 0, 0, (report("cpu-1", used_bytes=2**30, total_bytes=2**31), report("cpu-2")))
    lines = shown(ServiceView(ServiceStatus(1.0, (pool,), {}, 0)))

    assert cells(lines, "cpu-1")[2:] == ["device", "1.0/2.0", "–", "–", "3", "0", "s"]
    assert cells(lines, "cpu-2")[2:] == ["device", "–", "–", "–", "3", "0", "s"]


def test_missing_routers_records_and_troubles_are_said():
    """In the header, or in a line of their own."""
    status = dataclasses.replace(STATUS, num_records_lost=7)
    lines = shown(
        dataclasses.replace(VIEW, status=status, routers=DeploymentFacts(1, 3, "unhealthy: it died")), width=160
    )

    assert "1/3 routers, 7 records could not be written to the frame log" in lines[0]
    assert "routers: unhealthy: it died" in lines


def test_several_routers_have_a_table():
    """One router is the header's business."""
    routers = tuple(
        RouterStatus(RouterReport(f"router-{name}", "1f0c9a44", 7), 60.0, 2, 0, 0, 0.0, {"finished": 10})
        for name in "ab"
    )
    status = dataclasses.replace(STATUS, routers=routers)

    assert cells(shown(dataclasses.replace(VIEW, status=status)), "router-b") == [
        "router-b", "1f0c9a44", "10", "2", "60", "s",
    ]  # fmt: skip
    assert not [line for line in shown(VIEW) if line.startswith("router-")]


def test_of_many_dead_machines_the_first_are_shown():
    """A cluster whose machines come and go leaves hundreds."""
    dead = tuple(node(f"dead{number:04}", "h", "10.1.1.1", is_alive=False) for number in range(40))
    lines = shown(dataclasses.replace(VIEW, nodes=(*NODES[:2], *dead)))

    assert sum(line.startswith("dead") for line in lines) == 3
    assert [line for line in lines if "and 37 more" in line]


def test_names_are_no_markup():
    """A pool called [red] is called so, on the page as in the plan."""
    pool = dataclasses.replace(POOLS[0], name="[red]", replicas=(dataclasses.replace(report("[/]-1"), node="abcd"),))
    nodes = (node("abcd", "[bold]host", "10.0.0.1", labels={"[x]": "[/y]"}),)
    lines = shown(ServiceView(dataclasses.replace(STATUS, pools=(pool,)), nodes))

    assert cells(lines, "[red]")
    assert cells(lines, "[/]-1")[1] == "[bold]host"
    assert "[bold]host" in cells(lines, "abcd")
    assert "[x]=[/y]" in cells(lines, "abcd")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (99.4, "99 s"),
        (100, "2 min"),
        (5999, "100 min"),
        (6000, "1.7 h"),
        (359_999, "100.0 h"),
        (1e6, "12 d"),
    ],
)
def test_durations_are_short(seconds, text):
    """One number and its unit."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.001, "<0.01"), (0.005, "0.01"), (0.95, "0.95"), (0.996, "1.0"), (9.96, "10.0"), (1234.5, "1,234")],
)
def test_numbers_have_as_many_digits_as_they_mean(value, text):
    """Two below one, one below a hundred, none above."""
    assert number(value) == text


def test_ecc_errors_and_notes_of_a_replica_are_remarks():
    """What the table has no column for."""
    replica = dataclasses.replace(report("near-1"), device=facts(ecc_uncorrected=3), notes=("slow: 4.1 times",))
    lines = shown(ServiceView(dataclasses.replace(STATUS, pools=(PoolStatus("near", 0, 0, (replica,)),))))

    assert lines[-2:] == ["near-1: slow: 4.1 times", "near-1: 3 memory errors"]


def test_the_picture_in_the_docs_is_this_page():
    """Make it anew with: python tests/unit/serve_app/status_picture.py."""
    assert PICTURE.read_text() == status_svg()
