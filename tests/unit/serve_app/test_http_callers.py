"""Keys: who may call, what for, and how often."""

from __future__ import annotations

import base64
import logging

import pytest
from fake_gateway import Site, jpeg, plan_of
from hypothesis import given
from hypothesis import strategies as st

from serve_app.http.callers import CallerBook
from serve_app.http.errors import KeyMissingError, NotAllowedError, RateExceededError
from serve_app.http.key_rules import KEY_PREFIX, KeyRule, hash_of, new_key, shares_of

GATE, BELT = "fl_gate-secret", "fl_belt-secret"
RULES = (
    KeyRule("gate", hash_of(GATE), may_be_critical=True),
    KeyRule("belt", hash_of(BELT), frames_hz=2.0, burst=3, cameras=("belt-*",)),
)


@pytest.fixture
def site(tmp_path):
    """Open to two keys."""
    return Site(plan_of(tmp_path), RULES)


def bearer(key):
    """As most clients send it."""
    return {"authorization": f"Bearer {key}"}


def basic(key):
    """As browsers send what people typed."""
    return {"authorization": f"Basic {base64.b64encode(f'me:{key}'.encode()).decode()}"}


@pytest.mark.parametrize("headers", [bearer(GATE), {"x-api-key": GATE}, {"authorization": f"bearer  {GATE}"}], ids=str)
def test_a_key_is_taken_as_bearer_or_in_its_own_header(site, headers):
    """Both are common."""
    assert site.send(headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{}, bearer("fl_other"), bearer(""), {"x-api-key": ""}, {"authorization": GATE}, basic(GATE),
     {"authorization": "Basic !!"}, {"authorization": "Bearer ü".encode()}],
    ids=["none", "unknown", "empty", "empty header", "no scheme", "basic on POST", "no base64", "not ascii"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/detect", "/v1/tickets"])
def test_without_a_known_key_no_frame_is_taken(site, path, headers):
    """And the answer says how a key is sent, and not which keys there are."""
    response = site.send(path=path, headers=headers)
    assert response.status_code == 401
    assert "Bearer" in response.headers["www-authenticate"]
    assert GATE not in response.text
    assert "gate" not in response.text
    assert site.gateway.asked == []


@pytest.mark.parametrize("path", ["/v1/status", "/v1/tickets/t1", "/v1/cameras/belt-1/results"])
def test_nothing_is_read_without_a_key(site, path):
    """Pictures of a line are nobody else's business."""
    assert site.ask("GET", path).status_code == 401


@pytest.mark.parametrize("path", ["/v1/health/live", "/v1/health/ready", "/openapi.json"])
def test_probes_need_no_key(site, path):
    """Kubernetes has none."""
    assert site.ask("GET", path).status_code == 200


def test_a_browser_may_read_with_the_key_as_a_password(site):
    """Which people are asked for; but not write: a browser sends it from other sites' pages too."""
    assert site.ask("GET", "/v1/status", headers=basic(GATE)).status_code == 200
    assert "Basic" in site.ask("GET", "/v1/status").headers["www-authenticate"]


def test_a_key_may_be_barred_from_critical_frames(site):
    """Before its body is read."""
    response = site.send(headers=bearer(BELT), camera="belt-1", priority="critical")
    assert response.status_code == 403
    assert "'belt'" in response.json()["detail"]
    assert site.send(headers=bearer(GATE), priority="critical").status_code == 200


def test_the_port_of_critical_keys_is_for_them_alone(tmp_path):
    """Whatever others ask for there: a crowd of theirs would stand before the critical ones again."""
    site = Site(plan_of(tmp_path), RULES, only_critical=True)
    assert site.send(headers=bearer(GATE)).status_code == 200
    for refused in (
        site.send(headers=bearer(BELT), camera="belt-1"),
        site.ask("GET", "/v1/status", headers=bearer(BELT)),
    ):
        assert refused.status_code == 403
        assert "port: got key 'belt', allowed here are keys that may send critical frames" in refused.json()["detail"]
    assert site.send(headers=bearer("fl_other")).status_code == 401
    assert site.ask("GET", "/v1/health/ready").status_code == 200
    assert len(site.gateway.asked) == 1


def test_a_key_may_be_bound_to_its_cameras(site):
    """For frames and for results."""
    assert site.send(headers=bearer(BELT), camera="gate-1").status_code == 403
    assert site.ask("GET", "/v1/cameras/gate-1/results", headers=bearer(BELT)).status_code == 403
    site.gateway.kept = {"t1": site.gateway.pages.results[0]}
    assert site.ask("GET", "/v1/tickets/t1", headers=bearer(BELT)).status_code == 404
    assert site.ask("GET", "/v1/tickets/t1", headers=bearer(GATE)).status_code == 200


def test_a_key_has_its_rate_by_frames(site):
    """Images of one request count each; `Retry-After` says when there is room."""

    def send(num_images):
        files = [("image", (f"{n}.jpg", jpeg())) for n in range(num_images)]
        return site.ask("POST", "/v1/detect", files=files, params={"camera": "belt-1"}, headers=bearer(BELT))

    assert send(3).status_code == 200
    refused = send(1)
    assert (refused.status_code, refused.json()["retry_after_s"], refused.headers["retry-after"]) == (429, 0.5, "1")
    site.now_s = 0.5
    assert send(1).status_code == 200
    assert send(1).status_code == 429
    site.now_s = 100.0
    assert "got 4 frames at once" in send(4).json()["detail"]
    assert send(2).status_code == 200


def test_a_key_without_a_rate_has_none(site):
    """The other key's rate is not its own."""
    assert {site.send(headers=bearer(GATE)).status_code for _ in range(20)} == {200}


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 3)), max_size=60))
def test_no_key_gets_more_than_its_burst_and_its_rate(steps):
    """Over any time, however it asks."""
    now_s = 0.0
    caller = CallerBook([RULES[1]], lambda: now_s).caller(BELT)
    taken = 0
    for pause_s, num_frames in steps:
        now_s += pause_s
        try:
            caller.charge(num_frames)
        except RateExceededError:
            continue
        taken += num_frames
        assert taken <= 3 + 2.0 * now_s + 1e-6


def test_every_stored_hash_is_compared_in_constant_time(monkeypatch):
    """All of them in full, whichever matches: the time tells nothing."""
    compared = []

    def compare(left, right):
        compared.append(left)
        return left == right

    monkeypatch.setattr("serve_app.http.callers.hmac.compare_digest", compare)
    book = CallerBook(RULES, lambda: 0.0)
    assert book.caller(GATE).name == "gate"
    with pytest.raises(KeyMissingError):
        book.caller("fl_wrong")
    assert compared == [rule.sha256 for rule in RULES] * 2


def test_new_keys_are_long_and_differ():
    """256 random bits behind a prefix that scanners for leaked secrets can know."""
    keys = {new_key() for _ in range(50)}
    assert len(keys) == 50
    assert all(key.startswith(KEY_PREFIX) and len(key) >= 43 for key in keys)


def test_replicas_divide_a_rate():
    """Serve spreads calls over them."""
    (rule,) = shares_of([RULES[1]], 2)
    assert (rule.frames_hz, rule.burst) == (1.0, 2)
    assert shares_of([RULES[0]], 4) == (RULES[0],)


def test_keys_are_replaced_while_they_are_used():
    """One that stays keeps what is left of its rate; one that went is nobody's."""
    book = CallerBook(RULES, lambda: 0.0)
    book.caller(BELT).charge(3)
    book.replace([RULES[1]])
    with pytest.raises(RateExceededError):
        book.caller(BELT).charge(1)
    with pytest.raises(KeyMissingError):
        book.caller(GATE)
    book.replace([KeyRule("belt", hash_of(BELT))])
    book.caller(BELT).charge(1000)
    with pytest.raises(NotAllowedError):
        book.caller(BELT).check_priority("critical")


def test_no_key_gets_into_a_log(site, caplog):
    """Whatever goes wrong."""
    caplog.set_level(logging.DEBUG)
    site.gateway.answer = RuntimeError("engine")
    for headers in (bearer(GATE), bearer("fl_wrong-secret"), {"x-api-key": GATE}):
        site.send(headers=headers)
        site.send(b"x", headers=headers)
        site.send(headers=headers, priority="urgent")
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text
