"""A spool in one SQLite file of the machine, for one process at a time.

Space: the pages of answered frames are used again by later ones, and are given back to the disk a few at a time
(`auto_vacuum = INCREMENTAL`), so the file shrinks without being copied.
"""

from __future__ import annotations

import json
import logging
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from serve_app.errors import FramelaneError, TicketUnknownError
from serve_app.results import FrameResult
from serve_app.spool import spool_answers as answers
from serve_app.spool.ballast import BALLAST_BYTES
from serve_app.spool.spool import GONE_PER_TTL, AsideFrame, FrameEnd, NewFrame, PendingFrame, SpoolUsage
from serve_app.spool.spool_clock import ClockMark
from serve_app.spool.sqlite_file import damaged_files
from serve_app.spool.sqlite_home import DiskFullError, SqliteHome
from serve_app.tickets import ResultsPage, TicketAnswer

logger = logging.getLogger(__name__)

# Left free on the disk for others, and for SQLite's log.
RESERVED_BYTES = 128 * 2**20
# A row without its record: ids, times, index entries, and on average half a page.
ROW_BYTES = 8192


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


class SqliteSpool:
    """See `Spool`. Open one with `open`; the folder is this process's own until `close`."""

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        result_ttl_s: float,
        reserved_bytes: int = RESERVED_BYTES,
        ballast_bytes: int = BALLAST_BYTES,
        free_bytes: Callable[[Path], int] = _free_bytes,
    ) -> None:
        """Take the folder and the bounds; nothing is opened yet."""
        self._folder = folder
        self._home = SqliteHome(folder, ballast_bytes)
        self._max_bytes = max_bytes
        self._ttl_s = result_ttl_s
        self._reserved_bytes = reserved_bytes
        self._free_bytes = free_bytes
        self._taken_seq = 0
        self._taken_of = 0  # the file whose number `_taken_seq` is
        self.last_mark: ClockMark | None = None

    def open(self) -> SqliteSpool:
        """Open the file, or begin one.

        Raises:
            ServiceUnavailableError: another process has the folder, or the file cannot be opened.
        """
        self._home.open()
        try:
            mark = self._home.run(lambda database: _fact(database, "mark"))
            self.last_mark = ClockMark(**json.loads(mark)) if mark else None
        except (ValueError, TypeError):
            logger.exception("spool %s: its time mark cannot be read; ages go by the wall clock", self._folder)
        except BaseException:
            self.close()
            raise
        return self

    def keep(self, frames: Sequence[NewFrame], now_s: float) -> list[FramelaneError | None]:
        """See `SpoolStore.keep`."""
        try:
            return self._home.run(lambda database: self._keep(database, frames, now_s))
        except DiskFullError:
            if len(frames) > 1:  # some of them may find room alone
                return [answer for frame in frames for answer in self.keep([frame], now_s)]
            free = self._free_bytes(self._folder)
            return [answers.full(f"disk of {self._folder}", len(frames[0].record), free, "make room on that disk")]

    def take(self, max_frames: int) -> list[PendingFrame]:
        """See `SpoolStore.take`."""

        def taken(database: sqlite3.Connection) -> list[PendingFrame]:
            if self._taken_of != self._home.num_begun:
                self._taken_of, self._taken_seq = self._home.num_begun, 0
            rows = database.execute(
                "SELECT seq, frame_id, camera, kept_s, life_s, num_tries FROM pending WHERE seq > ? "
                "ORDER BY seq LIMIT ?",
                (self._taken_seq, max_frames),
            ).fetchall()
            if rows:
                self._taken_seq = rows[-1][0]
            return [PendingFrame(*row[1:]) for row in rows]

        return self._home.run(taken)

    def load(self, frame_id: str) -> bytes | None:
        """See `SpoolStore.load`."""
        row = self._one("SELECT record FROM pending WHERE frame_id = ?", frame_id)
        return bytes(row[0]) if row else None

    def tried(self, frame_id: str) -> None:
        """See `SpoolStore.tried`."""
        self._home.run(
            lambda database: database.execute(
                "UPDATE pending SET num_tries = num_tries + 1 WHERE frame_id = ?", (frame_id,)
            )
        )

    def finish(self, ends: Sequence[FrameEnd], now_s: float) -> list[bool]:
        """See `SpoolStore.finish`."""
        return self._home.run_on_a_full_disk(lambda database: self._finish(database, ends, now_s))

    def tidy(self, mark: ClockMark) -> None:
        """See `SpoolStore.tidy`."""

        def tidied(database: sqlite3.Connection) -> None:
            now_s = mark.spool_s
            with _transaction(database):
                _set_fact(database, "mark", json.dumps(asdict(mark)))
                old = (now_s - self._ttl_s,)
                database.execute(
                    "INSERT OR REPLACE INTO gone SELECT frame_id, camera, ended_s, outcome FROM done "
                    "WHERE ended_s <= ?", old,
                )  # fmt: skip
                database.execute("DELETE FROM done WHERE ended_s <= ?", old)
                forgotten = database.execute(
                    "DELETE FROM gone WHERE ended_s <= ?", (now_s - GONE_PER_TTL * self._ttl_s,)
                )
                if forgotten.rowcount:
                    database.execute(
                        "DELETE FROM cameras "
                        "WHERE camera NOT IN (SELECT camera FROM done UNION SELECT camera FROM gone)"
                    )

        with suppress(DiskFullError):  # what is forgotten later is forgotten as well
            self._home.run(tidied)
        self._home.shrink()

    def answer(self, frame_id: str, now_s: float) -> TicketAnswer:
        """See `SpoolAnswers.answer`."""
        columns = {
            "done": "camera, ended_s, outcome, result",
            "pending": "camera, kept_s",
            "gone": "camera, ended_s, outcome",
        }

        def found(database: sqlite3.Connection) -> list[Any]:
            # All at once: between two questions a frame may go from one table to the next.
            return [
                database.execute(f"SELECT {names} FROM {table} WHERE frame_id = ?", (frame_id,)).fetchone()  # noqa: S608
                for table, names in columns.items()
            ]

        done, pending, gone = self._home.run(found)
        if done:
            camera, ended_s, outcome, result = done
            left_s = ended_s + self._ttl_s - now_s
            if left_s > 0:
                return answers.done(frame_id, camera, bytes(result), left_s)
            return answers.expired(frame_id, camera, outcome, now_s - ended_s, self._ttl_s)
        if pending:
            return answers.waiting(frame_id, pending[0], now_s - pending[1])
        if gone:
            return answers.expired(frame_id, gone[0], gone[2], now_s - gone[1], self._ttl_s)
        return answers.unknown(frame_id, str(self._folder))

    def results_after(self, camera: str, cursor: int, max_results: int, now_s: float) -> ResultsPage:
        """See `SpoolAnswers.results_after`."""

        def page(database: sqlite3.Connection) -> ResultsPage:
            place = database.execute("SELECT before, last FROM cameras WHERE camera = ?", (camera,)).fetchone()
            newest = _newest(database)
            before, last = place or (newest, newest)
            if not 0 <= cursor <= last:
                raise TicketUnknownError(
                    f"cursor: got {cursor!r}, camera {camera!r} is at {last}; a cursor is of one camera and one spool: "
                    "begin again with 0"
                )
            rows = database.execute(
                "SELECT frame_id, number, result FROM done WHERE camera = ? AND number > ? AND ended_s > ? "
                "ORDER BY number LIMIT ?",
                (camera, cursor, now_s - self._ttl_s, max_results),
            ).fetchall()
            end = rows[-1][1] if len(rows) == max_results else last
            num_dropped: int | None = end - max(cursor, before) - len(rows)
            if 0 < cursor < before:
                num_dropped = None
            (num_waiting,) = database.execute("SELECT COUNT(*) FROM pending WHERE camera = ?", (camera,)).fetchone()
            results: list[FrameResult] = [answers.kept_result(row[0], camera, bytes(row[2])) for row in rows]
            return ResultsPage(tuple(results), end, num_dropped, num_waiting)

        return self._home.run(page)

    def usage(self) -> SpoolUsage:
        """See `SpoolAnswers.usage`."""

        def used(database: sqlite3.Connection) -> SpoolUsage:
            num_pending, num_done, num_aside = (
                int(database.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])  # noqa: S608
                for table in ("pending", "done", "aside")
            )
            oldest = database.execute("SELECT kept_s FROM pending ORDER BY seq LIMIT 1").fetchone()
            damaged = [
                f"{path}: was damaged and put away; look what can be saved (sqlite3 FILE .recover), then remove it"
                for path in damaged_files(self._folder)
            ]
            return SpoolUsage(
                num_pending,
                num_done,
                num_aside,
                _used_bytes(database),
                oldest_kept_s=oldest[0] if oldest else None,
                warnings=tuple(damaged),
            )

        return self._home.run(used)

    def aside(self) -> list[AsideFrame]:
        """See `SpoolAnswers.aside`."""
        rows = self._home.run(
            lambda database: database.execute(
                "SELECT frame_id, camera, reason, aside_s, length(record) FROM aside ORDER BY seq"
            ).fetchall()
        )
        return [AsideFrame(*row) for row in rows]

    def drop_aside(self, frame_id: str) -> bytes | None:
        """See `SpoolAnswers.drop_aside`."""
        row = self._one("SELECT record FROM aside WHERE frame_id = ?", frame_id)
        if row is None:
            return None
        self._home.run(lambda database: database.execute("DELETE FROM aside WHERE frame_id = ?", (frame_id,)))
        return bytes(row[0])

    def close(self) -> None:
        """See `SpoolAnswers.close`."""
        self._home.close()

    def _keep(
        self, database: sqlite3.Connection, frames: Sequence[NewFrame], now_s: float
    ) -> list[FramelaneError | None]:
        """One transaction, and one wait for the disk, for all of them."""
        told: list[FramelaneError | None] = []
        used = _used_bytes(database)
        # Without ballast there is no room for the results of what lies here already.
        free = self._free_bytes(self._folder) if self._home.ballast.lay() else 0
        added = 0
        with _transaction(database):
            for frame in frames:
                if _is_known(database, frame.frame_id):
                    told.append(None)
                    continue
                need = len(frame.record) + ROW_BYTES
                refusal = self._refusal(need, used + added, free - 2 * added)
                told.append(refusal)
                if refusal is None:
                    added += need
                    database.execute(
                        "INSERT INTO pending (frame_id, camera, kept_s, life_s, record) VALUES (?, ?, ?, ?, ?)",
                        (frame.frame_id, frame.camera, now_s, frame.life_s, frame.record),
                    )
        return told

    def _refusal(self, need_bytes: int, used_bytes: int, free_bytes: int) -> FramelaneError | None:
        if used_bytes + need_bytes > self._max_bytes:
            return answers.full(
                f"spool.max_bytes, of which {used_bytes:,} are taken", need_bytes, self._max_bytes,
                "raise it in the plan", can_wait=need_bytes < self._max_bytes,
            )  # fmt: skip
        # Twice: a record stands in SQLite's log before it stands in its file.
        if 2 * need_bytes + self._reserved_bytes > free_bytes:
            allowed = max(0, free_bytes - self._reserved_bytes) // 2
            return answers.full(f"disk of {self._folder}", need_bytes, allowed, "make room on that disk")
        return None

    def _finish(self, database: sqlite3.Connection, ends: Sequence[FrameEnd], now_s: float) -> list[bool]:
        told = []
        with _transaction(database):
            for end in ends:
                row = database.execute("SELECT camera FROM pending WHERE frame_id = ?", (end.frame_id,)).fetchone()
                told.append(row is not None)
                if row is None:
                    continue
                (camera,) = row
                if end.aside_reason is not None:
                    database.execute(
                        "INSERT OR REPLACE INTO aside (frame_id, camera, reason, aside_s, record) "
                        "SELECT frame_id, camera, ?, ?, record FROM pending WHERE frame_id = ?",
                        (end.aside_reason, now_s, end.frame_id),
                    )
                database.execute("DELETE FROM pending WHERE frame_id = ?", (end.frame_id,))
                database.execute(
                    "INSERT INTO done (frame_id, camera, number, ended_s, outcome, result) VALUES (?, ?, ?, ?, ?, ?)",
                    (end.frame_id, camera, _next_number(database, camera), now_s, end.outcome.value, end.result),
                )
        return told

    def _one(self, question: str, frame_id: str) -> Any:
        return self._home.run(lambda database: database.execute(question, (frame_id,)).fetchone())


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:  # SQLite has rolled back by itself after some errors
            database.execute("ROLLBACK")
        raise


def _is_known(database: sqlite3.Connection, frame_id: str) -> bool:
    """Whether this frame was kept before, however long ago."""
    return any(
        database.execute(f"SELECT 1 FROM {table} WHERE frame_id = ?", (frame_id,)).fetchone()  # noqa: S608
        for table in ("pending", "done", "gone")
    )


def _next_number(database: sqlite3.Connection, camera: str) -> int:
    """The next number of a camera, without holes; no number of any camera is above `newest`, as in `TicketBook`."""
    newest = _newest(database)
    database.execute("INSERT OR IGNORE INTO cameras VALUES (?, ?, ?)", (camera, newest, newest))
    database.execute("UPDATE cameras SET last = last + 1 WHERE camera = ?", (camera,))
    _set_fact(database, "newest", newest + 1)
    (number,) = database.execute("SELECT last FROM cameras WHERE camera = ?", (camera,)).fetchone()
    return int(number)


def _newest(database: sqlite3.Connection) -> int:
    """The highest number that any camera has; that of a new file is above all of one before it."""
    newest = _fact(database, "newest")
    if newest is None:
        newest = time.time_ns() // 1000
        _set_fact(database, "newest", newest)
    return int(newest)


def _fact(database: sqlite3.Connection, name: str) -> Any:
    row = database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return row[0] if row else None


def _set_fact(database: sqlite3.Connection, name: str, value: str | int) -> None:
    database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))


def _used_bytes(database: sqlite3.Connection) -> int:
    """The pages that hold something."""
    (pages,), (unused,), (page_bytes,) = (
        database.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - unused) * page_bytes)
