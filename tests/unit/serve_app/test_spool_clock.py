"""Ages go on over restarts, and no clock that is set makes them jump."""

from __future__ import annotations

import dataclasses

import pytest

from serve_app.spool.machine_clocks import read_clocks
from serve_app.spool.spool_clock import ClockReading, SpoolClock

DAY_S = 86_400.0


class Machine:
    """Clocks of a machine, whose wall clock people may set."""

    def __init__(self):
        self.reading = ClockReading(1_000_000.0, 50.0, "boot-1", 5_000.0)

    def read(self):
        """As `read_clocks`."""
        return self.reading

    def pass_s(self, seconds):
        """All clocks go on."""
        now = self.reading
        self.reading = dataclasses.replace(
            now, wall_s=now.wall_s + seconds, monotonic_s=now.monotonic_s + seconds, boot_s=now.boot_s + seconds
        )

    def set_wall(self, by_s):
        """Somebody sets the wall clock."""
        self.reading = dataclasses.replace(self.reading, wall_s=self.reading.wall_s + by_s)

    def restart_process(self):
        """A process's monotonic clock may begin anywhere."""
        self.reading = dataclasses.replace(self.reading, monotonic_s=3.0)

    def reboot(self, down_s):
        """Down for so long; the wall clock goes on in hardware."""
        now = self.reading
        self.reading = ClockReading(now.wall_s + down_s, 1.0, now.boot_id + "+", 10.0)


def test_it_begins_at_the_wall_clock():
    """So that people can read the first times."""
    assert SpoolClock(Machine().read, None).now_s() == 1_000_000.0


@pytest.mark.parametrize("jump_s", [-30 * DAY_S, -1.0, 3600.0, 20_000 * DAY_S])
def test_a_jump_within_a_process_changes_nothing(jump_s):
    """Back to 1970, forth by half a century: a minute is a minute."""
    machine = Machine()
    clock = SpoolClock(machine.read, None)
    machine.pass_s(30)
    machine.set_wall(jump_s)
    machine.pass_s(30)
    assert clock.now_s() == 1_000_060.0


@pytest.mark.parametrize("jump_s", [-30 * DAY_S, 20_000 * DAY_S])
@pytest.mark.parametrize("when", ["before the mark", "after it", "between processes"])
def test_a_jump_before_a_restart_on_the_same_boot_changes_nothing(jump_s, when):
    """The clock since boot says how long nothing ran."""
    machine = Machine()
    clock = SpoolClock(machine.read, None)
    machine.pass_s(10)
    if when == "before the mark":
        machine.set_wall(jump_s)
    mark = clock.mark()
    machine.pass_s(5)
    if when == "after it":
        machine.set_wall(jump_s)
    machine.restart_process()
    machine.pass_s(20)
    if when == "between processes":
        machine.set_wall(jump_s)
    assert SpoolClock(machine.read, mark).now_s() == 1_000_035.0


def test_a_reboot_goes_by_the_wall_clock():
    """And by it alone, whatever it said before the mark."""
    machine = Machine()
    machine.set_wall(-20_000 * DAY_S)
    clock = SpoolClock(machine.read, None)
    start_s = clock.now_s()
    machine.set_wall(20_000 * DAY_S)  # the time server answers at last
    machine.pass_s(60)
    mark = clock.mark()
    machine.reboot(down_s=600)
    assert SpoolClock(machine.read, mark).now_s() == start_s + 660


def test_a_wall_clock_that_was_set_back_over_a_reboot_makes_no_age_negative():
    """Time stands rather than runs backwards."""
    machine = Machine()
    mark = SpoolClock(machine.read, None).mark()
    machine.reboot(down_s=600)
    machine.set_wall(-DAY_S)
    later = SpoolClock(machine.read, mark)
    assert later.now_s() == mark.spool_s
    machine.pass_s(5)
    assert later.now_s() == mark.spool_s + 5


def test_the_machine_says_its_clocks():
    """Two readings go forward; the boot has a name."""
    one, other = read_clocks(), read_clocks()
    assert other.monotonic_s >= one.monotonic_s
    assert other.boot_s >= one.boot_s > 0
    assert one.boot_id == other.boot_id != ""
