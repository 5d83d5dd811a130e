"""Imports run one way, and the pure modules stay pure: looked up in a fresh interpreter."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys

import pytest

import engines

ALL_BUT_EXPORT = sorted(
    m.name for m in pkgutil.iter_modules(engines.__path__, "engines.") if m.name != "engines.export"
)
# Geometry, boxes and values: they must run where no model can.
PURE = [
    f"engines.{name}"
    for name in (
        "base",
        "boxes",
        "boxes_view",
        "coco_form",
        "detections",
        "detector",
        "device_facts",
        "drawing",
        "engine_spec",
        "errors",
        "fake",
        "frame_array",
        "image_file",
        "letterbox",
        "supervision_form",
        "tile_pieces",
        "tiles",
        "visible_gpus",
    )
] + ["engines.spec"]
REPORT = (
    "import importlib, json, sys; [importlib.import_module(m) for m in sys.argv[1:]]; print(json.dumps([*sys.modules]))"
)


def packages_after_importing(modules):
    """The top-level packages in `sys.modules` of a fresh interpreter that imported these modules."""
    ran = subprocess.run([sys.executable, "-c", REPORT, *modules], check=True, capture_output=True, text=True)
    return {name.partition(".")[0] for name in json.loads(ran.stdout)}


def test_engines_import_neither_the_app_nor_ray():
    """`engines` is a library of its own: nothing of the service, no exporter, no GPU runtime at import."""
    imported = packages_after_importing(ALL_BUT_EXPORT)
    assert "engines" in imported
    ours_not = {"serve_app", "ray", "fastapi", "starlette", "torch", "ultralytics"}
    of_a_gpu = {"tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings", "cuda", "pynvml"}
    assert imported & (ours_not | of_a_gpu) == set()


def test_pure_modules_import_no_runtime():
    """Neither a model format nor a runtime, not even through others."""
    imported = packages_after_importing(PURE)
    assert imported & {"serve_app", "ray", "torch", "tensorrt", "cuda", "onnx", "onnxruntime", "asyncio"} == set()


def test_the_package_itself_imports_nothing():
    """`import engines` costs nothing."""
    assert packages_after_importing(["engines"]) & {"numpy", "cv2", "onnx", "onnxruntime"} == set()


def test_the_exporter_is_importable_without_its_extra():
    """The extra is imported when an export starts, so that the command line can say what is missing."""
    assert packages_after_importing(["engines.export"]) & {"torch", "ultralytics", "serve_app", "ray"} == set()


@pytest.mark.parametrize("module", PURE)
def test_every_pure_module_exists(module):
    """A renamed module must not drop out of the list unseen."""
    assert module in ALL_BUT_EXPORT
