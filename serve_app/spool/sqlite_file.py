"""The SQLite file of a spool: opening, its one owner, and putting a damaged one out of the way."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import sqlite3
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

from serve_app.errors import ServiceUnavailableError

logger = logging.getLogger(__name__)

FILE_NAME = "spool.sqlite"
LOCK_NAME = "spool.lock"
DAMAGED_MARK = ".damaged-"
SCHEMA_VERSION = 1
# Records are tens to thousands of KiB, results a few: larger pages than SQLite's 4 KiB mean fewer of them a record.
PAGE_BYTES = 8192
# The log beside the file is cut back to this after it has grown for a large frame.
LOG_BYTES = 64 * 2**20
# Other programs may look into the file for a moment.
BUSY_TIMEOUT_S = 10.0
# A check reads the whole file: a second or less up to here. Damage in a larger one shows when it is read.
CHECKED_BYTES = 256 * 2**20

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value);
CREATE TABLE IF NOT EXISTS pending (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, frame_id TEXT NOT NULL UNIQUE, camera TEXT NOT NULL, kept_s REAL NOT NULL,
    life_s REAL NOT NULL, num_tries INTEGER NOT NULL DEFAULT 0, record BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS done (
    frame_id TEXT PRIMARY KEY, camera TEXT NOT NULL, number INTEGER NOT NULL, ended_s REAL NOT NULL,
    outcome TEXT NOT NULL, result BLOB NOT NULL) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS done_by_camera ON done (camera, number);
CREATE INDEX IF NOT EXISTS done_by_end ON done (ended_s);
CREATE TABLE IF NOT EXISTS gone (
    frame_id TEXT PRIMARY KEY, camera TEXT NOT NULL, ended_s REAL NOT NULL, outcome TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS gone_by_end ON gone (ended_s);
CREATE TABLE IF NOT EXISTS cameras (camera TEXT PRIMARY KEY, before INTEGER NOT NULL, last INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS aside (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, frame_id TEXT NOT NULL UNIQUE, camera TEXT NOT NULL, reason TEXT NOT NULL,
    aside_s REAL NOT NULL, record BLOB NOT NULL);
"""

# The first column of each is its key. Frames keep their order by `seq`.
_SAVED_COLUMNS = {
    "facts": "name, value",
    "cameras": "camera, before, last",
    "pending": "seq, frame_id, camera, kept_s, life_s, num_tries, record",
    "done": "frame_id, camera, number, ended_s, outcome, result",
    "gone": "frame_id, camera, ended_s, outcome",
    "aside": "seq, frame_id, camera, reason, aside_s, record",
}


def owned_folder(folder: Path) -> IO[str]:
    """Make a folder this process's own, until the file that is returned is closed or the process ends.

    Raises:
        ServiceUnavailableError: another process has it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK_NAME).open("w")
    except OSError as err:
        raise ServiceUnavailableError(
            f"spool {folder}: cannot be written ({err.strerror}); name another folder with spool.folder in the plan"
        ) from err
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as err:
        lock.close()
        raise ServiceUnavailableError(
            f"spool {folder}: another process feeds its frames, allowed is one; end it, or give this service a folder "
            "of its own with spool.folder in the plan"
        ) from err
    return lock


def open_database(path: Path, log_bytes: int) -> sqlite3.Connection:
    """Open or make a spool's file, whose log is written into it whenever it is longer than this.

    Raises:
        sqlite3.DatabaseError: it is damaged (see `is_damage`), or cannot be opened.
        ServiceUnavailableError: it is of another version.
    """
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        for setting in (
            f"page_size = {PAGE_BYTES}",
            "auto_vacuum = INCREMENTAL",  # both count only before the first table is made
            "journal_mode = WAL",
            "synchronous = FULL",  # in WAL mode: the log is on the disk when a commit returns
            f"journal_size_limit = {LOG_BYTES}",
            f"wal_autocheckpoint = {max(1, log_bytes // PAGE_BYTES)}",
        ):
            connection.execute(f"PRAGMA {setting}").fetchall()
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version not in (0, SCHEMA_VERSION):
            raise ServiceUnavailableError(
                f"spool {path}: got version {version}, allowed is {SCHEMA_VERSION}; serve it with the framelane that "
                "wrote it until it is empty, or name another folder with spool.folder in the plan"
            )
        if path.stat().st_size <= CHECKED_BYTES:
            (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if said != "ok":
                raise sqlite3.DatabaseError(f"malformed: {said}")
        connection.executescript(_SCHEMA)
        if version != SCHEMA_VERSION:
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except BaseException:
        connection.close()
        raise
    return connection


def is_damage(err: sqlite3.Error) -> bool:
    """Whether SQLite says that the file is not what it wrote (SQLITE_CORRUPT, SQLITE_NOTADB)."""
    # By words: the error's code is known from Python 3.11 on.
    return any(words in str(err) for words in ("malformed", "not a database", "no such table", "no such column"))


def is_full(err: sqlite3.Error) -> bool:
    """Whether SQLite says that there is no room (SQLITE_FULL)."""
    return "database or disk is full" in str(err)


def put_away(path: Path) -> Path:
    """Rename a damaged file, with its log, and return its new path."""
    at = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%f")
    damaged = path.with_name(f"{path.name}{DAMAGED_MARK}{at}Z")
    path.rename(damaged)
    log = path.with_name(f"{path.name}-wal")
    if log.exists():
        log.rename(f"{damaged}-wal")
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
    return damaged


def damaged_files(folder: Path) -> list[Path]:
    """The files that were put away here."""
    found = folder.glob(f"{FILE_NAME}{DAMAGED_MARK}*")
    return sorted(path for path in found if not path.name.endswith(("-wal", "-shm")))


def save_rows(damaged: Path, database: sqlite3.Connection) -> int:
    """Copy what can still be read of a damaged file into a new one; how many frames and results that were.

    A frame whose record is damaged comes along: feeding finds that out, and answers its ticket. Each row is a
    transaction: that is slow, but needs no more room than one row, and leaves what it has done.
    """
    num_saved = 0
    # SQLite may write to the log beside the damaged file; that is its own copy of the log.
    with contextlib.closing(sqlite3.connect(damaged, isolation_level=None)) as connection:
        for table, columns in _SAVED_COLUMNS.items():
            for row in _readable_rows(connection, table, columns):
                places = ", ".join("?" * len(row))
                try:
                    added = database.execute(
                        f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({places})",  # noqa: S608
                        row,
                    )
                except sqlite3.Error as err:  # such as no room; the damaged file keeps it
                    logger.warning("spool: a row of %s cannot be saved: %s", table, err)
                    continue
                num_saved += added.rowcount if table in ("pending", "done") else 0
    database.execute("DELETE FROM pending WHERE frame_id IN (SELECT frame_id FROM done)")
    return num_saved


def _readable_rows(connection: sqlite3.Connection, table: str, columns: str) -> Iterator[tuple[object, ...]]:
    """The rows of a table that can be read, one by one, so that a damaged page costs only what lies on it."""
    key = columns.partition(",")[0]
    keys: list[object] = []
    with contextlib.suppress(sqlite3.Error):  # up to the damaged page
        keys.extend(row[0] for row in connection.execute(f"SELECT {key} FROM {table}"))  # noqa: S608
    for value in keys:
        try:
            row = connection.execute(
                f"SELECT {columns} FROM {table} WHERE {key} = ?",  # noqa: S608
                (value,),
            ).fetchone()
        except sqlite3.Error as err:
            logger.warning("spool: %s %r cannot be read from the damaged file: %s", table, value, err)
            continue
        if row is not None:
            yield tuple(row)
