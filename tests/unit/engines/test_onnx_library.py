"""ONNX Runtime tells nobody what it runs, and leaves nothing in a home."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import engines
import serve_app

IMPORT = "import engines.onnx_library\n"
DETECT = """
import numpy as np
from framelane import Detector
with Detector("bundled:inspection-light") as detector:
    detector(np.zeros((64, 64, 3), np.uint8))
"""
# As the library reads it: through C.
READ = """
import ctypes
getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_char_p
print(getenv(b"ORT_DISABLE_TELEMETRY").decode())
"""
PACKAGES = [Path(package.__file__).parent for package in (engines, serve_app)]
# Under these the library is silent of itself, and the test would prove nothing.
SILENCING = ("ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "CI", "GITHUB_ACTIONS", "TF_BUILD")


def run(code, home, **variables):
    """What an interpreter of its own prints."""
    environment = {name: value for name, value in os.environ.items() if name not in SILENCING}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment | {"HOME": str(home)} | variables,
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done.stdout.strip()


def test_telemetry_is_off_before_the_library_is_loaded(tmp_path):
    """A model ran, and nothing was written at home."""
    assert run(DETECT + READ, tmp_path) == "1"
    assert list(tmp_path.rglob("*")) == []


def test_who_asks_for_telemetry_is_not_overruled(tmp_path):
    """Only read here: the other variable keeps the library silent all the same."""
    assert run(IMPORT + READ, tmp_path, ORT_DISABLE_TELEMETRY="0", ORT_RUNNING_UNIT_TESTS="1") == "0"


def test_nothing_imports_the_library_past_the_one_place():
    """A second import that comes first would turn it on again."""
    importing = {
        path.name
        for package in PACKAGES
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "onnxruntime" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "onnxruntime")
    }
    assert importing == {"onnx_library.py"}
