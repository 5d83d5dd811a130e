"""`framelane status --watch`: pages follow the looks, a service that goes is said and looked for, Ctrl-C lets go."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console
from status_samples import STATUS, VIEW

from serve_app.cli.status_watch import LATE_S, POLL_S, WINDOW_S, Watch, keep_watching
from serve_app.service_view import ServiceView

GONE = "service: the call did not come back"


def at(uptime_s: float, finished: int = 0) -> ServiceView:
    """A look at a service that has been up for so long."""
    return dataclasses.replace(
        VIEW, status=dataclasses.replace(STATUS, uptime_s=uptime_s, outcomes={"finished": finished})
    )


def text(watch: Watch, now_s: float) -> str:
    """What is shown."""
    console = Console(width=100, file=io.StringIO(), no_color=True)
    console.print(watch.page(now_s), highlight=False)
    return console.file.getvalue()


class Script:
    """Looks that give what the test says, in turns, and a clock that passes with them."""

    def __init__(self, *lives):
        self.lives = list(lives)
        self.now_s = 0.0
        self.num_open = 0
        self.num_opened = 0
        self.pages = []

    def open_looks(self):
        """The next life begins."""
        self.num_open += 1
        self.num_opened += 1
        self._answers = iter(self.lives.pop(0))
        return self

    def next(self, timeout_s):
        """The next answer; then the end of these looks, and of the last ones Ctrl-C."""
        assert timeout_s == POLL_S
        self.now_s += 1.0
        answer = next(self._answers, EOFError if self.lives else KeyboardInterrupt)
        if isinstance(answer, type):
            raise answer
        return answer

    def close(self):
        """These looks are over."""
        self.num_open -= 1

    def run(self, every_s=1.0):
        """Watch until the script ends; the pages, each with whether it had news."""
        watch = Watch(every_s, 0.0)
        with pytest.raises(KeyboardInterrupt):
            keep_watching(
                watch,
                self.open_looks,
                lambda shown, is_new: self.pages.append((text(shown, self.now_s).splitlines(), is_new)),
                lambda: self.now_s,
            )
        return self.pages


def test_the_page_follows_the_looks():
    """At first nothing is known; then each look is news."""
    script = Script([None, at(100.0), None, at(101.0)])
    pages = script.run()

    assert [(lines[0], is_new) for lines, is_new in pages] == [
        ("looking for the service, 1 s", False),
        ("framelane  up 2 min, 0 frames/s, 38 in flight, 1/1 router", True),
        ("framelane  up 2 min, 0 frames/s, 38 in flight, 1/1 router", False),
        ("framelane  up 2 min, 0 frames/s, 38 in flight, 1/1 router", True),
    ]
    assert script.num_open == 0


def test_a_service_that_goes_is_said_and_looked_for_until_it_is_back():
    """With the first reason, for how long, and how it was last; the looks that ended are closed."""
    script = Script([at(100.0), GONE, "service: none of yours runs"], [None, "service: none of yours runs", at(3.0)])
    pages = script.run()

    assert [(lines[0], is_new) for lines, is_new in pages] == [
        ("framelane  up 2 min, 0 frames/s, 38 in flight, 1/1 router", True),
        (f"away for 0 s, looking for it: {GONE}", True),
        (f"away for 1 s, looking for it: {GONE}", False),
        (f"away for 2 s, looking for it: {GONE}", False),  # these looks ended
        (f"away for 3 s, looking for it: {GONE}", False),
        (f"away for 4 s, looking for it: {GONE}", False),
        ("framelane  up 3 s, 0 frames/s, 38 in flight, 1/1 router", True),
    ]
    assert "as it was last:" in pages[1][0]
    assert (script.num_opened, script.num_open) == (2, 0)


def test_looks_that_end_without_a_word_are_a_lost_connection():
    """Ray has ended their process."""
    script = Script([at(100.0)], [at(101.0)])
    pages = script.run()

    assert [lines[0] for lines, _ in pages][1] == (
        "away for 0 s, looking for it: service: the connection to its cluster was lost"
    )
    assert (script.num_opened, script.num_open) == (2, 0)


def test_a_service_that_was_never_there_is_looked_for():
    """Watching may begin before it."""
    pages = Script([GONE, GONE, at(1.0)]).run()

    assert pages[0] == ([f"away for 0 s, looking for it: {GONE}"], True)
    assert pages[-1][0][0].startswith("framelane  up 1 s")


def test_rates_are_those_of_the_last_ten_seconds():
    """Neither of one second, which flickers, nor since the start, which hides what happens now."""
    watch = Watch(1.0, 0.0)
    for second in range(31):
        watch.seen(at(100.0 + second, finished=second if second < 20 else 20 + 100 * (second - 20)), float(second))

    assert watch.before.status.uptime_s == 130.0 - WINDOW_S
    assert "100 frames/s" in text(watch, 30.0)


def test_after_a_restart_rates_begin_anew():
    """The counts of the service before mean nothing."""
    watch = Watch(1.0, 0.0)
    watch.seen(at(500.0, finished=10_000), 1.0)
    watch.seen(at(2.0, finished=4), 2.0)

    assert (watch.before, watch.view.status.uptime_s) == (None, 2.0)
    assert "2.0 frames/s" in text(watch, 2.0)


def test_a_look_that_does_not_come_is_said():
    """The page is old: that must not look like a calm service."""
    watch = Watch(2.0, 0.0)
    watch.seen(at(500.0), 10.0)

    assert text(watch, 12.0 + LATE_S).startswith("framelane")
    assert text(watch, 12.1 + LATE_S).startswith("no answer for 7 s")
