"""How a router of a newer revision takes the place of an older one without losing a frame.

Serve starts the new router beside the old one and stops that one as soon as the new one is healthy. So the new one is
not healthy before its replicas are warm and the old one has handed over: from then on the old one sends all that has
not begun, and all that still comes to it, to the new one, and relays the answers to its own callers. What has begun it
finishes. It ends when nobody waits for it any more: Serve waits for the calls that are under way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.handle import DeploymentHandle

from serve_app.direct_calls import ReplicaLine, own_actor
from serve_app.errors import FramelaneError
from serve_app.frames import FrameMeta
from serve_app.results import FrameResult

logger = logging.getLogger(__name__)

# How often a new router looks whether it may take over: replicas are counted once a second.
READY_INTERVAL_S = 0.25
# An old router answers at once, unless its machine is far too busy.
ANSWER_TIMEOUT_S = 5.0
# An old router that is silent for longer than this is lost, and its frames with it: the new one begins without it.
MAX_SILENT_ROUNDS = 6


def own_deployment() -> DeploymentHandle[Any]:
    """A handle for the routers that Serve announces, of which this process may be one."""
    context = serve.get_replica_context()
    return serve.get_deployment_handle(context.deployment, context.app_name)


async def take_over(revision: int, is_ready: Callable[[], bool], routers: DeploymentHandle[Any]) -> None:
    """Return when this router may have callers: at once where no older router is, else when that has handed over.

    Args:
        revision: this router's.
        is_ready: whether it could serve what the older ones serve now.
        routers: a handle for the announced ones.
    """
    num_silent = 0
    while num_silent < MAX_SILENT_ROUNDS:
        try:
            revisions = await _ask_all(routers, "application_revision")
        except (TimeoutError, asyncio.TimeoutError):  # two classes before Python 3.11
            num_silent += 1
            logger.warning("no answer of the older routers in %.0f s", ANSWER_TIMEOUT_S)
            continue
        if not any(isinstance(each, int) and each < revision for each in revisions):
            return
        if is_ready():
            try:
                await _ask_all(routers, "hand_over", revision, own_actor())
            except (TimeoutError, asyncio.TimeoutError):
                num_silent += 1
                continue
            return
        await asyncio.sleep(READY_INTERVAL_S)
    logger.error("the older routers do not answer: their frames are lost")


async def _ask_all(routers: DeploymentHandle[Any], method: str, *arguments: object) -> list[Any]:
    """The answers of all announced routers, errors included; nothing if there is none."""
    try:
        response = routers.broadcast(method, *arguments)
        return list(await response.results_async(timeout_s=ANSWER_TIMEOUT_S, return_exceptions=True))
    except (TimeoutError, asyncio.TimeoutError):
        raise
    except Exception as err:  # Serve announces none
        logger.info("no router is announced: %r", err)
        return []


class Handover:
    """The line from an old router to its successor, if it has one."""

    def __init__(self) -> None:
        """There is none yet."""
        self.revision = 0
        self.num_frames = 0
        self._line: ReplicaLine | None = None
        self._tickets_there: asyncio.Event | None = None
        self._num_calls = 0

    @property
    def has_begun(self) -> bool:
        """Whether frames go to a successor now."""
        return self._line is not None

    @property
    def is_busy(self) -> bool:
        """Whether a call to the successor is under way."""
        return self._num_calls > 0

    def begin(self, revision: int, actor: object) -> bool:
        """Send all to this successor from now on; False if there is one that is as new."""
        if self.has_begun and revision <= self.revision:
            return False
        self.revision, self._line = revision, ReplicaLine(actor)
        self._tickets_there = asyncio.Event()
        return True

    async def ask(self, method: str, *arguments: object, refs: Sequence[ray.ObjectRef[Any]] | None = None) -> Any:
        """Call a method of the successor; raises what it raises.

        Raises:
            RayActorError: it has died; so there is none until another one says that it is ready.
        """
        line = self._line
        if line is None:  # it has died since the caller looked
            raise RayActorError
        self._num_calls += 1
        try:
            return await line.call(method, *arguments, refs=refs)
        except RayActorError:
            if self._line is line:
                self._line = None
            raise
        except RayTaskError as err:
            if isinstance(err.cause, FramelaneError):
                raise err.cause from None
            raise
        finally:
            self._num_calls -= 1

    async def frame(self, meta: FrameMeta, ref: ray.ObjectRef[Any]) -> FrameResult:
        """The successor's answer to one frame. Raises `RayActorError` if it has died."""
        result: FrameResult = await self.ask("submit", meta, refs=[ref])
        self.num_frames += 1
        return result

    async def tickets(self, waiting: dict[str, str], unread: list[tuple[str, FrameResult]]) -> None:
        """Let the successor keep the tickets; then `ticket_ended` for each waiting one."""
        there = self._tickets_there
        try:
            num_refused = await self.ask("adopt_tickets", waiting, unread)
            if num_refused:
                logger.warning("the new router has no room for %d tickets", num_refused)
        except RayActorError as err:
            logger.warning("the new router has died, tickets stay here: %r", err)
        finally:
            if there is not None:
                there.set()

    async def ticket_ended(self, result: FrameResult) -> None:
        """Tell the successor how the frame of a ticket ended that it keeps."""
        if self._tickets_there is not None:
            await self._tickets_there.wait()
        try:
            await self.ask("ticket_ended", result)
        except RayActorError as err:
            logger.warning("the new router has died with its tickets: %r", err)
