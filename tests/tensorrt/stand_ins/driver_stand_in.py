"""Builds the stand-in of NVIDIA's driver library and loads it before `cuda.bindings` looks for the real one.

Only for subprocesses of tests: a process that has loaded it sees no GPU any more.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).with_name("libcuda.c")
# The loader and cuda.bindings know a library by this name, whatever its file is called.
LIBRARY_NAME = "libcuda.so.1"
HELD = ("device_blocks", "device_bytes", "pinned_blocks", "streams", "events", "graphs", "executables", "contexts")
KINDS = {1: "upload", 2: "download", 3: "kernel"}
MAX_ENTRIES = 65536

OUT_OF_MEMORY, ILLEGAL_ADDRESS, LAUNCH_FAILED, DEVICE_UNAVAILABLE, ECC_UNCORRECTABLE = 2, 700, 719, 46, 214
INVALID_VALUE = 1

_KernelFunction = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint64)
_WaitHook = ctypes.CFUNCTYPE(None)


class _Entry(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_int),
        ("stream", ctypes.c_int),
        ("start_ns", ctypes.c_int64),
        ("end_ns", ctypes.c_int64),
        ("num_bytes", ctypes.c_int64),
    )


class Entry(NamedTuple):
    """One piece of work on the virtual time line."""

    kind: str
    stream: int
    start_ns: int
    end_ns: int
    num_bytes: int


def compiler() -> str | None:
    """The C compiler's path, if there is one."""
    return shutil.which("gcc")


def build(folder: Path) -> Path:
    """Compile the stand-in into a folder."""
    path = folder / LIBRARY_NAME
    command = [compiler(), "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-pthread"]
    subprocess.run([*command, f"-Wl,-soname,{LIBRARY_NAME}", "-o", str(path), str(SOURCE)], check=True, timeout=60)
    return path


class StandIn:
    """What a test sets and reads of the stand-in."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        self._library.standin_count.restype = ctypes.c_int64
        self._functions: dict[int, Callable[[], int]] = {}
        self._kernel = _KernelFunction(self._run_kernel)
        self._hook = _WaitHook()

    def reset(self, device_bytes: int = 1 << 30, num_devices: int = 1, copy_ns_per_kib: int = 1000) -> None:
        """A healthy device with nothing counted; what is held stays held."""
        self._library.standin_reset()
        self._library.standin_set(
            ctypes.c_int64(device_bytes), ctypes.c_int(num_devices), ctypes.c_int64(copy_ns_per_kib)
        )
        self._functions.clear()

    def fail(self, name: str, code: int, *, nth: int = 1, lasting: bool = False) -> None:
        """Let the nth next call of a driver function answer an error; for good, as on a lost device."""
        self._library.standin_fail(name.encode(), ctypes.c_int64(nth), ctypes.c_int(code), ctypes.c_int(lasting))

    def count(self, name: str) -> int:
        """How many of something are held now, or how often a driver function was called."""
        return int(self._library.standin_count(name.encode()))

    def held(self) -> dict[str, int]:
        """Everything that must be given back, where there is any."""
        return {name: self.count(name) for name in HELD if self.count(name)}

    def timeline(self) -> list[Entry]:
        """What has been done since it was last asked, on the virtual clock."""
        entries = (_Entry * MAX_ENTRIES)()
        size = self._library.standin_timeline(entries, MAX_ENTRIES)
        return [Entry(KINDS[e.kind], e.stream, e.start_ns, e.end_ns, e.num_bytes) for e in entries[:size]]

    def on_wait(self, hook: Callable[[], None]) -> None:
        """Call something once, when the host next waits for work that is not done."""
        self._hook = _WaitHook(hook)
        self._library.standin_on_wait(self._hook)

    def allocate(self, num_bytes: int) -> int | None:
        """Device memory as a library inside this process takes it; None: there is none."""
        address = ctypes.c_uint64()
        code = self._library.cuMemAlloc(ctypes.byref(address), ctypes.c_size_t(num_bytes))
        return None if code else address.value

    def free(self, address: int) -> None:
        """Give it back."""
        self._library.cuMemFree(ctypes.c_uint64(address))

    def holds(self, address: int, num_bytes: int) -> bool:
        """Whether this is device memory that is allocated."""
        return bool(self._library.standin_holds(ctypes.c_uint64(address), ctypes.c_size_t(num_bytes)))

    def launch(self, stream: int, function: Callable[[], int], duration_ns: int) -> int:
        """Give a stream a kernel, which answers 0 or an error code; a graph that captured it runs it again."""
        token = len(self._functions) + 1
        self._functions[token] = function
        return int(
            self._library.standin_launch(
                ctypes.c_void_p(stream), self._kernel, ctypes.c_uint64(token), ctypes.c_int64(duration_ns)
            )
        )

    def _run_kernel(self, token: int) -> int:
        return self._functions[token]()
