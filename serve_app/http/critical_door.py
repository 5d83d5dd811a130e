"""The port of critical keys: a listening process of its own, so that no crowd's connections stand before theirs.

Serve's proxy is one process and takes all connections in turn, whoever they belong to: what waits there waits before
any of our rules is asked. Here nothing but the application itself stands between a connection and its frame.
"""

from __future__ import annotations

import asyncio
import socket

import uvicorn

from serve_app.errors import InvalidPlanError, ServiceUnavailableError
from serve_app.http.replica import HttpService
from serve_app.http_rules import KEEP_ALIVE_S
from serve_app.plan import Plan

# Connections that wait to be taken.
BACKLOG = 2048


class CriticalDoor:
    """What Serve starts beside `HttpReplica`: the same application, for keys that may send critical frames."""

    async def __init__(self, plan: Plan, keys: str | None) -> None:  # type: ignore[misc]  # Serve awaits it
        """Listen at the plan's `http.critical_port`; see `HttpService` for the arguments.

        Raises:
            InvalidPlanError: the plan has no such port, or the file of keys cannot be read.
            ServiceUnavailableError: something else listens there.
        """
        host, port = plan.http.host, plan.http.critical_port
        if port is None:
            raise InvalidPlanError("http.critical_port: got none, so there is no port of critical keys to listen at")
        self._where = f"{host}:{port}"
        self._service = HttpService(plan, keys, only_critical=True)
        listening = listening_at(host, port)
        config = uvicorn.Config(
            self._service.app(),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        self._server = uvicorn.Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listening]))

    async def check_health(self) -> None:
        """Serve asks this every few seconds, and ends a process that says no.

        Raises:
            ServiceUnavailableError: it listens no more.
        """
        if self._serving.done():
            raise ServiceUnavailableError(f"http: nothing listens at {self._where} any more")
        self._service.look_at_keys()

    async def __del__(self) -> None:
        """Take no more connections, answer the requests that are here, and wait until tickets have ended."""
        if hasattr(self, "_serving"):
            self._server.should_exit = True
            await asyncio.wait([self._serving])
            await self._service.until_tickets_ended()


def listening_at(host: str, port: int) -> socket.socket:
    """A socket that listens there; the process that an update replaces may listen at the same time.

    Raises:
        ServiceUnavailableError: somebody else has the port.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError as err:
        listening.close()
        raise ServiceUnavailableError(
            f"http: {host}:{port} cannot be listened at ({(err.strerror or str(err)).lower()}); choose another with "
            "http.critical_port in the plan"
        ) from err
    return listening
