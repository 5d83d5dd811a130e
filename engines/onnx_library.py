"""ONNX Runtime as a library: the one place that imports it, with its telemetry off.

From 1.29 on its Linux wheels send model names, graph hashes and run times to their maker, and keep a database in the
user's home, unless this variable is set before the import (https://github.com/microsoft/onnxruntime/pull/27379). What
cameras look at is nobody else's business. Whoever wants it on sets the variable to 0.
"""

from __future__ import annotations

import os

TELEMETRY_OFF = "ORT_DISABLE_TELEMETRY"
os.environ.setdefault(TELEMETRY_OFF, "1")

import onnxruntime  # noqa: E402 (it reads the variable when it is imported)

__all__ = ["onnxruntime"]
