"""Kills under load, on three nodes: every frame has one outcome, and a critical one that has time is served.

A patient critical frame (12 s) may be lost only if a kill left it less than the time in which such a death is noticed,
plus one run: here none does, since a frame waits for less than two seconds and a dead node is noticed within eight.
Those of 250 ms cannot outlive a death that hits them; how many missed is printed.
"""

from __future__ import annotations

import pytest
from chaos_world import PATIENT_SLO_S, look, table

pytestmark = pytest.mark.chaos

# Seconds of load, and when to kill what.
ONE_KILL_S, KILL_AT_S = 25.0, 5.0
NIGHT_S = 60.0
NIGHT = ((5.0, "replica"), (17.0, "node"), (33.0, "router"), (47.0, "controller"))


def play(world, name, seconds, kills):
    """Send frames for so long, kill at these seconds, and check what nobody may see."""
    num_before = len(world.records())
    load = world.load(name, seconds)
    done = []
    for second, what in kills:
        load.until(second)
        done.append(getattr(world, f"kill_{what}")())
    notes = load.notes()
    findings = look(notes, world.records()[num_before:], done)
    print(f"\n{table(findings, done, notes)}")  # noqa: T201
    assert [kill.what for kill in done if kill.back_after_s is None] == [], "did not come back"
    assert findings.without_outcome == []
    assert findings.lost_critical == [], f"critical frames of {PATIENT_SLO_S:g} s"
    assert findings.answered_twice == []
    assert findings.unlogged == []
    return findings


@pytest.mark.parametrize("what", ["replica", "node", "router", "controller"])
def test_one_kill_loses_no_frame(world, what):
    """Each alone, so that a failure names what it cannot bear."""
    play(world, what, ONE_KILL_S, [(KILL_AT_S, what)])


def test_a_bad_night_loses_no_frame(world):
    """All four in one minute of load at 0.8 of the capacity."""
    play(world, "night", NIGHT_S, NIGHT)
