"""What engines hold by estimate, and by what the builder said of others: alone and together in one replica."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from engines.spec import CanvasShape
from serve_app.planning.engine_memory import ACTIVATION_BYTES_PER_PX, GPU_LEAST_BYTES, EngineMemory

WEIGHTS_BYTES = 1000
LANDSCAPE, PORTRAIT, SQUARE = CanvasShape(480, 640), CanvasShape(640, 480), CanvasShape(512, 512)
# Built for one frame of 10×10 px, and for two of 15×20: more px take less each.
BUILT = {100: 6000, 600: 26_000}


def holding(*activations_bytes):
    """Engines, by what their activations hold."""
    return [SimpleNamespace(activation_bytes=num_bytes) for num_bytes in activations_bytes]


def test_where_nothing_was_built_pixels_tell():
    """In proportion to the px of the largest batch."""
    memory = EngineMemory(WEIGHTS_BYTES)
    assert memory.activation_bytes(LANDSCAPE, 3) == ACTIVATION_BYTES_PER_PX * 480 * 640 * 3
    assert memory.alone_bytes(LANDSCAPE, 1) == WEIGHTS_BYTES + ACTIVATION_BYTES_PER_PX * 480 * 640


@pytest.mark.parametrize(
    ("canvas", "batch", "wanted_bytes"),
    [
        pytest.param((10, 10), 1, 6000, id="as-built"),
        pytest.param((15, 20), 2, 26_000, id="as-built-largest"),
        pytest.param((20, 30), 1, 26_000, id="as-many-px-in-another-shape"),
        pytest.param((10, 35), 1, 16_000, id="half-way-between"),
        pytest.param((10, 10), 2, 10_000, id="a-fifth-of-the-way"),
        pytest.param((5, 10), 1, 6000, id="below"),
        pytest.param((30, 40), 1, 52_000, id="above"),
    ],
)
def test_what_was_built_tells_of_others(canvas, batch, wanted_bytes):
    """Between two engines in a line; a smaller one holds what the smallest does, a larger one more in proportion."""
    assert EngineMemory(WEIGHTS_BYTES, built=BUILT).activation_bytes(CanvasShape(*canvas), batch) == wanted_bytes


def test_one_engine_that_was_built_tells_of_all():
    """Smaller ones hold as much, larger ones more in proportion."""
    memory = EngineMemory(WEIGHTS_BYTES, built={100: 6000})
    assert [memory.activation_bytes(CanvasShape(10, width), 1) for width in (5, 10, 20)] == [6000, 6000, 12_000]


def test_on_a_gpu_even_a_small_engine_holds_something():
    """A part that does not grow with the pixels."""
    memory = EngineMemory(WEIGHTS_BYTES, shares_arena=True)
    assert memory.activation_bytes(LANDSCAPE, 3) == GPU_LEAST_BYTES + ACTIVATION_BYTES_PER_PX * 480 * 640 * 3


def test_on_a_gpu_a_profile_holds_the_corner_of_its_canvases():
    """Portrait and landscape in one engine need the square around both, which no frame ever has."""
    memory = EngineMemory(WEIGHTS_BYTES, shares_arena=True)
    assert memory.largest([LANDSCAPE, PORTRAIT]) == CanvasShape(640, 640)
    assert memory.largest([SQUARE, LANDSCAPE]) == CanvasShape(512, 640)
    assert memory.largest([PORTRAIT]) == PORTRAIT


def test_on_a_cpu_only_shapes_that_run_count():
    """The canvas with the most pixels."""
    memory = EngineMemory(WEIGHTS_BYTES)
    assert memory.largest([SQUARE, LANDSCAPE]) == LANDSCAPE
    assert memory.largest([LANDSCAPE, SQUARE]) == LANDSCAPE


def test_engines_on_a_gpu_share_the_largest_arena():
    """Weights add up; activations do not."""
    assert EngineMemory(WEIGHTS_BYTES, shares_arena=True).together_bytes(holding(50, 700, 300)) == 3 * 1000 + 700


def test_engines_on_a_cpu_hold_what_each_needs():
    """Both add up."""
    assert EngineMemory(WEIGHTS_BYTES).together_bytes(holding(50, 700, 300)) == 3 * 1000 + 1050


@pytest.mark.parametrize("shares_arena", [False, True])
def test_no_engine_holds_nothing(shares_arena):
    """The start of every search."""
    assert EngineMemory(WEIGHTS_BYTES, shares_arena=shares_arena).together_bytes([]) == 0
