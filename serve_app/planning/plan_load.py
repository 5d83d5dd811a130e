"""What traffic costs under a plan: device seconds, and pixels of canvases that carry nothing of a frame's own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engines.spec import CanvasShape
from serve_app.latency import LatencyModel
from serve_app.plan import CanvasChoice, Plan
from serve_app.planning.traffic import SizeHw, SizeRate


@dataclass(frozen=True, slots=True)
class SizeLoad:
    """What one entry of the traffic costs.

    Attributes:
        size: the entry.
        choice: where the plan places its frames.
        device_s_per_s: predicted device seconds a second, with batches as full as the bucket's ladder pays for.
        padding_fraction: see `padding_of`.
    """

    size: SizeRate
    choice: CanvasChoice
    device_s_per_s: float
    padding_fraction: float


def loads_under(plan: Plan, traffic: Iterable[SizeRate], latency: LatencyModel) -> tuple[SizeLoad, ...]:
    """What each entry costs, placed as the router would place it."""
    loads = []
    for entry in traffic:
        choice = plan.canvas_for(model_of(plan, entry), entry.size_hw)
        frame_s = seconds_a_frame(latency, choice.bucket.model, choice.canvas, choice.bucket.batches)
        padding = padding_of(entry.size_hw, choice.canvas)
        loads.append(SizeLoad(entry, choice, entry.rate_hz * frame_s, padding))
    return tuple(loads)


def model_of(plan: Plan, entry: SizeRate) -> str:
    """The model that serves these frames; of traffic without camera names the default one."""
    return (plan.rule_of(entry.camera).model if entry.camera else None) or plan.default_model


def seconds_a_frame(latency: LatencyModel, model: str, canvas: CanvasShape, batches: Sequence[int]) -> float:
    """Device seconds of one frame in the batch size that makes it cheapest."""
    return min(latency.predict_s(model, canvas, batch) / batch for batch in batches)


def padding_of(size_hw: SizeHw, canvas: CanvasShape) -> float:
    """Share of the canvas that is computed on top of the frame's own pixels, in 0..1.

    Stricter than the frame log's `padding_fraction`: a frame that is enlarged to a canvas of its own shape shows no
    grey there, yet all the pixels that it did not have are computed. A frame that is shrunk counts as it lies there.
    """
    height, width = size_hw
    scale = min(1.0, canvas.height / height, canvas.width / width)
    return max(0.0, 1 - scale * height * scale * width / canvas.num_px)


def padding_fraction(loads: Sequence[SizeLoad]) -> float:
    """Padding of all traffic: each canvas's pixels weighted by how often they are computed."""
    computed_px_hz = sum(load.size.rate_hz * load.choice.canvas.num_px for load in loads)
    padded_px_hz = sum(load.padding_fraction * load.size.rate_hz * load.choice.canvas.num_px for load in loads)
    return padded_px_hz / computed_px_hz
