"""The processes that answer HTTP: the application, behind Serve's proxy, and the keys that it knows."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ray.serve.handle import DeploymentHandle

from serve_app.errors import InvalidPlanError
from serve_app.http.app import HttpSettings, build_http_app
from serve_app.http.callers import CallerBook
from serve_app.http.client_gateway import ClientGateway
from serve_app.http.key_rules import KeyRule, shares_of
from serve_app.http.limits import limits_of
from serve_app.key_file import load_keys
from serve_app.log_fields import log_to_serve
from serve_app.plan import Plan

logger = logging.getLogger(__name__)


class HttpService:
    """What answers at one port: the application, and the keys that it knows at the moment."""

    def __init__(self, plan: Plan, keys: str | None, *, only_critical: bool = False) -> None:
        """Begin to know the keys; the routers are looked for when somebody calls.

        Args:
            plan: what is served.
            keys: their file, as it is named on this machine; None: anybody may call.
            only_critical: whether keys that may not send critical frames are refused.

        Raises:
            InvalidPlanError: the file cannot be read.
        """
        log_to_serve(plan.log_level.value)
        self._plan = plan
        num_sharing = 1 if only_critical else plan.http.num_replicas
        self._key_file = None if keys is None else KeyFile(Path(keys), num_sharing)
        rules = None if self._key_file is None else self._key_file.read()
        self._callers = CallerBook(rules, time.monotonic, only_critical=only_critical)
        self._gateway = ClientGateway(plan)

    def app(self) -> FastAPI:
        """The application."""
        rules = self._plan.http
        return build_http_app(self._gateway, HttpSettings(limits_of(self._plan), self._callers, rules.cors_origins))

    def look_at_keys(self) -> None:
        """Use the file of keys as it is now, if it has changed."""
        if self._key_file is not None:
            changed = self._key_file.changed()
            if changed is not None:
                self._callers.replace(changed)

    async def until_tickets_ended(self) -> None:
        """Wait until the frames of all tickets that were given out here must have ended."""
        await self._gateway.until_tickets_ended()


class HttpReplica:
    """What Serve starts behind its proxy; its death ends the requests that it has, and nothing else."""

    def __init__(self, plan: Plan, keys: str | None, _door: DeploymentHandle[Any] | None = None) -> None:
        """See `HttpService`. `_door`: of `CriticalDoor`; Serve starts what the application's first deployment names."""
        self._service = HttpService(plan, keys)

    def __serve_build_asgi_app__(self) -> Any:
        """The application that Serve calls for each request."""
        return self._service.app()

    async def check_health(self) -> None:
        """Serve asks this every few seconds: also the moment to see whether the keys have changed."""
        self._service.look_at_keys()

    async def __del__(self) -> None:
        """Serve calls this before it ends a process that no request waits for; tickets may wait for it still."""
        if hasattr(self, "_service"):
            await self._service.until_tickets_ended()


class KeyFile:
    """The file of keys, read anew when it has changed."""

    def __init__(self, path: Path, num_replicas: int) -> None:
        """Take the path, and among how many processes the rates are divided."""
        self._path = path
        self._num_replicas = num_replicas
        self._stamp: tuple[int, int] | None = None

    def read(self) -> tuple[KeyRule, ...]:
        """This process's share of the keys. Raises `InvalidPlanError`."""
        self._stamp = self._stamp_now()
        return shares_of(load_keys(self._path), self._num_replicas)

    def changed(self) -> tuple[KeyRule, ...] | None:
        """The keys, if the file has changed; a new one of no use is told of once, and the old one counts."""
        if self._stamp_now() == self._stamp:
            return None
        try:
            rules = self.read()
        except InvalidPlanError as err:
            logger.error("%s; the keys that were there before are used on", err)  # noqa: TRY400 (a user's mistake)
            return None
        logger.info("keys: %d are known now", len(rules))
        return rules

    def _stamp_now(self) -> tuple[int, int] | None:
        try:
            told = self._path.stat()
        except OSError:
            return None
        return told.st_mtime_ns, told.st_ino
