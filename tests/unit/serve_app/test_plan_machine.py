"""The name that a table of measured seconds holds for: this CPU's, the GPU's, both, or none."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from serve_samples import sample_plan

from engines.errors import DeviceLostError, EngineLibraryError
from engines.machine import machine_name
from serve_app import plan_machine
from serve_app.plan import Pool, Runtime
from serve_app.plan_machine import joined, machine_of

CPU_POOLS = (Pool("near"), Pool("far"))
GPU_POOLS = tuple(Pool(name, num_gpus=1, runtime=Runtime.TENSORRT) for name in ("near", "far"))
MIXED_POOLS = (GPU_POOLS[0], CPU_POOLS[1])


@pytest.fixture
def gpu(monkeypatch):
    """A machine with a GPU; records which one was opened, and what became of it."""
    story = []

    def open_device(number):
        story.append(f"opened {number}")
        return SimpleNamespace(facts=lambda: SimpleNamespace(name="NVIDIA L4"), close=lambda: story.append("closed"))

    monkeypatch.setattr(plan_machine, "open_device", open_device)
    return story


@pytest.fixture
def no_gpu(monkeypatch):
    """A machine whose NVIDIA driver is missing; counts how often it was looked for."""
    asked = []

    def refuse(number):
        asked.append(number)
        raise EngineLibraryError("nvmlInit: not found")

    monkeypatch.setattr(plan_machine, "open_device", refuse)
    return asked


def test_a_plan_for_cpus_is_for_this_machine(no_gpu):
    """No GPU is asked."""
    assert machine_of(sample_plan(pools=CPU_POOLS)) == machine_name()
    assert no_gpu == []


def test_a_plan_for_gpus_is_for_the_first_gpu(gpu):
    """By its model's name; it is let go each time."""
    assert machine_of(sample_plan(pools=GPU_POOLS)) == "NVIDIA L4"
    assert gpu == ["opened 0", "closed"] * (len(gpu) // 2)
    assert gpu


@pytest.mark.parametrize("pools", [GPU_POOLS, MIXED_POOLS], ids=["gpus", "mixed"])
def test_a_plan_for_gpus_has_no_machine_where_there_is_none(no_gpu, pools):
    """The router may run on such a node; it begins without a table rather than with another machine's."""
    assert machine_of(sample_plan(pools=pools)) is None
    assert no_gpu


def test_a_plan_for_both_names_both(gpu):
    """The same name, whichever pool stands first."""
    wanted = " + ".join(sorted(["NVIDIA L4", machine_name()]))
    assert machine_of(sample_plan(pools=MIXED_POOLS)) == wanted
    assert machine_of(sample_plan(pools=(CPU_POOLS[0], GPU_POOLS[1]))) == wanted
    assert gpu.count("closed") == gpu.count("opened 0")


def test_a_gpu_that_is_lost_while_it_is_asked_is_no_machine(monkeypatch):
    """And it is let go all the same."""
    closed = []

    def lost():
        raise DeviceLostError("GPU is lost")

    device = SimpleNamespace(facts=lost, close=lambda: closed.append(1))
    monkeypatch.setattr(plan_machine, "open_device", lambda _: device)
    assert machine_of(sample_plan(pools=GPU_POOLS)) is None
    assert closed


def test_devices_of_one_name_are_named_once():
    """In the order of the alphabet."""
    assert joined(["b", "a", "b"]) == "a + b"
