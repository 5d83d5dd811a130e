"""Values of frame logs, CSV and YAML files, checked: an error names the place, what was got and what is allowed.

All of them raise `InvalidPlanError`.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Sequence
from typing import NoReturn

from serve_app.errors import InvalidPlanError
from serve_app.frames import MAX_SLO_S, Priority

# The plan's own bounds, which only a slip of the pen passes.
MAX_SIDE_PX = 16_384
MAX_RATE_HZ = 1e6


def record_of(where: str, line: str) -> dict[str, object]:
    """One line of a frame log."""
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        refuse(where, "record", line, "one JSON object a line, as the frame log has it; remove the damaged line")
    return record


def refuse(where: str, what: str, got: object, allowed: str) -> NoReturn:
    """Raise the error of a value that is not allowed."""
    raise InvalidPlanError(f"{where}: {what}: got {got!r:.80}, allowed is {allowed}")


def check_keys(where: str, keys: Sequence[str], known: Sequence[str]) -> None:
    """Refuse keys that are unknown, or that stand there twice."""
    for key in keys:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, 0.5)
            cure = f"did you mean {near[0]!r}?" if near else f"allowed are {', '.join(known)}"
            raise InvalidPlanError(f"{where}: unknown key {key!r}; {cure}")
        if list(keys).count(key) > 1:
            raise InvalidPlanError(f"{where}: got {key!r} more than once, allowed is once")


def number_of(where: str, what: str, value: object, allowed: str) -> float:
    """A finite number; text is read, as CSV has nothing else, but a switch is none."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        refuse(where, what, value, f"a number of {allowed}")
    return number


def whole_of(where: str, what: str, value: object, most: int, unit: str) -> int:
    """A whole number from 1 to `most`."""
    number = number_of(where, what, value, unit)
    if number != int(number) or not 1 <= number <= most:
        refuse(where, what, value, f"a whole number of {unit} from 1 to {most}")
    return int(number)


def side_of(where: str, what: str, value: object) -> int:
    """A side of a frame, in px."""
    return whole_of(where, what, value, MAX_SIDE_PX, "px")


def rate_of(where: str, what: str, value: object) -> float:
    """Frames a second."""
    number = number_of(where, what, value, "frames a second")
    if not 0 < number <= MAX_RATE_HZ:
        refuse(
            where, what, value, f"a number of frames a second above 0, at most {MAX_RATE_HZ:g}; leave out what is off"
        )
    return number


def priority_of(where: str, value: object) -> Priority:
    """A priority by its name."""
    try:
        return Priority(value)
    except ValueError:
        refuse(where, "priority", value, " or ".join(repr(priority.value) for priority in Priority))


def slo_of(where: str, value: object) -> float | None:
    """Seconds until a frame must be done; None: the plan's default."""
    if value is None:
        return None
    number = number_of(where, "slo_s", value, "seconds")
    if not 0 < number <= MAX_SLO_S:
        refuse(
            where, "slo_s", value, f"a number of seconds above 0, at most {MAX_SLO_S:g}; leave it out for the default"
        )
    return number
