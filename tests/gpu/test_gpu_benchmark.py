"""A smoke benchmark: milliseconds a batch, with and without CUDA graph and upload ahead. Never run on a device so far.

It asserts that all ways give the same answers; how long they take is printed.
"""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest
from gpu_machine import TIMEOUT_S, built_engine

from engines.engine_spec import Precision, ShapeProfile
from engines.tensorrt_load import shape_nhwc
from engines.tensorrt_run import TensorRtEngine

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(TIMEOUT_S)]

HEADING = "milliseconds a batch in FP16: median ± mean distance from it"
COLUMNS = f"{'model':18}{'canvas':>10}{'batch':>6}{'graph':>16}{'no graph':>16}{'one by one':>12}{'ahead':>8}"


@pytest.mark.parametrize("model", ["inspection-light", "inspection-full"])
def test_every_way_to_run_gives_the_same_answers(machine, report, caplog, model):
    """Replayed or enqueued, uploaded ahead or not; one row a shape, each in an engine with a profile of its own."""
    report.add(HEADING, COLUMNS)
    for shape in machine.shapes:
        with closing(machine.parts()) as parts:
            parts.device.open()
            profile = ShapeProfile.around([shape.canvas], [shape.batch])
            built, graph = built_engine(machine, parts, machine.models[model], Precision.FP16, profile)
            engine = TensorRtEngine(built, graph.info, library=parts.library, device=parts.device)
            engine.warm([shape])
            report.add(HEADING, _row(machine, report, engine, model, shape))
        for record in caplog.records:
            if "without a CUDA graph" in record.message:
                report.add("CUDA graphs", record.message)
        caplog.clear()


def _row(machine, report, engine, model, shape):
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 256, shape_nhwc(shape), np.uint8) for _ in range(2)]
    context = engine._contexts[shape_nhwc(shape)]
    is_captured = bool(context._graphs)
    report.add("CUDA graphs", f"captured: {'yes' if is_captured else 'no'} ({model}, {shape.batch} × {shape.canvas})")
    wanted = [engine.infer(batch_nhwc).detections for batch_nhwc in batches]
    replayed = _timed(engine, batches, machine.repeats) if is_captured else None
    one_by_one_s = _seconds_a_batch(engine, batches, wanted, machine.repeats, ahead=False)
    ahead_s = _seconds_a_batch(engine, batches, wanted, machine.repeats, ahead=True)
    context._free_graphs()
    for batch_nhwc, answers in zip(batches, wanted, strict=True):
        _assert_close(engine.infer(batch_nhwc).detections, answers)
    enqueued = _timed(engine, batches, machine.repeats)
    return (
        f"{model:18}{shape.canvas!s:>10}{shape.batch:>6}{_shown(replayed):>16}{_shown(enqueued):>16}"
        f"{one_by_one_s * 1e3:>12.2f}{ahead_s * 1e3:>8.2f}"
    )


def _timed(engine, batches, repeats):
    """Median and mean distance from it, in seconds, of whole calls of `infer`."""
    runs_s = []
    for index in range(repeats):
        began_s = time.perf_counter()
        engine.infer(batches[index % 2])
        runs_s.append(time.perf_counter() - began_s)
    median_s = statistics.median(runs_s)
    return median_s, statistics.fmean(abs(run_s - median_s) for run_s in runs_s)


def _seconds_a_batch(engine, batches, wanted, repeats, *, ahead):
    """Seconds a batch of many in a row, as a replica runs them: one thread infers, another one stages the next."""
    began_s = time.perf_counter()
    with ThreadPoolExecutor(1) as engine_thread:
        for index in range(repeats):
            running = engine_thread.submit(engine.infer, batches[index % 2])
            if ahead:
                engine.stage(batches[(index + 1) % 2])
            _assert_close(running.result().detections, wanted[index % 2])
    return (time.perf_counter() - began_s) / repeats


def _assert_close(found, wanted):
    """The same boxes, but for the last bits."""
    for mine, theirs in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(mine.class_ids, theirs.class_ids)
        np.testing.assert_allclose(mine.scores, theirs.scores, atol=1e-3)
        np.testing.assert_allclose(mine.boxes_xyxy, theirs.boxes_xyxy, atol=0.1)


def _shown(timed):
    return "–" if timed is None else f"{timed[0] * 1e3:.2f} ± {timed[1] * 1e3:.2f}"
