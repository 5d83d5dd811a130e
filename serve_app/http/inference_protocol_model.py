"""The one model that the Open Inference Protocol sees, its inputs and outputs, and results as its tensors; pure.

The service is one model: which of the plan's models serves a frame is decided by its camera and the ladder, and told in
the output `models`.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engines.letterbox import Image
from serve_app.errors import FramelaneError
from serve_app.http.image_decode import check_image_size, decode_image
from serve_app.http.image_header import read_header
from serve_app.http.inference_protocol_request import (
    ENCODED_IMAGES,
    IMAGES,
    InferRequest,
    InferRequestError,
    InputTensor,
)
from serve_app.http.tensor_codec import BYTES, Array, Tensor, texts
from serve_app.plan import Plan
from serve_app.results import FrameResult
from serve_app.verdicts import Outcome

MODEL_NAME = "framelane"
# Of the inputs and outputs below, not of the plan or its weights: callers may pin it.
MODEL_VERSION = "1"
PLATFORM = "framelane"
# In rows behind a frame's last box; no class has this number.
NO_CLASS = -1
# In the place of a count where a frame did not finish: an empty belt and a lost frame must not look the same.
NOT_FINISHED = -1
_BYTES_A_PX = 3


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output: its name, datatype, and sides behind the batch axis; -1: any."""

    name: str
    datatype: str
    sides: tuple[int, ...] = ()

    def metadata(self) -> dict[str, Any]:
        """As model metadata tells it."""
        return {"name": self.name, "datatype": self.datatype, "shape": [-1, *self.sides]}

    def config(self) -> dict[str, Any]:
        """As Triton's model configuration tells it: without the batch axis."""
        data_type = "TYPE_STRING" if self.datatype == BYTES else f"TYPE_{self.datatype}"
        return {"name": self.name, "data_type": data_type, "dims": list(self.sides)}


INPUTS = (TensorSpec(IMAGES, "UINT8", (-1, -1, 3)), TensorSpec(ENCODED_IMAGES, BYTES))
OUTPUTS = (
    TensorSpec("num_detections", "INT32"),
    TensorSpec("boxes_xyxy", "FP32", (-1, 4)),
    TensorSpec("scores", "FP32", (-1,)),
    TensorSpec("class_ids", "INT64", (-1,)),
    TensorSpec("class_names", BYTES, (-1,)),
    TensorSpec("outcomes", BYTES),
    TensorSpec("errors", BYTES),
    TensorSpec("frame_ids", BYTES),
    TensorSpec("models", BYTES),
    TensorSpec("rungs", "INT32"),
)
OUTPUT_NAMES = tuple(spec.name for spec in OUTPUTS)


def model_metadata() -> dict[str, Any]:
    """What `/v2/models/framelane` answers."""
    return {
        "name": MODEL_NAME,
        "versions": [MODEL_VERSION],
        "platform": PLATFORM,
        "inputs": [spec.metadata() for spec in INPUTS],
        "outputs": [spec.metadata() for spec in OUTPUTS],
    }


def model_config(plan: Plan, max_images: int, max_image_px: int) -> dict[str, Any]:
    """What `/v2/models/framelane/config` answers: Triton's model configuration, as far as it means something here."""
    facts = {
        "color_order": "BGR",
        "max_image_px": str(max_image_px),
        "plan_models": ", ".join(plan.models),
        "canvases_hw": ", ".join(sorted({str(canvas) for bucket in plan.buckets for canvas in bucket.canvases})),
    }
    return {
        "name": MODEL_NAME,
        "platform": PLATFORM,
        "backend": PLATFORM,
        "max_batch_size": max_images,
        "input": [spec.config() | {"optional": True} for spec in INPUTS],
        "output": [spec.config() for spec in OUTPUTS],
        "parameters": {key: {"string_value": value} for key, value in facts.items()},
    }


class ImageBatch:
    """The images of one request: their number and cost are known before one is decoded."""

    def __init__(self, request: InferRequest, max_px: int) -> None:
        """Check the input of a request.

        Raises:
            InferRequestError: not exactly one input, of another name, datatype or shape.
            ImageTooLargeError, ImageTypeError, ImageDataError: an image, by its header; the message has its index.
        """
        if len(request.inputs) != 1:
            names = ", ".join(tensor.name for tensor in request.inputs)
            raise InferRequestError(f"inputs: got {names}, allowed is one of {IMAGES} and {ENCODED_IMAGES}")
        tensor = request.inputs[0]
        self._max_px = max_px
        self._raw: Sequence[Image] = ()
        self._encoded: Sequence[bytes] = ()
        if tensor.name == IMAGES:
            self._raw = _raw_images(tensor, max_px)
            self.num_images, self.decoded_bytes = len(self._raw), 0
        elif tensor.name == ENCODED_IMAGES:
            self._encoded = _encoded_images(tensor)
            self.num_images = len(self._encoded)
            self.decoded_bytes = sum(self._decoded_bytes(index) for index in range(self.num_images))
        else:
            raise InferRequestError(f"inputs[0].name: got {tensor.name!a}, allowed are {IMAGES} and {ENCODED_IMAGES}")
        if not self.num_images:
            raise InferRequestError("inputs[0].shape: got no image, allowed is at least one")

    def decoded(self, index: int) -> Image:
        """One image as uint8 `(height, width, 3)` BGR; raises what `decode_image` raises, with the image's index."""
        if not self._encoded:
            return self._raw[index]
        try:
            return decode_image(self._encoded[index], "", self._max_px)
        except FramelaneError as err:
            raise _at(index, err) from err

    def _decoded_bytes(self, index: int) -> int:
        try:
            header = read_header(self._encoded[index])
            check_image_size(header.height, header.width, self._max_px)
        except FramelaneError as err:
            raise _at(index, err) from err
        return header.num_px * _BYTES_A_PX


def output_tensors(results: Sequence[FrameResult], names: Sequence[str]) -> list[Tensor]:
    """The outputs of these names for a batch.

    Frames have different numbers of boxes: rows behind a frame's last box are zeros, with class `NO_CLASS` and an empty
    name. There is always at least one row, so that no output is empty and each keeps its dtype. A frame that did not
    finish has `NOT_FINISHED` in `num_detections`.
    """
    most = max(1, *(len(result.detections) for result in results))
    count = len(results)
    boxes = np.zeros((count, most, 4), np.float32)
    scores = np.zeros((count, most), np.float32)
    class_ids = np.full((count, most), NO_CLASS, np.int64)
    num_detections = np.full(count, NOT_FINISHED, np.int32)
    class_names: list[str] = []
    for index, result in enumerate(results):
        found = result.detections
        size = len(found)
        if result.outcome is Outcome.FINISHED:
            num_detections[index] = size
        boxes[index, :size] = found.boxes_xyxy
        scores[index, :size] = found.scores
        class_ids[index, :size] = found.class_ids
        class_names += [*result.class_names[:size], *[""] * (most - min(size, len(result.class_names)))]
    values: dict[str, Array] = {
        "num_detections": num_detections,
        "boxes_xyxy": boxes,
        "scores": scores,
        "class_ids": class_ids,
        "class_names": texts(class_names, (count, most)),
        "outcomes": texts([result.outcome.value for result in results], (count,)),
        "errors": texts(["" if result.error is None else str(result.error) for result in results], (count,)),
        "frame_ids": texts([result.frame_id for result in results], (count,)),
        "models": texts([result.model or "" for result in results], (count,)),
        "rungs": np.asarray([result.rung for result in results], np.int32),
    }
    datatypes = {spec.name: spec.datatype for spec in OUTPUTS}
    return [Tensor(name, datatypes[name], values[name]) for name in names]


def error_of(results: Sequence[FrameResult]) -> FramelaneError | None:
    """One error for a batch of which not every frame finished: the first one's kind, the longest time to wait."""
    failed = [(index, result.error) for index, result in enumerate(results) if result.error is not None]
    if not failed:
        return None
    index, first = failed[0]
    waits_s = [_wait_s(result) for result in results if result.error is not None]
    others = f" ({len(failed)} of {len(results)} did not finish)" if len(results) > 1 else ""
    return type(first)(f"images[{index}]: {first}{others}", max((s for s in waits_s if s is not None), default=None))


def _wait_s(result: FrameResult) -> float | None:
    if result.error is not None and result.error.retry_after_s is not None:
        return result.error.retry_after_s
    return None if result.verdict is None else result.verdict.retry_after_s


def _raw_images(tensor: InputTensor, max_px: int) -> list[Image]:
    if tensor.datatype != "UINT8" or tensor.values.ndim != 4 or tensor.values.shape[3] != 3:
        raise InferRequestError(
            f"inputs[0]: got {tensor.datatype[:20]!a} of shape {list(tensor.values.shape)}, allowed is UINT8 of shape "
            f"[images, height, width, 3] in BGR; images of several sizes go as {ENCODED_IMAGES} or one a request"
        )
    height, width = tensor.values.shape[1:3]
    check_image_size(height, width, max_px)
    return list(tensor.values)


def _encoded_images(tensor: InputTensor) -> list[bytes]:
    if tensor.datatype != BYTES or math.prod(tensor.values.shape[1:]) != 1:
        raise InferRequestError(
            f"inputs[0]: got {tensor.datatype[:20]!a} of shape {list(tensor.values.shape)}, allowed is {BYTES} of "
            "shape [images] or [images, 1]: a JPEG or PNG each"
        )
    images: list[bytes] = list(tensor.values.flat)
    if tensor.is_binary:
        return images
    try:
        return [base64.b64decode(text, validate=True) for text in images]
    except binascii.Error as err:
        raise InferRequestError(
            f"inputs[0].data: got text that is no base64 ({err}), which images in JSON must be; or send them binary"
        ) from err


def _at(index: int, err: FramelaneError) -> FramelaneError:
    return type(err)(f"images[{index}]: {err}", err.retry_after_s)
