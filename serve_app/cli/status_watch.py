"""`framelane status --watch`: one page that is kept current, whatever becomes of the service meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from rich.console import Group, RenderableType
from rich.text import Text

from serve_app.cli.status_tables import duration, status_page
from serve_app.service_view import ServiceView

# Rates are means over so long: a camera that sends once a second would flicker otherwise.
WINDOW_S = 10.0
# How soon a key or the age of the page is noticed.
POLL_S = 0.5
# Looks that are this much older than they should be say so.
LATE_S = 5.0


class Looks(Protocol):
    """Where views come from; `status_feed.py` is the real one."""

    def next(self, timeout_s: float) -> ServiceView | str | None:
        """The next look, or what is wrong; None: nothing came in time. Raises `EOFError` when there are no more."""

    def close(self) -> None:
        """Let go of it."""


class Watch:
    """What is known of a service that is being watched. Reads no clock."""

    def __init__(self, every_s: float, now_s: float) -> None:
        """Begin with nothing known."""
        self._every_s = every_s
        self._views: deque[tuple[float, ServiceView]] = deque()
        self._since_s = now_s
        self._trouble: str | None = None

    def seen(self, view: ServiceView, now_s: float) -> None:
        """A look succeeded."""
        if self._views and view.status.uptime_s < self._views[-1][1].status.uptime_s:
            self._views.clear()  # it started anew
        self._views.append((now_s, view))
        while len(self._views) > 2 and self._views[1][0] <= now_s - WINDOW_S:
            self._views.popleft()
        self._trouble = None

    def lost(self, reason: str, now_s: float) -> None:
        """There will be no more looks for now; of several reasons the first one counts."""
        if self._trouble is None:
            self._trouble = reason
            self._since_s = now_s

    @property
    def is_away(self) -> bool:
        """Whether the service was lost and not seen since."""
        return self._trouble is not None

    @property
    def view(self) -> ServiceView | None:
        """The last look."""
        return self._views[-1][1] if self._views else None

    @property
    def before(self) -> ServiceView | None:
        """The look that rates are counted from; None: the start."""
        return self._views[0][1] if len(self._views) > 1 else None

    def page(self, now_s: float) -> RenderableType:
        """What to show now."""
        if self._trouble is not None:
            away = Text(f"away for {duration(now_s - self._since_s)}, looking for it: {self._trouble}", "bold red")
            return Group(away, "", Text("as it was last:", "dim"), self._last()) if self._views else away
        if not self._views:
            return Text(f"looking for the service, {duration(now_s - self._since_s)}", "dim")
        age_s = now_s - self._views[-1][0]
        if age_s > self._every_s + LATE_S:
            return Group(Text(f"no answer for {duration(age_s)}", "bold yellow"), "", self._last())
        return self._last()

    def _last(self) -> RenderableType:
        return status_page(self._views[-1][1], self.before)


def keep_watching(
    watch: Watch, open_looks: Callable[[], Looks], show: Callable[[Watch, bool], None], clock_s: Callable[[], float]
) -> None:
    """Watch until interrupted, and look anew where looks end.

    Args:
        watch: what is known.
        open_looks: begins to look.
        show: called after each wait with the watch, and whether there is news.
        clock_s: the time.
    """
    looks = open_looks()
    try:
        while True:
            was_away = watch.is_away
            try:
                answer = looks.next(POLL_S)
            except EOFError:
                looks.close()
                looks = open_looks()
                answer = "service: the connection to its cluster was lost"
            if isinstance(answer, ServiceView):
                watch.seen(answer, clock_s())
            elif answer is not None:
                watch.lost(answer, clock_s())
            show(watch, isinstance(answer, ServiceView) or watch.is_away != was_away)
    finally:
        looks.close()
