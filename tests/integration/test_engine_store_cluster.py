"""The store of built engines on a real Ray: replicas are actors, nodes are folders of caches, builds are fakes."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from pathlib import Path

import pytest
import ray
from ray.cloudpickle import register_pickle_by_value, unregister_pickle_by_value
from ray.exceptions import RayActorError

from engines.engine_cache import EngineCache
from engines.engine_spec import BuiltEngine, ComputeCapability, EngineFacts, EngineSpec, Precision, ShapeProfile
from engines.errors import EngineBuildError
from engines.prepared_graph import PreparedGraph
from engines.spec import CanvasShape, HeadKind, ModelInfo
from engines.tensorrt_library import TensorRtLibrary
from serve_app.engine_store import NAMESPACE, open_store, remove_store
from serve_app.engine_supply import Waits, engine_for
from serve_app.errors import ServiceUnavailableError
from serve_app.ray_session import start_ray, stop_ray

PROFILE = ShapeProfile.around([CanvasShape(480, 640)], [1, 2])
SPEC = EngineSpec(Path("model.onnx"), PROFILE, Precision.FP16, ComputeCapability(8, 9))
GRAPH = PreparedGraph(b"onnx", ModelInfo(("part",), 32, HeadKind.RAW), "5ha", 4)
LIBRARY = TensorRtLibrary("tensorrt", "11.4.0.106", None)
FACTS = EngineFacts(
    LIBRARY.name, LIBRARY.version, ComputeCapability(8, 9), Precision.FP16, PROFILE, GRAPH.sha256, 100, 10, 1.0
)
STORE = "engine-store-test"
# More than a message carries: Ray keeps such bytes in its object store.
PLAN_PADDING = bytes(2**20)
LEASE_S, TIMEOUT_S = 2.0, 60.0


class Gate:
    """Counts builds and replicas that wait, and holds builders until the test lets them go."""

    def __init__(self):
        self.num_builds = 0
        self.waiting = set()
        self._changed = asyncio.Condition()
        self._opened = asyncio.Event()

    async def enter(self):
        """A build begins; its number."""
        self.num_builds += 1
        return self.num_builds

    async def opened(self):
        """Returns when the gate is open."""
        await self._opened.wait()

    async def open(self):
        """Let all builders go."""
        self._opened.set()

    async def waits(self, name):
        """A replica waits for another one's build."""
        async with self._changed:
            self.waiting.add(name)
            self._changed.notify_all()

    async def until_waiting(self, count):
        """Returns when so many different replicas wait."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.waiting) >= count)

    async def builds(self):
        """How many there were."""
        return self.num_builds


class Replica:
    """Gets its engine as a replica does: with a line of its own, and a cache on its node."""

    def __init__(self, folder, name, gate):
        self.name, self.gate = name, gate
        self.cache = EngineCache(Path(folder))

    def get(self, first_build="builds"):
        """The first bytes of the engine, and what was logged as a warning; the first builder may die or fail."""
        warnings = _Warnings()
        logging.getLogger("serve_app.engine_supply").addHandler(warnings)
        built = _engine(self.cache, self.name, self.gate, first_build)
        return built.plan_bytes[:6], warnings.texts


class LoopReplica(Replica):
    """Gets its engine while it holds up its event loop, as Serve does when it calls a replica's constructor."""

    async def get(self, first_build="builds"):
        """The same, in the loop's thread."""
        return super().get(first_build)


class _Warnings(logging.Handler):
    """Keeps the texts of warnings."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.texts = []

    def emit(self, record):
        self.texts.append(record.getMessage())


def _engine(cache, name, gate, first_build):
    def build(spec, graph, library):
        del spec, graph, library
        number = ray.get(gate.enter.remote())
        ray.get(gate.opened.remote())
        if number == 1 and first_build == "dies":
            os._exit(1)
        if number == 1 and first_build == "fails":
            raise EngineBuildError("build: layer 7 is not supported")
        return BuiltEngine(b"plan %d" % number + PLAN_PADDING, FACTS)

    def sleep(seconds):
        ray.get(gate.waits.remote(name))
        time.sleep(seconds)

    return engine_for(
        SPEC, GRAPH, LIBRARY, cache=cache, build=build, store=open_store(name=STORE, lease_s=LEASE_S), claimant=name,
        device_name="NVIDIA L4", waits=Waits(poll_s=0.1, renew_s=LEASE_S / 4, sleep=sleep),
    )  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def real_ray():
    """The Ray of this process; one of our own where no service has started one yet."""
    this = sys.modules[__name__]
    register_pickle_by_value(this)  # workers know no test modules
    is_ours = not ray.is_initialized()
    if is_ours:
        start_ray(num_cpus=1)
    yield
    if is_ours:
        stop_ray()
    unregister_pickle_by_value(this)


@pytest.fixture(autouse=True)
def _no_store_left():
    """A store outlives its tests unless it is removed."""
    yield
    remove_store(name=STORE)


@pytest.fixture
def gate():
    """A closed gate."""
    return ray.remote(Gate).options(num_cpus=0).remote()


@pytest.fixture
def replicas(tmp_path, gate):
    """Makes replicas, so many on each of so many nodes."""
    made = []

    def make(num_nodes, per_node=1, kind=Replica):
        for node in range(num_nodes):
            for number in range(per_node):
                actor = ray.remote(kind).options(num_cpus=0)
                made.append(actor.remote(str(tmp_path / f"node{node}"), f"node{node}-{number}", gate))
        return made[-num_nodes * per_node :]

    yield make
    for actor in made:
        ray.kill(actor)


def asked(ref):
    """The answer, within a time that only a hang exceeds."""
    return ray.get(ref, timeout=TIMEOUT_S)


@pytest.mark.parametrize(("num_nodes", "per_node"), [(4, 1), (2, 2)], ids=["four-nodes", "two-of-each-of-two-nodes"])
def test_replicas_that_start_together_build_once(replicas, gate, num_nodes, per_node):
    """The store lets one of a cluster build, the cache's lock one of a node ask; each node then has the file."""
    got = [replica.get.remote() for replica in replicas(num_nodes, per_node)]
    asked(gate.until_waiting.remote(num_nodes - 1))
    asked(gate.open.remote())

    assert asked(got) == [(b"plan 1", [])] * 4
    assert asked(gate.builds.remote()) == 1


def test_a_replica_gets_its_engine_while_its_event_loop_stands(replicas, gate):
    """Serve calls constructors in the loop's thread; neither building nor fetching needs the loop."""
    asked(gate.open.remote())
    builder, fetcher = replicas(2, kind=LoopReplica)

    assert asked(builder.get.remote()) == (b"plan 1", [])
    assert asked(fetcher.get.remote()) == (b"plan 1", [])


def test_a_builder_that_is_killed_is_followed_by_another(replicas, gate):
    """Its lease runs out, one of those who wait builds, the others get that one's engine."""
    got = [replica.get.remote("dies") for replica in replicas(4)]
    asked(gate.until_waiting.remote(3))
    asked(gate.open.remote())

    answers = []
    for ref in got:
        try:
            answers.append(asked(ref))
        except RayActorError:
            answers.append("dead")
    assert sorted(answers, key=str) == [(b"plan 2", [])] * 3 + ["dead"]
    assert asked(gate.builds.remote()) == 2


def test_a_build_that_fails_gives_all_who_wait_its_reason(replicas, gate):
    """Nobody else tries what cannot be built."""
    got = [replica.get.remote("fails") for replica in replicas(4)]
    asked(gate.until_waiting.remote(3))
    asked(gate.open.remote())

    for ref in got:
        with pytest.raises(EngineBuildError, match="layer 7 is not supported"):
            asked(ref)
    assert asked(gate.builds.remote()) == 1


def test_without_its_store_every_node_builds_for_itself(replicas, gate):
    """Killed while one builds and the others wait: each has a right engine in the end, and those who waited say why."""
    got = [replica.get.remote() for replica in replicas(3)]
    asked(gate.until_waiting.remote(2))
    remove_store(name=STORE)
    asked(gate.open.remote())

    answers = asked(got)
    assert sorted(plan for plan, _ in answers) == [b"plan 1", b"plan 2", b"plan 3"]
    assert all("engine store: no answer" in " ".join(texts) for _, texts in answers)


def test_an_engine_outlives_who_built_it(replicas, gate):
    """The store owns the bytes: a node that joins later gets them although the builder is gone."""
    asked(gate.open.remote())
    (builder,) = replicas(1)
    assert asked(builder.get.remote()) == (b"plan 1", [])
    ray.kill(builder)
    *_, late = replicas(2)

    assert asked(late.get.remote()) == (b"plan 1", [])
    assert asked(gate.builds.remote()) == 1


def test_a_store_that_crashes_starts_again_and_is_filled_from_the_disks(replicas, gate):
    """It comes back empty: a replica that finds its engine on its disk offers it, and a node that joins fetches it."""
    asked(gate.open.remote())
    first, again = replicas(1, per_node=2)
    asked(first.get.remote())
    ray.kill(ray.get_actor(STORE, namespace=NAMESPACE), no_restart=False)
    _until_answered(open_store(name=STORE))
    assert asked(again.get.remote()) == (b"plan 1", [])
    *_, late = replicas(2)

    assert asked(late.get.remote()) == (b"plan 1", [])
    assert asked(gate.builds.remote()) == 1


def _until_answered(store):
    give_up_s = time.monotonic() + TIMEOUT_S
    while True:
        try:
            store.release("none", "nobody")
            return
        except ServiceUnavailableError:
            assert time.monotonic() < give_up_s
            time.sleep(0.05)
