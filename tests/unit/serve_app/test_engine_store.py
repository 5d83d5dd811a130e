"""The store of built engines as a plain object, and how a replica comes by its engine with it; no Ray."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from engines.engine_cache import EngineCache
from engines.engine_spec import BuiltEngine, ComputeCapability, EngineFacts, EngineSpec, Precision, ShapeProfile
from engines.errors import EngineBuildError, EngineMemoryError, PrecisionError
from engines.prepared_graph import PreparedGraph
from engines.spec import CanvasShape, HeadKind, ModelInfo
from engines.tensorrt_library import TensorRtLibrary
from serve_app.build_leases import FAILURE_KEPT_S, LEASE_S, ClaimKind
from serve_app.engine_store import EngineStore
from serve_app.engine_supply import Waits, engine_for
from serve_app.errors import ServiceUnavailableError

PROFILE = ShapeProfile.around([CanvasShape(480, 640)], [1, 2])
SPEC = EngineSpec(Path("model.onnx"), PROFILE, Precision.FP16, ComputeCapability(8, 9))
GRAPH = PreparedGraph(b"onnx", ModelInfo(("part",), 32, HeadKind.RAW), "5ha", 4)
TENSORRT = TensorRtLibrary("tensorrt", "11.4.0.106", None)
RTX = TensorRtLibrary("tensorrt_rtx", "1.7.1.116", None)
L4, L40S = "NVIDIA L4", "NVIDIA L40S"


def built_of(plan_bytes=b"plan", library=TENSORRT, sha256="5ha"):
    """An engine of the one spec."""
    facts = EngineFacts(
        library.name, library.version, ComputeCapability(8, 9), Precision.FP16, PROFILE, sha256, 100, 10, 1.0
    )
    return BuiltEngine(plan_bytes, facts)


class Clock:
    """Time that tests move."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        """Seconds."""
        return self.now_s


class Cluster:
    """A store without Ray behind the protocol that replicas use, and nodes with caches of their own."""

    def __init__(self, folder):
        self.folder = folder
        self.clock = Clock()
        self.inner = EngineStore(clock=self.clock, keep=bytes)
        self.calls = []
        self.refused = set()
        self.during_poll = lambda: None

    def _noted(self, name, *arguments):
        self.calls.append(name)
        if name in self.refused or "all" in self.refused:
            raise ServiceUnavailableError("engine store: no answer")
        return getattr(self.inner, name)(*arguments)

    def __getattr__(self, name):
        """What says the same in the protocol and in the actor: claim, renew, failed, release."""
        return partial(self._noted, name)

    def publish(self, key, claimant, built):
        """As a line does, without Ray."""
        self._noted("publish", key, claimant, built.facts, np.frombuffer(built.plan_bytes, np.uint8))

    def fetch(self, key):
        """As a line does, without Ray."""
        found = self._noted("fetch", key)
        return None if found is None else BuiltEngine(found[1][0], found[0])

    def sleep(self, seconds):
        """Time passes, and with it what else happens in the cluster."""
        self.clock.now_s += seconds
        self.during_poll()

    def ask(self, node, build, *, library=TENSORRT, device_name=L4, renew_s=60.0):
        """A replica on a node gets its engine; its bytes."""
        return engine_for(
            SPEC, GRAPH, library, cache=EngineCache(self.folder / node), build=build, store=self, claimant=node,
            device_name=device_name, waits=Waits(poll_s=1.0, renew_s=renew_s, sleep=self.sleep),
        ).plan_bytes  # fmt: skip


class Builder:
    """Builds engines whose bytes say how many came before; raises instead what it is given."""

    def __init__(self, error=None):
        self.num_builds = 0
        self.error = error

    def __call__(self, spec, graph, library):
        """Build, or fail."""
        del spec, graph
        self.num_builds += 1
        if self.error is not None:
            raise self.error
        return built_of(b"plan %d" % self.num_builds, library)


@pytest.fixture
def cluster(tmp_path):
    """An empty cluster."""
    return Cluster(tmp_path)


@pytest.fixture
def builder():
    """A builder that works."""
    return Builder()


def test_the_second_node_gets_the_first_ones_engine_and_keeps_it_on_its_disk(cluster, builder):
    """One build in the cluster; after that not even the store is needed for the engine."""
    assert [cluster.ask("one", builder), cluster.ask("two", builder)] == [b"plan 1", b"plan 1"]
    cluster.refused.add("all")

    assert cluster.ask("two", builder) == b"plan 1"
    assert builder.num_builds == 1


def test_another_gpu_model_builds_its_own(cluster, builder):
    """Two cards of one capability choose other kernels; TensorRT wants the same model."""
    assert [cluster.ask("one", builder), cluster.ask("two", builder, device_name=L40S)] == [b"plan 1", b"plan 2"]


def test_tensorrt_for_rtx_builds_for_a_capability(cluster, builder):
    """It measures nothing, so cards of one capability share, and a machine without a card may build."""
    got = [cluster.ask(node, builder, library=RTX, device_name=name) for node, name in (("one", L4), ("two", None))]
    assert got == [b"plan 1", b"plan 1"]


def test_who_waits_gets_the_engine_once_it_is_there(cluster, builder):
    """It asks again until the other one is done, and builds nothing."""
    key = _claim_elsewhere(cluster)
    cluster.during_poll = lambda: cluster.inner.publish(key, "other", built_of().facts, np.frombuffer(b"x", np.uint8))

    assert cluster.ask("one", builder) == b"x"
    assert builder.num_builds == 0


def test_who_waits_for_a_dead_builder_builds_when_its_lease_runs_out(cluster, builder):
    """Not before, and not much later."""
    _claim_elsewhere(cluster)

    assert cluster.ask("one", builder) == b"plan 1"
    assert LEASE_S <= cluster.clock.now_s <= LEASE_S + 1


def test_a_failure_of_the_engine_is_told_to_the_others_and_tried_again_later(cluster):
    """The others get the reason without building; a minute later the next one tries."""
    failing = Builder(PrecisionError("fp16: 3 boxes are lost; set precision: fp32"))
    with pytest.raises(PrecisionError):
        cluster.ask("one", failing)
    with pytest.raises(EngineBuildError, match=r"failed on one 0 s ago.*PrecisionError: fp16: 3 boxes are lost"):
        cluster.ask("two", failing)
    assert failing.num_builds == 1

    cluster.clock.now_s += FAILURE_KEPT_S
    assert cluster.ask("two", Builder()) == b"plan 1"


@pytest.mark.parametrize(
    "error", [EngineMemoryError("the GPU is full"), OSError(28, "No space left"), KeyboardInterrupt()], ids=repr
)
def test_a_failure_of_the_machine_lets_the_next_one_build_at_once(cluster, builder, error):
    """It says nothing of the engine: no one else is told, and nobody waits for a lease."""
    with pytest.raises(type(error)):
        cluster.ask("one", Builder(error))

    assert cluster.ask("two", builder) == b"plan 1"
    assert cluster.clock.now_s == 0


def test_an_engine_on_the_disk_is_offered_to_a_store_that_has_it_not(cluster, builder):
    """A cluster that starts again with one new node builds nothing."""
    cluster.ask("one", builder)
    cluster.inner = EngineStore(clock=cluster.clock, keep=bytes)

    assert [cluster.ask("one", builder), cluster.ask("new", builder)] == [b"plan 1", b"plan 1"]
    assert builder.num_builds == 1


def test_an_engine_on_the_disk_is_not_sent_again(cluster, builder):
    """A store that has it is only asked."""
    cluster.ask("one", builder)
    cluster.calls.clear()
    cluster.ask("one", builder)

    assert cluster.calls == ["claim"]


@pytest.mark.parametrize("refused", ["all", "claim", "fetch"])
def test_without_an_answer_each_node_builds_for_itself_with_a_warning(cluster, builder, refused, caplog):
    """More work, never a wrong engine and never a replica that does not start."""
    if refused == "fetch":
        cluster.ask("other", Builder())
    cluster.refused.add(refused)

    assert cluster.ask("one", builder) == b"plan 1"
    assert builder.num_builds == 1
    assert "built by this node for itself" in caplog.text


@pytest.mark.parametrize("refused", ["publish", "renew"])
def test_a_store_that_dies_during_the_build_costs_no_engine(cluster, builder, refused, caplog):
    """The builder has its engine; the next node need not wait for a lease that nobody will end."""
    cluster.refused.add(refused)
    assert cluster.ask("one", builder) == b"plan 1"
    cluster.refused.clear()

    assert cluster.ask("two", builder) == (b"plan 2" if refused == "publish" else b"plan 1")
    assert cluster.clock.now_s == 0
    assert ("other nodes may build it again" in caplog.text) == (refused == "publish")


def test_no_store_is_the_cache_alone(tmp_path, builder):
    """A single machine needs none."""
    cache = EngineCache(tmp_path)
    for _ in range(2):
        built = engine_for(
            SPEC, GRAPH, TENSORRT, cache=cache, build=builder, store=None, claimant="one", device_name=L4
        )
        assert built.plan_bytes == b"plan 1"


@pytest.mark.parametrize(
    "wrong", [built_of(b"bad", library=RTX), built_of(b"bad", sha256="another")], ids=["library", "graph"]
)
def test_an_engine_that_is_not_what_its_name_says_is_not_used(cluster, builder, wrong, caplog):
    """It says so and builds its own, in the cache too."""
    key = _claim_elsewhere(cluster)
    cluster.inner.publish(key, "other", wrong.facts, np.frombuffer(wrong.plan_bytes, np.uint8))

    assert [cluster.ask("one", builder), cluster.ask("one", builder)] == [b"plan 1", b"plan 1"]
    assert "not what its name says" in caplog.text


def test_the_lease_is_renewed_while_the_builder_runs(cluster):
    """From a thread of its own, which ends with the build."""
    renewed = threading.Event()
    cluster.inner.renew = lambda *_: renewed.set()

    def build(spec, graph, library):
        del spec, graph
        assert renewed.wait(30)
        return built_of(library=library)

    assert cluster.ask("one", build, renew_s=0.001) == b"plan"
    assert [thread.name for thread in threading.enumerate() if thread.name == "engine-lease"] == []


def test_an_engine_that_is_pushed_out_before_it_is_fetched_is_built(cluster, builder):
    """Ready is not a promise to keep the bytes for ever."""
    store, key = cluster.inner, _claim_elsewhere(cluster)
    store.publish(key, "other", built_of().facts, np.frombuffer(b"x", np.uint8))
    fetch = store.fetch

    def push_out_once(asked_key):
        store.fetch = fetch
        store._held.clear()
        store._leases.forget(key)
        return fetch(asked_key)

    store.fetch = push_out_once

    assert cluster.ask("one", builder) == b"plan 1"
    assert cluster.calls.count("claim") == 2


def test_the_store_holds_so_many_bytes_and_pushes_out_what_was_not_fetched_for_the_longest():
    """What is gone is to be built again; what is fetched often stays."""
    store = EngineStore(clock=Clock(), keep=bytes, max_bytes=25)
    for key in "abc":
        store.publish(key, "one", built_of().facts, np.zeros(10, np.uint8))
        store.fetch("a")

    assert [store.claim(key, "two").kind for key in "abc"] == [ClaimKind.READY, ClaimKind.BUILD, ClaimKind.READY]
    assert [store.fetch(key) is None for key in "abc"] == [False, True, False]


def test_the_newest_engine_is_held_however_large():
    """Else every node that waits would build it, one after the other."""
    store = EngineStore(clock=Clock(), keep=bytes, max_bytes=25)
    store.publish("small", "one", built_of().facts, np.zeros(10, np.uint8))
    store.publish("large", "one", built_of().facts, np.zeros(100, np.uint8))

    assert (store.fetch("small"), store.fetch("large")[1]) == (None, [bytes(100)])


def test_the_first_of_two_engines_of_one_key_stays():
    """Nodes that fetch at different times get the same bytes."""
    store = EngineStore(clock=Clock(), keep=bytes)
    for plan in (b"first", b"second"):
        store.publish("k", "one", built_of().facts, np.frombuffer(plan, np.uint8))

    assert store.fetch("k")[1] == [b"first"]


def _claim_elsewhere(cluster):
    """Take the lease of the one spec from another node; its key."""
    key = f"{EngineCache(cluster.folder).path(SPEC, GRAPH, TENSORRT).stem} {L4}"
    assert cluster.inner.claim(key, "other").kind is ClaimKind.BUILD
    return key
