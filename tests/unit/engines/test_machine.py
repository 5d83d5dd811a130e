"""The name under which times are measured."""

from __future__ import annotations

import os
import platform

import pytest

from engines import machine
from engines.machine import machine_name

TWO_CORES = (
    "processor\t: 0\nmodel name\t: Some  CPU @ 2.10GHz \ncache size\t: 7 KB\nprocessor\t: 1\nmodel name\t: Other\n"
)


class FakeCpuInfo:
    """Stands for `Path`: a file with this text, or none."""

    def __init__(self, text: str | None):
        self.text = text

    def __call__(self, path: str) -> FakeCpuInfo:
        """Make the path."""
        assert path == "/proc/cpuinfo"
        return self

    def read_text(self, **_: str) -> str:
        """What the file holds."""
        if self.text is None:
            raise FileNotFoundError
        return self.text


@pytest.mark.parametrize(
    ("text", "model"),
    [(TWO_CORES, "Some CPU @ 2.10GHz"), ("processor\t: 0\nBogoMIPS\t: 50\n", "mips9"), ("", "mips9"), (None, "mips9")],
    ids=["first CPU", "no model name", "empty", "no file"],
)
@pytest.mark.parametrize("num_cores", [1, 3])
def test_a_machine_is_its_cpu_and_the_cores_it_may_use(monkeypatch, text, model, num_cores):
    """Spaces made single; the architecture where nothing is said; not all cores, but those that are allowed."""
    monkeypatch.setattr(machine, "Path", FakeCpuInfo(text))
    monkeypatch.setattr(platform, "machine", lambda: "mips9")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(num_cores)))

    assert machine_name() == f"{model}, {num_cores} cores"


def test_a_process_that_may_use_fewer_cores_is_another_machine():
    """On this very machine, unfaked: times on one of two cores are not times on both."""
    allowed = os.sched_getaffinity(0)
    one = min(allowed)
    try:
        os.sched_setaffinity(0, {one})
        name = machine_name()
    finally:
        os.sched_setaffinity(0, allowed)

    assert name.endswith(", 1 cores")
    assert machine_name() == name.replace(", 1 cores", f", {len(allowed)} cores")
