"""How far a build is: the builder's nested phases as one fraction that only grows, and the way to stop it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Called with the fraction that is done (0 to 1) and the phase that the builder is in, from threads of the builder.
BuildProgress = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class _Phase:
    """Where a phase begins on the scale of the whole build, how much of it is its own, and its steps."""

    begin: float
    width: float
    num_steps: int


class PhaseTree:
    """The phases that run now. A phase fills the step of its parent in which it began.

    The builder does not tell its phases beforehand: several may begin in one step of their parent, and each fills it
    anew. So the fraction is the largest ever reached.
    """

    def __init__(self) -> None:
        self._phases: dict[str, _Phase] = {}
        self._done: dict[str, int] = {}
        self._fraction = 0.0

    @property
    def fraction(self) -> float:
        """The part of the build that is done, 0 to 1."""
        return self._fraction

    def start(self, name: str, parent: str | None, num_steps: int) -> None:
        """A phase begins; names are unique among those that run."""
        outer = self._phases.get(parent) if parent is not None else None
        begin, width = 0.0, 1.0
        if outer is not None and parent is not None:
            width = outer.width / outer.num_steps
            begin = outer.begin + width * min(self._done[parent], outer.num_steps - 1)
        self._phases[name] = _Phase(begin, width, max(1, num_steps))
        self._done[name] = 0

    def step(self, name: str, step: int) -> None:
        """The step with this index, from 0, is done."""
        if name in self._phases:
            self._done[name] = max(self._done[name], step + 1)
            self._reach(name, min(1.0, self._done[name] / self._phases[name].num_steps))

    def finish(self, name: str) -> None:
        """A phase ended, whether or not it took all its steps."""
        if name in self._phases:
            self._reach(name, 1.0)
            del self._phases[name], self._done[name]

    def _reach(self, name: str, share: float) -> None:
        phase = self._phases[name]
        self._fraction = max(self._fraction, min(1.0, phase.begin + phase.width * share))


class BuildWatch:
    """Follows one build on behalf of its caller, and stops it when asked. Thread-safe.

    Attributes:
        failure: what `on_progress` raised, if it did; the build is then stopped.
    """

    def __init__(self, on_progress: BuildProgress | None) -> None:
        self._on_progress = on_progress
        self._tree = PhaseTree()
        self._lock = threading.Lock()
        self._cancelled = False
        self.failure: BaseException | None = None

    def cancel(self) -> None:
        """Let the builder stop at its next step."""
        self._cancelled = True

    def start(self, name: str, parent: str | None, num_steps: int) -> None:
        """A phase begins."""
        with self._lock:
            self._tree.start(name, parent, num_steps)
            self._tell(name)

    def step(self, name: str, step: int) -> bool:
        """A step is done; answers whether the build is to go on."""
        with self._lock:
            self._tree.step(name, step)
            self._tell(name)
        return not self._cancelled

    def finish(self, name: str) -> None:
        """A phase ended."""
        with self._lock:
            self._tree.finish(name)
            self._tell(name)

    def _tell(self, name: str) -> None:
        if self._on_progress is None or self._cancelled:
            return
        try:
            self._on_progress(self._tree.fraction, name)
        except BaseException as err:  # it would unwind through the library's own frames and end the process
            self.failure = err
            self._cancelled = True


def make_monitor(module: Any, watch: BuildWatch) -> Any:
    """A progress monitor of these bindings that tells `watch`; it must live as long as the build."""

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]  # the bindings are not typed
        """Hands every event on."""

        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            watch.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return watch.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            watch.finish(phase_name)

    return Monitor()
