"""The composition: which real parts make the Serve application. All else takes its collaborators as arguments."""

# No `from __future__ import annotations` here: Serve looks at the annotation of `build` itself, not at its name.
import logging
from pathlib import Path

import ray
from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve import Application
from ray.serve.schema import LoggingConfig

from serve_app.app_name import ENGINE_PREFIX, ROUTER_NAME
from serve_app.config import engine_cache_folder, load_plan, plan_path
from serve_app.engine_replica import EngineReplica
from serve_app.engine_store import StoreLine, open_store
from serve_app.errors import ServiceUnavailableError
from serve_app.frame_log import FrameLog
from serve_app.handover import own_deployment
from serve_app.latency_file import load_table
from serve_app.peer_routers import open_peers
from serve_app.placement import pool_options, router_options
from serve_app.plan import Plan, Runtime
from serve_app.plan_machine import machine_of
from serve_app.pool_engines import MakeEngines, PoolEngines, onnx_engines
from serve_app.ray_metrics import RayMetrics
from serve_app.revision import next_revision
from serve_app.room_check import check_change
from serve_app.router import Router
from serve_app.serve_autoscaling import pool_size, router_size
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
# It answers its callers at once, and writes what it has taken.
SPOOL_SHUTDOWN_S = 5.0
# How long Serve lets a router or a replica finish. Batches take seconds; but a router answers those who wait for its
# frames, and a replica that an update replaces serves on until the new router has the replicas of all its pools, whose
# engines may have to be built first. One whose engine hangs answers its batches itself, see `EngineReplica.own_report`.
GRACEFUL_SHUTDOWN_S = 1800.0
# How often Serve looks whether a replica that it stops is idle. A router counts its replicas once a second, and tells
# those that it still needs.
GRACEFUL_LOOK_S = 3.0
# An update starts all new replicas beside the old ones, as far as there is room.
SURGE_PERCENT = 100
# A replica whose check fails three times in a row is replaced: after 7 s where it says so itself, after 20 to 27 s
# where it does not answer (measured). It gets no frames meanwhile, so this costs capacity only.
HEALTH_PERIOD_S = 2.0
# A sound replica answers in milliseconds, on a crowded machine in a second.
HEALTH_TIMEOUT_S = 5.0
# Serve's line a call is CPU that the engine wants; our frame log says more. Our own lines follow the plan's log_level.
QUIET = LoggingConfig(encoding="JSON", enable_access_log=False, log_level="WARNING")


class AppArgs(BaseModel):
    """The arguments of the application in a Serve config file (`applications[].args`)."""

    model_config = ConfigDict(extra="forbid")

    plan: str
    """Path of the plan's YAML file, or `bundled:NAME`."""
    may_grow: bool = False
    """Whether the cluster gets machines as they are asked for: then a plan without room today is not refused."""

    version: str = ""
    """Any text. `serve deploy` looks at the arguments only: change it when the plan's file has changed."""


def build(args: AppArgs) -> Application:
    """Build the application of a plan file; what `serve.yaml` names as `import_path`.

    Raises:
        InvalidPlanError: unsound, or the new plan of a running service that has no room; Serve then keeps the old one.
    """
    plan = load_plan(plan_path(args.plan))
    if ray.is_initialized():
        check_change(plan, may_grow=args.may_grow)
    return application(plan)


def application(plan: Plan, engines: MakeEngines | None = None) -> Application:
    """Wire the routers and one deployment for each pool of the plan; on the connected Ray it is newer than what runs.

    Args:
        plan: what is served.
        engines: makes the engines of a pool; None: the real ones.
    """
    revision = next_revision()
    pools = {
        pool.name: serve.deployment(
            name=f"{ENGINE_PREFIX}{pool.name}",
            max_ongoing_requests=ENGINE_MAX_ONGOING,
            logging_config=QUIET,
            graceful_shutdown_timeout_s=GRACEFUL_SHUTDOWN_S,
            graceful_shutdown_wait_loop_s=GRACEFUL_LOOK_S,
            max_surge_percent=SURGE_PERCENT if pool.surge else 0,
            health_check_period_s=HEALTH_PERIOD_S,
            health_check_timeout_s=HEALTH_TIMEOUT_S,
            **pool_size(plan, pool),
            **pool_options(pool),
        )(EngineReplica).bind(plan, pool.name, engines or make_engines, revision)
        for pool in plan.pools
    }
    router = serve.deployment(
        name=ROUTER_NAME,
        max_ongoing_requests=plan.limits.max_waiting_frames + ROUTER_SPARE_CALLS,
        logging_config=QUIET,
        graceful_shutdown_timeout_s=GRACEFUL_SHUTDOWN_S,
        graceful_shutdown_wait_loop_s=GRACEFUL_LOOK_S,
        max_surge_percent=SURGE_PERCENT,
        **router_size(plan),
        **router_options(),
    )(Router)
    table = load_table(Path(plan.latency), machine=machine_of(plan)) if plan.latency else None
    log = FrameLog(Path(plan.frame_log)) if plan.frame_log else None
    return router.bind(
        plan, pools, log, table,
        open_peers=open_peers, open_metrics=RayMetrics, revision=revision, routers=own_deployment,
        spool=_spool(plan) if plan.has_durable else None,
    )  # fmt: skip


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
        graceful_shutdown_timeout_s=SPOOL_SHUTDOWN_S,
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
