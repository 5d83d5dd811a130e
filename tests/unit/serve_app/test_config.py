"""Reading the plan's YAML file, bundled models, and where a service keeps its state."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import pytest

from engines.boxes import DetectionLimits
from engines.engine_spec import Precision
from engines.spec import CanvasShape
from serve_app import config
from serve_app.autoscaling import Autoscaling
from serve_app.config import load_plan, model_path, plan_from, plan_path, prepare_ray_environment, state_folder
from serve_app.errors import InvalidPlanError
from serve_app.frames import Priority
from serve_app.memory_level import MemoryMarks
from serve_app.plan import (
    Bucket,
    CameraRule,
    EngineBuilding,
    Keep,
    Limits,
    LogLevel,
    Oversize,
    Plan,
    Pool,
    Rung,
    Runtime,
    Scheduling,
)
from serve_app.spool_rules import SpoolRules

FULL_EXAMPLE = """
models:
  full: models/full.onnx
  light: bundled:inspection-light
pools:
  gpu: {replicas: 2, cpus: 0.5, gpus: 1, threads: 4}
  cpu: {}
buckets:
  vga:
    model: light
    pool: cpu
    canvases: [[480, 640], [640, 480]]
    batches: [1, 2, 4]
  hd:
    canvases: [[736, 1280]]
cameras:
  gate-*: {model: light, keep: latest}
  belt-*: {oversize: tile, degrade: false}
  roof: {oversize: reject}
  "*": {}
ladder:
  - {max_canvas: [480, 640], model: light}
  - {max_canvas: [736, 1280]}
  - {model: light}
scheduling: {max_chunk_s: 0.05, defer_above_px: 900_000, max_defer_s: 4, max_starve_s: 0.5}
slo_s: {critical: 0.2, normal: 3}
limits: {max_waiting_frames: 7, max_waiting_bytes: 1_000_000, max_frame_px: 5000, max_tickets: 11, ticket_ttl_s: 2.5}
detection: {min_score: 0.1, max_iou: 0.5, max_boxes: 20}
engines: {precision: as_is, workspace_mib: 3, cache: built, frames: /gate}
frame_log: logs/frames.jsonl
latency: latency/this-machine.json
log_level: warning
"""

TOP_KEYS = (
    "models", "pools", "buckets", "cameras", "ladder", "scheduling", "slo_s", "limits", "detection", "engines",
    "routers", "autoscaling", "memory", "spool", "http", "frame_log", "latency",
    "log_level",
)  # fmt: skip

SMALL_EXAMPLE = """
models: {full: full.onnx}
buckets:
  vga: {canvases: [[480, 640]]}
"""


@pytest.fixture
def plan_file(tmp_path):
    """Writes a plan file and returns its path."""

    def write(content: str | bytes) -> Path:
        path = tmp_path / "plan.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def refusal(path: Path) -> str:
    """What is said of a wrong plan, without the path that every message begins with."""
    with pytest.raises(InvalidPlanError) as caught:
        load_plan(path)
    prefix = f"plan {path}: "
    assert str(caught.value).startswith(prefix)
    return str(caught.value).removeprefix(prefix)


def test_a_full_plan_is_read_whole(plan_file, tmp_path):
    """Every key of the file reaches the plan; paths are relative to the file's folder, order is kept."""
    assert load_plan(plan_file(FULL_EXAMPLE)) == Plan(
        models={"full": str(tmp_path / "models/full.onnx"), "light": "bundled:inspection-light"},
        pools=(Pool("gpu", 2, 0.5, 1.0, 4, Runtime.TENSORRT), Pool("cpu", 1, 1.0, 0.0, 0, Runtime.ONNX)),
        buckets=(
            Bucket("vga", "light", "cpu", (CanvasShape(480, 640), CanvasShape(640, 480)), (1, 2, 4)),
            Bucket("hd", "full", "gpu", (CanvasShape(736, 1280),), (1,)),
        ),
        cameras=(
            CameraRule("gate-*", "light", Keep.LATEST, Oversize.SHRINK, degrade=True),
            CameraRule("belt-*", None, Keep.ALL, Oversize.TILE, degrade=False),
            CameraRule("roof", None, Keep.ALL, Oversize.REJECT, degrade=True),
            CameraRule("*", None),
        ),
        ladder=(Rung("light", CanvasShape(480, 640)), Rung("full", CanvasShape(736, 1280)), Rung("light", None)),
        scheduling=Scheduling(max_chunk_s=0.05, defer_above_px=900_000, max_defer_s=4.0, max_starve_s=0.5),
        slo_s={Priority.CRITICAL: 0.2, Priority.NORMAL: 3.0},
        limits=Limits(7, 1_000_000, 5000, 11, 2.5),
        detection=DetectionLimits(min_score=0.1, max_iou=0.5, max_boxes=20),
        engines=EngineBuilding(Precision.AS_IS, 3 * 2**20, str(tmp_path / "built"), "/gate"),
        frame_log=str(tmp_path / "logs/frames.jsonl"),
        latency=str(tmp_path / "latency/this-machine.json"),
        log_level=LogLevel.WARNING,
    )


def test_a_small_plan_has_the_defaults_of_the_plan_itself(plan_file, tmp_path):
    """One model and one bucket suffice; what is left out is what `Plan` says, with one pool named cpu."""
    assert load_plan(plan_file(SMALL_EXAMPLE)) == Plan(
        models={"full": str(tmp_path / "full.onnx")},
        pools=(Pool("cpu"),),
        buckets=(Bucket("vga", "full", "cpu", (CanvasShape(480, 640),), (1,)),),
    )


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        ("bucket: {}", "bucket: unknown key; did you mean 'buckets'?"),
        ("slo: {critical: 1}", "slo: unknown key; did you mean 'slo_s'?"),
        ("pools: {cpu: {replica: 2}}", "pools.cpu.replica: unknown key; did you mean 'replicas'?"),
        ("pools: {cpu: {num_threads: 2}}", "pools.cpu.num_threads: unknown key; did you mean 'threads'?"),
        (
            "buckets: {vga: {canvases: [[32, 32]], batch: [1]}}",
            "buckets.vga.batch: unknown key; did you mean 'batches'?",
        ),
        ("cameras: {gate-*: {modell: full}}", "cameras.gate-*.modell: unknown key; did you mean 'model'?"),
        ("cameras: {gate-*: {keeps: all}}", "cameras.gate-*.keeps: unknown key; did you mean 'keep'?"),
        ("cameras: {gate-*: {oversized: tile}}", "cameras.gate-*.oversized: unknown key; did you mean 'oversize'?"),
        ("ladder: [{models: full}]", "ladder.0.models: unknown key; did you mean 'model'?"),
        ("ladder: [{}, {max_canvass: [32, 32]}]", "ladder.1.max_canvass: unknown key; did you mean 'max_canvas'?"),
        ("scheduling: {max_chunk_ms: 50}", "scheduling.max_chunk_ms: unknown key; did you mean 'max_chunk_s'?"),
        (
            "scheduling: {zzz: 1}",
            "scheduling.zzz: unknown key; allowed are max_chunk_s, defer_above_px, max_defer_s, max_starve_s",
        ),
        ("schedulling: {}", "schedulling: unknown key; did you mean 'scheduling'?"),
        ("latencies: a.json", "latencies: unknown key; did you mean 'latency'?"),
        ("limits: {max_ticket: 1}", "limits.max_ticket: unknown key; did you mean 'max_tickets'?"),
        ("slo_s: {criticl: 1}", "slo_s.criticl: unknown key; did you mean 'critical'?"),
        ("limits: {max_frames_px: 1}", "limits.max_frames_px: unknown key; did you mean 'max_frame_px'?"),
        ("detection: {min_scor: 1}", "detection.min_scor: unknown key; did you mean 'min_score'?"),
        ("detection: {zzz: 1}", "detection.zzz: unknown key; allowed are min_score, max_iou, max_boxes"),
        (
            "qqqqqq: 1",
            f"qqqqqq: unknown key; allowed are {', '.join(TOP_KEYS)}",
        ),
    ],
    ids=lambda value: value.partition(":")[0],
)
def test_a_misspelt_key_is_named_with_the_nearest_right_one(plan_file, added, expected):
    """At every level; where nothing is near, all that are allowed are named."""
    key = added.partition(":")[0]
    kept = {"buckets": "models: {full: full.onnx}\n"}.get(key, SMALL_EXAMPLE)

    assert refusal(plan_file(f"{kept}\n{added}\n")) == expected


def test_all_problems_are_named_at_once(plan_file):
    """Nobody should have to mend a plan one message at a time."""
    content = "models: {full: full.onnx}\nbuckets: {vga: {canvas: [[32, 32]]}}\nslo_s: {normal: -1}\n"

    assert refusal(plan_file(content)) == (
        "buckets.vga.canvases: is missing; "
        "buckets.vga.canvas: unknown key; did you mean 'canvases'?; "
        "slo_s.normal: got -1, input should be greater than 0"
    )


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        (
            "engines: {workspace_mib: 99999999999999}",
            "engines.workspace_mib: got 99999999999999, input should be less than or equal to 1048576",
        ),
        ("pools: {cpu: {replicas: two}}", "pools.cpu.replicas: got 'two', input should be a valid integer"),
        ("pools: {cpu: {replicas: -1}}", "pools.cpu.replicas: got -1, input should be greater than or equal to 0"),
        ("pools: {cpu: {replicas: 1.5}}", "pools.cpu.replicas: got 1.5, input should be a valid integer"),
        ("pools: {cpu: {gpus: -1}}", "pools.cpu.gpus: got -1, input should be greater than or equal to 0"),
        ("pools: {cpu: {cpus: .inf}}", "pools.cpu.cpus: got inf, input should be a finite number"),
        ("pools: {cpu: {gpus: .nan}}", "pools.cpu.gpus: got nan, input should be a finite number"),
        ("pools: {cpu: {replicas: true}}", "pools.cpu.replicas: got True, input should be a number"),
        ("pools: {cpu: {threads: no}}", "pools.cpu.threads: got False, input should be a number"),
        ("pools: {cpu: {gpus: yes}}", "pools.cpu.gpus: got True, input should be a number"),
        ("slo_s: {normal: on}", "slo_s.normal: got True, input should be a number"),
        ("detection: {min_score: off}", "detection.min_score: got False, input should be a number"),
        ("detection: {max_iou: .nan}", "detection.max_iou: got nan, input should be"),
        ("pools: {cpu: 2}", "pools.cpu: got 2, input should be a valid dictionary"),
        ("pools:", "pools: got None, input should be a valid dictionary"),
        ("pools: [cpu]", "pools: got ['cpu'], input should be a valid dictionary"),
        ("pools: {}", "pools: got none, a plan needs at least one"),
        ("pools: {my pool: {}}", "pools.my pool: got 'my pool', string should match pattern"),
        ("pools: {7: {}}", "pools.7: got 7, input should be a valid string"),
        ("cameras: {gate-1: full}", "cameras.gate-1: got 'full', input should be a valid dictionary"),
        (
            "cameras: {gate-1: {keep: newest}}",
            "cameras.gate-1.keep: got 'newest', input should be 'all' or 'latest'",
        ),
        ("cameras: {gate-1: {keep: }}", "cameras.gate-1.keep: got None, input should be 'all' or 'latest'"),
        (
            "cameras: {gate-1: {oversize: cut}}",
            "cameras.gate-1.oversize: got 'cut', input should be 'shrink', 'tile' or 'reject'",
        ),
        (
            "cameras: {gate-1: {oversize: no}}",
            "cameras.gate-1.oversize: got False, input should be 'shrink', 'tile' or 'reject'",
        ),
        (
            "cameras: {gate-1: {degrade: never}}",
            "cameras.gate-1.degrade: got 'never', input should be a valid boolean",
        ),
        ("ladder: {model: full}", "ladder: got {'model': 'full'}, input should be a valid list"),
        ("ladder: [full]", "ladder.0: got 'full', input should be a valid dictionary"),
        ("ladder: [{model: 3}]", "ladder.0.model: got 3, input should be a valid string"),
        (
            "ladder: [{model: medium}]",
            "ladder[0].model: got 'medium', allowed are the names in the plan: full",
        ),
        (
            "ladder: [{}, {max_canvas: [320, 320]}]",
            "ladder[1].max_canvas: got 320x320, allowed is one with at least 307200 px, the smallest canvas of model",
        ),
        ("ladder: [{max_canvas: 480}]", "ladder.0.max_canvas: got 480, input should be a valid tuple"),
        ("ladder: [{max_canvas: [480]}]", "ladder.0.max_canvas.1: is missing"),
        ("ladder: [{max_canvas: [0, 640]}]", "ladder.0.max_canvas.0: got 0, input should be greater than"),
        ("ladder: [{max_canvas: [480, on]}]", "ladder.0.max_canvas.1: got True, input should be a number"),
        ("scheduling: 0.1", "scheduling: got 0.1, input should be a valid dictionary"),
        ("scheduling: {max_chunk_s: 0}", "scheduling.max_chunk_s: got 0, input should be greater than 0"),
        ("scheduling: {max_chunk_s: 50 ms}", "scheduling.max_chunk_s: got '50 ms', input should be a valid number"),
        ("scheduling: {max_chunk_s: on}", "scheduling.max_chunk_s: got True, input should be a number"),
        ("scheduling: {defer_above_px: 0}", "scheduling.defer_above_px: got 0, input should be greater than or equal"),
        ("scheduling: {defer_above_px: 1.5}", "scheduling.defer_above_px: got 1.5, input should be a valid integer"),
        ("scheduling: {max_defer_s: -1}", "scheduling.max_defer_s: got -1, input should be greater than 0"),
        ("scheduling: {max_defer_s: .inf}", "scheduling.max_defer_s: got inf, input should be a finite number"),
        ("scheduling: {max_starve_s: 0}", "scheduling.max_starve_s: got 0, input should be greater than 0"),
        ("scheduling: {max_starve_s: 1e9}", "scheduling.max_starve_s: got '1e9', input should be less than"),
        ("latency: 3", "latency: got 3, input should be a valid string"),
        ("limits: {max_tickets: 0}", "limits.max_tickets: got 0, input should be greater than or equal to 1"),
        ("limits: {ticket_ttl_s: 0}", "limits.ticket_ttl_s: got 0, input should be greater than 0"),
        ("slo_s: {normal: 0}", "slo_s.normal: got 0, input should be greater than 0"),
        ("slo_s: {normal: 86401}", "slo_s.normal: got 86401, input should be less than or equal to 86400"),
        ("slo_s: {critical: 0}", "slo_s.critical: got 0, input should be greater than 0"),
        ("slo_s: {critical: .inf}", "slo_s.critical: got inf, input should be a finite number"),
        ("slo_s: {critical: soon}", "slo_s.critical: got 'soon', input should be a valid number"),
        ("slo_s: 3", "slo_s: got 3, input should be a valid dictionary"),
        ("limits: {max_waiting_bytes: 2 GB}", "limits.max_waiting_bytes: got '2 GB', input should be a valid integer"),
        ("limits: {max_waiting_frames: -5}", "limits.max_waiting_frames: got -5, input should be greater than"),
        ("detection: {min_score: 25}", "detection.min_score: got 25, input should be less than or equal to 1"),
        ("detection: {max_boxes: 0}", "detection.max_boxes: got 0, input should be greater than or equal to 1"),
        ("log_level: loud", "log_level: got 'loud', input should be 'debug', 'info', 'warning' or 'error'"),
        ("frame_log: [a]", "frame_log: got ['a'], input should be a valid string"),
        ("models: {full: 3}", "models.full: got 3, input should be a valid string"),
        ("models: {}", "models: got {}, dictionary should have at least 1 item"),
        ("buckets: {}", "buckets: got {}, dictionary should have at least 1 item"),
        ("buckets: {vga: {}}", "buckets.vga.canvases: is missing"),
        ("buckets: {vga: {canvases: []}}", "buckets.vga.canvases: got [], list should have at least 1 item"),
        ("buckets: {vga: {canvases: 480x640}}", "buckets.vga.canvases: got '480x640', input should be a valid list"),
        ("buckets: {vga: {canvases: [480, 640]}}", "buckets.vga.canvases.0: got 480, input should be a valid tuple"),
        ("buckets: {vga: {canvases: [[480, 640, 3]]}}", "buckets.vga.canvases.0: got [480, 640, 3], tuple should have"),
        ("buckets: {vga: {canvases: [[480]]}}", "buckets.vga.canvases.0.1: is missing"),
        ("buckets: {vga: {canvases: [[0, 640]]}}", "buckets.vga.canvases.0.0: got 0, input should be greater than"),
        (
            "buckets: {vga: {canvases: [[32, 32]], batches: 4}}",
            "buckets.vga.batches: got 4, input should be a valid list",
        ),
        (
            "buckets: {vga: {canvases: [[32, 32]], batches: []}}",
            "buckets.vga.batches: got [], list should have at least",
        ),
    ],
    ids=lambda value: value.partition(", input")[0],
)
def test_a_wrong_value_is_named_with_what_was_got(plan_file, added, expected):
    """Wrong types, negative numbers and empty parts, each at its place."""
    key = added.partition(":")[0]
    parts = {"models": "models: {full: full.onnx}", "buckets": "buckets: {vga: {canvases: [[480, 640]]}}", key: added}

    assert refusal(plan_file("\n".join(parts.values()))).startswith(expected)


def test_the_model_of_a_camera_rule_is_one_of_the_plan(plan_file):
    """What the plan itself refuses is reported with the file's name too."""
    content = f"{SMALL_EXAMPLE}\ncameras: {{gate-*: {{model: light, keep: latest}}}}\n"
    assert refusal(plan_file(content)) == ("cameras.gate-*.model: got 'light', allowed are the names in the plan: full")


def test_a_rung_without_a_model_is_the_first_models(plan_file):
    """As a bucket without one."""
    content = """
models: {light: light.onnx, full: full.onnx}
buckets:
  small: {canvases: [[480, 640], [736, 1280]]}
  large: {model: full, canvases: [[736, 1280]]}
ladder: [{model: full}, {max_canvas: [640, 480]}]
"""
    assert load_plan(plan_file(content)).ladder == (Rung("full", None), Rung("light", CanvasShape(640, 480)))


@pytest.mark.parametrize("added", ["ladder: []", "scheduling: {}", "cameras: {}", "scheduling: {max_chunk_s: }"])
def test_an_empty_part_is_as_good_as_none(plan_file, added):
    """It says what is the default anyway."""
    assert load_plan(plan_file(f"{SMALL_EXAMPLE}\n{added}\n")) == load_plan(plan_file(SMALL_EXAMPLE))


def test_a_chunk_is_a_part_of_the_critical_deadline_unless_the_plan_says_how_long(plan_file):
    """A critical frame may have to wait for one."""
    said = load_plan(plan_file(f"{SMALL_EXAMPLE}\nslo_s: {{critical: 0.5}}\nscheduling: {{max_chunk_s: 0.3}}\n"))
    unsaid = load_plan(plan_file(f"{SMALL_EXAMPLE}\nslo_s: {{critical: 0.5}}\n"))
    assert (said.max_chunk_s, unsaid.max_chunk_s) == (0.3, pytest.approx(0.2))


def test_whole_numbers_are_fractions_too(plan_file):
    """`gpus: 1` and `normal: 3` need no decimal point."""
    plan = load_plan(plan_file(f"{SMALL_EXAMPLE}\npools: {{cpu: {{cpus: 2, gpus: 1}}}}\nslo_s: {{normal: 3}}\n"))

    assert (plan.pools, plan.slo_s[Priority.NORMAL]) == ((Pool("cpu", 1, 2.0, 1.0, 0, Runtime.TENSORRT),), 3.0)


@pytest.mark.parametrize("batches", ["[2, 1]", "[1, 4, 2]", "[2]", "[1, 1]"])
def test_batches_ascend_from_one(plan_file, batches):
    """What the plan itself refuses is reported with the file's name too."""
    content = f"models: {{full: f.onnx}}\nbuckets: {{vga: {{canvases: [[32, 32]], batches: {batches}}}}}"

    assert refusal(plan_file(content)) == (
        f"buckets.vga.batches: got {batches}, allowed are ascending sizes that begin with 1: [1, 2, 4]"
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "got NoneType, allowed is a mapping; see docs/plan.md"),
        ("# nothing but a comment\n", "got NoneType, allowed is a mapping; see docs/plan.md"),
        ("- models\n- buckets\n", "got list, allowed is a mapping; see docs/plan.md"),
        ("just words", "got str, allowed is a mapping; see docs/plan.md"),
        ("{}", "models: is missing; buckets: is missing"),
    ],
    ids=["empty", "comment", "list", "words", "empty mapping"],
)
def test_what_is_no_mapping_is_no_plan(plan_file, content, expected):
    """Empty files and other shapes of YAML."""
    assert refusal(plan_file(content)) == expected


@pytest.mark.parametrize(
    "content",
    [
        "models: [full",
        "models: {full: f.onnx}\n\tbuckets: {}\n",
        "{[a]: b}",
        "frame_log: 2026-13-45",
        b"\x89PNG\r\n\x1a\n\x00\x00",
        b"\xff\xfe\x00m",
        b"models: \x00",
        "models: !!python/object/apply:os.system [echo]",
        "models: {full: a.onnx}\nmodels: {full: b.onnx}\n",
        f"{SMALL_EXAMPLE}  vga: {{canvases: [[32, 32]]}}\n",
    ],
    ids=["open list", "tab", "odd key", "no date", "picture", "utf-16", "nul", "code", "same key", "same bucket"],
)
def test_what_is_no_yaml_is_refused_with_the_parsers_words(plan_file, content):
    """No content of a file leads to any other error, and a key that stands there twice is not half of a plan."""
    assert refusal(plan_file(content)).startswith("is no YAML (")


def test_a_key_that_is_no_text_is_refused(plan_file):
    """YAML reads `on` and `7` as other types."""
    assert refusal(plan_file(f"{SMALL_EXAMPLE}\n7: 1\n")) == "7: got 7, keys should be strings"


def test_a_repeated_key_is_named_with_its_line(plan_file):
    """Of two buckets of one name none is dropped in silence."""
    path = plan_file(f"{SMALL_EXAMPLE}  vga: {{canvases: [[32, 32]]}}\n")

    assert refusal(path) == (
        "is no YAML (key 'vga' stands there twice in \"<unicode string>\", line 5, column 3: "
        "vga: {canvases: [[32, 32]]} ^)"
    )


def test_a_merged_mapping_may_be_overridden(plan_file):
    """YAML's `<<` is how parts are shared; what stands beside it goes before."""
    content = """
models: {full: f.onnx}
buckets:
  vga: &shared {canvases: [[480, 640]], batches: [1, 2]}
  hd: {<<: *shared, canvases: [[736, 1280]]}
"""

    assert load_plan(plan_file(content)).buckets == (
        Bucket("vga", "full", "cpu", (CanvasShape(480, 640),), (1, 2)),
        Bucket("hd", "full", "cpu", (CanvasShape(736, 1280),), (1, 2)),
    )


def test_a_plan_that_is_not_there_is_named(tmp_path):
    """A slip in the path is the operator's most common one."""
    assert refusal(tmp_path / "nowhere.yaml") == "no such file or directory; give the path of a plan YAML"
    assert refusal(tmp_path) == "is a directory; give the path of a plan YAML"


def test_paths_start_at_the_plans_folder_and_know_home(tmp_path, monkeypatch):
    """Absolute ones stay, `~` is the user's, `bundled:` is no path; the frame log's is read like a model's."""
    monkeypatch.setenv("HOME", "/home/someone")
    buckets = {name: {"model": name, "canvases": [[32, 32]]} for name in "abcd"}
    models = {"a": "../a.onnx", "b": "/abs/b.onnx", "c": "~/c.onnx", "d": "bundled:d"}
    plan = plan_from(
        {"models": models, "buckets": buckets, "frame_log": "~/frames.jsonl", "latency": "../l.json"},
        tmp_path / "plans",
    )

    assert plan.models == {
        "a": str(tmp_path / "a.onnx"),
        "b": "/abs/b.onnx",
        "c": "/home/someone/c.onnx",
        "d": "bundled:d",
    }
    assert (plan.frame_log, plan.latency) == ("/home/someone/frames.jsonl", str(tmp_path / "l.json"))


@pytest.fixture
def bundled_models(tmp_path, monkeypatch):
    """A package that brings two models along."""
    folder = tmp_path / "package" / "models"
    folder.mkdir(parents=True)
    for name in ("inspection-light.onnx", "inspection-full.onnx", "notes.md"):
        (folder / name).write_bytes(b"")
    monkeypatch.setattr(config, "resources", SimpleNamespace(files={"framelane_inspection": folder.parent}.__getitem__))
    return folder


def test_a_bundled_model_is_found_in_its_package(bundled_models):
    """The name in the plan is the file's stem."""
    assert model_path("bundled:inspection-full") == bundled_models / "inspection-full.onnx"


@pytest.mark.parametrize("name", ["inspection", "", "notes", "inspection-full.onnx"])
def test_an_unknown_bundled_model_names_those_there_are(bundled_models, name):
    """In alphabetical order, as they are written in a plan."""
    assert bundled_models.is_dir()
    with pytest.raises(InvalidPlanError) as caught:
        model_path(f"bundled:{name}")

    assert str(caught.value) == (
        f"model: got 'bundled:{name}', allowed are a path or the bundled models: "
        "bundled:inspection-full, bundled:inspection-light"
    )


def test_other_models_are_paths():
    """Whether the file exists is the engine's business."""
    assert model_path("/models/full.onnx") == Path("/models/full.onnx")


def test_a_bundled_plan_lies_in_the_package():
    """Its name is the file's stem; any other source is a path."""
    assert plan_path("bundled:demo") == Path(config.__file__).parent / "plans" / "demo.yaml"
    assert plan_path("plans/demo.yaml") == Path("plans/demo.yaml")


def test_an_unknown_bundled_plan_names_those_there_are():
    """As they are written on the command line."""
    with pytest.raises(InvalidPlanError) as caught:
        plan_path("bundled:dem")

    names = ", ".join(f"bundled:{path.stem}" for path in config.bundled_plans())
    assert str(caught.value) == f"plan: got 'bundled:dem', allowed are a path or the bundled plans: {names}"
    assert "bundled:demo" in names


@pytest.mark.parametrize("path", config.bundled_plans(), ids=lambda path: path.stem)
def test_every_bundled_plan_is_sound(path):
    """What travels with the package can be served as it is."""
    assert load_plan(path).buckets


def test_the_package_of_bundled_models_can_be_imported():
    """The name in `config.py` is the one that is installed."""
    assert Path(str(resources.files("framelane_inspection"))).is_dir()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"FRAMELANE_STATE_DIR": "/run/own", "XDG_STATE_HOME": "/xdg"}, "/run/own"),
        ({"XDG_STATE_HOME": "/xdg"}, "/xdg/framelane"),
        ({}, "/home/someone/.local/state/framelane"),
        ({"FRAMELANE_STATE_DIR": "", "XDG_STATE_HOME": ""}, "/home/someone/.local/state/framelane"),
    ],
    ids=["own", "xdg", "home", "empty"],
)
def test_the_state_folder_follows_the_environment(monkeypatch, environment, expected):
    """Our own variable, then the desktop's, then home; an empty variable is none."""
    for name in ("FRAMELANE_STATE_DIR", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert state_folder() == Path(expected)


def test_what_ray_reads_is_set_unless_the_user_did(monkeypatch):
    """References that would pin frames for ever are errors, and nothing is reported to anybody."""
    monkeypatch.setenv("RAY_allow_out_of_band_object_ref_serialization", "1")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    prepare_ray_environment()
    assert config.os.environ["RAY_USAGE_STATS_ENABLED"] == "1"

    monkeypatch.delenv("RAY_allow_out_of_band_object_ref_serialization")
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED")
    prepare_ray_environment()
    assert config.os.environ["RAY_allow_out_of_band_object_ref_serialization"] == "0"
    assert config.os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


GROWING = """
models: {full: full.onnx}
buckets: {snapshots: {canvases: [[1088, 1920]]}}
cameras: {"roof-*": {durable: true}}
"""


def test_a_plan_says_how_pools_grow_and_where_they_run(plan_file, tmp_path):
    """Each key of the sections that concern a cluster reaches its field; the spool's folder is beside the plan."""
    plan = load_plan(
        plan_file(
            f"{GROWING}\n"
            "pools: {gpu: {replicas: 0, max_replicas: 4, gpus: 1, labels: {gpu: l4}, max_replicas_per_node: 2,\n"
            "  surge: no}}\n"
            "routers: 3\n"
            "autoscaling: {max_wait_s: 0.25, utilisation: 0.6, up_after_s: 2, down_after_s: 30}\n"
            "memory: {high: 0.5, critical: 0.6, shed: 0.7, calm_s: 1}\n"
            "spool: {folder: frames, max_bytes: 1000, jpeg_quality: 90, max_age_s: 60, result_ttl_s: 30,\n"
            "        labels: {disk: large}}\n"
        )
    )

    (pool,) = plan.pools
    assert (pool.num_replicas, pool.max_replicas, pool.labels, pool.max_replicas_per_node) == (0, 4, {"gpu": "l4"}, 2)
    assert not pool.surge
    assert plan.num_routers == 3
    assert plan.autoscaling == Autoscaling(max_wait_s=0.25, utilisation=0.6, up_after_s=2, down_after_s=30)
    assert plan.memory == MemoryMarks(high=0.5, critical=0.6, shed=0.7, calm_s=1)
    assert plan.spool == SpoolRules(str(tmp_path / "frames"), None, 1000, 90, 60, 30, {"disk": "large"})
    assert plan.rule_of("roof-1").durable
    assert not plan.rule_of("gate-1").durable


def test_a_durable_camera_keeps_all_its_frames(plan_file):
    """A frame that is to be answered whatever happens cannot be replaced by a newer one."""
    plan = GROWING.replace("{durable: true}", "{durable: true, keep: latest}")
    assert "cameras.roof-*.durable: got true with keep latest, allowed is keep all" in refusal(plan_file(plan))


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        ("pools: {cpu: {replicas: 3, max_replicas: 2}}", "pools.cpu.max_replicas: got 2, allowed is at least 3"),
        ("pools: {cpu: {replicas: 0}}", "pools.cpu.replicas: got 0, allowed is at least 1 for a pool without"),
        (
            "pools: {cpu: {replicas: 0, max_replicas: 2}}\nscheduling: {defer_above_px: 9000000}",
            "pools.cpu.replicas: got 0 with canvas 1088x1920, allowed is 0 where every canvas is for deferred frames",
        ),
        ("memory: {high: 0.95}", "memory: got high 0.95, critical 0.92, shed 0.97; allowed are shares that grow"),
        ("spool: {folder: a, redis: 'redis://host'}", "allowed is one: frames lie in one place"),
        ("spool: {redis: 'host:6379'}", "spool: redis: got an address of another kind"),
    ],
)
def test_a_cluster_that_cannot_be_is_refused(plan_file, added, expected):
    """What contradicts itself is named with the cure."""
    assert expected in refusal(plan_file(f"{GROWING}\n{added}\n"))


@pytest.mark.parametrize(
    "added",
    [
        "spool: {redis: 'redis://me:hidden@host'",
        "spool: {redis: 'me:hidden@host'}",
        "spool: {folder: a, redis: 'redis://me:hidden@h'}",
    ],
    ids=["no YAML", "another kind", "two places"],
)
def test_no_error_shows_the_password_of_redis(plan_file, added):
    """Errors go to logs and tickets."""
    told = refusal(plan_file(f"{GROWING}\n{added}\n"))
    assert "redis" in told
    assert "hidden" not in told
