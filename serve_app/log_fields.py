"""What makes a line of our logs readable by machines: the names of its fields, and how Serve is given them."""

from __future__ import annotations

import logging
import logging.handlers

# Serve's own key: its JSON formatter puts what lies below it beside the message.
EXTRA_FIELDS = "ray_serve_extra_fields"
SERVE_LOGGER = "ray.serve"
OUR_LOGGERS = ("serve_app", "engines")
# The fields that our lines may carry. Not `replica` and the like: Serve fills those in with what it calls so.
FIELDS = (
    "frame_id", "camera", "priority", "outcome", "pool", "bucket", "model", "engine_replica", "batch_id",
    "num_frames", "cause", "level", "rung", "num_replicas",
)  # fmt: skip
# Clients choose ids and names: a line stays a line.
MAX_TEXT = 200

Extra = dict[str, dict[str, str | int]]


def fields(**values: str | int | None) -> Extra:
    """The `extra` of a logging call; a field that is None is left out.

    Raises:
        KeyError: a name that is not among `FIELDS`.
    """
    unknown = values.keys() - set(FIELDS)
    if unknown:
        raise KeyError(f"log fields: got {', '.join(sorted(unknown))}; allowed are {', '.join(FIELDS)}")
    return {
        EXTRA_FIELDS: {
            name: value[:MAX_TEXT] if isinstance(value, str) else value
            for name, value in values.items()
            if value is not None
        }
    }


def log_to_serve(level: str) -> None:
    """Let our loggers write where this replica's Serve logger writes; outside a replica, where they wrote before.

    Serve sets up its own logger only, at a level of its own: what it says of each call is nobody's news.
    """
    handlers = logging.getLogger(SERVE_LOGGER).handlers
    if not any(isinstance(handler, logging.handlers.MemoryHandler) for handler in handlers):
        return  # only replicas have a file
    for name in OUR_LOGGERS:
        ours = logging.getLogger(name)
        ours.handlers = list(handlers)
        ours.propagate = False
        ours.setLevel(level.upper())
