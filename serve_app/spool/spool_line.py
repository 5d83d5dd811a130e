"""A caller's line to the spool, which is a deployment of its own beside the router."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from serve_app.app_name import APP_NAME
from serve_app.errors import FramelaneError, InvalidFrameError, ServiceUnavailableError
from serve_app.frames import FrameMeta
from serve_app.results import FrameResult
from serve_app.spool.spool import AsideFrame
from serve_app.spool.spool_status import SpoolStatus
from serve_app.ticket_desk import MAX_WAIT_S
from serve_app.tickets import ResultsPage, Ticket

SPOOL_NAME = "spool"
# A spool that died is back within seconds, and takes a frame that it has taken already as the same one.
KEEP_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 30.0
RETRY_INTERVAL_S = 0.5


class SpoolLine:
    """Calls to the spool through Serve's handle, which finds its replica wherever it runs."""

    def __init__(self, handle: DeploymentHandle[Any] | None = None) -> None:
        """Take the deployment's handle; None: it is looked up when it is needed."""
        self._known = handle

    def keep_and_wait(self, meta: FrameMeta, ref: ray.ObjectRef[Any], timeout_s: float = KEEP_TIMEOUT_S) -> Ticket:
        """Give a frame to the spool, again if it dies over it.

        Raises:
            FramelaneError: it was refused; the subclass says why.
        """
        until_s = time.monotonic() + timeout_s
        while True:
            left_s = until_s - time.monotonic()
            try:
                (ticket,) = self._handle().keep.remote([meta], [ref]).result(timeout_s=max(0.1, left_s))
            except (RayError, RayServeException, TimeoutError) as err:
                if left_s <= RETRY_INTERVAL_S:
                    raise _ours_or_gone(err) from err
                time.sleep(RETRY_INTERVAL_S)
                continue
            if isinstance(ticket, FramelaneError):
                raise ticket
            return _a_ticket(ticket)

    async def keep(
        self, metas: Sequence[FrameMeta], refs: Sequence[ray.ObjectRef[Any]]
    ) -> list[Ticket | FramelaneError]:
        """Give frames to the spool: a ticket for each, or why it was refused."""
        try:
            told: list[Ticket | FramelaneError] = await self._handle().keep.remote(list(metas), list(refs))
        except (RayError, RayServeException) as err:
            gone = _ours_or_gone(err)
            return [type(gone)(gone.message, gone.retry_after_s) for _ in metas]
        return told

    def result_and_wait(self, ticket_id: str, wait_s: float) -> FrameResult | None:
        """See `SpoolService.ticket_result`."""
        return self._wait(self._ask("ticket_result", ticket_id, wait_s))  # type: ignore[no-any-return]

    async def result(self, ticket_id: str, wait_s: float) -> FrameResult | None:
        """See `SpoolService.ticket_result`."""
        return await self._awaited(self._ask("ticket_result", ticket_id, wait_s))  # type: ignore[no-any-return]

    async def results(self, camera: str, cursor: int, wait_s: float = MAX_WAIT_S) -> ResultsPage:
        """See `SpoolService.ticket_results`."""
        return await self._awaited(self._ask("ticket_results", camera, cursor, wait_s))  # type: ignore[no-any-return]

    def status(self) -> SpoolStatus:
        """See `SpoolService.status`."""
        return self._wait(self._ask("status"))  # type: ignore[no-any-return]

    def aside(self) -> list[AsideFrame]:
        """See `SpoolService.aside`."""
        return self._wait(self._ask("aside"))  # type: ignore[no-any-return]

    def drop_aside(self, frame_id: str) -> bytes | None:
        """See `SpoolService.drop_aside`."""
        return self._wait(self._ask("drop_aside", frame_id))  # type: ignore[no-any-return]

    def _handle(self) -> DeploymentHandle[Any]:
        if self._known is None:
            self._known = serve.get_deployment_handle(SPOOL_NAME, APP_NAME)
        return self._known

    def _ask(self, method: str, *arguments: object) -> Any:
        return getattr(self._handle(), method).remote(*arguments)

    def _wait(self, response: Any) -> Any:
        try:
            return response.result(timeout_s=ANSWER_TIMEOUT_S + MAX_WAIT_S)
        except (RayError, RayServeException, TimeoutError) as err:
            raise _ours_or_gone(err) from err

    async def _awaited(self, response: Any) -> Any:
        try:
            return await response
        except (RayError, RayServeException) as err:
            raise _ours_or_gone(err) from err


def check_no_callback(callback: object) -> None:
    """A durable frame outlives whoever could be called; raises `InvalidFrameError`."""
    if callback is not None:
        raise InvalidFrameError(
            f"callback: got {type(callback).__name__} for a durable camera, allowed is None: what would be called may "
            "be gone by the frame's end; ask with result, or read results"
        )


def _a_ticket(told: Any) -> Ticket:
    ticket: Ticket = told
    return ticket


def _ours_or_gone(err: Any) -> FramelaneError:
    """What the spool itself raised; anything else means that it went away."""
    cause = getattr(err, "cause", None)
    if isinstance(cause, FramelaneError):
        return cause
    reason = f"{type(err).__name__}: {(str(err).splitlines() or [''])[0][:200]}"
    return ServiceUnavailableError(f"spool: the call did not come back ({reason}); look at: framelane status")
