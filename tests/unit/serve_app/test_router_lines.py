"""A client's lines to routers that are fakes: whose cameras are whose, and what a death changes."""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import Future

import pytest
from ray.exceptions import ActorDiedError
from router_world import Clock

from serve_app import router_lines
from serve_app.camera_owner import owner
from serve_app.peer_routers import Door, Doors
from serve_app.router_lines import FIND_INTERVAL_S, LOST_S, REFRESH_S, RouterLines

CAMERAS = [f"gate-{number}" for number in range(40)]


class FakeActor:
    """A router's actor that answers `doors` when the test says so."""

    def __init__(self, name):
        self.handle_request = self
        self.name = name
        self.asked = []

    def remote(self, _metadata, packed, refs):
        """Note the question; what it gives has a `future`, as a ref has."""
        assert (pickle.loads(packed), refs) == (("doors", ()), None)  # noqa: S301
        self.asked.append(Future())
        return self

    def future(self):
        """Of the last question."""
        return self.asked[-1]

    def __reduce__(self):
        return FakeActor, (self.name,)


def doors(by, *names, idle=()):
    """What router `by` knows: these own cameras, the idle ones do not."""
    return Doors(by, tuple(Door(name, FakeActor(name), name not in idle) for name in (*names, *idle)))


class FakeHandle:
    """The routers' deployment: answers, or raises, what the test has put there."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.doors = self
        self.timeouts_s = []

    def remote(self):
        """A question."""
        return self

    def result(self, *, timeout_s):
        """Its answer."""
        self.timeouts_s.append(timeout_s)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def clock(monkeypatch):
    """The lines' clock; its sleep passes the time."""
    stopped = Clock()
    stopped.sleep = stopped.pass_s
    monkeypatch.setattr(router_lines, "time", stopped)
    return stopped


def owners(lines):
    """Who owns the cameras, by the lines."""
    return {camera: lines.to_owner(camera)[0] for camera in CAMERAS}


def expected(*routers):
    """By the hash."""
    return {camera: owner(camera, routers) for camera in CAMERAS}


@pytest.mark.usefixtures("clock")
def test_each_camera_has_the_line_to_its_owner():
    """Routers that own nothing get no frames, but can be asked."""
    lines = RouterLines(FakeHandle(), doors("a", "a", "b", idle=["old"]))

    assert owners(lines) == expected("a", "b")
    router, line = lines.to_owner("gate-1")
    assert line is lines.line(router)
    assert lines.line("old").actor.name == "old"
    assert lines.line("c") is None


@pytest.mark.usefixtures("clock")
def test_the_cameras_of_a_lost_router_go_to_the_others():
    """The others keep theirs."""
    lines = RouterLines(FakeHandle(), doors("a", "a", "b", "c"))
    lines.lost("b")

    assert owners(lines) == expected("a", "c")
    assert lines.line("b") is None


@pytest.mark.usefixtures("clock")
def test_a_list_with_the_dead_router_brings_it_not_back():
    """Another router hears of the death a second later; only the dead one itself can say that it is not."""
    lines = RouterLines(FakeHandle(doors("a", "a", "b"), doors("b", "a", "b")), doors("a", "a", "b"))
    lines.lost("b")
    lines.find(1.0)
    assert owners(lines) == expected("a")
    lines.find(1.0)
    assert owners(lines) == expected("a", "b")


def test_after_a_while_a_list_is_believed_again(clock):
    """By then every router knows who has died."""
    lines = RouterLines(FakeHandle(doors("a", "a", "b")), doors("a", "a", "b"))
    lines.lost("b")
    clock.pass_s(LOST_S + 0.1)
    lines.find(1.0)

    assert owners(lines) == expected("a", "b")


@pytest.mark.usefixtures("clock")
def test_when_all_owners_are_lost_the_router_that_answers_gets_the_frames():
    """It passes them on, or serves them."""
    lines = RouterLines(FakeHandle(doors("old", "a", idle=["old"])), doors("a", "a"))
    lines.lost("a")
    assert lines.to_owner("gate-1") is None
    lines.find(1.0)

    assert set(owners(lines).values()) == {"old"}


def test_finding_a_router_goes_on_while_serve_still_knows_a_dead_one(clock):
    """As long as it may take, no longer."""
    handle = FakeHandle(ActorDiedError(), ActorDiedError(), doors("a", "a"))
    lines = RouterLines(handle, doors("a", "a"))
    lines.find(1.0)
    assert handle.timeouts_s == [pytest.approx(1.0 - FIND_INTERVAL_S * number) for number in range(3)]

    handle.answers = [ActorDiedError() for _ in range(20)]
    before_s = clock.now_s
    with pytest.raises(ActorDiedError):
        lines.find(1.0)
    assert 1.0 <= clock.now_s - before_s < 1.5


def test_a_used_list_is_refreshed_behind_the_calls(clock):
    """Nobody waits for the answer; lines that are open go on; one question at a time."""
    lines = RouterLines(FakeHandle(), doors("a", "a"))
    line = lines.line("a")
    clock.pass_s(REFRESH_S + 0.1)
    assert owners(lines) == expected("a")
    (question,) = line.actor.asked

    question.set_result(pickle.dumps(doors("a", "a", "b")))
    assert owners(lines) == expected("a", "b")
    assert lines.line("a") is line
    assert len(line.actor.asked) == 1


def test_each_refresh_asks_another_router(clock):
    """One that hangs never answers, and must not keep the others' news back."""
    lines = RouterLines(FakeHandle(), doors("a", "a", "b"))
    for _ in range(4):
        clock.pass_s(REFRESH_S + 0.1)
        owners(lines)

    assert [len(lines.line(name).actor.asked) for name in "ab"] == [2, 2]


def test_a_refresh_that_finds_its_router_dead_has_lost_it(clock):
    """The next call goes to another one, and asks that one."""
    lines = RouterLines(FakeHandle(), doors("a", "a", "b"))
    first = lines.line("a")
    clock.pass_s(REFRESH_S + 0.1)
    owners(lines)
    first.actor.asked[0].set_exception(ActorDiedError())

    assert owners(lines) == expected("b")
    assert len(lines.line("b").actor.asked) == 1


def test_threads_may_use_the_lines_while_routers_come_and_go(clock):
    """A camera always has an owner whose line is there."""
    lines = RouterLines(FakeHandle(*[doors("a", "a", "b", "c") for _ in range(300)]), doors("a", "a", "b", "c"))
    failures = []

    def use():
        for camera in CAMERAS * 50:
            found = lines.to_owner(camera)
            if found is None or found[1] is None:
                failures.append(camera)

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(300):
        lines.lost("b")
        clock.pass_s(LOST_S + 1)
        lines.find(1.0)
    for thread in threads:
        thread.join()

    assert failures == []
