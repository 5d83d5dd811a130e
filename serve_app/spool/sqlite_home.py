"""The home of a spool's SQLite file: its one owner and connection, and what is done when it is damaged or full."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from serve_app.errors import ServiceUnavailableError
from serve_app.spool.ballast import Ballast
from serve_app.spool.sqlite_file import (
    FILE_NAME,
    PAGE_BYTES,
    is_damage,
    is_full,
    open_database,
    owned_folder,
    put_away,
    save_rows,
)

logger = logging.getLogger(__name__)

# Pages given back to the disk at a time: 32 MiB take milliseconds, and keeps wait no longer than that.
PAGES_GIVEN_BACK = 4096

T = TypeVar("T")


class DiskFullError(ServiceUnavailableError):
    """SQLite found no room."""


class SqliteHome:
    """One folder with the file, its lock and its ballast; what is done in it is done by one thread at a time.

    Attributes:
        folder, path: of the file.
        ballast: room for results on a full disk.
        num_begun: how many files were begun because the one before was damaged.
    """

    def __init__(self, folder: Path, ballast_bytes: int) -> None:
        """Take the folder; nothing is opened yet."""
        self.folder = folder
        self.path = folder / FILE_NAME
        self.ballast = Ballast(folder, ballast_bytes)
        self.num_begun = 0
        # What stands in the log needs room in the file as well, which on a full disk is where the ballast was.
        self._log_bytes = ballast_bytes // 2
        self._lock = threading.RLock()
        self._database: sqlite3.Connection | None = None
        self._owned: Any = None

    @property
    def database(self) -> sqlite3.Connection:
        """The connection; raises `ServiceUnavailableError` when it is closed."""
        if self._database is None:
            raise ServiceUnavailableError(f"spool {self.folder}: is closed")
        return self._database

    def open(self) -> None:
        """Own the folder, and open the file or begin one.

        Raises:
            ServiceUnavailableError: another process has the folder, or the file cannot be opened.
        """
        self._owned = owned_folder(self.folder)
        try:
            self._open_file()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file and the folder."""
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None
            if self._owned is not None:
                self._owned.close()
                self._owned = None

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do something with the file, alone; with a new file if this one turns out to be damaged.

        Raises:
            DiskFullError: there is no room for it.
            ServiceUnavailableError: SQLite cannot do it for another reason.
        """
        with self._lock:
            try:
                return work(self.database)
            except sqlite3.Error as err:
                if is_full(err):
                    raise DiskFullError(
                        f"spool {self.folder}: its disk is so full that nothing can be written; make room there"
                    ) from err
                if not is_damage(err):
                    raise self._trouble(err) from err
                self._begin_anew(err)
                return work(self.database)

    def run_on_a_full_disk(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """The same for what must find room, and makes some: with the log's and the ballast's if need be."""
        for make_room in (self._empty_log, self.ballast.drop):
            try:
                return self.run(work)
            except DiskFullError:
                logger.warning("spool %s: its disk is full; making room for results", self.folder)
                make_room()
        self._empty_log()
        return self.run(work)

    def shrink(self) -> None:
        """Give unused pages back to the disk; all of them, if its room is needed for the ballast."""

        def shrunk(database: sqlite3.Connection) -> bool:
            """As far as fits into the log at once; the file is shorter when the log is written into it."""
            _vacuum(database, max(1, self._log_bytes // PAGE_BYTES // 2))
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            return bool(database.execute("PRAGMA freelist_count").fetchone()[0])

        with suppress(DiskFullError):
            self.run(lambda database: _vacuum(database, PAGES_GIVEN_BACK))
        with suppress(DiskFullError):
            while not self.ballast.lay() and self.run(shrunk):
                pass

    def _empty_log(self) -> None:
        """Write SQLite's log into its file, so that the log's room is free."""
        with suppress(ServiceUnavailableError):
            self.run(lambda database: database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())

    def _open_file(self) -> None:
        try:
            self._database = open_database(self.path, self._log_bytes)
        except sqlite3.Error as err:
            if is_full(err) and self.ballast.drop():  # even reading needs a small file beside the other
                self._open_file()
            elif is_damage(err):
                self._begin_anew(err)
            else:
                raise self._trouble(err) from err

    def _begin_anew(self, err: sqlite3.Error) -> None:
        """Put the damaged file away, and begin a new one with what can still be read of it."""
        if self._database is not None:
            self._database.close()
            self._database = None
        damaged = put_away(self.path)
        logger.error("spool file %s is damaged (%s): it is now %s, and a new one begins", self.path, err, damaged)
        try:
            self._database = open_database(self.path, self._log_bytes)
            num_saved = save_rows(damaged, self._database)
        except sqlite3.Error as new_err:
            raise self._trouble(new_err) from new_err
        logger.error("spool file %s: %d frames and results were saved into the new one", damaged, num_saved)
        self.num_begun += 1

    def _trouble(self, err: sqlite3.Error) -> ServiceUnavailableError:
        return ServiceUnavailableError(
            f"spool {self.path}: SQLite says {str(err)!r}; look at the folder's rights and its disk", 1.0
        )


def _vacuum(database: sqlite3.Connection, num_pages: int) -> None:
    # As a script: `execute` would stop after the first page, since this statement has no columns.
    database.executescript(f"PRAGMA incremental_vacuum({num_pages})")
