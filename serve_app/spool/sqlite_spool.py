"""A spool in one SQLite file of the machine, for one process at a time.

Space: the pages of answered frames are used again by later ones, and are given back to the disk a few at a time
(`auto_vacuum = INCREMENTAL`), so the file shrinks without being copied.
"""

from __future__ import annotations

import json
import logging
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from serve_app.errors import FramelaneError, ServiceUnavailableError, TicketUnknownError
from serve_app.results import FrameResult
from serve_app.spool import spool_answers as answers
from serve_app.spool.ballast import BALLAST_BYTES, Ballast
from serve_app.spool.spool import GONE_PER_TTL, AsideFrame, FrameEnd, NewFrame, PendingFrame, SpoolUsage
from serve_app.spool.spool_clock import ClockMark
from serve_app.spool.sqlite_file import (
    FILE_NAME,
    PAGE_BYTES,
    damaged_files,
    is_damage,
    is_full,
    open_database,
    owned_folder,
    put_away,
    save_rows,
)
from serve_app.tickets import ResultsPage, TicketAnswer

logger = logging.getLogger(__name__)

# Left free on the disk for others, and for SQLite's log.
RESERVED_BYTES = 128 * 2**20
# Pages given back to the disk at a time: 32 MiB take milliseconds, and keeps wait no longer than that.
PAGES_GIVEN_BACK = 4096
# A row without its record: ids, times, index entries, and on average half a page.
ROW_BYTES = 8192
# Without wall clocks in cursors: numbers of a new file are above all of one before it.
CURSORS_PER_S = 1_000_000

T = TypeVar("T")


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
        self._path = folder / FILE_NAME
        self._max_bytes = max_bytes
        self._ttl_s = result_ttl_s
        self._reserved_bytes = reserved_bytes
        self._free_bytes = free_bytes
        self._ballast = Ballast(folder, ballast_bytes)
        # What stands in the log needs room in the file as well, which on a full disk is where the ballast was.
        self._log_bytes = ballast_bytes // 2
        self._lock = threading.RLock()
        self._database: sqlite3.Connection | None = None
        self._owned: Any = None
        self._taken_seq = 0
        self.last_mark: ClockMark | None = None

    def open(self) -> SqliteSpool:
        """Open the file, or begin one.

        Raises:
            ServiceUnavailableError: another process has the folder, or the file cannot be opened.
        """
        self._owned = owned_folder(self._folder)
        try:
            self._open_file()
        except BaseException:
            self.close()
            raise
        return self

    def keep(self, frames: Sequence[NewFrame], now_s: float) -> list[FramelaneError | None]:
        """See `SpoolStore.keep`."""
        try:
            return self._run(lambda database: self._keep(database, frames, now_s))
        except _FullError:
            if len(frames) > 1:  # some of them may find room alone
                return [answer for frame in frames for answer in self.keep([frame], now_s)]
            free = self._free_bytes(self._folder)
            return [answers.full(f"disk of {self._folder}", len(frames[0].record), free, "make room on that disk")]

    def take(self, max_frames: int) -> list[PendingFrame]:
        """See `SpoolStore.take`."""

        def taken(database: sqlite3.Connection) -> list[PendingFrame]:
            rows = database.execute(
                "SELECT seq, frame_id, camera, kept_s, life_s, num_tries FROM pending WHERE seq > ? "
                "ORDER BY seq LIMIT ?",
                (self._taken_seq, max_frames),
            ).fetchall()
            if rows:
                self._taken_seq = rows[-1][0]
            return [PendingFrame(*row[1:]) for row in rows]

        return self._run(taken)

    def load(self, frame_id: str) -> bytes | None:
        """See `SpoolStore.load`."""
        row = self._one("SELECT record FROM pending WHERE frame_id = ?", frame_id)
        return bytes(row[0]) if row else None

    def tried(self, frame_id: str) -> None:
        """See `SpoolStore.tried`."""
        self._run(
            lambda database: database.execute(
                "UPDATE pending SET num_tries = num_tries + 1 WHERE frame_id = ?", (frame_id,)
            )
        )

    def finish(self, ends: Sequence[FrameEnd], now_s: float) -> list[bool]:
        """See `SpoolStore.finish`."""
        for make_room in (self._empty_log, self._ballast.drop):
            try:
                return self._run(lambda database: self._finish(database, ends, now_s))
            except _FullError:
                logger.warning("spool %s: its disk is full; making room for results", self._folder)
                make_room()
        self._empty_log()
        return self._run(lambda database: self._finish(database, ends, now_s))

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
            # As a script: `execute` would stop after the first page, since this statement has no columns.
            database.executescript(f"PRAGMA incremental_vacuum({PAGES_GIVEN_BACK})")

        def shrunk(database: sqlite3.Connection) -> bool:
            """As far as fits into the log at once; the file is shorter when the log is written into it."""
            database.executescript(f"PRAGMA incremental_vacuum({max(1, self._log_bytes // PAGE_BYTES // 2)})")
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            return bool(database.execute("PRAGMA freelist_count").fetchone()[0])

        with suppress(_FullError):  # what is forgotten later is forgotten as well
            self._run(tidied)
        with suppress(_FullError):
            while not self._ballast.lay() and self._run(shrunk):
                pass

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

        done, pending, gone = self._run(found)
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
            newest = int(_fact(database, "newest"))
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

        return self._run(page)

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

        return self._run(used)

    def aside(self) -> list[AsideFrame]:
        """See `SpoolAnswers.aside`."""
        rows = self._run(
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
        self._run(lambda database: database.execute("DELETE FROM aside WHERE frame_id = ?", (frame_id,)))
        return bytes(row[0])

    def close(self) -> None:
        """See `SpoolAnswers.close`."""
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None
            if self._owned is not None:
                self._owned.close()
                self._owned = None

    def _keep(
        self, database: sqlite3.Connection, frames: Sequence[NewFrame], now_s: float
    ) -> list[FramelaneError | None]:
        """One transaction, and one wait for the disk, for all of them."""
        told: list[FramelaneError | None] = []
        used = _used_bytes(database)
        # Without ballast there is no room for the results of what lies here already.
        free = self._free_bytes(self._folder) if self._ballast.lay() else 0
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

    def _empty_log(self) -> None:
        """Write SQLite's log into its file, so that the log's room is free."""
        with suppress(ServiceUnavailableError):
            self._run(lambda database: database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())

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
        return self._run(lambda database: database.execute(question, (frame_id,)).fetchone())

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do something with the file, alone; with a new file if this one turns out to be damaged."""
        with self._lock:
            try:
                return work(self._connection())
            except sqlite3.Error as err:
                if is_full(err):
                    raise _FullError(
                        f"spool {self._folder}: its disk is so full that nothing can be written; make room there"
                    ) from err
                if not is_damage(err):
                    raise self._trouble(err) from err
                self._put_away(err)
                return work(self._connection())

    def _connection(self) -> sqlite3.Connection:
        if self._database is None:
            raise ServiceUnavailableError(f"spool {self._folder}: is closed")
        return self._database

    def _open_file(self) -> None:
        try:
            self._database = open_database(self._path, self._log_bytes)
        except sqlite3.Error as err:
            if is_full(err) and self._ballast.drop():  # even reading needs a small file beside the other
                self._open_file()
                return
            if not is_damage(err):
                raise self._trouble(err) from err
            self._put_away(err)
            return
        self._begin(self._database)

    def _begin(self, database: sqlite3.Connection) -> None:
        """Read the mark of the process before, and give a new file its first cursor."""
        try:
            mark = _fact(database, "mark")
            self.last_mark = ClockMark(**json.loads(mark)) if mark else None
        except (ValueError, TypeError):
            logger.exception("spool %s: its time mark cannot be read; ages go by the wall clock", self._folder)
        if not _fact(database, "newest"):
            _set_fact(database, "newest", self._path.stat().st_mtime_ns * CURSORS_PER_S // 10**9)

    def _put_away(self, err: sqlite3.Error) -> None:
        """Begin a new file with what can still be read of the damaged one."""
        if self._database is not None:
            self._database.close()
            self._database = None
        damaged = put_away(self._path)
        logger.error("spool file %s is damaged (%s): it is now %s, and a new one begins", self._path, err, damaged)
        try:
            self._database = open_database(self._path, self._log_bytes)
            with _transaction(self._database):
                num_saved = save_rows(damaged, self._database)
            self._begin(self._database)
        except sqlite3.Error as new_err:
            raise self._trouble(new_err) from new_err
        logger.error("spool file %s: %d frames and results were saved into the new one", damaged, num_saved)
        self._taken_seq = 0

    def _trouble(self, err: sqlite3.Error) -> ServiceUnavailableError:
        return ServiceUnavailableError(
            f"spool {self._path}: SQLite says {str(err)!r}; look at the folder's rights and its disk", 1.0
        )


class _FullError(ServiceUnavailableError):
    """SQLite found no room."""


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
    newest = int(_fact(database, "newest"))
    database.execute("INSERT OR IGNORE INTO cameras VALUES (?, ?, ?)", (camera, newest, newest))
    database.execute("UPDATE cameras SET last = last + 1 WHERE camera = ?", (camera,))
    _set_fact(database, "newest", newest + 1)
    (number,) = database.execute("SELECT last FROM cameras WHERE camera = ?", (camera,)).fetchone()
    return int(number)


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
