"""The folder of built engines: what is built again and why, and what several processes do to each other.

Engines are made-up bytes here; `tests/tensorrt` builds real ones.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from engines.engine_cache import EngineCache
from engines.engine_spec import BuiltEngine, ComputeCapability, EngineFacts, EngineSpec, Precision, ShapeProfile
from engines.prepared_graph import PreparedGraph
from engines.spec import CanvasShape, HeadKind, ModelInfo
from engines.tensorrt_build import Verbosity
from engines.tensorrt_library import TensorRtLibrary

SPEC = EngineSpec(
    Path("models/belt camera.onnx"),
    ShapeProfile.around([CanvasShape(480, 640), CanvasShape(320, 320)], [1, 2, 4]),
    Precision.FP16,
    ComputeCapability(8, 9),
)
GRAPH = PreparedGraph(b"onnx", ModelInfo(("part",), 32, HeadKind.RAW), sha256="ab" * 32, weights_bytes=7)
LIBRARY = TensorRtLibrary("tensorrt_rtx", "1.7.1.116", SimpleNamespace())


def engine_of(spec=SPEC, graph=GRAPH, library=LIBRARY, plan_bytes=b"plan\n\x00" * 1000):
    """What a builder would give."""
    facts = EngineFacts(
        library.name, library.version, spec.compute_capability, spec.precision, spec.profile, graph.sha256,
        activation_bytes=1024, weights_bytes=7, build_s=1.5,
    )  # fmt: skip
    return BuiltEngine(plan_bytes, facts)


class FakeBuilder:
    """Gives made-up engines and counts them."""

    def __init__(self) -> None:
        self.num_builds = 0

    def __call__(self, spec, graph, library):
        """Build as `tensorrt_build.build` would be called."""
        self.num_builds += 1
        return engine_of(spec, graph, library)


@pytest.fixture
def builder():
    """A builder that counts."""
    return FakeBuilder()


@pytest.fixture
def cache(tmp_path):
    """An empty folder that is not there yet."""
    return EngineCache(tmp_path / "new" / "engines")


def get(cache, builder, spec=SPEC, graph=GRAPH, library=LIBRARY, verbosity=Verbosity.LEAN):
    """Ask the cache for one engine."""
    return cache.get_or_build(spec, graph, library, build=builder, verbosity=verbosity)


def only_file(cache):
    """The one engine file of a folder."""
    (path,) = cache.folder.glob("*.engine")
    return path


def test_an_engine_is_built_once_and_read_back_whole(cache, builder):
    """Bytes and facts, in another process's cache object too."""
    get(cache, builder)
    again = get(EngineCache(cache.folder), builder)
    assert builder.num_builds == 1
    assert (again.plan_bytes, again.facts) == (engine_of().plan_bytes, engine_of().facts)


def test_a_files_name_can_be_read(cache, builder):
    """Model, profile, precision and GPU, in characters that every file system takes."""
    get(cache, builder)
    name = only_file(cache).name
    assert name.startswith("belt_camera_1x320x320-4x480x640-4x480x640_fp16_sm89_")
    assert only_file(cache) == cache.path(SPEC, GRAPH, LIBRARY)


OTHERS = {
    "graph": {"graph": dataclasses.replace(GRAPH, sha256="cd" * 32)},
    "profile": {
        "spec": dataclasses.replace(SPEC, profile=ShapeProfile.around([CanvasShape(480, 640)], [1, 2, 4])),
    },
    "opt": {
        "spec": dataclasses.replace(
            SPEC, profile=dataclasses.replace(SPEC.profile, opt_shape=SPEC.profile.max_shape._replace(batch=2))
        )
    },
    "precision": {"spec": dataclasses.replace(SPEC, precision=Precision.FP32)},
    "gpu": {"spec": dataclasses.replace(SPEC, compute_capability=ComputeCapability(12, 0))},
    "workspace": {"spec": dataclasses.replace(SPEC, workspace_bytes=2**20)},
    "library": {"library": TensorRtLibrary("tensorrt", "1.7.1.116", SimpleNamespace())},
    "version": {"library": TensorRtLibrary("tensorrt_rtx", "1.8.0.1", SimpleNamespace())},
    "verbosity": {"verbosity": Verbosity.DETAILED},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_what_differs_in_anything_that_counts_has_a_file_of_its_own(cache, builder, other):
    """Both are built, neither replaces the other."""
    get(cache, builder)
    get(cache, builder, **other)
    get(cache, builder)
    get(cache, builder, **other)
    assert builder.num_builds == 2
    assert len(list(cache.folder.glob("*.engine"))) == 2


def damaged(content):
    """One bit of the engine turned."""
    return content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]


def with_other_facts(content):
    """The activation memory changed, as if by hand."""
    return content.replace(b'"activation_bytes": 1024', b'"activation_bytes": 1025')


WRONG_CONTENTS = {
    "damaged": (damaged, "damaged file (its checksum does not fit)"),
    "facts-changed": (with_other_facts, "damaged file (its checksum does not fit)"),
    "cut-short": (lambda content: content[:-10], "cut short, 5990 of 6000 bytes"),
    "cut-in-the-facts": (lambda content: content[:200], "damaged file (its facts cannot be read)"),
    "cut-in-the-first-line": (lambda content: content[:40], "damaged file (its facts cannot be read)"),
    "longer": (lambda content: content + b"x", "damaged file (its checksum does not fit)"),
    "empty": (lambda _: b"", "none of ours"),
    "another-programs": (lambda _: b"\x7fELF" * 100, "none of ours"),
    "older-format": (lambda content: content.replace(b"engine 1 ", b"engine 0 ", 1), "none of ours"),
}


@pytest.mark.parametrize(("spoil", "reason"), WRONG_CONTENTS.values(), ids=WRONG_CONTENTS)
def test_a_file_that_is_not_sound_is_built_again_with_a_warning_that_says_why(cache, builder, caplog, spoil, reason):
    """It is never used, and the next start finds a sound one."""
    get(cache, builder)
    path = only_file(cache)
    path.write_bytes(spoil(path.read_bytes()))
    assert get(cache, builder).plan_bytes == engine_of().plan_bytes
    assert builder.num_builds == 2
    assert reason in caplog.text
    assert path.name in caplog.text
    get(cache, builder)
    assert builder.num_builds == 2


def test_a_foreign_file_under_this_name_is_built_again_and_the_difference_named(cache, builder, caplog):
    """A sound engine of another version and GPU, copied by hand."""
    other = dataclasses.replace(SPEC, compute_capability=ComputeCapability(8, 6))
    newer = TensorRtLibrary("tensorrt_rtx", "1.8.0.1", SimpleNamespace())
    get(cache, builder, spec=other, library=newer)
    cache.path(other, GRAPH, newer).rename(cache.path(SPEC, GRAPH, LIBRARY))
    assert get(cache, builder).facts.compute_capability == ComputeCapability(8, 9)
    assert builder.num_builds == 2
    assert "compute_capability '8.6' instead of '8.9'" in caplog.text
    assert "library_version '1.8.0.1' instead of '1.7.1.116'" in caplog.text


def test_a_sound_file_is_read_without_a_word(cache, builder, caplog):
    """Neither the first build nor a load is worth a warning."""
    get(cache, builder)
    get(cache, builder)
    assert caplog.text == ""


def test_a_build_that_fails_leaves_no_file_and_no_lock(cache, builder):
    """The next one tries again."""

    def refuse(*_):
        raise ValueError("refused")

    with pytest.raises(ValueError, match="refused") as caught:
        get(cache, refuse)
    assert not list(cache.folder.glob("*.engine"))
    get(cache, builder)
    assert builder.num_builds == 1
    assert caught.tb is not None  # kept until here: the lock is let go of by the code, and not by the collector


def test_a_folder_that_cannot_be_made_costs_a_warning_and_not_the_engine(tmp_path, builder, caplog):
    """The engine is built in memory, at each start again; the warning names the folder and the cure."""
    (tmp_path / "file").write_text("")
    cache = EngineCache(tmp_path / "file" / "engines")
    assert get(cache, builder).plan_bytes == engine_of().plan_bytes
    get(cache, builder)
    assert builder.num_builds == 2
    assert str(cache.folder) in caplog.text
    assert "name a folder that this user may write" in caplog.text


def test_an_engine_in_a_folder_that_cannot_be_written_is_used(cache, builder, monkeypatch):
    """An image may bring its engines in a read-only layer: reading needs no lock."""
    get(cache, builder)

    def refuse(*_args, **_keywords):
        raise PermissionError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("engines.engine_cache.FileLock", refuse)
    get(cache, builder)
    assert builder.num_builds == 1


def test_a_damaged_engine_in_a_folder_that_cannot_be_written_is_named(cache, builder, caplog, monkeypatch):
    """Else nobody would learn why an image that brings its engines builds them at every start."""
    get(cache, builder)
    (path,) = cache.folder.glob("*.engine")
    path.write_bytes(path.read_bytes()[:-1])

    def refuse(*_args, **_keywords):
        raise PermissionError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("engines.engine_cache.FileLock", refuse)
    get(cache, builder)
    assert builder.num_builds == 2
    assert f"engine file {path}: got a file that is cut short" in caplog.text


def test_a_full_disk_costs_a_warning_and_leaves_nothing_behind(cache, builder, caplog, monkeypatch):
    """The engine is used from memory."""

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert get(cache, builder).plan_bytes == engine_of().plan_bytes
    assert [path.suffix for path in cache.folder.iterdir()] == [".lock"]
    assert "No space left on device" in caplog.text
    assert "make room" in caplog.text


CHILD = """
import logging, os, resource, signal, sys
sys.path[:0] = [{root!r}, {tests!r}]
logging.basicConfig(stream=sys.stdout, format="%(message)s")
from pathlib import Path
from test_engine_cache import EngineCache, GRAPH, LIBRARY, SPEC, engine_of

def say(text):
    print(text, flush=True)

def slow_build(spec, graph, library):
    say("building")
    sys.stdin.readline()
    return engine_of(spec, graph, library)

{body}
engine = EngineCache(Path({folder!r})).get_or_build(SPEC, GRAPH, LIBRARY, build=slow_build)
say(f"got {{engine.plan_bytes == engine_of().plan_bytes}}")
"""


@pytest.fixture
def start(cache):
    """Starts processes that want the engine: they say when they build, and go on when they are told."""
    started = []

    def start_one(body=""):
        tests = Path(__file__).parent
        program = CHILD.format(root=str(tests.parents[2]), tests=str(tests), folder=str(cache.folder), body=body)
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start_one
    for process in started:
        process.kill()
        process.communicate()


def go_on(process):
    """Let a building process finish."""
    process.stdin.write("\n")
    process.stdin.flush()


def test_of_two_processes_one_builds_and_the_other_waits_and_uses_its_file(cache, start):
    """The waiting one says so, names the file, and never builds."""
    first = start()
    assert first.stdout.readline() == "building\n"
    second = start()
    waiting = second.stdout.readline()
    assert "another process builds" in waiting
    assert cache.path(SPEC, GRAPH, LIBRARY).name in waiting
    go_on(first)
    assert first.communicate()[0] == "got True\n"
    assert second.communicate()[0] == "got True\n"


def test_the_lock_of_a_killed_builder_holds_nobody_up(cache, start, builder):
    """The kernel lets go of it with the process."""
    first = start()
    assert first.stdout.readline() == "building\n"
    first.kill()
    first.wait()
    get(cache, builder)
    assert builder.num_builds == 1


def test_a_builder_that_is_killed_while_it_writes_leaves_no_engine_and_no_litter(cache, start, builder):
    """What it wrote stands under another name, and the next builder removes it."""
    process = start("os.fsync = lambda _: (say('writing'), sys.stdin.readline())")
    assert process.stdout.readline() == "building\n"
    go_on(process)
    assert process.stdout.readline() == "writing\n"
    process.kill()
    process.wait()
    assert [path.suffix for path in cache.folder.iterdir() if path.suffix != ".lock"] == [".part"]
    get(cache, builder)
    assert builder.num_builds == 1
    assert sorted(path.suffix for path in cache.folder.iterdir()) == [".engine", ".lock"]


def test_a_write_that_the_kernel_refuses_midway_leaves_no_engine(cache, start, builder):
    """A limit on the size of files stands for the full disk; the process has its engine all the same."""
    process = start(
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))"
    )
    assert process.stdout.readline() == "building\n"
    go_on(process)
    said = process.communicate()[0]
    assert "cannot be written (File too large)" in said
    assert said.endswith("got True\n")
    assert [path.suffix for path in cache.folder.iterdir()] == [".lock"]
    get(cache, builder)
    assert builder.num_builds == 1
