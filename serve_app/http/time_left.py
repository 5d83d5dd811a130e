"""What is left of a frame's seconds once it has waited at the door."""

from __future__ import annotations

from serve_app.http.errors import DoorFullError

# A wait like this is not taken off a frame's seconds: so the plan's default stays the router's to know.
SHORT_WAIT_S = 0.05
# No sooner is it worth to ask again.
ASK_AGAIN_S = 1.0


def time_left_s(slo_s: float | None, default_s: float, waited_s: float, wait_s: float = 0.0) -> float | None:
    """Seconds that a frame has left; None: the plan's default, nearly whole.

    Args:
        slo_s: that it was given; None: the plan's default.
        default_s: the plan's default for its priority.
        waited_s: for how long it has waited since its request came.
        wait_s: for how long it would have to wait further.

    Raises:
        DoorFullError: nothing is left, or would be: what cannot be in time leaves at once.
    """
    gone_s = waited_s + wait_s
    if gone_s < SHORT_WAIT_S:
        return slo_s
    of_s = default_s if slo_s is None else slo_s
    if gone_s >= of_s:
        raise DoorFullError(
            f"frame: its {of_s:g} s would be over before its turn comes; try again later, send fewer, or give it more "
            "seconds",
            max(ASK_AGAIN_S, wait_s),
        )
    return of_s - gone_s
