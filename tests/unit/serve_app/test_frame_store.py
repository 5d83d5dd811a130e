"""A full object store is the load's fault, and the message says what to do."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import ray
from ray.exceptions import ObjectStoreFullError, OutOfDiskError

from serve_app.errors import FrameRejectedError
from serve_app.frame_store import RETRY_AFTER_S, put_frame

FRAME = np.zeros((480, 640, 3), np.uint8)


@pytest.mark.parametrize(
    ("raised", "full"),
    [(ObjectStoreFullError("…"), "this machine's object store"), (OutOfDiskError("…"), "the disk that it spills to")],
    ids=["store", "disk"],
)
def test_a_frame_without_room_is_rejected_with_a_cure(monkeypatch, raised, full):
    """Not as if the service had gone; trying again later may help."""

    def put(_):
        raise raised

    monkeypatch.setattr(ray, "put", put)
    with pytest.raises(FrameRejectedError, match=rf"got 921,600 bytes, and {full} is full; .*max_waiting_bytes") as err:
        put_frame(FRAME)

    assert err.value.retry_after_s == RETRY_AFTER_S
    assert str(pickle.loads(pickle.dumps(err.value))) == str(err.value)  # noqa: S301 (our own)


def test_a_frame_with_room_is_put_as_it_is(monkeypatch):
    """No copy on the way."""
    stored = []
    monkeypatch.setattr(ray, "put", lambda image: stored.append(image) or "ref")

    assert put_frame(FRAME) == "ref"
    assert stored[0] is FRAME
