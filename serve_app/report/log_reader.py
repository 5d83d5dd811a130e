"""Frame logs read line by line, however long they are: damaged, torn and foreign lines are counted and named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from serve_app.errors import FramelaneError, InvalidPlanError
from serve_app.file_fields import record_of
from serve_app.report.frame_line import FrameLine, frame_line

# A record has under a KiB, and what a client said may be long; a file without line breaks must not fill the memory.
MAX_LINE_BYTES = 256 * 1024
# Of the lines that are no records so many are named.
MAX_NAMED = 5
BOM = b"\xef\xbb\xbf"


class ReadLine(NamedTuple):
    """One record with the place where it stands."""

    number: int
    frame: FrameLine
    record: Mapping[str, object]


@dataclass(slots=True)
class LogFile:
    """What was read of one file.

    Attributes:
        path: the file.
        num_bytes, num_records: read so far.
        is_torn: whether its last line ends in the middle, as when its writer was killed or still writes.
        num_foreign: lines that are no records, the torn one not counted.
        foreign: what the first few of them are, with their numbers.
        kinds: how many there are of each kind.
    """

    path: Path
    num_bytes: int = 0
    num_records: int = 0
    is_torn: bool = False
    num_foreign: int = 0
    foreign: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)

    def lines(self) -> Iterator[ReadLine]:
        """Read it from the beginning; each record once.

        Raises:
            FramelaneError: it cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                yield from self._lines(file)
        except OSError as err:
            raise FramelaneError(
                f"log {self.path}: {(err.strerror or str(err)).lower()}; give the file that frame_log names in the plan"
            ) from err

    def _lines(self, file: BinaryIO) -> Iterator[ReadLine]:
        number = 0
        while data := file.readline(MAX_LINE_BYTES):
            number += 1
            self.num_bytes += len(data)
            is_whole = data.endswith(b"\n")
            if not is_whole and len(data) == MAX_LINE_BYTES:
                self.num_bytes += _skip_line(file)
                self._foreign(number, "longer than any record", f"more than {MAX_LINE_BYTES // 1024} KiB")
                continue
            if number == 1:
                data = data.removeprefix(BOM)
            if not data.strip():
                continue
            try:
                record = record_of("record", data.decode("utf-8"))
                frame = frame_line("record", record)
            except (InvalidPlanError, UnicodeDecodeError, RecursionError) as err:
                if is_whole:
                    self._foreign(number, _kind_of(data), str(err))
                else:
                    self.is_torn = True
                continue
            self.num_records += 1
            yield ReadLine(number, frame, record)

    def _foreign(self, number: int, kind: str, why: str) -> None:
        self.num_foreign += 1
        self.kinds[kind] += 1
        if len(self.foreign) < MAX_NAMED:
            self.foreign.append(f"line {number}: {kind} ({why[:160]})")


def _kind_of(data: bytes) -> str:
    text = data.strip()
    if not (text.startswith(b"{") and text.endswith(b"}")):
        return "no JSON object"
    return "a damaged record" if b'"outcome"' in text else "no record of a frame"


def _skip_line(file: BinaryIO) -> int:
    """Read on to the end of a line, and keep nothing of it; how many bytes that were."""
    num_bytes = 0
    while data := file.readline(MAX_LINE_BYTES):
        num_bytes += len(data)
        if data.endswith(b"\n"):
            break
    return num_bytes
