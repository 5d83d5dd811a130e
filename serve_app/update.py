"""A new plan for the application that serves: new engines are warm before old ones go, or the old plan stays."""

from __future__ import annotations

import time
from collections.abc import Callable

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatus

from serve_app import serve_config
from serve_app.app import application
from serve_app.app_name import APP_NAME
from serve_app.errors import InvalidPlanError, ServiceUnavailableError
from serve_app.plan import Plan
from serve_app.pool_engines import MakeEngines
from serve_app.ray_session import deployment_message, router_handle
from serve_app.revision import running_revision

# As long as a first start may take: engines may have to be built.
UPDATE_TIMEOUT_S = 1800.0
# Going back is putting what still serves in its right again; the engines are in their caches.
ROLLBACK_TIMEOUT_S = 600.0
POLL_S = 0.5
ANSWER_TIMEOUT_S = 30.0


def update(
    plan: Plan,
    tell: Callable[[str], None],
    make_engines: MakeEngines | None = None,
    timeout_s: float = UPDATE_TIMEOUT_S,
) -> None:
    """Replace the plan of the application that serves on the connected Ray, while it serves.

    Args:
        plan: the new one.
        tell: gets what Serve says meanwhile, in a line.
        make_engines: makes the engines of the new replicas; None: real ones.
        timeout_s: after so long the old plan is put in its place again.

    Raises:
        InvalidPlanError: there is no room to start the new replicas beside the old ones; nothing was changed.
        ServiceUnavailableError: nothing serves, or the new plan did not start: then the old one serves on.
    """
    old_plan = _running_plan()
    check_room_beside(plan)
    before = running_revision()
    _start(plan, make_engines)
    failed = _failure(before, tell, timeout_s)
    if failed is None:
        return
    tell("going back to the old plan")
    before = running_revision()
    _start(old_plan, make_engines)
    again = _failure(before, tell, ROLLBACK_TIMEOUT_S)
    state = "the old plan serves on" if again is None else f"the old plan did not come back whole either: {again}"
    raise ServiceUnavailableError(f"update: the new plan did not start: {failed}; {state}")


def check_room_beside(plan: Plan) -> None:
    """Raise `InvalidPlanError` unless one new replica of each pool has room beside all that runs now.

    Without it Serve would wait for ever. More room than that makes an update quicker, and less of a strain.
    """
    free = ray.available_resources()  # type: ignore[no-untyped-call]
    pools = [pool for pool in plan.pools if pool.surge and pool.num_replicas]
    asked = {"CPU": sum(pool.num_cpus for pool in pools), "GPU": sum(pool.num_gpus for pool in pools)}
    for resource, amount in asked.items():
        if amount > free.get(resource, 0.0):
            names = ", ".join(pool.name for pool in pools)
            raise InvalidPlanError(
                f"pools: got {amount:g} {resource}s for one new replica of each pool ({names}) beside the old ones, "
                f"{free.get(resource, 0.0):g} are free; add a machine, let a replica ask for less, or set surge: "
                "false for pools whose old replicas may stop before the new ones start"
            )


def _running_plan() -> Plan:
    try:
        plan: Plan = router_handle().plan.remote().result(timeout_s=ANSWER_TIMEOUT_S)
    except (RayServeException, RayError, TimeoutError) as err:
        raise ServiceUnavailableError(
            f"update: no application {APP_NAME!r} answers ({type(err).__name__}); start one with: framelane up"
        ) from err
    return plan


def _start(plan: Plan, make_engines: MakeEngines | None) -> None:
    serve_config.submit(application(plan, make_engines))


def _failure(before: int, tell: Callable[[str], None], timeout_s: float) -> str | None:
    """Wait until a newer revision than this serves alone; why it does not, or None."""
    give_up_s = time.monotonic() + timeout_s
    told = ""
    while time.monotonic() < give_up_s:
        state = serve.status().applications.get(APP_NAME)
        if state is None:
            return "the application was deleted meanwhile"
        if state.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.DELETING):
            return deployment_message() or state.message
        if state.status is ApplicationStatus.RUNNING and running_revision() > before:
            return None
        news = deployment_message()
        if news and news != told:
            tell(news)
            told = news
        time.sleep(POLL_S)
    return f"it was not warm within {timeout_s:.0f} s ({deployment_message() or 'Serve says nothing'})"
