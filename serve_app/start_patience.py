"""A replica that finds no memory at its start waits for it, so that Serve does not start one after the other.

Serve starts a replica that failed again at once, and for ever once one of its deployment has run: each start takes
seconds of CPU and, for a moment, the memory that is short.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from engines.errors import EngineMemoryError

logger = logging.getLogger(__name__)

T = TypeVar("T")
# A replica that is being replaced may take seconds to give its memory back; after a minute it fails, and Serve shows
# the reason and begins anew in a fresh process: at most one start a minute.
RETRY_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)


def with_patience(start: Callable[[], T], name: str, *, sleep: Callable[[float], None] = time.sleep) -> T:
    """What `start` returns, tried again for about a minute while it fails for want of memory.

    Args:
        start: loads and warms; holds nothing when it raises.
        name: what is started, for the log.
        sleep: waits for so many seconds.

    Raises:
        EngineMemoryError, MemoryError: there was none to the end; any other error of `start` at once.
    """
    for wait_s in RETRY_S:
        try:
            return start()
        except (EngineMemoryError, MemoryError) as err:
            logger.warning("%s: no memory to start, trying again in %.0f s (%s)", name, wait_s, err)
        sleep(wait_s)
    return start()
