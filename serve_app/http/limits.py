"""How much one request may be, and all of them together; values only."""

from __future__ import annotations

from dataclasses import dataclass

from serve_app.plan import Plan

# What critical requests find free however many others there are.
NONCRITICAL_FRACTION = 0.8
# Longer waits go in steps: so a service, a proxy or a client that went away is noticed.
MAX_WAIT_S = 20.0


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds of the HTTP door of one plan; attributes as in `HttpRules`."""

    max_body_bytes: int
    max_bodies_bytes: int
    max_image_px: int
    max_parts: int
    read_timeout_s: float
    max_requests: int
    max_wait_s: float = MAX_WAIT_S


def limits_of(plan: Plan) -> HttpLimits:
    """The limits of a plan; no image may have more px than a frame of it."""
    rules, most_px = plan.http, plan.limits.max_frame_px
    return HttpLimits(
        max_body_bytes=rules.max_body_bytes,
        max_bodies_bytes=rules.max_bodies_bytes,
        max_image_px=most_px if rules.max_image_px is None else min(rules.max_image_px, most_px),
        max_parts=rules.max_parts,
        read_timeout_s=rules.read_timeout_s,
        max_requests=rules.max_requests,
    )
