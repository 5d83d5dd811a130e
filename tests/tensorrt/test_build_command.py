"""`framelane build` with real engines: its table, its memory lines, its folder and its errors."""

from __future__ import annotations

import re

import pytest
import typer
from typer.testing import CliRunner

from engines.errors import EngineBuildError
from serve_app.cli.build import build
from serve_app.errors import FramelaneError, InvalidPlanError

pytestmark = pytest.mark.tensorrt

PLAN = """
models:
  full: bundled:inspection-light
pools:
  gpu: {replicas: 1, gpus: 1}
buckets:
  small: {canvases: [[320, 416], [320, 320]], batches: [1, 2, 4]}
  large: {canvases: [[736, 1280]], batches: [1]}
"""


@pytest.fixture
def framelane(tmp_path, monkeypatch):
    """Runs `framelane build` on the plan, with a folder of its own; answers what it printed."""
    monkeypatch.setenv("COLUMNS", "200")
    plan = tmp_path / "plan.yaml"
    plan.write_text(PLAN)
    app = typer.Typer()
    app.command()(build)

    def run(*options, plan=plan):
        given = [str(plan), "--cache", str(tmp_path / "engines"), "--precision", "fp32", *options]
        result = CliRunner().invoke(app, given, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


def rows_of(printed):
    """The table's rows, by bucket."""
    lines = [line.split() for line in printed.splitlines()]
    return {cells[0]: cells for cells in lines if cells and cells[-1] in ("built", "cached")}


def mib(pattern, printed):
    """A figure of the lines under the table."""
    return float(re.search(pattern, printed)[1])


def test_each_bucket_is_built_once_and_then_taken_from_the_folder(framelane, tmp_path):
    """The second run builds nothing, and says so; figures are the same."""
    first, second = framelane("--compute-capability", "8.9"), framelane("--compute-capability", "8.9")
    assert list(rows_of(first)) == ["small", "large"]
    assert [row[-1] for row in rows_of(first).values()] == ["built", "built"]
    assert [row[-1] for row in rows_of(second).values()] == ["cached", "cached"]
    for name, row in rows_of(first).items():
        assert row[:8] == rows_of(second)[name][:8]
    assert rows_of(first)["small"][1:5] == ["full", "1×320×320", "4×320×416", "4×320×416"]
    assert len(list((tmp_path / "engines").glob("*.engine"))) == 2


def test_the_arena_is_the_largest_and_stands_beside_sum_and_wide_profile(framelane):
    """What a replica needs, and what the buckets save."""
    printed = framelane("--compute-capability", "8.9", "--compare-wide")
    activations = [float(row[5]) for row in rows_of(printed).values()]
    assert mib(r"arena ([\d.]+) MiB", printed) == pytest.approx(max(activations), abs=0.1)
    assert mib(r"a buffer each: ([\d.]+) MiB", printed) == pytest.approx(sum(activations), abs=0.2)
    wide, share = mib(r"wide profile a model: ([\d.]+) MiB", printed), mib(r"the arena is (\d+)%", printed)
    assert wide > max(activations)
    assert share == pytest.approx(100 * max(activations) / wide, abs=1)


def test_several_gpus_give_a_table_and_a_file_each(framelane, tmp_path):
    """A cluster's engines can be built on one machine; asking twice for one is asking once."""
    printed = framelane(
        *(word for capability in ("8.9", "12.0", "8.9") for word in ("--compute-capability", capability))
    )
    titles = re.findall(r"compute capability (\S+), fp32, tensorrt_rtx", printed)
    assert titles == ["8.9", "12.0"]
    assert len(list((tmp_path / "engines").glob("*_sm120_*.engine"))) == 2
    assert len(list((tmp_path / "engines").glob("*_sm89_*.engine"))) == 2


def test_without_a_gpu_the_capability_must_be_named(framelane):
    """The message says how."""
    with pytest.raises(EngineBuildError, match=r"no GPU here that answers; name it: --compute-capability 8\.9"):
        framelane()


@pytest.mark.parametrize("text", ["89", "8.9.1", "ada", "8.٩", ""])
def test_a_capability_that_is_none_is_refused(framelane, text):
    """MAJOR.MINOR, in plain digits."""
    with pytest.raises(FramelaneError, match=r"allowed is MAJOR\.MINOR, such as 8\.9"):
        framelane("--compute-capability", text)


def test_a_plan_that_is_missing_is_the_first_thing_said(framelane, tmp_path):
    """Before any library is loaded."""
    with pytest.raises(InvalidPlanError, match="no such file"):
        framelane("--library", "no such library", plan=tmp_path / "nowhere.yaml")


MIXED_PLAN = """
models:
  full: bundled:inspection-light
  other: nowhere.onnx
pools:
  gpu: {gpus: 0.5}
  cpu: {}
buckets:
  small: {pool: gpu, canvases: [[320, 320]]}
  far: {pool: cpu, model: other, canvases: [[640, 640]]}
"""


def test_only_buckets_of_tensorrt_pools_are_built(framelane, tmp_path):
    """What ONNX Runtime serves needs no engine, and its model need not suit TensorRT."""
    plan = tmp_path / "mixed.yaml"
    plan.write_text(MIXED_PLAN)
    printed = framelane("--compute-capability", "8.9", "--compare-wide", plan=plan)
    assert list(rows_of(printed)) == ["small"]
    assert re.findall(r"pool (\w+): arena", printed) == ["gpu"]


def test_frames_that_are_named_are_compared_though_the_engines_are_there(framelane, tmp_path):
    """Whoever names frames asks about them; engines in the folder were compared on others."""
    options = ("--compute-capability", "8.9", "--precision", "fp16")
    framelane(*options)
    with pytest.raises(FramelaneError, match="without an image"):
        framelane(*options, "--frames", str(tmp_path / "engines"))


def test_a_workspace_that_is_too_small_is_named_with_its_cure(framelane):
    """It is the user's own limit, and nothing is wrong with model or canvases."""
    with pytest.raises(EngineBuildError, match=r"workspace 1048576 bytes; .*; allow a larger workspace, "):
        framelane("--compute-capability", "8.9", "--precision", "fp16", "--workspace-mib", "1")
