"""A spool in a Redis that several machines share: it outlives the machine that takes the frames.

Two processes may feed from it, as when a machine was cut off and its replica was started elsewhere. Each entry of the
stream is leased to one of them; a lease that is not renewed passes to another (`XAUTOCLAIM`). A result is written only
in the place of a record that is still there, so whoever comes second writes nothing.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar
from urllib.parse import urlsplit

from serve_app.errors import FramelaneError, InvalidPlanError, ServiceUnavailableError, TicketUnknownError
from serve_app.spool import redis_scripts as scripts
from serve_app.spool import spool_answers as answers
from serve_app.spool.spool import GONE_PER_TTL, AsideFrame, FrameEnd, NewFrame, PendingFrame, SpoolUsage
from serve_app.spool.spool_clock import ClockMark
from serve_app.tickets import ResultsPage, TicketAnswer

PREFIX = "framelane:{spool}:"
# Three times as long as a living process takes to renew: it may miss two.
LEASE_S = 15.0
CONNECT_TIMEOUT_S = 5.0
# A 60 MB record over a slow network; a Redis that is gone is noticed by its connection.
ANSWER_TIMEOUT_S = 20.0
# What Redis keeps of a frame beside its record.
ROW_BYTES = 1024
# Redis does nothing else meanwhile: a few milliseconds.
FORGOTTEN_AT_A_TIME = 500

T = TypeVar("T")


def connect_redis(address: str, *, max_bytes: int, result_ttl_s: float, prefix: str = PREFIX) -> RedisSpool:
    """The spool at an address such as `redis://:PASSWORD@10.0.0.5:6379/0`.

    Raises:
        InvalidPlanError: the address is none, or the `redis` extra is not installed.
        ServiceUnavailableError: nobody answers there.
    """
    try:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError as err:
        raise InvalidPlanError(
            "spool.redis: Redis' client is not installed; install it on every machine: pip install 'framelane[redis]'"
        ) from err
    try:
        # One more try at once: a connection that stood idle may be dead. After that it is for the caller to wait.
        client = redis.Redis.from_url(
            address,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=ANSWER_TIMEOUT_S,
            health_check_interval=15,
            retry=Retry(NoBackoff(), 1),
        )
    except ValueError as err:
        raise InvalidPlanError(
            f"spool.redis: got {place_of(address)!r}, allowed is an address such as redis://10.0.0.5:6379/0"
        ) from err
    spool = RedisSpool(client, place_of(address), max_bytes=max_bytes, result_ttl_s=result_ttl_s, prefix=prefix)
    spool.open()
    return spool


def place_of(address: str) -> str:
    """An address without its user and password."""
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


class RedisSpool:
    """See `Spool`. What survives a power cut is what Redis has on its disk: see `appendonly` in docs/cluster.md."""

    def __init__(
        self,
        client: Any,
        place: str,
        *,
        max_bytes: int,
        result_ttl_s: float,
        prefix: str = PREFIX,
        lease_s: float = LEASE_S,
    ) -> None:
        """Take a `redis.Redis` that returns bytes, and the bounds; `open` makes the first call."""
        self._client = client
        self._place = place
        self._max_bytes = max_bytes
        self._ttl_s = result_ttl_s
        self._prefix = prefix
        self._lease_ms = int(lease_s * 1000)
        self._consumer = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._entries: dict[str, bytes] = {}  # leased to this process, by frame
        self._scripts = {
            name: client.register_script(getattr(scripts, name))
            for name in ("KEEP", "TRIED", "FINISH", "FORGET", "PAGE", "DROP", "RENEW")
        }
        self.last_mark: ClockMark | None = None

    def open(self) -> None:
        """Make the stream's group, and read the mark of the process before."""

        def opened() -> None:
            self._begin()
            mark = self._client.get(self._key("mark"))
            self.last_mark = ClockMark(**json.loads(mark)) if mark else None

        self._ask(opened)

    def keep(self, frames: Sequence[NewFrame], now_s: float) -> list[FramelaneError | None]:
        """See `SpoolStore.keep`."""

        def kept() -> list[FramelaneError | None]:
            pipeline = self._client.pipeline(transaction=False)
            for frame in frames:
                size = len(frame.record) + ROW_BYTES
                self._run("KEEP", frame.frame_id, frame.camera, now_s, frame.life_s, frame.record, size,
                          self._max_bytes, client=pipeline)  # fmt: skip
            told = pipeline.execute(raise_on_error=False)
            return [self._refusal(frame, each) for frame, each in zip(frames, told, strict=True)]

        return self._ask(kept)

    def take(self, max_frames: int) -> list[PendingFrame]:
        """See `SpoolStore.take`."""

        def taken() -> list[PendingFrame]:
            claimed = self._client.xautoclaim(
                self._key("pending"), scripts.GROUP, self._consumer, self._lease_ms, "0-0", count=max_frames
            )[1]
            entries = [(entry, fields) for entry, fields in claimed if fields]
            if len(entries) < max_frames:
                new = self._client.xreadgroup(
                    scripts.GROUP, self._consumer, {self._key("pending"): ">"}, count=max_frames - len(entries)
                )
                entries += new[0][1] if new else []
            return self._pending_of(entries)

        return self._ask(taken)

    def load(self, frame_id: str) -> bytes | None:
        """See `SpoolStore.load`."""
        record: bytes | None = self._ask(lambda: self._client.hget(self._key("frame", frame_id), "record"))
        if record is None:
            with self._lock:
                self._entries.pop(frame_id, None)
        return record

    def tried(self, frame_id: str) -> None:
        """See `SpoolStore.tried`."""
        self._ask(lambda: self._run("TRIED", frame_id))

    def finish(self, ends: Sequence[FrameEnd], now_s: float) -> list[bool]:
        """See `SpoolStore.finish`."""

        def finished() -> list[bool]:
            pipeline = self._client.pipeline(transaction=False)
            for end in ends:
                reason = "" if end.aside_reason is None else end.aside_reason or "unknown"
                self._run("FINISH", end.frame_id, end.outcome.value, end.result, now_s, reason, client=pipeline)
            return [bool(each) for each in pipeline.execute()]

        told = self._ask(finished)
        with self._lock:
            for end in ends:
                self._entries.pop(end.frame_id, None)
        return told

    def tidy(self, mark: ClockMark) -> None:
        """See `SpoolStore.tidy`. Also renews the leases of this process."""

        def tidied() -> None:
            self._client.set(self._key("mark"), json.dumps(asdict(mark)))
            with self._lock:
                entries = list(self._entries.values())
            if entries:
                mine = set(self._run("RENEW", self._consumer, *entries))
                with self._lock:
                    self._entries = {
                        frame_id: entry
                        for frame_id, entry in self._entries.items()
                        if entry in mine or entry not in entries
                    }
            while self._run("FORGET", mark.spool_s, self._ttl_s, GONE_PER_TTL, FORGOTTEN_AT_A_TIME):
                pass
            self._forget_consumers()

        self._ask(tidied)

    def answer(self, frame_id: str, now_s: float) -> TicketAnswer:
        """See `SpoolAnswers.answer`."""

        def asked() -> Any:
            pipeline = self._client.pipeline(transaction=True)
            pipeline.hmget(self._key("done", frame_id), "camera", "ended_s", "outcome", "result")
            pipeline.hmget(self._key("frame", frame_id), "camera", "kept_s")
            pipeline.hmget(self._key("gone", frame_id), "camera", "ended_s", "outcome")
            return pipeline.execute()

        done, pending, gone = self._ask(asked)
        if done[0] is not None:
            camera, ended_s, outcome, result = done[0].decode(), float(done[1]), done[2].decode(), done[3]
            left_s = ended_s + self._ttl_s - now_s
            if left_s > 0:
                return answers.done(frame_id, camera, result, left_s)
            return answers.expired(frame_id, camera, outcome, now_s - ended_s, self._ttl_s)
        if pending[0] is not None:
            return answers.waiting(frame_id, pending[0].decode(), now_s - float(pending[1]))
        if gone[0] is not None:
            return answers.expired(frame_id, gone[0].decode(), gone[2].decode(), now_s - float(gone[1]), self._ttl_s)
        return answers.unknown(frame_id, self._place)

    def results_after(self, camera: str, cursor: int, max_results: int, now_s: float) -> ResultsPage:
        """See `SpoolAnswers.results_after`."""
        *numbers, rows = self._ask(lambda: self._run("PAGE", camera, max(0, cursor), max_results, now_s - self._ttl_s))
        before, last, _, num_waiting = map(int, numbers)
        if not 0 <= cursor <= last:
            raise TicketUnknownError(
                f"cursor: got {cursor!r}, camera {camera!r} is at {last}; a cursor is of one camera and one spool: "
                "begin again with 0"
            )
        end = int(rows[-1][1]) if len(rows) == max_results else last
        num_dropped: int | None = end - max(cursor, before) - len(rows)
        if 0 < cursor < before:
            num_dropped = None
        results = tuple(answers.kept_result(row[0].decode(), camera, row[2]) for row in rows)
        return ResultsPage(results, end, num_dropped, num_waiting)

    def usage(self) -> SpoolUsage:
        """See `SpoolAnswers.usage`."""

        def used() -> SpoolUsage:
            counts = self._client.hmget(self._key("usage"), "pending", "done", "aside", "bytes")
            num_pending, num_done, num_aside, num_bytes = (int(count or 0) for count in counts)
            oldest = self._client.xrange(self._key("pending"), count=1)
            kept_s = self._client.hget(self._key("frame", oldest[0][1][b"id"].decode()), "kept_s") if oldest else None
            return SpoolUsage(
                num_pending,
                num_done,
                num_aside,
                num_bytes,
                oldest_kept_s=float(kept_s) if kept_s is not None else None,
                warnings=tuple(self._warnings()),
            )

        return self._ask(used)

    def aside(self) -> list[AsideFrame]:
        """See `SpoolAnswers.aside`."""

        def listed() -> list[AsideFrame]:
            found = []
            for frame_id in self._client.zrange(self._key("asides"), 0, -1):
                key = self._key("aside", frame_id.decode())
                camera, reason, aside_s = self._client.hmget(key, "camera", "reason", "aside_s")
                if camera is not None:
                    num_bytes = self._client.hstrlen(key, "record")
                    found.append(
                        AsideFrame(frame_id.decode(), camera.decode(), reason.decode(), float(aside_s), num_bytes)
                    )
            return found

        return self._ask(listed)

    def drop_aside(self, frame_id: str) -> bytes | None:
        """See `SpoolAnswers.drop_aside`."""
        record: bytes | None = self._ask(lambda: self._run("DROP", frame_id))
        return record

    def close(self) -> None:
        """See `SpoolAnswers.close`. What is leased here passes to others when the lease is over."""
        self._client.close()

    def _refusal(self, frame: NewFrame, told: Any) -> FramelaneError | None:
        import redis

        if isinstance(told, redis.exceptions.OutOfMemoryError):
            return answers.full(f"memory of Redis at {self._place}", len(frame.record), 0, "raise its maxmemory")
        if isinstance(told, Exception):
            raise told
        is_full, used = told
        if not is_full:
            return None
        need = len(frame.record) + ROW_BYTES
        return answers.full(
            f"spool.max_bytes, of which {int(used):,} are taken", need, self._max_bytes, "raise it in the plan",
            can_wait=need < self._max_bytes,
        )  # fmt: skip

    def _pending_of(self, entries: Sequence[tuple[bytes, dict[bytes, bytes]]]) -> list[PendingFrame]:
        """The frames of leased entries; an entry whose frame has its result already goes."""
        frames = []
        for entry, fields in entries:
            frame_id = fields[b"id"].decode()
            camera, kept_s, life_s, num_tries = self._client.hmget(
                self._key("frame", frame_id), "camera", "kept_s", "life_s", "num_tries"
            )
            if camera is None:
                self._client.xack(self._key("pending"), scripts.GROUP, entry)
                self._client.xdel(self._key("pending"), entry)
                continue
            with self._lock:
                is_held = frame_id in self._entries
                self._entries[frame_id] = entry
            if not is_held:
                frames.append(PendingFrame(frame_id, camera.decode(), float(kept_s), float(life_s), int(num_tries)))
        return frames

    def _begin(self) -> None:
        """Make what an empty Redis lacks."""
        import redis

        # Numbers are above all that were given out before it was emptied.
        seconds, micros = self._client.time()
        self._client.hsetnx(self._key("usage"), "newest", seconds * 1_000_000 + micros)

        try:
            self._client.xgroup_create(self._key("pending"), scripts.GROUP, "0", mkstream=True)
        except redis.exceptions.ResponseError as err:
            if "BUSYGROUP" not in str(err):
                raise

    def _forget_consumers(self) -> None:
        """Remove the names of processes that are long gone and hold nothing."""
        for consumer in self._client.xinfo_consumers(self._key("pending"), scripts.GROUP):
            if not consumer["pending"] and consumer["idle"] > 10 * self._lease_ms:
                self._client.xgroup_delconsumer(self._key("pending"), scripts.GROUP, consumer["name"])

    def _warnings(self) -> list[str]:
        said = self._client.info("persistence") | self._client.info("memory")
        warnings = []
        if not said.get("aof_enabled"):
            warnings.append(f"Redis at {self._place} loses frames when it restarts: set appendonly yes")
        policy = said.get("maxmemory_policy", "noeviction")
        if policy != "noeviction" and said.get("maxmemory"):
            warnings.append(f"Redis at {self._place} may throw frames away ({policy}): set maxmemory-policy noeviction")
        return warnings

    def _key(self, *parts: str) -> str:
        return self._prefix + ":".join(parts)

    def _run(self, script: str, *arguments: Any, client: Any = None) -> Any:
        return self._scripts[script](args=[self._prefix, *arguments], client=client)

    def _ask(self, ask: Callable[[], T]) -> T:
        """Ask Redis something; once more if it has forgotten the group, as one that was emptied."""
        import redis

        try:
            try:
                return ask()
            except redis.exceptions.ResponseError as err:
                if not str(err).startswith("NOGROUP"):
                    raise
                self._begin()
                return ask()
        except (redis.exceptions.RedisError, OSError) as err:
            raise ServiceUnavailableError(
                f"spool {self._place}: Redis does not answer ({type(err).__name__}: {str(err)[:150]}); what it has "
                "taken is fed when it is back",
                1.0,
            ) from err
