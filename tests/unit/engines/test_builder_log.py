"""What is read out of a builder's log; the lines are those that TensorRT for RTX 1.7.1 printed."""

from __future__ import annotations

import pytest

from engines.builder_log import BuilderLog

NO_DRIVER = (
    "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at "
    "/_src/common/dispatch/checkMacros.cpp:250 (cudaError 35: CUDA driver version is insufficient))"
)
OFF_STRIDE = (
    "IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (IConcatenationLayer /model.11/Concat: axis 2 "
    "dimensions must be equal for concatenation on axis 1. Dimensions are 42 and 41. In processCheck at "
    "/_src/optimizer/shapeof/graphShapeAnalyzer.cpp:1066 In analyzeShapes at /_src/graphShapeAnalyzer.cpp:2825)"
)
IMPOSSIBLE = (
    "Profile kMAX values are not self-consistent. /model.11/Concat: axis 2 dimensions must be equal for concatenation "
    "on axis 1. Condition '==' violated: 41 != 40. In operator() at /_src/runtime/core/shapeMachine.cpp:640 "
    "Instruction: CHECK_EQUAL 41 40."
)


def log_of(*lines):
    """A log with these (severity, text) lines."""
    log = BuilderLog()
    for severity, text in lines:
        log.add(severity, text)
    return log


def test_memory_is_read_from_the_builders_lines():
    """Bytes, as printed."""
    log = log_of(
        ("INFO", "Max Scratch Memory: 123 bytes"),
        ("INFO", "Total Activation Memory: 86569984 bytes"),
        ("INFO", "Total Weights Memory: 3642764 bytes"),
    )
    assert (log.activation_bytes, log.weights_bytes) == (86569984, 3642764)


def test_memory_that_the_builder_did_not_print_is_unknown():
    """None, never 0: an arena of 0 bytes would be overrun."""
    log = log_of(("INFO", "Total Activation Memory: -5 bytes"), ("INFO", "Activation Memory: 7"))
    assert (log.activation_bytes, log.weights_bytes) == (None, None)


def test_the_largest_of_several_figures_counts():
    """Too much memory is safe, too little is not; a missing unit does no harm."""
    log = log_of(*(("INFO", f"Total Activation Memory: {figure}") for figure in ("70 bytes", "500", "60 bytes")))
    assert log.activation_bytes == 500


def test_the_reason_is_the_first_error_and_not_the_missing_driver():
    """A machine without a GPU prints an error of its own beside each; places in NVIDIA's sources help nobody."""
    log = log_of(("ERROR", NO_DRIVER), ("WARNING", "a doubt"), ("ERROR", OFF_STRIDE), ("ERROR", "what followed"))
    assert log.reason == (
        "IConcatenationLayer /model.11/Concat: axis 2 dimensions must be equal for concatenation on axis 1. "
        "Dimensions are 42 and 41"
    )


@pytest.mark.parametrize("severity", ["WARNING", "ERROR"])
def test_a_corner_of_the_profile_that_cannot_run_is_noticed(severity):
    """The builder only warns of it, and gives an engine that would fail on the first such batch."""
    assert "41 != 40" in log_of((severity, IMPOSSIBLE)).impossible_shape
    assert log_of(("WARNING", "another doubt")).impossible_shape is None


def test_a_build_without_a_reason_says_so():
    """The message never ends in an empty pair of brackets."""
    assert log_of(("INFO", "all is well")).reason == "the builder gave no reason"


def test_verbose_lines_are_dropped():
    """There are ten thousand a build."""
    assert log_of(("VERBOSE", "Total Activation Memory: 1 bytes")).lines == []
