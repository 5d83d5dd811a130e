"""How often which frames stand in a frame log: what becomes the rates of a `Traffic`. Pure, it reads no file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from serve_app.errors import InvalidPlanError
from serve_app.file_fields import priority_of, refuse, side_of, slo_of
from serve_app.frames import Priority
from serve_app.planning.traffic import SizeHw, SizeRate, Traffic

# Clients that pass on what is left of a deadline name another one with each frame: what was said once is checked once,
# as long as that does not fill the memory.
MAX_KNOWN = 20_000

_Key = tuple[SizeHw, Priority, "float | None", "str | None"]


class TrafficCount:
    """Counts records by size, priority, deadline and camera.

    With more than `max_entries` of those, cameras are told apart no more, so that memory stays bounded.
    """

    def __init__(self, max_entries: int | None = None) -> None:
        """Start with none; `max_entries` None: as many as come."""
        self._max_entries = max_entries
        self._counts: Counter[_Key] = Counter()
        self._known: dict[tuple[str, str, str, str], _Key | None] = {}
        self.knows_cameras = True

    def __len__(self) -> int:
        return len(self._counts)

    def add(self, where: str, record: Mapping[str, object]) -> bool:
        """Count a record; False for a frame that was refused for what its client said of it.

        Raises:
            InvalidPlanError: a value that no router would have let pass.
        """
        said = (
            str(record.get("source_hw")), str(record.get("priority")), str(record.get("slo_s")),
            str(record.get("camera")),
        )  # fmt: skip
        try:
            key = self._known[said]
        except KeyError:
            key = _key(where, record)
            if len(self._known) == MAX_KNOWN:
                self._known.clear()
            self._known[said] = key
        if key is None:
            # Another frame of which the client said the same may have been invalid for another reason.
            if record.get("outcome") != "rejected":
                _key(where, record)
            return False
        self._counts[key if self.knows_cameras else _without_camera(key)] += 1
        if self._max_entries is not None and len(self._counts) > self._max_entries and self.knows_cameras:
            self._forget_cameras()
        return True

    def traffic(self, over_s: float) -> Traffic:
        """The counts as rates over so many seconds, above 0."""
        return tuple(
            SizeRate(size_hw, count / over_s, priority, slo_s, camera)
            for (size_hw, priority, slo_s, camera), count in self._counts.items()
        )

    def _forget_cameras(self) -> None:
        self.knows_cameras = False
        counts, self._counts = self._counts, Counter()
        for key, count in counts.items():
            self._counts[_without_camera(key)] += count


def _without_camera(key: _Key) -> _Key:
    size_hw, priority, slo_s, _ = key
    return size_hw, priority, slo_s, None


def _key(where: str, record: Mapping[str, object]) -> _Key | None:
    """What a record counts for; None for a frame that was refused for what its client said of it."""
    try:
        size = record.get("source_hw")
        if not isinstance(size, list) or len(size) != 2:
            refuse(where, "source_hw", size, "[height, width] in px")
        size_hw = (side_of(where, "source_hw height", size[0]), side_of(where, "source_hw width", size[1]))
        priority, slo_s = priority_of(where, record.get("priority")), slo_of(where, record.get("slo_s"))
        # Two digits tell deadlines apart.
        slo_s = None if slo_s is None else float(f"{slo_s:.2g}")
    except InvalidPlanError:
        # The log repeats what a client said, whatever that was; a frame for which there was no room counts.
        if record.get("outcome") == "rejected":
            return None
        raise
    return size_hw, priority, slo_s, str(record.get("camera"))
