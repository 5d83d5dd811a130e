"""The client library: frames in as numpy arrays, detections out.

One client a process; its methods may be called from several threads.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from engines.errors import FrameArrayError
from engines.frame_array import check_frame
from engines.letterbox import Image
from serve_app.app_name import APP_NAME
from serve_app.errors import InvalidFrameError, ServiceUnavailableError
from serve_app.frames import FrameMeta, check_meta
from serve_app.plan import Plan
from serve_app.ray_session import ServiceNote, connect_ray, read_note
from serve_app.results import FrameResult, ServiceStatus

# Beyond a frame's own deadline: a batch that began in time may end after it.
ANSWER_GRACE_S = 60.0
CONTROL_TIMEOUT_S = 30.0


class Client:
    """A connection to a running service.

    Pixels go into Ray's object store on this machine; calls carry metadata and refs only. The store's copy lives as
    long as the call: when this process dies, its frames die with it.
    """

    def __init__(self, handle: DeploymentHandle[Any], plan: Plan, host: ServiceNote | None = None) -> None:
        """Take a handle to the router, the plan it serves, and who hosts it; use `connect` to get them."""
        self._handle = handle
        self._plan = plan
        self._host = host

    @classmethod
    def connect(cls, address: str | None = None) -> Client:
        """Connect to a running service.

        Args:
            address: of a Ray cluster, such as `10.0.0.5:6379`, or `auto` for the one of this machine; None: this
                process's own Ray if it has one, else what `RAY_ADDRESS` says, else the service of `framelane up`.

        Raises:
            ServiceUnavailableError: there is none; the message says how to start one.
        """
        host = connect_ray(address)
        try:
            handle = serve.get_app_handle(APP_NAME)
            plan = handle.plan.remote().result(timeout_s=CONTROL_TIMEOUT_S)
        except (RayServeException, RayError, TimeoutError) as err:
            raise ServiceUnavailableError(
                f"service: Ray runs at {address or 'this machine'}, but no application {APP_NAME!r} answers on it "
                f"({type(err).__name__}); deploy one with: framelane up"
            ) from err
        return cls(handle, plan, host)

    @property
    def plan(self) -> Plan:
        """The plan that the service had when this client connected."""
        return self._plan

    def detect(
        self, image_hwc: Image, *, camera: str = "camera", priority: str = "normal", slo_s: float | None = None
    ) -> FrameResult:
        """Detect on one frame and wait for the answer.

        Args:
            image_hwc: uint8 `(height, width, 3)` BGR; any strides. It may be changed as soon as the call returns.
            camera: who took it; the plan may have rules for its name.
            priority: `critical` or `normal`.
            slo_s: seconds from now until it must be finished; None: the plan's default for the priority.

        Returns:
            Boxes in px of the frame, with times and who served it.

        Raises:
            InvalidFrameError: the array, the camera, the priority or the deadline.
            FrameRejectedError: no room; see `retry_after_s`.
            FrameExpiredError: the deadline passed while it waited.
            FrameFailedError: the replica could not answer it.
            ServiceUnavailableError: the service went away.
        """
        return self._call([image_hwc], camera, priority, slo_s)[0].unless_failed()

    def detect_many(
        self,
        images_hwc: Sequence[Image],
        *,
        camera: str = "camera",
        priority: str = "normal",
        slo_s: float | None = None,
    ) -> list[FrameResult]:
        """Detect on several frames, of any sizes, in one call; arguments as for `detect`.

        Returns:
            One result a frame, in their order; look at each one's `outcome` and `error`. Frames do not harm each other.

        Raises:
            InvalidFrameError: an array is no frame (its index is named); then nothing was sent.
            ServiceUnavailableError: the service went away.
        """
        return self._call(images_hwc, camera, priority, slo_s)

    async def detect_async(
        self, image_hwc: Image, *, camera: str = "camera", priority: str = "normal", slo_s: float | None = None
    ) -> FrameResult:
        """Like `detect`, inside an event loop; cancelling the task cancels the frame while it waits."""
        return (await self.submit_async(image_hwc, camera=camera, priority=priority, slo_s=slo_s)).unless_failed()

    async def submit_async(
        self, image_hwc: Image, *, camera: str = "camera", priority: str = "normal", slo_s: float | None = None
    ) -> FrameResult:
        """Like `detect_async`, but a frame that did not finish is a result with its outcome, not an exception.

        Raises:
            InvalidFrameError: the array or the priority.
            ServiceUnavailableError: the service went away.
        """
        (image,), (meta,) = self._checked([image_hwc], camera, priority, slo_s)
        response = None
        try:
            ref = await asyncio.to_thread(ray.put, image)
            response = self._handle.submit.remote(meta, [ref])
            result: FrameResult = await response
        except asyncio.CancelledError:
            if response is not None:
                response.cancel()  # type: ignore[no-untyped-call]
            raise
        except (RayError, RayServeException) as err:
            raise _gone(err) from err
        return result

    def status(self) -> ServiceStatus:
        """The service at a glance. Raises `ServiceUnavailableError`."""
        try:
            status: ServiceStatus = self._handle.status.remote().result(timeout_s=CONTROL_TIMEOUT_S)
        except (RayError, RayServeException, TimeoutError) as err:
            raise _gone(err) from err
        return status

    def _call(self, images_hwc: Sequence[Image], camera: str, priority: str, slo_s: float | None) -> list[FrameResult]:
        images, metas = self._checked(images_hwc, camera, priority, slo_s)
        if not metas:
            return []
        longest_s = max(self._plan.slo_s.values()) if slo_s is None else slo_s
        response = None
        try:
            response = self._handle.submit_many.remote(metas, [ray.put(image) for image in images])
            results: list[FrameResult] = response.result(timeout_s=longest_s + ANSWER_GRACE_S)
        except (RayError, RayServeException, TimeoutError) as err:
            # Also in time: what runs on for nobody should end.
            if response is not None:
                response.cancel()  # type: ignore[no-untyped-call]
            raise _gone(err) from err
        except KeyboardInterrupt:
            if response is not None:
                response.cancel()  # type: ignore[no-untyped-call]
            raise
        return results

    def _checked(
        self, images_hwc: Sequence[Image], camera: str, priority: str, slo_s: float | None
    ) -> tuple[list[Image], list[FrameMeta]]:
        """Check the host, every array and what is said of it, before anything is sent."""
        if self._host is not None and read_note() != self._host:
            # Ray ends a process that puts an object into a store which has gone.
            raise ServiceUnavailableError("service: it was stopped; start it and connect again")
        images, metas = [], []
        max_frame_px = self._plan.limits.max_frame_px
        for index, image_hwc in enumerate(images_hwc):
            try:
                image = check_frame(image_hwc, max_frame_px=max_frame_px)
            except FrameArrayError as err:
                where = f"images_hwc[{index}]: " if len(images_hwc) > 1 else ""
                raise InvalidFrameError(f"{where}{err}") from err
            meta = FrameMeta(uuid.uuid4().hex, camera, (image.shape[0], image.shape[1]), priority, slo_s)
            check_meta(meta, max_frame_px=max_frame_px)
            images.append(image)
            metas.append(meta)
        return images, metas


def _gone(err: Any) -> ServiceUnavailableError:
    reason = f"{type(err).__name__}: {(str(err).splitlines() or [''])[0][:200]}"
    return ServiceUnavailableError(f"service: the call did not come back ({reason}); look at: framelane status")
