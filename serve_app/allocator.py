"""How the C library keeps the memory of a process of many threads."""

from __future__ import annotations

import contextlib
import ctypes
import os

MAX_ARENAS = 2
# glibc's malloc.h.
M_ARENA_MAX = -8


def share_arenas() -> None:
    """Let all threads of this process allocate from two arenas; call before they start.

    glibc gives each thread an arena of its own, up to eight a core, which grows to the most that it ever held and is
    not given back: with dozens of decoding threads a process grows for many minutes. What the environment says
    (`MALLOC_ARENA_MAX`) goes before; other C libraries know nothing of this, and nothing happens.
    """
    if "MALLOC_ARENA_MAX" not in os.environ:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(M_ARENA_MAX, MAX_ARENAS)
