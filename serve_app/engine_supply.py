"""How a replica comes by its engine: from its node's disk, from the cluster's store, or by building it for all.

It knows the store as a protocol and no Ray; `engine_store.py` has the real one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from engines.engine_cache import Build, EngineCache
from engines.engine_spec import BuiltEngine, EngineSpec
from engines.errors import CanvasError, EngineBuildError, PrecisionError, UnsupportedModelError
from engines.prepared_graph import PreparedGraph
from engines.tensorrt_build import Verbosity
from engines.tensorrt_library import TensorRtLibrary
from serve_app.build_leases import FAILURE_KEPT_S, LEASE_S, Claim, ClaimKind
from serve_app.errors import ServiceUnavailableError

# Asking costs the store a microsecond and Ray a millisecond; builds take seconds to minutes.
POLL_S = 1.0
# Two renewals may be lost before the lease is.
RENEW_S = LEASE_S / 3
# Failures that lie in what is built, so that every replica would meet them; all else lies in a machine.
OF_THE_ENGINE = (EngineBuildError, PrecisionError, CanvasError, UnsupportedModelError)

_log = logging.getLogger(__name__)


class Store(Protocol):
    """The cluster's built engines, and who builds which. Any thread may call; nothing waits for a build.

    Every method raises `ServiceUnavailableError` when the store does not answer.
    """

    def claim(self, key: str, claimant: str) -> Claim:
        """Ask for an engine; see `BuildLeases.claim`."""

    def renew(self, key: str, claimant: str) -> bool:
        """Say that the build goes on."""

    def publish(self, key: str, claimant: str, built: BuiltEngine) -> None:
        """Give an engine to all; ends the lease. The store has bytes of its own when the call returns."""

    def failed(self, key: str, claimant: str, reason: str) -> None:
        """Tell all who wait that it cannot be built; ends the lease."""

    def release(self, key: str, claimant: str) -> None:
        """Let the next one try; ends the lease."""

    def fetch(self, key: str) -> BuiltEngine | None:
        """An engine that is ready; None: it was pushed out since."""


@dataclass(frozen=True, slots=True)
class Waits:
    """How long a replica waits for what, in seconds: between two questions, between two renewals; and how."""

    poll_s: float = POLL_S
    renew_s: float = RENEW_S
    sleep: Callable[[float], None] = time.sleep


def engine_for(
    spec: EngineSpec,
    graph: PreparedGraph,
    library: TensorRtLibrary,
    *,
    cache: EngineCache,
    build: Build,
    store: Store | None,
    claimant: str,
    device_name: str | None,
    verbosity: Verbosity = Verbosity.LEAN,
    waits: Waits = Waits(),
) -> BuiltEngine:
    """Get one engine before a replica is ready: at most one process of the cluster builds it.

    First the node's own cache; else, while this process holds the cache's lock, so that one process of each node asks:
    the store's engine, which is written into the cache; else a build under a lease, whose engine is given to all. An
    engine that was on the disk already is offered to a store that does not have it, so that a node which joins need not
    build. Without a store, or when it does not answer, each node builds for itself, with a warning: the same engine,
    built more often.

    Args:
        spec: what the engine must be.
        graph: the graph that it is built from.
        library: the TensorRT that builds and will run it.
        cache: of this node. One folder holds engines of one GPU model: its own key knows the capability only.
        build: builds it here.
        store: of this cluster; None: there is none.
        claimant: names this process in the cluster, unlike any other.
        device_name: the GPU's model. Plain TensorRT measures its kernels on the model that is there, so an engine is
            shared only among equal ones; TensorRT for RTX builds for a capability, and the name does not count.
        verbosity: what `build` was told.
        waits: how long to wait for what.

    Raises:
        EngineBuildError: it cannot be built, here or where it was tried within the last minute.
        Exception: whatever else `build` raises; then the next process tries.
    """
    if store is None:
        return cache.get_or_build(spec, graph, library, build=build, verbosity=verbosity)
    key = cache.path(spec, graph, library, verbosity=verbosity).stem
    if not library.is_rtx:
        key = f"{key} {device_name}"
    supply = _Supply(store, build, key, claimant, waits)
    built = cache.get_or_build(spec, graph, library, build=supply.build, verbosity=verbosity)
    if not supply.was_asked:
        supply.offer(built)
    return built


class _Supply:
    """What stands in a builder's place: gets one engine from the cluster, and builds it if that falls to us."""

    def __init__(self, store: Store, build: Build, key: str, claimant: str, waits: Waits) -> None:
        self._store = store
        self._build = build
        self._key = key
        self._claimant = claimant
        self._waits = waits
        self.was_asked = False

    def build(self, spec: EngineSpec, graph: PreparedGraph, library: TensorRtLibrary) -> BuiltEngine:
        """Wait, fetch or build."""
        self.was_asked = True
        try:
            claim, built = self._settled()
        except ServiceUnavailableError as err:
            _log.warning("engine %s: built by this node for itself, because %s", self._key, err)
            return self._build(spec, graph, library)
        if claim.kind is ClaimKind.FAILED:
            raise EngineBuildError(
                f"engine {self._key}: its build failed on {claim.holder} {claim.for_s:.0f} s ago, and is tried again "
                f"{FAILURE_KEPT_S:.0f} s after that at the earliest: {claim.reason}"
            )
        if built is None:
            return self._built_for_all(spec, graph, library)
        if not _is_wanted(built, spec, graph, library):
            _log.warning("engine %s: the cluster's is not what its name says; built by this node for itself", self._key)
            return self._build(spec, graph, library)
        return built

    def offer(self, built: BuiltEngine) -> None:
        """Give the store what this node has had all along, if the store has it not."""

        def publish_if_missing() -> None:
            if self._store.claim(self._key, self._claimant).kind is not ClaimKind.READY:
                self._store.publish(self._key, self._claimant, built)

        if not self._told(publish_if_missing):
            self._told(lambda: self._store.release(self._key, self._claimant))

    def _settled(self) -> tuple[Claim, BuiltEngine | None]:
        """The first answer that is not to wait, and the engine if it is ready; `BuildLeases` bounds how long it takes.

        An engine that is pushed out before it is fetched is not ready any more: asking again gives the lease to build.
        """
        has_said_so = False
        while True:
            claim = self._store.claim(self._key, self._claimant)
            if claim.kind is ClaimKind.WAIT:
                if not has_said_so:
                    _log.info("engine %s: %s builds it since %.0f s; waiting", self._key, claim.holder, claim.for_s)
                    has_said_so = True
                self._waits.sleep(self._waits.poll_s)
                continue
            built = self._store.fetch(self._key) if claim.kind is ClaimKind.READY else None
            if built is not None or claim.kind is not ClaimKind.READY:
                return claim, built

    def _built_for_all(self, spec: EngineSpec, graph: PreparedGraph, library: TensorRtLibrary) -> BuiltEngine:
        with self._renewing():
            try:
                built = self._build(spec, graph, library)
            except OF_THE_ENGINE as err:
                reason = f"{type(err).__name__}: {err}"
                self._told(lambda: self._store.failed(self._key, self._claimant, reason))
                raise
            except BaseException:
                self._told(lambda: self._store.release(self._key, self._claimant))
                raise
            if not self._told(lambda: self._store.publish(self._key, self._claimant, built)):
                self._told(lambda: self._store.release(self._key, self._claimant))
        return built

    def _told(self, tell: Callable[[], None]) -> bool:
        """Tell the store something; when it does not answer, others do more work, and we have our engine."""
        try:
            tell()
        except ServiceUnavailableError as err:
            _log.warning("engine %s: %s; other nodes may build it again", self._key, err)
            return False
        return True

    @contextmanager
    def _renewing(self) -> Iterator[None]:
        """Renew the lease from a thread of its own meanwhile, as the builder has this one.

        It ends with the block, or with its last question: a store on a dead node can hold that up for a call's timeout.
        """
        ended = threading.Event()

        def renew() -> None:
            while not ended.wait(self._waits.renew_s):
                try:
                    self._store.renew(self._key, self._claimant)
                except ServiceUnavailableError as err:
                    _log.info("engine %s: lease not renewed: %s", self._key, err)

        thread = threading.Thread(target=renew, name="engine-lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _is_wanted(built: BuiltEngine, spec: EngineSpec, graph: PreparedGraph, library: TensorRtLibrary) -> bool:
    """Whether an engine says of itself that it is what was asked for."""
    facts = built.facts
    of_spec = (facts.compute_capability, facts.precision, facts.profile)
    return (
        of_spec == (spec.compute_capability, spec.precision, spec.profile)
        and (facts.library, facts.library_version) == (library.name, library.version)
        and facts.onnx_sha256 == graph.sha256
    )
