"""The cursor of a camera's results over HTTP: a place at its router and, for a durable camera, one in the spool."""

from __future__ import annotations

from dataclasses import dataclass

from serve_app.http.errors import ParameterError

MAX_DIGITS = 19


@dataclass(frozen=True, slots=True)
class CameraCursor:
    """Two places; 0 is the beginning of either."""

    router: int = 0
    spool: int = 0

    def __str__(self) -> str:
        return f"{self.router}.{self.spool}"

    @staticmethod
    def parsed(text: str) -> CameraCursor:
        """From what `str` gave; empty: the beginning. Raises `ParameterError`."""
        if not text:
            return CameraCursor()
        numbers = text.split(".")
        if len(numbers) != 2 or not all(n.isascii() and n.isdigit() and len(n) <= MAX_DIGITS for n in numbers):
            raise ParameterError(f"cursor: got {text[:80]!r}, allowed is the cursor of the last page, or none")
        return CameraCursor(int(numbers[0]), int(numbers[1]))
