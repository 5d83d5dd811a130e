"""What `import framelane` offers: every name, at no cost until it is used."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys

import pytest

import framelane

ASK = """
import json, sys
import framelane
at_import = [name for name in ("numpy", "cv2", "onnxruntime", "ray", "pydantic") if name in sys.modules]
framelane.predict
print(json.dumps([at_import, [name for name in ("onnxruntime", "ray", "supervision") if name in sys.modules]]))
"""


def test_the_public_names_are_these():
    """A name that goes breaks programs; a new one is a promise."""
    assert framelane.__all__ == sorted(framelane.__all__)
    assert dir(framelane) == framelane.__all__
    assert framelane.__all__ == [
        "Answer", "CameraSpec", "Client", "Detections", "Detector", "FrameResult", "Gap", "Prediction", "Stream",
        "StreamFrame", "__version__", "model_service", "predict",
    ]  # fmt: skip


def test_every_name_is_there_and_is_the_same_each_time():
    """Loaded from where it lives, once."""
    for name in framelane.__all__:
        value = getattr(framelane, name)
        assert getattr(framelane, name) is value or value == importlib.metadata.version("framelane")


def test_importing_costs_nothing_and_predicting_needs_no_ray():
    """In a fresh interpreter: a script that looks at one picture does not wait for Ray."""
    answer = subprocess.run([sys.executable, "-c", ASK], check=True, capture_output=True, text=True, timeout=60)
    assert json.loads(answer.stdout) == [[], ["onnxruntime"]]


def test_a_wrong_name_is_told_with_the_right_ones():
    """As everywhere here."""
    with pytest.raises(AttributeError, match="no attribute 'YOLO'; it has Answer, CameraSpec, Client"):
        framelane.YOLO  # noqa: B018 (that it is looked at is the point)
