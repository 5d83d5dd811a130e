"""A spool service among fakes: a router that answers as the test says, refs without Ray, a real store in a folder."""

from __future__ import annotations

import asyncio
import dataclasses

import numpy as np
from serve_samples import sample_plan
from spool_samples import sample_result

from serve_app.errors import ServiceUnavailableError
from serve_app.frames import FrameMeta
from serve_app.plan import CameraRule
from serve_app.spool.spool_clock import ClockReading
from serve_app.spool.spool_service import SpoolService
from serve_app.spool.sqlite_spool import SqliteSpool
from serve_app.spool_rules import SpoolRules
from serve_app.tickets import Ticket

SIZE_HW = (16, 24)
PATIENCE_S = 20.0
PLENTY_BYTES = 2**40


def image_of(number):
    """A frame that is told from others by its pixels."""
    return np.full((*SIZE_HW, 3), number, np.uint8)


def meta_of(frame_id, camera="night-1", **fields):
    """What a client says of it."""
    return FrameMeta(frame_id, camera, SIZE_HW, **fields)


class Line:
    """The service as the feeder sees it; each frame's score is the brightness of its pixels."""

    def __init__(self):
        self.fed = []
        self.answers = []
        self.is_away = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def connect(self):
        """Reach it, if it is there."""
        if self.is_away:
            raise ServiceUnavailableError("service: away")
        return self

    async def submit_async(self, image_hwc, *, camera, priority, slo_s, frame_id):
        """Answer with the test's next outcome or error, else that it finished."""
        assert priority == "normal"
        self.fed.append((frame_id, camera, slo_s))
        await self.gate.wait()
        if self.is_away:
            raise ServiceUnavailableError("service: the call did not come back")
        score = float(image_hwc.mean())
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        result = sample_result(frame_id, camera, score=score)
        return result if answer is None else dataclasses.replace(result, outcome=answer[0], error=answer[1])

    def fed_ids(self):
        """The frames that were fed, in order, without what makes each try's id its own."""
        return [frame_id.partition("~")[0] for frame_id, _, _ in self.fed]


class Clocks:
    """All clocks of a machine, which pass when the test says so."""

    def __init__(self):
        self.reading = ClockReading(1_000_000.0, 0.0, "boot", 0.0)

    def read(self):
        """As `read_clocks`."""
        return self.reading

    def pass_s(self, seconds):
        """Later."""
        now = self.reading
        self.reading = ClockReading(now.wall_s + seconds, now.monotonic_s + seconds, "boot", now.boot_s + seconds)


class SpoolWorld:
    """A folder, the processes that serve it one after the other, and the router they feed."""

    def __init__(self, folder, **rules):
        self.folder = folder
        self.line = Line()
        self.clocks = Clocks()
        self.rules = SpoolRules(**{"result_ttl_s": 500.0} | rules)
        self.plan = sample_plan(cameras=(CameraRule("night-*", durable=True),), spool=self.rules)
        self.open_error = None
        self.service = None
        self.loop_errors = []

    def open_store(self):
        """The store, or what keeps it from opening."""
        if self.open_error is not None:
            raise self.open_error
        return SqliteSpool(
            self.folder, max_bytes=self.rules.max_bytes, result_ttl_s=self.rules.result_ttl_s,
            free_bytes=lambda _: PLENTY_BYTES, ballast_bytes=100_000,
        ).open()  # fmt: skip

    async def start(self, **options):
        """The next process."""
        if self.service is not None:
            await self.service.stop()
        self.service = SpoolService(
            self.plan, "here", "node-1", open_store=self.open_store, read_clocks=self.clocks.read,
            connect=self.line.connect, **options,
        )  # fmt: skip
        self.service.start()
        return self.service

    async def keep(self, *frame_ids, camera="night-1", **fields):
        """Tickets of frames that must be taken; their pixels are all their place in the call."""
        metas = [meta_of(frame_id, camera, **fields) for frame_id in frame_ids]
        tickets = await self.service.keep(metas, [ref_to(image_of(n + 1)) for n in range(len(metas))])
        assert [type(ticket) for ticket in tickets] == [Ticket] * len(metas)
        return tickets

    async def result(self, ticket, wait_s=10.0):
        """How its frame ended."""
        return await self.service.ticket_result(ticket.ticket_id, wait_s)

    async def until(self, is_so):
        """Wait until something is so."""
        give_up_s = asyncio.get_running_loop().time() + PATIENCE_S
        while not is_so():
            assert asyncio.get_running_loop().time() < give_up_s
            await asyncio.sleep(0.005)


def ref_to(value):
    """Stands for an object ref."""
    ref = asyncio.get_running_loop().create_future()
    if isinstance(value, Exception):
        ref.set_exception(value)
    else:
        ref.set_result(value)
    return ref


def play_spool(scenario, folder, **rules):
    """Run a scenario with a started service, and see that nothing fails unseen."""

    async def main():
        world = SpoolWorld(folder, **rules)
        asyncio.get_running_loop().set_exception_handler(lambda _, context: world.loop_errors.append(context))
        await world.start()
        try:
            await asyncio.wait_for(scenario(world), PATIENCE_S)
        finally:
            world.line.gate.set()
            await world.service.stop()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert left == set()
        assert world.loop_errors == []

    asyncio.run(main())
