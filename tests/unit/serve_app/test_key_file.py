"""The file of keys: what it may say, how a key gets into it, and that nothing of it is quoted."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from serve_app.cli import app
from serve_app.config import http_keys_path
from serve_app.errors import InvalidPlanError
from serve_app.http.key_rules import KeyRule, hash_of
from serve_app.http.replica import KeyFile
from serve_app.key_file import add_key, load_keys

SHA = hash_of("fl_secret")
OTHER = hash_of("fl_other")


def test_a_key_says_what_its_holder_may_do(tmp_path):
    """With defaults that allow little: no critical frames; no rate; every camera."""
    path = tmp_path / "keys.yaml"
    path.write_text(
        f"keys:\n  gate: {{sha256: {SHA}, critical: true, cameras: ['gate-*']}}\n"
        f"  belt: {{sha256: {OTHER}, frames_per_s: 2.5}}\n"
    )
    assert load_keys(path) == (
        KeyRule("gate", SHA, may_be_critical=True, cameras=("gate-*",)),
        KeyRule("belt", OTHER, frames_hz=2.5, burst=3),
    )


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("keys: [", "is no YAML (line 1)"),
        ("keys: {gate: {sha256: fl_secret}}", "keys.gate.sha256: String should match"),
        (f"keys: {{gate: {{sha256: {SHA}, critcal: true}}}}", "keys.gate.critcal: Extra inputs are not permitted"),
        (f"keys: {{gate: {{sha256: {SHA}, frames_per_s: 0}}}}", "keys.gate.frames_per_s"),
        (f"keys: {{a: {{sha256: {SHA}}}, b: {{sha256: {SHA}}}}}", "a and b have the same sha256"),
        ("fl_secret", "Input should be"),
        (b"\xff\xfe", "is no text"),
        (None, "no such file or directory; make a key with: framelane key"),
    ],
    ids=["no yaml", "a key itself", "unknown field", "no rate", "twice", "no mapping", "no text", "missing"],
)
def test_a_file_of_no_use_is_refused_without_quoting_it(tmp_path, content, told):
    """Somebody may have put a key there instead of its hash."""
    path = tmp_path / "keys.yaml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidPlanError) as refused:
        load_keys(path)
    assert told in str(refused.value)
    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None or "secret" not in str(refused.value.__cause__)


def test_the_command_makes_a_key_that_the_file_knows_by_its_hash(tmp_path):
    """Twice into one file; the comment that somebody wrote stays, and nobody else may read it."""
    path = tmp_path / "keys.yaml"
    path.write_text("# of hall 3\nkeys:\n")
    path.write_text(f"# of hall 3\nkeys:\n  old: {{sha256: {SHA}}}\n")
    first = CliRunner().invoke(app, ["key", "gate", "-f", str(path), "--critical", "--camera", "gate-*"])
    second = CliRunner().invoke(app, ["key", "belt", "-f", str(path), "--frames-per-s", "2.5"])
    assert (first.exit_code, second.exit_code) == (0, 0)
    made = [each.stdout.strip().splitlines()[-1] for each in (first, second)]
    assert load_keys(path)[1:] == (
        KeyRule("gate", hash_of(made[0]), may_be_critical=True, cameras=("gate-*",)),
        KeyRule("belt", hash_of(made[1]), frames_hz=2.5, burst=3),
    )
    text = path.read_text()
    assert text.startswith("# of hall 3\n")
    assert not any(key in text for key in made)
    assert path.stat().st_mode & 0o077 == 0


def test_a_name_that_is_taken_is_refused(tmp_path):
    """The holder of the first one would find its key gone."""
    path = tmp_path / "keys.yaml"
    add_key(path, KeyRule("gate", SHA))
    with pytest.raises(InvalidPlanError, match="got 'gate', which is there"):
        add_key(path, KeyRule("gate", OTHER))
    assert load_keys(path) == (KeyRule("gate", SHA),)


def test_keys_are_read_again_when_their_file_changes(tmp_path, caplog):
    """Without a restart; a file that somebody is half through with takes nobody's key."""
    path = tmp_path / "keys.yaml"
    add_key(path, KeyRule("gate", SHA))
    file = KeyFile(path, num_replicas=1)
    assert [rule.name for rule in file.read()] == ["gate"]
    assert file.changed() is None
    add_key(path, KeyRule("belt", OTHER))
    assert [rule.name for rule in file.changed()] == ["gate", "belt"]
    path.write_text("keys: {gate: {sha256: fl_secret}}")
    assert file.changed() is None
    assert file.changed() is None
    assert caplog.text.count("are used on") == 1
    assert "secret" not in caplog.text


def test_the_environment_may_name_the_file(tmp_path, monkeypatch):
    """As secrets of Kubernetes do; it goes before the plan."""
    from fake_gateway import plan_of

    plan = plan_of(tmp_path, keys="keys.yaml")
    monkeypatch.delenv("FRAMELANE_HTTP_KEYS", raising=False)
    assert http_keys_path(plan) == tmp_path / "keys.yaml"
    assert http_keys_path(plan_of(tmp_path)) is None
    monkeypatch.setenv("FRAMELANE_HTTP_KEYS", "/run/secrets/keys.yaml")
    assert str(http_keys_path(plan)) == "/run/secrets/keys.yaml"
