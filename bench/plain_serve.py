"""The baseline of `overload.py`: what a user of plain Ray Serve writes, one deployment with `@serve.batch`.

First come, first served; no deadlines. The frames of a batch are padded to its largest height and width, or, what a
user does who has measured that, run one by one at their own sizes. Engine and threads are those of the service.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
from ray import serve
from ray.serve.handle import DeploymentHandle

from engines.detections import Detections
from engines.letterbox import FILL, Image
from engines.onnx_run import OnnxEngine
from engines.spec import CanvasShape, WarmShape, fitting_canvas
from serve_app.config import model_path
from serve_app.ray_session import connect_ray, start_ray, stop_ray

APP_NAME = "plain"
MAX_BATCH = 4
BATCH_WAIT_S = 0.01
# More than any run leaves waiting: the backlog shall stand at the replica, where `@serve.batch` sees it.
MAX_ONGOING = 100_000


@dataclass(frozen=True, slots=True, eq=False)
class PlainAnswer:
    """Boxes of one frame in its own px, its canvas, and how many frames were in Serve's batch."""

    detections: Detections
    canvas: CanvasShape
    batch_size: int


class PlainDetector:
    """The deployment; a batch blocks the replica's loop while it runs, as in Serve's own examples."""

    def __init__(self, model: str, sizes_hw: Sequence[tuple[int, int]], num_threads: int, own_size: bool) -> None:
        """Load the model and run every shape that batches of these sizes can have: none is the first of its kind."""
        self._engine = OnnxEngine(model_path(model), num_threads=num_threads)
        self._own_size = own_size
        canvases = batch_canvases(sizes_hw, self._engine.model.stride_px)
        self._engine.warm([WarmShape(canvas, batch) for canvas in canvases for batch in range(1, MAX_BATCH + 1)])

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=BATCH_WAIT_S)
    async def __call__(self, images_hwc: list[Image]) -> list[PlainAnswer]:
        """Detect on the frames of one batch, uint8 `(height, width, 3)` BGR each."""
        if self._own_size:
            return [answer for image_hwc in images_hwc for answer in self._detect([image_hwc], len(images_hwc))]
        return self._detect(images_hwc, len(images_hwc))

    def _detect(self, images_hwc: Sequence[Image], batch_size: int) -> list[PlainAnswer]:
        batch_nhwc = padded(images_hwc, self._engine.model.stride_px)
        canvas = CanvasShape(*batch_nhwc.shape[1:3])
        # Padded below and to the right only: boxes on the canvas are boxes in the frame.
        found = self._engine.infer(batch_nhwc).detections
        return [PlainAnswer(detections, canvas, batch_size) for detections in found]


class PlainClient:
    """Calls the baseline as `serve_app.client.Client` calls the service."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        """Take a handle to the deployment; use `connect` to get it."""
        self._handle = handle

    @classmethod
    def connect(cls, address: str) -> PlainClient:
        """Connect to the baseline on the Ray at this address."""
        connect_ray(address)
        return cls(serve.get_app_handle(APP_NAME))

    async def submit_async(self, image_hwc: Image, *, camera: str, priority: str, slo_s: float) -> PlainAnswer:
        """Detect on one frame; plain Serve has no use for who sent it, its priority and its deadline."""
        del camera, priority, slo_s
        answer: PlainAnswer = await self._handle.remote(image_hwc)
        return answer


@contextmanager
def plain_ray() -> Iterator[str]:
    """A local Ray with Serve on it; gives its address."""
    address = start_ray()
    try:
        serve.start(proxy_location="Disabled")
        yield address
    finally:
        # Ray prints the end of its own actors as errors.
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            serve.shutdown()  # type: ignore[no-untyped-call]
        stop_ray()


@contextmanager
def plain_app(model: str, sizes_hw: Sequence[tuple[int, int]], num_threads: int, *, own_size: bool) -> Iterator[None]:
    """Deploy the baseline on the connected Ray, warm; at the end it is killed with all that still waits for it.

    Args:
        model: a path or `bundled:NAME`.
        sizes_hw: (height, width) px of the frames that will come.
        num_threads: of one inference; 0: one a core.
        own_size: run the frames of a batch one by one at their own sizes, instead of padded to the largest.
    """
    deployment = serve.deployment(
        name="engine-plain",  # the role of its process in `cpu_use.py`
        num_replicas=1,
        ray_actor_options={"num_cpus": 1},
        max_ongoing_requests=MAX_ONGOING,
        graceful_shutdown_timeout_s=0.1,
    )(PlainDetector)
    serve.run(deployment.bind(model, sizes_hw, num_threads, own_size), name=APP_NAME, route_prefix=None)
    try:
        yield
    finally:
        serve.delete(APP_NAME)


def batch_canvases(sizes_hw: Sequence[tuple[int, int]], stride_px: int) -> set[CanvasShape]:
    """Every canvas that a batch of frames of these sizes can need: one frame gives the height, another the width."""
    return {
        fitting_canvas((max(one[0], other[0]), max(one[1], other[1])), stride_px)
        for one, other in itertools.product(sizes_hw, repeat=2)
    }


def padded(images_hwc: Sequence[Image], stride_px: int) -> npt.NDArray[np.uint8]:
    """The frames, each in the upper left corner of the smallest canvas that holds all of them; `(N, h, w, 3)`."""
    height, width = (max(image.shape[axis] for image in images_hwc) for axis in (0, 1))
    batch_nhwc = np.full((len(images_hwc), *fitting_canvas((height, width), stride_px), 3), FILL, np.uint8)
    for slot_hwc, image_hwc in zip(batch_nhwc, images_hwc, strict=True):
        slot_hwc[: image_hwc.shape[0], : image_hwc.shape[1]] = image_hwc
    return batch_nhwc


def session_name() -> str:
    """The name of the connected Ray's session, which stands in the command lines of its processes."""
    return str(ray.get_runtime_context().get_session_name())
