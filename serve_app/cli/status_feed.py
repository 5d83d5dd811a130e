"""Looks at a service again and again, in a process of its own: Ray ends a process whose cluster has gone for good."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from multiprocessing.connection import Connection

from serve_app.errors import FramelaneError
from serve_app.service_view import ServiceView


class Feed:
    """A child process that looks every few seconds and sends what it saw. It ends at the first trouble."""

    def __init__(self, address: str | None, every_s: float) -> None:
        """Start the child; `address` is as for `Client.connect`."""
        context = multiprocessing.get_context("spawn")  # threads of a parent's Ray would not survive a fork
        self._line, childs_line = context.Pipe()
        # The child leaves when the line does, however we end.
        self._child = context.Process(target=_look_again_and_again, args=(childs_line, address, every_s), daemon=True)
        self._child.start()
        childs_line.close()

    def next(self, timeout_s: float) -> ServiceView | str | None:
        """The next look; why there are no more; None: nothing came in time."""
        try:
            if not self._line.poll(timeout_s):
                return None
            answer: ServiceView | str = self._line.recv()
        except (EOFError, OSError):
            return "service: the connection to its cluster was lost"
        return answer

    def close(self) -> None:
        """End the child."""
        self._line.close()
        self._child.terminate()
        self._child.join()


def _look_again_and_again(line: Connection, address: str | None, every_s: float) -> None:
    """The child: send views until nobody listens, or why that has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    # What Ray says when a cluster goes is no part of the page.
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 (until the process ends)
    for stream in (1, 2):
        os.dup2(sys.stdout.fileno(), stream)
    from serve_app.client import Client
    from serve_app.cluster_look import look

    try:
        client = Client.connect(address)
        while True:
            line.send(look(client))
            if line.poll(every_s):  # nothing is ever sent here: it was closed
                return
    except FramelaneError as err:
        line.send(str(err))
    except (BrokenPipeError, ConnectionResetError, EOFError):
        return
    except Exception as err:  # it must be seen, and the screen is the parent's
        line.send(f"status: {type(err).__name__}: {err}")
