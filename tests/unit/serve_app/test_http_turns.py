"""Who begins when: the others as the loop bears it, critical requests at once."""

from __future__ import annotations

import asyncio
import random

import pytest

from serve_app.http.turns import MAX_LAG_S, MIN_ACTIVE, MIN_TICKS, STEP, TICK_S, Turns

LATE_S, IN_TIME_S = 2 * MAX_LAG_S, 0.0


class Crowd:
    """Requests that stay under way until they are let go."""

    def __init__(self, max_active=100):
        self.turns = Turns(max_active)
        self.turns._watch = self.settle  # tests say themselves how late the loop is
        self.inside = []
        self.doors = {}
        self.tasks = {}

    async def come(self, *names, priority="normal"):
        """They come in this order."""
        for name in names:
            self.doors[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._stay(name, priority))
            await self.settle()

    async def go(self, *names):
        """They leave."""
        for name in names:
            self.doors[name].set()
        await self.settle()

    async def settle(self):
        """Let everybody do what there is to do."""
        for _ in range(8):
            await asyncio.sleep(0)

    async def _stay(self, name, priority):
        async with self.turns.taken(priority):
            self.inside.append(name)
            try:
                await self.doors[name].wait()
            finally:
                self.inside.remove(name)


def play(scenario, **options):
    """Run one, and see that nothing is left."""

    async def run():
        crowd = Crowd(**options)
        await scenario(crowd)
        await crowd.go(*crowd.doors)
        while crowd.turns.num_active or crowd.inside:
            crowd.turns.heard(IN_TIME_S)
            await crowd.settle()
        await asyncio.gather(*crowd.tasks.values(), return_exceptions=True)
        assert crowd.turns.num_active == 0

    asyncio.run(run())


def test_so_many_begin_and_the_others_wait_in_order():
    """First come, first served."""

    async def scenario(crowd):
        await crowd.come(*range(MIN_ACTIVE + 3))
        assert crowd.inside == list(range(MIN_ACTIVE))
        await crowd.go(0, 1)
        assert crowd.inside[-2:] == [MIN_ACTIVE, MIN_ACTIVE + 1]

    play(scenario)


def test_a_critical_request_waits_for_nobody():
    """However many are there, and takes no place of theirs."""

    async def scenario(crowd):
        await crowd.come(*range(MIN_ACTIVE + 5))
        await crowd.come("urgent", priority="critical")
        assert "urgent" in crowd.inside
        assert crowd.turns.num_active == MIN_ACTIVE

    play(scenario)


def test_more_begin_while_the_loop_keeps_up():
    """Up to the limit."""

    async def scenario(crowd):
        await crowd.come(*range(40))
        crowd.turns.heard(IN_TIME_S)
        await crowd.settle()
        assert len(crowd.inside) == MIN_ACTIVE + STEP
        for _ in range(20):
            crowd.turns.heard(IN_TIME_S)
        await crowd.settle()
        assert (len(crowd.inside), crowd.turns.bound) == (20, 20)

    play(scenario, max_active=20)


def test_fewer_begin_when_the_loop_is_late_and_never_none():
    """Who is inside stays; a machine that is always late serves on."""

    async def scenario(crowd):
        await crowd.come(*range(40))
        for _ in range(5):
            crowd.turns.heard(IN_TIME_S)
        await crowd.settle()
        inside = list(crowd.inside)
        for _ in range(50):
            crowd.turns.heard(LATE_S)
        await crowd.settle()
        assert (crowd.inside, crowd.turns.bound) == (inside, MIN_ACTIVE)
        await crowd.go(*inside)
        assert len(crowd.inside) == MIN_ACTIVE

    play(scenario)


def test_a_quiet_loop_alone_opens_nothing():
    """The bound grows by need: the next crowd is let in step by step again."""

    async def scenario(crowd):
        await crowd.come(0)
        for _ in range(50):
            crowd.turns.heard(IN_TIME_S)
        assert crowd.turns.bound == MIN_ACTIVE

    play(scenario)


def test_one_who_goes_while_waiting_takes_no_turn():
    """Clients hang up; the place goes to the next one."""

    async def scenario(crowd):
        await crowd.come(*range(MIN_ACTIVE + 2))
        crowd.tasks[MIN_ACTIVE].cancel()
        await crowd.settle()
        await crowd.go(0)
        assert crowd.inside[-1] == MIN_ACTIVE + 1

    play(scenario)


@pytest.mark.parametrize("seed", range(20))
def test_nobody_waits_for_ever_and_no_place_is_lost(seed):
    """Whoever comes, goes and hangs up, in whatever order, cancelled in the very moment of its turn too."""
    lots = random.Random(seed)

    async def scenario(crowd):
        for name in range(120):
            await crowd.come(name, priority=lots.choice(["normal"] * 4 + ["critical"]))
            for other in lots.sample(range(name + 1), min(2, name + 1)):
                crowd.doors[other].set()
                if lots.random() < 0.4:
                    crowd.tasks[other].cancel()
            crowd.turns.heard(lots.choice([LATE_S, IN_TIME_S]))

    play(scenario)


def test_a_lasting_queue_tells_how_long_it_is():
    """By the pace of those before; a burst is none, and an empty one is forgotten."""

    async def scenario(crowd):
        names = list(range(200))
        await crowd.come(*names)
        crowd.turns.heard(LATE_S)
        assert crowd.turns.wait_s() == 0
        for tick in range(MIN_TICKS):
            await crowd.go(2 * tick, 2 * tick + 1)
            crowd.turns.heard(LATE_S)
        num_waiting = 200 - MIN_ACTIVE - 2 * MIN_TICKS
        per_second = 2 / (TICK_S + LATE_S)
        assert crowd.turns.wait_s() == pytest.approx(num_waiting / per_second, rel=0.15)
        await crowd.go(*names)
        await asyncio.gather(*crowd.tasks.values())
        crowd.turns.heard(IN_TIME_S)
        assert crowd.turns.wait_s() == 0

    play(scenario)


def test_the_loop_is_listened_to_only_while_somebody_is_there():
    """A process that nobody calls does nothing."""

    async def scenario():
        turns = Turns(10)
        async with turns.taken("normal"):
            watching = turns._watching
            assert not watching.done()
        await asyncio.wait_for(watching, 5)

    asyncio.run(scenario())
