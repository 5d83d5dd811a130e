"""Three nodes on this machine, a plan on fake engines, a client process that sends on, and things that kill.

Nothing here is about inference: an engine sleeps for as long as its table says, so two cores are enough for a cluster.
Processes are ended by their own id only, which Ray's actor table names.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import ray
from ray import serve
from ray._private import state as ray_state
from ray.cloudpickle import register_pickle_by_value, unregister_pickle_by_value
from ray.cluster_utils import Cluster
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from engines.device_facts import open_device
from engines.errors import EngineError
from engines.fake import FakeEngine
from serve_app.app import application
from serve_app.app_name import APP_NAME
from serve_app.client import Client
from serve_app.config import plan_from, prepare_ray_environment
from serve_app.errors import FramelaneError
from serve_app.pool_engines import PoolEngines
from serve_app.ray_session import deploy

CLIENT = Path(__file__).with_name("open_loop_client.py")
NUM_REPLICAS = 4
RUN_S = 0.08
# Of what the replicas can do together; see `streams`.
LOAD = 0.8
SIZE_HW = [240, 320]
# Retries are what is looked at, so these have time for one: a dead node is noticed after some seconds.
PATIENT_SLO_S = 12.0
QUICK_SLO_S = 0.25
NORMAL_SLO_S = 4.0
# Only a service that does not come back makes anybody wait so long.
GIVE_UP_S = 90.0
POLL_S = 0.1
# Critical latency is usual again when it is so for this long.
CALM_S = 3.0


def fake_engines(plan, pool):
    """Engines that sleep: so many seconds for a batch, whatever its size. A model named `broken` has none."""
    if "broken" in plan.models:
        raise EngineError("engine: got model 'broken', allowed is any other")
    engines = {
        bucket.name: FakeEngine(dict.fromkeys(bucket.warm_shapes(), RUN_S), time.sleep)
        for bucket in plan.buckets_of(pool)
    }
    return PoolEngines(engines, open_device(None), lambda: None)


SHARES = {("critical", PATIENT_SLO_S): 1 / 8, ("critical", QUICK_SLO_S): 1 / 8, ("normal", NORMAL_SLO_S): 3 / 4}
# All of these must be finished, however much the machine has to do beside.
PATIENT_SHARES = {("critical", PATIENT_SLO_S): 1 / 4, ("normal", 30.0): 3 / 4}
# Where starting processes takes the cores of those that serve, over and over.
LIGHT_SHARES = {("critical", PATIENT_SLO_S): 1 / 20, ("normal", 30.0): 1 / 5}


def streams(shares):
    """Cameras that together ask for `LOAD` of the replicas: four of each kind, which has this share of the frames."""
    total_hz = LOAD * NUM_REPLICAS / RUN_S
    return [
        {
            "camera": f"{priority}-{slo_s:g}-{number}", "priority": priority, "slo_s": slo_s, "size_hw": SIZE_HW,
            "hz": total_hz * share / 4,
        }
        for (priority, slo_s), share in shares.items()
        for number in range(4)
    ]  # fmt: skip


@dataclass
class Kill:
    """One kill and what was seen of it, in seconds."""

    what: str
    at_s: float
    victims: list[int]
    dead_routers: set[str] = field(default_factory=set)
    back_after_s: float | None = None
    notes: list[str] = field(default_factory=list)


class ChaosWorld:
    """The cluster with a service on it."""

    def __init__(self, folder, *, num_routers=1):
        self.folder = folder
        self.frame_log = folder / "chaos.jsonl"
        self.num_routers = num_routers
        self.cluster = None
        self.workers = []

    def start(self):
        """The head without any room for replicas, two nodes with fake GPUs, and the service on them."""
        register_pickle_by_value(sys.modules[__name__])  # workers know no test modules
        prepare_ray_environment()
        # `Cluster` starts without tokens. A client that finds one of its user would ask for them, and refuse what the
        # router sends; so say it to both.
        os.environ["RAY_AUTH_MODE"] = "disabled"
        self.cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 0, "include_dashboard": False}
        )
        for _ in range(2):
            self.add_node()
        ray.init(address=self.cluster.address, log_to_driver=False, logging_level="ERROR")
        deploy(application(self.plan(), fake_engines))

    def plan(self, model="fake", canvas=(256, 320), gpus=1):
        """A plan of one pool; another model or canvas is what an update brings."""
        return plan_from(
            {
                "models": {model: "/none.onnx"},
                "pools": {"gpu": {"replicas": NUM_REPLICAS, "gpus": gpus, "cpus": 0, "runtime": "onnxruntime"}},
                "buckets": {"small": {"canvases": [canvas], "batches": [1]}},
                "slo_s": {"critical": QUICK_SLO_S, "normal": NORMAL_SLO_S},
                "routers": self.num_routers,
                "frame_log": self.frame_log.name,
            },
            self.folder,
        )

    def stop(self):
        """End what was started here."""
        serve.shutdown()
        ray.shutdown()
        self.cluster.shutdown()
        del os.environ["RAY_AUTH_MODE"]
        unregister_pickle_by_value(sys.modules[__name__])

    def add_node(self):
        """One more machine: room for all replicas."""
        self.workers.append(self.cluster.add_node(num_cpus=2, num_gpus=NUM_REPLICAS))

    # Who is there.

    def actors(self, class_part):
        """The living actors whose class name holds this: id, pid and node of each."""
        return [
            {"id": actor["ActorID"], "pid": actor["Pid"], "node": actor["Address"]["NodeID"], "name": actor["Name"]}
            for actor in ray_state.actors().values()
            if actor["State"] == "ALIVE" and class_part in f"{actor['ActorClassName']} {actor['Name']}"
        ]

    def replicas(self):
        """The engine replicas."""
        return self.actors("#engine-gpu#")

    def routers(self):
        """The routers."""
        return self.actors("#router#")

    def controllers(self):
        """Serve's controller, which is one."""
        return self.actors("SERVE_CONTROLLER_ACTOR")

    # Kills.

    def kill_replica(self):
        """SIGKILL to one engine replica."""
        victim = self.replicas()[0]
        return self._kill("replica", [victim["pid"]], lambda: self._pool_is_whole(without={victim["id"]}))

    def kill_node(self):
        """SIGKILL to a node's raylet, then to its replicas; to one without router, where there is one."""
        of_routers = {router["node"] for router in self.routers()}
        node = min(self.workers, key=lambda worker: worker.node_id in of_routers)
        victims = [actor for actor in [*self.replicas(), *self.routers()] if actor["node"] == node.node_id]
        self.workers.remove(node)
        kill = Kill("node", time.monotonic(), [victim["pid"] for victim in victims], _short_ids(victims))
        self.cluster.remove_node(node, allow_graceful=False)
        for pid in kill.victims:
            _end(pid)
        kill.notes.append(f"{len(kill.victims)} of our actors were on it")
        self._until_back(kill, lambda: self._pool_is_whole(without={victim["id"] for victim in victims}))
        return kill

    def kill_router(self):
        """SIGKILL to one router."""
        routers = self.routers()
        victim = routers[0]
        is_back = lambda: self._routers_are_whole(len(routers), without=victim["id"])  # noqa: E731
        return self._kill("router", [victim["pid"]], is_back, _short_ids([victim]))

    def kill_controller(self):
        """SIGKILL to Serve's controller, which Ray starts again."""
        (victim,) = self.controllers()
        return self._kill("controller", [victim["pid"]], lambda: self._controller_is_back(victim["pid"]))

    def _kill(self, what, pids, is_back, dead_routers=()):
        kill = Kill(what, time.monotonic(), pids, set(dead_routers))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self._until_back(kill, is_back)
        return kill

    def _until_back(self, kill, is_back):
        while time.monotonic() < kill.at_s + GIVE_UP_S:
            if is_back():
                kill.back_after_s = time.monotonic() - kill.at_s
                return
            time.sleep(POLL_S)

    def _pool_is_whole(self, without):
        """Whether a router counts all replicas again, none of them one that was killed."""
        status = self.status()
        if status is None:
            return False
        (pool,) = status.pools
        dead = {actor_id[:8] for actor_id in without}
        names = [report.replica for report in pool.replicas]
        return len(names) == NUM_REPLICAS and not any(name.rpartition("-")[2] in dead for name in names)

    def _routers_are_whole(self, num_before, without):
        routers = [router["id"] for router in self.routers()]
        return len(routers) == num_before and without not in routers and self.status() is not None

    def _controller_is_back(self, old_pid):
        if [actor["pid"] for actor in self.controllers()] in ([], [old_pid]):
            return False
        try:
            return serve.status().applications[APP_NAME].status.value == "RUNNING"
        except (RayError, RayServeException):
            return False

    def status(self):
        """What a router says; None if none answers."""
        try:
            return Client.connect().status()
        except FramelaneError:
            return None

    # Load.

    def load(self, name, seconds, shares=None):
        """Start the client process; returns when it sends."""
        return Load(self.cluster.address, self.folder / f"{name}.jsonl", seconds, streams(shares or SHARES))

    def records(self):
        """Every line of the frame log so far."""
        if not self.frame_log.exists():
            return []
        return [json.loads(line) for line in self.frame_log.read_text().splitlines()]


class Load:
    """A client process that sends frames at set times."""

    def __init__(self, address, out, seconds, streams):
        asked = {"address": address, "seconds": seconds, "out": str(out), "streams": streams}
        self._out = out
        self._seconds = seconds
        with out.with_suffix(".err").open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(CLIENT), json.dumps(asked)], stdout=subprocess.PIPE, stderr=errors, text=True
            )
        line = self._process.stdout.readline()
        assert line == "sending\n", self._out.with_suffix(".err").read_text()
        self.began_s = time.monotonic()

    def until(self, second):
        """Return when so many seconds of the load have passed."""
        time.sleep(max(0.0, self.began_s + second - time.monotonic()))

    def now_s(self):
        """Now, on the clock of the notes."""
        return time.monotonic()

    def notes(self):
        """Every frame, when all have been answered or given up."""
        try:
            status = self._process.wait(self._seconds + 2 * GIVE_UP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        finally:
            self._process.stdout.close()
        assert status == 0, self._out.with_suffix(".err").read_text()
        return [json.loads(line) for line in self._out.read_text().splitlines()]


@dataclass
class Findings:
    """What became of the frames of one run.

    Attributes:
        outcomes: by kind of frame.
        without_outcome: frames that nobody answered, with what their callers saw.
        lost_critical: patient critical frames that did not finish, or after their deadline.
        answered_twice: ids that callers got more than once, or the log has, records of routers that were killed apart.
        served_twice: ids that a router had recorded when it was killed, before its callers heard of it.
        unlogged: ids that were answered but are not in the log.
        quick_missed: of the critical frames of 250 ms, those that did not finish in time, by kill (None: before any).
    """

    outcomes: Counter
    without_outcome: list
    lost_critical: list
    answered_twice: list
    served_twice: list
    unlogged: list
    quick_missed: Counter
    num_quick: int


def look(notes, records, kills):
    """The findings of a run."""
    answers = [(note, answer) for note in notes for answer in note["answers"]]
    ids = Counter(answer["frame_id"] for _, answer in answers if answer["frame_id"])
    dead = set().union(*(kill.dead_routers for kill in kills))
    by_dead = {record["frame_id"] for record in records if record["router"].rpartition("-")[2] in dead}
    by_living = Counter(r["frame_id"] for r in records if r["router"].rpartition("-")[2] not in dead)
    logged = by_dead | by_living.keys()
    critical = [(note, answer) for note, answer in answers if note["priority"] == "critical"]
    late = [
        (note, answer)
        for note, answer in critical
        if answer["outcome"] != "finished" or answer["latency_s"] > note["slo_s"]
    ]
    quick = [note for note in notes if note["priority"] == "critical" and note["slo_s"] == QUICK_SLO_S]
    return Findings(
        outcomes=Counter((kind(note), answer["outcome"]) for note, answer in answers),
        without_outcome=[
            *(note for note in notes if len(note["answers"]) != 1),
            *((note, answer["error"]) for note, answer in answers if answer["outcome"] == "none"),
        ],
        lost_critical=[(note, answer) for note, answer in late if note["slo_s"] == PATIENT_SLO_S],
        answered_twice=[name for name, count in (*ids.items(), *by_living.items()) if count > 1],
        served_twice=sorted(by_dead & by_living.keys()),
        unlogged=[name for name in ids if name not in logged],
        quick_missed=Counter(_kill_before(note, kills) for note, _ in late if note["slo_s"] == QUICK_SLO_S),
        num_quick=len(quick),
    )


def calm_after_s(notes, kill):
    """How long after a kill critical frames were as quick as before it again, for `CALM_S` at least; None: never."""
    critical = sorted((n["due_s"], a["latency_s"]) for n in notes if n["priority"] == "critical" for a in n["answers"])
    usual_s = [latency_s for due_s, latency_s in critical if kill.at_s - 5 < due_s < kill.at_s - 0.5]
    calm_from_s = kill.at_s
    for due_s, latency_s in critical:
        if due_s > calm_from_s + CALM_S:
            return calm_from_s - kill.at_s
        if due_s > kill.at_s - 0.5 and latency_s > 1.5 * max(usual_s):
            calm_from_s = max(due_s, kill.at_s)
    return None


def table(findings, kills, notes):
    """What a run showed, for people."""
    lines = [f"{'kill':<12}{'at s':>7}{'back after s':>14}{'critical calm after s':>24}  notes"]
    first_s = min(note["due_s"] for note in notes)
    for kill in kills:
        calm_s = calm_after_s(notes, kill)
        back = "never" if kill.back_after_s is None else f"{kill.back_after_s:.1f}"
        calm = "never" if calm_s is None else f"{calm_s:.1f}"
        missed = f"{findings.quick_missed[kill.what]} of the 250 ms kind missed"
        lines.append(
            f"{kill.what:<12}{kill.at_s - first_s:>7.1f}{back:>14}{calm:>24}  {'; '.join([missed, *kill.notes])}"
        )
    ended = ", ".join(f"{kind} {how} {count}" for (kind, how), count in sorted(findings.outcomes.items()))
    lines += [
        f"{len(notes)} frames: {ended}",
        (
            f"without outcome {len(findings.without_outcome)}, patient critical lost {len(findings.lost_critical)}, "
            f"answered twice {len(findings.answered_twice)}, served twice {len(findings.served_twice)}, of "
            f"{findings.num_quick} critical ones of 250 ms missed {findings.quick_missed.total()} "
            f"({findings.quick_missed[None]} before any kill)"
        ),
    ]
    return "\n".join(lines)


def kind(note):
    """Which kind of frame it is."""
    if note["priority"] == "normal":
        return "normal"
    return "quick" if note["slo_s"] == QUICK_SLO_S else "patient"


def _kill_before(note, kills):
    """The last kill before a frame's deadline."""
    before = [kill.what for kill in kills if kill.at_s < note["due_s"] + note["slo_s"]]
    return before[-1] if before else None


def _short_ids(actors):
    """As they end the names of replicas and routers."""
    return {actor["id"][:8] for actor in actors}


def _end(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
