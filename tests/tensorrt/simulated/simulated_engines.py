"""Engines on the stand-ins. Importing this loads the stand-in of the driver, before anything asks for the real one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fake_tensorrt
from driver_stand_in import StandIn
from fake_tensorrt import WORLD

from engines.engine_spec import BuiltEngine, ComputeCapability, EngineFacts, Precision, ShapeProfile
from engines.gpu_device import GpuDevice
from engines.graph import read_info, to_uint8_nhwc
from engines.spec import CanvasShape, WarmShape
from engines.tensorrt_library import TensorRtLibrary
from engines.tensorrt_load import shape_nhwc
from engines.tensorrt_run import TensorRtEngine

STAND_IN = StandIn(Path(os.environ["FRAMELANE_STAND_IN"]))
WORLD.driver = STAND_IN

PROFILE = ShapeProfile(
    WarmShape(CanvasShape(64, 64), 1), WarmShape(CanvasShape(64, 96), 3), WarmShape(CanvasShape(96, 96), 3)
)
SMALL, WIDE, LARGE = (WarmShape(CanvasShape(*hw), batch) for hw, batch in (((64, 64), 1), ((64, 96), 2), ((96, 96), 3)))
SHAPES = [SMALL, WIDE, LARGE]
ACTIVATION_BYTES_PER_PX = 16


@dataclass(frozen=True)
class MakeEngine:
    """Makes engines of one model on one device."""

    device: GpuDevice
    model: Any
    output_dims: tuple[int, ...]

    def __call__(self, *, is_rtx=True, profile=PROFILE, bytes_per_px=ACTIVATION_BYTES_PER_PX, **plan_parts):
        """An engine, cold. `plan_parts` are `plan`, `model` or arguments of `plan_bytes` that make it a foreign one."""
        shapes = [shape_nhwc(shape) for shape in (profile.min_shape, profile.opt_shape, profile.max_shape)]
        batch, height, width, _ = shapes[2]
        fitting = fake_tensorrt.plan_bytes(
            to_uint8_nhwc(plan_parts.get("model", self.model)).SerializeToString(),
            plan_parts.get("shapes", shapes),
            plan_parts.get("output_dims", self.output_dims),
            activation_bytes_per_px=bytes_per_px,
            output_type=plan_parts.get("output_type", "FLOAT"),
            more_outputs=plan_parts.get("more_outputs", ()),
        )
        facts = EngineFacts(
            library="tensorrt_rtx",
            library_version="0.0",
            compute_capability=ComputeCapability(8, 9),
            precision=Precision.FP32,
            profile=profile,
            onnx_sha256="0123456789abcdef",
            activation_bytes=bytes_per_px * batch * height * width,
            weights_bytes=fake_tensorrt.WEIGHTS_BYTES,
            build_s=1.0,
        )
        library = TensorRtLibrary(
            "tensorrt_rtx" if is_rtx else "tensorrt", "0.0", fake_tensorrt.bindings(is_rtx=is_rtx)
        )
        built = BuiltEngine(plan_parts.get("plan", fitting), facts)
        return TensorRtEngine(built, read_info(self.model, "tiny"), library=library, device=self.device)
