"""The plan's `http` section, and what the command line says in its place."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest
from fake_gateway import plan_of

from serve_app.cli.http_flags import HttpFlags, shown_at
from serve_app.errors import InvalidPlanError, ServiceUnavailableError
from serve_app.http.critical_door import listening_at
from serve_app.http.deployment import check_http
from serve_app.http.limits import limits_of
from serve_app.http_rules import HttpRules


def free_port():
    """A port that nobody listens at, just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_without_a_section_http_is_off_and_for_this_machine_alone(tmp_path):
    """Nobody opens a port by accident."""
    assert plan_of(tmp_path).http == HttpRules()
    assert (HttpRules().is_on, HttpRules().host, HttpRules().cors_origins) == (False, "127.0.0.1", ())


def test_the_section_is_read(tmp_path):
    """Paths are relative to the plan."""
    rules = plan_of(
        tmp_path, enabled=True, port=9001, host="0.0.0.0", replicas=2, keys="keys.yaml", max_parts=4,  # noqa: S104
        cors_origins=["https://line.example"],
    ).http  # fmt: skip
    assert (rules.is_on, rules.port, rules.num_replicas, rules.max_parts) == (True, 9001, 2, 4)
    assert (rules.keys, rules.cors_origins) == (str(tmp_path / "keys.yaml"), ("https://line.example",))


def test_no_image_may_have_more_px_than_a_frame(tmp_path):
    """Decoding what the router would refuse is work for nothing."""
    assert limits_of(plan_of(tmp_path)).max_image_px == 1_000_000
    assert limits_of(plan_of(tmp_path, max_image_px=5_000)).max_image_px == 5_000
    assert limits_of(plan_of(tmp_path, max_image_px=9_000_000)).max_image_px == 1_000_000


@pytest.mark.parametrize(
    ("http", "told"),
    [
        ({"max_body_bytes": 10, "max_bodies_bytes": 5}, "max_bodies_bytes: got 5, allowed is at least"),
        ({"cors_origins": ["*"]}, "cors_origins: got '*'"),
        ({"port": 80}, "http.port: got 80"),
        ({"critical_port": 8000}, "http.critical_port: got 8000, which is http.port too"),
        ({"max_part": 3}, "did you mean 'max_parts'"),
        ({"read_timeout_s": 0}, "http.read_timeout_s: got 0"),
    ],
    ids=str,
)
def test_a_section_that_makes_no_sense_is_refused(tmp_path, http, told):
    """With the key and what is allowed."""
    with pytest.raises(InvalidPlanError) as refused:
        plan_of(tmp_path, **http)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("host", "is_open"),
    [("127.0.0.1", False), ("::1", False), ("localhost", False), ("0.0.0.0", True), ("10.0.0.5", True),  # noqa: S104
     ("line-head", True)],
)  # fmt: skip
def test_a_door_to_the_network_needs_keys(tmp_path, host, is_open):
    """Or somebody who says that it does not."""
    rules = HttpRules(host=host)
    rules.check_reach(has_keys=True)
    replace(rules, allow_anonymous=True).check_reach(has_keys=False)
    if not is_open:
        rules.check_reach(has_keys=False)
        return
    with pytest.raises(InvalidPlanError, match="without API keys"):
        check_http(replace(plan_of(tmp_path), http=rules), is_here=True)


def test_a_port_that_somebody_has_is_told_before_anything_starts(tmp_path):
    """Serve would try for ever."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ServiceUnavailableError, match=r"cannot be listened at .*--http-port"):
            check_http(plan_of(tmp_path, port=port), is_here=True)
        with pytest.raises(ServiceUnavailableError, match=r"cannot be listened at .*with http\.critical_port"):
            check_http(plan_of(tmp_path, port=free_port(), critical_port=port), is_here=True)
        with pytest.raises(ServiceUnavailableError, match=r"cannot be listened at .*with http\.critical_port"):
            listening_at("127.0.0.1", port)


def test_what_an_update_replaces_may_listen_beside_its_successor():
    """Else one of the two would have no port."""
    with listening_at("127.0.0.1", 0) as old, listening_at("127.0.0.1", old.getsockname()[1]) as new:
        assert new.getsockname() == old.getsockname()


def test_a_file_without_keys_is_refused(tmp_path):
    """Nobody could call."""
    (tmp_path / "keys.yaml").write_text("keys: {}\n")
    with pytest.raises(InvalidPlanError, match="got none, so nobody could call"):
        check_http(plan_of(tmp_path, keys="keys.yaml"), is_here=True)


def test_the_command_line_goes_before_the_plan(tmp_path):
    """And travels to the process in the background as it was given."""
    plan = plan_of(tmp_path, port=9001)
    assert HttpFlags().rules(plan) == plan.http
    flags = HttpFlags(is_on=True, port=9002, host="::1")
    rules = flags.rules(plan)
    assert (rules.is_on, rules.port, rules.host) == (True, 9002, "::1")
    assert flags.arguments() == ["--http", "--http-port", "9002", "--http-host", "::1"]
    assert HttpFlags().arguments() == []
    assert (shown_at(rules), shown_at(plan.http)) == (", http://[::1]:9002", "")
    both = HttpFlags(is_on=True).rules(plan_of(tmp_path, port=9001, critical_port=9003))
    assert shown_at(both) == ", http://127.0.0.1:9001, for critical keys http://127.0.0.1:9003"


def test_a_port_without_http_is_refused(tmp_path):
    """It would be thought to be served."""
    with pytest.raises(InvalidPlanError, match="without --http"):
        HttpFlags(port=9002).rules(plan_of(tmp_path))
