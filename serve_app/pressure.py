"""How far a pool is from what it can do: the rung that its queue and its memory force on noncritical frames."""

from __future__ import annotations

from serve_app.memory_level import MemoryLevel

# The queue of normal frames, as a share of their default deadline: above the first the ladder goes one rung down, below
# the second one up. Half way to the deadline there is still time for a frame that was admitted before.
HIGH_WAIT_FRACTION = 0.35
LOW_WAIT_FRACTION = 0.1
# Down at once, so that few frames are late; up slowly, so that it does not flap.
DOWN_DWELL_S = 0.2
UP_DWELL_S = 2.0


class Pressure:
    """Steps along the ladder by the predicted wait of a normal frame; memory sets a floor.

    Hysteresis: between the two watermarks nothing changes. Dwell: at most one step down in `DOWN_DWELL_S`, except to
    the last rung where frames would be rejected otherwise, and one up in `UP_DWELL_S` of calm. Liveness: an empty queue
    and free memory lead back to rung 0, one step a dwell.

    Attributes:
        rung: the first rung that noncritical frames may take; 0 is their own model at their own size.
        memory_rung: the part of it that memory asks for.
        pauses_deferred: whether deferred frames must wait however late it is.
        sheds: whether noncritical frames must be rejected.
    """

    def __init__(self, *, num_rungs: int, slo_s: float) -> None:
        """Take how many rungs the ladder has below the first, and the default deadline of normal frames."""
        self._num_rungs = num_rungs
        self._high_s = HIGH_WAIT_FRACTION * slo_s
        self._low_s = LOW_WAIT_FRACTION * slo_s
        self._queue_rung = 0
        self._stepped_s = float("-inf")
        self._calm_since_s: float | None = None
        self.rung = 0
        self.memory_rung = 0
        self.pauses_deferred = False
        self.sheds = False
        self._memory = MemoryLevel.NORMAL

    @property
    def memory(self) -> MemoryLevel:
        """How full the memory of the pool's devices is."""
        return self._memory

    @memory.setter
    def memory(self, level: MemoryLevel) -> None:
        self._memory = level
        self.pauses_deferred = level >= MemoryLevel.CRITICAL
        self.sheds = level is MemoryLevel.SHED
        self.memory_rung = self._num_rungs if self.pauses_deferred else min(int(level), self._num_rungs)
        self._go_to(self._queue_rung)

    def goes_down(self, now_s: float) -> None:
        """Go to the last rung at once: frames would have to be rejected."""
        self._go_to(self._num_rungs)
        self._stepped_s = now_s
        self._calm_since_s = None

    def waits(self, wait_s: float, now_s: float) -> None:
        """A normal frame that came now would wait so long."""
        if wait_s >= self._low_s:
            self._calm_since_s = None
            is_high = wait_s > self._high_s and self._queue_rung < self._num_rungs
            if is_high and now_s - self._stepped_s >= DOWN_DWELL_S:
                self._go_to(self._queue_rung + 1)
                self._stepped_s = now_s
        elif self._calm_since_s is None:
            self._calm_since_s = now_s
        else:
            calm_s = now_s - max(self._calm_since_s, self._stepped_s)
            if self._queue_rung and calm_s >= UP_DWELL_S:
                # One step for each dwell that has passed: nobody asked while nothing came.
                self._go_to(max(0, self._queue_rung - int(calm_s / UP_DWELL_S)))
                self._stepped_s = now_s

    def _go_to(self, queue_rung: int) -> None:
        """The queue asks for a rung; memory may ask for a lower one."""
        self._queue_rung = queue_rung
        self.rung = max(queue_rung, self.memory_rung)
