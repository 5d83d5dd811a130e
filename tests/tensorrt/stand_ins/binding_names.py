"""What TensorRT's bindings have, as plain data: it can be read in one process and compared in another.

Run as a program it reads the bindings of TensorRT without NVIDIA's libraries: `libnvinfer_stub.c` takes their place, so
they can be imported, and nothing of them may be called. Never import those in the tests' own process.
"""

from __future__ import annotations

import ctypes
import importlib
import inspect
import json
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from binding_uses import Signature, Use, signatures_of

SOURCE = Path(__file__).with_name("libnvinfer_stub.c")
LIBRARIES = ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser")
BINDINGS = "tensorrt_bindings"
TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Name:
    """One name of the bindings.

    Attributes:
        members: of a module or class, by name.
        signatures: overloads of a function, of a class those of its constructor.
        values: of an enumeration, by name.
        is_function: whether it can be called.
        is_settable: whether it is a property that can be set.
    """

    members: dict[str, Name] = field(default_factory=dict)
    signatures: tuple[Signature, ...] = ()
    values: dict[str, int] = field(default_factory=dict)
    is_function: bool = False
    is_settable: bool = False

    def has(self, path: list[str]) -> bool:
        """Whether this path leads to something."""
        return self.find(path) is not None

    def find(self, path: list[str]) -> Name | None:
        """What a path of names leads to, if to anything."""
        found: Name | None = self
        for name in path:
            found = found.members.get(name) if found is not None else None
        return found

    def accepts(self, use: Use) -> bool:
        """Whether this has the attribute, which takes the call, and may be set if it is."""
        member = self.members.get(use.attribute)
        if member is None or (use.is_set and not member.is_settable):
            return False
        if use.num_args is None:
            return True
        return member.is_function and any(signature.accepts(use) for signature in member.signatures)


def names_of(owner: Any) -> Name:
    """Everything that a module or a class has, other than what Python gives to every object."""
    members = {}
    for name in dir(owner):
        member = getattr(owner, name, None)
        if (name.startswith("__") and name != "__init__") or inspect.ismodule(member):
            continue
        if inspect.isclass(member):
            members[name] = names_of(member)
        elif isinstance(member, property):
            members[name] = Name(is_settable=member.fset is not None)
        else:
            members[name] = Name(signatures=tuple(signatures_of(owner, name)), is_function=callable(member))
    if not inspect.isclass(owner):
        return Name(members)
    values = {name: int(member) for name, member in getattr(owner, "__members__", {}).items()}
    return Name(members, tuple(signatures_of(owner, "__init__")), values, is_function=True)


def read_without_libraries(major: int, compiler: str, scratch: Path) -> Name:
    """What the installed bindings of this major version of TensorRT have, read in a process of its own."""
    paths = [scratch / f"{library}.so.{major}" for library in LIBRARIES]
    for path in paths:
        command = [compiler, "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-Wl,-soname,{path.name}"]
        subprocess.run([*command, "-o", str(path), str(SOURCE)], check=True, timeout=TIMEOUT_S)
    done = subprocess.run(
        [sys.executable, __file__, *map(str, paths)], capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )
    if done.returncode:
        raise RuntimeError(f"{BINDINGS} cannot be imported on {SOURCE.name}: {done.stderr[-2000:]}")
    return _name(json.loads(done.stdout))


def _name(data: dict[str, Any]) -> Name:
    members = {name: _name(member) for name, member in data.pop("members").items()}
    signatures = tuple(Signature(tuple(names), num_required) for names, num_required in data.pop("signatures"))
    return Name(members, signatures, **data)


if __name__ == "__main__":
    for library in sys.argv[1:]:
        ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    sys.modules["tensorrt_libs"] = None  # type: ignore[assignment]  # the real libraries, where they are installed
    json.dump(asdict(names_of(importlib.import_module(BINDINGS))), sys.stdout)
