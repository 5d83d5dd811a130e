"""How many arenas the C library keeps for a process of many threads."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="arenas are glibc's")

# Threads that allocate at the same time, then glibc's own account of its arenas.
COUNT = """
import ctypes, sys, threading
from serve_app.allocator import share_arenas

if sys.argv[1] == "share":
    share_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.fopen.restype, libc.fclose.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
together = threading.Barrier(12)

def allocate():
    together.wait()
    libc.malloc(5000)
    together.wait()

threads = [threading.Thread(target=allocate) for _ in range(12)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
out = libc.fopen(b"/dev/stdout", b"w")
libc.malloc_info(0, out)
libc.fclose(out)
"""


def num_arenas(how, **environment):
    """Of a fresh process of twelve threads."""
    done = subprocess.run(
        [sys.executable, "-c", COUNT, how], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.count("<heap nr=")


def test_threads_share_two_arenas(monkeypatch):
    """Where each would have its own; what the environment says goes before."""
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    assert num_arenas("share") <= 2 < num_arenas("leave")
    assert 2 < num_arenas("share", MALLOC_ARENA_MAX="6") <= 6
