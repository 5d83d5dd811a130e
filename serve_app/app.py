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
from serve_app.pool_engines import PoolEngines, onnx_engines
from serve_app.router import Router
from serve_app.spool.spool_line import SPOOL_NAME
from serve_app.spool.spool_replica import SpoolReplica
from serve_app.tensorrt_pool import gpu_here, tensorrt_engines

logger = logging.getLogger(__name__)

# Above our own credits of a replica, so that Serve never queues (its queue polls); reports pass beside batches.
ENGINE_MAX_ONGOING = 16
# Frames that may be with the router beyond those that wait: running, and on their way to a rejection.
ROUTER_SPARE_CALLS = 2000
# Callers who wait for results; frames that come in are bounded by the spool itself.
SPOOL_MAX_ONGOING = 1000
# A replica finishes its running and its staged batch; both end within seconds on any device.
GRACEFUL_SHUTDOWN_S = 5.0
# Serve's line a call is CPU that the engine wants; our frame log says more.
QUIET = LoggingConfig(enable_access_log=False, log_level="WARNING")


class AppArgs(BaseModel):
    """The arguments of the application in a Serve config file (`applications[].args`)."""

    model_config = ConfigDict(extra="forbid")

    plan: str
    """Path of the plan's YAML file, or `bundled:NAME`."""


def build(args: AppArgs) -> Application:
    """Build the application of a plan file; what `serve.yaml` names as `import_path`."""
    return application(load_plan(plan_path(args.plan)))


def application(plan: Plan) -> Application:
    """Wire the router and one deployment for each pool of the plan."""
    pools = {
        pool.name: serve.deployment(
            name=f"engine-{pool.name}",
            num_replicas=pool.num_replicas,
            ray_actor_options={"num_cpus": pool.num_cpus, "num_gpus": pool.num_gpus},
            max_ongoing_requests=ENGINE_MAX_ONGOING,
            logging_config=QUIET,
            graceful_shutdown_timeout_s=GRACEFUL_SHUTDOWN_S,
        )(EngineReplica).bind(plan, pool.name, make_engines)
        for pool in plan.pools
    }
    router = serve.deployment(
        name="router",
        num_replicas=1,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=plan.limits.max_waiting_frames + ROUTER_SPARE_CALLS,
        logging_config=QUIET,
        graceful_shutdown_timeout_s=GRACEFUL_SHUTDOWN_S,
    )(Router)
    table = load_table(Path(plan.latency), machine=machine_of(plan)) if plan.latency else None
    log = FrameLog(Path(plan.frame_log)) if plan.frame_log else None
    return router.bind(plan, pools, log, LatencyModel(table), spool=_spool(plan) if plan.has_durable else None)


def _spool(plan: Plan) -> Application:
    """The one replica that keeps the frames of durable cameras."""
    options: dict[str, object] = {"num_cpus": 0}
    if plan.spool.labels:
        options["label_selector"] = dict(plan.spool.labels)
    deployment = serve.deployment(
        name=SPOOL_NAME,
        num_replicas=1,
        max_replicas_per_node=1,
        ray_actor_options=options,
        max_ongoing_requests=SPOOL_MAX_ONGOING,
        logging_config=QUIET,
        graceful_shutdown_timeout_s=GRACEFUL_SHUTDOWN_S,
    )(SpoolReplica)
    return deployment.bind(plan)


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
