"""Room that a spool holds on its disk to throw it overboard when the disk is full.

To remove a record SQLite must first write to its log. On a disk that others have filled to the last byte nothing could
be answered any more, and so nothing would ever become free.
"""

from __future__ import annotations

import os
from pathlib import Path

BALLAST_NAME = "spool.ballast"
# A transaction that removes thirty large records writes a few hundred pages.
BALLAST_BYTES = 8 * 2**20


class Ballast:
    """A file of a spool's folder with nothing in it but room."""

    def __init__(self, folder: Path, num_bytes: int) -> None:
        """Take the folder, and how much to hold."""
        self._path = folder / BALLAST_NAME
        self._num_bytes = num_bytes

    def lay(self) -> bool:
        """Have the room, now or since before; False if the disk has none."""
        try:
            if self._path.exists() and self._path.stat().st_size == self._num_bytes:
                return True
            with self._path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self._num_bytes)
        except OSError:
            self.drop()
            return False
        return True

    def drop(self) -> bool:
        """Give the room back to the disk; False if it was not held."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True
