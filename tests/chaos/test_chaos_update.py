"""A new plan under load: no frame fails or is lost, old engines serve until the new ones are warm, or stay."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from chaos_world import CLIENT, LIGHT_SHARES, PATIENT_SHARES, fake_engines, look, table

from serve_app.client import Client
from serve_app.errors import InvalidPlanError, ServiceUnavailableError
from serve_app.update import update

pytestmark = pytest.mark.chaos

UPDATE_AT_S = 4.0
# An update with fake engines takes as long as Serve and Ray need to start and to end processes.
LOAD_S = 45.0
AFTER_S = 3.0
# The real command, with real engines: it is started, updated twice and stopped.
COMMAND_LOAD_S = 50.0
COMMAND_TIMEOUT_S = 170.0
LIGHT = """
models: {light: "bundled:inspection-light"}
pools: {cpu: {replicas: 1, cpus: 0.5, threads: 1}}
buckets: {vga: {canvases: [[480, 640], [256, 320]], batches: [1, 2]}}
frame_log: frames.jsonl
"""
FULL = """
models: {full: "bundled:inspection-full"}
pools: {cpu: {replicas: 1, cpus: 0.5, threads: 1}}
buckets: {vga: {canvases: [[256, 352]], batches: [1]}}
frame_log: frames.jsonl
"""
# Deadlines that a machine can keep which also starts the new processes on the cores of the old ones.
CAMERAS = [
    {"camera": "gate", "priority": "critical", "slo_s": 10.0, "size_hw": [240, 320], "hz": 4},
    {"camera": "belt", "priority": "normal", "slo_s": 20.0, "size_hw": [240, 320], "hz": 4},
]


def test_an_update_of_four_replicas_under_load_fails_no_frame(world):
    """At 0.8 of the capacity, on two nodes, with room for the new ones beside the old."""
    before = world.status().revision
    num_before = len(world.records())
    load = world.load("update", LOAD_S, PATIENT_SHARES)
    load.until(UPDATE_AT_S)
    update(world.plan("other", (288, 352)), lambda _: None, fake_engines)
    updated_s = load.now_s()
    after = world.load("after", AFTER_S, PATIENT_SHARES).notes()
    notes = load.notes()
    findings = look(notes, world.records()[num_before:], [])
    print(f"\nupdated within {updated_s - load.began_s - UPDATE_AT_S:.1f} s\n{table(findings, [], notes)}")  # noqa: T201

    assert Counter(how for (_, how), count in findings.outcomes.items() for _ in range(count)) == {
        "finished": len(notes)
    }
    assert (findings.lost_critical, findings.answered_twice, findings.unlogged) == ([], [], [])
    assert {(a["model"], a["canvas"]) for note in after for a in note["answers"]} == {("other", "288x352")}
    assert {note["answers"][0]["model"] for note in notes} == {"fake", "other"}
    assert world.status().revision > before


def test_a_plan_whose_engines_do_not_start_leaves_the_old_one(world):
    """Its error is told, and every frame is served meanwhile."""
    model = next(iter(Client.connect().plan.models))
    load = world.load("broken", LOAD_S, LIGHT_SHARES)
    load.until(UPDATE_AT_S)
    with pytest.raises(ServiceUnavailableError, match=r"got model 'broken'.*the old plan serves on"):
        update(world.plan("broken"), lambda _: None, fake_engines)
    notes = load.notes()

    assert Counter(answer["outcome"] for note in notes for answer in note["answers"]) == {"finished": len(notes)}
    assert {answer["model"] for note in notes for answer in note["answers"]} == {model}
    assert list(Client.connect().plan.models) == [model]


def test_without_room_for_new_replicas_nothing_is_changed(world):
    """Serve would wait for ever for a machine; who deploys learns at once what is missing."""
    before = world.status().revision
    with pytest.raises(InvalidPlanError, match=r"got 100 GPUs for one new replica of each pool \(gpu\)"):
        update(world.plan("other", gpus=100), lambda _: None, fake_engines)

    assert world.status().revision == before


class Command:
    """The real command with a state of its own."""

    def __init__(self, folder):
        self.folder = folder
        path = Path(sys.executable).with_name("framelane")
        self._command = str(path)
        self.environment = {
            "PATH": f"{path.parent}:/usr/bin:/bin", "HOME": str(Path.home()),
            "FRAMELANE_STATE_DIR": str(folder / "state"), "COLUMNS": "200",
        }  # fmt: skip

    def __call__(self, *arguments):
        """Run it; what it wrote."""
        done = subprocess.run(
            [self._command, *arguments],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def send(self, name, seconds):
        """Start the client process, which takes its notes in a file of this name."""
        asked = {"address": None, "seconds": seconds, "out": str(self.folder / name), "streams": CAMERAS}
        return subprocess.Popen(
            [sys.executable, str(CLIENT), json.dumps(asked)],
            cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip


@pytest.fixture
def framelane(tmp_path):
    """A service of one replica in the background of this machine, with two bundled models to choose from."""
    (tmp_path / "light.yaml").write_text(LIGHT)
    (tmp_path / "full.yaml").write_text(FULL)
    command = Command(tmp_path)
    command("up", "light.yaml")
    yield command
    command("down")


def test_the_only_replica_changes_its_model_and_canvases_and_back_without_a_failed_frame(framelane):
    """`framelane update`, with real engines; a client that stays connected follows, and learns the new plan."""
    with framelane.send("notes.jsonl", COMMAND_LOAD_S) as client:
        assert client.stdout.readline() == "sending\n"
        assert "serving full.yaml" in framelane("update", "full.yaml")
        assert "serving light.yaml" in framelane("update", "light.yaml")
        assert client.wait(COMMAND_TIMEOUT_S) == 0
    with framelane.send("after.jsonl", AFTER_S) as client:  # a slow machine updates for longer than the first load
        assert client.wait(COMMAND_TIMEOUT_S) == 0
    notes, later = (
        [json.loads(line) for line in (framelane.folder / name).read_text().splitlines()]
        for name in ("notes.jsonl", "after.jsonl")
    )
    answers = [answer for note in (*notes, *later) for answer in note["answers"]]
    logged = [json.loads(line)["frame_id"] for line in (framelane.folder / "frames.jsonl").read_text().splitlines()]

    assert Counter(answer["outcome"] for answer in answers) == {"finished": len(notes) + len(later)}
    assert sorted(answer["frame_id"] for answer in answers) == sorted(logged)
    order = [answer["model"] for answer in answers]
    changes = [new for old, new in itertools.pairwise(order) if old != new]
    slowest_s = max(answer["latency_s"] for answer in answers)
    print(f"\ntwo updates: {len(notes)} frames finished, the slowest took {slowest_s:.2f} s")  # noqa: T201
    assert (order[0], order[-1], set(order)) == ("light", "light", {"light", "full"})
    # Frames that ran when the update came are answered by the old engines, a few after the first of the new.
    assert len(changes) <= 2 + 2 * 4
    assert {(a["model"], a["canvas"]) for a in answers} == {("light", "256x320"), ("full", "256x352")}
