"""What `framelane build` prints: the engines of a plan, and the memory of each pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table

from engines.engine_spec import EngineFacts
from engines.spec import WarmShape
from serve_app.bucket_engines import PoolMemory

MIB = 2**20


@dataclass(frozen=True, slots=True)
class EngineRow:
    """The engine of one bucket.

    Attributes:
        bucket, model: names in the plan.
        facts: what the engine is.
        num_plan_bytes: bytes of the serialised engine.
        taken_s: seconds until it was there.
        was_built: built now; else taken from the folder.
    """

    bucket: str
    model: str
    facts: EngineFacts
    num_plan_bytes: int
    taken_s: float
    was_built: bool


def engine_table(rows: Sequence[EngineRow], title: str) -> Table:
    """One row an engine; shapes are batch×height×width."""
    table = Table(title=title, title_justify="left", header_style="bold", box=None, padding=(0, 1, 0, 0))
    for heading in ("bucket", "model"):
        table.add_column(heading, no_wrap=True)
    table.add_column("min opt max")
    for heading in ("activation MiB", "weights MiB", "file MiB", "s"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for row in rows:
        profile = row.facts.profile
        table.add_row(
            escape(row.bucket), escape(row.model),
            " ".join(_shape(shape) for shape in (profile.min_shape, profile.opt_shape, profile.max_shape)),
            f"{row.facts.activation_bytes / MIB:.1f}", f"{row.facts.weights_bytes / MIB:.1f}",
            f"{row.num_plan_bytes / MIB:.1f}", f"{row.taken_s:.1f}", "built" if row.was_built else "cached",
        )  # fmt: skip
    return table


def memory_lines(pool: str, memory: PoolMemory, wide_bytes: int | None) -> list[str]:
    """What a replica of this pool needs on its GPU, and what it would need otherwise.

    Args:
        pool: its name.
        memory: of its engines.
        wide_bytes: activations with one wide engine a model; None: not built.
    """
    lines = [
        f"pool {pool}: arena {memory.arena_bytes / MIB:.1f} MiB, the largest activation of its engines",
        f"  with a buffer each: {memory.sum_bytes / MIB:.1f} MiB; weights {memory.weights_bytes / MIB:.1f} MiB",
    ]
    if wide_bytes is not None:
        share = memory.arena_bytes / wide_bytes
        lines.append(f"  with one wide profile a model: {wide_bytes / MIB:.1f} MiB; the arena is {share:.0%} of that")
    return lines


def _shape(shape: WarmShape) -> str:
    return f"{shape.batch}×{shape.canvas.height}×{shape.canvas.width}"
