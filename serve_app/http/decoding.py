"""Where images are decoded: threads beside the event loop, of which critical images have one for themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from engines.letterbox import Image
from serve_app.frames import Priority

# More of them would take the cores of engines on the same machine; one full-HD JPEG takes some 10 ms.
NUM_THREADS = 2


class DecodeRoom:
    """Runs decoders in threads; cancelling a caller does not stop a decoder that runs."""

    def __init__(self, num_threads: int = NUM_THREADS) -> None:
        """Threads start when they are needed."""
        self._critical = ThreadPoolExecutor(1, "decode-critical")
        self._others = ThreadPoolExecutor(num_threads, "decode")

    async def decoded(self, decode: Callable[[], Image], priority: str) -> Image:
        """What `decode` returns or raises."""
        room = self._critical if priority == Priority.CRITICAL.value else self._others
        return await asyncio.get_running_loop().run_in_executor(room, decode)
