"""What bounds this process's memory, read from trees like the kernel's own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from engines.memory_bounds import memory_bounds, resident_bytes, tightest_bound

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MIB = 2**20
MACHINE = ("machine", 600 * MIB, 1000 * MIB)
V2_MOUNT = "30 23 0:26 {inside} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup rw,nsdelegate"
V1_MOUNT = "35 31 0:32 {inside} /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory"


class Tree:
    """A `/proc` and a `/sys` without anything but a machine of 1000 MiB, of which 400 are available."""

    def __init__(self, root):
        self.root = root
        self.write("proc/meminfo", f"MemTotal:  {1000 * 1024} kB\nMemFree: 1 kB\nMemAvailable: {400 * 1024} kB\n")
        self.write("proc/self/statm", "5000 700 10 1 0 20 0\n")

    def write(self, name, text):
        """A file and its folders."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def is_in(self, groups, mounts, inside="/"):
        """This process is in these groups, below these mounts."""
        self.write("proc/self/cgroup", groups)
        self.write("proc/self/mountinfo", "\n".join(mounts).format(inside=inside) + "\n")

    def v2(self, path, limit, used, cache=0):
        """A control group, sizes in MiB; its cache is half active, and shared memory is no cache."""
        folder = f"sys/fs/cgroup/{path}".rstrip("/")
        self.write(f"{folder}/memory.max", f"{limit if isinstance(limit, str) else limit * MIB}\n")
        self.write(f"{folder}/memory.current", f"{used * MIB}\n")
        half = cache * MIB // 2
        self.write(
            f"{folder}/memory.stat", f"anon 1\nfile {900 * MIB}\nshmem 5\ninactive_file {half}\nactive_file {half}\n"
        )

    def v1(self, path, limit, used, cache=0):
        """The same of version 1."""
        folder = f"sys/fs/cgroup/memory/{path}".rstrip("/")
        self.write(f"{folder}/memory.limit_in_bytes", f"{limit * MIB}\n")
        self.write(f"{folder}/memory.usage_in_bytes", f"{used * MIB}\n")
        half = cache * MIB // 2
        stat = f"cache 1\ninactive_file 7\ntotal_inactive_file {half}\ntotal_active_file {half}\n"
        self.write(f"{folder}/memory.stat", stat)

    def bounds(self):
        """Name, used and total of each bound; folders without the tree's own."""
        return [
            (bound.name.replace(str(self.root), ""), bound.used_bytes, bound.total_bytes)
            for bound in memory_bounds(self.root)
        ]


@pytest.fixture
def tree(tmp_path):
    """A machine without control groups."""
    return Tree(tmp_path)


def test_without_groups_the_machine_bounds(tree):
    """What is available counts as free: the kernel drops its caches before it kills."""
    assert tree.bounds() == [MACHINE]
    assert resident_bytes(tree.root) == 700 * PAGE_BYTES


def test_a_kernel_that_does_not_say_what_is_available_leaves_this_process(tmp_path):
    """Very old ones, and sandboxes."""
    Tree(tmp_path).write("proc/meminfo", f"MemTotal: {1000 * 1024} kB\n")
    (bound,) = memory_bounds(tmp_path)

    assert (bound.used_bytes, bound.total_bytes) == (700 * PAGE_BYTES, 1000 * MIB)


def test_a_machine_without_proc_is_no_error(tmp_path):
    """Then only its size is known, by other ways."""
    (bound,) = memory_bounds(tmp_path)

    assert (bound.used_bytes, bound.total_bytes) == (0, os.sysconf("SC_PHYS_PAGES") * PAGE_BYTES)


def test_a_group_counts_all_its_processes_less_the_cache(tree):
    """This process holds little; its neighbours fill the group, and the kernel kills any of them."""
    tree.is_in("0::/pod/worker\n", [V2_MOUNT])
    tree.v2("pod/worker", 500, 450, cache=60)
    tree.v2("pod", "max", 460)

    assert tree.bounds() == [MACHINE, ("cgroup /sys/fs/cgroup/pod/worker", 390 * MIB, 500 * MIB)]
    assert tightest_bound(tree.root).total_bytes == 500 * MIB


def test_the_groups_around_bound_as_well(tree):
    """A pod's limit binds its containers, however much each of them may have."""
    tree.is_in("0::/pod/worker\n", [V2_MOUNT])
    tree.v2("pod/worker", 800, 100)
    tree.v2("pod", 400, 390)

    assert tightest_bound(tree.root).used_bytes == 390 * MIB
    assert [name for name, *_ in tree.bounds()] == [
        "machine", "cgroup /sys/fs/cgroup/pod/worker", "cgroup /sys/fs/cgroup/pod"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("groups", "inside", "folder"),
    [
        pytest.param("0::/\n", "/", "", id="own-namespace"),
        pytest.param("0::/docker/abc\n", "/docker/abc", "", id="mounted-at-its-own"),
        pytest.param("0::/docker/abc/worker\n", "/docker/abc", "worker", id="below-what-is-mounted"),
        pytest.param("0::/../other\n", "/", "", id="outside-of-the-namespace"),
        pytest.param("0::/gone\n", "/", "", id="not-to-be-seen"),
        pytest.param("0::/docker/abcd\n", "/docker/abc", "", id="a-name-that-begins-alike"),
    ],
)
def test_a_containers_group_is_found_where_it_is_mounted(tree, groups, inside, folder):
    """Its path is told from the machine's top, from the container's, or from the mounted part's."""
    tree.is_in(groups, [V2_MOUNT], inside)
    tree.v2(folder, 300, 200)

    name = f"/sys/fs/cgroup/{folder}".rstrip("/")
    assert tree.bounds() == [MACHINE, (f"cgroup {name}", 200 * MIB, 300 * MIB)]


def test_version_1_counts_in_its_own_words(tree):
    """Its figures of the whole subtree begin with `total_`; without a limit it says a huge number."""
    tree.is_in("9:name=systemd:/\n4:cpu,memory:/job/a\n0::/\n", [V1_MOUNT, V2_MOUNT.replace("cgroup rw", "unified rw")])
    tree.v1("job/a", 2**43, 100)
    tree.v1("job", 500, 480, cache=40)

    assert tree.bounds() == [MACHINE, ("cgroup /sys/fs/cgroup/memory/job", 440 * MIB, 500 * MIB)]


@pytest.mark.parametrize("text", ["", "0::\n", "nonsense", "4:memory:/job\n"])
def test_what_cannot_be_read_is_no_bound(tree, text):
    """No figure is better than a wrong one."""
    tree.is_in(text, ["", "35 31", "1 2 3 4 5 - cgroup2"])

    assert tree.bounds() == [MACHINE]


def test_a_limit_of_the_address_space_bounds(tree):
    """Beyond it allocations fail, whatever the machine has."""
    header = "Limit                     Soft Limit           Hard Limit           Units     \n"
    line = f"Max address space         {6000 * PAGE_BYTES:<21}unlimited            bytes     \n"
    tree.write("proc/self/limits", header + line)

    assert tree.bounds() == [MACHINE, ("address space", 5000 * PAGE_BYTES, 6000 * PAGE_BYTES)]
    assert tightest_bound(tree.root).name == "address space"
    tree.write("proc/self/limits", header + line.replace(str(6000 * PAGE_BYTES), "unlimited"))
    assert tree.bounds() == [MACHINE]


def test_this_process_feels_its_own_limit():
    """The real kernel: what is mapped counts, and is not what is resident."""
    code = """
import mmap, resource
from engines.memory_bounds import memory_bounds
resource.setrlimit(resource.RLIMIT_AS, (2**32, resource.RLIM_INFINITY))
def bound():
    return next(bound for bound in memory_bounds() if bound.name == "address space")
before = bound()
held = mmap.mmap(-1, 2**30)
assert before.total_bytes == 2**32, before
assert bound().used_bytes - before.used_bytes == 2**30, (before, bound())
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
