"""What bounds the memory of this process: the machine, the control groups it is in, its own address space (Linux)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Page cache of files, which the kernel drops before it kills anybody. Shared memory, where Ray keeps its objects, is
# not in these. https://docs.kernel.org/admin-guide/cgroup-v2.html, and cgroup-v1/memory.html
_CACHE_V2 = ("inactive_file", "active_file")
_CACHE_V1 = ("total_inactive_file", "total_active_file")


@dataclass(frozen=True, slots=True)
class MemoryBound:
    """One limit, and what counts towards it.

    Attributes:
        name: `machine`, `cgroup PATH` or `address space`.
        used_bytes: what cannot be had back without killing somebody, by whomever it is used.
        total_bytes: from where on the kernel kills, or refuses to allocate.
    """

    name: str
    used_bytes: int
    total_bytes: int

    @property
    def used_fraction(self) -> float:
        """Share that is used."""
        return self.used_bytes / self.total_bytes


def memory_bounds(root: Path = Path("/")) -> tuple[MemoryBound, ...]:
    """All that bound this process; the machine's first.

    All processes of a control group share its limit and those of the groups around it: the kernel counts them together
    and kills any of them, so what one process holds says little. The limit of the address space is each process's own.

    Args:
        root: where `/proc` and `/sys` lie.
    """
    machine = _machine(root)
    groups = (bound for bound in _groups(root) if bound.total_bytes < machine.total_bytes)
    return (machine, *groups, *_address_space(root))


def tightest_bound(root: Path = Path("/")) -> MemoryBound:
    """The bound of which the largest share is used: the one that will be met first."""
    return max(memory_bounds(root), key=lambda bound: bound.used_fraction)


def resident_bytes(root: Path = Path("/")) -> int:
    """What this process itself holds."""
    return _pages(root, 1)


def _machine(root: Path) -> MemoryBound:
    sizes = _table(root / "proc/meminfo")
    total_bytes = 1024 * sizes["MemTotal:"] if "MemTotal:" in sizes else os.sysconf("SC_PHYS_PAGES") * _page_bytes()
    available = sizes.get("MemAvailable:")
    used_bytes = resident_bytes(root) if available is None else total_bytes - 1024 * available
    return MemoryBound("machine", max(0, used_bytes), total_bytes)


def _groups(root: Path) -> Iterator[MemoryBound]:
    """Each control group with a limit, from this process's own outwards, as far as they can be seen from here."""
    for is_v2, folder, top in _own_groups(root):
        for group in (folder, *folder.parents):
            bound = _group(group, is_v2=is_v2)
            if bound is not None:
                yield bound
            if group == top:
                break


def _group(folder: Path, *, is_v2: bool) -> MemoryBound | None:
    limit, usage = ("memory.max", "memory.current") if is_v2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    total_bytes, used_bytes = _number(folder / limit), _number(folder / usage)
    if total_bytes is None or used_bytes is None or total_bytes <= 0:
        return None
    stat = _table(folder / "memory.stat")
    cache_bytes = sum(stat.get(key, 0) for key in (_CACHE_V2 if is_v2 else _CACHE_V1))
    return MemoryBound(f"cgroup {folder}", max(0, used_bytes - cache_bytes), total_bytes)


def _own_groups(root: Path) -> Iterator[tuple[bool, Path, Path]]:
    """Version, folder and hierarchy of the groups that this process is in and that may count memory."""
    mounts = {is_v2: (inside, folder) for is_v2, inside, folder in _mounts(root)}
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        is_v2 = number == "0" and not controllers
        if (is_v2 or "memory" in controllers.split(",")) and is_v2 in mounts:
            inside, top = mounts[is_v2]
            # A container may see its own group as the top of the mount while its path is told from the machine's.
            own = path[len(inside) :] if inside != "/" and f"{path}/".startswith(f"{inside}/") else path
            folder = top / own.strip("/")
            yield is_v2, folder if ".." not in folder.parts and folder.is_dir() else top, top


def _mounts(root: Path) -> Iterator[tuple[bool, str, Path]]:
    """Version, mounted part and place of each hierarchy that may count memory; see proc(5), mountinfo."""
    for line in _read(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(), after.split()
        if len(fields) > 4 and kinds:
            is_v1 = kinds[0] == "cgroup" and "memory" in kinds[-1].split(",")
            if kinds[0] == "cgroup2" or is_v1:
                yield not is_v1, fields[3], root / fields[4].lstrip("/")


def _address_space(root: Path) -> Iterator[MemoryBound]:
    """The limit that `ulimit -v` sets: allocations beyond it fail."""
    for line in _read(root / "proc/self/limits").splitlines():
        name, soft = line[:26].strip(), line[26:].split()
        if name == "Max address space" and soft and soft[0].isdigit() and int(soft[0]) > 0:
            yield MemoryBound("address space", _pages(root, 0), int(soft[0]))


def _pages(root: Path, column: int) -> int:
    """Bytes of one column of statm."""
    fields = _read(root / "proc/self/statm").split()
    return int(fields[column]) * _page_bytes() if len(fields) > column else 0


def _page_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE")


def _table(path: Path) -> dict[str, int]:
    """The numbers of a file of lines `key number …`."""
    rows = (line.split() for line in _read(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdigit() else None


def _read(path: Path) -> str:
    """A kernel file's text; empty where it is not there or not ours to read."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
