"""The spool in a real Redis: all that a spool promises, and what only a server and two feeders can suffer."""

from __future__ import annotations

import itertools
import shutil
import socket
import subprocess
import sys
import time

import pytest
import redis

pytest.register_assert_rewrite("spool_promises")
from spool_promises import *  # noqa: E402, F403 - the whole suite, to be collected here
from spool_promises import NOW_S, keep  # noqa: E402
from spool_samples import TTL_S, end_of, ids_of, mark_at, new_frame  # noqa: E402

from serve_app.errors import InvalidPlanError, ServiceUnavailableError, SpoolFullError  # noqa: E402
from serve_app.spool.redis_spool import RedisSpool, connect_redis, place_of  # noqa: E402
from serve_app.tickets import TicketState  # noqa: E402

PLENTY_BYTES = 2**40
START_S = 20.0
PREFIXES = (f"test:{{{number}}}:" for number in itertools.count())


class Server:
    """A Redis of the tests' own, on a free port, that keeps what it has over a restart."""

    def __init__(self, folder):
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process = None

    @property
    def address(self):
        """For clients."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self):
        """Start it and wait until it answers."""
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "",
             "--appendonly", "yes", "--appendfsync", "always"],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        give_up_s = time.monotonic() + START_S
        with redis.Redis(port=self.port) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.ConnectionError:
                    assert time.monotonic() < give_up_s, "Redis did not start"
                    time.sleep(0.02)

    def kill(self):
        """As a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One for all tests of this file, which keep apart by their prefixes."""
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server here; on Debian: apt-get install redis-server")
    started = Server(tmp_path_factory.mktemp("redis"))
    started.start()
    yield started
    started.kill()


class RedisCase:
    """Stores over one prefix."""

    def __init__(self, server):
        self.server = server
        self.prefix = next(PREFIXES)
        self.opened = []

    def open(self, *, max_bytes=PLENTY_BYTES, lease_s=30.0):
        """A process's store; several may be open."""
        client = redis.Redis.from_url(self.server.address)
        store = RedisSpool(
            client, place_of(self.server.address), max_bytes=max_bytes, result_ttl_s=TTL_S, prefix=self.prefix,
            lease_s=lease_s,
        )  # fmt: skip
        self.opened.append(store)
        store.open()
        return store

    def restart(self, store):
        """The next process's store, to which the leases of the one before are over at once."""
        store.close()
        return self.open(lease_s=0.0)


@pytest.fixture
def case(server):
    """A prefix of its own."""
    opened = RedisCase(server)
    yield opened
    for store in opened.opened:
        store.close()


def taken_within(store, num_frames, seconds=10.0):
    """What a store takes until it has so many frames; a lease ends by Redis' own clock."""
    give_up_s = time.monotonic() + seconds
    taken = []
    while len(taken) < num_frames and time.monotonic() < give_up_s:
        taken += ids_of(store.take(100))
        time.sleep(0.01)
    return taken


def test_two_processes_never_feed_the_same_frame(case):
    """Each entry is leased to one of them."""
    one, other = case.open(), case.open()
    keep(one, *(f"f{number}" for number in range(10)))
    first, second, third = one.take(3), other.take(4), one.take(10)
    assert ids_of([*first, *second, *third]) == [f"f{number}" for number in range(10)]
    assert other.take(10) == []


def test_the_frames_of_a_dead_process_pass_to_another(case):
    """Its lease ends; a result that it still writes after all counts once, like any."""
    dead, heir = case.open(lease_s=0.2), case.open(lease_s=0.2)
    keep(dead, "a", "b", "c")
    assert len(dead.take(10)) == 3

    assert taken_within(heir, 3) == ["a", "b", "c"]

    assert dead.finish([end_of("a", score=0.25)], NOW_S) == [True]
    assert heir.finish([end_of("a", score=0.5), end_of("b", score=0.5)], NOW_S) == [False, True]
    assert dead.finish([end_of("b", score=0.25)], NOW_S) == [False]
    scores = [heir.answer(frame_id, NOW_S).result.detections.scores[0] for frame_id in "ab"]
    assert scores == [0.25, 0.5]
    assert (heir.usage().num_pending, heir.usage().num_done) == (1, 2)


def test_a_living_process_keeps_its_frames(case):
    """It renews what it holds, and does not take back what has passed to another."""
    slow, other = case.open(lease_s=0.5), case.open(lease_s=0.5)
    keep(slow, "a", "b")
    slow.take(1)
    until_s = time.monotonic() + 1.5
    while time.monotonic() < until_s:
        slow.tidy(mark_at(NOW_S))
        assert "a" not in ids_of(other.take(10))
        time.sleep(0.05)
    assert taken_within(other, 1) == ["a"]
    slow.tidy(mark_at(NOW_S))
    pending = redis.Redis.from_url(case.server.address).xpending_range(f"{case.prefix}pending", "feeders", "-", "+", 10)
    assert {entry["consumer"].decode() for entry in pending} == {other._consumer}


def test_redis_that_goes_away_and_comes_back_has_lost_nothing(case):
    """Kill -9 of the server: every call says that it is away; afterwards all that was taken is there."""
    store = case.open()
    keep(store, "done", "held", "waits")
    store.take(2)
    store.finish([end_of("done")], NOW_S)

    case.server.kill()
    try:
        calls = {
            "keep": lambda: store.keep([new_frame("new")], NOW_S),
            "take": lambda: store.take(1),
            "load": lambda: store.load("held"),
            "tried": lambda: store.tried("held"),
            "finish": lambda: store.finish([end_of("held")], NOW_S),
            "tidy": lambda: store.tidy(mark_at(NOW_S)),
            "answer": lambda: store.answer("done", NOW_S),
            "results_after": lambda: store.results_after("gate", 0, 10, NOW_S),
            "usage": store.usage,
            "aside": store.aside,
            "drop_aside": lambda: store.drop_aside("held"),
            "open": case.open,
        }
        for call in calls.values():
            with pytest.raises(ServiceUnavailableError, match="Redis does not answer"):
                call()
    finally:
        case.server.start()

    assert store.answer("done", NOW_S).state is TicketState.DONE
    assert store.finish([end_of("held")], NOW_S) == [True]
    assert ids_of(store.take(10)) == ["waits"]
    keep(store, "new")
    assert store.usage().num_pending == 2


def test_a_redis_that_was_emptied_is_begun_anew(case):
    """Somebody deletes everything under a running service: it goes on; old cursors are known to be old."""
    store = case.open()
    keep(store, "f")
    store.finish([end_of("f")], NOW_S)
    cursor = store.results_after("gate", 0, 10, NOW_S).cursor
    client = redis.Redis.from_url(case.server.address)
    client.delete(*client.keys(f"{case.prefix}*"))

    assert store.take(10) == []
    keep(store, "g")
    assert ids_of(store.take(10)) == ["g"]
    assert store.finish([end_of("g")], NOW_S) == [True]
    page = store.results_after("gate", cursor, 10, NOW_S)
    assert (ids_of(page.results), page.num_dropped) == (["g"], None)
    assert store.answer("f", NOW_S).state is TicketState.UNKNOWN


def test_a_redis_without_memory_refuses_frames(case):
    """Its own bound is told like ours, and what lies there is answered."""
    store = case.open()
    keep(store, "early")
    client = redis.Redis.from_url(case.server.address)
    client.config_set("maxmemory", client.info("memory")["used_memory"] + 1_000_000)
    try:
        told = [store.keep([new_frame(f"f{number}", num_bytes=100_000)], NOW_S)[0] for number in range(30)]
    finally:
        client.config_set("maxmemory", 0)
    assert {type(answer) for answer in told} == {type(None), SpoolFullError}
    assert "maxmemory" in told[-1].message
    assert store.finish([end_of("early")], NOW_S) == [True]


def test_a_redis_that_may_lose_frames_is_warned_of(case):
    """Without its own log on disk, or free to throw keys away."""
    store = case.open()
    assert store.usage().warnings == ()
    client = redis.Redis.from_url(case.server.address)
    client.config_set("appendonly", "no")
    client.config_set("maxmemory-policy", "allkeys-lru")
    client.config_set("maxmemory", 2**30)
    try:
        without_log, throws_away = store.usage().warnings
    finally:
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("appendonly", "yes")
    assert "set appendonly yes" in without_log
    assert "allkeys-lru" in throws_away


def test_results_leave_nothing_behind_in_redis(case):
    """After their time only what is remembered of tickets, which Redis itself forgets, and the counters."""
    store = case.open()
    for number in range(5):
        keep(store, f"f{number}", camera=f"camera-{number}")
        store.finish([end_of(f"f{number}", f"camera-{number}")], NOW_S)
    store.take(10)
    store.tidy(mark_at(NOW_S + TTL_S))
    client = redis.Redis.from_url(case.server.address)
    gone = client.keys(f"{case.prefix}gone:*")
    assert len(gone) == 5
    assert all(0 < client.ttl(key) <= 4 * TTL_S for key in gone)
    store.tidy(mark_at(NOW_S + 5 * TTL_S))
    left = {key.decode().removeprefix(case.prefix) for key in client.keys(f"{case.prefix}*")}
    assert left - {f"gone:f{number}" for number in range(5)} == {"pending", "usage", "mark"}
    usage = {name.decode(): int(value) for name, value in client.hgetall(f"{case.prefix}usage").items()}
    assert (usage["bytes"], usage["pending"], usage["done"]) == (0, 0, 0)


def test_nobody_at_the_address():
    """The error names the place, without what stands before it."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"redis://user:geheim@127.0.0.1:{closed.getsockname()[1]}/2"
        with pytest.raises(ServiceUnavailableError, match=r"127\.0\.0\.1:\d+/2: Redis does not answer") as caught:
            connect_redis(address, max_bytes=1, result_ttl_s=1)
    assert "geheim" not in str(caught.value)


def test_an_address_that_is_none():
    """The plan's author is told, without the password."""
    with pytest.raises(InvalidPlanError, match=r"spool\.redis: got 'http://10\.0\.0\.5'"):
        connect_redis("http://:geheim@10.0.0.5", max_bytes=1, result_ttl_s=1)


def test_without_the_extra_the_cure_is_told(monkeypatch):
    """A default install has no Redis client."""
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(InvalidPlanError, match=r"pip install 'framelane\[redis\]'"):
        connect_redis("redis://10.0.0.5", max_bytes=1, result_ttl_s=1)
