"""The least HTTP client there is: requests made beforehand, one connection each, so that it measures the service."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer; status 0: the connection ended without one."""

    status: int
    seconds: float
    retry_after_s: float | None = None
    inside_s: float | None = None
    body: dict[str, Any] = field(default_factory=dict)


def request_bytes(path: str, body: bytes, key: str, media_type: str = "image/jpeg") -> bytes:
    """A POST with all its headers."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: line\r\nAuthorization: Bearer {key}\r\nContent-Type: {media_type}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Connection:
    """One kept connection, opened when it is needed."""

    def __init__(self, host: str, port: int) -> None:
        """Take where."""
        self._where = (host, port)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes, *, slow_bytes: int = 0, pause_s: float = 0.0) -> Answered:
        """Send a request, of which the last bytes slowly one by one, and read its answer."""
        begin_s = time.monotonic()
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(*self._where)
            reader, writer = self._streams
            writer.write(request[: len(request) - slow_bytes])
            answer = asyncio.ensure_future(_answer(reader))
            for index in range(len(request) - slow_bytes, len(request)):
                await asyncio.wait([answer], timeout=pause_s)
                if answer.done():
                    break
                writer.write(request[index : index + 1])
            status, headers, body = await answer
        except (OSError, asyncio.IncompleteReadError, EOFError):
            self.close()
            return Answered(0, time.monotonic() - begin_s)
        if headers.get("connection", "") == "close":
            self.close()
        wait = headers.get("retry-after")
        told = json.loads(body) if body.startswith(b"{") else {"text": body.decode(errors="replace")[:200]}
        inside_ms = headers.get("server-timing", "").rpartition("dur=")[2]
        inside_s = float(inside_ms) / 1000 if inside_ms else None
        return Answered(status, time.monotonic() - begin_s, float(wait) if wait else None, inside_s, told)

    def close(self) -> None:
        """The next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


async def _answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    status = int(head[0].split()[1])
    if headers.get("transfer-encoding", "") != "chunked":
        return status, headers, await reader.readexactly(int(headers.get("content-length", "0")))
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return status, headers, body
