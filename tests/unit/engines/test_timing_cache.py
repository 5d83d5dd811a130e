"""Timings shared between builds, on a stand-in of the library's cache: simulated, plain TensorRT has not run."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from engines.engine_spec import ComputeCapability
from engines.tensorrt_library import TensorRtLibrary
from engines.timing_cache import TimingCache

TENSORRT = TensorRtLibrary("tensorrt", "11.4.0.106", SimpleNamespace())
RTX = TensorRtLibrary("tensorrt_rtx", "1.7.1.116", SimpleNamespace())
L4, H100 = ComputeCapability(8, 9), ComputeCapability(9, 0)


class SimulatedTimings:
    """What a library's timing cache does with its entries; it is of one GPU model."""

    def __init__(self, gpu, entries) -> None:
        self.gpu, self.entries = gpu, set(entries)

    def serialize(self):
        """Bytes of everything in it."""
        return json.dumps([self.gpu, sorted(self.entries)]).encode()

    def combine(self, other, ignore_mismatch):
        """Take the other's entries; False if it is of another GPU."""
        if other.gpu != self.gpu and not ignore_mismatch:
            return False
        self.entries |= other.entries
        return True


class SimulatedConfig:
    """The timing cache calls of a builder configuration, on a machine with this GPU."""

    def __init__(self, gpu="L4") -> None:
        self.gpu, self.cache = gpu, None

    def create_timing_cache(self, stored):
        """Read timings; None if they cannot be read."""
        try:
            return SimulatedTimings(*json.loads(stored)) if stored else SimulatedTimings(self.gpu, [])
        except ValueError:
            return None

    def set_timing_cache(self, cache, ignore_mismatch):
        """Use timings; False if they are of another GPU."""
        if cache.gpu != self.gpu and not ignore_mismatch:
            return False
        self.cache = cache
        return True

    def get_timing_cache(self):
        """The timings in use."""
        return self.cache


@pytest.fixture
def timings(tmp_path):
    """Timings in a folder that is not there yet."""
    return TimingCache(tmp_path / "engines")


def build(timings, measured, gpu="L4", capability=L4):
    """One build that measures these kernels; answers what it knew before."""
    config = SimulatedConfig(gpu)
    timings.attach(config, TENSORRT, capability)
    known = set(config.cache.entries)
    config.cache.entries |= set(measured)
    timings.keep(config, TENSORRT, capability)
    return known


def test_a_build_knows_what_earlier_ones_measured(timings):
    """Each adds its own."""
    assert build(timings, ["conv"]) == set()
    assert build(timings, ["pool"]) == {"conv"}
    assert build(timings, []) == {"conv", "pool"}


def test_a_build_that_ran_meanwhile_loses_nothing(timings):
    """Two builds begin with the same file; both leave their timings in it."""
    config = SimulatedConfig()
    timings.attach(config, TENSORRT, L4)
    build(timings, ["of the other"])
    config.cache.entries.add("own")
    timings.keep(config, TENSORRT, L4)
    assert build(timings, []) == {"of the other", "own"}


def test_versions_and_architectures_have_files_of_their_own(timings):
    """Timings mean nothing elsewhere."""
    newer = TensorRtLibrary("tensorrt", "11.5.0.1", SimpleNamespace())
    paths = {timings.path(TENSORRT, L4), timings.path(TENSORRT, H100), timings.path(newer, L4)}
    assert len(paths) == 3


@pytest.mark.parametrize("spoil", [b"no timings", b'["another GPU", ["conv"]]'], ids=["damaged", "another-gpu"])
def test_timings_that_the_library_refuses_cost_a_warning_and_are_replaced(timings, caplog, spoil):
    """The build measures anew."""
    build(timings, ["conv"])
    path = timings.path(TENSORRT, L4)
    path.write_bytes(spoil)
    assert build(timings, ["pool"]) == set()
    assert f"{path}: tensorrt 11.4.0.106 refuses it" in caplog.text
    assert build(timings, []) == {"pool"}


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path, caplog):
    """The build goes on without."""
    (tmp_path / "file").write_text("")
    build(TimingCache(tmp_path / "file" / "engines"), ["conv"])
    assert "cannot be written" in caplog.text


def test_timings_that_cannot_be_read_cost_a_warning(timings, caplog, monkeypatch):
    """Another user's file, or a disk that fails: the build goes on without."""
    build(timings, ["conv"])

    def refuse(_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert build(timings, ["pool"]) == set()
    assert f"{timings.path(TENSORRT, L4)}: cannot be read (Permission denied)" in caplog.text


def test_tensorrt_for_rtx_is_left_alone(timings):
    """Its timing cache calls are deprecated and do nothing: none is made, and no file appears."""
    timings.attach(SimpleNamespace(), RTX, L4)
    timings.keep(SimpleNamespace(), RTX, L4)
    assert not timings.path(RTX, L4).parent.exists()
