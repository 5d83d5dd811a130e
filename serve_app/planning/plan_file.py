"""Writes a proposal as a plan that people read and edit, and that `load_plan` reads back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from serve_app.errors import InvalidPlanError
from serve_app.frames import Priority
from serve_app.latency import Origin
from serve_app.plan import DEFAULT_DEFER_ABOVE_PX, Bucket, Plan, Runtime
from serve_app.planning.proposal import Proposal
from serve_app.planning.traffic import rate_by_size, total_rate_hz


def save_plan(path: Path, proposal: Proposal, *, sources: str, origin: Origin) -> Path | None:
    """Write a proposal.

    Args:
        path: a plan that lies there is kept beside it, its name with `.old` behind.
        proposal: what to write.
        sources: what it was planned from, for its first line.
        origin: where the latencies come from that it was planned with.

    Returns:
        Where the plan that was there before lies now; None if there was none.

    Raises:
        InvalidPlanError: it cannot be written.
    """
    text = plan_text(proposal, sources=sources, origin=origin)
    old = path.with_name(f"{path.name}.old")
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(text, encoding="utf-8")
        had_one = path.is_file() and path.read_text(encoding="utf-8", errors="replace") != text
        if had_one:
            path.replace(old)
        unfinished.replace(path)
    except OSError as err:
        unfinished.unlink(missing_ok=True)
        raise InvalidPlanError(
            f"plan {path}: cannot be written ({(err.strerror or str(err)).lower()}); choose another with --out"
        ) from err
    return old if had_one else None


def plan_text(proposal: Proposal, *, sources: str, origin: Origin) -> str:
    """The YAML of a proposal, with the reasons as comments."""
    return "\n".join(_lines(proposal, sources, origin)) + "\n"


def _lines(proposal: Proposal, sources: str, origin: Origin) -> Iterator[str]:
    plan, traffic = proposal.plan, proposal.traffic
    yield f"# Written by framelane plan from {' '.join(sources.split())}:"
    yield f"# {len(rate_by_size(traffic))} sizes, {total_rate_hz(traffic):.4g} frames a second."
    yield f"# Predicted from {origin.value} latencies: {proposal.device_s_per_s:.3g} device seconds a second,"
    yield f"# {proposal.padding_fraction:.1%} padding. Every key is explained in docs/plan.md."
    yield "models:"
    yield from (f"  {_text(name)}: {_text(source)}" for name, source in plan.models.items())
    yield ""
    yield f"pools: # replicas for {proposal.limits.utilisation:.0%} use"
    for pool in plan.pools:
        yield f"  {_text(pool.name)}:"
        yield f"    replicas: {pool.num_replicas}"
        yield f"    cpus: {pool.num_cpus:g}"
        yield f"    gpus: {pool.num_gpus:g}"
        yield f"    threads: {pool.num_threads}"
        yield f"    runtime: {pool.runtime.value}"
    yield ""
    yield "buckets:"
    for bucket in plan.buckets:
        yield from _bucket_lines(proposal, bucket)
    yield from _policy_lines(plan)
    yield ""
    yield "slo_s:"
    yield from (f"  {priority.value}: {plan.slo_s[priority]!r}" for priority in Priority)
    if any(pool.runtime is Runtime.TENSORRT for pool in plan.pools):
        yield ""
        yield f"engines: {{precision: {plan.engines.precision.value}}}"
    if plan.latency is not None:
        yield ""
        yield f"latency: {_text(plan.latency)}"


def _bucket_lines(proposal: Proposal, bucket: Bucket) -> Iterator[str]:
    uses = {use.canvas: use for use in proposal.canvases}
    yield f"  {_text(bucket.name)}:"
    yield f"    model: {_text(bucket.model)}"
    yield f"    pool: {_text(bucket.pool)}"
    yield "    canvases: # the most used first"
    for canvas in bucket.canvases:
        use = uses[canvas]
        what = f"{use.rate_hz:.3g} frames/s, {use.padding_fraction:.1%} padding"
        yield f"      - [{canvas.height}, {canvas.width}] # {what}"
    activation_mib = proposal.activation_bytes[bucket.name] / 2**20
    origin = "as built" if proposal.engine_memory.built else "estimated"
    yield f"    batches: {list(bucket.batches)} # activations {activation_mib:.0f} MiB, {origin}"


def _policy_lines(plan: Plan) -> Iterator[str]:
    if plan.cameras:
        yield ""
        yield "cameras:"
        yield from (f"  {_text(rule.pattern)}: {{oversize: {rule.oversize.value}}}" for rule in plan.cameras)
    if plan.ladder:
        yield ""
        yield "ladder: # below a frame's own size, when replicas run short; dearest first"
        for rung in plan.ladder:
            most = f", max_canvas: {list(rung.max_canvas)}" if rung.max_canvas else ""
            yield f"  - {{model: {_text(rung.model)}{most}}}"
    yield ""
    yield "scheduling:"
    yield f"  max_chunk_s: {plan.scheduling.max_chunk_s!r}"
    if plan.scheduling.defer_above_px != DEFAULT_DEFER_ABOVE_PX:
        yield f"  defer_above_px: {plan.scheduling.defer_above_px} # larger ones keep a device longer than a chunk"


def _text(value: str) -> str:
    """A YAML string; in quotes, JSON's being YAML's too, where it would not be read as what it is."""
    is_plain = re.fullmatch(r"[A-Za-z0-9_.-]+", value) is not None and yaml.safe_load(value) == value
    return value if is_plain else json.dumps(value, ensure_ascii=False)
