"""The revision of an application: a number that every deployment of it carries, larger with each update.

Routers and replicas of one revision belong together: an update that is under way has two of each.
"""

from __future__ import annotations

import logging
import time

import ray
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from serve_app.ray_session import router_handle

logger = logging.getLogger(__name__)

# The running router answers at once, unless its machine is far too busy.
ANSWER_TIMEOUT_S = 10.0


def next_revision() -> int:
    """A revision above that of the application that runs, if one does: nanoseconds since 1970.

    A clock that was set back, or is behind that of the machine that deployed before, makes it one more.
    """
    return max(time.time_ns(), running_revision() + 1)


def running_revision() -> int:
    """The revision of the application that serves on the connected Ray; 0: none does."""
    if not ray.is_initialized():
        return 0
    try:
        revision: int = router_handle().application_revision.remote().result(timeout_s=ANSWER_TIMEOUT_S)
    except (RayServeException, RayError, TimeoutError) as err:
        logger.info("no application serves: %r", err)
        return 0
    return revision
