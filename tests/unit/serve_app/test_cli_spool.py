"""`framelane spool`: what people see of it, and how they remove what was set aside."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from serve_app.cli import app
from serve_app.cli.spool import status_lines
from serve_app.errors import FramelaneError, InvalidPlanError, TicketUnknownError
from serve_app.spool.spool import AsideFrame
from serve_app.spool.spool_status import SpoolStatus

STATUS = SpoolStatus("/spool", "node-1", None, 7, 2, 40, 1, 3 * 2**20, 64 * 2**20, 12.4, ("a file was damaged",))


class FakeClient:
    """A client whose spool is what a test says."""

    status = STATUS

    def __init__(self):
        self.spool = self
        self.dropped = []

    def spool_status(self):
        """The spool at a glance."""
        return self.status

    def aside(self):
        """One record."""
        return [AsideFrame("f-[1]", "gate", "its checksum does not match", 1.0, 1234)]

    def drop_aside(self, frame_id):
        """The record, once."""
        return b"damaged" if frame_id == "f-1" else None


@pytest.fixture
def run(monkeypatch):
    """Runs the command with the fake client."""
    client = FakeClient()
    monkeypatch.setattr("serve_app.client.Client.connect", lambda _=None: client)
    return lambda *arguments: CliRunner().invoke(app, ["spool", *arguments], env={"COLUMNS": "200"})


def test_it_shows_counts_and_what_was_set_aside(run):
    """Names with brackets are names, not markup."""
    ran = run("show")
    assert ran.exit_code == 0
    words = " ".join(ran.output.split())
    assert "7 frames wait, the oldest for 12 s, 2 of them in flight; 40 results are kept, 1 records set aside" in words
    assert "3.0 of 64 MiB" in words
    assert "a file was damaged" in words
    assert "f-[1] gate 1,234 its checksum does not match" in words


def test_a_spool_that_takes_nothing_says_why(run, monkeypatch):
    """Without asking its store for anything."""
    monkeypatch.setattr(FakeClient, "status", SpoolStatus("redis://h", "node-1", "Redis does not answer"))
    monkeypatch.setattr(FakeClient, "aside", None)
    assert "takes no frames: Redis does not answer" in run("show").output
    assert len(status_lines(FakeClient.status)) == 2


def test_a_record_is_removed_and_its_bytes_kept_where_asked(run, tmp_path):
    """Never over another file; an unknown one is told."""
    out = tmp_path / "record"
    ran = run("drop", "f-1", "--out", str(out))
    assert (ran.exit_code, out.read_bytes()) == (0, b"damaged")
    assert "removed f-1, 7 bytes" in ran.output
    with pytest.raises(FramelaneError, match="exists already"):
        raise run("drop", "f-1", "--out", str(out)).exception
    with pytest.raises(TicketUnknownError, match="'other' is set aside"):
        raise run("drop", "other").exception


def test_a_plan_without_durable_cameras_has_no_spool(run, monkeypatch):
    """It says which key makes one."""
    monkeypatch.setattr(FakeClient, "status", None)
    with pytest.raises(InvalidPlanError, match="set durable: true"):
        raise run("show").exception
