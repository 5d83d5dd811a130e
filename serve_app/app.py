"""The composition: which real parts make the Serve application. All else takes its collaborators as arguments."""

# No `from __future__ import annotations` here: Serve looks at the annotation of `build` itself, not at its name.
import logging
from pathlib import Path

import ray
from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve import Application
from ray.serve.schema import LoggingConfig

from serve_app.config import engine_cache_folder, load_plan, plan_path
from serve_app.engine_replica import EngineReplica
from serve_app.engine_store import StoreLine, open_store
from serve_app.errors import ServiceUnavailableError
from serve_app.frame_log import FrameLog
from serve_app.latency import LatencyModel
from serve_app.latency_file import load_table
from serve_app.plan import Plan, Runtime
from serve_app.plan_machine import machine_of
from serve_app.pool_engines import MakeEngines, PoolEngines, onnx_engines
from serve_app.revision import next_revision
from serve_app.router import Router
from serve_app.tensorrt_pool import gpu_here, tensorrt_engines

logger = logging.getLogger(__name__)

# Above our own credits of a replica, so that Serve never queues (its queue polls); reports pass beside batches.
ENGINE_MAX_ONGOING = 16
# Frames that may be with the router beyond those that wait: running, and on their way to a rejection.
ROUTER_SPARE_CALLS = 2000
# How long Serve lets a router or a replica finish. Batches take seconds; but a router answers those who wait for its
# frames, and a replica that an update replaces serves on until the new router has the replicas of all its pools, whose
# engines may have to be built first. One that fails its health check is ended at once.
GRACEFUL_SHUTDOWN_S = 1800.0
# How often Serve looks whether a replica that it stops is idle. A router counts its replicas once a second, and tells
# those that it still needs.
GRACEFUL_LOOK_S = 3.0
# An update starts all new replicas beside the old ones, as far as there is room.
SURGE_PERCENT = 100
# Serve's line a call is CPU that the engine wants; our frame log says more.
QUIET = LoggingConfig(enable_access_log=False, log_level="WARNING")


class AppArgs(BaseModel):
    """The arguments of the application in a Serve config file (`applications[].args`)."""

    model_config = ConfigDict(extra="forbid")

    plan: str
    """Path of the plan's YAML file, or `bundled:NAME`."""

    version: str = ""
    """Any text. `serve deploy` looks at the arguments only: change it when the plan's file has changed."""


def build(args: AppArgs) -> Application:
    """Build the application of a plan file; what `serve.yaml` names as `import_path`."""
    return application(load_plan(plan_path(args.plan)))


def application(plan: Plan, make: MakeEngines | None = None) -> Application:
    """Wire the router and one deployment for each pool of the plan; on the connected Ray it is newer than what runs.

    Args:
        plan: what it serves.
        make: makes the engines of a replica; None: real ones.
    """
    revision = next_revision()
    pools = {
        pool.name: serve.deployment(
            name=f"engine-{pool.name}",
            num_replicas=pool.num_replicas,
            ray_actor_options={"num_cpus": pool.num_cpus, "num_gpus": pool.num_gpus},
            max_ongoing_requests=ENGINE_MAX_ONGOING,
            logging_config=QUIET,
            graceful_shutdown_timeout_s=GRACEFUL_SHUTDOWN_S,
            graceful_shutdown_wait_loop_s=GRACEFUL_LOOK_S,
            max_surge_percent=SURGE_PERCENT if pool.surge else 0,
        )(EngineReplica).bind(plan, pool.name, make or make_engines, revision)
        for pool in plan.pools
    }
    router = serve.deployment(
        name="router",
        num_replicas=1,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=plan.limits.max_waiting_frames + ROUTER_SPARE_CALLS,
        logging_config=QUIET,
        graceful_shutdown_timeout_s=GRACEFUL_SHUTDOWN_S,
        graceful_shutdown_wait_loop_s=GRACEFUL_LOOK_S,
        max_surge_percent=SURGE_PERCENT,
    )(Router)
    table = load_table(Path(plan.latency), machine=machine_of(plan)) if plan.latency else None
    log = FrameLog(Path(plan.frame_log)) if plan.frame_log else None
    return router.bind(plan, pools, log, LatencyModel(table), revision)


def make_engines(plan: Plan, pool: str) -> PoolEngines:
    """The engines of one replica of a pool, built where that is needed; nothing of it is done at a request."""
    if plan.pool(pool).runtime is Runtime.ONNX:
        return onnx_engines(plan, pool)
    store, claimant = (None, "") if not ray.is_initialized() else (_engine_store(), _own_name(pool))
    return tensorrt_engines(
        plan, pool, parts=gpu_here(), folder=engine_cache_folder(plan), store=store, claimant=claimant
    )


def _engine_store() -> StoreLine | None:
    """The cluster's built engines; without them each machine builds its own."""
    try:
        return open_store()
    except ServiceUnavailableError as err:
        logger.warning("engines are built on each machine: %s", err)
        return None


def _own_name(pool: str) -> str:
    return f"{pool}-{ray.get_runtime_context().get_actor_id()}"
