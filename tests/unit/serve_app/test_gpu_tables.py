"""Latency tables of GPUs by name."""

from __future__ import annotations

import dataclasses

import pytest
from simulated_samples import sample_plan

from engines.spec import CanvasShape
from serve_app.errors import InvalidPlanError
from serve_app.latency import LatencyKey, Origin
from serve_app.simulation.gpu_tables import FIGURES, PUBLISHED_CANVAS, estimated_s, figure_named, gpu_table


def test_the_published_shape_has_the_published_time():
    """Everything else is worked out from it."""
    assert estimated_s(figure_named("t4-yolo26n"), PUBLISHED_CANVAS, 1) == pytest.approx(0.0017)
    assert estimated_s(figure_named("t4-yolo26s"), PUBLISHED_CANVAS, 1) == pytest.approx(0.0026)


@pytest.mark.parametrize("name", FIGURES)
def test_larger_batches_and_canvases_take_longer_but_less_a_pixel(name):
    """A part of each run does not grow."""
    small, large = CanvasShape(320, 320), CanvasShape(1088, 1920)
    figure = FIGURES[name]

    for batch in (1, 2, 4):
        for canvas in (small, large):
            one, two = estimated_s(figure, canvas, batch), estimated_s(figure, canvas, 2 * batch)
            assert one < two < 2 * one
    assert estimated_s(figure, small, 1) / small.num_px > estimated_s(figure, large, 1) / large.num_px


def test_a_table_covers_every_shape_of_the_plan_and_says_that_it_is_estimated():
    """Never taken for a measurement: the label names the GPU, the published figure and what is estimated."""
    plan = sample_plan(canvases=(CanvasShape(640, 640), CanvasShape(320, 320)), batches=(1, 4))

    table = gpu_table(plan, {"yolo": figure_named("t4-yolo26n")})

    assert set(table.entries) == {LatencyKey("yolo", CanvasShape(s, s), n) for s in (640, 320) for n in (1, 4)}
    assert table.origin is Origin.ESTIMATED
    for word in ("NVIDIA T4", "1.7 ms", "published", "ESTIMATED"):
        assert word in table.machine


def test_wrong_names_are_told_with_the_right_ones():
    """Of tables and of models."""
    plan = sample_plan()
    two = dataclasses.replace(
        plan, models={"yolo": "a.onnx", "light": "b.onnx"},
        buckets=(*plan.buckets, dataclasses.replace(plan.buckets[0], name="other", model="light")),
    )  # fmt: skip

    with pytest.raises(InvalidPlanError, match="got 'h100', allowed are a file or one of: t4-yolo26n"):
        figure_named("h100")
    with pytest.raises(InvalidPlanError, match="got 'yolov5', allowed are the plan's: yolo"):
        gpu_table(plan, {"yolov5": figure_named("t4-yolo26n")})
    with pytest.raises(InvalidPlanError, match="no table for model light"):
        gpu_table(two, {"yolo": figure_named("t4-yolo26n")})
