"""What stands between Serve's controller and the scaler: reports of routers, contexts, options of deployments."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
from ray import cloudpickle
from ray.serve.config import AutoscalingConfig
from serve_samples import UHD, sample_frame, sample_plan, scheduler_of

from serve_app.autoscaling import Autoscaling
from serve_app.plan import Pool
from serve_app.serve_autoscaling import MEASURES, PoolReports, ServePolicy, grows, pool_size, router_size

# Serve means to replace the field by variables of its controller's environment, which no config file can set.
pytestmark = pytest.mark.filterwarnings("ignore:The `metrics_interval_s` field:DeprecationWarning")
RULES = Autoscaling(down_after_s=10.0)


def growing_plan(**changes):
    """Pool `near` grows from one to four, pool `far` keeps its two."""
    return sample_plan(pools=(Pool("near", 1, max_replicas=4), Pool("far", 2)), autoscaling=RULES, **changes)


def context(name, *, running=1, target=1, least=1, most=4, config=None, metrics=None):
    """Serve's context of one deployment."""
    return SimpleNamespace(
        deployment_id=("framelane", name), deployment_name=name, current_num_replicas=running,
        target_num_replicas=target, capacity_adjusted_min_replicas=least, capacity_adjusted_max_replicas=most,
        config=config or AutoscalingConfig(**pool_size(growing_plan(), growing_plan().pools[0])["autoscaling_config"]),
        raw_metrics=metrics,
    )  # fmt: skip


def points(**values):
    """The series that a router sent for pool `near`; of each only the last point counts."""
    told = dict.fromkeys(MEASURES, 0.0) | values
    return {f"near.{name}": [SimpleNamespace(value=99.0), SimpleNamespace(value=value)] for name, value in told.items()}


def routers(*reports):
    """The context of a router deployment with so many replicas, and what each has reported."""
    metrics = {}
    for number, report in enumerate(reports):
        for key, series in report.items():
            metrics.setdefault(key, {})[f"router-{number}"] = series
    return context("router", metrics=metrics)


class Controller:
    """Calls a policy every half second with what it has decided before, as Serve's controller does."""

    def __init__(self, policy=None):
        self.now_s = 100.0
        self.policy = policy or ServePolicy(lambda: self.now_s)
        self.target = 1

    def runs(self, seconds, *reports, **pool):
        """So long with these reports; the pool's size then."""
        for _ in range(round(seconds / 0.5)):
            told = [routers(*reports), context("engine-near", running=self.target, target=self.target, **pool)]
            decisions, state = self.policy({each.deployment_id: each for each in told})
            assert state == {}
            assert decisions.keys() <= {("framelane", "engine-near")}
            self.target = decisions.get(("framelane", "engine-near"), self.target)
            self.now_s += 0.5
        return self.target


def test_the_routers_reports_add_up():
    """Two routers with 1.4 device seconds a second each make four replicas."""
    half = points(demand_quick=1.4, demand_steady=1.4)
    controller = Controller()

    assert controller.runs(5, half) == 2
    assert controller.runs(5, half, half) == 4


def test_a_pool_that_no_router_has_reported_keeps_its_size():
    """At the begin, and while the last router is dead."""
    controller = Controller()
    assert controller.runs(5, points(demand_quick=2.8, demand_steady=2.8)) == 4

    assert controller.runs(60) == 4
    assert controller.runs(60, {"other.waiting_s": []}) == 4


def test_a_router_that_starts_anew_takes_nothing_away_within_the_calm():
    """Its means begin at zero and climb."""
    controller = Controller()
    assert controller.runs(30, points(demand_quick=2.8, demand_steady=2.8)) == 4

    assert controller.runs(5, points()) == 4
    assert controller.runs(60, points(demand_quick=2.8, demand_steady=2.8)) == 4


def test_serves_own_bounds_hold():
    """They are the plan's, or fewer where the operator has set a target capacity."""
    controller = Controller()

    assert controller.runs(5, points(demand_quick=2.8, demand_steady=2.8), most=2) == 2
    assert controller.runs(60, points(), least=2) == 2


def test_a_pool_without_our_rules_is_left_to_serve():
    """Somebody has given a deployment an autoscaling of their own in the config file."""
    controller = Controller()

    assert controller.runs(5, points(demand_quick=2.8, demand_steady=2.8), config=AutoscalingConfig()) == 1


def test_a_policy_of_new_rules_begins_anew():
    """Another plan: another calm."""
    controller = Controller()
    assert controller.runs(5, points(demand_quick=2.8, demand_steady=2.8)) == 4
    plan = dataclasses.replace(growing_plan(), autoscaling=Autoscaling(down_after_s=1.0))
    config = AutoscalingConfig(**pool_size(plan, plan.pools[0])["autoscaling_config"])

    assert controller.runs(3, points(), config=config) == 1


def test_the_policy_is_copied_into_the_controller_as_serve_copies_it():
    """By value, with its module: an instance made there decides."""
    import serve_app.serve_autoscaling as module

    cloudpickle.register_pickle_by_value(module)
    try:
        copied = cloudpickle.loads(cloudpickle.dumps(ServePolicy))
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    controller = Controller(copied())

    assert controller.runs(1, points(waiting_s=0.1)) == 1


def test_a_router_reports_each_pool_by_measure():
    """Device seconds that come and are served a second, those that wait, and those of deferred frames."""
    reports = PoolReports()
    scheduler = scheduler_of(far=1)
    assert set(reports.values(scheduler.loads(), 0.0).values()) == {0.0}
    for number in range(3):
        scheduler.arrived(sample_frame(str(number), size_hw=UHD))
    scheduler.decide(0.0)

    values = reports.values(scheduler.loads(), 3.0)

    piece_s = 0.083
    assert values.keys() == {f"{pool}.{name}" for pool in ("near", "far") for name in MEASURES}
    assert values["far.demand_quick"] == pytest.approx(3 * piece_s / 3)
    assert values["far.served_quick"] == pytest.approx(1 * piece_s / 3)
    assert (values["far.waiting_s"], values["far.deferred_s"]) == (pytest.approx(0), pytest.approx(2 * piece_s))
    assert values["near.demand_quick"] == 0.0


def test_serve_takes_the_options_and_adds_no_delay_of_its_own():
    """The plan's rules travel with the pool; the routers are seen, and stay as many."""
    plan = growing_plan(num_routers=2)

    pool = AutoscalingConfig(**pool_size(plan, plan.pools[0])["autoscaling_config"])
    router = AutoscalingConfig(**router_size(plan)["autoscaling_config"])

    assert (pool.min_replicas, pool.initial_replicas, pool.max_replicas) == (1, 1, 4)
    assert (router.min_replicas, router.max_replicas) == (2, 2)
    assert (pool.upscale_delay_s, pool.downscale_delay_s, pool.downscale_to_zero_delay_s) == (0, 0, 0)
    assert pool.policy.is_default_policy_function()
    assert pool.policy.policy_kwargs == dataclasses.asdict(RULES) | {"max_defer_s": plan.scheduling.max_defer_s}
    assert router.policy.policy_kwargs == {}


def test_a_plan_without_pools_that_grow_has_fixed_numbers():
    """As before there was autoscaling."""
    plan = sample_plan(num_routers=3)

    assert (grows(plan), grows(growing_plan())) == (False, True)
    assert [pool_size(plan, pool) for pool in plan.pools] == [{"num_replicas": 1}] * 2
    assert router_size(plan) == {"num_replicas": 3}
    assert pool_size(growing_plan(), growing_plan().pools[1]) == {"num_replicas": 2}
