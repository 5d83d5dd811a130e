"""A machine with one GPU and the engines of its pool, on stand-ins of driver and runtime (simulated)."""

from __future__ import annotations

import dataclasses
import warnings

import fake_tensorrt
import numpy as np
from simulated_engines import ACTIVATION_BYTES_PER_PX

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray's affair
    from serve_app.engine_store import EngineStore

from engines.device_facts import DeviceFacts
from engines.engine_spec import BuiltEngine, ComputeCapability, EngineFacts, Precision
from engines.gpu_device import GpuDevice
from engines.spec import CanvasShape, HeadKind
from engines.tensorrt_library import TensorRtLibrary
from engines.tensorrt_load import shape_nhwc
from serve_app.plan import Bucket, EngineBuilding, Plan, Pool, Runtime
from serve_app.tensorrt_pool import GpuParts, tensorrt_engines

SMALL, WIDE, LARGE = CanvasShape(64, 64), CanvasShape(64, 96), CanvasShape(128, 96)
# Bucket `near` runs the raw head on two canvases, bucket `far` the end-to-end head on a larger one.
BUCKETS = (Bucket("near", "raw", "gpu", (SMALL, WIDE), (1, 2)), Bucket("far", "ends", "gpu", (LARGE,), (1, 2)))
POOL = Pool("gpu", num_gpus=1.0, runtime=Runtime.TENSORRT)
ADA = ComputeCapability(8, 9)


class AskedGpu:
    """A GPU's facts as the test wants them; counts who lets go of it."""

    def __init__(self, name, capability, total_bytes=100):
        self._facts = DeviceFacts(name, 0, "GPU-0", capability, total_bytes, 1, total_bytes - 1, 0.0, 40.0, (), 0)
        self.num_closed = 0

    def facts(self):
        """See `Device.facts`."""
        return self._facts

    def close(self):
        """See `Device.close`."""
        self.num_closed += 1


class Builds:
    """Stands in `engines.tensorrt_build.build`'s place; notes what was built, and fails where it is told to."""

    def __init__(self):
        self.models: list[str] = []
        self.error: Exception | None = None

    def __call__(self, spec, graph, library, *, timing_cache, device):
        """An engine that the fake of TensorRT loads."""
        assert device == spec.compute_capability
        assert timing_cache.path(library, device).name.startswith(f"{library.name}-0.0")
        if self.error is not None:
            raise self.error
        self.models.append(spec.model_path.stem)
        shapes = (spec.profile.min_shape, spec.profile.opt_shape, spec.profile.max_shape)
        plan = fake_tensorrt.plan_bytes(
            graph.onnx_bytes,
            [shape_nhwc(shape) for shape in shapes],
            (-1, 4 + len(graph.info.class_names), -1) if graph.info.head is HeadKind.RAW else (-1, 3, 6),
            activation_bytes_per_px=ACTIVATION_BYTES_PER_PX,
        )
        largest = shapes[2]
        facts = EngineFacts(
            library=library.name,
            library_version=library.version,
            compute_capability=spec.compute_capability,
            precision=spec.precision,
            profile=spec.profile,
            onnx_sha256=graph.sha256,
            activation_bytes=ACTIVATION_BYTES_PER_PX * largest.canvas.num_px * largest.batch,
            weights_bytes=fake_tensorrt.WEIGHTS_BYTES,
            build_s=1.0,
        )
        return BuiltEngine(plan, facts)


class NearStore(EngineStore):
    """The cluster's store without a cluster."""

    def __init__(self):
        super().__init__(clock=lambda: 0.0, keep=np.copy)

    def publish(self, key, claimant, built):
        """See `engine_supply.Store`."""
        super().publish(key, claimant, built.facts, np.frombuffer(built.plan_bytes, np.uint8))

    def fetch(self, key):
        """See `engine_supply.Store`."""
        found = super().fetch(key)
        return None if found is None else BuiltEngine(found[1][0].tobytes(), found[0])


class World:
    """A machine with one GPU, a folder of engines, and two models."""

    def __init__(self, folder, models):
        self.folder = folder / "engines"
        self.builds = Builds()
        self.gpus: list[AskedGpu] = []
        self.plan = Plan(models, (POOL,), BUCKETS, engines=EngineBuilding(Precision.FP32))

    def parts(self, name="NVIDIA L4", capability=ADA, *, library="tensorrt_rtx"):
        """The GPU, not yet open."""
        gpu = AskedGpu(name, capability)
        self.gpus.append(gpu)
        bindings = fake_tensorrt.bindings(is_rtx=library == "tensorrt_rtx")
        return GpuParts(TensorRtLibrary(library, "0.0", bindings), gpu.facts(), gpu, GpuDevice(), self.builds)

    def engines(self, plan=None, *, parts=None, folder=None, store=None):
        """The engines of the pool."""
        return tensorrt_engines(
            plan or self.plan, "gpu", parts=parts or self.parts(), folder=folder or self.folder, store=store,
            claimant="gpu-1",
        )  # fmt: skip

    def in_fp16(self):
        """The same buckets for one convolutional model, whose FP16 graph is compared before it is built."""
        buckets = tuple(dataclasses.replace(bucket, model="light") for bucket in BUCKETS)
        models = {"light": "bundled:inspection-light"}
        return dataclasses.replace(
            self.plan, models=models, buckets=buckets, engines=EngineBuilding(Precision.FP16)
        )  # fmt: skip
